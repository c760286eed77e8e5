"""Replacing the only machine of a stack: the real `pulumi`, doubles of the clouds, real machines, and visitors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from rehearsal.machines.network import Network
from tests.engine.test_fleet import Rented, on_aws, on_digitalocean
from tests.support.pulumi_stack import Stack, get, missing
from tests.support.visitors import Visitors

MOST_DARKNESS = 5.0
"""Seconds without an answer while the address moves. The doubles move it at once; visitors try again every second."""


@pytest.fixture(scope="module", params=[on_digitalocean, on_aws])
def cloud(request: pytest.FixtureRequest, network: Network) -> Iterator[Rented]:
    lacking = missing("tls", *(["digitalocean"] if request.param is on_digitalocean else []))
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    with request.param(network) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def stack(cloud: Rented, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack.create(tmp_path_factory.mktemp("alone"), **cloud.environment)
    stack.set({"adminCidrs[0]": "10.0.0.0/8"})
    for name, value in cloud.settings.items():
        stack.pulumi("config", "set", name, value)
    if cloud.token:
        stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=cloud.token)
    stack.up()
    yield stack
    stack.destroy()
    assert cloud.account.inventory() == {}


def machine_urn(stack: Stack) -> str:
    """The URN of the cloud's resource that is the machine."""
    found = stack.resources()
    return str(next(found[name]["urn"] for name in ("Droplet web-1", "Instance web-1") if name in found))


def darkness(visitors: Visitors) -> float:
    """The longest time, in seconds, from one good answer to the next."""
    good = sorted(visit.ended for visit in visitors.visits if not visit.failure)
    return max(later - earlier for earlier, later in itertools.pairwise(good))


def test_the_machine_has_a_host_key_of_its_own(stack: Stack) -> None:
    (access,) = stack.revealed("ssh")
    first = stack.resources()["PrivateKey web-1-host-key"]["outputs"]["publicKeyOpenssh"]
    assert access["host_key"].split()[1] != first.split()[1]
    assert stack.up().counts.keys() == {"unchanged"}


def test_a_release_that_does_not_start_leaves_the_address_with_the_old_machine(stack: Stack, cloud: Rented) -> None:
    before = stack.outputs()
    stack.edit("app/wsgi.py", "\n", "\nraise RuntimeError('no-start-canary')\n")
    with Visitors(urlsplit(before["url"]).hostname or "") as visitors:
        ran = stack.up("--replace", machine_urn(stack), fails=True)
        visitors.more()
    assert "no-start-canary" in ran.said
    assert "web-1 does not take over" in ran.said
    assert visitors.failures == []
    stack.edit("app/wsgi.py", "\nraise RuntimeError('no-start-canary')\n", "\n")


def test_the_only_machine_is_replaced_within_seconds(stack: Stack, cloud: Rented) -> None:
    """It goes on with the new machine of the test before."""
    before = stack.outputs()
    with Visitors(urlsplit(before["url"]).hostname or "") as visitors:
        ran = stack.up("--replace", machine_urn(stack))
        visitors.more()
    seconds = darkness(visitors)
    print(f"{seconds:.1f} s without an answer; {visitors.answers} answers, {len(visitors.failures)} failures")
    assert seconds < MOST_DARKNESS, ran.said
    after = stack.outputs()
    assert (after["url"], after["release"]) == (before["url"], before["release"])
    assert after["machines"][0]["id"] != before["machines"][0]["id"]
    answer = get(f"{after['url']}/request")
    assert (answer.status, answer.release) == (200, after["release"])
    assert json.loads(answer.body)["machine"] != before["machines"][0]["id"]
    assert stack.up().counts.keys() == {"unchanged"}
