"""The Aptfile of an app: the Debian packages that it needs."""

from __future__ import annotations

from pathlib import Path


def read_aptfile(folder: Path) -> tuple[str, ...]:
    """The Debian packages that the folder's Aptfile names; none where there is no such file.

    Raises:
        AppError: for a line that names no package.
    """
    return ()
