"""The rules for every cloud: the same assertions for all of `clouds.specs()`.

A new cloud is tested once `in_memory.STACKS` has a stack of it. Nothing here knows a cloud's resources by name.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from decant import clouds
from decant.clouds import base
from decant.host.steps import remove_step
from decant.preview.events import State, Step
from decant.preview.infrastructure import infrastructure
from decant.ssh.keys import check_host_key
from rehearsal.doubles import is_wrapped, key_pair
from tests.support import in_memory
from tests.support.in_memory import REPOSITORY, STACKS, Registered, Run, in_clear, project, reveal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SPECS = clouds.specs()
CANARIES = {"SECRET_KEY": "canary-6b1f-key"}
HEALTH_PATH = "/up"
WORLD = {"0.0.0.0/0", "::/0"}
EXTRA_KEYS = [key_pair()[1].strip() for _ in range(2)]


def variants(kind: str) -> list[str]:
    """The shapes that a stack of this cloud can have."""
    takes = SPECS[kind].settings
    shapes = ["alone"]
    if "balancer" in takes:
        shapes += ["one behind a balancer", "three behind a balancer"]
    if "hosts" in takes:
        shapes += ["three hosts"]
    return shapes


def stack_of(kind: str, shape: str) -> dict[str, Any]:
    """The settings of that shape. Fails with what is missing."""
    if kind not in STACKS:
        pytest.fail(
            f"nothing is known of a stack of cloud {kind}: add STACKS[{kind!r}] to tests/support/in_memory.py, the"
            f" fewest settings that it can have, such as {{'cloud': {kind!r}, ...}}, and rehearsal/doubles/{kind}.py"
        )
    least = {**STACKS[kind], "healthPath": HEALTH_PATH, "secrets": CANARIES, "env": {"GREETING": "hello"}}
    if shape == "three hosts":
        (first,) = least["hosts"]
        more = [
            {**first, "address": f"10.0.0.{i}", "name": f"host-{i}", "hostKey": k} for i, k in enumerate(EXTRA_KEYS)
        ]
        return {**least, "hosts": [first, *more], "trustedProxies": ["10.0.0.9/32"]}
    by_shape: dict[str, dict[str, Any]] = {
        "alone": {},
        "one behind a balancer": {"balancer": True},
        "three behind a balancer": {"machines": 3},
    }
    return {**least, **by_shape[shape]}


CASES = [(kind, shape) for kind in SPECS for shape in variants(kind)]


def case_id(case: tuple[str, str]) -> str:
    return f"{case[0]}-{case[1].replace(' ', '-')}"


def only(condition: Callable[[tuple[str, str]], bool]) -> pytest.MarkDecorator:
    """Run a test for these stacks only: it would assert nothing for the others."""
    cases = [case for case in CASES if condition(case)]
    assert cases
    return pytest.mark.parametrize("case", cases, indirect=True, ids=case_id, scope="module")


only_with_firewall = only(lambda case: "adminCidrs" in SPECS[case[0]].settings)
only_without_firewall = only(lambda case: "adminCidrs" not in SPECS[case[0]].settings)
only_balanced = only(lambda case: "balancer" in case[1])
only_unbalanced = only(lambda case: "balancer" not in case[1])


@pytest.fixture(scope="module", params=CASES, ids=case_id)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    kind, shape = request.param
    return str(kind), str(shape)


def run_of(case: tuple[str, str], tmp_path_factory: pytest.TempPathFactory, *, preview: bool) -> Run:
    folder = project(tmp_path_factory.mktemp("conformance") / "project")
    with pytest.MonkeyPatch.context() as patch:
        return in_memory.run_program(folder, stack_of(*case), patch, preview=preview)


@pytest.fixture(scope="module")
def run(case: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The stack made; only ever read."""
    return run_of(case, tmp_path_factory, preview=False)


@pytest.fixture(scope="module")
def planned(case: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same as a preview, which knows nothing that a provider computes."""
    return run_of(case, tmp_path_factory, preview=True)


@pytest.fixture
def count(case: tuple[str, str]) -> int:
    return 3 if "three" in case[1] else 1


@pytest.fixture
def balanced(case: tuple[str, str]) -> bool:
    """By a balancer that the stack makes."""
    return "balancer" in case[1]


# ------------------------------------------------------------------------------------------------ looking


def machines(run: Run) -> list[dict[str, Any]]:
    """How each machine is logged in to, and its id."""
    ids = {m["name"]: m["id"] for m in run.exports["machines"].value}
    return [{**access, "id": ids[access["name"]]} for access in run.exports["ssh"].value]


def steps(run: Run, machine: str = "") -> list[Registered]:
    """The steps that run here or on a machine; with a machine's name, its own."""
    names = "cleanup ready own-key files provision updates check-space upload stage drain"
    known = {f"{machine}-{step}" for step in names.split()}
    return [r for r in run.resources.values() if r.type.startswith("command:") and (not machine or r.name in known)]


def made(run: Run) -> list[Registered]:
    """What the cloud's own module asks for at its provider."""
    return [r for r in run.resources.values() if r.custom and not r.type.startswith(("command:", "pulumi:"))]


def before(run: Run, urn: str) -> set[str]:
    """Everything that must exist before, and so is deleted after."""
    found: set[str] = set()
    left = [urn]
    while left:
        one = run.resources[left.pop()]
        fresh = set(one.dependencies) - found
        found |= fresh
        left += fresh
    return found


def objects(value: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object inside a value, with the names that lead to it."""
    if isinstance(value, dict):
        yield where, value
        for key, item in value.items():
            yield from objects(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from objects(item, where)


def texts(rule: dict[str, Any]) -> Iterator[str]:
    """The texts of an object and of its lists."""
    for value in rule.values():
        yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return "/" in text


def opens_to_the_world(rule: dict[str, Any]) -> tuple[int, int] | None:
    """The ports that a firewall's rule opens to everybody, in the words of any cloud; None for no port at all."""
    if not set(texts(rule)) & WORLD:
        return None
    protocol = next((str(rule[key]) for key in ("protocol", "ipProtocol") if key in rule), "")
    if protocol in ("icmp", "icmpv6", "ipv6-icmp", "1", "58"):
        return None
    if "portRange" in rule:
        first, _, last = str(rule["portRange"]).partition("-")
        return (int(first), int(last or first)) if first.isdigit() and first != "0" else (0, 65535)
    if "fromPort" in rule and protocol != "-1":
        return int(rule["fromPort"]), int(rule["toPort"])
    return (0, 65535) if protocol or "fromPort" in rule else None


def inward_rules(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whatever may be a rule of a firewall; what is named after the way out is not."""
    for one in made(run):
        for where, rule in objects(reveal(dict(one.inputs)), one.type):
            if not re.search(r"egress|outbound", where, re.IGNORECASE) and rule.get("type") != "egress":
                yield f"{one.short}: {rule}", rule


@pytest.mark.parametrize(
    ("rule", "ports"),
    [
        ({"protocol": "tcp", "portRange": "22", "sourceAddresses": ["0.0.0.0/0"]}, (22, 22)),
        ({"protocol": "tcp", "portRange": "1-65535", "sourceAddresses": ["10.0.0.1/32", "::/0"]}, (1, 65535)),
        ({"protocol": "tcp", "portRange": "all", "sourceAddresses": ["::/0"]}, (0, 65535)),
        ({"protocol": "tcp", "portRange": "22", "sourceAddresses": ["10.0.0.1/32"]}, None),
        ({"protocol": "icmp", "sourceAddresses": ["0.0.0.0/0"]}, None),
        ({"ipProtocol": "tcp", "fromPort": 20.0, "toPort": 30.0, "cidrIpv4": "0.0.0.0/0"}, (20, 30)),
        ({"ipProtocol": "-1", "cidrIpv6": "::/0"}, (0, 65535)),
        ({"protocol": "-1", "fromPort": 0, "toPort": 0, "cidrBlocks": ["0.0.0.0/0"]}, (0, 65535)),
        ({"destinationCidrBlock": "0.0.0.0/0", "gatewayId": "igw-1"}, None),
    ],
)
def test_open_ports_are_read_from_rules(rule: dict[str, Any], ports: tuple[int, int] | None) -> None:
    assert opens_to_the_world(rule) == ports


# ------------------------------------------------------------------------------------------------ machines and logins


def test_there_are_machines_with_names_and_ids(run: Run, count: int) -> None:
    given = machines(run)
    assert len(given) == count
    for part in ("name", "address", "host_key", "id"):
        assert len({m[part] for m in given}) == count, part
        assert all(isinstance(m[part], str) and m[part] for m in given), part
    assert [m["name"] for m in given] == sorted(m["name"] for m in given)


def test_every_host_key_is_known_before_the_first_contact(run: Run, case: tuple[str, str]) -> None:
    """A machine of a cloud is born with a key for the first login, and then makes one of its own."""
    said = {h["hostKey"] for h in stack_of(*case).get("hosts", [])}
    for machine in machines(run):
        assert check_host_key(machine["host_key"]) == machine["host_key"], "ed25519, without a comment or a newline"
        if said:
            assert machine["host_key"] in said
            continue
        data = json.loads(run.world.booted[machine["name"]].partition("\n")[2])
        first_login, own_key = (
            json.loads(run.text(f"Command {machine['name']}-{step}", "stdin")) for step in ("ready", "own-key")
        )
        assert data["ssh_keys"]["ed25519_public"] == first_login["host_key"] == own_key["first_key"]
        assert (first_login["own_key"], own_key["host_key"]) == (True, machine["host_key"])
        assert machine["host_key"] == in_memory.OWN_KEYS[machine["name"]] != first_login["host_key"]
        assert data["ssh_keys"]["ed25519_private"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
        assert data["ssh_deletekeys"] is True
        assert data["disable_root"] is True
        assert machine["user"] != "root"
    assert len(run.world.booted) == (0 if said else len(machines(run)))


def test_every_connection_is_pinned(run: Run) -> None:
    for machine in machines(run):
        remote = [s for s in steps(run, machine["name"]) if s.type.startswith("command:remote:")]
        assert len(remote) >= 4
        for step in remote:
            assert is_wrapped(step.inputs["connection"]), step.short
            connection = reveal(step.inputs["connection"])
            assert connection["hostKey"] == machine["host_key"], step.short
            assert (connection["host"], connection["port"]) == (machine["address"], machine["port"])
            assert connection["user"] == machine["user"]
    pinned = {s.urn for m in machines(run) for s in steps(run, m["name"])}
    assert {s.urn for s in steps(run)} - pinned == {run.one("Command rollout").urn}, "no step but these connects"


@only_with_firewall
def test_ssh_is_never_open_to_the_world(run: Run) -> None:
    rules = list(inward_rules(run))
    assert rules
    for shown, rule in rules:
        ports = opens_to_the_world(rule)
        assert ports is None or not ports[0] <= 22 <= ports[1], shown


@only_with_firewall
def test_only_the_web_ports_are_open_to_the_world(run: Run, case: tuple[str, str]) -> None:
    opened = {ports for _, rule in inward_rules(run) if (ports := opens_to_the_world(rule))}
    assert opened <= {(80, 80), (443, 443)}
    # A firewall may let in a balancer by its id, and the balancer itself has no firewall on every cloud.
    assert opened or "balancer" in case[1], "visitors get in somewhere"


@only_without_firewall
def test_a_cloud_without_admin_cidrs_creates_nothing_at_a_provider(run: Run) -> None:
    assert not made(run)
    assert len(steps(run)) > 5


@only_with_firewall
def test_only_administrators_can_connect_to_ssh(run: Run, case: tuple[str, str]) -> None:
    sources: set[str] = set()
    for _, rule in inward_rules(run):
        first = str(rule.get("portRange", rule.get("fromPort", "")))
        if first.partition(".")[0] == "22":
            sources |= {text for text in texts(rule) if is_network(text)}
    assert sources == set(stack_of(*case)["adminCidrs"])


# ------------------------------------------------------------------------------------------------ steps


def test_steps_run_again_on_another_machine(run: Run) -> None:
    for machine in machines(run):
        own = [s for s in steps(run, machine["name"]) if not s.name.endswith("-cleanup")]
        assert len(own) >= 5
        for step in own:
            home = [machine["user"]] if step.name.endswith("-files") else []
            assert step.inputs["triggers"] == [machine["id"], *home], step.short
    assert "triggers" not in run.one("Command rollout").inputs


def test_steps_are_deleted_with_their_machine(run: Run) -> None:
    """A machine that the stack did not create has no resource: it stays, and the clean-up runs on it."""
    for machine in machines(run):
        resource = resource_of(run, machine)
        for step in steps(run, machine["name"]):
            kept = step.name.endswith(("-cleanup", "-drain"))
            assert step.deleted_with == ("" if kept or resource is None else resource.urn), step.short


def resource_of(run: Run, machine: dict[str, Any]) -> Registered | None:
    """What the cloud calls the machine."""
    found = [r for r in made(run) if run.ids[r.urn] == machine["id"]]
    assert len(found) <= 1
    return found[0] if found else None


DRAIN = "if [ -x ../.venv/bin/python ]; then ../.venv/bin/python -m decant.ssh.drain || true; fi"


def test_only_clean_up_and_drain_run_at_a_deletion(run: Run, count: int, balanced: bool) -> None:
    with_delete = {s.name: s.inputs["delete"] for s in steps(run) if "delete" in s.inputs}
    draining = {name for name, line in with_delete.items() if line == DRAIN}
    assert draining == ({f"{m['name']}-drain" for m in machines(run)} if balanced else set())
    cleaning = {
        name
        for name, line in with_delete.items()
        if line.removeprefix("sudo -n ") == remove_step(name.removesuffix("-cleanup"))
    }
    mine = [m for m in machines(run) if resource_of(run, m) is None]
    assert cleaning == {f"{m['name']}-cleanup" for m in mine}
    assert draining | cleaning == set(with_delete)
    assert len(with_delete) in (0, count)
    assert not any("update" in s.inputs for s in steps(run))


@only_balanced
def test_a_machine_is_drained_before_anything_of_it_is_deleted(run: Run) -> None:
    """The engine deletes in the reverse order of dependencies, so draining depends on everything that it needs."""
    for machine in machines(run):
        drain, resource = run.one(f"Command {machine['name']}-drain"), resource_of(run, machine)
        assert resource is not None
        later = before(run, drain.urn)
        assert resource.urn in later
        # Such as its public address, or its attachment to the balancer's targets.
        attached = [r for r in made(run) if resource.urn in r.dependencies]
        assert {r.urn for r in attached} <= later
        others = {r.urn for m in machines(run) if m != machine for r in steps(run, m["name"])}
        assert not later & others, "no machine waits for another"
        # `ready` returns the host key that it logs in by.
        assert {s.name for s in steps(run, machine["name"]) if s.urn in later} == {f"{machine['name']}-ready"}


@only_balanced
def test_the_rollout_waits_for_the_balancer_and_its_targets(run: Run) -> None:
    waits = before(run, run.one("Command rollout").urn)
    assert {balancer_check(run)[0].urn} <= waits
    assert {
        r.urn for m in machines(run) for r in made(run) if (resource_of(run, m) or r).urn in r.dependencies
    } <= waits


def test_steps_name_nothing_of_this_computer(run: Run) -> None:
    for step in steps(run):
        if step.type.startswith("command:local:"):
            for key in ("create", "delete"):
                assert not re.search(r"(^|\s)[/~]", str(step.inputs.get(key, ""))), step.short


# ------------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize("when", ["run", "planned"])
def test_secrets_stay_wrapped(request: pytest.FixtureRequest, case: tuple[str, str], when: str) -> None:
    run: Run = request.getfixturevalue(when)
    secrets = [CANARIES["SECRET_KEY"], *(line for line in in_memory.PRIVATE.splitlines()[1:-1])]
    for state in run.states.values():
        for name, value in state.items():
            if name.startswith("privateKey") and isinstance(reveal(value), str):
                secrets += reveal(value).splitlines()[1:-1]
    for step in steps(run):
        assert is_wrapped(step.inputs["stdin"]) if "stdin" in step.inputs else not step.name.endswith("-stage")
    for what in ({u: r.inputs for u, r in run.resources.items()}, run.outputs, run.states):
        for urn, value in what.items():
            shown = "\n".join(in_clear(value))
            assert not any(secret in shown for secret in secrets), urn
    for step in steps(run):
        lines = [str(reveal(step.inputs[key])) for key in ("create", "delete") if key in step.inputs]
        assert not any(secret in line for secret in secrets for line in lines), step.short


def test_user_data_is_marked_secret_by_the_program(run: Run, planned: Run) -> None:
    for one in (run, planned):
        given = [r.inputs[key] for r in made(one) for key in ("userData", "userDataBase64") if key in r.inputs]
        assert len(given) == len(run.world.booted)
        assert all(is_wrapped(value) for value in given)


# ------------------------------------------------------------------------------------------------ previews and outputs


def test_a_preview_asks_for_what_an_update_makes(run: Run, planned: Run) -> None:
    assert set(planned.resources) == set(run.resources)
    assert not planned.world.steps
    assert not planned.world.booted
    for urn, one in planned.resources.items():
        assert set(one.inputs) == set(run.resources[urn].inputs), urn
        assert one.ignore_changes == run.resources[urn].ignore_changes
        assert one.replace_on_changes == run.resources[urn].replace_on_changes
    derived = {name: export for name, export in planned.exports.items() if name not in ("ssh", "cost")}
    assert not any(export.known for export in derived.values()), "a preview must not promise what is not live"


def test_a_cloud_with_an_account_checks_it_and_has_prices() -> None:
    folder = REPOSITORY / "infra/decant/clouds"
    for name, spec in clouds.specs().items():
        there = {part for part in ("account", "changes", "prices") if (folder / name / f"{part}.py").exists()}
        assert there == ({"account", "changes", "prices"} if spec.has_account else set()), name


def test_a_preview_tells_of_every_machine_and_of_who_can_connect(
    run: Run, case: tuple[str, str], balanced: bool
) -> None:
    """As the engine would tell a run that makes the stack."""
    kind = case[0]

    def inputs(one: Registered) -> dict[str, Any]:
        """As the engine writes them: whole numbers are whole."""
        written = json.dumps(reveal(dict(one.inputs)), default=str)
        read: dict[str, Any] = json.loads(written, parse_float=lambda number: int(float(number)))
        return read

    steps = [
        Step(op="create", urn=one.urn, type=one.type, name=one.name, new=State(inputs=inputs(one)))
        for one in run.resources.values()
    ]
    found = infrastructure(kind, steps)
    assert [text.partition(" ")[0] for text in found.machines] == [m["name"] for m in machines(run)]
    visited = "the load balancer" if balanced else "the machines"
    if networks := stack_of(*case).get("adminCidrs"):
        assert f"Port 22 (SSH) of the machines opens to {' and '.join(sorted(networks))}." in found.openings
        assert f"Port 80 (HTTP) of {visited} opens to everybody." in found.openings
        assert not [text for text in found.openings if "Anybody on the Internet" in text]
    else:
        assert found.openings == ()
    assert clouds.changes(kind).title == SPECS[kind].title


def test_outputs_are_complete(run: Run, case: tuple[str, str]) -> None:
    cost = {"cost"} if clouds.specs()[case[0]].has_account else set()
    https = {"certificate", "savedCertificate"} if case[1] == "alone" else set()
    assert set(run.exports) == {"url", "release", "machines", "receipt", "ssh", "contents"} | cost | https
    assert all(export.known for export in run.exports.values())
    assert {name for name, export in run.exports.items() if export.secret} == {"ssh", "contents"} | (
        https - {"certificate"}
    )
    for machine in run.exports["machines"].value:
        assert set(machine) >= {"name", "address", "id"}
    for access in run.exports["ssh"].value:
        assert set(access) == {"name", "address", "port", "user", "host_key", "private_key", "setting"}


def test_every_component_registers_its_outputs(run: Run) -> None:
    assert {r.urn for r in run.resources.values() if not r.custom} == set(run.outputs)


# ------------------------------------------------------------------------------------------------ names and balancers


def test_the_url_leads_to_what_is_served(run: Run, balanced: bool) -> None:
    parts = urlsplit(run.exports["url"].value)
    assert parts.scheme in ("http", "https")
    assert (parts.path, parts.query, parts.username) == ("", "", None)
    served = {}
    for machine in machines(run):
        conf, settings = in_memory.provisioned(run, machine["name"])
        served[machine["name"]] = in_memory.server_names(conf)
        assert settings["name"] == served[machine["name"]][0], "what the machine's own probes ask for"
        if balanced:
            assert served[machine["name"]] == [parts.netloc]
            assert parts.netloc != machine["address"]
    assert any(parts.netloc in names for names in served.values())


def test_nginx_trusts_the_balancer_of_its_machine(run: Run, case: tuple[str, str], balanced: bool) -> None:
    proxied = balanced or "trustedProxies" in stack_of(*case)
    for machine in machines(run):
        conf, settings = in_memory.provisioned(run, machine["name"])
        networks = re.findall(r"set_real_ip_from (.*);", conf)
        assert bool(networks) == proxied
        assert not set(networks) & WORLD
        assert settings["drain_seconds"] == (base.DRAIN_SECONDS if proxied else 0)
        assert (f"location = {HEALTH_PATH} {{" in conf) == proxied


def balancer_check(run: Run) -> tuple[Registered, dict[str, Any]]:
    """The one health check that the cloud makes, and what it is part of."""
    found = [
        (one, value)
        for one in made(run)
        for key, value in one.inputs.items()
        if re.fullmatch(r"health_?check", key, re.IGNORECASE)
    ]
    assert len(found) == 1
    return found[0]


@only_unbalanced
def test_without_a_balancer_there_is_no_health_check(run: Run) -> None:
    assert run.resources
    assert not [r for r in made(run) if any(re.search("health_?check", key, re.IGNORECASE) for key in r.inputs)]


@only_balanced
def test_a_balancer_checks_as_machines_expect_it(run: Run) -> None:
    _, check = balancer_check(run)
    assert check["path"] == HEALTH_PATH
    assert str(check["protocol"]).lower() == "http"
    assert check.get("port") in (None, "traffic-port", "80", 80), "where visitors' requests go, too"
    numbers = {
        "interval": base.CHECK_INTERVAL, "timeout": base.CHECK_TIMEOUT, "unhealthy": base.CHECK_THRESHOLD,
        "healthy": base.CHECK_THRESHOLD,
    }  # fmt: skip
    given = {word: int(v) for k, v in check.items() if (word := next((w for w in numbers if w in k.lower()), None))}
    assert given == numbers, "none of them is left to the cloud's default"
    assert base.CHECK_THRESHOLD * base.CHECK_INTERVAL + base.CHECK_TIMEOUT <= base.DRAIN_SECONDS


def test_a_balancers_idle_time_out_is_set(run: Run, balanced: bool) -> None:
    """nginx keeps its connections for longer; a cloud's default may change."""
    idle = [int(v) for r in made(run) for key, v in r.inputs.items() if re.search(r"idle_?timeout", key, re.IGNORECASE)]
    assert idle == (
        [600 if run.of_type("LoadBalancer") and "digitalocean" in run.of_type("LoadBalancer")[0].type else 4000]
        if balanced
        else []
    )


# ------------------------------------------------------------------------------------------------ one cloud alone

PROGRAM = """
import json, sys, tempfile
from pathlib import Path
import pytest
from tests.support import in_memory
from tests.unit import test_conformance
kind, shape = sys.argv[1:]
folder = in_memory.project(Path(tempfile.mkdtemp()) / "project")
with pytest.MonkeyPatch.context() as patch:
    run = in_memory.run_program(folder, test_conformance.stack_of(kind, shape), patch)
print(json.dumps({
    "loaded": sorted({name.partition(".")[0] for name in sys.modules if name.startswith("pulumi_") and "." in name}),
    "used": sorted({"pulumi_" + r.type.partition(":")[0] for r in run.resources.values() if r.custom}),
}))
"""


@pytest.mark.parametrize("kind", SPECS)
def test_no_package_of_another_cloud_is_imported(kind: str, tmp_path: Path) -> None:
    """They take seconds, and each is one more that has to be installed."""
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, kind, variants(kind)[-1]]
    environment = {"PYTHONPATH": f"{REPOSITORY / 'infra'}:{REPOSITORY}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    environment |= {"TMPDIR": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert "pulumi_command" in seen["loaded"]
    assert set(seen["loaded"]) <= set(seen["used"]), "a package is imported of which nothing is used"


@pytest.mark.parametrize(
    ("code", "allowed"),
    [("import decant.settings.load", set()), ("import decant.clouds; decant.clouds.specs()", {"pulumi_command"})],
    ids=["settings", "specs"],
)
def test_settings_and_specs_import_no_package_of_a_cloud(code: str, allowed: set[str], tmp_path: Path) -> None:
    code += "; import sys; print([n for n in sys.modules if n.startswith('pulumi_') and '.' in n])"
    words = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(REPOSITORY / "infra"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    loaded = {name.partition(".")[0] for name in re.findall(r"'(\w+\.\w+)", done.stdout)}
    assert loaded == allowed


# `ssh` is the protocol's name, too.
NAMED = [name for name in SPECS if name != "ssh"]


@pytest.mark.parametrize("kind", NAMED)
def test_only_its_own_modules_name_a_cloud(kind: str) -> None:
    """So that a third cloud is one module, its doubles and the account behind them."""
    module = Path("infra/decant/clouds") / kind
    doubles, accounts = REPOSITORY / "rehearsal" / "doubles", REPOSITORY / "rehearsal" / "accounts"
    own_doubles = {*doubles.glob(f"{kind}.py"), *(doubles / kind).glob("*.py"), *accounts.glob(f"{kind}*.py")}
    own = {
        module.with_suffix(".py"),
        *(path.relative_to(REPOSITORY) for path in (REPOSITORY / module).glob("*.py")),
        *(path.relative_to(REPOSITORY) for path in own_doubles),
    }
    word = re.compile(rf"(?<![a-z0-9])({kind}|{re.escape(SPECS[kind].title)})(?![a-z0-9])", re.IGNORECASE)
    told = []
    for top in ("infra", "rehearsal"):
        for path in sorted((REPOSITORY / top).rglob("*")):
            name = path.relative_to(REPOSITORY)
            if not path.is_file() or "__pycache__" in path.parts or name in own:
                continue
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            told += [f"{name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if word.search(line)]
    assert not told, f"cloud {kind} is known outside its own modules ({', '.join(map(str, own))}):\n" + "\n".join(told)
    assert own_doubles
    assert {module.with_suffix(".py"), module / "__init__.py"} & {p for p in own if (REPOSITORY / p).is_file()}


def test_there_are_clouds() -> None:
    assert set(SPECS) >= {"digitalocean", "ssh"}
    assert all(hasattr(clouds._module(name), "create") for name in SPECS)
    assert set(STACKS) <= set(SPECS), "a stack of a cloud that does not exist"
