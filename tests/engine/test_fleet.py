"""A fleet behind a cloud's balancer under load: the real `pulumi`, doubles of the clouds, real machines and requests.

Each test goes on where the one before ended, first on one cloud, then on the next.
"""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from rehearsal.accounts.aws_catalogue import REGION
from rehearsal.machines.network import Network
from tests.engine.aws_provider import Account, Provider
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.fake_account import FakeAccount
from tests.support.pulumi_stack import Stack, missing
from tests.support.visitors import Visitors
from tests.support.watching import command_lines

CANARY = "c0ffee11-canary-that-nobody-may-see"
PAGE = "app/hello/templates/index.html"
RELEASE_STEPS = ("Command {}-check-space", "CopyToRemote {}-upload", "Command {}-stage")
PREPARED = (
    "Command {}-ready",
    "Command {}-own-key",
    "CopyToRemote {}-files",
    "Command {}-provision",
    "Command {}-updates",
)
STEPS = (*PREPARED, *RELEASE_STEPS, "Command {}-drain")


@dataclass(frozen=True, kw_only=True)
class Rented:
    """A cloud as a stack and its tests see it. `machine` are the resources that a machine is made of."""

    account: DigitalOceanApi | Account
    settings: Mapping[str, str]
    environment: Mapping[str, str]
    machine: tuple[str, ...]
    reads: frozenset[str]
    token: str = ""

    def made(self, *names: str, steps: tuple[str, ...] = STEPS) -> set[str]:
        """The cloud's resources and the steps of these machines."""
        return {one.format(name) for one in (*self.machine, *steps) for name in names}


@contextlib.contextmanager
def on_digitalocean(network: Network) -> Iterator[Rented]:
    # The region was used before, so that the stack's own network is not its default one, which nobody can delete.
    account = DigitalOceanApi(FakeAccount(network), "dop_v1_not_a_real_one_either", used_regions=("fra1",))
    yield Rented(
        account=account,
        settings={"decant:cloud": "digitalocean"},
        environment={"DIGITALOCEAN_API_URL": account.url},
        machine=("PrivateKey {}-host-key", "Droplet {}"),
        reads=frozenset({"GET"}),
        token=account.token,
    )
    account.server.shutdown()


@contextlib.contextmanager
def on_aws(network: Network) -> Iterator[Rented]:
    account = Account(FakeAccount(network))
    provider = Provider(account)
    yield Rented(
        account=account,
        settings={"decant:cloud": "aws", "aws:region": REGION},
        # Nobody answers for AWS's API here, so the owner of the account cannot be asked before a destroy.
        environment={**provider.environment, "DECANT_ANY_ACCOUNT": "yes"},
        machine=("PrivateKey {}-host-key", "Instance {}", "TargetGroupAttachment {}"),
        reads=frozenset({"Read", "Invoke"}),
    )
    provider.server.stop(None)


@pytest.fixture(scope="module", params=[on_digitalocean, on_aws])
def cloud(request: pytest.FixtureRequest, network: Network) -> Iterator[Rented]:
    lacking = missing("tls", *(["digitalocean"] if request.param is on_digitalocean else []))
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    with request.param(network) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def stack(cloud: Rented, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    stack = Stack.create(tmp_path_factory.mktemp("fleet"), **cloud.environment)
    # The gate takes no network that is reserved for examples, as the machines' is; the doubles' firewalls hold nobody.
    stack.set({"machines": "2", "balancer": "true", "adminCidrs[0]": "10.0.0.0/8"})
    for name, value in cloud.settings.items():
        stack.pulumi("config", "set", name, value)
    stack.set_secret("secrets.CANARY", CANARY)
    if cloud.token:
        stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=cloud.token)
    return stack


def answering(url: str, requests: int = 24) -> set[str]:
    """Which machines answer at the public URL; every answer must be good."""
    seen = set()
    for _ in range(requests):
        request = urllib.request.Request(url, headers={"X-Decant-Probe": "1"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            seen.add(reply.headers["X-Machine"].partition(".")[0])
    return seen


def deletions(said: str, name: str) -> list[str]:
    """What of a machine was deleted, in the order in which that began."""
    words = {
        f"Command {name}-drain deleting": "drain",
        f"TargetGroupAttachment {name} deleting": "registration",
        f"Droplet {name} deleting": "machine",
        f"Instance {name} deleting": "machine",
    }
    found = [word for line in said.splitlines() for part, word in words.items() if part in line]
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def visited(stack: Stack) -> Iterator[Visitors]:
    """Somebody is at the public URL all the time, and everybody gets a whole answer."""
    with Visitors(urlsplit(stack.outputs()["url"]).hostname or "") as visitors:
        yield visitors
        visitors.more()
    print(f"{visitors.answers} answers, {len(visitors.failures)} failures")
    assert visitors.failures == []


def test_a_preview_makes_nothing(stack: Stack, cloud: Rented) -> None:
    ran = stack.pulumi("preview")
    assert ran.operations.keys() >= cloud.made("web-1", "web-2") | {"Command rollout"}
    assert set(ran.operations.values()) == {"create"}
    assert {verb for verb, _ in cloud.account.calls} <= cloud.reads
    assert cloud.account.inventory() == {}


def test_the_first_up_ends_when_all_machines_answer(stack: Stack, cloud: Rented) -> None:
    ran = stack.up()
    assert cloud.account.wrong == []
    assert ran.operations.keys() >= cloud.made("web-1", "web-2") | {"Command rollout"}
    assert set(ran.operations.values()) == {"created"}
    outputs = stack.outputs()
    assert [machine["name"] for machine in outputs["machines"]] == ["web-1", "web-2"]
    (balancer,) = cloud.account.fake_account.balancers.values()
    assert answering(outputs["url"]) == {"web-1", "web-2"}
    assert list(balancer.states().values()) == ["UP", "UP"]


def test_nothing_is_done_twice(stack: Stack, cloud: Rented) -> None:
    cloud.account.calls.clear()
    for ran in (stack.up(), stack.pulumi("refresh", "--yes")):
        assert ran.counts.keys() == {"unchanged"}, ran.said
    assert {verb for verb, _ in cloud.account.calls} <= cloud.reads


def test_adding_a_machine_with_a_new_release_fails_no_request(stack: Stack, cloud: Rented) -> None:
    old = stack.outputs()["release"]
    stack.set({"machines": "3"})
    stack.edit(PAGE, "<main>", "<main><!-- edited -->")
    with visited(stack) as visitors:
        ran = stack.up()
        assert answering(stack.outputs()["url"], 36) == {"web-1", "web-2", "web-3"}
    assert cloud.account.wrong == []
    released = {step.format(name) for step in RELEASE_STEPS for name in ("web-1", "web-2")} | {"Command rollout"}
    assert ran.operations == dict.fromkeys(cloud.made("web-3"), "created") | dict.fromkeys(released, "updated")
    assert visitors.releases[0] == old
    assert visitors.releases[-1] == stack.outputs()["release"] != old


def test_replacing_one_machine_while_others_are_deleted_fails_no_request(stack: Stack, cloud: Rented) -> None:
    before = stack.outputs()
    machine = next(one.format("web-1") for one in cloud.machine if one.startswith(("Droplet", "Instance")))
    stack.set({"machines": "1"})
    with visited(stack):
        with command_lines() as lines:
            ran = stack.up("--replace", stack.resources()[machine]["urn"])
        assert answering(stack.outputs()["url"]) == {"web-1"}
    assert cloud.account.wrong == []
    replaced = cloud.made("web-1") - {"PrivateKey web-1-host-key"}
    assert ran.operations == dict.fromkeys(replaced | cloud.made("web-2", "web-3"), "deleted") | {
        "Command rollout": "updated"
    }
    for name in ("web-1", "web-2", "web-3"):
        assert deletions(ran.said, name) == ["drain", *(["registration"] if len(cloud.machine) > 2 else []), "machine"]
    assert "without leaving its load balancer first" not in ran.said
    assert [line for line in lines if "decant-host drain" in line], "the watch sees it where it runs"
    after = stack.outputs()
    assert after["machines"][0]["id"] != before["machines"][0]["id"]
    assert (after["url"], after["release"]) == (before["url"], before["release"])
    assert stack.up().counts.keys() == {"unchanged"}


def test_destroy_leaves_an_empty_account(stack: Stack, cloud: Rented) -> None:
    with command_lines() as lines:
        done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    assert not [line for line in lines if "decant-host drain" in line], "nobody is left to take over: no machine waits"
    assert cloud.account.wrong == []
    assert cloud.account.inventory() == {}
    assert stack.resources() == {}


def test_no_secret_was_ever_said_or_stored_in_clear(stack: Stack, cloud: Rented) -> None:
    stored = [path.read_text(errors="replace") for path in stack.backend.rglob("*") if path.is_file()]
    assert len(stored) > 10
    # The beginning of every OpenSSH private key, as such and in base64.
    secrets = [CANARY, "PRIVATE KEY", "b3BlbnNzaC1rZXktdjE", *([cloud.token] if cloud.token else [])]
    assert [secret for secret in secrets for text in stack.said + stored if secret in text] == []
