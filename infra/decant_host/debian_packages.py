"""Debian packages that a release needs: those of its Aptfile, and what its requirements are built with."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decant_host import debian
from decant_host.atomic import read_json
from decant_host.errors import HostError
from decant_host.masking import mask_urls, without_controls
from decant_host.paths import OPT, RELEASES

INSTALLER = OPT / "bin" / "decant-packages"
"""packages.sh: it waits for another apt, mends an interrupted dpkg, and records what `destroy` removes again."""

PACKAGE = r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](=[0-9]([A-Za-z0-9.+:~-]*[A-Za-z0-9])?)?"
"""A package, and its version where it has to be that one: Debian Policy, sections 5.6.1 and 5.6.12.

Neither ends with a dash: apt-get would remove the package.
"""

_REFUSED = (
    r"Unable to locate package (\S+)",
    r"Package '?([^\s']+)'? has no installation candidate",
    r"Version '[^']*' for '([^']+)' was not found",
)


def install_debian_packages(release: str) -> None:
    """Install the Debian packages that a release names and that are not here; nothing else uses the network.

    They stay when a later release does not name them. Raises HostError with the line of the Aptfile.
    """
    folder = RELEASES / release
    settings = read_json(folder / "release.json")
    try:
        install_missing(settings.get("debian_packages") or (), why="for the app")
    except AptError as error:
        raise HostError(_explained(error, folder / "app", settings)) from None


class AptError(HostError):
    """A package that could not be installed; the text is what packages.sh says, `packages` are those that apt lacks."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.packages = tuple(dict.fromkeys(match for pattern in _REFUSED for match in re.findall(pattern, text)))


def install_missing(packages: Sequence[str], *, why: str) -> tuple[str, ...]:
    """Install those of the packages that are not here, and return them. Raises AptError."""
    packages = [debian.package(package) for package in packages]
    for package in packages:
        if not re.fullmatch(PACKAGE, package):
            raise HostError(f"{package!r} is no name of a Debian package")
    missing = tuple(package for package in packages if package not in _installed(packages))
    if missing:
        # Pulumi shows it while the step runs: an installation may take minutes.
        print(f"installing Debian packages {why}: {', '.join(missing)}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [str(INSTALLER), *missing], capture_output=True, encoding="utf-8", errors="replace", check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise AptError((done.stderr or done.stdout).strip()[-1500:])
        if done.stderr.strip():  # a warning
            print(without_controls(mask_urls(done.stderr.strip()[-1500:])), file=sys.stderr, flush=True)
    return missing


def _installed(packages: Iterable[str]) -> set[str]:
    """Those of the packages that are here, by their own name or as what another one provides."""
    wanted = set(packages)
    if not wanted:
        return set()
    columns = "${db:Status-Abbrev}\\t${Package}\\t${Version}\\t${Provides}\\n"
    listing = subprocess.run(["dpkg-query", "-W", "-f", columns], capture_output=True, encoding="utf-8", check=True)
    here: set[str] = set()
    for line in listing.stdout.splitlines():
        status, name, version, provides = line.split("\t")
        if status.startswith("ii"):
            here |= {name, f"{name}={version}"}
            here |= {part.split()[0] for part in provides.split(",") if part.strip()}
    return wanted & here


def _explained(error: AptError, app: Path, settings: Mapping[str, Any]) -> str:
    """What is wrong with which line of the Aptfile; apt's own words where it is something else."""
    lines, here = aptfile_lines(app), f"Debian {debian.version()}"
    reasons = []
    for name in error.packages:
        line = next((number for number, words in lines.items() if name in {w.partition("=")[0] for w in words}), None)
        place = f"line {line} of Aptfile names" if line else "the app needs"
        pinned = next((p for p in settings["debian_packages"] if p.startswith(f"{name}=")), None)
        if pinned:
            version = pinned.partition("=")[2]
            reasons.append(f"{here} has no version {version} of {name}, which {place}. Leave the version out: {name}.")
        else:
            reasons.append(
                f"{here} has no package {name}, which {place}. See what it is called there:"
                f" https://packages.debian.org/search?suite={debian.suite()}&keywords={name}"
            )
    return "\n  ".join(reasons) or f"the Debian packages of Aptfile could not be installed.\n{error}"


def aptfile_lines(app: Path) -> dict[int, list[str]]:
    """The words of each line of a release's Aptfile by its number; its encoding was checked before it came here."""
    path = app / "Aptfile"
    if not path.exists():
        return {}
    data = path.read_bytes()
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")
    return {n: line.partition("#")[0].split() for n, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1)}
