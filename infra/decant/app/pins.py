"""Pins that are known not to work: gunicorn versions, and versions of Flask with the newest of what they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from decant.app.requirements import Problem

OLDEST_GUNICORN = Version("20")

# Some version of each series, for a requirement that is no pin.
_GUNICORNS = ("20.0.4", "20.1.0", "21.2.0", "22.0.0", "23.0.0", "24.1.1", "25.3.0", "26.2.0", "27.0.1")
_OLD_GUNICORNS = ("19.10.0", "19.9.0", "19.7.1", "19.3.0", "18.0", "17.5")

# A version of gunicorn, the first of its kind, and the oldest Python that it runs on.
_GUNICORN_PYTHONS = ((Version("24"), Version("3.10")), (Version("21"), Version("3.7")))

# Flask's versions; a package that they need without an upper limit; the first version of it that broke them.
_CLASHES = (
    (">=2,<2.2.4", "werkzeug", "3"),
    ("<1.1.3", "werkzeug", "2.1"),
    ("<1.1.3", "jinja2", "3.1"),
    ("<1.1.3", "itsdangerous", "2.1"),
    ("<2", "markupsafe", "2.1"),
)


def pinned(package: Requirement) -> Version | None:
    """The one version that a requirement allows, where it is pinned with ==."""
    for specifier in package.specifier:
        if specifier.operator in ("==", "===") and not specifier.version.endswith(".*"):
            return Version(specifier.version)
    return None


def check_gunicorn(package: Requirement, where: str, python: str) -> Iterator[Problem]:
    """The problem of a requirement of gunicorn that cannot serve."""
    version = pinned(package)
    known = [version] if version else [Version(text) for text in (*_GUNICORNS, *_OLD_GUNICORNS)]
    allowed = [v for v in known if package.specifier.contains(v, prereleases=True)]
    best = max(allowed, default=None)
    if best is None:
        return
    if best < OLDEST_GUNICORN:
        text = f"{where} asks for {package}; Decant serves with gunicorn 20 or newer"
        yield text, f"write gunicorn>=23 in {where}"
        return
    minor = Version(".".join(python.split(".")[:2]))
    needs = next((oldest for first, oldest in _GUNICORN_PYTHONS if best >= first), minor)
    if version and minor < needs:
        text = f"{where} asks for {package}, which needs Python {needs} or newer; the app runs on {python}"
        yield text, f"write gunicorn==23.0.0 in {where}"


def in_its_place(package: Requirement) -> str:
    """The gunicorn that serves in place of one that cannot: it runs on each Python that a machine can have."""
    extras = f"[{','.join(sorted(package.extras))}]" if package.extras else ""
    return f"gunicorn{extras}==23.0.0"


def clashes(packages: Iterable[Requirement]) -> Iterator[tuple[str, str]]:
    """What is wrong with a pinned Flask that the newest of its requirements breaks, and the line that is missing."""
    named: Mapping[str, Requirement] = {canonicalize_name(package.name): package for package in packages}
    flask = named.get("flask")
    version = pinned(flask) if flask else None
    if version is None:
        return
    for range_, other, broken in _CLASHES:
        limits = named[other].specifier if other in named else SpecifierSet()
        if version in SpecifierSet(range_) and limits.contains(Version(f"{broken}.99"), prereleases=True):
            yield f"Flask=={version} does not work with {other} {broken}, and nothing limits that", f"{other}<{broken}"
