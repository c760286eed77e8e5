"""The events of app_probe, as a visitor receives them."""

from __future__ import annotations

import http.client
import time

from tests.support.waiting import PATIENCE


def event_times(address: str) -> list[float]:
    """The times (monotonic) at which the events of one stream came."""
    connection = http.client.HTTPConnection(address, 80, timeout=PATIENCE)
    connection.request("GET", "/", headers={"X-Probe": "events"})
    reply = connection.getresponse()
    came = [time.monotonic() for line in iter(reply.readline, b"") if line.startswith(b"data:")]
    connection.close()
    return came
