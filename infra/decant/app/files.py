"""The files of an app folder that are shipped: what git tracks or does not ignore, without secrets and caches."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from decant.errors import AppError

# Never shipped, tracked or not: version control, secrets, data of a local run, environments, caches.
NEVER = frozenset(
    {
        ".git", ".hg", ".svn", ".env", ".venv", "instance", "__pycache__", ".pytest_cache", ".mypy_cache",
        ".ruff_cache", ".tox", ".nox", ".DS_Store", ".idea", ".vscode",
    }
)  # fmt: skip

ENVIRONMENTS = frozenset({"env", "venv"})
"""Names of virtual environments that a package of the app's own may have, too."""

NODE_MODULES = "node_modules"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The names of an app folder's files; None for `tracked` where the folder is in no git repository."""

    names: tuple[str, ...]
    tracked: frozenset[str] | None


LISTING = ".{}.files.json"
"""The file beside a built copy of an app that lists what of it is shipped (build.py), by the copy's name."""


_BUILT = set[Path]()
"""The copies that this run's builds made. Nothing on the disk makes a folder one: an app could bring that, too."""


def trust_copy(folder: Path) -> None:
    """Let the listing beside a folder say what of it is shipped: the caller has made both."""
    _BUILT.add(folder.resolve())


def app_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The name in the bundle and the path of each file that is shipped.

    Raises:
        AppError: where the folder is in a git repository that git cannot read (see `list_files`), for a folder
            that cannot be read, and for a file that is in the folder by a link out of it alone.
    """
    top, inside = os.path.realpath(folder), set[Path]()
    for name, path in _shipped(folder):
        if path.parent not in inside:
            # git's index may name a file behind a link, whatever is there.
            if ".." in PurePosixPath(name).parts or not Path(os.path.realpath(path.parent)).is_relative_to(top):
                shown = printable(name)
                raise AppError(
                    "app",
                    (
                        f"has {shown}, which a link leads out of the folder",
                        f"replace the link to a folder in {shown} by what it points to",
                    ),
                )
            inside.add(path.parent)
        yield name, path


def _shipped(folder: Path) -> Iterator[tuple[str, Path]]:
    built = _built(folder)
    if built:
        yield from ((name, folder / name) for name in built["files"])
        return
    listing = list_files(folder)
    tracked = listing.tracked or frozenset()
    for name in listing.names:
        path = folder / name
        parts = PurePosixPath(name).parts
        if is_never_shipped(parts):
            continue
        if path.is_dir() and not path.is_symlink():
            # git lists a repository inside the repository by its folder alone.
            yield from ((f"{name.rstrip('/')}/{inner}", file) for inner, file in _shipped(path))
        elif _is_environment(folder, parts) or not (path.is_file() or path.is_symlink()):
            continue
        elif name in tracked or not is_left_out(folder, parts):
            yield name, path


def source_folder(folder: Path) -> Path:
    """The author's own folder: another one where this is a copy in which a build has run."""
    built = _built(folder)
    return Path(built["source"]) if built else folder


def _built(folder: Path) -> dict[str, Any] | None:
    """What a build wrote of its copy of an app folder (see build.py); None for any other folder."""
    if folder.resolve() not in _BUILT:
        return None
    listing = folder.with_name(LISTING.format(folder.name))
    found: dict[str, Any] | None = json.loads(listing.read_text(encoding="utf-8")) if listing.exists() else None
    return found


def open_file(folder: Path, name: str) -> BinaryIO:
    """A file of the app folder, open for reading.

    Raises:
        AppError: where it cannot be read.
    """
    try:
        return (folder / name).open("rb")
    except OSError as error:
        raise _unreadable(folder, name, error) from None


def printable(name: str) -> str:
    """A file's name for a message: bytes that are no UTF-8 are escaped, and so are control characters."""
    return escaped(os.fsencode(name).decode("utf-8", "backslashreplace"))


def escaped(text: str) -> str:
    """Somebody else's words for a message: what could control a terminal is escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def repository(folder: Path) -> Path | None:
    """The nearest folder upward that holds `.git`: a folder, or a file in worktrees and submodules.

    An empty folder `.git` ends the search: it is the top of a build's copy of an app (see build.py).
    """
    resolved = folder.resolve()
    found = next((path for path in (resolved, *resolved.parents) if (path / ".git").exists()), None)
    copied = found is not None and (found / ".git").is_dir() and not any((found / ".git").iterdir())
    return None if copied else found


def run_git(folder: Path, *arguments: str) -> list[str]:
    """The names that a git command lists in a folder, which is in a repository.

    Raises:
        AppError: where git is not installed or fails.
    """
    root = repository(folder)
    settings = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "safe.bareRepository=explicit"]
    # The repository may come from anyone. Its settings may name a program that git starts to fetch what is missing.
    environment = {**os.environ, "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"}
    unknown = f"is in the git repository {root}, and without git nothing says which files .gitignore leaves out"
    try:
        done = subprocess.run(
            ["git", *settings, *arguments], cwd=folder, capture_output=True, check=True, env=environment
        )
    except OSError as error:
        fix = "install git, e.g. sudo apt-get install git"
        raise AppError("app", (f"{unknown}: git cannot be run ({error.strerror})", fix)) from None
    except subprocess.CalledProcessError as error:
        said = " ".join(os.fsdecode(error.stderr).split()) or f"status {error.returncode}"
        # Git before 2.38 ignores safe.directory on the command line.
        fix = (
            f"git config --global --add safe.directory {shlex.quote(str(root))}"
            if "safe.directory" in said
            else f"mend what this shows: git -C {shlex.quote(str(folder))} status"
        )
        raise AppError("app", (f"{unknown}: git failed ({said})", fix)) from None
    return sorted({os.fsdecode(name) for name in done.stdout.split(b"\0") if name})


def list_files(folder: Path) -> Listing:
    """Tracked files, and those that are neither tracked nor ignored; all files where the folder is in no repository.

    Where there is a repository, git has to read it: without git, ignored files such as a local database or a file of
    secrets would be shipped.

    Raises:
        AppError: where git is not installed or fails, and for a folder that cannot be read.
    """
    if repository(folder) is not None:
        names = run_git(folder, "ls-files", "-z", "-co", "--exclude-standard")
        # A folder that is ignored as a whole lists nothing; the stack names it all the same, so it is shipped.
        if names:
            return Listing(names=tuple(names), tracked=frozenset(run_git(folder, "ls-files", "-z", "-c")))
    return Listing(names=tuple(_walk(folder)), tracked=None)


def is_left_out(folder: Path, parts: tuple[str, ...]) -> bool:
    """Whether a file that git does not track is in a folder that tools fill: node_modules, or an environment.

    A folder `env` or `venv` with an __init__.py is a package of the app's own.
    """
    for i, part in enumerate(parts[:-1], 1):
        if part == NODE_MODULES:
            return True
        if part in ENVIRONMENTS and not (folder.joinpath(*parts[:i]) / "__init__.py").exists():
            return True
    return False


def is_never_shipped(parts: tuple[str, ...]) -> bool:
    """Whether a file is left out wherever it comes from: version control, secrets, data, environments, caches."""
    return any(part in NEVER or part.endswith(".pyc") or _holds_secrets(part) for part in parts)


def _holds_secrets(name: str) -> bool:
    """Whether a file is .env.local, .env.production and the like; an example of one holds no secret."""
    return name.startswith(".env.") and not name.endswith((".example", ".sample", ".template"))


def _is_environment(folder: Path, parts: tuple[str, ...]) -> bool:
    """Whether a file is in a virtual environment, whatever its folder is called."""
    inside = (folder.joinpath(*parts[:i]) for i in range(1, len(parts)))
    return any((path / mark).exists() for path in inside for mark in ("pyvenv.cfg", "bin/activate_this.py"))


def _unreadable(folder: Path, name: str, error: OSError) -> AppError:
    place = shlex.quote(f"{folder.name}/{printable(name)}")
    return AppError(
        "app",
        (
            f"has {printable(name)}, which cannot be read ({error.strerror})",
            f"chmod -R u+rX {place}, or move it out of the folder",
        ),
    )


def _walk(folder: Path) -> Iterator[str]:
    def failed(error: OSError) -> None:
        raise _unreadable(folder, os.path.relpath(error.filename, folder), error) from None

    for root, folders, files in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if name not in NEVER and name != NODE_MODULES]
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in files + links:
            yield (here / name).relative_to(folder).as_posix()
