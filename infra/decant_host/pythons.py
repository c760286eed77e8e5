"""Pythons that are not Debian's own: installed by uv below /opt/decant, shared by virtual environments."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from decant_host import debian
from decant_host.atomic import write
from decant_host.errors import HostError
from decant_host.paths import OPT, VENVS

PYTHONS = OPT / "pythons"
UV_PIN = OPT / "uv-requirements.txt"
"""The pinned uv: another one knows newer patch releases of each Python."""

SYSTEM = Path("/usr/bin/python3")

Install = Callable[[Path, Mapping[str, str], str], None]
"""Runs `uv python install`: the folder, uv's variables, the version."""


def python_version(settings: Mapping[str, Any]) -> str | None:
    """The Python that a release needs from elsewhere, such as `3.11`; None where it is Debian's own.

    A release that asks for none gets the same one on every Debian.
    """
    version = settings.get("python") or debian.PYTHON
    return None if version == debian.own_python() else version


def python_folder(version: str) -> Path:
    """The folder of a version such as `3.11`, whether it is there or not."""
    return PYTHONS / f"{version}-{hashlib.sha256(UV_PIN.read_bytes()).hexdigest()[:8]}"


def find_python(folder: Path) -> Path | None:
    """The interpreter in a folder of `python_folder`; None where its installation was not finished."""
    if not (folder / ".complete").exists():
        return None
    return next(iter(sorted(folder.glob("cpython-*/bin/python3.[0-9]*"))), None)


def prepare_python(settings: Mapping[str, Any], owner: tuple[int, int], install: Install) -> Path:
    """The interpreter of a release, which is installed if it is not here. It belongs to root.

    Raises HostError where it cannot be downloaded.
    """
    version = python_version(settings)
    if version is None:
        return SYSTEM
    folder = python_folder(version)
    found = find_python(folder)
    if found is not None:
        return found
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755, parents=True)
    for part in (PYTHONS, folder):
        part.chmod(0o755)
    os.chown(folder, *owner, follow_symlinks=False)
    variables = {"UV_PYTHON_INSTALL_DIR": str(folder), **_source(settings.get("python_mirror"))}
    try:
        install(folder, variables, version)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 0, 0, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755)
        os.sync()
        write(folder / ".complete", "")  # which replaces a link that the archive has put there
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    found = find_python(folder)
    if found is None:
        raise HostError(f"Python {version} was installed, but its interpreter is not in {folder}.")
    return found


def _source(mirror: str | None) -> dict[str, str]:
    """uv's variables for a mirror: of its own releases, or of a list of downloads."""
    if not mirror:
        return {}
    return {"UV_PYTHON_DOWNLOADS_JSON_URL" if mirror.endswith(".json") else "UV_PYTHON_INSTALL_MIRROR": mirror}


def prune_pythons() -> None:
    """Remove the Pythons that no virtual environment uses."""
    used = set(_used())
    for folder in PYTHONS.glob("*"):
        if folder not in used:
            shutil.rmtree(folder, ignore_errors=True)


def _used() -> Iterator[Path]:
    for link in VENVS.glob("*/bin/python"):
        target = Path(os.path.realpath(link))
        yield from (parent for parent in target.parents if parent.parent == PYTHONS)
