"""A machine in memory: the program's files in a folder, systemd as an object."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decant_host import (
    agent,
    app_data,
    atomic,
    balancer,
    certificate,
    certificate_archive,
    certificate_checks,
    certificate_files,
    certificate_order,
    commands,
    compilers,
    confinement,
    debian,
    debian_names,
    debian_packages,
    draining,
    environments,
    error_hints,
    errors,
    install_hints,
    lease,
    locks,
    logs,
    masking,
    memory,
    missing_hints,
    one_off,
    overview,
    paths,
    probe,
    processes,
    protocol,
    python_changes,
    pythons,
    releases,
    stage,
    status,
    switch,
    timers,
    writing_hints,
)
from decant_host.probe import ProbeResult

MODULES = (
    agent, app_data, atomic, balancer, certificate, certificate_archive, certificate_checks, certificate_files,
    certificate_order, commands, compilers, confinement, debian, debian_names, debian_packages, draining,
    environments, error_hints, errors, install_hints, lease, locks, logs, masking, memory, missing_hints, one_off,
    overview, paths, probe, processes, protocol, python_changes, pythons, releases, stage, status, switch,
    timers, writing_hints,
)  # fmt: skip
OLD, NEW, OLDER = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
ATTEMPT = "attempt-1"


@dataclass
class Systemd:
    """systemd, its timers, its journal and `ss`, in memory.

    `broken` names releases that end as soon as they start; systemd has given them up. `crashing` names those that it
    starts again and again.
    """

    active: set[str] = field(default_factory=set)
    timers: dict[str, list[str]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    crashing: set[str] = field(default_factory=set)
    migrating: list[str] = field(default_factory=list)
    log: str = ""
    logged: float = 1e12  # when the lines of `log` were written, on the machine's monotonic clock
    requests: int = 0  # in flight, one less each time that `ss` is asked
    backlog: int = 0  # connections in the queue of each listening socket, one less each time
    fail: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    draining: dict[str, float] = field(default_factory=dict)  # releases that stop, and since when
    started: float = 0.0  # when every unit became active, on the machine's monotonic clock

    def revert_timers(self) -> dict[str, list[str]]:
        """The timers that revert an unconfirmed release."""
        return {unit: argv for unit, argv in self.timers.items() if unit.startswith("decant-revert")}

    def run(self, command: tuple[str, ...], **_: Any) -> subprocess.CompletedProcess[str]:
        """Run one command line. One that the program never uses is an error."""
        line = " ".join(command)
        self.done.append(line)
        name, *argv = command
        out, status = "", self.fail.get(line.split(" --")[0], 0)
        options = [w for w in argv if w.startswith("--")]
        argv = [w for w in argv if not w.startswith("--")]
        if name == "systemctl" and argv[0] == "start":
            if not status:
                self.active.add(argv[1])
        elif name == "systemctl" and argv[0] == "stop":
            for unit in argv[1:]:
                self.active.discard(unit)
                self.timers.pop(unit.removesuffix(".timer"), None)
        elif name == "systemctl" and argv[0] == "show":
            release = argv[1].removeprefix("app@").removesuffix(".service")
            state = "active" if argv[1] in self.active and release not in self.broken else "inactive"
            if release in self.broken and argv[1] in self.active:
                state = "failed"
            crashing = release in self.crashing and argv[1] in self.active
            state, sub = ("activating", "auto-restart") if crashing else (state, "running")
            if release in self.draining:
                state, sub = "deactivating", "stop-sigterm"
            out = f"ActiveState={state}\nSubState={sub}\nResult=exit-code\nNRestarts={self.restarts.get(release, 0)}\n"
            out += f"InactiveExitTimestampMonotonic={int(self.started * 1e6)}\nMemoryCurrent=52428800\nTasksCurrent=9\n"
            out += f"ExecMainStatus=1\nActiveEnterTimestampMonotonic={int(self.started * 1e6)}\n"
            out += f"ActiveExitTimestampMonotonic={int(self.draining.get(release, 0) * 1e6)}\n"
        elif name == "systemctl" and argv[:2] == ["list-units", "release@*.service"] and "--all" not in options:
            assert "--state=activating,deactivating" in options
            out = "".join(f"release@{release}.service loaded activating start\n" for release in self.migrating)
        elif name == "systemctl" and argv[0] == "list-units":
            units = self.active | {f"{timer}.timer" for timer in self.timers}
            listed = sorted(unit for unit in units if fnmatch.fnmatchcase(unit, argv[1]))
            out = "".join(f"  {unit} loaded active running The app\n" for unit in listed)
        elif name == "systemctl" and argv[0] in ("reset-failed", "kill"):
            pass
        elif name == "systemd-run":
            (unit,) = [o.partition("=")[2] for o in options if o.startswith("--unit=")]
            assert unit not in self.timers, "systemd refuses a unit that is there already"
            if not status:
                self.timers[unit] = list(command)
        elif name == "journalctl":
            stamp = str(int(self.logged * 1e6))
            entries = [{"MESSAGE": line, "__MONOTONIC_TIMESTAMP": stamp} for line in self.log.splitlines()]
            out = "".join(json.dumps(entry) + "\n" for entry in entries)
        elif name == "ss" and "established" in argv:
            out = "u_str ESTAB 0 0 gunicorn.sock\n" if self.requests else ""
            self.requests = max(0, self.requests - 1)
        elif name == "ss":
            # As `ss -xlH` prints a listening socket: Netid, State, Recv-Q, Send-Q, address, peer.
            out = f"u_str LISTEN {self.backlog} 2048 {argv[-1]} 4242 * 0\n"
            self.backlog = max(0, self.backlog - 1)
        elif "compileall" in argv:
            pass
        else:
            raise AssertionError(line)
        return subprocess.CompletedProcess(command, status, out, "")


@dataclass
class Machine:
    """A machine: its folders below `root`, and what is around them in memory."""

    root: Path
    systemd: Systemd
    answers: dict[str, Callable[[], ProbeResult]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def add(self, release: str, *, confirmed: bool = False, age: int = 0, **settings: Any) -> Path:
        """Add a release that is unpacked and installed."""
        folder = paths.RELEASES / release
        (folder / "app" / "static").mkdir(parents=True)
        venv = paths.VENVS / f"venv-of-{release}"
        venv.mkdir(parents=True)
        (folder / "venv").symlink_to(f"../../venvs/{venv.name}")
        values = {"entry": "wsgi:app", "static": "static", "health_path": "/healthz", "health_timeout": 15, "lock": "l",
                 "release_command": None, "secret_names": ["KEY"], "tar": f"{release}.tar", **settings}  # fmt: skip
        (folder / "release.json").write_text(json.dumps(values))
        (folder / "environment.json").write_text(json.dumps({"KEY": "canary-key"}))
        os.utime(folder / "release.json", (1_000_000 - age, 1_000_000 - age))
        paths.INCOMING.mkdir(parents=True, exist_ok=True)
        (paths.INCOMING / f"{release}.tar").write_text("tar")
        if confirmed:
            (folder / "confirmed").touch()
        return folder

    def serve(self, release: str, *, persisted: bool = True) -> None:
        """Make this release the live one."""
        (paths.RUN / release / "socket").mkdir(parents=True, exist_ok=True)
        (paths.RUN / release / "socket" / "gunicorn.sock").touch()
        (paths.RUN / release / "health").write_text("/healthz")
        self.systemd.active.add(f"app@{release}.service")
        atomic.link(paths.CURRENT, release)
        if persisted:
            atomic.link(paths.PERSISTED, f"releases/{release}")

    def live(self) -> tuple[str | None, str | None, str | None]:
        """What the three links name: current, previous, persisted."""
        return (
            atomic.link_target(paths.CURRENT),
            atomic.link_target(paths.PREVIOUS),
            atomic.link_target(paths.PERSISTED),
        )

    def running(self) -> set[str]:
        return {unit[4:16] for unit in self.systemd.active}
