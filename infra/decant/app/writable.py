"""The paths of an app folder that the app may write."""

from __future__ import annotations

from pathlib import Path

from decant.app.model import AppOptions, WebProcess


def read_persistent(folder: Path, web: WebProcess, options: AppOptions) -> tuple[str, ...]:
    """The paths in the app folder that the app may write and that outlive a release: the settings' and Flask's own.

    Raises:
        AppError: for a path that cannot be one.
    """
    return options.persistent
