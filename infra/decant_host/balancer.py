"""Draining: a machine leaves the load balancer's rotation before its release stops or the machine is deleted."""

from __future__ import annotations

import contextlib
import os
import time

from decant_host.atomic import link_target, read_json
from decant_host.paths import CURRENT, DRAINING, IN_ROTATION, SETTINGS
from decant_host.processes import wait_for_requests_in_flight
from decant_host.protocol import REQUEST_TIMEOUT, Drained, PreStopped, kept_after_switch


def drain_seconds() -> float:
    """Seconds that the load balancer needs to notice a failing health check; 0 where there is no balancer."""
    settings = read_json(SETTINGS)
    # The release before this one called it `noticed`.
    seconds: float = settings.get("drain_seconds", settings.get("noticed", 0))
    return seconds


def kept_seconds() -> float:
    """Seconds that requests, streams and WebSockets get before this machine ends them."""
    return kept_after_switch(read_json(SETTINGS).get("request_timeout", REQUEST_TIMEOUT))


def pre_stop(release: str) -> PreStopped:
    """Take the machine out of rotation and wait for the load balancer, before the live release is stopped by hand.

    The release serves meanwhile. Afterwards its health check fails because it does not run. systemd also calls this
    after a crash, but without $MAINPID: nothing serves then, and waiting would only delay the restart.
    """
    seconds = drain_seconds() if "MAINPID" in os.environ else 0
    waits = bool(seconds) and link_target(CURRENT) == release and IN_ROTATION.exists()
    if waits:
        IN_ROTATION.replace(DRAINING)
        time.sleep(seconds)
        # A rename, which works while /run is full. A machine that was drained meanwhile stays out of rotation.
        with contextlib.suppress(FileNotFoundError):
            DRAINING.replace(IN_ROTATION)
    return {"release": release, "waited": seconds if waits else 0}


def drain() -> Drained:
    """Take the machine out of rotation for good, wait for the load balancer, then for requests in flight.

    A stream or a WebSocket holds it up for as long as a release that is replaced would keep it.
    """
    began = time.monotonic()
    DRAINING.unlink(missing_ok=True)  # so that a `pre-stop` that is waiting does not put the machine back in rotation
    IN_ROTATION.unlink(missing_ok=True)
    time.sleep(drain_seconds())
    live = link_target(CURRENT)
    if live:
        wait_for_requests_in_flight(live, timeout=kept_seconds())
    return {"drained": True, "seconds": round(time.monotonic() - began, 1)}
