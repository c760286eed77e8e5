"""Servers other than gunicorn in a web line: which WSGI application they serve, where that is plain."""

from __future__ import annotations

import configparser
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from decant.app import entry_point
from decant.app.entry_point import Candidate
from decant.app.python_source import Modules, file_module
from decant.app.shell import MARK
from decant.app.text_files import decode_leniently, within
from decant.app.web_line import Context, ServerLine, join
from decant.errors import AppError

_ASGI = frozenset({"uvicorn", "hypercorn", "daphne", "granian", "fastapi"})
_UWSGI_APPS = ("-w", "--module", "--wsgi", "--wsgi-file", "--file", "--callable", "--chdir", "--mount", "--ini")
# What a line has to take over from a shell script.
_KEPT = re.compile(
    r"\s*(exec\s+)?((\w+=\S+ )*((poetry|pipenv|uv) run |newrelic-admin run-program )?(python[\d.]* -m )?gunicorn\s"
    r"|flask (db upgrade|deploy|init-db|initdb)|alembic upgrade|python[\d.]* manage\.py \w|cd [^-]|export \w+=[^$`]*$)"
)
_WAITRESS_SWITCHES = frozenset({"--call", "--asyncore-use-poll", "--help", "--log-untrusted-proxy-headers"})


@dataclass(kw_only=True)
class Served:
    """The application that a line serves."""

    app: str
    root: str = "."
    used: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_server(found: ServerLine, folder: Path, context: Context) -> Served:
    """The application that another server than gunicorn serves.

    Raises:
        AppError: where it is not sure which one that is, with the line that would work where that can be told.
    """
    program = found.program
    if program == "flask":
        served = _flask(found, folder, context)
    elif program == "waitress-serve":
        served = _waitress(found, context)
    elif program == "python":
        served = _python(found, folder, context)
    elif program == "uwsgi":
        served = _uwsgi(found, folder, context)
    elif program in _ASGI:
        served = _asgi(found, folder, context)
    else:
        raise _refused(found, folder, context)
    if MARK in served.app:
        shown = served.app.replace(MARK, "")
        raise context.error(
            f"names the application {shown}, which nobody can tell", f"{context.place}gunicorn wsgi:app"
        )
    ran = " ".join([program, *found.arguments]).replace(MARK, "")
    sentence = f"{context.source} `{ran}`: Decant serves the same application, {served.app}, with gunicorn"
    served.notes.insert(0, sentence)
    return served


def _flask(found: ServerLine, folder: Path, context: Context) -> Served:
    arguments = found.arguments
    named = _option(arguments, "--app", "-A")
    if "run" not in arguments:
        raise _refused(found, folder, context)
    named = named or found.env.get("FLASK_APP") or context.variables.get("FLASK_APP") or flaskenv(folder, found.folder)
    if named:
        start = folder / found.folder
        candidate = entry_point.flask_app(start, named)
        if candidate is None:
            fix = f"{context.place}gunicorn MODULE:NAME"
            raise context.error(f"runs flask with {named}, in which no application can be seen", fix)
    else:
        modules = Modules(folder, (found.folder,))
        apps = ((m, entry_point.app_of_module(modules, m, lenient=m == "wsgi")) for m in ("wsgi", "app"))
        candidate = next((Candidate(app=app, file="", root=".") for _, app in apps if app), None)
        if candidate is None:
            raise _refused(found, folder, context)
    return Served(app=candidate.app, root=candidate.root)


def flaskenv(folder: Path, start: str) -> str | None:
    """FLASK_APP in the folder's .flaskenv."""
    path = folder / start / ".flaskenv"
    text = decode_leniently(within(folder, path).read_bytes()) if path.is_file() else ""
    match = re.search(r"^\s*(?:export\s+)?FLASK_APP\s*=\s*(['\"]?)([^'\"\s#]+)\1", text, re.MULTILINE)
    return match[2] if match else None


def _waitress(found: ServerLine, context: Context) -> Served:
    positional: list[str] = []
    served = Served(app="")
    words = iter(found.arguments)
    call = False
    for word in words:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            positional.append(word)
            continue
        call |= name == "--call"
        if name in _WAITRESS_SWITCHES or re.match(r"--(no-)?(expose|clear|log|ipv|asyncore)", name):
            continue
        value = value if equals else next(words, "")
        if name == "--threads" and value.isdigit():
            served.used["threads"] = int(value)
        elif name in ("--url-prefix", "--url-scheme"):
            raise context.error(
                f"gives waitress-serve {name}, which gunicorn does not have", f"{context.place}{_plain(found)}"
            )
    if len(positional) != 1 or ":" not in positional[0]:
        raise context.error("names no application, such as shop:app", f"{context.place}gunicorn shop:app")
    served.app = positional[0] + ("()" if call and not positional[0].endswith(")") else "")
    return served


def _plain(found: ServerLine) -> str:
    named = next(
        (word for word in reversed(found.arguments) if ":" in word and not word.startswith("-")), "MODULE:NAME"
    )
    named = f"{named}()" if "--call" in found.arguments else named
    return f"gunicorn {shlex.quote(named)}"


def _python(found: ServerLine, folder: Path, context: Context) -> Served:
    arguments = [word for word in found.arguments if word not in ("-u", "-O", "-B", "-I")]
    file = arguments[0] if arguments else ""
    if file == "-m" and len(arguments) > 1:
        file = f"{arguments[1].replace('.', '/')}"
        file = f"{file}/__main__.py" if (folder / found.folder / file).is_dir() else f"{file}.py"
    file = file.removeprefix("/app/").removeprefix("./")
    path = folder / found.folder / file
    if not file.endswith(".py") or not path.is_file():
        raise _refused(found, folder, context)
    if PurePosixPath(file).name == "manage.py" and (folder / found.folder / file).read_bytes().find(b"django") >= 0:
        raise context.error("runs Django's manage.py", f"{context.place}gunicorn PROJECT.wsgi:application")
    root, _, name = str(PurePosixPath(file)).rpartition("/")
    root = root or "."
    if arguments[0] == "-m":
        root, name = ".", file
    module = file_module(name)
    modules = Modules(folder, (join(found.folder, root, context),))
    source = modules.source(path)
    served = [name for name in dict.fromkeys(source.served) if name in source.names]
    kinds = {name: modules.resolve(module, name)[0] for name in served}
    good = [name for name, kind in kinds.items() if kind and kind.kind in ("wsgi", "maybe")]
    dash = next((name for name, kind in kinds.items() if kind and kind.kind == "dash"), None)
    app = f"{module}:{good[0]}" if len(good) == 1 else None
    if app is None and not any(kind and kind.kind in ("wsgi", "maybe", "function") for kind in kinds.values()):
        # Nothing is named, or what runs is no application, such as Flask-Script's Manager.
        app = entry_point.app_of_module(modules, module)
    if dash is not None:
        app = f"{module}:server" if "server" in source.names else None
        if app is None:
            fix = f"add to {file}: server = {dash}.server    and {context.place}gunicorn {module}:server"
            raise context.error(f"runs `python {file}`, whose Dash object gunicorn cannot serve by itself", fix)
    if app is None:
        raise _refused(found, folder, context, f" and no application can be seen in {file} outside of its main part")
    return Served(app=app, root=root)


def _uwsgi(found: ServerLine, folder: Path, context: Context) -> Served:
    values = {name: _option(found.arguments, name) for name in _UWSGI_APPS}
    ini = values["--ini"] or next((a for a in found.arguments if a.endswith((".ini", ".yml", ".yaml", ".xml"))), None)
    if ini:
        line = _uwsgi_line(folder / found.folder / ini, folder) or _plain_line(folder, found)
        raise context.error(f"runs uwsgi with {ini}, and Decant serves with gunicorn", f"{context.place}{line}")
    app = _uwsgi_app(values)
    if app is None:
        raise _refused(found, folder, context)
    return Served(app=app, root=values["--chdir"] or ".")


def _uwsgi_app(values: dict[str, str | None]) -> str | None:
    module = values.get("-w") or values.get("--module") or values.get("--wsgi")
    file = values.get("--wsgi-file") or values.get("--file")
    name = values.get("--callable")
    if values.get("--mount"):
        module = str(values["--mount"]).partition("=")[2]
    if file:
        module = file_module(file)
    if not module:
        return None
    module, colon, own = module.partition(":")
    module = module.removesuffix(".py")
    return f"{module}:{own if colon else name or 'application'}"


def _uwsgi_line(path: Path, folder: Path) -> str | None:
    """The gunicorn command for the application that a configuration file of uwsgi names."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(decode_leniently(within(folder, path).read_bytes()))
        section = dict(parser["uwsgi"])
    except (OSError, KeyError, configparser.Error):
        return None
    app = _uwsgi_app({f"--{name.strip()}": value for name, value in section.items()})
    if app is None or MARK in app or "%" in app:
        return None
    chdir = section.get("chdir") or "."
    inside = (folder / chdir).is_dir() and not chdir.startswith("/")
    return f"gunicorn {f'--chdir {chdir} ' if inside and chdir != '.' else ''}{shlex.quote(app)}"


def _asgi(found: ServerLine, folder: Path, context: Context) -> Served:
    app = next((word for word in found.arguments if re.fullmatch(r"(wsgi:)?[\w.]+:\w+", word)), None)
    if app and (_option(found.arguments, "--interface") in ("wsgi",) or app.startswith("wsgi:")):
        root = _option(found.arguments, "--app-dir") or "."
        return Served(app=app.removeprefix("wsgi:"), root=root)
    if app:
        module, _, name = app.partition(":")
        kind = Modules(folder, (found.folder,)).resolve(module, name)[0]
        if kind is not None and kind.kind == "wsgi":
            raise context.error(
                f"runs {found.program}, a server for ASGI, with {app}, which is a WSGI application",
                f"{context.place}gunicorn {app}",
            )
    raise context.error(
        f"runs {found.program}, a server for ASGI applications; Decant serves WSGI applications, such as Flask's",
        f"if {app or 'it'} is a WSGI application: {context.place}gunicorn {app or 'MODULE:NAME'}",
    )


def _option(arguments: list[str], *names: str) -> str | None:
    """The value of an option: `--name value`, `--name=value` or `-nvalue`."""
    for i, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else (arguments[i + 1] if i + 1 < len(arguments) else None)
    return None


def _plain_line(folder: Path, found: ServerLine) -> str:
    candidates = entry_point.find(folder, found.folder) or entry_point.find(folder)
    return entry_point.line_for(candidates[0]) if len(candidates) == 1 else "gunicorn MODULE:NAME"


def _refused(found: ServerLine, folder: Path, context: Context, why: str = "") -> AppError:
    """The problem of a program that is no server which is known, with the line that would work."""
    ran = " ".join([found.program, *found.arguments]).replace(MARK, "")
    line = _plain_line(folder, found)
    script = _script(found, folder)
    if script is not None:
        line = _line_of(script) or line
        why = f", and Decant does not read {script.relative_to(folder).as_posix()}"
    return context.error(f"runs `{ran}`{why or ', and not gunicorn'}", f"{context.place}{line}")


def _script(found: ServerLine, folder: Path) -> Path | None:
    names = [found.program, *found.arguments]
    for name in names[:3]:
        path = folder / found.folder / name.removeprefix("/app/")
        if not name.startswith("-") and "/.." not in name and path.is_file() and path.suffix in ("", ".sh", ".bash"):
            return within(folder, path)
    return None


def _line_of(script: Path) -> str | None:
    """One line that does what a shell script does: its migrations and its gunicorn command, joined."""
    text = re.sub(r"\\\r?\n\s*", "", decode_leniently(script.read_bytes()))
    kept = [re.sub(r"\s+", " ", line.strip()) for line in text.splitlines() if _KEPT.match(line)]
    if sum("gunicorn " in line for line in kept) != 1:
        return None
    return " && ".join(dict.fromkeys(line.removeprefix("exec ") for line in kept))
