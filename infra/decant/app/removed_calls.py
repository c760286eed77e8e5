"""Calls in an app's code that fail with the packages that a machine installs, and only when a visitor comes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from decant.app.path_values import dotted
from decant.app.pinned_python import read_pins
from decant.app.pins import clashes
from decant.app.reachable import Module, calls
from decant.app.requirements import read_requirements
from decant.app.shown import shown
from decant.errors import AppError

_HASHES = ("sha256", "sha1", "sha224", "sha384", "sha512", "md5", "plain")
"""Methods of generate_password_hash that Werkzeug 3 does not have: its change log, version 3.0.0."""


def check_calls(folder: Path, modules: Sequence[Module]) -> None:
    """Refuse an app that hashes passwords in a way that the Werkzeug on the machine does not know.

    The app goes live, and whoever signs up gets a 500. `modules` is what the web process runs.

    Raises:
        AppError: with the line to add, or the code to change where Flask needs the new Werkzeug.
    """
    found = next(_old_hashes(modules), None)
    if found is None or not _gets_werkzeug_3(folder):
        return
    file, line, method = found
    text = (
        f"{file}:{line} hashes passwords by the method {method!r}, which Werkzeug 3 does not have, and it installs that"
    )
    change = f"delete method={method!r} in line {line} of {shown(folder)}/{file}"
    add = f"echo 'werkzeug<3' >> {shown(folder)}/requirements.txt"
    raise AppError("app", (text, add if (folder / "requirements.txt").is_file() and not _needs_3(folder) else change))


def _old_hashes(modules: Sequence[Module]) -> Iterator[tuple[str, int, str]]:
    for module in modules:
        for call in calls(module.tree):
            if dotted(call.func).rpartition(".")[2] == "generate_password_hash":
                given = [keyword.value for keyword in call.keywords if keyword.arg == "method"] or call.args[1:2]
                if given and isinstance(given[0], ast.Constant) and given[0].value in _HASHES:
                    yield module.file, given[0].lineno, str(given[0].value)


def _gets_werkzeug_3(folder: Path) -> bool:
    versions = {canonicalize_name(name): version for name, version in read_pins(folder)}
    pins = (Requirement(f"{name}=={version}") for name, version in versions.items())
    if any(line.startswith("werkzeug<") for _, line in clashes(pins)):
        return False  # decant.app.packages limits it
    if version := versions.get(canonicalize_name("werkzeug")):
        return version >= Version("3")
    return all(package.specifier.contains("3.99") for package in _required(folder, "werkzeug"))


def _needs_3(folder: Path) -> bool:
    """Whether the app's Flask takes no older Werkzeug: Flask 3 does not."""
    return any(not package.specifier.contains("2.3.3") for package in _required(folder, "flask"))


def _required(folder: Path, name: str) -> Iterator[Requirement]:
    if (folder / "requirements.txt").is_file():
        for entry in read_requirements(folder).packages:
            if entry.package and canonicalize_name(entry.package.name) == name:
                yield entry.package
