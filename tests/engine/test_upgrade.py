"""A stack that an earlier version made is upgraded by `pulumi up`: visitors notice nothing, and no step is replaced."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from rehearsal.doubles import key_pair
from rehearsal.machines import Network
from tests.engine.box import Box
from tests.engine.project import REPOSITORY, STACK, Stack
from tests.hosts.harness import Visitors

BEFORE = "b39aa9057e15c726f951239171adb7d35e273a8f"  # the last commit with the old names of steps and components
RENAMED = {"box-base": "box-provision", "box-room": "box-check-space"}
RENAMED_TYPES = {
    "decant:fleet:PreparedMachine": "decant:deploy:MachineSteps",
    "decant:fleet:Rollout": "decant:deploy:Rollout",
}
# What every step runs or copies may have changed since. These steps may run again; the others stay as they are.
MAY_RUN_AGAIN = {
    "Command box-cleanup",
    "Command box-ready",
    "CopyToRemote box-files",
    "Command box-provision",
    "Command box-updates",
    "Command box-check-space",
    "CopyToRemote box-upload",
    "Command box-stage",
    "Command rollout",
}


@pytest.fixture(scope="module")
def login() -> tuple[str, str]:
    """A key pair: private, public."""
    return key_pair()


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
def box(network: Network, login: tuple[str, str], old_tree: Path) -> Box:
    return Box(network.boot("box", flavour="bare", authorized_key=login[1].strip(), say=print))


@pytest.fixture(scope="module")
def stack(box: Box, login: tuple[str, str], old_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The stack as the old program made it."""
    folder = tmp_path_factory.mktemp("upgraded")
    stack = Stack.create(folder)
    # The virtual environment knows the new program: the old one must import its own modules first.
    stack.environment = {"PYTHONPATH": str(stack.project / "infra")}
    exchange_program(stack, old_tree)
    host = {"address": box.machine.address, "hostKey": box.machine.host_key or "", "name": "box"}
    stack.set({"cloud": "ssh", **{f"hosts[0].{key}": value for key, value in host.items()}})
    stack.set_secret("sshPrivateKey", login[0])
    stack.set_secret("secrets.CANARY", "canary")
    stack.up()
    return stack


def exchange_program(stack: Stack, tree: Path) -> None:
    """Put the files of `tree` into the project. The stack's settings and its state stay."""
    kept = {f"Pulumi.{STACK}.yaml", ".venv", ".decant"}
    for path in stack.project.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(tree, stack.project, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*kept))


def types_and_names(stack: Stack) -> set[tuple[str, str]]:
    """The type and name of every resource in the state, components too."""
    found = json.loads(stack.export())["deployment"]["resources"]
    return {(one["type"], one["urn"].rpartition("::")[2]) for one in found}


@pytest.fixture(scope="module")
def new_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of this working tree, as `Stack.create` copies them."""
    return Stack.create(tmp_path_factory.mktemp("new")).project


def test_an_upgrade_renames_steps_without_replacing_any_and_visitors_notice_nothing(
    stack: Stack, box: Box, new_tree: Path
) -> None:
    before = types_and_names(stack)
    assert ("command:remote:Command", "box-base") in before, "the old program made this stack"
    exchange_program(stack, new_tree)
    stack.environment = {}
    with Visitors(box.machine.address) as visitors:
        ran = stack.up()
        visitors.more()
    assert visitors.failures == []
    assert visitors.answers > 100
    assert ran.counts.keys() <= {"updated", "unchanged"}, ran.said
    assert set(ran.operations.values()) == {"updated"}, ran.said
    assert ran.operations.keys() <= MAY_RUN_AGAIN
    assert types_and_names(stack) == {(RENAMED_TYPES.get(t, t), RENAMED.get(name, name)) for t, name in before}
    assert box.release == stack.outputs()["release"]


def test_after_an_upgrade_another_up_changes_nothing(stack: Stack, box: Box) -> None:
    connections, serving = box.knocks(), box.serving()
    assert stack.up().counts.keys() == {"unchanged"}
    assert (box.knocks(), box.serving()) == (connections, serving)


def test_after_an_upgrade_destroy_leaves_the_server_as_it_was(stack: Stack, box: Box) -> None:
    stack.destroy()
    changed = box.changed()
    assert not changed, "\n".join(changed)
    assert stack.resources() == {}
