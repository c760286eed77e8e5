"""The entry point of an app: found as Flask finds it, or checked where it is named, without importing the app."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from decant.app.python_source import FACTORIES, Modules, Name, file_module
from decant.errors import AppError

# In this order; a folder's modules on one line come together, and several of them are ambiguous.
_STEMS = (("wsgi",), ("app",), ("application",), ("main",), ("run", "server", "index"))
_NO_APPS = re.compile(r"setup|conftest|test_.*|.*_test|tests?|config|settings|gunicorn.*|manage|tasks|noxfile|fabfile")
# gunicorn imports modules whose names Python's own statement could not, such as `my-shop`.
SPEC = re.compile(r"(?P<module>[\w-]+(\.[\w-]+)*)(:(?P<object>.+))?", re.DOTALL)

_Refuse = Callable[[str, str], AppError]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An application that was found: gunicorn's argument for it, its file, and the folder that Python searches."""

    app: str
    file: str
    root: str


def app_of_module(modules: Modules, module: str, *, lenient: bool = False) -> str | None:
    """gunicorn's argument for the application of a module, as Flask chooses it; None where it has none.

    `lenient` takes whatever is named `app` or `application`: in wsgi.py, nothing else would have that name.
    """
    path = modules.path(module)
    if path is None:
        return None
    source = modules.source(path)
    kinds = {name: modules.resolve(module, name)[0] or found for name, found in source.names.items()}
    taken = ("maybe", "none", "other") if lenient else ("maybe",)
    for name in ("app", "application", "server"):
        kind = kinds[name].kind if name in kinds else None
        # A plain WSGI application is a function of two arguments (PEP 3333).
        if kind == "function" and name != "server" and len(kinds[name].required) == 2:
            return f"{module}:{name}"
        if kind == "wsgi" or (kind in taken and name != "server"):
            return f"{module}:{name}"
    ready = [name for name, found in kinds.items() if found.kind == "wsgi"]
    if len(set(ready)) == 1:
        return f"{module}:{ready[0]}"
    for name in FACTORIES:
        if name in kinds and kinds[name].kind in ("function", "maybe") and not kinds[name].required:
            return f"{module}:{name}()"
    if lenient and source.empty:
        return f"{module}:app"
    return None


def find(folder: Path, start: str = ".") -> list[Candidate]:
    """The applications of a folder that are equally likely: one, none, or several. `start` is where to look in it."""
    for level in _levels(folder, start):
        if level:
            return level
    return []


def find_all(folder: Path, start: str = ".") -> list[Candidate]:
    """All applications of a folder, the likeliest first."""
    return [candidate for level in _levels(folder, start) for candidate in level]


def _levels(folder: Path, start: str) -> Iterator[list[Candidate]]:
    roots = [start] if start == "." and not (folder / "src").is_dir() else [start, f"{start}/src".removeprefix("./")]
    for root in roots:
        where = folder / root
        if not where.is_dir():
            continue
        modules = Modules(folder, (root,))
        stems = {path.stem for path in where.glob("*.py")} | {p.parent.name for p in where.glob("*/__init__.py")}
        known = {stem for level in _STEMS for stem in level}
        for level in _STEMS:
            yield _candidates(modules, [name for name in level if name in stems])
        files = sorted(p.stem for p in where.glob("*.py") if p.stem not in known and not _NO_APPS.fullmatch(p.stem))
        yield _sure(modules, [name for name in files if name.isidentifier()])
        packages = sorted(p.parent.name for p in where.glob("*/__init__.py") if not _NO_APPS.fullmatch(p.parent.name))
        yield [c for name in packages for c in _package(modules, name)]


def _candidates(modules: Modules, names: list[str]) -> list[Candidate]:
    found = ((name, app_of_module(modules, name, lenient=name == "wsgi")) for name in names)
    return [_candidate(modules, name, app) for name, app in found if app]


def _sure(modules: Modules, names: list[str]) -> list[Candidate]:
    """The candidates among modules of any name, which need an object that is surely an application."""
    made = []
    for candidate in _candidates(modules, names):
        module, _, name = candidate.app.partition(":")
        kind = modules.resolve(module, name)[0]
        source = modules.source(modules.folder / candidate.file)
        if (kind and kind.kind == "wsgi") or (kind and kind.kind == "maybe" and "flask" in _text(source.path)):
            made.append(candidate)
    return made


def _package(modules: Modules, package: str) -> list[Candidate]:
    """The application of a package: of its wsgi.py, its own, or of another of its modules."""
    for name in (f"{package}.wsgi", package, *(f"{package}.{s}" for level in _STEMS[1:] for s in level)):
        if modules.path(name) is not None and (app := app_of_module(modules, name, lenient=name.endswith(".wsgi"))):
            return [_candidate(modules, name, app)]
    return []


def _candidate(modules: Modules, module: str, app: str) -> Candidate:
    path = modules.path(module)
    file = path.relative_to(modules.folder).as_posix() if path else ""
    return Candidate(app=app, file=file, root=modules.roots[0])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").lower()


def line_for(candidate: Candidate) -> str:
    """The gunicorn command that serves a candidate."""
    folder = "" if candidate.root == "." else f"--chdir {candidate.root} "
    return f"gunicorn {folder}{quoted(candidate.app)}"


def quoted(app: str) -> str:
    """An application as a shell needs it."""
    if "(" not in app:
        return app
    return f'"{app}"' if "'" in app else f"'{app}'"


def flask_app(folder: Path, value: str) -> Candidate | None:
    """The application that a value of FLASK_APP names: `shop`, `shop.py`, `shop:create_app`, `src/shop`."""
    path, _, name = value.strip().partition(":")
    root = "."
    if "/" in path or path.endswith(".py"):
        parent, _, last = path.removesuffix("/").removeprefix("./").rpartition("/")
        root, path = parent or ".", last
        if last == "__init__.py":
            root, _, path = root.rpartition("/")
            root = root or "."
        # Flask walks up through packages, so that relative imports work.
        while root != "." and (folder / root / "__init__.py").is_file():
            root, _, last = root.rpartition("/")
            root, path = root or ".", f"{last}.{path}"
    modules = Modules(folder, (root,) if root != "." else (".", "src"))
    module = file_module(path)
    where = modules.path(module)
    if where is None:
        return None
    app = app_of_module(modules, module, lenient=True)
    if name:
        kind = modules.resolve(module, name)[0]
        app = f"{module}:{name}{'()' if kind and kind.kind == 'function' and '(' not in name else ''}"
    if app is None:
        return None
    if root == "." and not where.is_relative_to(folder / module.split(".")[0]):
        root = "." if where == folder / f"{module}.py" else "src"
    elif root == "." and (folder / "src") in where.parents and module.split(".")[0] != "src":
        root = "src"
    return Candidate(app=app, file=where.relative_to(folder).as_posix(), root=root)


def check(modules: Modules, app: str, source: str, fix: Callable[[str], str]) -> None:
    """An application that is named exists, as far as its module's source tells.

    `source` begins each sentence; `fix` gives the command or line that names another application instead.

    Raises:
        AppError: where gunicorn surely could not serve it.
    """

    def refuse(message: str, right: str) -> AppError:
        return AppError("app", (f"{source} {message}", fix(right)))

    spelled = _respelled(app)
    if spelled != app:
        raise refuse(f"{app!r} is a path; gunicorn takes a module", spelled)
    match = SPEC.fullmatch(app)
    if match is None:
        raise refuse(f"{app!r} is no application such as wsgi:app or 'shop:create_app()'", _suggestion(modules))
    module, expression = match["module"], match["object"] or "application"
    path = modules.path(module)
    if path is None:
        file = module.replace(".", "/")
        roots = " in " + ", ".join(modules.roots) if modules.roots != (".",) else ""
        raise refuse(f"{app} needs {file}.py or {file}/__init__.py{roots}, and there is none", _suggestion(modules))
    name, call = _expression(expression, lambda: refuse(f"{expression!r} is no name or call", f"{module}:app"))
    kind, _ = modules.resolve(module, name)
    best = app_of_module(modules, module, lenient=True)
    where = path.relative_to(modules.folder).as_posix()
    if kind is None:
        has = ", ".join(n for n, k in modules.source(path).names.items() if k.kind not in ("other", "module", "import"))
        means = f"{app} means {module}:application to gunicorn, and" if ":" not in app else f"{app}:"
        raise refuse(
            f"{means} {where} has no {name} (it has {has or 'no object of its own'})", best or f"{module}:NAME"
        )
    _check_kind(kind, name, call, where, refuse, module, best)
    if modules.source(path).serves_at_import:
        raise AppError(
            "app",
            (
                f"{where} starts a server when it is imported, so gunicorn could never serve it",
                f"in {where}, put that call under: if __name__ == '__main__':",
            ),
        )


def _check_kind(
    kind: Name, name: str, call: ast.Call | None, where: str, refuse: _Refuse, module: str, best: str | None
) -> None:
    if kind.kind == "module":
        raise refuse(f"{module}:{name} is a module and no application", f"{module}.{name}:app")
    if kind.kind == "asgi":
        raise AppError(
            "app",
            (
                f"{where}: {name} is an ASGI application, and Decant serves WSGI applications, such as Flask's",
                "pulumi config set decant:wsgiApp MODULE:NAME, with a Flask application",
            ),
        )
    if kind.kind == "dash":
        raise AppError(
            "app",
            (
                f"{where}: {name} is a Dash object and no WSGI application",
                f"add to {where}: server = {name}.server    and name {module}:server",
            ),
        )
    if kind.kind == "function" and call is None and kind.parameters[:2] != ("environ", "start_response"):
        looks = len(kind.required) != 2 and not kind.variadic
        if looks:
            arguments = "" if not kind.required else ", ".join(f"'{p}'" for p in kind.required)
            raise refuse(f"{name} in {where} is a function that makes an application", f"{module}:{name}({arguments})")
    if kind.kind == "function" and call is not None and not kind.variadic:
        named = {keyword.arg for keyword in call.keywords}
        missing = [p for p in kind.required if p not in named][len(call.args) :]
        if missing:
            raise refuse(
                f"{module}:{name}() lacks a value for {', '.join(missing)}",
                f"{module}:{name}({', '.join([*map(ast.unparse, call.args), *(repr(p.upper()) for p in missing)])})",
            )
        strange = [k for k in named if k and k not in kind.parameters]
        if strange or len(call.args) > len(kind.parameters):
            raise refuse(f"{module}:{name} takes no such arguments", best or f"{module}:{name}()")


def _expression(expression: str, refuse: Callable[[], AppError]) -> tuple[str, ast.Call | None]:
    """The name, and the call where there is one, as gunicorn reads them: literal arguments alone."""
    try:
        node = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise refuse() from None
    if isinstance(node, ast.Name):
        return node.id, None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        try:
            for value in (*node.args, *(keyword.value for keyword in node.keywords)):
                ast.literal_eval(value)
        except ValueError:
            raise refuse() from None
        return node.func.id, node
    raise refuse()


def _respelled(app: str) -> str:
    """An application whose module is written as a path, as a module: `src/app.py:app` is `src.app:app`."""
    module, colon, name = app.partition(":")
    if module.endswith(".py") or "/" in module:
        return f"{file_module(module if module.endswith('.py') else module + '.py')}{colon}{name}"
    return app


def _suggestion(modules: Modules) -> str:
    found = find(modules.folder, modules.roots[0]) or find(modules.folder)
    return found[0].app if found else "MODULE:NAME"
