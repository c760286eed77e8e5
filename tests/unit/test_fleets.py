"""Several machines: hosts whose order means nothing, and droplets behind their balancer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decant import clouds
from tests.unit import paper
from tests.unit.paper import DROPLET, HOST, UNKNOWN, Run, is_wrapped, key_pair, project, reveal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Start = Callable[..., Run]
WORLD = ["0.0.0.0/0", "::/0"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run the program once: `start(DROPLET, machines=2)`, with `preview=True` for a preview."""
    count = iter(range(100))

    def run(config: Mapping[str, Any], *, preview: bool = False, **more: Any) -> Run:
        folder = project(tmp_path / str(next(count)))
        return paper.run_program(folder, {**config, **more}, monkeypatch, preview=preview)

    return run


def carried(run: Run, machine: str) -> tuple[str, dict[str, Any]]:
    """The nginx configuration and the settings file that a machine's `base` brings."""
    files = paper.carried(run.text(f"Command {machine}-base", "stdin"))
    return files["nginx.conf"].decode(), json.loads(files["settings.json"])


def server_names(conf: str) -> list[str]:
    (names,) = re.findall(r"^ *server_name (?!_;)(.*);$", conf, re.MULTILINE)
    return str(names).split()


# ------------------------------------------------------------------------------------------------ hosts

KEYS = {name: key_pair()[1].strip() for name in "abcdz"}


def hosts(names: str) -> list[dict[str, Any]]:
    """One host a letter, each with an address and a key of its own."""
    return [{"address": f"10.0.0.{ord(n)}", "hostKey": KEYS[n], "name": n} for n in names]


def asked(run: Run) -> dict[str, Any]:
    """Everything the engine is asked for; what it takes as a set, as a set."""
    return {urn: replace(one, dependencies=tuple(sorted(one.dependencies))) for urn, one in run.resources.items()}


def places_hidden(found: Mapping[str, object]) -> dict[str, str]:
    """What was registered or exported, as text without the places of hosts in the user's list."""
    return {name: re.sub(r"decant:hosts\[\d\]", "decant:hosts[]", repr(value)) for name, value in found.items()}


def test_each_host_knows_its_place_in_the_users_list(start: Start) -> None:
    """Not its place by name: an error that advises `pulumi config set` must not change another host."""
    plan = json.loads(start(HOST, hosts=hosts("dbca")).text("Command rollout", "stdin"))
    places = {machine["name"]: machine["setting"] for machine in plan["machines"]}
    assert places == {name: f"decant:hosts[{place}]" for place, name in enumerate("dbca")}


def test_the_rollout_knows_whose_balancer_stands_before_the_machines(fleet: Run, start: Start) -> None:
    external = start(HOST, hosts=hosts("ab"), url="http://www.example.com", trustedProxies=["10.0.0.5/32"])
    runs = {"managed": fleet, "external": external, None: start(HOST, hosts=hosts("ab"))}
    plans = {balancer: json.loads(run.text("Command rollout", "stdin")) for balancer, run in runs.items()}
    assert {balancer: plan["balancer"] for balancer, plan in plans.items()} == {b: b for b in runs}


@pytest.mark.parametrize(("rollout", "batch"), [("serial", 1), ("parallel", 3), (2, 2), (99, 99)])
def test_the_rollout_knows_how_many_machines_switch_at_a_time(start: Start, rollout: str | int, batch: int) -> None:
    plan = json.loads(start(HOST, hosts=hosts("abc"), rollout=rollout).text("Command rollout", "stdin"))
    assert plan["batch"] == batch


def test_a_droplet_has_no_settings_of_its_own(fleet: Run) -> None:
    plan = json.loads(fleet.text("Command rollout", "stdin"))
    assert [machine["setting"] for machine in plan["machines"]] == [None] * len(MACHINES)


@pytest.mark.parametrize("preview", [False, True])
def test_another_order_of_the_hosts_changes_their_places_alone(start: Start, preview: bool) -> None:
    one = start(HOST, hosts=hosts("abcd"), preview=preview)
    two = start(HOST, hosts=hosts("dbca"), preview=preview)
    exported = [{n: e.value for n, e in run.exports.items()} for run in (one, two)]
    # Error texts name a host's place in the user's own list, and so `ready` and `rollout` have it among their inputs.
    assert places_hidden(asked(one)) == places_hidden(asked(two))
    assert places_hidden(exported[0]) == places_hidden(exported[1])


def test_lists_are_sorted_by_name(start: Start) -> None:
    run = start(HOST, hosts=hosts("dbca"))
    plan = json.loads(run.text("Command rollout", "stdin"))
    assert [m["name"] for m in plan["machines"]] == ["a", "b", "c", "d"]
    for name, done in zip("abcd", plan["done"], strict=True):
        assert f"{name}-stage" in done
    for export in ("machines", "ssh"):
        assert [m["name"] for m in run.exports[export].value] == ["a", "b", "c", "d"]
    assert run.exports["url"].value == f"http://10.0.0.{ord('a')}"


@pytest.mark.parametrize("joins", ["a", "c", "z"])
def test_a_host_that_joins_or_leaves_changes_no_other(start: Start, joins: str) -> None:
    """But for the rollout, which is the whole fleet's, and `ready` where a host's place in the list changes."""
    others = "".join(n for n in "abcz" if n != joins)
    before, after = asked(start(HOST, hosts=hosts(others))), asked(start(HOST, hosts=hosts("abcz")))
    assert set(before) < set(after)
    new = {after[urn].name for urn in set(after) - set(before)}
    assert new == {
        joins,
        *(f"{joins}-{step}" for step in ("cleanup", "ready", "files", "base", "updates", "room", "upload", "stage")),
    }
    changed = {before[urn].short for urn in before if before[urn] != after[urn]}
    assert changed == {"Command rollout", *(f"Command {n}-ready" for n in others if n > joins)}


def test_a_host_that_joins_leaves_a_public_name_as_it_is(start: Start) -> None:
    said = {"url": "http://www.example.com", "trustedProxies": ["10.0.0.5/32"]}
    before, after = (asked(start(HOST, hosts=hosts(names), **said)) for names in ("bc", "bca"))
    assert {before[urn].short for urn in before if before[urn] != after[urn]} == {"Command rollout"}


def test_every_host_answers_to_the_public_name_and_its_own(start: Start) -> None:
    run = start(HOST, hosts=hosts("ab"), url="http://www.example.com", trustedProxies=["10.0.0.5/32"])
    for name in "ab":
        conf, settings = carried(run, name)
        assert server_names(conf) == ["www.example.com", f"10.0.0.{ord(name)}"]
        assert settings == {"stack": "paper", "name": "www.example.com", "noticed": clouds.NOTICED}
        assert "set_real_ip_from 10.0.0.5/32;" in conf
    assert run.exports["url"].value == "http://www.example.com"
    assert not [r for r in run.resources.values() if r.name.endswith("-leave")], (
        "the balancer is not ours: cleanup does it"
    )


def test_warnings_of_a_fleet_are_told(start: Start) -> None:
    data, public = start(HOST, hosts=hosts("ab")).warnings
    assert "$DATA_DIR" in data
    assert "decant:url" in public


# ------------------------------------------------------------------------------------------------ droplets

MACHINES = ("web-1", "web-2", "web-3")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three droplets; only ever read."""
    with pytest.MonkeyPatch.context() as patch:
        return paper.run_program(
            project(tmp_path_factory.mktemp("fleet") / "project"), {**DROPLET, "machines": 3}, patch
        )


def balancer_of(run: Run) -> Any:
    (one,) = run.of_type(":LoadBalancer")
    return one


def rules(run: Run, direction: str) -> list[dict[str, Any]]:
    """The rules of all firewalls, which add up."""
    return [rule for firewall in run.of_type(":Firewall") for rule in firewall.inputs.get(f"{direction}Rules", [])]


def test_outward_everything_is_open(fleet: Run) -> None:
    """D1: without a rule nothing is."""
    given = {(r["protocol"], r.get("portRange")): r["destinationAddresses"] for r in rules(fleet, "outbound")}
    assert given == {("tcp", "1-65535"): WORLD, ("udp", "1-65535"): WORLD, ("icmp", None): WORLD}


def test_the_web_port_opens_for_the_balancer_alone(fleet: Run) -> None:
    """D2: droplets keep a public address of their own."""
    inward = rules(fleet, "inbound")
    (web,) = [r for r in inward if r.get("portRange") == "80"]
    assert web == {
        "protocol": "tcp", "portRange": "80", "sourceLoadBalancerUids": [fleet.ids[balancer_of(fleet).urn]],
    }  # fmt: skip
    (admins,) = [r for r in inward if r.get("portRange") == "22"]
    assert admins == {"protocol": "tcp", "portRange": "22", "sourceAddresses": DROPLET["adminCidrs"]}
    assert [r for r in inward if r not in (web, admins)] == [{"protocol": "icmp", "sourceAddresses": WORLD}]
    for firewall in fleet.of_type(":Firewall"):
        assert firewall.inputs["tags"] == ["decant-paper"]
        assert "dropletIds" not in firewall.inputs, "a firewall takes ten at most"


def test_droplets_are_born_with_a_key_in_a_network_of_their_own(fleet: Run) -> None:
    """D3: else a root password is mailed, and the network is every droplet's."""
    network, key = fleet.ids[fleet.one("Vpc network").urn], fleet.ids[fleet.one("SshKey login-key").urn]
    droplets = fleet.of_type(":Droplet")
    assert sorted(d.name for d in droplets) == list(MACHINES), "in whatever order the engine got them"
    for droplet in droplets:
        assert droplet.inputs["vpcUuid"] == network
        assert droplet.inputs["sshKeys"] == [key]
        assert droplet.inputs["tags"] == ["decant-paper"]
        assert is_wrapped(droplet.inputs["userData"])
    assert balancer_of(fleet).inputs["vpcUuid"] == network


def test_the_balancers_settings(fleet: Run) -> None:
    """D4 to D6, none of them left to a default. No redirect, because there is no HTTPS to be sent to."""
    given = balancer_of(fleet).inputs
    assert given["redirectHttpToHttps"] is False
    assert given["tlsCipherPolicy"] == "STRONG"
    assert given["healthcheck"] == {
        "protocol": "http", "port": 80, "path": "/healthz", "checkIntervalSeconds": 10, "responseTimeoutSeconds": 5,
        "healthyThreshold": 2, "unhealthyThreshold": 2,
    }  # fmt: skip
    assert given["enableBackendKeepalive"] is False
    assert given["enableProxyProtocol"] is False
    assert given["httpIdleTimeoutSeconds"] == clouds.IDLE
    assert given["forwardingRules"] == [
        {"entryProtocol": "http", "entryPort": 80, "targetProtocol": "http", "targetPort": 80}
    ]


def test_the_balancer_takes_droplets_by_their_tag(fleet: Run) -> None:
    given = balancer_of(fleet).inputs
    assert given["dropletTag"] == "decant-paper"
    assert "dropletIds" not in given
    assert balancer_of(fleet).urn not in fleet.one("Droplet web-1").dependencies, "they need not wait for it"


def test_the_balancer_asks_the_health_path(start: Start) -> None:
    assert balancer_of(start(DROPLET, balancer=True, healthPath="/up")).inputs["healthcheck"]["path"] == "/up"


def test_no_droplet_of_a_fleet_has_a_reserved_address(fleet: Run) -> None:
    assert not [r for r in fleet.resources.values() if "reservedIp" in r.type]
    for name in MACHINES:
        connection = reveal(fleet.one(f"Command {name}-base").inputs["connection"])
        assert connection["host"] == fleet.states[fleet.one(f"Droplet {name}").urn]["ipv4Address"]
        assert fleet.one(f"Droplet {name}").urn in fleet.one(f"Command {name}-ready").dependencies


def test_visitors_know_the_balancer_alone(fleet: Run) -> None:
    address = fleet.states[balancer_of(fleet).urn]["ip"]
    assert fleet.exports["url"].value == f"http://{address}"
    network = fleet.states[fleet.one("Vpc network").urn]["ipRange"]
    for name in MACHINES:
        conf, settings = carried(fleet, name)
        assert server_names(conf) == [address]
        assert settings == {"stack": "paper", "name": address, "noticed": 25}
        assert re.findall(r"set_real_ip_from (.*);", conf) == [network]
        (told,) = re.findall(r'"1" "(\S+)";', conf)
        plan = json.loads(fleet.text("Command rollout", "stdin"))
        assert [m["tag"] for m in plan["machines"] if m["name"] == name] == [told], "what the rollout waits for"
        identity = fleet.ids[fleet.one(f"Droplet {name}").urn]
        assert told == f"{name}.{hashlib.sha256(identity.encode()).hexdigest()[:8]}", (
            "another one's after a replacement"
        )
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
    before, after = (asked(start(DROPLET, balancer=True, machines=n, preview=True)) for n in (fewer, more))
    name = f"web-{more}"
    parts = ("host-key", "ready", "files", "base", "updates", "room", "upload", "stage", "leave")
    assert {after[urn].name for urn in set(after) - set(before)} == {name, *(f"{name}-{part}" for part in parts)}
    assert {before[urn].short for urn in before if before[urn] != after[urn]} == {"Command rollout"}


# ------------------------------------------------------------------------------------------------ leaving


def test_a_droplet_leaves_before_it_goes(fleet: Run) -> None:
    for name in MACHINES:
        leave, droplet = fleet.one(f"Command {name}-leave"), fleet.one(f"Droplet {name}")
        assert leave.type == "command:local:Command"
        assert droplet.urn in leave.dependencies, "so that it is deleted first"
        assert not leave.deleted_with, "or it would not run at all"
        assert leave.inputs["triggers"] == [fleet.ids[droplet.urn]]
        assert "create" not in leave.inputs
        assert "update" not in leave.inputs
        assert fleet.resources[leave.parent].short == f"PreparedMachine {name}"
    assert not [step for step, *_ in fleet.world.steps if step.endswith("-leave")], "nothing is run until then"


def test_the_line_that_leaves_names_nothing_of_this_computer(fleet: Run) -> None:
    lines = {fleet.one(f"Command {name}-leave").inputs["delete"] for name in MACHINES}
    assert lines == {"if [ -x ../.venv/bin/python ]; then ../.venv/bin/python -m decant.ssh.drain || true; fi"}


def test_leaving_needs_the_login_and_hides_it(fleet: Run, start: Start) -> None:
    for name, access in zip(MACHINES, fleet.exports["ssh"].value, strict=True):
        leave = fleet.one(f"Command {name}-leave")
        assert is_wrapped(leave.inputs["stdin"])
        assert json.loads(reveal(leave.inputs["stdin"])) == access
        assert leave.inputs["addPreviousOutputInEnv"] is False
    planned = start(DROPLET, machines=2, preview=True).one("Command web-1-leave").inputs["stdin"]
    assert is_wrapped(planned)
    assert reveal(planned) == UNKNOWN


def test_a_droplet_that_stands_alone_leaves_nothing(start: Start) -> None:
    run = start(DROPLET)
    assert not [r for r in run.resources.values() if r.name.endswith("-leave")]
    assert not run.of_type(":LoadBalancer")
    assert len(run.of_type(":ReservedIp")) == 1
