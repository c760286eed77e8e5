"""A stack that an earlier version made is upgraded by `pulumi up`: visitors notice nothing, and no step is replaced."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from tests.engine.test_fleet import Rented, on_aws, on_digitalocean
from tests.support.project_copy import REPOSITORY
from tests.support.pulumi_stack import STACK, Stack, get, missing
from tests.support.server import Server as Box
from tests.support.visitors import Visitors

BEFORE = "b39aa9057e15c726f951239171adb7d35e273a8f"  # the last commit with the old names of steps and components
RENAMED_STEPS = {"base": "provision", "room": "check-space", "leave": "drain"}
RENAMED_TYPES = {
    "decant:fleet:PreparedMachine": "decant:deploy:MachineSteps",
    "decant:fleet:Rollout": "decant:deploy:Rollout",
}
STEPS = ("ready", "own-key", "files", "provision", "updates", "check-space", "upload", "stage", "drain", "cleanup")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a stack's machines are, and what a stack must be told of it."""

    configure: Callable[[Stack], None]
    environment: Mapping[str, str]
    machines: tuple[str, ...]
    changed: Callable[[], list[str]]


@dataclass(frozen=True, kw_only=True)
class Site:
    """A stack that the old program made. `changed` is what is left on its server, if that is not the stack's own."""

    stack: Stack
    machines: tuple[str, ...]
    changed: Callable[[], list[str]]

    def host(self) -> str:
        """What visitors connect to."""
        return urlsplit(self.stack.outputs()["url"]).hostname or ""

    def resources(self) -> set[tuple[str, str]]:
        """The type and name of every resource in the state, components too."""
        found = json.loads(self.stack.export())["deployment"]["resources"]
        # The engine adds a provider of its own when the program asks for the stack's last outputs.
        own = "pulumi:providers:pulumi"
        return {(one["type"], one["urn"].rpartition("::")[2]) for one in found if one["type"] != own}


@contextlib.contextmanager
def on_a_server(network: Network) -> Iterator[Place]:
    """A host that exists already, and its stack."""
    private, public = key_pair()
    box = Box(network.boot("upgraded", flavour="bare", authorized_key=public.strip(), say=print))
    host = {"address": box.machine.address, "hostKey": box.machine.host_key or "", "name": "box"}

    def configure(stack: Stack) -> None:
        stack.set({"cloud": "ssh", **{f"hosts[0].{key}": value for key, value in host.items()}})
        stack.set_secret("sshPrivateKey", private)

    yield Place(configure=configure, environment={}, machines=("box",), changed=box.changed)


@contextlib.contextmanager
def two_behind_a_balancer(rented: AbstractContextManager[Rented]) -> Iterator[Place]:
    """Two machines of a cloud behind its balancer, so that they have a step for draining."""
    with rented as cloud:

        def configure(stack: Stack) -> None:
            stack.set({"machines": "2", "adminCidrs[0]": "10.0.0.0/8"})
            for name, value in cloud.settings.items():
                stack.pulumi("config", "set", name, value)
            if cloud.token:
                stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=cloud.token)

        yield Place(configure=configure, environment=cloud.environment, machines=("web-1", "web-2"), changed=list)


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the commit before, from this repository's own history."""
    found = subprocess.run(["git", "cat-file", "-e", f"{BEFORE}^{{commit}}"], cwd=REPOSITORY, check=False)
    if found.returncode != 0:
        pytest.skip(f"the history here does not reach back to {BEFORE[:7]} (git fetch --unshallow)")
    folder = tmp_path_factory.mktemp("before")
    archive = folder / "tree.tar"
    subprocess.run(["git", "archive", f"--output={archive}", BEFORE], cwd=REPOSITORY, check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "tree", filter="data")
    return folder / "tree"


@pytest.fixture(scope="module")
def new_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of this working tree, as `Stack.create` copies them."""
    return Stack.create(tmp_path_factory.mktemp("new")).project


@pytest.fixture(scope="module", params=["server", "digitalocean", pytest.param("aws", marks=pytest.mark.thorough)])
def site(
    request: pytest.FixtureRequest, network: Network, old_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A stack that the old program has made."""
    lacking = {"server": [], "digitalocean": missing("tls", "digitalocean"), "aws": missing("tls")}[request.param]
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    places = {
        "server": lambda: on_a_server(network),
        "digitalocean": lambda: two_behind_a_balancer(on_digitalocean(network)),
        "aws": lambda: two_behind_a_balancer(on_aws(network)),
    }
    with places[request.param]() as place:
        stack = Stack.create(tmp_path_factory.mktemp("upgraded"))
        # The virtual environment knows the new program: the old one must import its own modules first.
        stack.environment = {**place.environment, "PYTHONPATH": str(stack.project / "infra")}
        exchange_program(stack, old_tree)
        place.configure(stack)
        stack.set_secret("secrets.CANARY", "canary")
        stack.up()
        stack.environment = place.environment
        yield Site(stack=stack, machines=place.machines, changed=place.changed)


def exchange_program(stack: Stack, tree: Path) -> None:
    """Put the files of `tree` into the project. The stack's settings and its state stay."""
    kept = {f"Pulumi.{STACK}.yaml", ".venv", ".decant"}
    for path in stack.project.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(tree, stack.project, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*kept))


def new_name(machines: tuple[str, ...], name: str) -> str:
    """The name that a resource has from now on."""
    machine, _, step = name.rpartition("-")
    return f"{machine}-{RENAMED_STEPS.get(step, step)}" if machine in machines else name


def test_an_upgrade_renames_steps_without_replacing_any_and_visitors_notice_nothing(site: Site, new_tree: Path) -> None:
    before = site.resources()
    assert ("command:remote:Command", f"{site.machines[0]}-base") in before, "the old program made this stack"
    exchange_program(site.stack, new_tree)
    with Visitors(site.host()) as visitors:
        ran = site.stack.up()
        visitors.more()
    print(f"{visitors.answers} answers, {len(visitors.failures)} failures\n{ran.operations}")
    assert visitors.failures == []
    assert visitors.answers > 100
    # A machine of a cloud makes a host key of its own.
    made = {("command:local:Command", f"{name}-own-key") for name in site.machines if name != "box"}
    new = {name for name, done in ran.operations.items() if done == "created"}
    assert new == {f"Command {name}" for _, name in made}, ran.said
    # What a step runs or copies may have changed since, the balancer's time-outs, the network's description, and how a
    # droplet is deleted or resized. The cloud's other resources stay as they are.
    assert set(ran.operations.values()) <= {"updated", "created"}, ran.said
    steps = {f"{machine}-{step}" for machine in site.machines for step in STEPS}
    steps |= {"rollout", "balancer", "network", *site.machines}
    assert {name.partition(" ")[2] for name in ran.operations} <= steps, ran.said
    renamed = {(RENAMED_TYPES.get(t, t), new_name(site.machines, name)) for t, name in before}
    assert site.resources() == renamed | made
    answer = get(site.stack.outputs()["url"])
    assert (answer.status, answer.release) == (200, site.stack.outputs()["release"])


def test_after_an_upgrade_another_up_changes_nothing(site: Site) -> None:
    assert site.stack.up().counts.keys() == {"unchanged"}


def test_after_an_upgrade_destroy_leaves_nothing_behind(site: Site) -> None:
    site.stack.destroy()
    changed = site.changed()
    assert not changed, "\n".join(changed)
    assert site.stack.resources() == {}
