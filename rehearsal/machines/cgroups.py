"""Control groups: what holds all processes of a machine together, so that they are found and ended as one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from rehearsal.computer import RehearsalError, has_systemd, remove_empty, succeeds

_OURS = "decant-rehearsal"


@dataclass(frozen=True, kw_only=True)
class Group:
    """The control group of one machine; where systemd runs this computer it is a unit of that name.

    `keeper` in it holds keeper.sh, `machine/payload` the machine, `machine/supervisor` what started it.
    """

    name: str

    @property
    def path(self) -> Path:
        """Its folder, in the hierarchy of version 2; raises RehearsalError when there is none."""
        roots = [root for kind, root in _hierarchies() if kind == "cgroup2"]
        if not roots:
            raise RehearsalError("no control groups of version 2 here: mount -t cgroup2 none /sys/fs/cgroup")
        return roots[0] / self._below

    def make(self) -> None:
        """Make it with all that can be limited in it. Not for where systemd does that."""
        self.path.mkdir(parents=True, exist_ok=True)
        for above in (self.path.parent.parent, self.path.parent):
            for controller in (above / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):  # one that is in use elsewhere: the machine does without
                    (above / "cgroup.subtree_control").write_text(f"+{controller}")

    def members(self, part: str = "") -> list[int]:
        """The ids of the processes in it, or in one part of it."""
        found: list[int] = []
        for file in (self.path / part).glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):  # that group was removed meanwhile
                found.extend(map(int, file.read_text().split()))
        return found

    def init(self) -> int | None:
        """The id, on this computer, of the machine's first process; None while there is none."""
        return next((pid for keeper in self.members("keeper") for pid in _family(keeper) if _is_init(pid)), None)

    def kill(self, part: str = "") -> None:
        """Kill all processes in it, or in one part of it; they are gone a moment later."""
        with contextlib.suppress(OSError):  # no such group: nobody to kill
            (self.path / part / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """Remove it when no process is in it any more."""
        if has_systemd():
            succeeds("systemctl", "stop", self.name)  # waits until the unit's name is free again
        for _, root in _hierarchies():  # systemd copies its groups to hierarchies of version 1
            for folder in sorted((root / self._below).glob("**/"), reverse=True):
                remove_empty(folder)

    @property
    def _below(self) -> str:
        return f"{'system.slice' if has_systemd() else _OURS}/{self.name}"


def remove_parent() -> None:
    """Remove what all groups were in, once they are gone."""
    for _, root in _hierarchies():
        remove_empty(root / _OURS)


def _hierarchies() -> list[tuple[str, Path]]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [(kind, Path(where)) for _, where, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]


def _family(pid: int) -> list[int]:
    """A process's children and theirs, down to init; those of init are not looked at."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it ended meanwhile
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found.append(child)
            if not _is_init(child):
                found.extend(_family(child))
    return found


def _is_init(pid: int) -> bool:
    """Whether a process is the first of its own process namespace, and systemd is what it runs by now."""
    try:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except (OSError, ValueError):  # it ended meanwhile
        return False
    namespaces = status["NSpid"].split()
    return len(namespaces) > 1 and namespaces[-1] == "1" and status["Name"] == "systemd"
