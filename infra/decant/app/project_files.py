"""pyproject.toml and other TOML files: read, and what they say of the project itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from decant.app.text_files import read_text
from decant.errors import AppError

_GUNICORN = re.compile(r"gunicorn(?![\w.-])", re.IGNORECASE)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        AppError: where it is none.
    """
    try:
        return tomllib.loads(read_text(path))
    except ValueError as error:  # tomllib's error is one
        raise AppError("app", (f"{path.name} is no TOML: {error}", f"mend {path.parent.name}/{path.name}")) from None


def read_pyproject(folder: Path) -> dict[str, Any]:
    """The content of pyproject.toml; empty where there is none."""
    path = folder / "pyproject.toml"
    return read_toml(path) if path.is_file() else {}


def names_packages(pyproject: dict[str, Any]) -> bool:
    """Whether pyproject.toml says what the app needs; many hold only the settings of tools."""
    poetry = pyproject.get("tool", {}).get("poetry", {})
    return "project" in pyproject or "dependencies" in poetry


def is_installed(folder: Path, pyproject: dict[str, Any]) -> bool:
    """Whether the project itself is a package that is installed, and not only a folder of code."""
    tool = pyproject.get("tool", {})
    if tool.get("uv", {}).get("package") is False or tool.get("poetry", {}).get("package-mode") is False:
        return False
    if "poetry" in tool and not _poetry_finds_package(folder, pyproject):
        return False
    return "build-system" in pyproject or tool.get("uv", {}).get("package") is True or (folder / "setup.py").is_file()


def _poetry_finds_package(folder: Path, pyproject: dict[str, Any]) -> bool:
    """Whether the folder holds a package of the project's name; otherwise the build would fail."""
    poetry = pyproject["tool"]["poetry"]
    name = pyproject.get("project", {}).get("name") or poetry.get("name") or ""
    module = name.replace("-", "_").replace(".", "_").lower()
    places = (module, f"src/{module}", f"{module}.py", f"src/{module}.py")
    return bool(poetry.get("packages")) or any(module and (folder / place).exists() for place in places)


def serving_extra(pyproject: dict[str, Any]) -> str | None:
    """The one extra that names gunicorn, where the project's own dependencies do not."""
    project = pyproject.get("project", {})
    extras = {None: project.get("dependencies", ()), **project.get("optional-dependencies", {})}
    serving = [name for name, lines in extras.items() if any(map(_GUNICORN.match, lines))]
    return serving[0] if len(serving) == 1 else None
