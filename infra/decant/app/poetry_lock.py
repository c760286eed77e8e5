"""poetry.lock as lines of requirements: the packages that the app needs on a machine, with their hashes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from decant.app.python_version import poetry_specifier
from decant.app.requirement_checks import machine_markers

PYPI = ("https://pypi.org/simple", "https://pypi.python.org/simple")
ARCHITECTURES = ("x86_64", "aarch64")
_Package = Mapping[str, Any]


def poetry_lines(pyproject: Mapping[str, Any], lock: Mapping[str, Any], python: str) -> list[str]:
    """The lines of the packages in the main group, sorted.

    A package that one architecture of machines needs alone gets a marker. All other markers are evaluated here.
    """
    needed = {a: _needed(pyproject, lock, machine_markers(python, a)) for a in ARCHITECTURES}
    lines = []
    for source in sorted({url for found in needed.values() for p in found.values() if (url := _index(p))}):
        lines.append(f"--extra-index-url {source}")
    everything = {key: package for found in needed.values() for key, package in found.items()}
    for key, package in sorted(everything.items()):
        on = [a for a in ARCHITECTURES if key in needed[a]]
        marker = "" if len(on) == len(ARCHITECTURES) else f" ; platform_machine == '{on[0]}'"
        lines.append(_line(package, _files(package, lock), marker))
    return lines


def _index(package: _Package) -> str | None:
    source = package.get("source", {})
    url = source.get("url", "").rstrip("/")
    return url if source.get("type") == "legacy" and url not in PYPI else None


def _files(package: _Package, lock: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    """The files of a package; before Poetry 1.3 they are in a table of their own."""
    files = package.get("files") or lock.get("metadata", {}).get("files", {}).get(package["name"], ())
    return [file for file in files if "hash" in file]


def _line(package: _Package, files: Iterable[Mapping[str, str]], marker: str) -> str:
    name, source = package["name"], package.get("source", {})
    kind, url = source.get("type"), source.get("url", "")
    if kind == "git":
        folder = f"#subdirectory={source['subdirectory']}" if source.get("subdirectory") else ""
        return f"{name} @ git+{url}@{source.get('resolved_reference') or source.get('reference')}{folder}{marker}"
    if kind in ("directory", "file"):
        return f"{url if url.startswith('.') else './' + url}"
    hashes = "".join(f" --hash={digest}" for digest in sorted({file["hash"] for file in files}))
    if kind == "url":
        return f"{name} @ {url}{marker}{hashes}"
    return f"{name}=={package['version']}{marker}{hashes}"


def _needed(
    pyproject: Mapping[str, Any], lock: Mapping[str, Any], markers: Mapping[str, str]
) -> dict[tuple[str, str], _Package]:
    """The packages that the project needs, with all that they need themselves, by name and version."""
    candidates: dict[str, list[_Package]] = {}
    for package in lock.get("package", ()):
        if _holds(_main_marker(package), markers) and _allows(package.get("python-versions", "*"), markers):
            candidates.setdefault(canonicalize_name(package["name"]), []).append(package)
    found: dict[tuple[str, str], _Package] = {}
    done: set[tuple[str, str, frozenset[str]]] = set()
    queue = deque(_roots(pyproject, markers))
    while queue:
        name, constraint, extras = queue.popleft()
        for package in _choose(candidates.get(canonicalize_name(name), ()), constraint):
            key = (package["name"], package["version"])
            found[key] = package
            if (*key, extras) not in done:
                done.add((*key, extras))
                queue.extend(_dependencies(package.get("dependencies", {}), markers, _optional(package, extras)))
    return found


def _main_marker(package: _Package) -> str:
    """The marker of a package in the main group, which Poetry writes since version 2."""
    marker = package.get("markers", "")
    return str(marker.get("main", "") if isinstance(marker, dict) else marker)


def _holds(marker: str, markers: Mapping[str, str]) -> bool:
    try:
        return not marker or Marker(marker).evaluate(dict(markers))
    except InvalidMarker:
        return True


def _allows(constraint: str, markers: Mapping[str, str]) -> bool:
    """Whether a constraint of Poetry's allows the machine's Python."""
    parts = [poetry_specifier(part) for part in constraint.split("||")]
    version = Version(markers["python_full_version"])
    try:
        return any(version in SpecifierSet(part) for part in parts)
    except InvalidSpecifier:
        return True


def _choose(candidates: Sequence[_Package], constraint: str) -> Sequence[_Package]:
    """Of several versions of a package, those that a dependency allows."""
    if len(candidates) < 2:
        return candidates
    try:
        allowed = SpecifierSet(poetry_specifier(constraint))
        fitting = [p for p in candidates if allowed.contains(p["version"], prereleases=True)]
    except InvalidSpecifier:
        fitting = []
    newest = max(fitting or candidates, key=lambda p: Version(p["version"]))
    return [newest]


_Need = tuple[str, str, frozenset[str]]


def _roots(pyproject: Mapping[str, Any], markers: Mapping[str, str]) -> Iterator[_Need]:
    for text in pyproject.get("project", {}).get("dependencies", ()):
        package = Requirement(text)
        if _holds(str(package.marker or ""), markers):
            yield package.name, str(package.specifier), frozenset(package.extras)
    declared = pyproject.get("tool", {}).get("poetry", {}).get("dependencies", {})
    named = {canonicalize_name(Requirement(t).name) for t in pyproject.get("project", {}).get("dependencies", ())}
    own = {n: v for n, v in declared.items() if n != "python" and canonicalize_name(n) not in named}
    yield from _dependencies(own, markers, frozenset())


def _dependencies(table: Mapping[str, Any], markers: Mapping[str, str], optional: frozenset[str]) -> Iterator[_Need]:
    """The dependencies of a table that a machine needs. `optional` are the names that an extra switches on."""
    for name, value in table.items():
        for spec in value if isinstance(value, list) else [value]:
            details = spec if isinstance(spec, dict) else {"version": spec}
            switched_on = canonicalize_name(name) in optional
            if details.get("optional") and not switched_on:
                continue
            marker = (
                re.sub(r"extra == ['\"][^'\"]*['\"]( and )?", "", details.get("markers", ""))
                if switched_on
                else details.get("markers", "")
            )
            python = details.get("python", "*")
            if _holds(marker.removesuffix(" and ").strip(), markers) and _allows(python, markers):
                yield name, details.get("version", "*"), frozenset(details.get("extras", ()))


def _optional(package: _Package, extras: frozenset[str]) -> frozenset[str]:
    """The names that a package's extras switch on: `extras` maps each to requirements such as `redis (>=3)`."""
    wanted = {canonicalize_name(extra) for extra in extras}
    return frozenset(
        canonicalize_name(re.split(r"[\s\[(<>=!~;]", text.strip(), maxsplit=1)[0])
        for extra, texts in package.get("extras", {}).items()
        if canonicalize_name(extra) in wanted
        for text in texts
    )
