"""A host that is known by an IPv6 address alone: SSH, the release and its public URL go over it."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from tests.support.project_copy import Project
from tests.support.site import ENV, SECRETS, Site

OURS, ITS = "fd64:c1:ffff::1", "fd64:c1:ffff::2"


@pytest.fixture
def six(hosts: Network, folder: Path) -> Iterator[Site]:
    """A bare host with an IPv6 address. Its IPv4 address leads out, to packages, and nobody comes in by it."""
    private, public = key_pair()
    project = Project(folder / "six")
    machine = hosts.boot("six", flavour="bare", authorized_key=public.strip(), say=print)
    machine.wait_running()
    subprocess.run(["ip", "-6", "address", "add", f"{OURS}/64", "dev", machine.bridge, "nodad"], check=True)
    machine.run(["ip", "-6", "address", "add", f"{ITS}/64", "dev", "host0", "nodad"])
    yield Site(machine=machine, network=hosts, project=project, private_key=private)
    machine.power_off()
    subprocess.run(["ip", "-6", "address", "delete", f"{OURS}/64", "dev", machine.bridge], check=True)


def test_a_host_is_served_over_ipv6(six: Site) -> None:
    host = {"address": ITS, "hostKey": six.machine.host_key, "name": "six"}
    run = six.up(hosts=[host], env=ENV, secrets=SECRETS)
    assert run.status == 0, run.error + run.log
    assert run.outputs["url"] == f"http://[{ITS}]"
    with urllib.request.urlopen(f"http://[{ITS}]/", timeout=30) as reply:
        assert (reply.status, reply.headers["X-Release"]) == (200, run.release)
    listening = six.machine.run("journalctl --unit=ssh --output=cat --no-pager").stdout
    assert f"Accepted publickey for root from {OURS}" in listening
    assert f"Accepted publickey for root from {six.network.gateway}" not in listening
