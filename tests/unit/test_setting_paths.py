"""The paths of hosts in the settings: exact in error texts, and no input of any step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decant.ssh import setting_paths
from rehearsal.doubles import key_pair
from tests.support import in_memory
from tests.support.in_memory import DROPLET, HOST, Run, project

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

KEYS = {name: key_pair()[1].strip() for name in ("ant", "bee", "cat")}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Run the program in `tmp_path`, and stay in its folder."""

    def run(config: dict[str, Any], **more: Any) -> Run:
        folder = tmp_path / "project"
        return in_memory.run_program(folder if folder.exists() else project(folder), {**config, **more}, monkeypatch)

    return run


def hosts(*names: str) -> list[dict[str, str]]:
    return [{"address": f"{name}.example.com", "hostKey": KEYS[name], "name": name} for name in names]


def test_a_host_is_found_at_its_place_in_the_users_list(start: Callable[..., Run]) -> None:
    run = start(HOST, hosts=hosts("cat", "ant", "bee"))
    accesses = [json.loads(run.text(f"Command {name}-ready", "stdin")) for name in ("ant", "bee", "cat")]
    assert [access["setting"] for access in accesses] == ["decant:hosts[ant]", "decant:hosts[bee]", "decant:hosts[cat]"]
    exact = [setting_paths.exact(access["setting"], access["host_key"]) for access in accesses]
    assert exact == ["decant:hosts[1]", "decant:hosts[2]", "decant:hosts[0]"]


def test_another_order_of_the_list_gives_other_paths_and_the_same_inputs(start: Callable[..., Run]) -> None:
    def inputs(run: Run) -> dict[str, Any]:
        return {urn: one.inputs for urn, one in run.resources.items()}

    before = inputs(start(HOST, hosts=hosts("ant", "bee")))
    assert setting_paths.exact("decant:hosts[bee]", KEYS["bee"]) == "decant:hosts[1]"
    assert inputs(start(HOST, hosts=hosts("bee", "ant"))) == before
    assert setting_paths.exact("decant:hosts[bee]", KEYS["bee"]) == "decant:hosts[0]"


def test_a_host_that_the_file_does_not_have_keeps_its_name(
    start: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a host of another stack, whose program ran in between: a wrong number would change another host."""
    start(HOST, hosts=hosts("ant"))
    assert setting_paths.exact("decant:hosts[bee]", KEYS["bee"]) == "decant:hosts[bee]"
    monkeypatch.chdir(tmp_path)
    assert setting_paths.exact("decant:hosts[ant]", KEYS["ant"]) == "decant:hosts[ant]"


def test_machines_of_clouds_have_no_settings_of_their_own(start: Callable[..., Run]) -> None:
    run = start(DROPLET)
    assert json.loads(run.text("Command web-1-ready", "stdin"))["setting"] is None
    assert not setting_paths.FILE.exists()
    assert setting_paths.exact(None, "ssh-ed25519 AAAA") is None


def test_the_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps read it while another run of the program may write it."""
    monkeypatch.setattr(setting_paths, "FILE", tmp_path / "setting-paths.json")
    for place in ("0", "1"):
        setting_paths.write({"key": place})
        assert [path.name for path in tmp_path.iterdir()] == ["setting-paths.json"]
        assert setting_paths.exact("decant:hosts[a]", "key") == place
