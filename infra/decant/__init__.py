"""Decant puts a Flask app live on servers that its user owns: docs/architecture.md shows how its packages fit."""
