"""The tables of an app's database: what makes them, which is empty on a new machine."""

from __future__ import annotations

import ast
import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from decant.app.files import app_files, printable
from decant.app.model import AppOptions, WebProcess
from decant.app.path_values import dotted
from decant.app.reachable import Module, walk_run
from decant.app.shown import shown
from decant.app.writable import is_inside
from decant.errors import AppError

_MAKERS = frozenset({"create_all", "create_tables", "create_table", "executescript", "upgrade", "generate_mapping"})
"""Functions of SQLAlchemy, Peewee, sqlite3, Flask-Migrate and Pony that make tables."""

_DATABASE = re.compile(r"DATABASE|DB|SQL")
_DATABASES = (".db", ".db3", ".sqlite", ".sqlite3")

_SQLALCHEMY = re.compile(r"^(\w+)(?:\s*:[^=\n]+)?\s*=\s*(?:\w+\.)?SQLAlchemy\s*\(", re.MULTILINE)
_NAME = re.compile(r"['\"](?P<named>[\w-]+)['\"]")
_COMMAND = re.compile(
    r"^@(?:\w+\.)*command\((?P<arguments>[^)\n]*)\)\s*\n(?:\s*@[^\n]*\n)*\s*def (?P<function>\w+)\(", re.MULTILINE
)
_MAKES = re.compile(r"init|create|migrate|setup|table|upgrade|forge", re.IGNORECASE)
_EACH_RELEASE = "It runs for each new release: if it empties the tables, remove the line after the first one"
_SKIPPED = {"node_modules", "tests", "test", "migrations"}


def read_tables(folder: Path, web: WebProcess, options: AppOptions, modules: Sequence[Module]) -> str:
    """What the Procfile needs, where a table of the app's database is missing: `release: flask db upgrade`.

    It is empty where the app has a release command, or its code names no way to make tables. `modules` is what the web
    process runs.

    Raises:
        AppError: for models of Flask-SQLAlchemy in an SQLite database whose tables nothing makes. Such an app goes
            live, and every page that reads the database answers 500. Any code that makes tables, and any database that
            is shipped, counts as enough.
    """
    line, about = ("", "") if web.release_command else release_line(folder, web)
    if not line:
        return ""
    line = printable(line)
    whole = f"{line}. {about}" if about else line
    if _uses_sqlite(options, modules) and any(_models(modules)) and not _has_tables(folder, modules):
        text = "has a database whose tables nothing makes: its web process does not, and there is no release command"
        raise AppError("app", (text, f"in {shown(folder)}/Procfile: {whole}. If something else does: release: true"))
    return whole


def _has_tables(folder: Path, modules: Sequence[Module]) -> bool:
    makes = any(_makes_tables(node) for module in modules for node in walk_run(module.tree))
    return makes or any(name.endswith(_DATABASES) for name, _ in app_files(folder))


def _uses_sqlite(options: AppOptions, modules: Sequence[Module]) -> bool:
    """Whether the database is a file of SQLite's, as far as the settings and the code say."""
    if any(_DATABASE.search(name) for name in options.secret_names):
        return False
    if urls := [value for name, value in options.env.items() if _DATABASE.search(name) and "://" in value]:
        return all(url.startswith("sqlite") for url in urls)
    return any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("sqlite:///")
        for module in modules
        for node in walk_run(module.tree)
    )


def _models(modules: Sequence[Module]) -> Iterator[ast.ClassDef]:
    """Classes that Flask-SQLAlchemy keeps in tables."""
    for module in modules:
        for node in walk_run(module.tree):
            if isinstance(node, ast.ClassDef) and any(dotted(base).endswith(".Model") for base in node.bases):
                yield node


def _makes_tables(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and re.search(r"\bCREATE\s+TABLE\b", node.value, re.IGNORECASE) is not None
    if isinstance(node, ast.Attribute):
        return node.attr in _MAKERS
    return isinstance(node, ast.Name) and node.id in _MAKERS


def release_line(folder: Path, web: WebProcess) -> tuple[str, str]:
    """The line `release: ...` that makes the tables of the app in a folder, and a sentence about it.

    Both are empty where the app's code names no way to make them.
    """
    start = posixpath.normpath(str(web.gunicorn.get("chdir") or "."))
    release = "release:" if start == "." else f"release: cd {shlex.quote(start)} &&"
    flask = f"{release} FLASK_APP={shlex.quote(web.wsgi_app)} flask"
    here = folder / start
    if any(any(here.glob(f"{depth}migrations/env.py")) for depth in ("", "*/", "*/*/")):
        return f"{flask} db upgrade", ""
    if (here / "alembic.ini").is_file():
        return f"{release} alembic upgrade head", ""
    sources = [(name, text) for name, text in _sources(folder) if is_inside(name, start)]
    for name, text in sources:
        if match := _SQLALCHEMY.search(text):
            tables = posixpath.relpath(name, start).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
            if not all(part.isidentifier() for part in tables.split(".")):
                continue  # no statement can import it
            return f"{release} python -c {shlex.quote(_create_all(web.wsgi_app, tables, match[1]))}", ""
    for _, text in sources:
        for match in _COMMAND.finditer(text):
            named = _NAME.search(match["arguments"])
            command = named["named"] if named else match["function"].removesuffix("_command").replace("_", "-")
            if _MAKES.search(command):
                return f"{flask} {command}", _EACH_RELEASE
    return "", ""


def _create_all(entry: str, module: str, name: str) -> str:
    """Python's code that makes the tables of Flask-SQLAlchemy's object `name` in `module`."""
    start, _, made = entry.partition(":")
    made = made or "application"
    imported = made.partition("(")[0]
    both = f"from {start} import {imported}, {name}" if start == module else ""
    imports = both or f"from {start} import {imported}; from {module} import {name}"
    return f"{imports}; {made}.app_context().push(); {name}.create_all()"


def _sources(folder: Path) -> Iterator[tuple[str, str]]:
    """The modules that are shipped and what they say, those that are nearest to the app folder first."""
    files = [(name.count("/"), name, path) for name, path in app_files(folder) if name.endswith(".py")]
    for _, name, path in sorted(files):
        if not _SKIPPED.intersection(name.split("/")) and path.is_file() and path.stat().st_size <= 1 << 20:
            yield name, path.read_text(encoding="utf-8", errors="replace")
