"""Several servers of one's own under the real `pulumi`: each test goes on where the one before ended."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from decant.ssh.keys import fingerprint
from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from tests.support.pulumi_stack import STACK, Stack, get
from tests.support.server import Server

PAGE = "app/hello/templates/index.html"
NAMES = ("ant", "bee", "cat")
RELEASE_STEPS = {"Command {}-check-space", "CopyToRemote {}-upload", "Command {}-stage"}
PREPARED = {"Command {}-ready", "CopyToRemote {}-files", "Command {}-provision", "Command {}-updates"}
STEPS = {"Command {}-cleanup", *PREPARED, *RELEASE_STEPS}


def of(steps: set[str], *names: str) -> set[str]:
    """The resources behind these steps of these hosts."""
    return {step.format(name) for step in steps for name in names}


@pytest.fixture(scope="module")
def login() -> tuple[str, str]:
    """A key pair: private, public."""
    return key_pair()


@pytest.fixture(scope="module")
def boxes(network: Network, login: tuple[str, str]) -> dict[str, Server]:
    def boot(name: str) -> Server:
        return Server(network.boot(name, flavour="bare", authorized_key=login[1].strip(), say=print))

    with ThreadPoolExecutor(len(NAMES)) as pool:
        return dict(zip(NAMES, pool.map(boot, NAMES), strict=True))


@pytest.fixture(scope="module")
def stack(boxes: dict[str, Server], login: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    stack = Stack.create(tmp_path_factory.mktemp("boxes"))
    stack.set({"cloud": "ssh"})
    stack.set_secret("sshPrivateKey", login[0])
    set_hosts(stack, boxes, NAMES)
    return stack


def set_hosts(stack: Stack, boxes: dict[str, Server], names: Sequence[str]) -> None:
    """These hosts, in this order."""
    if "decant:hosts:" in (stack.project / f"Pulumi.{STACK}.yaml").read_text():
        stack.unset("hosts")
    settings: dict[str, str] = {}
    for place, name in enumerate(names):
        machine = boxes[name].machine
        known = {"address": machine.address, "hostKey": machine.host_key or "", "name": name}
        settings |= {f"hosts[{place}].{key}": value for key, value in known.items()}
    stack.set(settings)


def watched(boxes: dict[str, Server], names: Sequence[str]) -> dict[str, tuple[frozenset[str], int]]:
    """Who serves on these hosts and since when, and how often somebody came to log in."""
    return {name: (boxes[name].serving(), boxes[name].ssh_connections()) for name in names}


def test_the_first_up_puts_all_of_them_live(stack: Stack, boxes: dict[str, Server]) -> None:
    ran = stack.up()
    assert ran.operations == dict.fromkeys(of(STEPS, *NAMES) | {"Command rollout"}, "created")
    outputs = stack.outputs()
    assert [machine["name"] for machine in outputs["machines"]] == list(NAMES)
    assert {box.release for box in boxes.values()} == {outputs["release"]}
    assert outputs["url"] == boxes["ant"].url
    assert "no decant:url" in ran.said


def test_another_order_of_the_list_changes_nothing(stack: Stack, boxes: dict[str, Server]) -> None:
    before = watched(boxes, NAMES)
    assert all(serving for serving, _ in before.values())
    set_hosts(stack, boxes, ("cat", "ant", "bee"))
    assert stack.up().counts.keys() == {"unchanged"}
    assert watched(boxes, NAMES) == before


def test_the_first_of_the_list_goes_without_the_others_noticing(stack: Stack, boxes: dict[str, Server]) -> None:
    before = {name: boxes[name].serving() for name in ("ant", "bee")}
    set_hosts(stack, boxes, ("ant", "bee"))
    ran = stack.up()
    assert ran.operations == dict.fromkeys(of(STEPS, "cat"), "deleted") | {"Command rollout": "updated"}
    assert {name: boxes[name].serving() for name in ("ant", "bee")} == before
    assert boxes["cat"].changed() == []
    assert [machine["name"] for machine in stack.outputs()["machines"]] == ["ant", "bee"]


def test_a_host_that_joins_touches_no_other(stack: Stack, boxes: dict[str, Server]) -> None:
    before = {name: boxes[name].serving() for name in ("ant", "bee")}
    set_hosts(stack, boxes, ("cat", "bee", "ant"))
    ran = stack.up()
    assert ran.operations == dict.fromkeys(of(STEPS, "cat"), "created") | {"Command rollout": "updated"}
    assert {name: boxes[name].serving() for name in ("ant", "bee")} == before
    assert boxes["cat"].release == boxes["ant"].release


def test_a_broken_release_stays_off_all_of_them(stack: Stack, boxes: dict[str, Server]) -> None:
    before = {name: box.serving() for name, box in boxes.items()}
    fault = "import no_such_module"
    stack.edit("app/wsgi.py", "from hello import", f"{fault}\nfrom hello import")
    ran = stack.up(fails=True)
    assert "the module no_such_module is not there" in ran.said
    assert "Command rollout" not in ran.operations
    assert {name: box.serving() for name, box in boxes.items()} == before
    stack.edit("app/wsgi.py", f"{fault}\n", "")
    assert stack.up().operations.keys() <= of(RELEASE_STEPS, *NAMES) | {"Command rollout"}


def test_a_reinstalled_host_is_refused_by_its_key_and_then_prepared_anew(
    stack: Stack, boxes: dict[str, Server], network: Network, login: tuple[str, str]
) -> None:
    old = boxes["bee"].machine
    old.power_off()
    shutil.rmtree(old.dir)  # its disk
    new = network.boot("bee", flavour="bare", authorized_key=login[1].strip(), address=old.address, say=print)
    boxes["bee"] = Server(new)
    assert (new.address, old.host_key) != (old.address, new.host_key)
    others = ("ant", "cat")
    live = boxes["ant"].release
    before = {name: boxes[name].serving() for name in others}
    stack.edit(PAGE, "<main>", "<main><!-- edited -->")
    ran = stack.up(fails=True)
    assert "Command rollout" not in ran.operations
    assert ran.operations["Command bee-check-space"] == "failed"
    assert {boxes[name].release for name in others} == {live}
    assert all(before[name] <= boxes[name].serving() for name in others), "the new release waits beside the old one"
    assert boxes["bee"].changed() == []
    set_hosts(stack, boxes, NAMES)
    ran = stack.up()
    prepared = of(STEPS - {"Command {}-cleanup"}, "bee")
    assert (
        prepared
        <= ran.operations.keys()
        <= prepared
        | of(RELEASE_STEPS, *others)
        | {
            "Command bee-cleanup",
            "Command rollout",
        }
    )
    assert {box.release for box in boxes.values()} == {stack.outputs()["release"]} != {live}
    assert stack.outputs()["machines"][1]["id"] == fingerprint(new.host_key or "")
    assert stack.up().counts.keys() == {"unchanged"}


def test_a_dead_host_is_let_go_while_the_others_stay(stack: Stack, boxes: dict[str, Server]) -> None:
    boxes["bee"].machine.power_off()
    others = ("ant", "cat")
    before = {name: boxes[name].serving() for name in others}
    set_hosts(stack, boxes, others)
    ran = stack.up(fails=True)
    assert ran.operations["Command bee-cleanup"] == "failed"
    assert ran.operations["Command rollout"] == "updated", "the others are live without it first"
    stack.forget("bee")
    done = stack.make("up")
    assert done.returncode == 0, done.stdout
    assert {name: boxes[name].serving() for name in others} == before
    assert [machine["name"] for machine in stack.outputs()["machines"]] == ["ant", "cat"]


def test_destroy_cleans_reachable_hosts_and_names_the_commands_for_others(
    stack: Stack, boxes: dict[str, Server]
) -> None:
    boxes["cat"].machine.power_off()
    done = stack.make("destroy")
    assert done.returncode != 0, done.stdout
    commands = re.findall(r"^ *(pulumi state delete .*)", done.stdout, re.MULTILINE)
    assert len(commands) == 1, done.stdout
    assert "cat-cleanup" in commands[0]
    gone = subprocess.run(**stack.process("sh", "-c", commands[0]), check=False)
    assert gone.returncode == 0, gone.stdout
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    assert stack.resources() == {}
    assert boxes["ant"].changed() == []
    assert get(boxes["ant"].url).status == 0
