"""Droplets: several behind a load balancer, and one alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from decant.clouds.digitalocean import balancer, names
from rehearsal.doubles import is_wrapped
from tests.support import in_memory
from tests.support.in_memory import (
    DROPLET,
    STEPS,
    UNKNOWN,
    Run,
    project,
    provisioned,
    requested,
    reveal,
    server_names,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Start = Callable[..., Run]
WORLD = ["0.0.0.0/0", "::/0"]
MACHINES = ("web-1", "web-2", "web-3")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three droplets; only ever read."""
    with pytest.MonkeyPatch.context() as patch:
        return in_memory.run_program(
            project(tmp_path_factory.mktemp("fleet") / "project"), {**DROPLET, "machines": 3}, patch
        )


def tag_of(run: Run) -> str:
    """The name of the stack's tag."""
    return str(run.states[run.one("Tag tag").urn]["name"])


def balancer_of(run: Run) -> Any:
    (one,) = run.of_type(":LoadBalancer")
    return one


def rules(run: Run, direction: str) -> list[dict[str, Any]]:
    """The rules of all firewalls, which add up."""
    return [rule for firewall in run.of_type(":Firewall") for rule in firewall.inputs.get(f"{direction}Rules", [])]


def test_droplets_may_connect_to_everything(fleet: Run) -> None:
    """A firewall without outbound rules blocks everything: https://docs.digitalocean.com/products/networking/firewalls/"""
    given = {(r["protocol"], r.get("portRange")): r["destinationAddresses"] for r in rules(fleet, "outbound")}
    assert given == {("tcp", "1-65535"): WORLD, ("udp", "1-65535"): WORLD, ("icmp", None): WORLD}


def test_behind_a_balancer_only_it_can_connect_to_the_web_port(fleet: Run) -> None:
    """Droplets have public addresses too, so without this rule visitors could go round the balancer."""
    inward = rules(fleet, "inbound")
    (web,) = [r for r in inward if r.get("portRange") == "80"]
    assert web == {
        "protocol": "tcp", "portRange": "80", "sourceLoadBalancerUids": [fleet.ids[balancer_of(fleet).urn]],
    }  # fmt: skip
    (admins,) = [r for r in inward if r.get("portRange") == "22"]
    assert admins == {"protocol": "tcp", "portRange": "22", "sourceAddresses": DROPLET["adminCidrs"]}
    assert [r for r in inward if r not in (web, admins)] == [{"protocol": "icmp", "sourceAddresses": WORLD}]
    for firewall in fleet.of_type(":Firewall"):
        assert firewall.inputs["tags"] == [tag_of(fleet)]
        assert "dropletIds" not in firewall.inputs, "a firewall takes ten at most"


def test_droplets_have_an_ssh_key_and_a_vpc_of_the_stack(fleet: Run) -> None:
    """Without a key DigitalOcean mails a root password; without a VPC the network is shared with other stacks."""
    network, key = fleet.ids[fleet.one("Vpc network").urn], fleet.ids[fleet.one("SshKey login-key").urn]
    droplets = fleet.of_type(":Droplet")
    assert sorted(d.name for d in droplets) == list(MACHINES), "in whatever order the engine got them"
    for droplet in droplets:
        assert droplet.inputs["vpcUuid"] == network
        assert droplet.inputs["sshKeys"] == [key]
        assert droplet.inputs["tags"] == [tag_of(fleet)]
        assert is_wrapped(droplet.inputs["userData"])
    assert balancer_of(fleet).inputs["vpcUuid"] == network


def test_all_names_in_the_account_end_with_a_hash_of_the_stacks_own_key(fleet: Run, start: Start) -> None:
    """Otherwise two people of a team with a stack `dev` share one tag, and one `destroy` untags both."""
    tag, key = tag_of(fleet), str(fleet.states[fleet.one("PrivateKey login-key").urn]["publicKeyOpenssh"])
    digest = hashlib.sha256(key.split()[1].encode()).hexdigest()
    assert tag == f"decant-paper-{digest[:7]}"
    assert fleet.one("SshKey login-key").inputs["name"] == tag
    assert {f.name: f.inputs["name"] for f in fleet.of_type(":Firewall")} == {
        "firewall": tag,
        "web-firewall": f"{tag}-web",
    }
    assert tag_of(start(DROPLET)) != tag, "another stack with the same name has another key"


def test_a_tag_that_is_there_keeps_its_name(fleet: Run) -> None:
    """A stack that was made before names had a hash would get another tag, and lose its droplets meanwhile."""
    assert fleet.one("Tag tag").ignore_changes == ("name",)


@pytest.mark.parametrize(
    ("stack", "name", "owned"),
    [
        ("dev", "decant-dev", True),
        ("dev", "decant-dev-web", True),
        ("dev", "decant-dev-0a1b2c3", True),
        ("dev", "decant-dev-0a1b2c3-web", True),
        ("dev", "decant-dev-2", False),
        ("dev", "decant-dev-2-0a1b2c3", False),
        ("dev", "decant-development", False),
        ("dev", "other-decant-dev", False),
        ("my_stack.1", "decant-my-stack-1-0a1b2c3", True),
    ],
)
def test_names_tell_stacks_apart(stack: str, name: str, owned: bool) -> None:
    assert names.is_of(names.label("decant", stack), name) is owned


def test_a_name_fits_tags_and_firewalls() -> None:
    made = names.unique(names.label("my.app", "a_b"), "ssh-ed25519 AAAA decant")
    assert made == f"my-app-a-b-{hashlib.sha256(b'AAAA').hexdigest()[:7]}"


def test_the_network_says_whose_it_is_and_is_given_time_to_forget_its_balancer(fleet: Run) -> None:
    network = fleet.one("Vpc network")
    assert network.inputs["description"] == "decant-paper, made by Decant"
    assert network.timeouts == {"delete": "15m"}, "the provider's own limit is two minutes"


def test_a_droplet_is_deleted_without_waiting_for_its_guest(fleet: Run) -> None:
    """A graceful shutdown and the deletion have one minute together, and a hung guest never shuts down."""
    for name in MACHINES:
        droplet = fleet.one(f"Droplet {name}")
        assert droplet.inputs["gracefulShutdown"] is False
        assert droplet.timeouts == {"delete": "10m"}


def test_another_size_leaves_the_disk_as_it_is(start: Start) -> None:
    """A larger disk can never become smaller again, so the former size could not be had back."""
    assert start(DROPLET).one("Droplet web-1").inputs["resizeDisk"] is False


def test_the_balancers_settings(fleet: Run) -> None:
    """None is left to a default. No redirect to HTTPS, because there is no HTTPS yet."""
    given = balancer_of(fleet).inputs
    assert given["redirectHttpToHttps"] is False
    assert given["tlsCipherPolicy"] == "STRONG"
    assert given["healthcheck"] == {
        "protocol": "http", "port": 80, "path": "/healthz", "checkIntervalSeconds": 10, "responseTimeoutSeconds": 5,
        "healthyThreshold": 2, "unhealthyThreshold": 2,
    }  # fmt: skip
    assert given["enableBackendKeepalive"] is False
    assert given["enableProxyProtocol"] is False
    assert given["httpIdleTimeoutSeconds"] == balancer.IDLE_TIMEOUT == 600
    assert given["forwardingRules"] == [
        {"entryProtocol": "http", "entryPort": 80, "targetProtocol": "http", "targetPort": 80}
    ]


def test_the_balancer_takes_droplets_by_their_tag(fleet: Run) -> None:
    given = balancer_of(fleet).inputs
    assert given["dropletTag"] == tag_of(fleet)
    assert "dropletIds" not in given
    assert balancer_of(fleet).urn not in fleet.one("Droplet web-1").dependencies, "they need not wait for it"


def test_the_balancer_asks_the_health_path(start: Start) -> None:
    assert balancer_of(start(DROPLET, balancer=True, healthPath="/up")).inputs["healthcheck"]["path"] == "/up"


def test_no_droplet_of_a_fleet_has_a_reserved_address(fleet: Run) -> None:
    assert not [r for r in fleet.resources.values() if "reservedIp" in r.type]
    for name in MACHINES:
        connection = reveal(fleet.one(f"Command {name}-provision").inputs["connection"])
        assert connection["host"] == fleet.states[fleet.one(f"Droplet {name}").urn]["ipv4Address"]
        assert fleet.one(f"Droplet {name}").urn in fleet.one(f"Command {name}-ready").dependencies


def test_machines_answer_to_the_balancers_address_only(fleet: Run) -> None:
    address = fleet.states[balancer_of(fleet).urn]["ip"]
    assert fleet.exports["url"].value == f"http://{address}"
    network = fleet.states[fleet.one("Vpc network").urn]["ipRange"]
    for name in MACHINES:
        conf, settings = provisioned(fleet, name)
        assert server_names(conf) == [address]
        assert settings.pop("machine").startswith(f"{name}.")
        assert settings == {
            "stack": "paper", "name": address, "scheme": "http", "https": None, "drain_seconds": 25,
            "request_timeout": 30,
        }  # fmt: skip
        assert "keepalive_timeout 615s;" in conf, "longer than the balancer keeps an idle connection"
        assert re.findall(r"set_real_ip_from (.*);", conf) == [network]
        (tag,) = re.findall(r'"1" "(\S+)";', conf)
        plan = json.loads(fleet.text("Command rollout", "stdin"))
        assert [m["tag"] for m in plan["machines"] if m["name"] == name] == [tag], "what the rollout waits for"
        identity = fleet.ids[fleet.one(f"Droplet {name}").urn]
        assert tag == f"{name}.{hashlib.sha256(identity.encode()).hexdigest()[:8]}", "another one's after a replacement"
        assert "http_x_forwarded_proto" not in conf, "the balancer takes HTTP alone: no scheme is to be believed"


def test_outputs_of_a_fleet(fleet: Run) -> None:
    machines = fleet.exports["machines"].value
    assert [m["name"] for m in machines] == list(MACHINES)
    assert [m["id"] for m in machines] == [fleet.ids[fleet.one(f"Droplet {n}").urn] for n in MACHINES]
    assert len({m["id"] for m in machines}) == len({m["address"] for m in machines}) == 3
    assert [a["name"] for a in fleet.exports["ssh"].value] == list(MACHINES)
    assert len({a["host_key"] for a in fleet.exports["ssh"].value}) == 3, "each has a key of its own"


def test_another_size_is_another_droplet_behind_a_balancer(fleet: Run, start: Start) -> None:
    """DigitalOcean switches a droplet off to change its size; one that stands alone keeps its data instead."""
    for droplet in fleet.of_type(":Droplet"):
        assert droplet.replace_on_changes == ("size",)
        assert set(droplet.ignore_changes) == {"image", "userData", "sshKeys"}
        assert not droplet.delete_before_replace, "the new one serves before the old one goes"
    assert start(DROPLET).one("Droplet web-1").replace_on_changes == ()
    assert start(DROPLET, balancer=True).one("Droplet web-1").replace_on_changes == ("size",)


def test_the_rollout_waits_for_the_balancer(fleet: Run) -> None:
    waits = set(fleet.one("Command rollout").dependencies)
    assert {balancer_of(fleet).urn, *(f.urn for f in fleet.of_type(":Firewall"))} <= waits


@pytest.mark.parametrize(("fewer", "more"), [(2, 3), (1, 2)])
def test_a_droplet_that_joins_or_leaves_changes_no_other(start: Start, fewer: int, more: int) -> None:
    """Seen in previews, where nothing is made up at random."""
    before, after = (requested(start(DROPLET, balancer=True, machines=n, preview=True)) for n in (fewer, more))
    name = f"web-{more}"
    parts = ("host-key", "own-key", *STEPS, "drain")
    assert {after[urn].name for urn in set(after) - set(before)} == {name, *(f"{name}-{part}" for part in parts)}
    assert {before[urn].short for urn in before if before[urn] != after[urn]} == {"Command rollout"}


# ------------------------------------------------------------------------------------------------ draining


def test_a_droplet_is_drained_before_it_is_deleted(fleet: Run) -> None:
    for name in MACHINES:
        drain, droplet = fleet.one(f"Command {name}-drain"), fleet.one(f"Droplet {name}")
        assert drain.type == "command:local:Command"
        assert droplet.urn in drain.dependencies, "so that it is deleted first"
        assert not drain.deleted_with, "or it would not run at all"
        assert drain.inputs["triggers"] == [fleet.ids[droplet.urn]]
        assert "create" not in drain.inputs
        assert "update" not in drain.inputs
        assert fleet.resources[drain.parent].short == f"MachineSteps {name}"
    assert not [step for step, *_ in fleet.world.steps if step.endswith("-drain")], "nothing is run until then"


def test_the_drain_step_has_no_path_of_this_computer(fleet: Run) -> None:
    lines = {fleet.one(f"Command {name}-drain").inputs["delete"] for name in MACHINES}
    assert lines == {"if [ -x ../.venv/bin/python ]; then ../.venv/bin/python -m decant.ssh.drain || true; fi"}


def test_the_drain_step_gets_the_login_as_a_secret(fleet: Run, start: Start) -> None:
    for name, access in zip(MACHINES, fleet.exports["ssh"].value, strict=True):
        drain = fleet.one(f"Command {name}-drain")
        assert is_wrapped(drain.inputs["stdin"])
        assert json.loads(reveal(drain.inputs["stdin"])) == access
        assert drain.inputs["addPreviousOutputInEnv"] is False
    planned = start(DROPLET, machines=2, preview=True).one("Command web-1-drain").inputs["stdin"]
    assert is_wrapped(planned)
    assert reveal(planned) == UNKNOWN


def test_a_single_droplet_has_no_drain_step(start: Start) -> None:
    run = start(DROPLET)
    assert not [r for r in run.resources.values() if r.name.endswith("-drain")]
    assert not run.of_type(":LoadBalancer")
    assert len(run.of_type(":ReservedIp")) == 1
