"""The paths of an app folder that the app may write."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from decant.app.files import NEVER
from decant.app.model import AppOptions, WebProcess
from decant.errors import AppError

INSTANCE = "instance"
"""The name of Flask's instance folder (`Flask.auto_find_instance_path`)."""


def read_persistent(folder: Path, web: WebProcess, options: AppOptions) -> tuple[str, ...]:
    """The paths in the app folder that the app may write and that outlive a release: the settings' and Flask's own.

    Raises:
        AppError: for a path that cannot be one.
    """
    own = [
        path
        for root in import_roots(folder, web)
        if not cannot_be_persistent(folder, path := _join(_behind_links(folder, root), INSTANCE), web, options)
    ]
    given = [posixpath.normpath(path) for path in options.persistent]
    problems = []
    for number, path in enumerate(given):
        around = next((other for other in {*given} - {*own, "."} if is_inside(path, other)), None)
        reason = (
            f"is inside {around}, which is persistent itself"
            if around
            else cannot_be_persistent(folder, path, web, options)
        )
        if reason:
            message = f"has no {path} that the app could write, although decant:persistent names it: {path} {reason}"
            problems.append((message, _fix(path, number, options)))
    if problems:
        raise AppError("app", *problems)
    paths = dict.fromkeys([*own, *given])
    return tuple(path for path in paths if not any(is_inside(path, other) for other in paths))


def import_roots(folder: Path, web: WebProcess) -> tuple[str, ...]:
    """The folders from which the app imports its modules, relative to the app folder, which is one of them itself.

    Flask looks for the instance folder beside the module or package that makes the Flask object. That need not be the
    module that gunicorn imports, so every such folder counts.
    """
    chdir = str(web.gunicorn.get("chdir") or ".")
    given = web.gunicorn.get("pythonpath") or ()
    pythonpath = given.split(",") if isinstance(given, str) else list(given)
    candidates = [".", chdir, *map(str, pythonpath), *(_join(chdir, path) for path in map(str, pythonpath)), "src"]
    roots = dict.fromkeys(posixpath.normpath(path) for path in candidates if path)
    return tuple(
        root for root in roots if not root.startswith(("..", "/")) and (root == "." or (folder / root).is_dir())
    )


def entry_module(folder: Path, web: WebProcess) -> str | None:
    """The file of the module that gunicorn imports, relative to the app folder; None where it is not in the folder."""
    module = web.wsgi_app.partition(":")[0].replace(".", "/")
    for root in reversed(import_roots(folder, web)):
        for file in (f"{module}.py", f"{module}/__init__.py"):
            if (folder / root / file).is_file():
                return _join(root, file)
    return None


def _behind_links(folder: Path, root: str) -> str:
    """Where a folder of the app is that may be a link to another one: gunicorn and Flask find it there."""
    real, top = Path(os.path.realpath(folder / root)), Path(os.path.realpath(folder))
    return real.relative_to(top).as_posix() if real.is_relative_to(top) else root


def _join(root: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(root, name))


def is_inside(path: str, other: str) -> bool:
    """Whether a path is below another one, which it is not itself."""
    return path != other and (other == "." or path.startswith(f"{other}/"))


def cannot_be_persistent(folder: Path, path: str, web: WebProcess, options: AppOptions) -> str:
    """Why a path cannot be the app's to write: it would hide what each release brings; empty where it can."""
    static = options.static or "static"
    entry = entry_module(folder, web)
    if path == ".":
        return "is the app folder itself"
    if never := next((part for part in PurePosixPath(path).parts if part in NEVER - {INSTANCE}), None):
        return f"names {never}, which no release brings and no app writes its data to"
    if link := next((str(p) for p in PurePosixPath(path).parents if (folder / p).is_symlink() and str(p) != "."), None):
        return f"is behind the link {link}"
    if entry and (path == entry or is_inside(entry, path)):
        return f"holds {entry}, the app's code"
    if (folder / static).is_dir() and (path == static or is_inside(static, path)):
        return "holds the static files, which change with each release"
    if path.endswith(".py") or any(_code(folder / path)) or ((folder / path).is_dir() and _name(path) in _SHIPPED):
        return "holds code of the app, which changes with each release"
    return ""


_SHIPPED = ("static", "templates")


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _code(folder: Path) -> Iterator[Path]:
    """What makes a folder a package or a folder of modules; Flask's own configuration file in `instance` does not."""
    return (path for path in folder.glob("*.py") if path.is_file() and path.name != "config.py")


def _fix(path: str, number: int, options: AppOptions) -> str:
    if _name(path) == "static" or path == options.static:
        return f"pulumi config set --path 'decant:persistent[{number}]' {path}/uploads, and let the app write there"
    return f"pulumi config rm --path 'decant:persistent[{number}]'"
