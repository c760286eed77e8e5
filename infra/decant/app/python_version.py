"""The Python version of an app: what the settings or its folder ask for, and whether machines can have it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from decant.app.model import AppOptions, Python
from decant.app.pinned_python import newest_python
from decant.app.project_files import read_toml
from decant.app.text_files import read_text
from decant.app.uv import run_uv
from decant.errors import AppError

SYSTEM = "3.13"
"""Debian 13's own Python."""

FIX = f"pulumi config set decant:python {SYSTEM}"


def read_python(folder: Path, options: AppOptions) -> Python:
    """The Python that runs the app of a folder.

    Raises:
        AppError: where no machine can have the version that the folder or the settings ask for.
    """
    if options.python:
        return _exactly(options.python, "decant:python", keep_patch=True)
    named = next(_named(folder), None)
    ranges = next(_ranges(folder), None)
    stale = named and ranges and _is_ruled_out(named[1], ranges[1])
    if named and not stale:
        return _exactly(named[1], named[0], keep_patch=False)
    pins = newest_python(folder)
    if pins and Version(pins[0]) >= Version(SYSTEM):
        pins = None
    if ranges:
        why = f"{ranges[0]}, which {named[0]} contradicts by {stale}" if named else ranges[0]
        return _within(ranges[1], why, pins)
    if pins:
        why = f"the newest that {pins[1]} runs on; another one: pulumi config set decant:python {SYSTEM}"
        return Python(version=pins[0], why=why, system=False)
    return Python(version=SYSTEM, why="the machines' own", system=True)


def _is_ruled_out(asked: str, allowed: str) -> str | None:
    """The version that a file asks for, where no machine can have it and the project itself does not run on it.

    Such a file is older than the project's range, which then counts.
    """
    match = re.fullmatch(r"(?:c?python-?)?(\d+\.\d+(?:\.\d+)?)", asked.strip())
    if not match or any(v.release[:2] == Version(match[1]).release[:2] for v in offered()):
        return None
    try:
        return None if Version(match[1]) in SpecifierSet(allowed) else match[1]
    except InvalidSpecifier:
        return None


def _named(folder: Path) -> Iterator[tuple[str, str]]:
    """The files that name one version, the one with precedence first."""
    for name in (".python-version", "runtime.txt"):
        if not (folder / name).is_file():
            continue
        try:
            lines = [line.partition("#")[0].strip() for line in read_text(folder / name).splitlines()]
        except ValueError as error:
            raise AppError("app", (f"{name} {error}", FIX)) from None
        if first := next(filter(None, lines), ""):
            yield name, first
    for name, table in (("Pipfile.lock", "_meta"), ("Pipfile", "")):
        if (folder / name).is_file():
            content = _pipfile(folder / name)
            requires = (content.get(table, {}) if table else content).get("requires", {})
            if version := requires.get("python_full_version") or requires.get("python_version"):
                yield name, str(version)


def _pipfile(path: Path) -> dict[str, Any]:
    if path.name == "Pipfile":
        return read_toml(path)
    try:
        content = json.loads(read_text(path))
    except ValueError:
        return {}  # who needs its packages reports it
    return content if isinstance(content, dict) else {}


def _ranges(folder: Path) -> Iterator[tuple[str, str]]:
    """The files that name a range of versions."""
    if (folder / "pyproject.toml").is_file():
        content = read_toml(folder / "pyproject.toml")
        if asked := content.get("project", {}).get("requires-python"):
            yield "requires-python in pyproject.toml", asked
        poetry = content.get("tool", {}).get("poetry", {}).get("dependencies", {}).get("python")
        if isinstance(poetry, str):
            yield "tool.poetry.dependencies.python in pyproject.toml", poetry_specifier(poetry)
    if (folder / "uv.lock").is_file() and (asked := read_toml(folder / "uv.lock").get("requires-python")):
        yield "uv.lock", asked


def poetry_specifier(text: str) -> str:
    """A version constraint of Poetry's in the form of PEP 440; `||` is left to its first part."""
    parts = []
    for part in re.split(r"[,\s]+(?=[\^~<>=!0-9])", text.partition("||")[0].strip()):
        match = re.fullmatch(r"([\^~])=?\s*([0-9.]+)", part)
        if match and not part.startswith("~="):
            numbers = [int(n) for n in match[2].strip(".").split(".")]
            keep = _caret_length(numbers) if match[1] == "^" else min(2, len(numbers))
            upper = [*numbers[: keep - 1], numbers[keep - 1] + 1]
            parts.append(f">={match[2]},<{'.'.join(map(str, upper))}")
        elif re.fullmatch(r"[0-9][\w.*]*", part):
            parts.append(f"=={part}")
        elif part != "*":
            parts.append(part)
    return ",".join(parts)


def _caret_length(numbers: list[int]) -> int:
    """How many numbers a caret keeps: up to the first that is not zero."""
    return next((i for i, number in enumerate(numbers, start=1) if number), len(numbers))


@cache
def offered() -> tuple[Version, ...]:
    """The versions of Python that the machines' uv can install, the oldest first."""
    listed = json.loads(
        run_uv("python", "list", "--all-versions", "--all-platforms", "--only-downloads", "--output-format", "json")
    )
    versions = {
        Version(found["version"])
        for found in listed
        if found["implementation"] == "cpython" and found["os"] == "linux" and found["variant"] == "default"
    }
    return tuple(sorted(v for v in versions if not v.is_prerelease))


def _exactly(asked: str, why: str, *, keep_patch: bool) -> Python:
    match = re.fullmatch(r"(?:c?python-?)?\s*(?:==)?(\d+)(?:\.(\d+))?(?:\.(\d+|\*|x))?", asked.strip())
    if not match:
        if re.match(r"[<>=~!]", asked):
            return _within(asked, why)
        kind = next((k for k in ("pypy", "conda", "dev", "graalpy") if k in asked.lower()), "")
        reason = "machines run CPython's releases alone" if kind else "that is no version of Python"
        raise AppError("app", (f"{why} asks for {asked!r}; {reason}", FIX))
    if match[2] is None:
        if match[1] != "3":
            raise AppError("app", _impossible(match[1], why))
        return Python(version=SYSTEM, why=why, system=True)
    minor = f"{match[1]}.{match[2]}"
    patch = match[3] if match[3] and match[3].isdigit() else None
    if minor == SYSTEM and not (keep_patch and patch):
        return Python(version=SYSTEM, why=_patched(why, minor, patch, "Debian's"), system=True)
    fitting = [v for v in offered() if f"{v.major}.{v.minor}" == minor]
    whole = f"{minor}.{patch}" if patch else minor
    if not fitting:
        raise AppError("app", _impossible(whole, why))
    if keep_patch and patch:
        if Version(whole) not in fitting:
            raise AppError("app", _impossible(whole, why))
        return Python(version=whole, why=why, system=False)
    return Python(version=minor, why=_patched(why, minor, patch, "the newest"), system=False)


def _patched(why: str, minor: str, patch: str | None, which: str) -> str:
    return f"{why}, which asks for {minor}.{patch}; machines have {which} {minor}" if patch else why


def _impossible(asked: str, why: str) -> tuple[str, str]:
    first, last = offered()[0], offered()[-1]
    available = f"{first.major}.{first.minor} to {last.major}.{last.minor}"
    # Pins as old as that version are more likely to be installable on the oldest Python than on a new one.
    number = re.match(r"3\.(\d+)", asked)
    fix = f"pulumi config set decant:python 3.{first.minor}" if number and int(number[1]) < first.minor else FIX
    return f"{why} asks for Python {asked}; machines can have {available}", fix


def _within(text: str, why: str, pins: tuple[str, str] | None = None) -> Python:
    """The Python for a range: Debian's own where it fits, else the nearest older one, else the nearest newer one.

    `pins` is an older Python that the app's packages need, and the pin that decides; it counts where the range has it.
    """
    try:
        allowed = SpecifierSet(text)
    except InvalidSpecifier:
        raise AppError("app", (f"{why} is {text!r}, which is no range of versions", FIX)) from None
    if pins and any(v in allowed for v in offered() if (v.major, v.minor) == Version(pins[0]).release[:2]):
        return Python(version=pins[0], why=f"the newest that {pins[1]} runs on, which {why} allows", system=False)
    system = [v for v in offered() if f"{v.major}.{v.minor}" == SYSTEM]
    if any(v in allowed for v in system):
        return Python(version=SYSTEM, why=why, system=True)
    fitting = [v for v in offered() if v in allowed]
    older = [v for v in fitting if v < Version(SYSTEM)]
    if not fitting:
        raise AppError("app", _impossible(text, why))
    best = older[-1] if older else fitting[0]
    series = [v for v in offered() if (v.major, v.minor) == (best.major, best.minor)]
    minor = f"{best.major}.{best.minor}"
    if older:
        return Python(version=minor if best == series[-1] else str(best), why=why, system=False)
    return Python(version=minor if series[-1] in allowed else str(best), why=why, system=False)
