"""Files and links that are written completely or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def link(path: Path, target: str) -> None:
    """Point the link `path` at `target` in one atomic step. A power cut leaves it either undone or done."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(target)
    rename_durably(unfinished, path)


def rename_durably(source: Path, path: Path) -> None:
    """Rename `source` to `path` in the same folder, so that a power cut does not undo it. Needs no disk space."""
    source.replace(path)
    # A rename is on the disk when its folder is: see fsync(2).
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def link_target(path: Path) -> str | None:
    """The last part of a link's target, which is a release id for the program's links. None where there is no link."""
    return path.readlink().name if path.is_symlink() else None


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace the file at `path`, whose mode is `mode` whatever the umask is. Links are replaced and never followed."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), mode)
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file. Raises ValueError for anything else."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return data
