"""Releases on the disk: check for free space, unpack, persist, list and prune."""

from __future__ import annotations

import grp
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from decant_host.app_data import link_app_data
from decant_host.atomic import link_target, read_json, rename_durably, write
from decant_host.errors import HostError
from decant_host.paths import CURRENT, INCOMING, NEXT_PERSISTED, PERSISTED, PREVIOUS, RELEASES, RUN, RUNS, VENVS
from decant_host.processes import run
from decant_host.protocol import LONGEST_ROLLOUT, SpaceChecked
from decant_host.pythons import prune_pythons

if TYPE_CHECKING:
    import tarfile

SPARE_BYTES = 64 << 20
"""Bytes that stay free after a release, for logs and the app's data."""

SPARE_INODES = 2000

_PIECE = 1 << 20
"""Bytes that are read at once of a file of the app, which may be large."""

KEPT_RELEASES = 5
"""Releases that stay on the machine, so that one can go back to them."""


def check_space(size: int) -> SpaceChecked:
    """Raises HostError when a tar of `size` bytes would not fit: SFTP reports a full disk only as "Failure"."""
    needed = 3 * size + SPARE_BYTES  # the tar, its contents, and the compiled code
    for folder in (INCOMING, RELEASES, VENVS):
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if free < needed or (disk.f_files > 0 and disk.f_favail < SPARE_INODES):
            raise HostError(
                f"the disk is full: {free >> 20} MB and {disk.f_favail} files are free at {folder},"
                f" {needed >> 20} MB are needed.\n  See what fills it: df -h; du -xh / | sort -h | tail."
                " Free some space, then run pulumi up again."
            )
    return {"fits": True}


def is_complete(release: str) -> bool:
    """Whether all of the release is here, except for its virtual environment, which can be built again."""
    return (RELEASES / release / "release.json").exists()


def complete_releases() -> list[str]:
    """Releases on this machine, the newest first."""
    return _newest_first("release.json")


def confirmed_releases() -> list[str]:
    """Complete releases that were live, the last confirmed one first."""
    return [release for release in _newest_first("confirmed") if is_complete(release)]


def _newest_first(name: str) -> list[str]:
    times = {path.parent.name: path.stat().st_mtime for path in RELEASES.glob(f"[0-9a-f]*/{name}")}
    return sorted(times, key=lambda release: times[release], reverse=True)


def _make_newest(path: Path, name: str) -> None:
    """Set a file's time to now, but after the time of the other releases' file `name`: clocks are set back at times."""
    times = [other.stat().st_mtime for other in RELEASES.glob(f"[0-9a-f]*/{name}")]
    newest = max([time.time(), *(other + 1 for other in times)])
    os.utime(path, (newest, newest))


def prepare_confirm(release: str) -> None:
    """Write everything that `persist` needs, while an error still does no harm: `persist` must not fail.

    When a machine confirms, other machines of the fleet may have confirmed already.
    """
    NEXT_PERSISTED.unlink(missing_ok=True)
    NEXT_PERSISTED.symlink_to(f"releases/{release}")
    (RELEASES / release / ".confirmed").touch()


def persist(release: str) -> None:
    """Make this release the one that a boot brings back. A full disk does not prevent it."""
    if link_target(PERSISTED) == release and (RELEASES / release / "confirmed").exists():
        return  # nothing changes, and `switch` may not have prepared anything
    if link_target(NEXT_PERSISTED) != release:
        prepare_confirm(release)
    rename_durably(NEXT_PERSISTED, PERSISTED)
    marker = RELEASES / release / ".confirmed"
    _make_newest(marker, "confirmed")
    rename_durably(marker, RELEASES / release / "confirmed")


def unpack(release: str, spec: Mapping[str, Any]) -> None:
    """Unpack the release's tar, if the release is not here yet.

    `spec` is the input of `stage`: `tar`, `sha256`, `environment`, `settings`. Raises HostError when the tar is missing
    or damaged, or when it would write outside of the release's folder.
    """
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
    private = unfinished / "app.tar"
    if _copy_archive(archive, private) != spec["sha256"]:
        raise HostError(f"{archive} did not arrive whole. Copy it again: pulumi up --replace '**upload**'")
    _unpack_code(private, unfinished / "app", app_group)
    private.unlink()
    # Before there are links to what the app writes, which root must not follow.
    _compile_code(unfinished / "app", app_group)
    link_app_data(unfinished / "app", spec["settings"])
    write(unfinished / "environment.json", json.dumps(spec["environment"]), mode=0o600)
    settings = dict(spec["settings"], tar=archive.name, staged=time.time())
    write(unfinished / "release.json", json.dumps(settings), mode=0o640)
    os.chown(unfinished / "release.json", 0, app_group)
    _make_newest(unfinished / "release.json", "release.json")
    os.sync()
    unfinished.rename(folder)


def _copy_archive(archive: Path, private: Path) -> str:
    """Copy the tar to where only root can write, and return the SHA-256 of the copy.

    The copy is what is checked and unpacked, because the user who sent the file can still write to it. No large part of
    it is in memory at any time: the app that serves needs that.
    """
    import hashlib

    digest = hashlib.sha256()
    with archive.open("rb") as source, private.open("xb") as copy:
        while data := source.read(_PIECE):
            digest.update(data)
            copy.write(data)
    return digest.hexdigest()


def _unpack_code(archive: Path, app: Path, app_group: int) -> None:
    """Unpack the tar into a new folder. The files belong to root; the app may read them."""
    import tarfile

    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(app, filter="data")  # PEP 706: nothing outside of the folder, no devices
            else:  # Debian 12
                _check_members(tar)
                tar.extractall(app)  # noqa: S202 - checked
    except tarfile.TarError as error:
        raise HostError(f"the app's tar is refused: {error}") from None
    for root, folders, files in os.walk(app):
        os.chown(root, 0, app_group)
        Path(root).chmod(0o750)
        for name in files + [f for f in folders if (Path(root) / f).is_symlink()]:
            path = Path(root) / name
            os.chown(path, 0, app_group, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o750)
                # nginx makes ETags from time and size. A time that is computed from the content is the same on every
                # machine, and differs for a changed file of the same size.
                stamp = 1_000_000_000 + _checksum(path) % 600_000_000
                os.utime(path, (stamp, stamp))


def _check_members(tar: tarfile.TarFile) -> None:
    """Raises TarError for a member that would be written outside of the folder, or that is no file, folder or link.

    No member is written through a link, and no link leads through another one: where that would lead cannot be seen
    from its text.
    """
    import tarfile

    links = {PurePosixPath(member.name) for member in tar if member.issym()}
    seen = set[PurePosixPath]()
    for member in tar:
        path = PurePosixPath(member.name)
        target = os.path.normpath(path.parent / member.linkname) if member.issym() else "."
        through = (path.parent / member.linkname).parents if member.issym() else ()
        if path in seen:
            reason = "is there twice"
        elif not (member.isfile() or member.isdir() or member.issym()):
            reason = "is no file, folder or link"
        elif path.is_absolute() or ".." in path.parts or not links.isdisjoint(path.parents):
            reason = "leads out of the folder"
        elif target.startswith(("/", "..")):
            reason = f"is a link to {member.linkname}, outside of the folder"
        elif any(PurePosixPath(os.path.normpath(part)) in links for part in through):
            reason = f"is a link to {member.linkname}, through another link"
        else:
            seen.add(path)
            continue
        raise tarfile.TarError(f"{member.name!r} {reason}")


def _checksum(path: Path) -> int:
    import zlib

    checksum = 0
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            checksum = zlib.crc32(data, checksum)
    return checksum


def _compile_code(app: Path, app_group: int) -> None:
    """Compile the Python files. The compiled files, too, belong to root, and the app may read them."""
    # Unchecked (PEP 552): the files' times mean nothing here, and the app cannot change its code anyway.
    options = ("-q", "--invalidation-mode", "unchecked-hash")
    run(sys.executable, "-m", "compileall", *options, str(app), check=False)
    for path in app.rglob("__pycache__"):
        if path.is_symlink() or not path.is_dir():
            continue
        os.chown(path, 0, app_group)
        path.chmod(0o750)
        for compiled in path.iterdir():
            if compiled.is_file() and not compiled.is_symlink():
                os.chown(compiled, 0, app_group)
                compiled.chmod(0o640)


def prune() -> None:
    """Remove releases beyond the last KEPT_RELEASES, and the environments and tars that belong to no release.

    A new tar of no release stays: somebody has sent it and is about to stage it, and Pulumi sends no tar twice.
    """
    needed = {link_target(CURRENT), link_target(PERSISTED), link_target(PREVIOUS)}
    needed |= {path.stem.split("-")[2] for path in RUNS.glob("decant-run-*.json")}  # one-off commands run in them
    before = _tars(complete_releases())
    for release in complete_releases()[KEPT_RELEASES:]:
        if release not in needed:
            shutil.rmtree(RELEASES / release, ignore_errors=True)
            shutil.rmtree(RUN / release, ignore_errors=True)
    for unfinished in RELEASES.glob(".*"):  # a stage that was killed and not repeated left it
        shutil.rmtree(unfinished, ignore_errors=True)
    kept = complete_releases()
    venvs = {link_target(RELEASES / r / "venv") for r in kept}
    for path in VENVS.glob("*"):
        if path.name not in venvs:
            shutil.rmtree(path, ignore_errors=True)
    prune_pythons()
    tars = _tars(kept)
    for path in INCOMING.glob("*.tar"):
        is_new = path.name not in before and time.time() - path.stat().st_mtime < LONGEST_ROLLOUT
        if path.name not in tars and not is_new:
            path.unlink(missing_ok=True)


def _tars(releases: Iterable[str]) -> set[str | None]:
    """The names of the tars that releases were unpacked from."""
    return {read_json(RELEASES / release / "release.json").get("tar") for release in releases}
