"""Migrations of Flask-Migrate: the folder that the release command needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_UPGRADE = re.compile(r"\bflask(?: [^;&|]*?)? db upgrade\b(?P<options>[^;&|]*)")
_DIRECTORY = re.compile(r"(?:-d|--directory)[ =]?(?P<folder>[^\s=]+)")


def check_migrations(folder: Path, command: str, starts: Iterable[str]) -> list[str]:
    """A warning for a release command that runs migrations of an app that has none.

    `starts` are folders where the command or the app may start, relative to the app folder.
    """
    upgrade = _UPGRADE.search(command)
    if upgrade is None:
        return []
    named = _DIRECTORY.search(upgrade["options"])
    name = named["folder"].strip("'\"()") if named else "migrations"
    if any((folder / start / name).is_dir() for start in (".", *starts)):
        return []
    # The app itself may name another folder, which `flask db init` made.
    if not named and any(any(folder.glob(f"{depth}alembic.ini")) for depth in ("*/", "*/*/", "*/*/*/")):
        return []
    return [f"flask db upgrade needs {name}/, and there is none: flask db init && flask db migrate"]
