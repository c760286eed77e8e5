"""Releases that have lost the traffic and stop: they keep requests, streams and WebSockets for a while.

Nothing waits for them. They use memory, so when another release starts, each is ended once it has had KEPT_AT_LEAST.
"""

from __future__ import annotations

import os
import time

from decant_host.atomic import link_target
from decant_host.locks import switching_lock
from decant_host.paths import CURRENT, PERSISTED, PROGRAM
from decant_host.processes import run, running_releases, unit, unit_state
from decant_host.protocol import KEPT_AT_LEAST, Ended

PATIENCE = 5.0
"""Seconds that a release gets for its last requests when it is to start again."""


def is_draining(release: str) -> bool:
    """Whether the release's gunicorn is told to stop and has not ended yet."""
    return unit_state(unit(release)).get("ActiveState") == "deactivating"


def limit_draining(starting: str) -> None:
    """Before another release starts: let those that drain go on until they have had KEPT_AT_LEAST, and no longer."""
    for release in running_releases():
        state = unit_state(unit(release))
        if release == starting or state.get("ActiveState") != "deactivating":
            continue
        age = time.clock_gettime(time.CLOCK_MONOTONIC) - int(state["ActiveExitTimestampMonotonic"]) / 1e6
        if age >= KEPT_AT_LEAST:
            _kill(release)
            continue
        run(
            "systemd-run", "--quiet", "--collect", f"--unit=decant-end-{os.urandom(4).hex()}",
            f"--on-active={KEPT_AT_LEAST - age:.1f}", str(PROGRAM), "end-draining", release,
        )  # fmt: skip


def end_draining(release: str) -> Ended:
    """End a release that still drains; not one that was started again meanwhile."""
    with switching_lock():
        ends = release not in (link_target(CURRENT), link_target(PERSISTED)) and is_draining(release)
        if ends:
            _kill(release)
    return {"release": release, "ended": ends}


def finish_draining(release: str) -> None:
    """Wait until a release that is to start again has stopped, at most PATIENCE; then end it."""
    deadline = time.monotonic() + PATIENCE
    while is_draining(release) and time.monotonic() < deadline:
        time.sleep(0.1)
    if is_draining(release):
        _kill(release)
        run("systemctl", "stop", unit(release), check=False)  # joins the stop that is under way, and waits for it


def _kill(release: str) -> None:
    run("systemctl", "kill", "--signal=KILL", unit(release), check=False)
