"""Where things are on a machine, and files and links that are whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

BASE = Path("/var/lib/decant")
RUN = Path("/run/decant")
OPT = Path("/opt/decant")
SETTINGS = Path("/etc/decant/settings.json")
CACHE = Path("/var/cache/decant")
RELEASES, VENVS, INCOMING = BASE / "releases", BASE / "venvs", BASE / "incoming"
PERSISTED = BASE / "persisted"
CURRENT, PREVIOUS = RUN / "current", RUN / "previous"
BACK = RUN / ".back"  # what going back renames to CURRENT
OPEN = RUN / "open"  # while it is there, nginx lets a balancer's health check through to the app
CLOSING = RUN / "closing"  # what OPEN is called while `close` waits for the balancer


class HostError(Exception):
    """Something the user has to know: what happened, and what to do."""


def open_lock(name: str) -> TextIO:
    """A lock file that only root can open: whoever can read a file can lock it, and so stop a revert."""
    descriptor = os.open(RUN / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "r+", encoding="utf-8")


@contextlib.contextmanager
def _locked(name: str, wait: bool = True) -> Iterator[bool]:
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open_lock(name) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def staging_lock(*, wait: bool = True) -> contextlib.AbstractContextManager[bool]:
    """For what lies in releases/ and venvs/. Held for minutes; take it before `switching_lock`, never after."""
    return _locked("staging.lock", wait)


def switching_lock() -> contextlib.AbstractContextManager[bool]:
    """For what is live. Held for moments: the timer that goes back must not wait for an installation."""
    return _locked("switching.lock")


def link(path: Path, target: str) -> None:
    """Point `path` at `target` in one atomic step that a power cut leaves either undone or done."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(target)
    put_in_place(unfinished, path)


def put_in_place(unfinished: Path, path: Path) -> None:
    """Rename, and see to it that a power cut does not undo it. Takes no room on the disk."""
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def linked(path: Path) -> str | None:
    """The release that a link names, None where there is none."""
    return path.readlink().name if path.is_symlink() else None


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """A file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), mode)
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is no file."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return data
