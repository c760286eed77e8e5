"""The same job done by Decant and by its peers, side by side (bench/README.md)."""
