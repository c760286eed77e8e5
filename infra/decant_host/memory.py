"""The machine's memory: a warning where there is little of it, and which processes the kernel ends first."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

PROC = Path("/proc")

LEAST_MEGABYTES = 900
"""What Linux shows of 1 GB, which is the least that Decant is made for; the kernel keeps the rest."""

EXPENDABLE = 300
"""The oom_score_adj (see proc(5)) of a release that has no visitors: the kernel ends it before the one that serves.

decant_serve.py gives itself this value where its release is not confirmed.
"""


def small_memory_warning() -> str | None:
    """A warning where the machine has little memory and no swap; else None."""
    text = (PROC / "meminfo").read_text(encoding="utf-8")
    kilobytes = {name: int(value) for name, value in re.findall(r"(?m)^(\w+):\s+(\d+) kB$", text)}
    megabytes = kilobytes["MemTotal"] >> 10
    if megabytes >= LEAST_MEGABYTES or kilobytes.get("SwapTotal"):
        return None
    return (
        f"warning: this machine has {megabytes} MB of memory and no swap. During a release two copies of the app run"
        " side by side, and the kernel may end one of them.\n"
        "  Take a machine with 1 GB or more, or add swap, on the machine as root: fallocate -l 1G /swapfile &&"
        " chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile && echo '/swapfile none swap sw 0 0' >>/etc/fstab"
    )


def set_oom_score(unit: str, score: int) -> None:
    """Set the oom_score_adj of all processes of a systemd unit; those that they start inherit it."""
    for path in PROC.glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):  # it has ended
            if any(f"/{unit}" in line for line in path.read_text(encoding="utf-8").splitlines()):
                (path.parent / "oom_score_adj").write_text(str(score), encoding="utf-8")
