"""The status of a machine: what is live, what a boot would bring back, and who rolls out a release."""

from __future__ import annotations

import socket

from decant_host.atomic import link_target, read_json
from decant_host.certificate import certificate_status
from decant_host.lease import lease_holder
from decant_host.paths import CURRENT, IN_ROTATION, PERSISTED, REVERTED
from decant_host.processes import is_active, running_releases
from decant_host.protocol import Status
from decant_host.releases import complete_releases, confirmed_releases


def status() -> Status:
    """The status, as `decant-host status` prints it."""
    return {
        "machine": socket.gethostname(),
        "current": link_target(CURRENT),
        "persisted": link_target(PERSISTED),
        "running": [r for r in running_releases() if is_active(r)],
        "releases": complete_releases(),
        "confirmed": confirmed_releases(),
        "lease": lease_holder(),
        "in_rotation": IN_ROTATION.exists(),
        "reverted": read_json(REVERTED) or None,
        "https": certificate_status(),
    }
