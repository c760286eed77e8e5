"""A droplet through its life: the real `pulumi` and DigitalOcean provider, a double of the API, throwaway machines."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from rehearsal.machines.network import Network
from tests.engine.digitalocean_api import DigitalOcean
from tests.support.fake_account import FakeAccount
from tests.support.pulumi_stack import STACK, Stack, get, missing

CANARY = "7a90d3c2-canary-that-nobody-may-see"
NAME = f"decant-{STACK}"
PREPARED = {f"Command web-1-{step}" for step in ("ready", "provision", "updates", "check-space", "stage")} | {
    "CopyToRemote web-1-files",
    "CopyToRemote web-1-upload",
}
MADE = {
    "PrivateKey login-key", "PrivateKey web-1-host-key", "SshKey login-key", "Vpc network", "Tag tag",
    "Firewall firewall", "Firewall web-firewall", "Droplet web-1", "ReservedIp web-1-address",
    "ReservedIpAssignment web-1-address",
}  # fmt: skip


@pytest.fixture(scope="module")
def account(network: Network) -> Iterator[DigitalOcean]:
    lacking = missing("digitalocean", "tls")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    account = DigitalOcean(fake_account=FakeAccount(network), token="dop_v1_not_a_real_one")
    yield account
    account.server.shutdown()


@pytest.fixture(scope="module")
def stack(account: DigitalOcean, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    stack = Stack.create(tmp_path_factory.mktemp("droplet"), DIGITALOCEAN_API_URL=account.url)
    # The gate takes no network that is reserved for examples, as the machines' is; the double's firewall holds nobody.
    stack.set({"cloud": "digitalocean", "adminCidrs[0]": "10.0.0.0/8"})
    stack.set_secret("secrets.CANARY", CANARY)
    stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=account.token)
    return stack


def test_a_preview_needs_no_account(stack: Stack, account: DigitalOcean) -> None:
    ran = stack.pulumi("preview")
    assert ran.operations == dict.fromkeys(MADE | PREPARED | {"Command rollout"}, "create")
    assert account.calls == []


def test_the_first_up_ends_with_an_answering_url(stack: Stack, account: DigitalOcean) -> None:
    ran = stack.up()
    assert account.unknown == []
    assert ran.operations == dict.fromkeys(MADE | PREPARED | {"Command rollout"}, "created")
    outputs = stack.outputs()
    ((address, droplet),) = account.reserved.items()
    assert outputs["url"] == f"http://{address}"
    assert outputs["machines"] == [{"name": "web-1", "address": address, "id": str(droplet)}]
    assert outputs["ssh"] == "[secret]"
    answer = get(outputs["url"])
    assert (answer.status, answer.release) == (200, outputs["release"])


def test_what_was_made_is_what_was_meant(stack: Stack, account: DigitalOcean) -> None:
    (key,) = account.keys.values()
    (vpc,) = account.vpcs.values()
    closed, opened = sorted(account.firewalls.values(), key=lambda f: f["name"])
    (droplet,) = account.droplets.values()
    assert key["name"] == NAME
    assert (vpc["region"], list(account.tags)) == ("fra1", [NAME])
    everybody = {"addresses": ["0.0.0.0/0", "::/0"]}
    inward = [{(r["protocol"], r.get("ports")): r["sources"] for r in f["inbound_rules"]} for f in (closed, opened)]
    outward = {(r["protocol"], r.get("ports")): r["destinations"] for r in closed["outbound_rules"]}
    assert inward == [
        {("tcp", "22"): {"addresses": ["10.0.0.0/8"]}, ("icmp", None): everybody},
        {("tcp", "80"): everybody},
    ]
    assert outward == {("tcp", "1-65535"): everybody, ("udp", "1-65535"): everybody, ("icmp", None): everybody}
    assert not opened["outbound_rules"]
    assert [(f["name"], f["tags"]) for f in (closed, opened)] == [(NAME, [NAME]), (f"{NAME}-web", [NAME])]
    asked = {name: value for name, value in droplet.asked.items() if value not in (None, False, [])}
    data = asked.pop("user_data")
    assert asked.pop("name").startswith("web-1-")
    assert asked == {
        "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64", "ssh_keys": [key["id"]], "ipv6": True,
        "monitoring": True, "tags": [NAME], "vpc_uuid": vpc["id"],
    }  # fmt: skip
    assert droplet.asked["with_droplet_agent"] is False
    assert data.startswith("#cloud-config\n")
    first_boot = json.loads(data.partition("\n")[2])
    (access,) = stack.revealed("ssh")
    assert first_boot["ssh_keys"]["ed25519_public"] == access["host_key"]
    assert [user["ssh_authorized_keys"] for user in first_boot["users"]] == [[key["public_key"]]]
    assert droplet.machine
    assert droplet.machine.run("cat /etc/ssh/ssh_host_*_key.pub").stdout.split()[:2] == access["host_key"].split()


def test_nothing_is_done_twice(stack: Stack, account: DigitalOcean) -> None:
    account.calls.clear()
    assert stack.up().counts.keys() == {"unchanged"}
    assert account.calls == []
    assert stack.pulumi("refresh", "--yes").counts.keys() == {"unchanged"}
    assert {method for method, _ in account.calls} == {"GET"}
    assert stack.up().counts.keys() == {"unchanged"}


def test_an_edit_reaches_the_droplet_and_asks_nothing_of_the_cloud(stack: Stack, account: DigitalOcean) -> None:
    old = stack.outputs()["release"]
    account.calls.clear()
    stack.edit("app/hello/templates/index.html", "<main>", "<main><!-- edited -->")
    ran = stack.up()
    steps = ("Command web-1-check-space", "CopyToRemote web-1-upload", "Command web-1-stage", "Command rollout")
    assert ran.operations == dict.fromkeys(steps, "updated")
    outputs = stack.outputs()
    answer = get(outputs["url"])
    assert (answer.status, answer.release) == (200, outputs["release"])
    assert "<!-- edited -->" in answer.body
    assert answer.release != old
    assert account.calls == []


def test_a_replaced_droplet_is_prepared_from_the_beginning(stack: Stack, account: DigitalOcean) -> None:
    before, served = stack.outputs(), get(f"{stack.outputs()['url']}/request")
    ran = stack.up("--replace", stack.resources()["Droplet web-1"]["urn"])
    assert account.unknown == []
    replaced = PREPARED | {"Droplet web-1", "ReservedIpAssignment web-1-address"}
    assert ran.operations == dict.fromkeys(replaced, "deleted") | {"Command rollout": "updated"}, ran.said
    after = stack.outputs()
    (droplet,) = account.droplets
    assert [m["id"] for m in after["machines"]] == [str(droplet)] != [m["id"] for m in before["machines"]]
    assert (after["url"], after["release"]) == (before["url"], before["release"])
    serves = get(f"{after['url']}/request")
    assert serves.status == 200
    assert json.loads(serves.body)["machine"] != json.loads(served.body)["machine"]
    assert stack.up().counts.keys() == {"unchanged"}


def test_a_second_machine_brings_a_balancer(stack: Stack, account: DigitalOcean) -> None:
    (first,) = account.droplets
    stack.set({"machines": "2"})
    stack.up()
    assert account.unknown == []
    assert first in account.droplets, "the machine that was there stays"
    assert account.reserved == {}
    (balancer,) = account.balancers.values()
    outputs = stack.outputs()
    assert outputs["url"] == f"http://{balancer.address}"
    assert [machine["name"] for machine in outputs["machines"]] == ["web-1", "web-2"]
    web = next(f for f in account.firewalls.values() if f["name"] == f"{NAME}-web")
    assert [rule["sources"]["load_balancer_uids"] for rule in web["inbound_rules"]] == [[balancer.id]]
    assert set(account.fake_account.balancers[balancer.address].states().values()) == {"UP"}
    answer = get(outputs["url"])
    assert (answer.status, answer.release) == (200, outputs["release"])
    assert stack.up().counts.keys() == {"unchanged"}


def test_destroy_leaves_an_empty_account(stack: Stack, account: DigitalOcean, network: Network) -> None:
    stack.destroy()
    assert account.unknown == []
    assert account.inventory() == {}
    assert stack.resources() == {}


def test_no_secret_was_ever_said_or_stored_in_clear(stack: Stack, account: DigitalOcean) -> None:
    stored = [path.read_text(errors="replace") for path in stack.backend.rglob("*") if path.is_file()]
    assert len(stored) > 10
    for text in stack.said + stored:
        assert CANARY not in text
        assert account.token not in text
        assert "PRIVATE KEY" not in text
        assert "b3BlbnNzaC1rZXktdjE" not in text, "how every OpenSSH private key begins, in base64"
