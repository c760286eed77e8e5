"""The overview of a machine for people: what runs in it since when, its memory and disks, and its releases."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from decant_host.atomic import link_target, read_json
from decant_host.memory import PROC
from decant_host.paths import BASE, CURRENT, NGINX_LOGS, PERSISTED, RELEASES, RUN, SANDBOX
from decant_host.processes import run
from decant_host.protocol import RELEASE_ID, DiskRecord, Overview, ProcessRecord, ReleaseRecord
from decant_host.releases import complete_releases
from decant_host.status import status

UNITS = {"web": "app@{}.service", "release": "release@{}.service", "run": "decant-run-{}-*.service"}
"""The units of a release by kind."""

SERVICES = ("nginx.service", "decant-firewall.service", "decant-certificate.timer")

_WANTED = "ActiveState,InactiveExitTimestampMonotonic,MemoryCurrent,TasksCurrent,NRestarts"


def overview() -> Overview:
    """The overview, as `decant-host overview` prints it."""
    memory = _memory()
    up = float((PROC / "uptime").read_text(encoding="utf-8").split()[0])
    return {
        **status(),
        "time": time.time(),
        "booted": time.time() - up,
        "memory_total": memory["MemTotal"],
        "memory_available": memory["MemAvailable"],
        "disks": _disks(),
        "processes": processes(),
        "history": [_record(release) for release in complete_releases()],
        "services": {name: _show(name).get("ActiveState", "unknown") for name in SERVICES},
        "environment": _environment(),
    }


def processes() -> list[ProcessRecord]:
    """The units of releases that systemd has started and not forgotten."""
    return [_process(kind, unit, release) for kind in UNITS for unit, release in _units(kind)]


def _units(kind: str) -> list[tuple[str, str]]:
    """Units of a kind, each with its release."""
    listing = run("systemctl", "list-units", UNITS[kind].format("*"), "--all", "--plain", "--no-legend").stdout
    pattern = re.escape(UNITS[kind]).replace(r"\{\}", f"({RELEASE_ID})").replace(r"\*", "[0-9a-f]+")
    return [(match[0], match[1]) for match in re.finditer(pattern, listing)]


def _process(kind: str, unit: str, release: str) -> ProcessRecord:
    shown = _show(unit)
    began = _number(shown.get("InactiveExitTimestampMonotonic"))
    return {
        "kind": kind,
        "release": release,
        "state": _state(kind, release, shown.get("ActiveState", "unknown")),
        "since": time.time() - time.monotonic() + began / 1e6 if began else None,
        "memory": _number(shown.get("MemoryCurrent")),
        "tasks": _number(shown.get("TasksCurrent")),
        "restarts": _number(shown.get("NRestarts")) or 0,
    }


def _state(kind: str, release: str, active: str) -> str:
    """What people call the state of a unit that systemd calls `active`."""
    if kind != "web" or active not in ("active", "deactivating"):
        return active
    if active == "deactivating":
        return "draining"
    if release == link_target(CURRENT):
        return "live" if release == link_target(PERSISTED) else "unconfirmed"
    return "staged"


def _show(unit: str) -> dict[str, str]:
    lines = run("systemctl", "show", unit, f"--property={_WANTED}").stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _number(text: str | None) -> int | None:
    """A number of systemd, which writes "[not set]" or the largest one where it has none."""
    return int(text) if text and text.isdigit() and int(text) < 2**63 else None


def _memory() -> dict[str, int]:
    """Sizes of /proc/meminfo in bytes."""
    text = (PROC / "meminfo").read_text(encoding="utf-8")
    return {name: int(value) << 10 for name, value in re.findall(r"(?m)^(\w+):\s+(\d+) kB$", text)}


def _disks() -> list[DiskRecord]:
    """The file systems of releases, the app's data, logs and sockets, each once."""
    found: dict[int, DiskRecord] = {}
    for path in (Path("/"), BASE, BASE / "data", NGINX_LOGS, RUN):
        if path.exists():
            disk = os.statvfs(path)
            size = {"total": disk.f_blocks * disk.f_frsize, "free": disk.f_bavail * disk.f_frsize}
            found.setdefault(path.stat().st_dev, {"path": str(path), "total": size["total"], "free": size["free"]})
    return list(found.values())


def _record(release: str) -> ReleaseRecord:
    folder = RELEASES / release
    confirmed = folder / "confirmed"
    return {
        "id": release,
        "staged": read_json(folder / "release.json").get("staged"),
        "confirmed": confirmed.stat().st_mtime if confirmed.exists() else None,
    }


def _environment() -> dict[str, str]:
    """The variables of the live release, never their values; of Decant's own, those of the sandbox's file."""
    release = link_target(CURRENT)
    if release is None:
        return {}
    secret = set(read_json(RELEASES / release / "release.json").get("secret_names", []))
    text = SANDBOX.read_text(encoding="utf-8") if SANDBOX.exists() else ""
    own = dict.fromkeys([*re.findall(r"(?m)^Environment=(\w+)=", text), "PATH", "VIRTUAL_ENV", "PORT"], "decant")
    given = read_json(RELEASES / release / "environment.json")
    return own | {name: "secret" if name in secret else "plain" for name in given}
