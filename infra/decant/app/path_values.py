"""Paths in Python code: what an expression such as `os.path.join(basedir, "uploads")` stands for; nothing is run."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

APP = "/<app>"
"""The app folder in values, wherever it is."""

_SAME_TEXT = frozenset({"as_posix", "strip", "lstrip", "rstrip", "encode", "decode"})
"""Methods after which a path is the same."""


class Value(NamedTuple):
    """A text that an expression stands for. Where it is not `whole`, something unknown follows the text."""

    text: str
    whole: bool = True


@dataclass(kw_only=True)
class Scope:
    """Where an expression stands: the file, and what names mean there."""

    file: str
    """Below APP: `/<app>/shop/views.py`."""
    cwd: str
    """The app's current folder, below APP."""
    names: dict[str, ast.expr] = field(default_factory=dict)
    """What the file assigns once: names of the module and of its classes."""
    config: Mapping[str, Value | None] = field(default_factory=dict)
    """What the app assigns to its configuration; None where that is more than one value."""
    variables: Mapping[str, str | None] = field(default_factory=dict)
    """Environment variables that are set; None for a secret."""
    root_path: str = APP
    """Flask's `app.root_path`."""
    busy: set[str] = field(default_factory=set)


def in_app(value: Value | None, scope: Scope) -> str | None:
    """The path in the app folder that a value leads to: relative to that folder; None for every other place.

    An unknown end is left out: the path is then that of a folder.
    """
    if value is None or not value.text:
        return None
    text = value.text if value.whole else value.text[: value.text.rfind("/") + 1]
    if not text:
        return None
    path = posixpath.normpath(posixpath.join(scope.cwd, text))
    path = f"/{path.lstrip('/')}"  # normpath keeps two slashes at the beginning, as in sqlite:///// and a path
    return path.removeprefix(f"{APP}/") if path.startswith(f"{APP}/") else None


def value_of(node: ast.expr | None, scope: Scope) -> Value | None:
    """What an expression stands for; None where that is unknown."""
    match node:
        case ast.Constant(value=str() as text):
            return Value(text)
        case ast.JoinedStr(values=parts):
            return _joined([_text_of(part, scope) for part in parts])
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined([value_of(left, scope), value_of(right, scope)])
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _path_join([value_of(left, scope), value_of(right, scope)])
        case ast.BinOp(left=ast.Constant(value=str() as text), op=ast.Mod(), right=right):
            items = right.elts if isinstance(right, ast.Tuple) else [right]
            return _filled(re.split("%s", text), items, scope)
        case ast.BoolOp(op=ast.Or(), values=values):
            return next((found for found in (value_of(item, scope) for item in values) if found), None)
        case ast.IfExp(body=body, orelse=other):
            return value_of(body, scope) or value_of(other, scope)
        case ast.Name(id="__file__"):
            return Value(scope.file)
        case ast.Name(id=name):
            return _named(name, scope)
        case ast.Attribute():
            return _attribute(node, scope)
        case ast.Subscript(value=value, slice=ast.Constant(value=str() as key)):
            return _item(value, key, scope)
        case ast.Subscript(value=ast.Attribute(value=path, attr="parents"), slice=ast.Constant(value=int() as index)):
            found = value_of(path, scope)
            for _ in range(index + 1):
                found = Value(posixpath.dirname(found.text)) if found and found.whole else None
            return found
        case ast.Call():
            return _call(node, scope)
    return None


def dotted(node: ast.expr) -> str:
    """`os.path.join` for the expression of that name; the last attribute alone where it hangs on something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else f"?.{node.attr}"
    return ""


def _text_of(part: ast.expr, scope: Scope) -> Value | None:
    return value_of(part.value if isinstance(part, ast.FormattedValue) else part, scope)


def _joined(values: list[Value | None]) -> Value | None:
    """Texts one after another, up to the first unknown one."""
    text = ""
    for value in values:
        if value is None:
            return Value(text, whole=False) if text else None
        text += value.text
        if not value.whole:
            return Value(text, whole=False)
    return Value(text)


def _path_join(values: list[Value | None]) -> Value | None:
    text = ""
    for value in values:
        if value is None:
            return Value(f"{text}/", whole=False) if text else None
        text = posixpath.join(text, value.text)
        if not value.whole:
            return Value(text, whole=False)
    return Value(text)


def _filled(texts: list[str], items: list[ast.expr], scope: Scope) -> Value | None:
    """The texts with an item between each two of them; None where the numbers differ."""
    if len(texts) != len(items) + 1:
        return None
    parts: list[Value | None] = [Value(texts[0])]
    for text, item in zip(texts[1:], items, strict=True):
        parts += [value_of(item, scope), Value(text)]
    return _joined(parts)


def _named(name: str, scope: Scope) -> Value | None:
    if name not in scope.names or name in scope.busy:
        return None
    scope.busy.add(name)
    try:
        return value_of(scope.names[name], scope)
    finally:
        scope.busy.discard(name)


def _attribute(node: ast.Attribute, scope: Scope) -> Value | None:
    if node.attr in ("pardir", "curdir"):
        return Value(".." if node.attr == "pardir" else ".")
    if node.attr == "root_path":
        return Value(scope.root_path)
    if node.attr == "parent":
        value = value_of(node.value, scope)
        return Value(posixpath.dirname(value.text)) if value and value.whole else None
    if isinstance(node.value, ast.Name) and (node.value.id in ("self", "cls") or node.value.id[:1].isupper()):
        return _named(node.attr, scope)  # Config.UPLOAD_FOLDER
    return None


def _item(value: ast.expr, key: str, scope: Scope) -> Value | None:
    """`app.config["UPLOAD_FOLDER"]`, `os.environ["UPLOAD_FOLDER"]`."""
    name = dotted(value)
    if name.endswith("environ"):
        return _variable(key, None, scope)
    return scope.config.get(key) if name.rpartition(".")[2] == "config" else None


def _variable(name: str, default: ast.expr | None, scope: Scope) -> Value | None:
    if name not in scope.variables:
        return value_of(default, scope)
    text = scope.variables[name]
    return Value("", whole=False) if text is None else Value(text)  # a secret is set, whatever it is


def _call(node: ast.Call, scope: Scope) -> Value | None:
    name, arguments = dotted(node.func), node.args
    last = name.rpartition(".")[2]
    first = value_of(arguments[0], scope) if arguments else None
    of = node.func.value if isinstance(node.func, ast.Attribute) else None
    found: Value | None = None
    if name.endswith("path.join") or name in ("join", "safe_join"):
        found = _path_join([value_of(argument, scope) for argument in arguments])
    elif last == "joinpath" and of is not None:
        found = _path_join([value_of(of, scope), *(value_of(argument, scope) for argument in arguments)])
    elif last in ("abspath", "realpath"):
        found = Value(posixpath.join(scope.cwd, first.text), first.whole) if first else None
    elif last in ("normpath", "str", "fspath"):
        found = first
    elif last in _SAME_TEXT and of is not None:
        found = value_of(of, scope)
    elif last == "replace" and of is not None and len(arguments) >= 2:
        text, old, new = value_of(of, scope), first, value_of(arguments[1], scope)
        if text and text.whole and old and old.text and new:
            found = Value(text.text.replace(old.text, new.text))
    elif last == "format" and isinstance(of, ast.Constant) and isinstance(of.value, str) and not node.keywords:
        found = _filled(re.split(r"\{\d?\}", of.value), arguments, scope)
    elif last == "dirname":
        found = Value(posixpath.dirname(first.text)) if first and first.whole else None
    elif last in ("Path", "PurePath", "PosixPath"):
        found = _path_join([value_of(argument, scope) for argument in arguments]) if arguments else Value(".")
    elif last in ("resolve", "absolute") and of is not None:
        path = value_of(of, scope)
        found = Value(posixpath.join(scope.cwd, path.text), path.whole) if path else None
    elif last == "getcwd" or name.endswith("Path.cwd"):
        found = Value(scope.cwd)
    elif name.endswith(("environ.get", "getenv")) and isinstance(arguments[0], ast.Constant):
        default = arguments[1] if len(arguments) > 1 else None
        found = _variable(str(arguments[0].value), default, scope)
    elif name.endswith("config.get") and isinstance(arguments[0], ast.Constant):
        found = scope.config.get(str(arguments[0].value))
    return found
