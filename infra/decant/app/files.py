"""The files of an app folder that are shipped: what git tracks or does not ignore, without secrets and caches."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from decant.errors import AppError

# Never shipped, tracked or not: version control, secrets, data of a local run, environments, caches.
NEVER = frozenset(
    {
        ".git", ".hg", ".svn", ".env", ".venv", "venv", "env", "instance", "node_modules", "__pycache__",
        ".pytest_cache", ".mypy_cache", ".ruff_cache", ".tox", ".nox", ".DS_Store", ".idea", ".vscode",
    }
)  # fmt: skip


LISTING = ".{}.files.json"
"""The file beside a built copy of an app that lists what of it is shipped (build.py), by the copy's name."""


def app_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The name in the bundle and the path of each file that is shipped.

    Raises:
        AppError: where the folder is in a git repository that git cannot read (see `_git_files`).
    """
    listing = folder.with_name(LISTING.format(folder.name))
    if listing.exists():
        yield from ((name, folder / name) for name in json.loads(listing.read_text(encoding="utf-8"))["files"])
        return
    listed = _git_files(folder)
    names: Iterable[str] = listed if listed is not None else _walk(folder)
    for name in names:
        path = folder / name
        parts = PurePosixPath(name).parts
        hidden = any(part in NEVER or part.endswith(".pyc") or _holds_secrets(part) for part in parts)
        if path.is_dir() and not path.is_symlink() and not hidden:
            # git lists a repository inside the repository by its folder alone.
            yield from ((f"{name.rstrip('/')}/{inner}", file) for inner, file in app_files(path))
        elif not hidden and not _is_environment(folder, parts) and (path.is_file() or path.is_symlink()):
            yield name, path


def _holds_secrets(name: str) -> bool:
    """Whether a file is .env.local, .env.production and the like; an example of one holds no secret."""
    return name.startswith(".env.") and not name.endswith((".example", ".sample", ".template"))


def _is_environment(folder: Path, parts: tuple[str, ...]) -> bool:
    """Whether a file is in a virtual environment, whatever its folder is called."""
    return any((folder.joinpath(*parts[:i]) / "pyvenv.cfg").exists() for i in range(1, len(parts)))


def _git_files(folder: Path) -> list[str] | None:
    """Tracked files, and those that are neither tracked nor ignored; None where the folder is in no repository.

    Where there is a repository, git has to read it: without git, ignored files such as a local database or a file of
    secrets would be shipped.

    Raises:
        AppError: where git is not installed or fails.
    """
    repository = _repository(folder)
    if repository is None:
        return None
    settings = ["-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
    command = ["git", *settings, "ls-files", "-z", "-co", "--exclude-standard"]
    unknown = f"is in the git repository {repository}, and without git nothing says which files .gitignore leaves out"
    try:
        listing = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    except OSError as error:
        fix = "install git, e.g. sudo apt-get install git"
        raise AppError("app", (f"{unknown}: git cannot be run ({error.strerror})", fix)) from None
    except subprocess.CalledProcessError as error:
        said = " ".join(os.fsdecode(error.stderr).split()) or f"status {error.returncode}"
        # Git before 2.38 ignores safe.directory on the command line.
        fix = (
            f"git config --global --add safe.directory {shlex.quote(str(repository))}"
            if "safe.directory" in said
            else f"mend what this shows: git -C {shlex.quote(str(folder))} status"
        )
        raise AppError("app", (f"{unknown}: git failed ({said})", fix)) from None
    names = sorted({os.fsdecode(name) for name in listing.split(b"\0") if name})
    # A folder that is ignored as a whole lists nothing; the stack names it all the same, so it is shipped.
    return names or None


def _repository(folder: Path) -> Path | None:
    """The nearest folder upward that holds `.git`: a folder, or a file in worktrees and submodules."""
    resolved = folder.resolve()
    return next((path for path in (resolved, *resolved.parents) if (path / ".git").exists()), None)


def _walk(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in NEVER]
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in files + links:
            yield (here / name).relative_to(folder).as_posix()
