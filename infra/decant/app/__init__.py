"""The app folder: what Decant reads from it, what is shipped of it, and the id of a release."""
