"""App folders for tests: written, committed with git, read and packed."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from decant.app.archive import pack
from decant.app.folder import read_app
from decant.app.model import App, AppOptions, Bundle
from decant.errors import AppError

WSGI = "app = None\n"
LOCKED = "flask==3.1.3 --hash=sha256:" + 64 * "0" + "\n"
PLAIN = {"wsgi.py": WSGI, "requirements.txt": LOCKED}


def use_plain_git(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """git without the settings of the user, of the computer or of a hook."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def committed(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    write(folder, files)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return folder


def packed(folder: Path) -> Bundle:
    return pack_beside(read_app(folder, AppOptions()))


def pack_beside(app: App) -> Bundle:
    """Pack an app into a folder beside its own."""
    return pack(app, app.folder.parent / "packed")


def members(made: Bundle) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(made.path) as tar:
        return {m.name: m for m in tar.getmembers()}


def contents(made: Bundle) -> dict[str, bytes]:
    with tarfile.open(made.path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}  # type: ignore[union-attr]


def problems(folder: Path, static: str | None = None) -> list[str]:
    with pytest.raises(AppError) as caught:
        read_app(folder, AppOptions(static=static))
    assert all(fix for _, fix in caught.value.problems)
    return [message for message, _ in caught.value.problems]


TREE: dict[str, str | bytes] = {
    **PLAIN,
    "shop/__init__.py": "",
    "shop/a.txt": b"\x00\xff binary \r\n",
    "shop/größe ü.txt": "name outside ASCII",
    "static/" + "deep/" * 30 + "style.css": "longer than an old tar's field\n",
    "zz.sh": "#!/bin/sh\n",
}
