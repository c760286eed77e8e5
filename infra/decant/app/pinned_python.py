"""The newest Python that an app's pinned packages run on, for an app that asks for none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from decant.app.pins import pinned
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
    """The newest Python that every pinned package of the app's requirements runs on, and the pin that decides.

    None where no pin is known to need one that is older than the newest in the table.
    """
    if not (folder / "requirements.txt").is_file():
        return None
    try:
        packages = [entry.package for entry in read_requirements(folder).packages if entry.package]
    except AppError:
        return None  # who needs the packages reports it
    return _oldest(packages)


def _oldest(packages: Iterable[Requirement]) -> tuple[str, str] | None:
    found: list[tuple[Version, str]] = []
    for package in packages:
        rows = _FIRST.get(canonicalize_name(package.name))
        version = pinned(package)
        if rows and version:
            newest = next((python for first, python in reversed(rows) if version >= Version(first)), _OLDEST)
            found.append((Version(newest), f"{package.name}=={version}"))
    if not found:
        return None
    python, pin = min(found, key=lambda row: row[0])
    return str(python), pin
