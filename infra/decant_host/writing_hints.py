"""Hints for apps that write where they may not: which path it is, and the setting that allows it."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from decant_host.paths import BASE, RELEASES

DATA = BASE / "data"
"""The folder that the app finds in $DATA_DIR."""

_IN_RELEASE = re.compile(rf"{re.escape(str(RELEASES))}/[0-9a-f]{{12}}/app/?")


def _read_only(match: re.Match[str], settings: Mapping[str, Any]) -> str:
    """The hint for an error that names a path."""
    return writing_hint(match[1], match.string[: match.start()].rstrip().rpartition("Traceback")[2], settings)


def writing_hint(path: str, before: str, settings: Mapping[str, Any]) -> str:
    """What to do about an app that writes to `path`; `before` is the traceback that leads to the error."""
    path = posixpath.normpath(path)  # code puts `..` behind its own folder
    inside = _IN_RELEASE.sub("", path, count=1) if _IN_RELEASE.match(path) else path
    if inside.startswith(("/", "~")):
        variable = f"pulumi config set --path 'decant:env.NAME' {DATA}/FOLDER"
        return (
            f"the app writes to {path}, which is outside of its own folder and read-only. Let it write below $DATA_DIR,"
            f" by the variable that names its folder: {variable}"
        )
    name = PurePosixPath(inside).as_posix()
    if name in ("", "."):
        return (
            "the app writes into its own folder, which is read-only. Let it write into a subfolder, and allow that one:"
            f" {_allow('FOLDER', settings)}"
        )
    target = _target(name, before, settings)
    return f"the app writes to {name}, which is read-only. To let it: {_allow(target, settings)}"


def _target(name: str, before: str, settings: Mapping[str, Any]) -> str:
    """The path to make writable: a folder that the app makes, that of its file, or the file where code is beside it."""
    makes_folder = re.search(r"mkdir|makedirs", before[-400:]) is not None
    parent = PurePosixPath(name).parent.as_posix()
    if makes_folder or parent == ".":
        return name
    return name if _holds_code(settings.get("app"), parent) else parent


def _holds_code(app: Path | None, folder: str) -> bool:
    """Whether a folder of the app holds code or templates, which a writable folder would hide from releases."""
    if app is None:
        return False
    here = app / folder
    return any(any(here.glob(pattern)) for pattern in ("*.py", "*/*.py", "templates", "*.html"))


def _allow(target: str, settings: Mapping[str, Any]) -> str:
    return f"pulumi config set --path 'decant:persistent[{settings['persistent']}]' {shlex.quote(target)}"


def _database(match: re.Match[str], settings: Mapping[str, Any]) -> str:
    """SQLite does not say which file it is; the traceback's lines of code or the log may."""
    before = match.string[: match.start()]
    named = re.findall(r"sqlite3?\.connect\(\s*f?['\"]([^'\"{}]+)['\"]|sqlite:///([^'\"\s{}?]+)", before)
    path = next((first or second for first, second in reversed(named)), None)
    if path and path != ":memory:":
        return writing_hint(path, "", settings)
    return (
        "the app opens a SQLite database where it may not write, or in a folder that is not there. Allow its folder or"
        f" file: {_allow('FOLDER', settings)}, or let it use $DATA_DIR, by the variable that names its database:"
        f" pulumi config set --path 'decant:env.DATABASE_URL' sqlite:///{DATA}/app.db"
    )


_PATH = r"b?(?:PosixPath\()?['\"]([^'\"\n]+)['\"]"

HINTS: tuple[tuple[str, Callable[[re.Match[str], Mapping[str, Any]], str | None]], ...] = (
    (rf"Read-only file system:? {_PATH}", _read_only),
    (rf"(?:PermissionError|\[Errno 13\])[^\n]*Permission denied: {_PATH}", _read_only),
    (r"(?:mkdir|touch|cannot create|cannot open|open)[^\n]*?['\"]?((?:/|\w)[\w./-]+)['\"]?: Read-only file system",
     _read_only),
    (r"unable to open database file|attempt to write a readonly database", _database),
    (
        r"[Rr]ead-only file system",
        lambda match, settings: (
            "the app writes to a folder that is read-only. Let it write to $DATA_DIR, or allow a path in the app:"
            f" {_allow('FOLDER', settings)}"
        ),
    ),
)  # fmt: skip
