"""Python modules of an app as far as their source tells: the names they define, and what kind of object each one is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

WSGI_CALLS = frozenset(
    {"Eve", "OpenAPI", "DispatcherMiddleware", "ProxyFix", "WhiteNoise", "SharedDataMiddleware", "PrefixMiddleware",
     "get_wsgi_application", "Bottle", "WSGIMiddleware"}
)  # fmt: skip
ASGI_CALLS = frozenset(
    {"FastAPI", "Starlette", "Quart", "Sanic", "Litestar", "WsgiToAsgi", "get_asgi_application", "ASGIApp",
     "AsgiMiddleware", "AsyncApp", "Blacksheep"}
)  # fmt: skip
OTHER_CALLS = frozenset(
    {"Typer", "Celery", "QApplication", "Tk", "CTk", "ArgumentParser", "Blueprint", "SQLAlchemy", "Console", "Migrate",
     "Manager", "SocketIO", "Path", "dict", "list", "str", "int", "App", "Application", "Bot", "Client"}
)  # fmt: skip
FACTORIES = ("create_app", "make_app")


@dataclass(frozen=True, kw_only=True)
class Name:
    """What a name of a module is.

    `kind`: wsgi (an application), asgi, dash (its `server` is the application), function, other (no application), none
    (`None`), maybe (a call or an expression that nobody can judge here), import (see `module` and `attribute`).
    """

    kind: str
    parameters: tuple[str, ...] = ()
    """Of a function: its parameters in order."""
    required: tuple[str, ...] = ()
    """Of a function: those without a default."""
    variadic: bool = False
    """Of a function: whether it has *args or **kwargs."""
    module: str = ""
    level: int = 0
    attribute: str | None = None


@dataclass
class Source:
    """One module's names."""

    path: Path
    names: dict[str, Name] = field(default_factory=dict)
    complete: bool = True
    """Whether the names are all that there can be: no star import, no `globals()`, nothing that cannot be parsed."""
    empty: bool = False
    served: list[str] = field(default_factory=list)
    """Names that the module serves when it is run: `app` of `app.run()`, `socketio.run(app)`."""
    serves_at_import: bool = False
    """Whether it serves already when it is imported."""
    tree: ast.Module | None = None


def read_source(path: Path) -> Source:
    """The names of a module."""
    source = Source(path=path)
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        source.complete = False
        return source
    source.tree, source.empty = tree, not tree.body
    if any(isinstance(n, ast.Call) and _last(n.func) in ("globals", "exec", "setattr", "vars") for n in ast.walk(tree)):
        source.complete = False
    _read(source, tree.body, main=False)
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            for name in node.names:
                source.names.setdefault(name, Name(kind="maybe"))
    if "__getattr__" in source.names:
        source.complete = False
    return source


def _read(source: Source, body: list[ast.stmt], *, main: bool) -> None:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            source.names[node.name] = _function(node)
        elif isinstance(node, ast.ClassDef):
            source.names[node.name] = Name(kind="class" if not _is_flask_class(node) else "flask-class")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                module = alias.name if alias.asname else name
                source.names[name] = Name(kind="import", module=module)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    source.complete = False
                    continue
                found = Name(kind="import", module=node.module or "", level=node.level, attribute=alias.name)
                source.names[alias.asname or alias.name] = found
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                _assign(source, target, node.value)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            _served(source, node.value, main=main)
        else:
            _read_block(source, node, main=main)


def _read_block(source: Source, node: ast.stmt, *, main: bool) -> None:
    """The names of the statements inside of `if`, `try`, `with` and loops."""
    if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
        # Only a module that is run does what is in there; its names are not there for gunicorn.
        inner = Source(path=source.path)
        _read(inner, node.body, main=True)
        source.served += inner.served
        _read(source, node.orelse, main=main)
        return
    if isinstance(node, ast.For | ast.AsyncFor):
        _assign(source, node.target, None)
    if isinstance(node, ast.With | ast.AsyncWith):
        for item in node.items:
            if item.optional_vars is not None:
                _assign(source, item.optional_vars, None)
    for part in ("body", "orelse", "finalbody"):
        _read(source, getattr(node, part, []), main=main)
    for handler in getattr(node, "handlers", []):
        _read(source, handler.body, main=main)
    for case in getattr(node, "cases", []):
        _read(source, case.body, main=main)


def _assign(source: Source, target: ast.expr, value: ast.expr | None) -> None:
    if isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            _assign(source, element, None)
    elif isinstance(target, ast.Name):
        source.names[target.id] = _kind(source, value)


def _kind(source: Source, value: ast.expr | None) -> Name:
    if isinstance(value, ast.Name):
        return source.names.get(value.id, Name(kind="maybe"))
    if isinstance(value, ast.Constant):
        return Name(kind="none" if value.value is None else "other")
    if isinstance(value, ast.Dict | ast.List | ast.Tuple | ast.Set | ast.JoinedStr | ast.ListComp | ast.DictComp):
        return Name(kind="other")
    if isinstance(value, ast.Attribute):
        return Name(kind="wsgi" if value.attr in ("server", "wsgi_app") else "maybe")
    if isinstance(value, ast.Call):
        called = _last(value.func)
        local = source.names.get(called)
        if called.endswith("Flask") or called in WSGI_CALLS or (local and local.kind == "flask-class"):
            return Name(kind="wsgi")
        if called == "Dash":
            return Name(kind="dash")
        if called in ASGI_CALLS:
            return Name(kind="asgi")
        if called in OTHER_CALLS and not (local and local.kind in ("function", "class")):
            return Name(kind="other")
    return Name(kind="maybe")


def _served(source: Source, call: ast.Call, *, main: bool) -> None:
    """Note the name that `NAME.run()`, `socketio.run(NAME)`, `serve(NAME)` and the like serve."""
    called = _last(call.func)
    first = call.args[0].id if call.args and isinstance(call.args[0], ast.Name) else None
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    name: str | None = None
    if called in ("run", "run_server", "run_app"):
        name = first or (owner.id if isinstance(owner, ast.Name) else None)
        if name in ("asyncio", "subprocess", "uvicorn", "anyio", "trio"):
            return
    elif called in ("serve", "run_simple", "serve_forever"):
        inner = owner if isinstance(owner, ast.Call) else call
        name = next((a.id for a in reversed(inner.args) if isinstance(a, ast.Name)), None)
    if name:
        source.served.append(name)
        source.serves_at_import |= not main and name in source.names


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Name:
    arguments = node.args
    positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    required = positional[: len(positional) - len(arguments.defaults)]
    required += [a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is None]
    return Name(
        kind="function",
        parameters=(*positional, *(a.arg for a in arguments.kwonlyargs)),
        required=tuple(required),
        variadic=arguments.vararg is not None or arguments.kwarg is not None,
    )


def _is_flask_class(node: ast.ClassDef) -> bool:
    return any(_last(base).endswith("Flask") for base in node.bases)


def _last(node: ast.expr) -> str:
    """The last part of `a.b.c`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@dataclass
class Modules:
    """The modules of an app folder, found on a search path as Python would find them."""

    folder: Path
    roots: tuple[str, ...] = (".",)
    """Folders that are searched, in order, relative to the app folder."""
    _sources: dict[Path, Source] = field(default_factory=dict)

    def path(self, module: str) -> Path | None:
        """The file of a module; a package comes before a module of the same name."""
        parts = module.replace(".", "/")
        for root in self.roots:
            for file in (f"{parts}/__init__.py", f"{parts}.py"):
                path = self.folder / root / file
                if path.is_file():
                    return path
        return None

    def source(self, path: Path) -> Source:
        """The names of a module's file."""
        if path not in self._sources:
            self._sources[path] = read_source(path)
        return self._sources[path]

    def resolve(self, module: str, name: str, depth: int = 0) -> tuple[Name | None, Path | None]:
        """What a name of a module is, and the file that defines it: imports inside of the app are followed.

        None where the module surely lacks the name.
        """
        path = self.path(module)
        if path is None or depth > 6:
            return Name(kind="maybe"), None
        source = self.source(path)
        found = source.names.get(name)
        if found is None:
            if self.path(f"{module}.{name}") is not None and path.name == "__init__.py":
                return Name(kind="module"), path
            lacks = source.complete and not source.empty
            return (None if lacks else Name(kind="maybe")), path
        if found.kind != "import":
            return found, path
        base = found.module
        if found.level:
            package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            package = package[: len(package) - found.level + 1]
            base = ".".join([*package, base] if base else package)
        if found.attribute is None:
            return Name(kind="module"), path
        if self.path(base) is None:
            known = self.path(f"{base}.{found.attribute}") is not None
            return Name(kind="module" if known else "maybe"), path
        inner, where = self.resolve(base, found.attribute, depth + 1)
        return (inner or Name(kind="maybe")), where


def python_files(folder: Path) -> Iterator[Path]:
    """The Python files of an app folder, without environments, caches and other people's code."""
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or entry.name.startswith(".") or entry.name in ("node_modules", "__pycache__", "venv"):
            continue
        if entry.is_dir() and not (entry / "pyvenv.cfg").exists():
            yield from python_files(entry)
        elif entry.suffix == ".py" and entry.is_file():
            yield entry


def file_module(path: str) -> str:
    """The module of a file's path: `shop/web.py` is `shop.web`."""
    return re.sub(r"(/__init__)?\.py$", "", path.removeprefix("./")).strip("/").replace("/", ".")
