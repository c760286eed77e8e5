"""Locks of other tools as files of requirements with hashes: Pipfile.lock, poetry.lock and uv.lock."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from decant.app.poetry_lock import PYPI, poetry_lines
from decant.app.project_files import read_pyproject, read_toml
from decant.app.requirements import Problem
from decant.app.shown import shown
from decant.app.text_files import read_text
from decant.app.uv import run_uv
from decant.errors import AppError


def pipfile_lock(folder: Path) -> str:
    """Pipfile.lock as requirements.

    Raises:
        AppError: where it is damaged, or older than Pipfile.
    """
    relock = f"(cd {shown(folder)} && pipenv lock)"
    try:
        content = json.loads(read_text(folder / "Pipfile.lock"))
        default: Mapping[str, Any] = content["default"]
    except (ValueError, KeyError, TypeError):
        raise AppError("app", ("Pipfile.lock is no lock of Pipenv's", relock)) from None
    if (folder / "Pipfile").is_file():
        wanted = read_toml(folder / "Pipfile").get("packages", {})
        _check_names("Pipfile.lock", "Pipfile", wanted, default, relock)
    lines = []
    for number, source in enumerate(content.get("_meta", {}).get("sources", [])):
        url = re.sub(r"\$([A-Z0-9_]+)", r"${\1}", source["url"])  # Pipenv expands both forms
        if url.rstrip("/") not in PYPI:
            lines.append(f"{'--extra-index-url' if number else '--index-url'} {url}")
    for name, package in sorted(default.items()):
        lines.append(_pipfile_line(name, package))
    return "\n".join(lines) + "\n"


def _pipfile_line(name: str, package: Mapping[str, Any]) -> str:
    extras = f"[{','.join(package['extras'])}]" if package.get("extras") else ""
    if git := package.get("git"):
        reference = f"@{package['ref']}" if package.get("ref") else ""
        folder = f"#subdirectory={package['subdirectory']}" if package.get("subdirectory") else ""
        line = f"{name}{extras} @ git+{git.removeprefix('git+')}{reference}{folder}"
    elif path := package.get("path") or package.get("file"):
        if "://" in path:
            line = f"{name}{extras} @ {path}"
        else:
            return f"{path}{extras}" if path.startswith(".") else f"./{path}{extras}"
    else:
        version = package.get("version", "*")
        line = f"{name}{extras}" + ("" if version == "*" else version)
    if markers := package.get("markers"):
        line += f" ; {markers}"
    return line + "".join(f" --hash={digest}" for digest in sorted(package.get("hashes", ())))


def poetry_lock(folder: Path, python: str) -> str:
    """poetry.lock as requirements for the app's Python.

    Raises:
        AppError: where it does not belong to pyproject.toml.
    """
    relock = f"(cd {shown(folder)} && poetry lock)"
    pyproject, lock = read_pyproject(folder), read_toml(folder / "poetry.lock")
    if not pyproject:
        raise AppError("app", ("has poetry.lock and no pyproject.toml", f"add {shown(folder)}/pyproject.toml"))
    poetry = pyproject.get("tool", {}).get("poetry", {})
    wanted: dict[str, Any] = {
        Requirement(text).name: {} for text in pyproject.get("project", {}).get("dependencies", ())
    }
    wanted |= {
        name: value
        for name, value in poetry.get("dependencies", {}).items()
        if name != "python" and not (isinstance(value, dict) and value.get("optional"))
    }
    names = {package["name"]: package for package in lock.get("package", ())}
    _check_names("poetry.lock", "pyproject.toml", wanted, names, relock)
    return "\n".join(poetry_lines(pyproject, lock, python)) + "\n"


def _check_names(lock: str, source: str, wanted: Mapping[str, Any], locked: Mapping[str, Any], fix: str) -> None:
    """Raises AppError for packages that the lock does not have."""
    known = {canonicalize_name(name) for name in locked}
    missing = sorted(name for name in wanted if canonicalize_name(name) not in known)
    if missing:
        raise AppError("app", (f"{lock} is older than {source}: it lacks {', '.join(missing)}", fix))


def uv_lock(folder: Path) -> str:
    """uv.lock as requirements, without the project itself.

    Raises:
        AppError: where it is older than pyproject.toml, or damaged.
    """
    relock = f".venv/bin/uv lock --directory {shown(folder)}"
    _check_uv_lock(folder, relock)
    options = ("--no-dev", "--no-emit-project", "--no-header", "--no-annotate", "--emit-index-url")
    try:
        text = run_uv("export", "--frozen", *options, folder=folder)
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split())
        raise AppError("app", (f"uv.lock cannot be read: {reason}", relock)) from None
    # Without an index, machines use their own, which may be a mirror.
    text = re.sub(r"^--index-url (\S+)\n+", lambda m: "" if m[1].rstrip("/") in PYPI else m[0], text)
    # An editable package would lie in a folder of the builder's.
    return re.sub(r"^-e ", "", text, flags=re.MULTILINE)


def _check_uv_lock(folder: Path, fix: str) -> None:
    """Compare what pyproject.toml asks for with what it asked for when the lock was made.

    uv's own check needs a Python that the project allows, and the network.
    """
    pyproject, lock = read_pyproject(folder), read_toml(folder / "uv.lock")
    project = pyproject.get("project", {})
    name = canonicalize_name(project.get("name", ""))
    own = next((p for p in lock.get("package", ()) if canonicalize_name(p["name"]) == name), None)
    problems: list[Problem] = []
    if own is None:
        problems.append((f"uv.lock is not that of this project, {name}", fix))
    elif "dependencies" not in project.get("dynamic", ()):
        metadata = own.get("metadata", {}).get("requires-dist", ())
        locked = {
            (canonicalize_name(p["name"]), _specifier(p.get("specifier", "")))
            for p in metadata
            if "extra ==" not in p.get("marker", "")
        }
        requirements = [Requirement(text) for text in project.get("dependencies", ())]
        sources = {canonicalize_name(source) for source in pyproject.get("tool", {}).get("uv", {}).get("sources", {})}
        asked = {(canonicalize_name(r.name), _specifier(str(r.specifier))) for r in requirements}
        changed = {n for n, _ in locked ^ asked} - sources
        if changed:
            problems.append((f"uv.lock is older than pyproject.toml: they differ in {', '.join(sorted(changed))}", fix))
    if problems:
        raise AppError("app", *problems)


def _specifier(text: str) -> str:
    return ",".join(sorted(re.split(r"\s*,\s*", text.replace(" ", "")))) if text else ""
