"""Control groups: each holds all processes of one machine, so that they are found and killed together."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from rehearsal.errors import RehearsalError
from rehearsal.this_host import has_systemd, remove_empty, succeeds

_OURS = "decant-rehearsal"


@dataclass(frozen=True, kw_only=True)
class ControlGroup:
    """The control group of one machine. Where systemd runs this computer, it is the group of a unit of that name.

    Its part `supervisor` holds supervisor.sh, `machine/payload` the machine itself, `machine/supervisor`
    systemd-nspawn.
    """

    name: str

    @property
    def path(self) -> Path:
        """Its folder in the hierarchy of version 2.

        Raises:
            RehearsalError: This computer has no control groups of version 2.
        """
        roots = [root for kind, root in _hierarchies() if kind == "cgroup2"]
        if not roots:
            raise RehearsalError("no control groups of version 2 here: mount -t cgroup2 none /sys/fs/cgroup")
        return roots[0] / self._below

    def make(self) -> None:
        """Make the folder and switch all controllers on in it. Where systemd runs this computer, systemd does that."""
        self.path.mkdir(parents=True, exist_ok=True)
        for above in (self.path.parent.parent, self.path.parent):
            for controller in (above / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):  # another hierarchy uses it, so the machine does without
                    (above / "cgroup.subtree_control").write_text(f"+{controller}")

    def members(self, part: str = "") -> list[int]:
        """Return the ids of the processes in it, or in one part of it."""
        found: list[int] = []
        for file in (self.path / part).glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):  # that group was removed meanwhile
                found.extend(map(int, file.read_text().split()))
        return found

    def init(self) -> int | None:
        """Return the id, on this computer, of the machine's first process; None while there is none."""
        return next(
            (pid for parent in self.members("supervisor") for pid in _descendants(parent) if _is_init(pid)), None
        )

    def kill(self, part: str = "") -> None:
        """Kill all processes in it, or in one part of it. They are gone a moment later."""
        with contextlib.suppress(OSError):  # there is no such group, so no process either
            (self.path / part / "cgroup.kill").write_text("1")

    def processor_seconds(self) -> float:
        """The processor time that all processes in it have used, also those that have ended."""
        used = dict(line.split() for line in (self.path / "cpu.stat").read_text().splitlines())
        return int(used["usage_usec"]) / 1e6

    def pin(self, core: int) -> None:
        """Let its processes, and those that they start from now on, run on one core alone."""
        for pid in self.members():
            with contextlib.suppress(OSError):  # it ended meanwhile
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), {core})

    def remove(self) -> None:
        """Remove the folder. No process may be in it any more."""
        if has_systemd():
            succeeds("systemctl", "stop", self.name)  # waits until the unit's name is free again
        for _, root in _hierarchies():  # systemd copies its groups to hierarchies of version 1
            for folder in sorted((root / self._below).glob("**/"), reverse=True):
                remove_empty(folder)

    @property
    def _below(self) -> str:
        return f"{'system.slice' if has_systemd() else _OURS}/{self.name}"


def remove_parent() -> None:
    """Remove the folder that held all groups, if it is empty."""
    for _, root in _hierarchies():
        remove_empty(root / _OURS)


def _hierarchies() -> list[tuple[str, Path]]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [(kind, Path(where)) for _, where, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]


def _descendants(pid: int) -> list[int]:
    """Return a process's children and their children, down to a machine's init, without the children of init."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it ended meanwhile
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found.append(child)
            if not _is_init(child):
                found.extend(_descendants(child))
    return found


def _is_init(pid: int) -> bool:
    """Whether a process is the first of its own process namespace and runs systemd by now."""
    try:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except (OSError, ValueError):  # it ended meanwhile
        return False
    namespaces = status["NSpid"].split()
    return len(namespaces) > 1 and namespaces[-1] == "1" and status["Name"] == "systemd"
