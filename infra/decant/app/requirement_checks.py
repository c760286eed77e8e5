"""Checks of requirements: what no machine can install, named by its line with the edit that mends it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from decant.app.model import AppOptions
from decant.app.pins import pinned
from decant.app.requirements import Entry, Problem, Requirements, hide_credentials
from decant.app.shown import shown

_UBUNTU = "which an old pip on Ubuntu lists by mistake: PyPI has no such package"
_WINDOWS = "which exists for Windows alone"
_PYTHON_2 = "which is a part of Python 2"
NOT_INSTALLABLE = {
    "pkg-resources": _UBUNTU,
    "pywin32": _WINDOWS,
    "pypiwin32": _WINDOWS,
    "pywinpty": _WINDOWS,
    "windows-curses": _WINDOWS,
    "wsgiref": _PYTHON_2,
    "distribute": "which is an old name of setuptools and cannot be installed today",
}
"""Packages that no machine can install, and why. Others for Windows or macOS have files that install anywhere."""
_BUILT = "which cannot be built on Python 3.8 or newer"
_TOO_OLD = {
    "psycopg2": (("2.8.6", "2.8.4", "2.9.11"), _BUILT),
    "psycopg2-binary": (("2.8.6", "2.8.4", "2.9.11"), _BUILT),
    "flask-sqlalchemy": (("2.5.1", "1.0", "3.1.1"), "which is for Python 2 alone"),
}
"""Packages whose older versions run on no Python that machines have: the one to take, some that run, and why.

psycopg2: https://www.psycopg.org/docs/news.html, 2.8.4, "Fixed building with Python 3.8". Flask-SQLAlchemy: its change
log, 1.0, "Added Python >= 3.3 compatibility".
"""


def machine_markers(python: str, architecture: str = "x86_64") -> Mapping[str, str]:
    """The values of markers (PEP 508) on a machine."""
    minor = ".".join(python.split(".")[:2])
    full = python if python.count(".") == 2 else f"{minor}.99"  # the newest one
    return {
        "implementation_name": "cpython", "implementation_version": full, "os_name": "posix",
        "platform_machine": architecture, "platform_python_implementation": "CPython", "platform_release": "",
        "platform_system": "Linux", "platform_version": "", "python_full_version": full, "python_version": minor,
        "sys_platform": "linux", "extra": "",
    }  # fmt: skip


def applies(package: Requirement | None, python: str) -> bool:
    """Whether a package's marker holds on a machine."""
    return package is None or package.marker is None or package.marker.evaluate(dict(machine_markers(python)))


def check_requirements(requirements: Requirements, folder: Path, python: str, options: AppOptions) -> list[Problem]:
    """All problems of the lines, in their order."""
    found: list[Problem] = []
    for entry in requirements.packages:
        if applies(entry.package, python):
            found.extend(_check_package(entry, folder))
    found.extend(_check_hashes(requirements, python))
    known = {*options.env, *options.secret_names}
    for name in requirements.variables:
        if name not in known:
            entry = next(e for e in requirements.entries if f"${{{name}}}" in e.line.text)
            fix = f"pulumi config set --secret --path 'decant:secrets.{name}'"
            found.append((f"{entry.where} needs the variable {name}, which is in no setting", fix))
    return found


def _check_package(entry: Entry, folder: Path) -> Iterator[Problem]:
    name = canonicalize_name(entry.package.name) if entry.package else ""
    delete = f"delete {entry.where}"
    if name in NOT_INSTALLABLE or name.startswith("pyobjc"):
        why = NOT_INSTALLABLE.get(name, "which exists for macOS alone")
        yield f"{entry.where} names {entry.value}, {why}", delete
        return
    if entry.package and name in _TOO_OLD:
        yield from _check_age(entry.package, name, entry.where)
    url, path = entry.url, entry.path
    if path is not None:
        yield from _check_path(entry, path, folder)
    elif re.match(r"(hg|svn|bzr)\+", url):
        yield (
            f"{entry.where} installs by {url[:3].rstrip('+')}, and machines have git alone",
            f"write an archive's URL in {entry.where}",
        )
    elif url.startswith("git+git://"):
        fix = f"write {hide_credentials(entry.value).replace('git+git://', 'git+https://')} in {entry.where}"
        yield f"{entry.where} uses git://, which hosts of repositories have switched off", fix
    elif url.startswith("git+ssh://"):
        host, _, repository = url.removeprefix("git+ssh://").partition("@")[2].partition("/")
        with_token = entry.value.replace(url, f"git+https://${{GIT_TOKEN}}@{host}/{repository}")
        fix = (
            f"write {with_token} in {entry.where}, and give the token:"
            " pulumi config set --secret --path 'decant:secrets.GIT_TOKEN'"
        )
        yield f"{entry.where} needs an SSH key for {host}, which machines do not have", fix


def _check_age(package: Requirement, name: str, where: str) -> Iterator[Problem]:
    running, why = _TOO_OLD[name]
    version = pinned(package)
    known = [version] if version else [Version(text) for text in running if package.specifier.contains(text)]
    if not any(found >= min(map(Version, running)) for found in known):
        yield f"{where} asks for {package}, {why}", f"write {name}=={running[0]} in {where}"


def _check_path(entry: Entry, path: str, folder: Path) -> Iterator[Problem]:
    named = hide_credentials(entry.value)
    if path.startswith(("/", "~")) or re.match(r"[A-Za-z]:[\\/]", path):
        name = entry.package.name if entry.package else ""
        maker = "conda's build" if re.search(r"/(croot|tmp/build|home/conda|opt/conda|work)/", path) else "one computer"
        fix = f"write {name} in place of {entry.where}" if name else f"delete {entry.where}"
        yield f"{entry.where} names a file of {maker}: {named}", fix
        return
    inner = os.path.normpath(path)
    if inner.startswith(".."):
        yield (
            f"{entry.where} installs {path}, which is outside the app folder",
            f"copy it into {shown(folder)}/ and name the copy in {entry.where}",
        )
    elif not (folder / inner).exists():
        yield (
            f"{entry.where} installs {path}, which is not there",
            f"delete {entry.where}, or add {shown(folder)}/{inner}",
        )
    elif (folder / inner).is_dir() and not any(
        (folder / inner / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg")
    ):
        what = "the app folder" if inner == "." else inner
        yield f"{entry.where} installs {what}, which has no pyproject.toml and no setup.py", f"delete {entry.where}"


def _check_hashes(requirements: Requirements, python: str) -> Iterator[Problem]:
    if not requirements.hashed:
        return
    for entry in requirements.packages:
        if not entry.hashed and applies(entry.package, python):
            text = f"{entry.where} has no hash, and other lines have: {hide_credentials(entry.value)}"
            lock = ".venv/bin/uv pip compile --generate-hashes"
            fix = f"write a hash on every line ({lock} makes them), or delete {entry.where}"
            yield text, fix
