"""The build of an app: a command that runs where `pulumi` runs, in a copy of the app folder, before it is packed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from decant.app.build_programs import build_environment, missing_program
from decant.app.files import LISTING, NEVER, app_files, trust_copy
from decant.app.model import AppOptions
from decant.errors import AppError

# Folders that the copy keeps from one build to the next. They are never shipped, so that what is shipped depends on the
# sources and the command alone.
KEPT = NEVER | {
    "node_modules", "env", "venv",
    ".cache", ".parcel-cache", ".npm", ".yarn", ".pnpm-store", ".turbo", ".sass-cache", ".angular", ".svelte-kit",
    ".nuxt", ".vite", ".webassets-cache", ".eslintcache",
}  # fmt: skip
SHOWN = 15  # last lines of the command's output in an error
BUILDS = 5  # copies that stay, one for each app folder and command

Say = Callable[[str], None]
Source = tuple[str, Path]


def built_app(folder: Path, command: str, options: AppOptions, cache: Path, say: Say) -> Path:
    """The folder to read and pack: a copy of the app folder, below `cache`, in which the command has run.

    The command does not run again where neither it nor its inputs have changed. `say` tells the user what happens.

    Raises:
        AppError: where the command fails, or needs a program that is not here.
    """
    sources = sorted(app_files(folder))
    name = hashlib.sha256(json.dumps([str(folder), command]).encode()).hexdigest()[:12]
    home = cache / "build" / name
    home.mkdir(parents=True, exist_ok=True)
    work, listing = home / folder.name, home / LISTING.format(folder.name)
    digest = _digest(sources, command, options)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_current(listing, digest, work):
            trust_copy(work)
            return work
        listing.unlink(missing_ok=True)
        _copy_sources(sources, work)
        _run(command, options, work, home / "log.txt", cache, say)
        shipped = [name for name, _ in sources if os.path.lexists(work / name)]
        made = sorted({*_walk(work)} - {*shipped})
        written = {"digest": digest, "source": str(folder), "files": sorted([*shipped, *made])}
        listing.write_text(json.dumps(written), encoding="utf-8")
        trust_copy(work)
        os.utime(home)
    _forget_old(home)
    return work


def _digest(sources: Sequence[Source], command: str, options: AppOptions) -> str:
    digest = hashlib.sha256(json.dumps([command, sorted(options.env.items())]).encode())
    for name, path in sources:
        if path.is_symlink():
            entry = [name, "link", str(path.readlink())]
        else:
            mode = "run" if path.stat().st_mode & 0o100 else "file"
            entry = [name, mode, hashlib.sha256(path.read_bytes()).hexdigest()]
        digest.update(json.dumps(entry).encode())
    return digest.hexdigest()


def _is_current(listing: Path, digest: str, work: Path) -> bool:
    if not listing.exists():
        return False
    made = json.loads(listing.read_text(encoding="utf-8"))
    return made["digest"] == digest and all(os.path.lexists(work / name) for name in made["files"])


# ------------------------------------------------------------------------------------------------ the copy


def _copy_sources(sources: Sequence[Source], work: Path) -> None:
    """Make `work` hold the sources, and nothing else but what is KEPT there."""
    work.mkdir(exist_ok=True)
    # The end of a repository, for tools that leave out what git ignores: this copy is in a folder that is ignored.
    (work / ".git").mkdir(exist_ok=True)
    names = {name for name, _ in sources}
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    _clear(work, work, names, folders)
    for name, path in sources:
        target = work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.unlink(missing_ok=True)
            target.symlink_to(path.readlink())
        elif not (target.is_file() and not target.is_symlink() and target.read_bytes() == path.read_bytes()):
            target.unlink(missing_ok=True)
            shutil.copy2(path, target)  # with its time, by which tools decide what is new
        if not path.is_symlink():
            target.chmod(path.stat().st_mode & 0o777 | 0o200)


def _clear(folder: Path, work: Path, names: set[str], folders: set[str]) -> None:
    """Remove everything but the sources, what is KEPT, and the folders that hold such."""
    for path in folder.iterdir():
        name = path.relative_to(work).as_posix()
        if path.name in KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            _clear(path, work, names, folders)
            if name not in folders and not any(path.iterdir()):
                path.rmdir()
        elif name not in names:
            path.unlink()
    # A source that was a folder before, or the other way round.
    for path in folder.iterdir():
        name = path.relative_to(work).as_posix()
        if name in names and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif name in folders and (path.is_symlink() or not path.is_dir()):
            path.unlink()


def _walk(work: Path) -> Iterator[str]:
    """The names of all files and links in the copy, except what is KEPT and what may hold secrets."""
    for root, folders, files in os.walk(work):
        here = Path(root)
        folders[:] = [name for name in folders if name not in KEPT and not (here / name / "pyvenv.cfg").exists()]
        links = [name for name in folders if (here / name).is_symlink()]
        for name in files + links:
            if name not in KEPT and not name.startswith(".env.") and not name.endswith(".pyc"):
                yield (here / name).relative_to(work).as_posix()


def _forget_old(home: Path) -> None:
    """Remove the copies of other commands and app folders, all but the newest."""
    others = sorted((path for path in home.parent.iterdir() if path != home), key=lambda p: p.stat().st_mtime)
    for path in others[: max(0, len(others) - BUILDS + 1)]:
        shutil.rmtree(path, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ the command


def _run(command: str, options: AppOptions, work: Path, log: Path, cache: Path, say: Say) -> None:
    """Run the command in the copy. Its output goes to `log`. Raises AppError when it fails."""
    environment = build_environment(command, options, work, cache, log, say)
    if missing := missing_program(command, environment["PATH"]):
        raise AppError("app", missing)
    say(f"decant:build runs: {command}")
    began = time.monotonic()
    with log.open("wb") as output:
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    seconds = round(time.monotonic() - began)
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(f"        {line[:300]}" for line in lines[-SHOWN:])
        raise AppError(
            "app",
            (
                f"could not be built: decant:build, {command!r}, ended with status {done.returncode} after {seconds} s."
                f" Its last lines, of {log}:\n{tail}",
                f"to try it: cd {work} && {command}",
            ),
        )
    say(f"decant:build is done after {seconds} s; its output is in {log}")
