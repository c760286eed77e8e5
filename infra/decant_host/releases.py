"""Releases on disk: unpacked code, virtual environments, and what may be thrown away."""

from __future__ import annotations

import grp
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decant_host.files import (
    BASE,
    CURRENT,
    INCOMING,
    PERSISTED,
    PREVIOUS,
    RELEASES,
    RUN,
    VENVS,
    HostError,
    linked,
    put_in_place,
    read_json,
    write,
)
from decant_host.units import run

SPARE = 64 << 20  # bytes that stay free after a release, for logs and the app's data
NEXT = BASE / ".persisted.next"
KEPT = 5  # releases that one can go back to


def room(size: int) -> dict[str, Any]:
    """Refuse a tar of `size` bytes that would not fit: sftp's own word for a full disk is "Failure"."""
    needed = 3 * size + SPARE  # the tar, what is in it, and compiled
    for folder in (INCOMING, RELEASES, VENVS):
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if free < needed or (disk.f_files > 0 and disk.f_favail < 2000):
            raise HostError(
                f"the disk is full: {free >> 20} MB and {disk.f_favail} files are free at {folder},"
                f" {needed >> 20} MB are needed.\n  See what fills it: df -h; du -xh / | sort -h | tail."
                " Make room, then run pulumi up again."
            )
    return {"room": True}


def is_complete(release: str) -> bool:
    """Is everything of the release here but its virtual environment, which can be made again?"""
    return (RELEASES / release / "release.json").exists()


def complete_releases() -> list[str]:
    """Releases on this machine, the newest first."""
    found = [p for p in RELEASES.glob("[0-9a-f]*") if is_complete(p.name)]
    return [p.name for p in sorted(found, key=lambda p: (p / "release.json").stat().st_mtime, reverse=True)]


def make_keepable(release: str) -> None:
    """All that `keep` will need of the disk, while it may still fail: afterwards other machines have kept theirs."""
    NEXT.unlink(missing_ok=True)
    NEXT.symlink_to(f"releases/{release}")
    (RELEASES / release / ".confirmed").touch()


def keep(release: str) -> None:
    """From now on a boot brings this release back. A full disk cannot stop it."""
    if linked(PERSISTED) == release and (RELEASES / release / "confirmed").exists():
        return  # so is it already, and `switch` has prepared nothing
    if linked(NEXT) != release:
        make_keepable(release)
    put_in_place(NEXT, PERSISTED)
    marker = RELEASES / release / ".confirmed"
    os.utime(marker)
    put_in_place(marker, RELEASES / release / "confirmed")


def confirmed_releases() -> list[str]:
    """Those of them that were live, the last one first."""
    times = {p.parent.name: p.stat().st_mtime for p in RELEASES.glob("[0-9a-f]*/confirmed")}
    return [r for r in sorted(times, key=lambda r: times[r], reverse=True) if is_complete(r)]


def unpack(release: str, spec: Mapping[str, Any]) -> None:
    """Put the release's files in place, from the copied tar; nothing to do where they are."""
    import hashlib
    import tarfile
    import zlib

    if is_complete(release):
        return
    archive = INCOMING / Path(spec["tar"]).name
    if not archive.exists():
        raise HostError(f"{archive} is not here. Copy it again: pulumi up --replace '**upload**'")
    folder, unfinished = RELEASES / release, RELEASES / f".{release}"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    RELEASES.mkdir(mode=0o755, parents=True, exist_ok=True)
    app_group = grp.getgrnam("decant").gr_gid
    unfinished.mkdir(mode=0o750)
    os.chown(unfinished, 0, app_group)
    # Read once and check what was read: whoever logged in to copy the file could still write to it.
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != spec["sha256"]:
        raise HostError(f"{archive} did not arrive whole. Copy it again: pulumi up --replace '**upload**'")
    private = unfinished / "app.tar"
    private.write_bytes(content)
    with tarfile.open(private) as tar:
        tar.extractall(unfinished / "app", filter="data")
    private.unlink()
    for root, folders, files in os.walk(unfinished / "app"):
        os.chown(root, 0, app_group)
        Path(root).chmod(0o750)
        for name in files + [f for f in folders if (Path(root) / f).is_symlink()]:
            path = Path(root) / name
            os.chown(path, 0, app_group, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o750)
                # nginx makes ETags of time and size: a time out of the content is the same on every machine, and
                # another for a changed file of the same size.
                stamp = 1_000_000_000 + zlib.crc32(path.read_bytes()) % 600_000_000
                os.utime(path, (stamp, stamp))
    # PEP 552 unchecked: a file's time says nothing here, and the app cannot write the folder anyway.
    run(
        sys.executable,
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        str(unfinished / "app"),
        check=False,
    )
    give_group(unfinished / "app", app_group)
    write(unfinished / "environment.json", json.dumps(spec["environment"]), mode=0o600)
    settings = dict(spec["settings"], tar=archive.name, staged=time.time())
    write(unfinished / "release.json", json.dumps(settings), mode=0o640)
    os.chown(unfinished / "release.json", 0, app_group)
    os.sync()
    unfinished.rename(folder)


def give_group(folder: Path, group: int) -> None:
    """Compiled files too are root's, readable by the app's group."""
    for path in folder.rglob("__pycache__"):
        os.chown(path, 0, group)
        path.chmod(0o750)
        for compiled in path.iterdir():
            os.chown(compiled, 0, group)
            compiled.chmod(0o640)


def prune() -> list[str]:
    """Remove what nobody can go back to: releases beyond the last KEPT, environments and tars of no release."""
    needed = {linked(CURRENT), linked(PERSISTED), linked(PREVIOUS)}
    removed = [r for r in complete_releases()[KEPT:] if r not in needed]
    for release in removed:
        shutil.rmtree(RELEASES / release, ignore_errors=True)
        shutil.rmtree(RUN / release, ignore_errors=True)
    for unfinished in RELEASES.glob(".*"):  # of a staging that was killed, and that nobody tried again
        shutil.rmtree(unfinished, ignore_errors=True)
    kept = complete_releases()
    venvs = {linked(RELEASES / r / "venv") for r in kept}
    tars = {read_json(RELEASES / r / "release.json").get("tar") for r in kept}
    for path in VENVS.glob("*"):
        if path.name not in venvs:
            shutil.rmtree(path, ignore_errors=True)
    for path in INCOMING.glob("*.tar"):
        if path.name not in tars:
            path.unlink(missing_ok=True)
    return removed
