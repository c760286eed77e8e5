"""The web process of an app: how gunicorn serves it, from the Procfile or from what the folder holds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decant.app import entry_point
from decant.app.gunicorn_config import GunicornConfig, read_config
from decant.app.gunicorn_options import GunicornOptions, read_options
from decant.app.migrations import check_migrations
from decant.app.model import AppOptions, WebProcess
from decant.app.procfile import read_procfile
from decant.app.python_source import Modules
from decant.app.render_yaml import read_render
from decant.app.servers import flaskenv, read_server
from decant.app.shell import MARK
from decant.app.shown import shown
from decant.app.web_line import Context, ServerLine, join, read_line
from decant.app.workers import check_workers
from decant.errors import AppError
from decant_host.protocol import KEPT_AT_LEAST

_HELPERS = frozenset({"scripts", "script", "tests", "test"})
"""Folders whose programs serve no visitors, also where they name an application."""


@dataclass(kw_only=True)
class _Plan:
    """What is known so far of the web process."""

    app: str | None = None
    why: str = ""
    folder: str = "."
    """Where gunicorn is started."""
    used: dict[str, Any] = field(default_factory=dict)
    config: GunicornConfig | None = None
    env: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    before: str | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_web(folder: Path, options: AppOptions) -> WebProcess:
    """How gunicorn serves the app of a folder.

    Raises:
        AppError: with all problems, where it cannot be served.
    """
    processes = read_procfile(folder)
    render = read_render(folder) if "web" not in processes else None
    release = processes.get("release") or (render.release if render else None)
    line = processes.get("web", render.start if render else None)
    name = "Procfile" if "web" in processes else "render.yaml"
    place = f"in {shown(folder)}/Procfile: web: "
    context = Context(
        source="Procfile: web:" if name == "Procfile" else f"{name}: startCommand",
        place=place,
        variables=options.env,
        secrets=options.secret_names,
        folder=folder,
        persistent=options.persistent,
    )
    plan = _Plan()
    if render:
        plan.folder, plan.notes = render.folder, list(render.notes)
    _start(plan, line, folder, options, context, name)
    _apply_config(plan)
    if plan.app is None:
        _discover(plan, folder, options)
    _environment_arguments(plan, options, folder)
    modules = Modules(folder, _roots(plan, options, context, line))

    def fix(right: str) -> str:
        if options.wsgi_app is not None or line is None:
            return f"pulumi config set decant:wsgiApp {entry_point.quoted(right)}"
        if right == plan.app:  # the folder is wrong, and the application is not
            return f"{place}{_moved(line, right, folder)}"
        return f"{place}{_rewritten(line, str(plan.app), right)}"

    entry_point.check(modules, str(plan.app), _source_of(plan, context), fix)
    if plan.used.get("graceful_timeout", 0) > KEPT_AT_LEAST:
        del plan.used["graceful_timeout"]
        plan.notes.append(
            f"graceful-timeout has no effect above {KEPT_AT_LEAST:.0f}: a release that stops gives requests the time of"
            f" decant:requestTimeout, {KEPT_AT_LEAST:.0f} seconds at least"
        )
    plan.warnings += check_workers(folder, plan.used, plan.config, options, plan.notes, f"{place}gunicorn ")
    command = " && ".join(filter(None, [plan.before, release])) or None
    plan.warnings += check_migrations(folder, command or "", (plan.folder, str(plan.used.get("chdir", "."))))
    others = sorted(processes.keys() - {"web", "release"})
    plan.warnings += [f"Procfile: the {n}: line is not run; Decant runs web: and release: alone" for n in others]
    return WebProcess(
        wsgi_app=str(plan.app),
        why=plan.why,
        gunicorn=plan.used,
        config_file=plan.config.file if plan.config else None,
        wrapper=plan.wrapper,
        env={k: v for k, v in plan.env.items() if k != "GUNICORN_CMD_ARGS"},
        release_command=command,
        notes=tuple(plan.notes),
        warnings=tuple(plan.warnings),
    )


def _start(plan: _Plan, line: str | None, folder: Path, options: AppOptions, context: Context, name: str) -> None:
    """Fill the plan from the line, or without one from gunicorn's own configuration file."""
    if line is not None:
        plan.why = "the web: line of Procfile" if name == "Procfile" else f"the startCommand of {name}"
        _from_line(plan, line, folder, options, context)
    else:
        plan.config = read_config(folder, ".", None, "")
        if plan.config is not None:
            plan.app, plan.why = plan.config.application, plan.config.file
    if options.wsgi_app:
        plan.app, plan.why = options.wsgi_app, "decant:wsgiApp"


def _rewritten(line: str, app: str, right: str) -> str:
    """The line with another application."""
    new = entry_point.quoted(right)
    old = next((text for text in (f"'{app}'", f'"{app}"', app) if text in line), None)
    return line.replace(old, new, 1) if old and "gunicorn" in line else f"gunicorn {new}"


def _moved(line: str | None, app: str, folder: Path) -> str:
    """The line that serves an application from the folder that it is in, where the line changes to another one."""
    if Modules(folder).path(app.partition(":")[0]) is None:
        found = next((c for c in entry_point.find_all(folder)), None)
        return entry_point.line_for(found) if found else f"gunicorn {entry_point.quoted(app)}"
    plain = re.sub(r"(^|\s)cd\s+[^\s;&|]+\s*(&&|;)\s*|\s--chdir[ =]\S+", r"\1", line or "").strip()
    return plain if "gunicorn" in plain else f"gunicorn {entry_point.quoted(app)}"


def _source_of(plan: _Plan, context: Context) -> str:
    return context.source if plan.why.startswith("the ") else f"{plan.why}:"


def _from_line(plan: _Plan, line: str, folder: Path, options: AppOptions, context: Context) -> None:
    """Fill the plan from the line that starts the web process."""
    found = read_line(line, context)
    plan.folder = join(plan.folder, found.folder, context)
    found.folder = plan.folder
    plan.env, plan.before, plan.wrapper = dict(found.env), found.before, found.wrapper
    plan.notes += found.notes
    if found.program != "gunicorn":
        if options.wsgi_app:
            plan.notes.append(f"{context.source} runs {found.program}; decant:wsgiApp names what Decant serves")
            return
        served = read_server(found, folder, context)
        plan.app, plan.notes = served.app, [*plan.notes, *served.notes]
        plan.used.update(served.used)
        plan.folder = join(plan.folder, served.root, context)
        return
    given = _options(found, folder, context)
    plan.app = given.application
    if plan.app and MARK in plan.app:
        named = plan.app.replace(MARK, "")
        fix = f"{context.place}gunicorn wsgi:app"
        raise context.error(f"names the application {named}, and nothing says what that is", fix)
    plan.config = read_config(folder, plan.folder, given.config, f"{context.place}the line without --config")
    plan.used.update(given.used)
    plan.env.update(given.env)
    plan.notes += given.notes
    if plan.app is None and (plan.config is None or plan.config.application is None) and not options.wsgi_app:
        names = "GUNICORN_CMD_ARGS" in {**options.env, **plan.env}
        candidates = entry_point.find(folder, plan.folder)
        right = entry_point.line_for(candidates[0]) if len(candidates) == 1 else "gunicorn MODULE:NAME"
        if not names:
            raise context.error("names no application, such as wsgi:app", f"{context.place}{right}")


def _options(found: ServerLine, folder: Path, context: Context) -> GunicornOptions:
    positional = [a for a in found.arguments if not a.startswith("-")]
    right = next((a for a in reversed(positional) if ":" in a and MARK not in a), "MODULE:NAME")
    return read_options(
        found.arguments, context.source.removesuffix(": web:"), f"{context.place}gunicorn {shlex.quote(right)}"
    )


def _apply_config(plan: _Plan) -> None:
    """Settings of the configuration file, which the line's own options beat."""
    if plan.config is None:
        return
    plan.used = {**plan.config.values, **plan.used}
    plan.env = {**plan.config.env, **plan.env}
    plan.app = plan.app or plan.config.application
    plan.notes += plan.config.notes


def _environment_arguments(plan: _Plan, options: AppOptions, folder: Path) -> None:
    """GUNICORN_CMD_ARGS, which gunicorn itself would read; a line's options beat it."""
    name = "GUNICORN_CMD_ARGS"
    if name in options.secret_names:
        plan.warnings.append(
            f"{name} is a secret, and so is not read. To use it: pulumi config set --path 'decant:env.{name}' VALUE"
        )
    text = options.env.get(name) or plan.env.get(name)
    if not text:
        return
    fix = f"pulumi config set --path 'decant:env.{name}' '--workers 2'"
    try:
        given = read_options(shlex.split(text), name, fix)
    except ValueError as error:
        raise AppError("app", (f"{name} cannot be read: {error}", fix)) from None
    plan.used = {**(plan.config.values if plan.config else {}), **given.used, **_own(plan)}
    plan.env = {**given.env, **plan.env}
    plan.notes += given.notes
    if given.config and (plan.config is None or plan.config.file != given.config):
        plan.config = read_config(folder, plan.folder, given.config, fix)


def _own(plan: _Plan) -> Mapping[str, Any]:
    """The options of the line itself, without those of the configuration file."""
    config = plan.config.values if plan.config else {}
    return {name: value for name, value in plan.used.items() if name not in config or config[name] != value}


def _discover(plan: _Plan, folder: Path, options: AppOptions) -> None:
    """Find the application where nothing names it."""
    named = options.env.get("FLASK_APP")
    where = "FLASK_APP" if named else ".flaskenv"
    named = named or flaskenv(folder, ".")
    if named and (candidate := entry_point.flask_app(folder, named)):
        found, plan.why = [candidate], f"{where}: {named}"
    else:
        found = entry_point.find(folder)
        if (folder / "wsgi.py").is_file() and found and found[0].file != "wsgi.py":
            # A mistake in wsgi.py must not put another application live than the day before.
            text = f"has a wsgi.py that makes no application; {found[0].app} in {found[0].file} is one"
            raise AppError("app", (text, f"pulumi config set decant:wsgiApp '{found[0].app}'"))
        plan.why = found[0].file if found else ""
    if not found:
        raise AppError("app", _nothing(folder))
    if len(found) > 1:
        names = ", ".join(f"{c.app} ({c.file})" for c in found)
        line = entry_point.line_for(found[0])
        fix = f"pulumi config set decant:wsgiApp '{found[0].app}', or {_in_procfile(folder)}{line}"
        raise AppError("app", (f"has several applications that could be meant: {names}", fix))
    plan.app = found[0].app
    if found[0].root != ".":
        plan.used.setdefault("pythonpath", found[0].root)
    others = [c.app for c in entry_point.find_all(folder) if c.app.partition(":")[0] != found[0].app.partition(":")[0]]
    if others:
        plan.notes.append(
            f"{plan.app} is served, and {', '.join(dict.fromkeys(others))} is not."
            f" To choose another one: pulumi config set decant:wsgiApp '{others[0]}'"
        )


def _in_procfile(folder: Path) -> str:
    return f"in {shown(folder)}/Procfile: web: "


def _nothing(folder: Path) -> tuple[str, str]:
    """The problem of a folder in which no application is found, with what comes near to one."""
    place = _in_procfile(folder)
    helpers = False
    for path in sorted([*folder.glob("*/"), *folder.glob("*/*/")], key=lambda path: len(path.parts)):
        if path.is_dir() and "/." not in str(path):
            for candidate in entry_point.find(folder, path.relative_to(folder).as_posix()):
                if _HELPERS & set(Path(candidate.file).parts[:-1]):
                    helpers = True
                    continue
                return (
                    f"has no entry point; {candidate.file} has one, in a folder of its own",
                    f"{place}{entry_point.line_for(candidate)}",
                )
    modules = Modules(folder)
    for module in [p.stem for p in sorted(folder.glob("*.py"))] + [p.parent.name for p in folder.glob("*/__init__.py")]:
        source = modules.path(module)
        for name, kind in modules.source(source).names.items() if source else ():
            if re.fullmatch(r"(create|make|build|get)_\w*app\w*", name) and kind.kind == "function":
                values = ", ".join(repr(p.upper()) for p in kind.required)
                needs = f", which needs {', '.join(kind.required)}" if kind.required else ""
                return (
                    f"has no entry point; {module} has {name}{needs}",
                    f'{place}gunicorn "{module}:{name}({values})"',
                )
            if kind.kind == "asgi":
                return (
                    f"has no entry point: {module}:{name} is an ASGI application, and Decant serves WSGI alone",
                    "pulumi config set decant:app FOLDER, with a Flask app in it",
                )
            if kind.kind == "dash":
                line = f"add to {shown(folder)}/{module}.py: server = {name}.server"
                return f"has no entry point: {module}:{name} is a Dash object and no WSGI application", line
    if helpers:
        return (
            "has no Flask application: no wsgi.py, app.py, main.py or package with one",
            "pulumi config set decant:app FOLDER, with a Flask app in it",
        )
    return (
        "has no entry point: no wsgi.py, app.py, main.py or package with an application",
        f"{place}gunicorn MODULE:NAME",
    )


def _roots(plan: _Plan, options: AppOptions, context: Context, line: str | None) -> tuple[str, ...]:
    """The folders in which Python looks for the app's modules, in order, as gunicorn sets them up.

    `chdir` and `pythonpath` become folders that exist in the app; the plan's settings are changed to fit.
    """
    chdir = join(plan.folder, str(plan.used.get("chdir", ".")), context)
    plan.used.pop("chdir", None)
    if chdir != ".":
        plan.used["chdir"] = chdir
    if not (context.folder / chdir).is_dir():
        right = _moved(line, str(plan.app), context.folder)
        raise context.error(f"changes to {chdir}, and there is no such folder", f"{context.place}{right}")
    added: list[str] = []
    for part in str(plan.used.get("pythonpath") or "").split(","):
        if part:
            added.insert(0, join(chdir, part, context))
    if added:
        plan.used["pythonpath"] = ",".join(reversed(added))
    variable = plan.env.get("PYTHONPATH", options.env.get("PYTHONPATH", ""))
    outer = [part for part in variable.split(":") if part and (not part.startswith("/") or part.startswith("/app"))]
    if "PYTHONPATH" in plan.env:
        plan.env["PYTHONPATH"] = ":".join(join(plan.folder, part, context) for part in outer)
    return tuple(dict.fromkeys([*added, chdir, plan.folder, *(join(plan.folder, part, context) for part in outer)]))
