"""What was understood of an app folder, as lines of text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from decant.app.model import App
from decant.app.shown import hide_values, shown

LONGEST = 100
"""Characters of a command that are shown."""


def describe(app: App, *, build: str | None = None) -> tuple[str, ...]:
    """What was understood of an app: a heading, then one line for each thing, then the notes. No value of a variable.

    Warnings are not among the lines. `build` is the command that runs before the folder is packed.
    """
    rows = list(_rows(app, build))
    width = max(len(label) for label, _ in rows)
    return (
        f"The app in {shown(app.folder)}/:",
        *(f"  {label:<{width}}  {text}" for label, text in rows),
        *(f"  note: {note}" for note in app.notes),
    )


def _rows(app: App, build: str | None) -> Iterator[tuple[str, str]]:
    yield "entry point", f"{app.web.wsgi_app} ({app.web.why})"
    yield "Python", f"{app.python.version} ({app.python.why})"
    yield "packages", f"{app.packages.why}, {'with' if app.packages.hashed else 'without'} hashes"
    if app.debian_packages:
        yield "Debian", ", ".join(app.debian_packages)
    yield "web", _web(app)
    if app.web.release_command:
        yield "release", f"{_short(app.web.release_command)} (once, before a release gets traffic)"
    if build:
        yield "build", f"{_short(build)} (where pulumi runs)"
    yield "may write", ", ".join(["$DATA_DIR", *app.persistent])
    yield (
        "static",
        f"{app.static}/, which nginx serves under /static/"
        if app.static
        else "no static folder that nginx could serve",
    )


def _web(app: App) -> str:
    """How gunicorn is started: what the app itself says of it."""
    words = [*app.web.wrapper, "gunicorn", *_options(app.web.gunicorn)]
    if app.web.config_file:
        words.append(f"with {app.web.config_file}")
    names = f"; sets {', '.join(sorted(app.web.env))}" if app.web.env else ""
    return " ".join(words) + names


def _options(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(settings.items()):
        if name == "raw_env":  # may hold secrets
            continue
        yield f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"


def _short(command: str) -> str:
    line = " ".join(hide_values(command).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
