"""The same job by this program and by its peers, side by side. See README.md."""
