"""A search for code that writes into the app folder, where a machine lets it write nothing."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from decant.app.files import app_files
from decant.app.model import AppOptions, WebProcess
from decant.app.path_values import APP, Scope, Value, dotted, in_app, value_of
from decant.app.reachable import Module, calls, targets, walk_run
from decant.app.writable import cannot_be_persistent, is_inside

_FOLDERS = frozenset({"mkdir", "makedirs"})
_LOGS = re.compile(r"(Rotating|TimedRotating|Watched|ConcurrentRotating|ConcurrentTimedRotating)?FileHandler")
_SAVES = frozenset(
    {"save", "savefig", "savetxt", "to_csv", "to_json", "to_excel", "to_pickle", "to_parquet", "to_feather", "dump_to"}
)
# Names of an app's configuration whose value is a folder that a Flask extension, or nearly every app, writes into.
_CONFIGURED = re.compile(r"UPLOAD\w*(FOLDER|DIR|DIRECTORY|PATH|DEST)|UPLOADED_\w+_DEST|SESSION_FILE_DIR|CACHE_DIR")
_SUFFIX = r"\.[A-Za-z]\w{0,9}$"
_DATABASES = (".db", ".db3", ".sqlite", ".sqlite3")
_DATA = (
    *_DATABASES, ".csv", ".json", ".log", ".md", ".parquet", ".pickle", ".pkl", ".tsv", ".txt", ".xls", ".xlsx", ".xml",
    ".bmp", ".gif", ".ico", ".jpeg", ".jpg", ".png", ".svg", ".webp", ".doc", ".docx", ".pdf", ".zip", ".mp3", ".mp4",
    ".ogg", ".wav", ".webm",
)  # fmt: skip
"""The names of files that an app writes as data, and that no release has to replace."""
_COPIED = ". What the app brings there is copied once, and a later release does not replace it"
_PLACEHOLDERS = frozenset({".gitkeep", ".keep", ".gitignore", ".placeholder"})
_DATABASE = "SQLALCHEMY_DATABASE_URI"


class Write(NamedTuple):
    """A place in the code that writes into the app folder; `path` is relative to that folder."""

    file: str
    line: int
    path: str
    is_folder: bool


class Found(NamedTuple):
    """What the search found: paths that become persistent, and a sentence for each of them and of the others."""

    persistent: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def find_writes(
    folder: Path, web: WebProcess, options: AppOptions, persistent: tuple[str, ...], modules: Sequence[Module]
) -> Found:
    """The paths that the code of the web process, `modules`, writes and that are not `persistent`.

    A path of which nothing is shipped becomes persistent: on other platforms the app can write it. So does one of which
    databases, pictures and other data are shipped, whose content is then copied once. Another path that is shipped is
    only named, because a persistent one would hide the code that a later release brings. What is unknown before the app
    runs is left out: a sentence that is wrong would do more harm than one that is missing.
    """
    shipped = [name for name, _ in app_files(folder) if PurePosixPath(name).name not in _PLACEHOLDERS]
    found: dict[str, Write] = {}
    for write in _writes(folder, modules, web, options, shipped):
        path = _persistent_path(folder, write, {module.file for module in modules}, options, shipped)
        if path and not any(path == other or is_inside(path, other) for other in persistent):
            found.setdefault(path, write)
    outer = [path for path in found if not any(is_inside(path, other) for other in found)]
    new = [
        path
        for path in outer
        if all(name.lower().endswith(_DATA) for name in shipped if name == path or is_inside(name, path))
        if not cannot_be_persistent(folder, path, web, options)
    ]
    others = [path for path in outer if path not in new]
    return Found(
        persistent=tuple(new),
        notes=tuple(
            f"{found[path].file}:{found[path].line} writes {found[path].path}, so {path} is kept when a release goes"
            f" live; each machine has its own{_COPIED if _is_shipped(path, shipped) else ''}"
            for path in new
        ),
        warnings=tuple(
            f"{found[path].file}:{found[path].line} writes {found[path].path} in the app folder, which is read-only on"
            f" a machine. To let the app write there: pulumi config set --path"
            f" 'decant:persistent[{len(options.persistent) + number}]' {path}"
            for number, path in enumerate(others)
        ),
    )


def _is_shipped(path: str, shipped: Sequence[str]) -> bool:
    return any(name == path or is_inside(name, path) for name in shipped)


def _persistent_path(
    folder: Path, write: Write, code: set[str], options: AppOptions, shipped: Sequence[str]
) -> str | None:
    """The path to name in decant:persistent: the folder of a file where that folder holds nothing else of the app."""
    if write.is_folder:
        return write.path
    parent = posixpath.dirname(write.path)
    if write.path.endswith(_DATABASES) and any(is_inside(name, parent) for name in shipped):
        return write.path  # a release goes on bringing what else is there
    name = PurePosixPath(parent).name
    shared = not parent or name in ("static", "templates") or parent == options.static
    shared = shared or any((folder / parent).glob("*.py")) or any(posixpath.dirname(file) == parent for file in code)
    if not shared:
        return parent
    # Without a suffix it would be taken for a folder.
    return write.path if (folder / write.path).is_file() or re.search(_SUFFIX, write.path) else None


# ------------------------------------------------------------------------------------------------ writes


def _writes(
    folder: Path, modules: Sequence[Module], web: WebProcess, options: AppOptions, shipped: Sequence[str]
) -> Iterator[Write]:
    chdir = posixpath.normpath(posixpath.join(APP, str(web.gunicorn.get("chdir") or ".")))
    variables = {**web.env, **options.env, **dict.fromkeys(options.secret_names), "DATA_DIR": None, "HOME": None}
    config: dict[str, Value | None] = {}
    scopes = []
    flask_file = _flask_file(modules)
    for module in modules:
        scope = Scope(
            file=f"{APP}/{module.file}", cwd=chdir, names=_names(module.tree), config=config, variables=variables,
            root_path=posixpath.dirname(f"{APP}/{flask_file or module.file}"),
        )  # fmt: skip
        scopes.append((module, scope))
    assigned = [(m, s, name, line, value) for m, s in scopes for name, line, value in _assignments(m.tree)]
    for _, scope, name, _, expression in assigned:
        value = value_of(expression, scope)
        if value is not None:
            config[name] = None if name in config and config[name] != value else value
    elsewhere = [name for name, value in options.env.items() if not re.match(r"sqlite:///(?!/)", value)]
    has_database = any(re.search("DATABASE|DB", name) for name in (*elsewhere, *options.secret_names))
    old = _old_sqlalchemy(folder)
    for module, scope, name, line, expression in assigned:
        value = value_of(expression, scope)
        path: str | None = None
        if _CONFIGURED.fullmatch(name):
            path = in_app(value, scope)
        elif name == _DATABASE and not has_database:
            path = _sqlite(value, scope, scope.root_path if old else None)
        if path:
            yield Write(module.file, line, path, name != _DATABASE)
    for module, scope in scopes:
        yield from _named_databases(module, scope, shipped, urls=not has_database)
        for call in calls(module.tree):
            for path, is_folder in _written_by(call, scope):
                yield Write(module.file, call.lineno, path, is_folder)


def _named_databases(module: Module, scope: Scope, shipped: Sequence[str], *, urls: bool) -> Iterator[Write]:
    """Paths of SQLite databases in the app folder that no release brings: the app can only make them.

    With `urls`, those in URLs are among them.
    """
    for statement in walk_run(module.tree):
        for target, expression in targets(statement) if isinstance(statement, ast.stmt) else ():
            value = value_of(expression, scope) if isinstance(target, ast.Name) else None
            url = value.text.removeprefix("sqlite:///") if value else ""
            if value and value.whole and url.startswith(f"{APP}/") and url.endswith(_DATABASES):
                path = in_app(Value(url), scope)
                if path and path not in shipped and (urls or url == value.text):
                    yield Write(module.file, expression.lineno, path, is_folder=False)


def _names(tree: ast.Module) -> dict[str, ast.expr]:
    """What the file assigns to a name, where that is one expression and nothing else sets that name."""
    found: dict[str, list[ast.expr]] = {}
    others: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            for target, value in targets(node):
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(value)
        if isinstance(node, ast.arg):
            others.add(node.arg)
        elif isinstance(node, ast.For | ast.AugAssign | ast.comprehension | ast.NamedExpr):
            others |= {inner.id for inner in ast.walk(node.target) if isinstance(inner, ast.Name)}
    merged = {name: _merged(name, values) for name, values in found.items() if name not in others}
    return {name: value for name, value in merged.items() if value is not None}


def _merged(name: str, values: list[ast.expr]) -> ast.expr | None:
    """One expression for what is assigned to a name one after the other; None where that is not plain.

    `url = os.environ.get("DATABASE_URL")`, then `url = "sqlite:///x"` or `url = url.replace("postgres://", ...)` below
    an `if`, as apps do that ran on Heroku; and the two beginnings of an SQLite URL, for Windows and others.
    """
    merged, *later = sorted(values, key=lambda value: (value.lineno, value.col_offset))
    for value in later:
        match value:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=id), attr="replace" as attr), args=args) if id == name:
                merged = ast.Call(func=ast.Attribute(value=merged, attr=attr), args=args, keywords=[])
            case _ if _may_be_none(merged):
                merged = ast.BoolOp(op=ast.Or(), values=[merged, value])
            case ast.Constant(value=str() as text) if text.startswith("sqlite:") and _is_sqlite(merged):
                merged = value
            case _:
                return None
    return merged


def _may_be_none(value: ast.expr) -> bool:
    """Whether code looks for a value and goes on without it: None, and a variable without a default."""
    if isinstance(value, ast.Constant):
        return value.value is None
    return (
        isinstance(value, ast.Call) and dotted(value.func).endswith(("environ.get", "getenv")) and len(value.args) < 2
    )


def _is_sqlite(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and str(value.value).startswith("sqlite:")


def _assignments(tree: ast.Module) -> Iterator[tuple[str, int, ast.expr]]:
    """What the code assigns to the app's configuration: `app.config["X"] = `, `X = ` in modules and classes, and
    `from_mapping(X=...)`."""
    for node in walk_run(tree):
        if isinstance(node, ast.Call) and dotted(node.func).endswith(("config.from_mapping", "config.update")):
            yield from ((word.arg, node.lineno, word.value) for word in node.keywords if word.arg)
        elif isinstance(node, ast.stmt):
            for target, value in targets(node):
                if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                    if dotted(target.value).rpartition(".")[2] == "config":
                        yield str(target.slice.value), node.lineno, value
                elif isinstance(target, ast.Name) and target.id.isupper():
                    yield target.id, node.lineno, value


def _written_by(call: ast.Call, scope: Scope) -> Iterator[tuple[str, bool]]:
    """The paths that a call writes, and whether each is a folder."""
    name = dotted(call.func)
    last = name.rpartition(".")[2]
    words = {word.arg: word.value for word in call.keywords if word.arg}
    first = call.args[0] if call.args else None
    of = call.func.value if isinstance(call.func, ast.Attribute) else None
    target: ast.expr | None = None
    is_folder = False
    if name in ("open", "io.open", "codecs.open", "gzip.open") and _writes_mode(call.args[1:2], words):
        target = first or words.get("file")
    elif last == "open" and of is not None and _writes_mode(call.args[:1], words) and value_of(of, scope):
        target = of
    elif last in _FOLDERS:
        target, is_folder = (first if name.startswith("os.") else of or first), True
    elif last in ("write_text", "write_bytes", "touch"):
        target = of
    elif _LOGS.fullmatch(last) or name == "logging.basicConfig":
        target = words.get("filename") or (first if last != "basicConfig" else None)
    elif last in ("copy", "copy2", "copyfile", "copytree", "move") and name.startswith("shutil."):
        target = call.args[1] if len(call.args) > 1 else words.get("dst")
    elif name == "sqlite3.connect":
        target = first or words.get("database")
    elif last == "create_engine":
        path = _sqlite(value_of(first, scope), scope, scope.cwd)
        if path:
            yield path, False
    elif last in _SAVES and first is not None:
        target = first if _is_file_name(value_of(first, scope)) else None
    value = value_of(target, scope)
    if value is None or "://" in value.text or value.text.startswith((":memory:", "file:")):
        return
    path = in_app(value, scope)
    if path:
        yield path, is_folder or not value.whole


def _is_file_name(value: Value | None) -> bool:
    """Whether a text can only be a path: `save` and the like take other texts, too."""
    return value is not None and (not value.whole or bool(re.search(_SUFFIX, value.text)))


def _writes_mode(arguments: list[ast.expr], words: dict[str, ast.expr]) -> bool:
    mode = arguments[0] if arguments else words.get("mode")
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and bool(set(mode.value) & set("wax+"))


def _sqlite(value: Value | None, scope: Scope, folder: str | None) -> str | None:
    """The path in the app folder of an SQLite database's URL. `folder` is where a relative one is; None: elsewhere."""
    match = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", value.text) if value and value.whole else None
    if not match or match[1].startswith(":memory:"):
        return None
    if not match[1].startswith("/") and folder is None:
        return None
    return in_app(Value(posixpath.join(folder or scope.cwd, match[1])), scope)


def _old_sqlalchemy(folder: Path) -> bool:
    """Whether Flask-SQLAlchemy is older than 3.0, which puts `sqlite:///x` beside the code and not into `instance`."""
    file = folder / "requirements.txt"
    text = file.read_bytes().decode(errors="replace").replace("\0", "") if file.is_file() else ""
    return bool(re.search(r"(?im)^flask[-_]sqlalchemy\s*(==\s*[012]\.|~=\s*[012]\.|<\s*3)", text))


def _flask_file(modules: Sequence[Module]) -> str | None:
    """The file that makes the Flask object, where it is one alone."""
    files = [
        module.file
        for module in modules
        for call in calls(module.tree)
        if dotted(call.func).rpartition(".")[2] == "Flask"
        and call.args
        and isinstance(call.args[0], ast.Name)
        and call.args[0].id == "__name__"
    ]
    return files[0] if len(set(files)) == 1 else None
