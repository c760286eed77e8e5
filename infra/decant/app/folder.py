"""The reader of an app folder: everything that Decant needs to know of it, without importing the app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from decant.app.aptfile import aptfile_notes, read_aptfile
from decant.app.left_behind import read_left_behind
from decant.app.model import App, AppOptions, WebProcess
from decant.app.packages import read_packages
from decant.app.python_version import read_python
from decant.app.reachable import reachable_modules
from decant.app.removed_calls import check_calls
from decant.app.static_folder import static_folder
from decant.app.tables import read_tables
from decant.app.unbuilt import check_built
from decant.app.web import read_web
from decant.app.writable import read_persistent
from decant.app.write_scan import find_writes
from decant.errors import AppError

_T = TypeVar("_T")


def read_app(folder: Path, options: AppOptions) -> App:
    """What Decant needs to know of an app folder.

    Raises:
        AppError: with all problems of the folder, where it cannot be served.
    """
    if not folder.is_dir():
        raise AppError("app", ("there is no such folder", "pulumi config set decant:app FOLDER"))
    problems: list[tuple[str, str]] = []

    def attempt(read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except AppError as error:
            # Several readers list the files, and one problem of git's is one for each of them.
            problems.extend(problem for problem in error.problems if problem not in problems)
            return None

    web = attempt(lambda: read_web(folder, options))
    python = attempt(lambda: read_python(folder, options))
    packages = attempt(lambda: read_packages(folder, options))
    debian_packages = attempt(lambda: read_aptfile(folder))
    persistent = attempt(lambda: read_persistent(folder, web, options)) if web else None
    static = attempt(lambda: _static(folder, options.static, web))
    left = attempt(lambda: read_left_behind(folder, options))
    attempt(lambda: check_built(folder, options))
    modules = reachable_modules(folder, web) if web else []
    attempt(lambda: check_calls(folder, modules))
    table_line = attempt(lambda: read_tables(folder, web, options, modules)) if web else None
    if problems or not (web and python and packages and left):
        raise AppError("app", *problems)
    if debian_packages is None or persistent is None or table_line is None:
        raise AppError("app", *problems)
    written = find_writes(folder, web, options, persistent, modules)
    return App(
        folder=folder,
        web=web,
        python=python,
        packages=packages,
        debian_packages=tuple(dict.fromkeys([*debian_packages, *packages.debian])),
        persistent=(*persistent, *written.persistent),
        static=static,
        notes=(*web.notes, *packages.notes, *aptfile_notes(folder), *left.notes, *written.notes),
        warnings=(
            *web.warnings,
            *packages.warnings,
            *left.warnings,
            *written.warnings,
        ),
        table_line=table_line,
    )


def _static(folder: Path, static: str | None, web: WebProcess | None) -> str | None:
    """The folder of static files: the one that the setting names, or Flask's own where there is one."""
    if static is None:
        return static_folder(folder, web) if web else None
    if not (folder / static).is_dir():
        raise AppError("app", (f"has no folder {static}, which decant:static names", "pulumi config rm decant:static"))
    return static
