"""Decant pours a Flask app onto servers that its user owns. `docs/design.md` says how the rooms fit together."""
