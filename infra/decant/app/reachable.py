"""The modules of an app folder that the web process imports, and the statements of them that it runs."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from decant.app.model import WebProcess
from decant.app.writable import entry_module, import_roots

_OBJECT = re.compile(r"(?:[A-Za-z_]\w*\.)+[A-Z]\w*")
_LARGEST = 1 << 20  # bytes of a file that is read


class Module(NamedTuple):
    """A file of the app folder, by its path in it, and what it says."""

    file: str
    tree: ast.Module


def reachable_modules(folder: Path, web: WebProcess) -> list[Module]:
    """The modules of the folder that the web process imports, directly or through others."""
    roots = import_roots(folder, web)
    entry = entry_module(folder, web)
    found: dict[str, Module] = {}
    waiting = [entry] if entry else []
    while waiting:
        file = waiting.pop(0)
        if file in found or (folder / file).stat().st_size > _LARGEST:
            continue
        try:
            tree = ast.parse((folder / file).read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        found[file] = Module(file, tree)
        for name in _imports(tree, file, roots):
            waiting += _files_of(folder, name, roots)
    return list(found.values())


def _imports(tree: ast.Module, file: str, roots: tuple[str, ...]) -> Iterator[str]:
    """Paths of imported modules without suffix: relative to the app folder after `./`, else to any root."""
    package = posixpath.dirname(file)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _OBJECT.fullmatch(node.value):
            yield node.value.replace(".", "/")  # app.config.from_object("shop.config.Config")
        if isinstance(node, ast.Import):
            yield from (alias.name.replace(".", "/") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").replace(".", "/")
            if node.level:
                start = package
                for _ in range(node.level - 1):
                    start = posixpath.dirname(start)
                base = f"./{posixpath.join(start, base)}"
            yield base
            yield from (f"{base.rstrip('/')}/{alias.name}" for alias in node.names)


def _files_of(folder: Path, name: str, roots: tuple[str, ...]) -> Iterator[str]:
    """The files that an import of a module runs: its own and those of the packages around it."""
    for root in ("",) if name.startswith("./") else roots:
        parts = PurePosixPath(name).parts
        for length in range(1, len(parts) + 1):
            path = posixpath.normpath(posixpath.join(root, *parts[:length]))
            for file in (f"{path}.py", f"{path}/__init__.py"):
                if (folder / file).is_file():
                    yield file


def targets(statement: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What a statement assigns to, and what it assigns."""
    if isinstance(statement, ast.Assign):
        yield from ((target, statement.value) for target in statement.targets)
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        yield statement.target, statement.value


def walk_run(node: ast.AST) -> Iterator[ast.AST]:
    """Every node, except what the web process does not run: `if __name__ == "__main__"`, commands of `flask`, tests."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "__name__" in ast.dump(child.test) and "__main__" in ast.dump(child.test):
            for other in child.orelse:
                yield other
                yield from walk_run(other)
            continue
        if isinstance(child, ast.ClassDef) and "test" in child.name.lower():
            continue
        if isinstance(child, ast.FunctionDef) and any("command" in ast.dump(d) for d in child.decorator_list):
            continue
        yield child
        yield from walk_run(child)


def calls(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls that the web process runs."""
    return (node for node in walk_run(tree) if isinstance(node, ast.Call))
