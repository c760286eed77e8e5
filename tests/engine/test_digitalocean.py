"""A droplet through its life: the real `pulumi` and DigitalOcean provider, a double of the API, throwaway machines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from rehearsal.machines.network import Network
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.fake_account import FakeAccount
from tests.support.pulumi_stack import STACK, Stack, get, missing

CANARY = "7a90d3c2-canary-that-nobody-may-see"
NAME = f"decant-{STACK}"
PREPARED = {
    f"Command web-1-{step}" for step in ("ready", "own-key", "provision", "updates", "check-space", "stage")
} | {
    "CopyToRemote web-1-files",
    "CopyToRemote web-1-upload",
}
MADE = {
    "PrivateKey login-key", "PrivateKey web-1-host-key", "SshKey login-key", "Vpc network", "Tag tag",
    "Firewall firewall", "Firewall web-firewall", "Droplet web-1", "ReservedIp web-1-address",
    "ReservedIpAssignment web-1-address",
}  # fmt: skip


@pytest.fixture(scope="module")
def api(network: Network) -> Iterator[DigitalOceanApi]:
    lacking = missing("digitalocean", "tls")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    # The region was used before, so that the stack's own network is not its default one, which nobody can delete.
    api = DigitalOceanApi(FakeAccount(network), "dop_v1_not_a_real_one", used_regions=("fra1",))
    yield api
    api.server.shutdown()


@pytest.fixture(scope="module")
def stack(api: DigitalOceanApi, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    stack = Stack.create(tmp_path_factory.mktemp("droplet"), DIGITALOCEAN_API_URL=api.url)
    # The gate takes no network that is reserved for examples, as the machines' is; the double's firewall holds nobody.
    stack.set({"cloud": "digitalocean", "adminCidrs[0]": "10.0.0.0/8"})
    stack.set_secret("secrets.CANARY", CANARY)
    stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=api.token)
    return stack


def test_a_preview_needs_no_account(stack: Stack, api: DigitalOceanApi) -> None:
    ran = stack.pulumi("preview")
    assert ran.operations == dict.fromkeys(MADE | PREPARED | {"Command rollout"}, "create")
    assert api.calls == []


def test_the_first_up_ends_with_an_answering_url(stack: Stack, api: DigitalOceanApi) -> None:
    ran = stack.up()
    assert api.unknown == []
    assert ran.operations == dict.fromkeys(MADE | PREPARED | {"Command rollout"}, "created")
    outputs = stack.outputs()
    (reserved,) = api.account.reserved.values()
    assert outputs["url"] == f"http://{reserved.ip}"
    assert outputs["machines"] == [{"name": "web-1", "address": reserved.ip, "id": str(reserved.droplet)}]
    assert outputs["ssh"] == "[secret]"
    answer = get(outputs["url"])
    assert (answer.status, answer.release) == (200, outputs["release"])


def test_what_was_made_is_what_was_meant(stack: Stack, api: DigitalOceanApi) -> None:
    account = api.account
    (key,) = account.keys.values()
    (vpc,) = [vpc for vpc in account.vpcs.values() if not vpc.default]
    (name,) = account.tags
    closed, opened = sorted(account.firewalls.values(), key=lambda f: f["name"])
    (droplet,) = account.droplets.values()
    assert re.fullmatch(f"{NAME}-[0-9a-f]{{7}}", name)
    assert key["name"] == name
    assert (vpc.asked["region"], vpc.asked["description"]) == ("fra1", f"{NAME}, made by Decant")
    everybody = {"addresses": ["0.0.0.0/0", "::/0"]}
    inward = [{(r["protocol"], r.get("ports")): r["sources"] for r in f["inbound_rules"]} for f in (closed, opened)]
    outward = {(r["protocol"], r.get("ports")): r["destinations"] for r in closed["outbound_rules"]}
    assert inward == [
        {("tcp", "22"): {"addresses": ["10.0.0.0/8"]}, ("icmp", None): everybody},
        {("tcp", "80"): everybody, ("tcp", "443"): everybody},
    ]
    assert outward == {("tcp", "1-65535"): everybody, ("udp", "1-65535"): everybody, ("icmp", None): everybody}
    assert not opened["outbound_rules"]
    assert [(f["name"], f["tags"]) for f in (closed, opened)] == [(name, [name]), (f"{name}-web", [name])]
    asked = {name: value for name, value in droplet.asked.items() if value not in (None, False, [])}
    data = asked.pop("user_data")
    assert asked.pop("name").startswith("web-1-")
    assert asked == {
        "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64", "ssh_keys": [key["id"]], "ipv6": True,
        "monitoring": True, "tags": [name], "vpc_uuid": vpc.id,
    }  # fmt: skip
    assert droplet.asked["with_droplet_agent"] is False
    assert data.startswith("#cloud-config\n")
    first_boot = json.loads(data.partition("\n")[2])
    (access,) = stack.revealed("ssh")
    first_key = stack.resources()["PrivateKey web-1-host-key"]["outputs"]["publicKeyOpenssh"].strip()
    assert first_boot["ssh_keys"]["ed25519_public"] == first_key != access["host_key"]
    assert [user["ssh_authorized_keys"] for user in first_boot["users"]] == [[key["public_key"]]]
    assert (
        api.machines[droplet.id].run("cat /etc/ssh/ssh_host_*_key.pub").stdout.split()[:2] == access["host_key"].split()
    )


def test_nothing_is_done_twice(stack: Stack, api: DigitalOceanApi) -> None:
    api.calls.clear()
    assert stack.up().counts.keys() == {"unchanged"}
    assert api.calls == []
    assert stack.pulumi("refresh", "--yes").counts.keys() == {"unchanged"}
    assert {method for method, _ in api.calls} == {"GET"}
    assert stack.up().counts.keys() == {"unchanged"}


def test_an_edit_reaches_the_droplet_and_asks_nothing_of_the_cloud(stack: Stack, api: DigitalOceanApi) -> None:
    old = stack.outputs()["release"]
    api.calls.clear()
    stack.edit("app/hello/templates/index.html", "<main>", "<main><!-- edited -->")
    ran = stack.up()
    steps = ("Command web-1-check-space", "CopyToRemote web-1-upload", "Command web-1-stage", "Command rollout")
    assert ran.operations == dict.fromkeys(steps, "updated")
    outputs = stack.outputs()
    answer = get(outputs["url"])
    assert (answer.status, answer.release) == (200, outputs["release"])
    assert "<!-- edited -->" in answer.body
    assert answer.release != old
    assert api.calls == []


def test_a_hung_droplet_is_replaced_by_one_that_is_prepared_from_the_beginning(
    stack: Stack, api: DigitalOceanApi
) -> None:
    """It answers nobody and never shuts down."""
    before, served = stack.outputs(), get(f"{stack.outputs()['url']}/request")
    (hung,) = api.account.droplets.values()
    hung.hung = True
    api.machines[hung.id].run("ip link set host0 down")
    ran = stack.up("--replace", stack.resources()["Droplet web-1"]["urn"])
    assert api.unknown == []
    replaced = PREPARED | {"Droplet web-1", "ReservedIpAssignment web-1-address"}
    assert ran.operations == dict.fromkeys(replaced, "deleted") | {"Command rollout": "updated"}, ran.said
    after = stack.outputs()
    assert [m["id"] for m in after["machines"]] == list(api.account.droplets) != [m["id"] for m in before["machines"]]
    assert (after["url"], after["release"]) == (before["url"], before["release"])
    serves = get(f"{after['url']}/request")
    assert serves.status == 200
    assert json.loads(serves.body)["machine"] != json.loads(served.body)["machine"]
    assert stack.up().counts.keys() == {"unchanged"}


def test_a_second_machine_brings_a_balancer(stack: Stack, api: DigitalOceanApi) -> None:
    (first,) = api.account.droplets
    stack.set({"machines": "2"})
    stack.up()
    assert api.unknown == []
    assert first in api.account.droplets, "the machine that was there stays"
    assert list(api.account.reserved) == []
    (balancer,) = api.account.balancers.values()
    outputs = stack.outputs()
    assert outputs["url"] == f"http://{balancer.address}"
    assert [machine["name"] for machine in outputs["machines"]] == ["web-1", "web-2"]
    web = next(f for f in api.account.firewalls.values() if f["name"].endswith("-web"))
    assert [rule["sources"]["load_balancer_uids"] for rule in web["inbound_rules"]] == [[balancer.id]]
    assert set(api.fake_account.balancers[balancer.address].states().values()) == {"UP"}
    answer = get(outputs["url"])
    assert (answer.status, answer.release) == (200, outputs["release"])
    assert stack.up().counts.keys() == {"unchanged"}


def test_destroy_leaves_an_empty_account(stack: Stack, api: DigitalOceanApi, network: Network) -> None:
    stack.destroy()
    assert api.unknown == []
    assert api.inventory() == {}
    assert stack.resources() == {}


def test_no_secret_was_ever_said_or_stored_in_clear(stack: Stack, api: DigitalOceanApi) -> None:
    stored = [path.read_text(errors="replace") for path in stack.backend.rglob("*") if path.is_file()]
    assert len(stored) > 10
    for text in stack.said + stored:
        assert CANARY not in text
        assert api.token not in text
        assert "PRIVATE KEY" not in text
        assert "b3BlbnNzaC1rZXktdjE" not in text, "how every OpenSSH private key begins, in base64"
