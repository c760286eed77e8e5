"""systemd timers: one reverts an unconfirmed release, one stops a staged release that no rollout switches to."""

from __future__ import annotations

import os

from decant_host.atomic import link_target
from decant_host.paths import CURRENT, PERSISTED, PROGRAM
from decant_host.processes import run
from decant_host.protocol import UNCLAIMED_TIMEOUT

REVERT_UNIT = "decant-revert"
EXPIRE_UNIT = "decant-unclaimed"
RETRY = ("--property=Restart=on-failure", "--property=RestartSec=2s", "--property=StartLimitIntervalSec=0")
"""Options of systemd-run for a timer's command: it is repeated until it succeeds, because nobody else repeats it."""


def set_revert_timer(deadline: int) -> None:
    """Set the timer that reverts after `deadline` seconds. Only a confirm or a revert stops it.

    The new timer is set before the old one is stopped: a kill in between leaves one that fires too early, never none. A
    revert that an old timer has started may still be repeating and does not know of this switch, so it is stopped, too.
    """
    before = _revert_units("timer") + _revert_units("service")
    run(
        "systemd-run", "--quiet", "--collect", f"--unit={REVERT_UNIT}-{os.urandom(4).hex()}", f"--on-active={deadline}",
        "--timer-property=AccuracySec=100ms", *RETRY, str(PROGRAM), "revert", "--because", "no confirm came",
    )  # fmt: skip
    if before:
        run("systemctl", "stop", *before, check=False)


def stop_revert_timers() -> None:
    """Stop the timers. A revert that one has started waits for the switching lock."""
    if timers := _revert_units("timer"):
        run("systemctl", "stop", *timers, check=False)


def _revert_units(kind: str) -> list[str]:
    listing = run("systemctl", "list-units", f"{REVERT_UNIT}-*.{kind}", "--all", "--plain", "--no-legend").stdout
    return [line.split()[0] for line in listing.splitlines() if line.strip()]


def set_expire_timer(release: str) -> None:
    """Set the timer that stops a release after UNCLAIMED_TIMEOUT if no rollout switches to it; not for the live one.

    Call it before the release starts, because the caller may be killed in between.
    """
    if release in (link_target(CURRENT), link_target(PERSISTED)):
        return
    name = f"{EXPIRE_UNIT}-{release}"
    run("systemctl", "stop", f"{name}.timer", f"{name}.service", check=False)
    run(
        "systemd-run", "--quiet", "--collect", f"--unit={name}", f"--on-active={UNCLAIMED_TIMEOUT}", *RETRY,
        str(PROGRAM), "expire", release,
    )  # fmt: skip


def stop_expire_timer(release: str) -> None:
    """Stop that timer."""
    run("systemctl", "stop", f"{EXPIRE_UNIT}-{release}.timer", check=False)
