"""Checks of what the `ready` step has found on a machine: its disks, its clock and its sudo."""

from __future__ import annotations

import time
from collections.abc import Mapping

from decant.errors import MachineError
from decant.ssh.client import Access

LEAST_HOME_KB = 4096
"""What the files that are copied there take, and more: SFTP reports a full disk only as "Failure"."""

LARGEST_CLOCK_DIFFERENCE = 600
"""Seconds by which the machine's clock may differ from this computer's."""


def check_disks(access: Access, facts: Mapping[str, str]) -> None:
    """Check `read_only`, a folder that root cannot write to, and `home`, the kB that are free in the user's home.

    Raises:
        MachineError: there is such a folder, or too little space.
    """
    if folder := facts.get("read_only"):
        raise MachineError(
            f"{access}: {folder} is read-only. Linux does that to a disk after an error: journalctl -k shows it.\n"
            "  Repair the disk or bring another machine. Where somebody wanted it so: mount -o remount,rw"
            f" $(findmnt -n -o TARGET -T {folder}). Then run pulumi up again."
        )
    if (home := facts.get("home", "")).isdigit() and int(home) < LEAST_HOME_KB:
        raise MachineError(
            f"{access}: the disk is full: {int(home)} kB are free in the home of user {access.user}, {LEAST_HOME_KB} kB"
            " are needed.\n  See what fills it: df -h; du -xh ~ | sort -h | tail. Free some space, then run pulumi up"
            " again."
        )


def check_clock(access: Access, facts: Mapping[str, str]) -> None:
    """Check `clock`, the machine's Unix time. A wrong one makes apt and TLS fail with reasons that mislead.

    Raises:
        MachineError: it differs from this computer's by more than LARGEST_CLOCK_DIFFERENCE.
    """
    now = time.time()
    theirs = facts.get("clock", "")
    if theirs.isdigit() and abs(int(theirs) - now) > LARGEST_CLOCK_DIFFERENCE:
        said, here = (time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(clock)) for clock in (int(theirs), now))
        raise MachineError(
            f"{access}: its clock says {said} UTC, and this computer's says {here} UTC. Packages and certificates are"
            " refused where the clock is wrong.\n"
            "  Where it is the machine's, as root: apt-get install systemd-timesyncd, or: date -u -s"
            f" '{here}'. Then run pulumi up again."
        )


def sudo_problem(access: Access, why: str) -> MachineError | None:
    """The error for what sudo said on a host of the user's own, where it is not about a password; else None."""
    user = access.user
    if "must have a tty" in why:
        return MachineError(
            f"{access}: sudo wants a terminal (requiretty), and there is none.\n"
            f"  On the host, as root: echo 'Defaults:{user} !requiretty' > /etc/sudoers.d/{user}-no-terminal\n"
            f"  or log in as root: pulumi config set --path '{access.setting}.user' root"
        )
    if "not found" in why:
        return MachineError(
            f"{access}: user {user} is not root, and there is no sudo.\n"
            f"  On the host, as root: apt-get install sudo && echo '{user} ALL=(ALL) NOPASSWD: ALL' >"
            f" /etc/sudoers.d/{user}\n"
            f"  or log in as root: pulumi config set --path '{access.setting}.user' root"
        )
    return None
