"""What the app writes into its own folder: links in each release lead to folders that stay when releases go."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from decant_host.errors import HostError
from decant_host.paths import APP_DATA

APP = "decant"
"""The user who runs the app."""

ENVIRONMENTS = "+var"
"""The folder behind `var` of virtual environments, where Flask puts the instance folder of an installed package."""

MOST_LINKS = 40
"""Links that Linux follows on the way to one file."""

LONGEST = 300
"""Seconds for the copy of what a release brings."""

FILE = r"[^/]+\.[A-Za-z]\w{0,9}"
"""Names of files, where nothing says whether a path that does not exist will be a file or a folder: `site.db`."""


def link_app_data(app: Path, settings: Mapping[str, Any]) -> None:
    """Replace each persistent path of an unpacked release by a link to its folder in APP_DATA.

    What the release brings at such a path is copied there first, but never over something that the app has. Releases
    that were made before version 0.7 name no such paths.
    """
    if "persistent" not in settings:
        return
    _folder(APP_DATA / ENVIRONMENTS, readable=False)
    static = f"{settings.get('static') or ''}/"
    for name in settings["persistent"]:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or {".", ".."} & set(name.split("/")):
            raise HostError(f"{name!r} is no path in the app")
        inner = Path(name).parents[:-1]  # without "."
        if link := next((str(parent) for parent in inner if (app / parent).is_symlink()), None):
            raise HostError(f"{name} cannot be the app's to write: {link} is a link. Name the folder that it leads to")
        # nginx serves what is in the folder of static files, and nothing else of the app's.
        _link(app / name, APP_DATA / name.replace("/", "+"), readable=name.startswith(static))
    _give_links_to_app(app, {app / name for name in settings["persistent"]})


def _give_links_to_app(app: Path, persistent: set[Path]) -> None:
    """Give the release's links that lead through a persistent path to the app's user.

    The app decides what is behind such a path. nginx follows a link to files of its own owner's alone, so a link of
    root's would let the app publish each file that nginx can read, such as the key of the certificate.
    """
    user = pwd.getpwnam(APP)
    for root, folders, files in os.walk(app):
        for path in (Path(root) / name for name in (*folders, *files)):
            if path.is_symlink() and path not in persistent and _leads_to_app_data(path, app, persistent):
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _leads_to_app_data(path: Path, app: Path, persistent: set[Path]) -> bool:
    """Whether a link leads through a persistent path, or out of `app`.

    It is followed step by step, because `..` behind a persistent path would hide that path.
    """
    left, at, links = [path.name], path.parent, 0
    while left:
        step = left.pop()
        at = at.parent if step == ".." else at / step
        if at in persistent or not at.is_relative_to(app):
            return True
        if at.is_symlink():
            links += 1
            target = at.readlink()
            if links > MOST_LINKS or target.is_absolute():
                return True
            left += reversed(target.parts)
            at = at.parent
    return False


def _link(path: Path, folder: Path, *, readable: bool) -> None:
    """Replace `path` by a link to `folder`, or to a file in it; what `path` holds becomes the first content."""
    is_file = path.is_file() or (not path.is_dir() and bool(re.fullmatch(FILE, path.name)))
    _folder(folder, readable=readable)
    target = folder / path.name if is_file else folder
    if path.exists():
        _as_app(lambda: copy_missing(path, target))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    user, group = pwd.getpwnam(APP).pw_uid, pwd.getpwnam(APP).pw_gid
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o750)
        os.chown(parent, 0, group)
    path.symlink_to(target)
    # nginx follows a link to files of its own owner's alone. The app cannot change this one, whose folder is root's.
    os.chown(path, user, group, follow_symlinks=False)


def _folder(folder: Path, *, readable: bool) -> None:
    """Make a folder of the app's in APP_DATA, which itself is root's: the app cannot replace its folder by a link.

    nginx is in the app's group, which may therefore read a folder alone that nginx serves.
    """
    app = pwd.getpwnam(APP)
    for path, owner, mode in ((APP_DATA, 0, 0o710), (folder, app.pw_uid, 0o750 if readable else 0o700)):
        path.mkdir(mode=0o700, exist_ok=True)
        os.chown(path, owner, app.pw_gid)
        path.chmod(mode)


def _as_app(action: Callable[[], None]) -> None:
    """Run an action as the app's user, who could have put links to any place into its own folders.

    A fork and no new program, because the app could trace a program of its own user's.
    """
    app = pwd.getpwnam(APP)
    child = os.fork()
    if child == 0:
        status = 255
        try:
            os.setgroups([])
            os.setgid(app.pw_gid)
            os.setuid(app.pw_uid)
            os.umask(0o027)
            action()
            status = 0
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    status = _wait(child)
    if status == errno.ENOSPC:
        raise OSError(status, os.strerror(status), str(APP_DATA))
    if status:
        reason = os.strerror(status) if 0 < status < 255 else f"status {status}"
        raise HostError(
            f"the release's files could not be copied into {APP_DATA}, where the app writes: {reason}.\n"
            f"  See what is there: ls -lR {APP_DATA}"
        )


def _wait(child: int) -> int:
    """The exit status of a process of the app's user, which the app can stop; after LONGEST, it is killed."""
    deadline = time.monotonic() + LONGEST
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise HostError(
                f"the release's files could not be copied into {APP_DATA}, where the app writes, within {LONGEST} s.\n"
                f"  See what is there: ls -lR {APP_DATA}"
            )
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1])


def copy_missing(source: Path, target: Path) -> None:
    """Copy a file, or a folder with all that is in it, except what `target` has already. A kill leaves no half file."""
    if source.is_dir():
        with contextlib.suppress(FileExistsError):
            target.mkdir(mode=0o750)
        if target.is_dir():
            for inner in sorted(source.iterdir()):
                # A link to a folder could lead back to here, and compiled code would hide what the app changes.
                if not (inner.is_symlink() and inner.is_dir()) and inner.name != "__pycache__":
                    copy_missing(inner, target / inner.name)
    elif source.is_file():
        unfinished = target.with_name(f".{target.name}.decant")
        unfinished.unlink(missing_ok=True)
        if not os.path.lexists(target):
            shutil.copyfile(source, unfinished)
            unfinished.chmod(0o750 if source.stat().st_mode & 0o100 else 0o640)
            with contextlib.suppress(FileExistsError):
                os.link(unfinished, target)
            unfinished.unlink()
