"""What the whole program asks Pulumi for, on both clouds, as a preview and as an update."""

from __future__ import annotations

import functools
import getpass
import hashlib
import json
import os
import re
import signal
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
import yaml

from decant import program
from decant.app.model import WebProcess
from decant.deploy.release import request_timeout
from decant.errors import SettingsError
from decant.ssh.client import CommandResult
from decant.ssh.keys import check_host_key, fingerprint
from decant_host.protocol import unguarded
from rehearsal import doubles
from rehearsal.doubles import Doubles, is_wrapped
from rehearsal.errors import UnknownResourceError
from tests.support import in_memory
from tests.support.in_memory import (
    APP,
    DROPLET,
    HOST,
    HOST_KEY,
    OWN_KEYS,
    PRIVATE,
    UNKNOWN,
    Run,
    carried,
    in_clear,
    project,
    reveal,
)

# Importing the clouds' own packages warns about what they deprecate; nothing of it is used here.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CLOUDS = {"digitalocean": DROPLET, "ssh": HOST}
NAMES = {"digitalocean": "web-1", "ssh": "shop"}  # of the one machine
CANARIES = {"SECRET_KEY": "canary-6b1f-key", "MAIL_PASSWORD": 'canary "quoted"\n7d2e'}
ENV = {"GREETING": "hello", "DEBUG": False}

Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run the program once: `start("ssh", workers=3)`, with `app=` for another app and `preview=True`."""
    count = iter(range(100))

    def run(cloud: str, *, app: dict[str, str] = APP, preview: bool = False, stack: str = "paper", **more: Any) -> Run:
        folder = project(tmp_path / str(next(count)), app)
        config = {**CLOUDS[cloud], **more}
        return in_memory.run_program(folder, config, monkeypatch, preview=preview, stack=stack)

    return run


@pytest.fixture(params=sorted(CLOUDS))
def cloud(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Run]:
    """A stack with environment and secrets on each cloud, as update and as preview; only ever read."""
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        for cloud, settings in CLOUDS.items():
            folder = project(tmp_path_factory.mktemp(cloud) / "project")
            config = {**settings, "env": ENV, "secrets": CANARIES}
            for preview in (False, True):
                runs[cloud, preview] = in_memory.run_program(folder, config, patch, preview=preview)
    return runs


@pytest.fixture
def updated(usual: dict[tuple[str, bool], Run], cloud: str) -> Run:
    return usual[cloud, False]


@pytest.fixture
def previewed(usual: dict[tuple[str, bool], Run], cloud: str) -> Run:
    return usual[cloud, True]


def tree(run: Run) -> dict[str, str]:
    """Each resource's short name with its parent's."""
    return {r.short: run.resources[r.parent].short if r.parent else "" for r in run.resources.values()}


def machine_steps(run: Run) -> list[Any]:
    """The steps that connect to a machine by themselves."""
    return [r for r in run.resources.values() if r.type.startswith("command:remote:")]


def steps(run: Run) -> list[Any]:
    """Every step, here or on a machine."""
    return [r for r in run.resources.values() if r.type.startswith("command:")]


PREPARED = {
    "Command {m}-ready": "MachineSteps {m}",
    "CopyToRemote {m}-files": "MachineSteps {m}",
    "Command {m}-provision": "MachineSteps {m}",
    "Command {m}-updates": "MachineSteps {m}",
    "Command {m}-check-space": "MachineSteps {m}",
    "CopyToRemote {m}-upload": "MachineSteps {m}",
    "Command {m}-stage": "MachineSteps {m}",
    "Rollout rollout": "Stack decant-paper",
    "Command rollout": "Rollout rollout",
    "Stack decant-paper": "",
}
EXPECTED_TREE = {
    "digitalocean": {
        "DigitalOcean cloud": "Stack decant-paper",
        "PrivateKey login-key": "DigitalOcean cloud",
        "SshKey login-key": "DigitalOcean cloud",
        "Vpc network": "DigitalOcean cloud",
        "Tag tag": "DigitalOcean cloud",
        "Firewall firewall": "DigitalOcean cloud",
        "Firewall web-firewall": "DigitalOcean cloud",
        "PrivateKey web-1-host-key": "DigitalOcean cloud",
        "Droplet web-1": "DigitalOcean cloud",
        "ReservedIp web-1-address": "DigitalOcean cloud",
        "ReservedIpAssignment web-1-address": "DigitalOcean cloud",
        "MachineSteps web-1": "DigitalOcean cloud",
        "Command web-1-own-key": "MachineSteps web-1",
    },
    "ssh": {
        "Ssh cloud": "Stack decant-paper",
        "ExistingHost shop": "Ssh cloud",
        "Command shop-cleanup": "ExistingHost shop",
        "MachineSteps shop": "ExistingHost shop",
    },
}


# ------------------------------------------------------------------------------------------------ the tree


@pytest.mark.parametrize("preview", [False, True])
def test_resources_and_their_places_in_the_tree(start: Start, cloud: str, preview: bool) -> None:
    run = start(cloud, preview=preview)
    prepared = {k.format(m=NAMES[cloud]): v.format(m=NAMES[cloud]) for k, v in PREPARED.items()}
    assert tree(run) == prepared | EXPECTED_TREE[cloud]


def test_every_component_registers_its_outputs(updated: Run) -> None:
    components = {r.urn for r in updated.resources.values() if not r.custom}
    assert components == set(updated.outputs)


def test_a_component_hands_no_option_down_that_pulumi_would_not(updated: Run) -> None:
    assert not any(r.protect for r in updated.resources.values())
    # No trigger besides the SDK's own rule for the property of that name.
    assert {r.replace_on_changes for r in steps(updated)} == {("triggers[*]",)}
    others = [r for r in updated.resources.values() if not r.type.startswith("command:")]
    assert not any(r.replace_on_changes for r in others)


def test_names_follow_the_stack(start: Start) -> None:
    run = start("digitalocean", stack="blue")
    tag = run.one("Tag tag").inputs["name"]
    assert re.fullmatch(r"decant-blue-[0-9a-f]{7}", tag)
    for short in ("SshKey login-key", "Firewall firewall"):
        assert run.one(short).inputs["name"] == tag
    assert run.one("Firewall web-firewall").inputs["name"] == f"{tag}-web", "a cloud wants different names"
    for firewall in run.of_type(":Firewall"):
        assert firewall.inputs["tags"] == [tag]
    assert run.one("Droplet web-1").inputs["tags"] == [tag]


def test_a_type_without_a_double_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    inner = Doubles.__init__

    def without_firewalls(self: Doubles, world: Any) -> None:
        inner(self, world)
        del self.doubles["digitalocean:index/firewall:Firewall"]

    monkeypatch.setattr(Doubles, "__init__", without_firewalls)
    for preview in (False, True):
        with pytest.raises(UnknownResourceError, match="firewall"):
            start("digitalocean", preview=preview)


def test_the_program_looks_nothing_up(updated: Run) -> None:
    # A look-up would raise in `Doubles.call`; that it does is what this run stands for.
    with pytest.raises(UnknownResourceError, match=r"digitalocean:getImage|look-up"):
        Doubles(in_memory.InMemoryBackend()).call(
            pulumi.runtime.MockCallArgs(token="digitalocean:getImage", args={}, provider="")
        )


# ------------------------------------------------------------------------------------------------ preview


def test_a_preview_survives_that_nothing_computed_is_known(previewed: Run, cloud: str) -> None:
    assert not previewed.world.steps
    assert not previewed.world.copies
    assert not previewed.world.booted
    derived = {name: export for name, export in previewed.exports.items() if name not in ("ssh", "cost")}
    assert set(derived) == {"url", "release", "machines", "receipt", "certificate", "savedCertificate", "contents"}
    assert not any(export.known for export in derived.values()), "a preview must not promise what is not live"
    # Hosts that exist already are known; a droplet's address and keys are not.
    assert previewed.exports["ssh"].known == (cloud == "ssh")
    assert previewed.exports["ssh"].secret


def test_a_preview_describes_the_steps(start: Start, cloud: str) -> None:
    """Without secrets, the release's id is known before anything is made: the diff is readable."""
    run, name = start(cloud, preview=True, env=ENV), NAMES[cloud]
    for short in (f"Command {name}-stage", "Command rollout"):
        assert re.search(r" [0-9a-f]{12}$", run.one(short).inputs["create"])
    assert run.one(f"Command {name}-ready").inputs["create"] == "../.venv/bin/python -m decant.ssh.ready"


def test_a_preview_does_not_know_an_id_made_with_a_key_that_does_not_exist_yet(start: Start) -> None:
    droplet = start("digitalocean", preview=True, secrets=CANARIES)
    assert droplet.one("Command web-1-stage").inputs["create"] == UNKNOWN
    host = start("ssh", preview=True, secrets=CANARIES)
    assert re.search(r" [0-9a-f]{12}$", host.one("Command shop-stage").inputs["create"])


def test_preview_and_update_ask_for_the_same_resources(previewed: Run, updated: Run) -> None:
    assert set(previewed.resources) == set(updated.resources)
    for urn, planned in previewed.resources.items():
        made = updated.resources[urn]
        assert set(planned.inputs) == set(made.inputs), urn
        assert planned.ignore_changes == made.ignore_changes
        assert planned.deleted_with == made.deleted_with


# ------------------------------------------------------------------------------------------------ the outputs


def test_a_preview_says_what_the_stack_costs(start: Start) -> None:
    run = start("digitalocean", preview=True, machines=2)
    assert run.exports["cost"].value["usdPerMonth"] == 24.0
    assert "The stack costs about 24.00 USD a month (2 x droplet s-1vcpu-1gb, 6.00 each; " in "\n".join(run.infos)
    assert not any("The stack costs" in line for line in start("digitalocean", machines=2).infos)
    assert not any("The stack costs" in line for line in start("ssh", preview=True).infos)


def test_outputs_of_an_update(updated: Run, cloud: str) -> None:
    exports = updated.exports
    https = {"certificate", "savedCertificate"}
    costs = set() if cloud == "ssh" else {"cost"}
    assert set(exports) == {"url", "release", "machines", "receipt", "ssh", "contents"} | https | costs
    secret = {"ssh", "savedCertificate", "contents"}
    assert {name for name, export in exports.items() if export.secret} == secret
    assert all(export.known for export in exports.values())
    address = {"digitalocean": "203.0.113.77", "ssh": "server.example.com"}[cloud]
    assert exports["url"].value == f"http://{address}"
    assert re.fullmatch(r"[0-9a-f]{12}", exports["release"].value)
    assert exports["receipt"].value == {"requests": 12, "failed": 0}
    (machine,) = exports["machines"].value
    assert (machine["name"], machine["address"]) == (NAMES[cloud], address)
    identity = fingerprint(HOST_KEY) if cloud == "ssh" else "400000002"
    assert machine["id"] == identity
    (access,) = exports["ssh"].value
    assert set(access) == {"name", "address", "port", "user", "host_key", "private_key", "setting"}


def test_outputs_are_what_the_rollout_said(start: Start, cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what was asked for: a failed `up` must never show what is not live."""
    said = {"url": "http://said", "release": "feedfeedfeed", "receipt": {"requests": 7}, "machines": []}
    monkeypatch.setattr(
        in_memory.InMemoryBackend,
        "_says",
        staticmethod(lambda r: CommandResult(status=0, stdout=json.dumps(r) + "\n", stderr="")),
    )
    inner = in_memory.InMemoryBackend.local

    def local(self: Any, step: str, command: str, stdin: str) -> Any:
        answer = inner(self, step, command, stdin)
        if step != "rollout":
            return answer
        machines = json.loads(answer.stdout)["machines"]
        return CommandResult(status=0, stdout=json.dumps({**said, "machines": machines}) + "\n", stderr="")

    monkeypatch.setattr(in_memory.InMemoryBackend, "local", local)
    exports = start(cloud).exports
    assert {name: exports[name].value for name in ("url", "release", "receipt")} == {
        "url": "http://said", "release": "feedfeedfeed", "receipt": {"requests": 7},
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ order and lifetime


def test_each_step_waits_for_the_one_before(updated: Run, cloud: str) -> None:
    name = NAMES[cloud]
    ready, base, room, updates, stage = (
        f"Command {name}-{step}" for step in ("ready", "provision", "check-space", "updates", "stage")
    )
    files, upload = (f"CopyToRemote {name}-{step}" for step in ("files", "upload"))
    pairs = [(ready, files), (files, base), (base, upload), (upload, stage), (stage, "Command rollout")]
    for before, after in (*pairs, (base, room), (room, "Command rollout"), (base, updates)):
        assert updated.one(before).urn in updated.one(after).dependencies, f"{after} does not wait for {before}"
    for beside in (room, updates):
        waiting = [s.short for s in steps(updated) if updated.one(beside).urn in s.dependencies]
        assert set(waiting) <= {"Command rollout"}, "a release is quicker if nobody waits for them"
    assert updated.one(updates).urn not in updated.one("Command rollout").dependencies


def test_the_rollout_takes_what_every_step_printed(updated: Run, cloud: str) -> None:
    """So that a step which ran again makes it run again. The upload prints nothing, and its name is in the stage."""
    stdin = json.loads(updated.text("Command rollout", "stdin"))
    printed = json.dumps(stdin["done"])
    told = [f"{NAMES[cloud]}-{step}" for step in ("provision", "check-space", "stage")]
    assert [step for step in told if step not in printed] == []
    assert printed.count("0123456789abcdef") == len(told)
    assert "ready" in printed
    for step in ("ready", "provision", "check-space", "stage"):
        assert updated.one(f"Command {NAMES[cloud]}-{step}").urn in updated.one("Command rollout").dependencies


def test_steps_run_again_on_another_machine(updated: Run, cloud: str) -> None:
    """Also at the same address; the id of a host that we did not make is its key's fingerprint."""
    identity = fingerprint(HOST_KEY) if cloud == "ssh" else updated.ids[updated.one("Droplet web-1").urn]
    on_machine = [s for s in steps(updated) if s.name not in ("rollout", "shop-cleanup")]
    assert len(on_machine) == {"digitalocean": 8, "ssh": 7}[cloud]
    for step in on_machine:
        home = [reveal(step.inputs["connection"])["user"]] if step.name.endswith("-files") else []
        assert step.inputs["triggers"] == [identity, *home], step.short
    assert "triggers" not in updated.one("Command rollout").inputs, "what it takes from every step is enough"


def test_steps_on_a_droplet_go_with_it(start: Start) -> None:
    run = start("digitalocean")
    droplet = run.one("Droplet web-1").urn
    for step in steps(run):
        assert step.deleted_with == ("" if step.short == "Command rollout" else droplet), step.short
    assert run.one("ReservedIpAssignment web-1-address").deleted_with == droplet
    assert droplet in run.one("Command web-1-ready").dependencies


def test_a_machine_is_given_time_to_boot(start: Start) -> None:
    droplet = json.loads(start("digitalocean").text("Command web-1-ready", "stdin"))
    host = json.loads(start("ssh").text("Command shop-ready", "stdin"))
    assert droplet["timeout"] >= 120 > host["timeout"] >= 30


def test_the_cleanup_of_a_host_is_made_first_and_deleted_last(start: Start) -> None:
    run = start("ssh")
    cleanup = run.one("Command shop-cleanup")
    assert not cleanup.dependencies
    for step in [s for s in steps(run) if s not in (cleanup, run.one("Command rollout"))]:
        assert cleanup.urn in step.dependencies, step.short
    assert "create" not in cleanup.inputs, "it must open no connection until the stack is destroyed"
    assert "triggers" not in cleanup.inputs, "a reinstalled host has nothing to be cleaned of"
    assert not cleanup.deleted_with
    assert "decant-remove" in cleanup.inputs["delete"]
    assert cleanup.inputs["delete"].startswith("sudo -n ")
    assert "shop-cleanup" not in [step for step, *_ in run.world.steps]


def test_nothing_else_has_a_delete_or_update_script(updated: Run) -> None:
    with_delete = {s.short for s in steps(updated) if "delete" in s.inputs}
    assert with_delete <= {"Command shop-cleanup"}
    assert not any("update" in s.inputs for s in steps(updated))


# ------------------------------------------------------------------------------------------------ connections


def test_every_connection_is_pinned_to_an_ed25519_key(updated: Run, cloud: str) -> None:
    remote = machine_steps(updated)
    assert len(remote) == {"digitalocean": 6, "ssh": 7}[cloud]
    key = updated.world.accesses[f"{NAMES[cloud]}-provision"].host_key
    if cloud == "ssh":
        assert key == HOST_KEY
    else:
        assert key == OWN_KEYS["web-1"]
    for step in remote:
        connection = reveal(step.inputs["connection"])
        assert is_wrapped(step.inputs["connection"])
        assert connection["hostKey"] == key
        assert check_host_key(connection["hostKey"]) == key, "no comment, no newline: the provider compares lines"
        assert 1 <= connection["dialErrorLimit"] <= 10, "`ready` has waited already: a dead host must fail soon"
        assert 1 <= connection["perDialTimeout"] <= 30
        assert set(connection) == {
            "host", "port", "user", "hostKey", "privateKey", "dialErrorLimit", "perDialTimeout",
        }  # fmt: skip


def test_hosts_are_reached_with_the_login_from_the_settings(start: Start) -> None:
    run = start("ssh")
    for step in machine_steps(run):
        connection = reveal(step.inputs["connection"])
        assert (connection["host"], connection["port"], connection["user"]) == ("server.example.com", 2222, "carol")
        assert connection["privateKey"] == PRIVATE
    access = json.loads(run.text("Command shop-ready", "stdin"))
    assert (access["address"], access["port"], access["user"]) == ("server.example.com", 2222, "carol")


def test_droplets_are_reached_through_the_assigned_address(start: Start) -> None:
    run = start("digitalocean")
    assignment = run.one("ReservedIpAssignment web-1-address").urn
    for step in machine_steps(run):
        connection = reveal(step.inputs["connection"])
        assert (connection["host"], connection["port"], connection["user"]) == ("203.0.113.77", 22, "deploy")
        assert assignment in step.dependencies, "nobody knocks at an address that leads nowhere yet"
    assert run.world.assigned == {"203.0.113.77": "10.9.8.1"}


def test_steps_leave_no_variables_behind(updated: Run) -> None:
    for step in steps(updated):
        assert "environment" not in step.inputs, step.short
        # `ready` must know which host key it has returned before.
        wanted = step.short == "Command web-1-ready"
        assert step.type.endswith("CopyToRemote") or step.inputs["addPreviousOutputInEnv"] is wanted, step.short


def test_root_needs_no_sudo_and_everybody_else_uses_it(start: Start) -> None:
    host = dict(HOST["hosts"][0], user="root")
    for run, sudo in ((start("ssh"), True), (start("ssh", hosts=[host]), False)):
        for step in ("provision", "updates", "check-space", "stage"):
            assert run.one(f"Command shop-{step}").inputs["create"].startswith("sudo -n ") == sudo
        assert run.one("Command shop-cleanup").inputs["delete"].startswith("sudo -n ") == sudo


# ------------------------------------------------------------------------------------------------ secrets


def test_standard_input_is_always_a_secret(updated: Run, previewed: Run, cloud: str) -> None:
    for run in (updated, previewed):
        for step in steps(run):
            if "stdin" in step.inputs:
                assert is_wrapped(step.inputs["stdin"]), step.short
    # ready, provision, stage, rollout; on a cloud own-key as well
    assert sum("stdin" in s.inputs for s in steps(updated)) == {"digitalocean": 5, "ssh": 4}[cloud]


def secrets_of(run: Run) -> list[str]:
    """Pieces of every secret of the run that survive escaping: values, and the middle lines of private keys."""
    keys = [PRIVATE]
    for urn, state in run.states.items():
        if "PrivateKey" in urn:
            keys.append(reveal(state).get("privateKeyOpenssh", ""))
    middle = [line for key in keys for line in key.splitlines()[1:-1]]
    return [*middle, "canary-6b1f-key", 'canary "quoted', "7d2e", 'canary \\"quoted']


@pytest.mark.parametrize("preview", [False, True])
def test_no_secret_leaves_its_wrapper(start: Start, cloud: str, preview: bool) -> None:
    run = start(cloud, env=ENV, secrets=CANARIES, preview=preview)
    secrets = secrets_of(run)
    for where, values in (("inputs", {u: r.inputs for u, r in run.resources.items()}), ("outputs", run.outputs),
                          ("state", run.states)):  # fmt: skip
        for urn, value in values.items():
            shown = "\n".join(in_clear(value))
            for secret in secrets:
                assert secret not in shown, f"{where} of {urn}"


def test_no_secret_is_in_a_command_line(updated: Run, cloud: str) -> None:
    """Not even in a wrapped one: the provider prints the whole line when a step fails."""
    lines = [reveal(s.inputs[k]) for s in steps(updated) for k in ("create", "delete", "remotePath") if k in s.inputs]
    assert len(lines) == 9
    for line in lines:
        assert isinstance(line, str)
        assert not any(secret in line for secret in secrets_of(updated))
        assert len(line) < 200, "a preview shows it"


def test_lines_are_readable_in_a_preview(updated: Run, previewed: Run) -> None:
    """A release's id is no secret, though secrets are part of it."""
    for run in (updated, previewed):
        for step in steps(run):
            for key in ("create", "delete", "remotePath", "triggers", "source"):
                assert not is_wrapped(step.inputs.get(key)), f"{key} of {step.short}"


def test_secrets_reach_only_the_machine(updated: Run, cloud: str) -> None:
    holders = {step for step, _, stdin in updated.world.steps if "canary" in stdin}
    assert holders == {f"{NAMES[cloud]}-stage"}
    stdin = json.loads(unguarded(next(s for step, _, s in updated.world.steps if step == f"{NAMES[cloud]}-stage")))
    assert stdin["environment"] == {"GREETING": "hello", "DEBUG": "false", **CANARIES}
    assert stdin["settings"]["secret_names"] == ["MAIL_PASSWORD", "SECRET_KEY"]
    assert not any(b"canary" in data for _, data in updated.world.copies.values())


def test_public_outputs_hold_no_secret(updated: Run) -> None:
    shown = json.dumps([e.value for n, e in updated.exports.items() if n != "ssh"])
    assert not any(secret in shown for secret in secrets_of(updated))


def test_local_steps_name_nothing_of_this_computer(updated: Run, previewed: Run) -> None:
    """A laptop and a CI runner must see no difference."""
    here = {getpass.getuser(), socket.gethostname(), str(in_memory.REPOSITORY), str(Path.home()), str(Path.cwd())}
    for run in (updated, previewed):
        for step in [s for s in steps(run) if s.type.startswith("command:local:")]:
            words = str(reveal(step.inputs["create"]))
            assert words == UNKNOWN or words.startswith("../.venv/bin/python -m decant.")
            assert not re.search(r"(^|\s)/", words)
            everything = words + str(reveal(step.inputs["stdin"]))
            assert not any(name in everything.split() or f"/{name}" in everything for name in here if len(name) > 2)
            assert set(step.inputs) <= {"create", "stdin", "addPreviousOutputInEnv", "triggers", "logging"}
        for copy in run.of_type("CopyToRemote"):
            assert copy.inputs["source"]["path"].startswith("../.decant/")


# ------------------------------------------------------------------------------------------------ the droplet


def test_firewalls_inward(start: Start) -> None:
    """Two of them, whose rules add up: a droplet waits for the one with SSH, and need not wait for the other."""
    run = start("digitalocean")
    everywhere = ["0.0.0.0/0", "::/0"]
    closed = run.one("Firewall firewall").inputs["inboundRules"]
    # Path MTU discovery and ping; no port is open by it.
    icmp = {"protocol": "icmp", "sourceAddresses": everywhere}
    admins = {"protocol": "tcp", "portRange": "22", "sourceAddresses": DROPLET["adminCidrs"]}
    assert sorted(closed, key=lambda rule: str(rule["protocol"])) == [icmp, admins]
    web = run.one("Firewall web-firewall").inputs
    assert web["inboundRules"] == [
        {"protocol": "tcp", "portRange": port, "sourceAddresses": everywhere} for port in ("80", "443")
    ]
    assert "outboundRules" not in web
    assert len(run.of_type(":Firewall")) == 2, "no tag or balancer gets in"


def test_firewall_outward(start: Start) -> None:
    rules = start("digitalocean").one("Firewall firewall").inputs["outboundRules"]
    for protocol, port in (("tcp", 53), ("udp", 53), ("tcp", 80), ("tcp", 443), ("udp", 123)):
        assert any(
            r["protocol"] == protocol
            and int(r["portRange"].split("-")[0]) <= port <= int(r["portRange"].split("-")[-1])
            and set(r["destinationAddresses"]) == {"0.0.0.0/0", "::/0"}
            for r in rules
        ), f"{protocol} {port}"


def test_the_firewall_stands_before_the_droplet(start: Start) -> None:
    run = start("digitalocean")
    firewall, droplet = run.one("Firewall firewall"), run.one("Droplet web-1")
    assert firewall.urn in droplet.dependencies
    assert set(firewall.inputs["tags"]) & set(droplet.inputs["tags"]), "the firewall holds for the droplet by its tag"
    assert not any("dropletIds" in one.inputs for one in run.of_type(":Firewall")), "a firewall takes ten at most"
    assert run.one("Firewall web-firewall").urn in run.one("Command web-1-provision").dependencies, (
        "or no probe gets through"
    )


def test_droplet(start: Start) -> None:
    run = start("digitalocean", size="s-2vcpu-4gb", region="nyc3", image="debian-13-x64")
    droplet = run.one("Droplet web-1")
    given = droplet.inputs
    assert (given["size"], given["region"], given["image"]) == ("s-2vcpu-4gb", "nyc3", "debian-13-x64")
    assert given["sshKeys"] == [run.ids[run.one("SshKey login-key").urn]]
    assert given["vpcUuid"] == run.ids[run.one("Vpc network").urn]
    assert run.one("SshKey login-key").urn in droplet.dependencies
    assert run.one("Vpc network").urn in droplet.dependencies
    assert given["dropletAgent"] is False
    assert given["monitoring"] is True
    assert given["gracefulShutdown"] is False
    assert is_wrapped(given["userData"])
    planned = start("digitalocean", preview=True).one("Droplet web-1").inputs
    assert is_wrapped(planned["userData"]), "by the program's own word, not because a key in it is secret"
    assert set(droplet.ignore_changes) == {"image", "userData", "sshKeys"}
    for short in ("Vpc network", "ReservedIp web-1-address"):
        assert run.one(short).inputs["region"] == "nyc3"


def test_keys_are_ed25519(start: Start) -> None:
    run = start("digitalocean")
    keys = run.of_type(":PrivateKey")
    assert len(keys) == 2
    assert all(k.inputs["algorithm"] == "ED25519" for k in keys)


def test_first_boot_data(start: Start) -> None:
    run = start("digitalocean")
    text = run.world.booted["web-1"]
    assert text.startswith("#cloud-config\n")
    data = yaml.safe_load(text)
    assert data == json.loads(text.partition("\n")[2]), "YAML and JSON readers must see the same"
    host_key = run.states[run.one("PrivateKey web-1-host-key").urn]
    assert data["ssh_keys"] == {
        "ed25519_private": reveal(host_key["privateKeyOpenssh"]),
        "ed25519_public": host_key["publicKeyOpenssh"].strip(),
    }
    first_login = json.loads(run.text("Command web-1-ready", "stdin"))
    assert data["ssh_keys"]["ed25519_public"] == first_login["host_key"], "what the first login is verified by"
    assert data["ssh_deletekeys"] is True
    assert data["disable_root"] is True
    (user,) = data["users"]  # no "default": the image's own user would be one more way in
    login = run.states[run.one("PrivateKey login-key").urn]["publicKeyOpenssh"].strip()
    assert user["name"] == "deploy"
    assert user["ssh_authorized_keys"] == [login]
    assert user["lock_passwd"] is True
    assert "passwd" not in user
    assert "NOPASSWD" in user["sudo"]
    (file,) = data["write_files"]
    assert file["path"] == "/etc/ssh/sshd_config.d/00-decant.conf"
    sshd = dict(re.findall(r"^(\w+) (\w+)$", file["content"], re.MULTILINE))
    assert sshd["PermitRootLogin"] == "no"
    assert sshd["PasswordAuthentication"] == "no"
    # It would make cloud-init restart sshd under the first login.
    assert "ssh_pwauth" not in data
    assert len(text) < 64 * 1024, "DigitalOcean takes 64 KiB"


# ------------------------------------------------------------------------------------------------ what runs again


def lines(run: Run, name: str) -> dict[str, str]:
    """The shell lines of the steps."""
    shorts = {"provision": f"Command {name}-provision", "stage": f"Command {name}-stage", "rollout": "Command rollout"}
    return {step: str(reveal(run.one(short).inputs["create"])) for step, short in shorts.items()}


def release_of(run: Run, name: str) -> str:
    """The release that the steps name; the same in all."""
    said = {line.split()[-1] for step, line in lines(run, name).items() if step != "provision"}
    assert len(said) == 1
    return said.pop()


def test_the_same_stack_twice_changes_nothing(start: Start) -> None:
    one, two = start("ssh", env=ENV, secrets=CANARIES), start("ssh", env=ENV, secrets=CANARIES)
    assert {u: r.inputs for u, r in one.resources.items()} == {u: r.inputs for u, r in two.resources.items()}


def test_a_changed_app_is_staged_and_rolled_out_but_prepares_nothing(start: Start, cloud: str) -> None:
    name = NAMES[cloud]
    one = start(cloud)
    two = start(cloud, app={**APP, "wsgi.py": APP["wsgi.py"] + "# changed\n"})
    before, after = lines(one, name), lines(two, name)
    assert before["provision"] == after["provision"]
    assert before["stage"] != after["stage"]
    assert before["rollout"] != after["rollout"]
    paths = [r.text(f"CopyToRemote {name}-upload", "remotePath") for r in (one, two)]
    assert paths[0] != paths[1], "the provider copies again only when path or content changed"


@pytest.mark.parametrize(
    "change",
    [
        {"env": {"GREETING": "hi"}},
        {"env": {**ENV, "MORE": "1"}},
        {"secrets": {**CANARIES, "SECRET_KEY": "another"}},
        {"secrets": {"SECRET_KEY": CANARIES["SECRET_KEY"]}},
        {"workers": 3},
        {"threads": 7},
        {"healthPath": "/ready"},
        {"healthTimeout": 16},
    ],
    ids=lambda change: "-".join(f"{k}" for k in change),
)
def test_whatever_serves_a_request_is_part_of_the_release(start: Start, change: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"env": ENV, "secrets": CANARIES}
    before = release_of(start("ssh", **settings), "shop")
    after = start("ssh", **{**settings, **change})
    assert release_of(after, "shop") != before


@pytest.mark.parametrize("change", [{"rollout": "parallel"}, {"url": "http://www.example.com"}, {"harden": True}])
def test_how_a_release_gets_there_is_not_part_of_it(start: Start, change: dict[str, Any]) -> None:
    before = release_of(start("ssh", env=ENV, secrets=CANARIES), "shop")
    assert release_of(start("ssh", env=ENV, secrets=CANARIES, **change), "shop") == before


@pytest.mark.parametrize("change", [{"harden": True}, {"url": "http://www.example.com"}, {"healthPath": "/up"},
                                    {"trustedProxies": ["10.0.0.5/32"]}])  # fmt: skip
def test_what_changes_a_machine_runs_base_again(start: Start, change: dict[str, Any]) -> None:
    healthy = {"trustedProxies": ["10.0.0.9/32"]}  # the health path is nginx's business only behind a proxy
    before = lines(start("ssh", **healthy), "shop")
    after = lines(start("ssh", **{**healthy, **change}), "shop")
    assert before["provision"] != after["provision"]


def test_a_pinned_release_stays(start: Start, cloud: str) -> None:
    pin = "0123456789ab"
    run = start(cloud, env=ENV, secrets=CANARIES, release=pin)
    assert release_of(run, NAMES[cloud]) == pin
    assert json.loads(unguarded(run.text(f"Command {NAMES[cloud]}-stage", "stdin"))) == {"tar": None}
    changed = start(cloud, app={**APP, "wsgi.py": APP["wsgi.py"] + "#\n"}, workers=5, release=pin)
    assert lines(changed, NAMES[cloud]) == lines(run, NAMES[cloud])
    planned = start(cloud, env=ENV, secrets=CANARIES, release=pin, preview=True)
    assert release_of(planned, NAMES[cloud]) == pin, "every preview says so"


def test_the_upload_is_what_the_stage_expects(updated: Run, cloud: str) -> None:
    target, data = updated.world.copies[f"{NAMES[cloud]}-upload"]
    stage = json.loads(unguarded(updated.text(f"Command {NAMES[cloud]}-stage", "stdin")))
    assert target == f"/var/lib/decant/incoming/{stage['tar']}"
    assert hashlib.sha256(data).hexdigest() == stage["sha256"]


def test_the_files_are_where_base_expects_them(updated: Run, cloud: str) -> None:
    """In the home of who logs in, under a name that says what is in them, and checked."""
    target, data = updated.world.copies[f"{NAMES[cloud]}-files"]
    whole = hashlib.sha256(data).hexdigest()
    assert target == f".decant/files-{whole[:12]}.tar"
    script = updated.text(f"Command {NAMES[cloud]}-provision", "stdin")
    assert f'cp {target} "$folder/files.tar"' in script
    assert f'"{whole}  $folder/files.tar" | sha256sum --check' in script


def test_the_public_name_is_the_one_that_is_served(start: Start) -> None:
    """The base step's files hold the name; its line holds only a digest of them."""
    for more, names in (({}, ["server.example.com"]), ({"url": "http://www.example.com:8080"},
                        ["www.example.com", "server.example.com"])):  # fmt: skip
        files = in_memory.carried(start("ssh", **more).text("Command shop-provision", "stdin"))
        assert f"server_name {' '.join(names)};" in files["nginx.conf"].decode()
        settings = json.loads(files["settings.json"])
        assert re.fullmatch(r"shop\.[0-9a-f]{8}", settings.pop("machine"))
        assert settings == {
            "name": names[0], "stack": "paper", "scheme": "http", "https": None, "drain_seconds": 0,
            "request_timeout": 30,
        }  # fmt: skip


# Its last colon is not that of a port.
def test_a_public_url_may_be_an_ipv6_address(start: Start) -> None:
    script = start("ssh", url="http://[2001:db8::7]").text("Command shop-provision", "stdin")
    assert json.loads(in_memory.carried(script)["settings.json"])["name"] == "[2001:db8::7]"


def test_a_failing_step_is_not_buried_under_a_traceback(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi interrupts the program then. In a rehearsal, which has its own handler, the program leaves it alone."""
    handlers: list[Any] = []
    ended: list[int] = []
    real = signal.signal

    def keep(number: int, handler: Any) -> Any:
        assert number == signal.SIGINT
        handlers.append(handler)
        return real(number, handler)

    monkeypatch.setattr(signal, "signal", keep)
    monkeypatch.setattr(os, "_exit", ended.append)
    before = signal.getsignal(signal.SIGINT)
    try:
        real(signal.SIGINT, signal.default_int_handler)
        start("ssh")
        programs, harness = handlers
        assert harness is signal.default_int_handler
        programs(signal.SIGINT, None)
        assert ended == [1]
        handlers.clear()
        real(signal.SIGINT, signal.SIG_IGN)
        start("ssh")
        assert handlers == [signal.SIG_IGN], "only the harness, which puts back what was there"
    finally:
        real(signal.SIGINT, before)


# ------------------------------------------------------------------------------------------------ problems


def refused(start: Start, **options: Any) -> str:
    """What Pulumi prints, without a traceback, of a stack that is not right."""
    with pytest.raises(pulumi.RunError) as caught:
        start(**options)
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_all_problems_of_the_settings_are_reported_without_a_traceback(start: Start) -> None:
    text = refused(start, cloud="digitalocean", wrokers=3, workers=0, adminCidrs=["0.0.0.0/0"], secrets="{canary")
    assert text.startswith("4 problems in the settings of stack paper; nothing was changed.\n  decant:wrokers: ")
    for problem in ("decant:wrokers", "decant:workers", "decant:adminCidrs[0]", "decant:secrets"):
        assert problem in text
    assert "canary" not in text


def test_problems_of_the_app_are_reported_with_those_of_the_settings(start: Start) -> None:
    text = refused(start, cloud="digitalocean", app={"README": "nothing here"}, machines=99)
    assert text.startswith("3 problems in the settings of stack paper; nothing was changed.\n  decant:machines is ")
    assert '  decant:app is "app": has no entry point: no wsgi.py, app.py, main.py or package' in text
    assert "\n      pip freeze > app/requirements.txt" in text


def test_a_problem_of_the_app_alone_is_reported_like_one_of_the_settings(start: Start) -> None:
    assert refused(start, cloud="digitalocean", static="assets") == (
        "1 problem in the settings of stack paper; nothing was changed.\n"
        '  decant:app is "app": has no folder assets, which decant:static names\n'
        "      pulumi config rm decant:static"
    )


PROCFILE = "web: gunicorn --timeout {} wsgi:app\n"


@pytest.mark.parametrize(
    ("said", "setting", "seconds"),
    [(None, None, 30), (10, None, 30), (30, None, 30), (120, None, 120), (0, None, 3600), (9999, None, 3600),
     (120, 5, 5), (0, 60, 60), (None, 3600, 3600)],
)  # fmt: skip
def test_the_time_for_a_request_is_the_settings_or_else_the_web_lines(
    start: Start, said: int | None, setting: int | None, seconds: int
) -> None:
    web = WebProcess(wsgi_app="wsgi:app", why="", gunicorn={} if said is None else {"timeout": said})
    settings = SimpleNamespace(request_timeout=setting)
    assert request_timeout(settings, web) == seconds  # type: ignore[arg-type]


def test_everything_on_a_machine_has_the_same_time_for_a_request(start: Start) -> None:
    run = start("digitalocean", requestTimeout=77, maxBody="3m")
    files = carried(run.text("Command web-1-provision", "stdin"))
    assert b"proxy_read_timeout 77s;" in files["nginx.conf"]
    assert b"client_max_body_size 3145728;" in files["nginx.conf"]
    assert json.loads(files["settings.json"])["request_timeout"] == 77
    assert b"TimeoutStopSec=87" in files["stop-timeout.conf"]
    assert json.loads(unguarded(run.text("Command web-1-stage", "stdin")))["settings"]["request_timeout"] == 77


def test_a_time_for_requests_that_the_balancer_does_not_wait_for_is_refused(start: Start) -> None:
    text = refused(start, cloud="digitalocean", balancer=True, requestTimeout=591)
    assert text == (
        "1 problem in the settings of stack paper; nothing was changed.\n"
        "  decant:requestTimeout is 591: the load balancer of digitalocean waits 590 seconds at most\n"
        "      pulumi config set decant:requestTimeout 590"
    )
    start("digitalocean", balancer=True, requestTimeout=590)
    start("digitalocean", requestTimeout=3600)


def test_a_missing_app_folder_is_reported_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path / "project")
    with pytest.raises(pulumi.RunError) as caught:
        in_memory.run_program(folder, {**DROPLET, "app": "nowhere"}, monkeypatch)
    assert '  decant:app is "nowhere": there is no such folder\n      pulumi config set decant:app ' in str(
        caught.value
    )


def test_a_link_out_of_the_app_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path / "linked")
    (folder / "app" / "secret").symlink_to("/etc/hostname")
    with pytest.raises(pulumi.RunError, match=r"1 problem in the settings .*\n.*leads out of the folder"):
        in_memory.run_program(folder, DROPLET, monkeypatch)


def test_the_app_is_not_read_where_its_setting_is_invalid(start: Start) -> None:
    assert refused(start, cloud="digitalocean", app={"README": ""}, static="..").startswith("1 problem in ")


@pytest.mark.parametrize("options", [{"machines": 99}, {"app": {"README": ""}}], ids=["settings", "app"])
def test_nothing_is_registered_before_settings_and_app_are_right(
    start: Start, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(doubles.Doubles, "new_resource", lambda self, args: seen.append(args.name))
    refused(start, cloud="digitalocean", **options)
    assert not seen


def test_the_networks_of_a_rehearsal_reach_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulumi.runtime.set_all_config({"decant:cloud": "digitalocean", "decant:adminCidrs": '["198.51.100.32/27"]'}, [])
    monkeypatch.setattr(pulumi, "get_stack", lambda: "paper")
    monkeypatch.chdir(project(tmp_path / "project") / "infra")
    try:
        with pytest.raises(SettingsError, match="reserved for examples"):
            program.read_stack()
        settings, app, bundle = program.read_stack(["198.51.100.32/27"])
    finally:
        pulumi.runtime.set_all_config({}, [])
    assert settings.admin_cidrs == ("198.51.100.32/27",)
    assert (app.folder, bundle.files) == (tmp_path / "project" / "app", len(APP))


def test_the_app_and_its_static_folder_are_those_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path / "project", {"../sites/shop/wsgi.py": "", "../sites/shop/requirements.txt": "flask\n",
                                            "../sites/shop/public/a.css": ""})  # fmt: skip
    run = in_memory.run_program(folder, {**HOST, "app": "sites/shop", "static": "/public/"}, monkeypatch)
    config = json.loads(unguarded(run.text("Command shop-stage", "stdin")))["settings"]
    assert (config["static"], config["entry"]) == ("public", "wsgi:app")


def test_a_pinned_release_is_warned_about_at_every_run(start: Start, cloud: str) -> None:
    for preview in (True, False):
        (warning,) = start(cloud, release="0123456789ab", preview=preview).warnings
        assert "0123456789ab" in warning
        assert "pulumi config rm decant:release" in warning


def test_warnings_of_the_app_are_shown(start: Start, cloud: str) -> None:
    assert start(cloud).warnings == ()
    (warning,) = start(cloud, app={**APP, "requirements.txt": "flask\n"}).warnings
    assert "no hashes" in warning


def test_warnings_of_the_app_come_before_those_of_the_settings(start: Start) -> None:
    app, data = start("digitalocean", app={**APP, "requirements.txt": "flask\n"}, machines=2).warnings
    assert "no hashes" in app
    assert "$DATA_DIR" in data


# ------------------------------------------------------------------------------------------------ decant:build


def shipped(project_folder: Path) -> set[str]:
    """The names in the app's tar."""
    (path,) = project_folder.glob(".decant/app-*.tar")
    with tarfile.open(path) as tar:
        return set(tar.getnames())


def test_what_the_build_makes_is_shipped_and_the_app_is_read_after_it(start: Start, tmp_path: Path) -> None:
    command = f"echo x >>{tmp_path}/runs; mkdir -p static; touch static/made.css"
    run = start("ssh", build=command)
    assert "static/made.css" in shipped(tmp_path / "0")
    assert json.loads(unguarded(run.text(f"Command {NAMES['ssh']}-stage", "stdin")))["settings"]["static"] == "static"
    assert not list((tmp_path / "0" / "app").rglob("made.css"))


def test_a_build_waits_until_the_settings_are_right(start: Start, tmp_path: Path) -> None:
    with pytest.raises(pulumi.RunError, match="1 problem in the settings"):
        start("ssh", build=f"touch {tmp_path}/ran", workers=1000)
    assert not (tmp_path / "ran").exists()


def test_a_build_that_fails_stops_the_program(start: Start) -> None:
    with pytest.raises(
        pulumi.RunError, match=r'decant:app is "app": could not be built: decant:build, .exit 7.'
    ) as caught:
        start("ssh", build="exit 7")
    assert "nothing was changed" in str(caught.value)
    plain = {"wsgi.py": "def app(environ, start_response):\n    return []\n", "requirements.txt": "# nothing\n"}
    with pytest.raises(pulumi.RunError, match="decant:build runs no-such-tool, which is not on this computer"):
        start("ssh", build="no-such-tool && exit 0", app=plain)


@pytest.mark.parametrize("preview", [False, True])
def test_what_was_understood_of_the_app_is_said_once(start: Start, cloud: str, preview: bool) -> None:
    infos = start(cloud, preview=preview, env={"GREETING": "canary"}, secrets=CANARIES).infos
    (text,) = (info for info in infos if not info.startswith("The stack costs"))
    assert text.startswith("The app in app/:\n  entry point  wsgi:app (wsgi.py)\n  Python       3.13")
    assert "canary" not in text


def test_the_folder_is_not_described_where_another_release_is_served(start: Start, cloud: str) -> None:
    assert start(cloud, release="0123456789ab").infos == ()


def test_machines_answer_to_the_names_of_a_rehearsals_tunnel(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> str:
        files = in_memory.carried(start("ssh").text("Command shop-provision", "stdin"))
        (found,) = re.findall(r"^ +server_name (?!_)(.*);$", files["nginx.conf"].decode(), re.MULTILINE)
        return str(found)

    usual = names()
    assert "localhost" not in usual
    monkeypatch.setattr(program, "run", functools.partial(program.run, extra_names=("localhost", "127.0.0.1")))
    assert names() == f"{usual} localhost 127.0.0.1"
