"""gunicorn's own configuration file in an app: which settings it makes, read from its source."""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decant.app.gunicorn_options import REFUSED, REPLACED, USED, checked, read_raw_env, without_effect
from decant.app.python_source import Modules
from decant.app.shown import shown
from decant.errors import AppError

DEFAULT = "gunicorn.conf.py"
"""The file that gunicorn reads without being told to."""


@dataclass(kw_only=True)
class GunicornConfig:
    """What a configuration file settles. A machine runs it, for everything that is no plain value."""

    file: str
    """Relative to the app folder."""
    values: dict[str, Any] = field(default_factory=dict)
    """Settings whose value is written out."""
    env: dict[str, str] = field(default_factory=dict)
    application: str | None = None
    names: frozenset[str] = frozenset()
    """All settings that it makes and that are used."""
    notes: list[str] = field(default_factory=list)


def read_config(folder: Path, start: str, named: str | None, fix: str) -> GunicornConfig | None:
    """The configuration file that gunicorn, started in the folder `start`, would read; None where there is none.

    Raises:
        AppError: for a file that is missing or outside of the app, and for settings that cannot be used.
    """
    file = _file(folder, start, named, fix)
    if file is None:
        return None
    try:
        tree = ast.parse((folder / file).read_bytes())
    except (SyntaxError, ValueError) as error:
        raise AppError("app", (f"{file} cannot be read: {error}", f"mend {shown(folder)}/{file}")) from None
    found = GunicornConfig(file=file)
    problems: list[tuple[str, str]] = []
    replaced: dict[str, list[str]] = {}
    names = _names(tree)
    for name in names:
        if name in REFUSED:
            problems.append((f"{file}: {name} cannot be used: {REFUSED[name]}", f"remove {name} from {file}"))
        elif name in REPLACED:
            replaced.setdefault(REPLACED[name], []).append(name)
    found.names = frozenset(name for name in names if name in USED)
    for name, value in _literals(tree).items():
        try:
            _use(found, name, value)
        except ValueError as error:
            problems.append((f"{file}: {name}: {error}", f"mend {name} in {shown(folder)}/{file}"))
    found.notes = [f"{file}: {without_effect(sorted(n))}: {why}" for why, n in replaced.items()]
    if problems:
        raise AppError("app", *problems)
    return found


def _use(found: GunicornConfig, name: str, value: Any) -> None:
    if name == "raw_env":
        found.env.update(read_raw_env(value))
    elif name == "wsgi_app":
        found.application = value
    elif name in USED and name != "config" and value is not None:
        # What no JSON has, such as a tuple, is left to the machine, which runs the file.
        made = checked(name, value)
        if isinstance(made, str | int | float | bool):
            found.values[name] = made


def _file(folder: Path, start: str, named: str | None, fix: str) -> str | None:
    if named is None:
        path = os.path.normpath(f"{start}/{DEFAULT}")
        return path if (folder / path).is_file() else None
    if named.startswith("python:"):
        module = Modules(folder, (start,)).path(named.removeprefix("python:"))
        if module is None:
            raise AppError("app", (f"has no module {named[7:]}, which gunicorn's --config names", fix))
        return module.relative_to(folder).as_posix()
    given = named.removeprefix("file:")
    given = given.removeprefix("/app/") if given.startswith("/app/") else f"{start}/{given}"
    path = os.path.normpath(given) if not named.removeprefix("file:").startswith("/") or named[:5] == "/app/" else named
    if path.startswith(("/", "..")) or not (folder / path).is_file():
        raise AppError("app", (f"has no file {named}, which gunicorn's --config names", fix))
    return path


def _names(tree: ast.Module) -> list[str]:
    """Every name that the file gives a value at its top level, also in `if` and `try`."""
    found: dict[str, None] = {}
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = None
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update({alias.asname or alias.name: None for alias in node.names})
        else:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found[node.id] = None
            waiting += ast.iter_child_nodes(node)
    return list(found)


def _literals(tree: ast.Module) -> dict[str, Any]:
    """The names that have one value at the top level, and that value is written out."""
    values: dict[str, Any] = {}
    unsure: set[str] = set()
    stored = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            try:
                values[name] = ast.literal_eval(node.value)
            except ValueError:
                unsure.add(name)
    return {name: value for name, value in values.items() if stored.count(name) == 1 and name not in unsure}
