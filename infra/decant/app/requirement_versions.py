"""What an app's requirements ask for of each package, as a person compares two releases."""

from __future__ import annotations

import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from decant.app.requirement_checks import applies
from decant.app.requirements import Requirements, hide_credentials

ANY = "any version"


def asked_versions(requirements: Requirements, python: str) -> dict[str, str]:
    """The version of each package by its normalized name: `3.1.0` where one is pinned, else `>=3`, a URL, or ANY.

    A constraint counts where it pins a package that the requirements leave open. Packages that are paths are left out,
    because their content is that of the app folder's files.
    """
    asked: dict[str, str] = {}
    pins: dict[str, str] = {}
    for entry in requirements.entries:
        package = entry.package
        if package is None or not applies(package, python) or (package.url or "").startswith("file:"):
            continue
        (pins if entry.constraint else asked)[canonicalize_name(package.name)] = _version(package)
    for name, version in asked.items():
        if _is_pin(pins.get(name, "")) and not _is_pin(version):
            asked[name] = pins[name]
    return asked


def _version(package: Requirement) -> str:
    if package.url:
        return hide_credentials(package.url)
    text = str(package.specifier)
    pinned = re.fullmatch(r"={2,3}\s*([^,*]+)", text)
    return pinned[1] if pinned else text or ANY


def _is_pin(version: str) -> bool:
    return bool(version) and version[0].isdigit()
