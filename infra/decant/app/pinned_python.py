"""The newest Python that an app's pinned packages run on, for an app that asks for none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from decant.app.pins import pinned
from decant.app.project_files import read_toml
from decant.app.requirements import read_requirements
from decant.errors import AppError

# Packages with compiled parts, or with code of an older Python: the versions from which on a newer Python is supported,
# as their wheels and change logs on pypi.org say. A version below the first one runs on 3.8.
_FIRST: dict[str, tuple[tuple[str, str], ...]] = {
    "aiohttp": (("3.8.0", "3.11"), ("3.9.0", "3.12"), ("3.10.6", "3.13")),
    "cffi": (("1.14.3", "3.9"), ("1.15.0", "3.10"), ("1.15.1", "3.11"), ("1.16.0", "3.12"), ("1.17.0", "3.13")),
    "frozenlist": (("1.3.3", "3.11"), ("1.4.1", "3.12"), ("1.5.0", "3.13")),
    "future": (("0.16.0", "3.11"), ("1.0.0", "3.13")),
    "gevent": (("20.9.0", "3.9"), ("21.8.0", "3.10"), ("22.10.0", "3.11"), ("23.7.0", "3.12"), ("24.10.1", "3.13")),
    "greenlet": (("0.4.17", "3.9"), ("1.1.2", "3.10"), ("2.0.0", "3.11"), ("3.0.0", "3.12"), ("3.1.0", "3.13")),
    "lxml": (("4.6.1", "3.9"), ("4.6.4", "3.10"), ("4.9.1", "3.11"), ("4.9.3", "3.12"), ("5.3.0", "3.13")),
    "matplotlib": (("3.3.2", "3.9"), ("3.5.0", "3.10"), ("3.6.1", "3.11"), ("3.8.0", "3.12"), ("3.9.2", "3.13")),
    "multidict": (("6.0.0", "3.11"), ("6.0.5", "3.12"), ("6.1.0", "3.13")),
    "mysqlclient": (("2.0.0", "3.9"), ("2.1.0", "3.12"), ("2.2.5", "3.13")),
    "numpy": (("1.19.3", "3.9"), ("1.21.3", "3.10"), ("1.23.2", "3.11"), ("1.26.0", "3.12"), ("2.1.0", "3.13")),
    "pandas": (("1.1.3", "3.9"), ("1.3.3", "3.10"), ("1.5.0", "3.11"), ("2.1.1", "3.12"), ("2.2.3", "3.13")),
    "pathtools": (("0.1.2", "3.11"),),
    "pillow": (("8.0.0", "3.9"), ("8.4.0", "3.10"), ("9.3.0", "3.11"), ("10.1.0", "3.12"), ("11.0.0", "3.13")),
    "psycopg2-binary": (("2.8.6", "3.9"), ("2.9.2", "3.10"), ("2.9.5", "3.11"), ("2.9.9", "3.12"), ("2.9.10", "3.13")),
    "pydantic-core": (("2.0", "3.12"), ("2.20.0", "3.13")),
    "pyyaml": (("5.4", "3.9"), ("6.0", "3.11"), ("6.0.1", "3.12"), ("6.0.2", "3.13")),
    "scikit-learn": (("0.24.0", "3.9"), ("1.0.2", "3.10"), ("1.2.0", "3.11"), ("1.3.1", "3.12"), ("1.5.2", "3.13")),
    "scipy": (("1.5.4", "3.9"), ("1.7.2", "3.10"), ("1.9.2", "3.11"), ("1.11.2", "3.12"), ("1.14.1", "3.13")),
    "sqlalchemy": (("1.2.0", "3.11"), ("1.4.0", "3.12"), ("1.4.54", "3.13"), ("2.0.0", "3.12"), ("2.0.31", "3.13")),
    "typing-extensions": (("3.7.4", "3.12"), ("4.12.0", "3.13")),
    "yarl": (("1.8.0", "3.11"), ("1.9.3", "3.12"), ("1.13.0", "3.13")),
}
_OLDEST = "3.8"


def newest_python(folder: Path) -> tuple[str, str] | None:
    """The newest Python that every pinned package of the app runs on, and the pin that decides.

    None where no pin is known to need one that is older than the newest in the table.
    """
    found: list[tuple[Version, str]] = []
    for name, version in read_pins(folder):
        if rows := _FIRST.get(canonicalize_name(name)):
            newest = next((python for first, python in reversed(rows) if version >= Version(first)), _OLDEST)
            found.append((Version(newest), f"{name}=={version}"))
    if not found:
        return None
    python, pin = min(found, key=lambda row: row[0])
    return str(python), pin


def read_pins(folder: Path) -> Iterator[tuple[str, Version]]:
    """Names and versions of the packages, from the first file that has any, in the order of decant.app.packages."""
    found = list(_in_requirements(folder)) if (folder / "requirements.txt").is_file() else []
    for name in ("uv.lock", "poetry.lock"):
        if not found and (folder / name).is_file():
            with suppress(AppError):  # who needs the packages reports it
                found = list(_in_lock(read_toml(folder / name)))
    yield from found


def _in_requirements(folder: Path) -> Iterator[tuple[str, Version]]:
    try:
        packages = [entry.package for entry in read_requirements(folder).packages if entry.package]
    except AppError:
        return  # who needs the packages reports it
    for package in packages:
        if version := pinned(package):
            yield package.name, version


def _in_lock(lock: Mapping[str, Any]) -> Iterator[tuple[str, Version]]:
    """What uv.lock or poetry.lock lists, without Poetry's development packages.

    A lock has several versions of a package where markers choose one: the newest one is for the newest Python.
    """
    newest: dict[str, Version] = {}
    for package in lock.get("package", ()):
        groups = package.get("groups", [package.get("category", "main")])
        try:
            version = Version(package.get("version", ""))
        except InvalidVersion:
            continue
        if "main" in groups:
            newest[package["name"]] = max(version, newest.get(package["name"], version))
    yield from newest.items()
