"""What a killed command has left half done: what of it is taken up, forgotten, or left for a person."""

from __future__ import annotations

import copy
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import pytest

from decant import clouds
from decant.cli import pending
from decant.cli.pending import explain_pending, settle
from decant.cli.pulumi_cli import PulumiCli
from decant.clouds.inventory import StackInAccount
from decant.clouds.lost import NOTHING, Lost
from decant.errors import CloudApiError, StackError

URN = "urn:pulumi:dev::decant::{}::{}"
DROPLET = "digitalocean:index/droplet:Droplet"
FIREWALL = "digitalocean:index/firewall:Firewall"
TAG = {"urn": URN.format("digitalocean:index/tag:Tag", "tag"), "type": "digitalocean:index/tag:Tag", "id": "t"}


def resource(kind: str, label: str, **inputs: Any) -> dict[str, Any]:
    return {"urn": URN.format(kind, label), "type": kind, "custom": True, "inputs": inputs}


def operation(of: Mapping[str, Any], kind: str = "creating") -> dict[str, Any]:
    return {"type": kind, "resource": dict(of)}


class Cli(PulumiCli):
    """A stack on DigitalOcean with this state; `imported` is the one that it gets, `asked` what is run."""

    def __init__(self, *operations: dict[str, Any], resources: tuple[dict[str, Any], ...] = (TAG,)) -> None:
        self.state = {"deployment": {"resources": list(resources), "pending_operations": list(operations)}}
        self.config: dict[str, Any] = {"decant:cloud": "digitalocean"}
        self.imported: dict[str, Any] | None = None
        self.asked: list[tuple[str, ...]] = []
        self.status = 0

    def export_state(self, stack: str) -> dict[str, Any]:
        return copy.deepcopy(self.state)

    def import_state(self, stack: str, state: Mapping[str, Any]) -> None:
        self.imported = dict(state["deployment"])

    def settings(self, stack: str) -> dict[str, Any]:
        return self.config

    def capture(self, *argv: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(argv)
        return subprocess.CompletedProcess(argv, self.status, "", "no such droplet")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> dict[str, Lost | Exception]:
    """What the cloud has, by the name of the resource; nothing of all others."""
    found: dict[str, Lost | Exception] = {}

    def find(cloud: str, account: StackInAccount, wanted: Mapping[str, Any]) -> Lost:
        assert cloud == "digitalocean"
        answer = found.get(wanted["urn"].rpartition("::")[2], NOTHING)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(clouds, "find_lost", find)
    monkeypatch.setattr(pending, "SECOND_LOOK", 0.0)
    return found


def test_a_list_that_lags_behind_is_read_twice(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        there["web-1"] = Lost(id="77")

    monkeypatch.setattr(time, "sleep", sleep)
    cli = Cli(operation(resource(DROPLET, "web-1")))
    settle(cli, "dev")
    assert cli.imported
    assert [one["id"] for one in cli.imported["resources"]] == ["t", "77"]
    assert waited == [0.0]


@pytest.mark.parametrize("kinds", [(), ("updating", "deleting", "reading")])
def test_what_pulumi_forgets_by_itself_is_left_to_it(there: Any, kinds: tuple[str, ...]) -> None:
    cli = Cli(*(operation(resource(DROPLET, "web-1"), kind) for kind in kinds))
    settle(cli, "dev")
    assert cli.imported is None


def test_what_was_not_made_is_forgotten(there: Any, capsys: pytest.CaptureFixture[str]) -> None:
    update = operation(resource(FIREWALL, "firewall"), "updating")
    cli = Cli(operation(resource(DROPLET, "web-1")), update)
    settle(cli, "dev")
    assert cli.imported == {"resources": [TAG], "pending_operations": []}
    assert cli.asked == []
    assert capsys.readouterr() == ("", "")


def test_what_was_made_is_taken_up_and_read(there: Any, capsys: pytest.CaptureFixture[str]) -> None:
    there["web-1"] = Lost(id="77")
    droplet = resource(DROPLET, "web-1", name="web-1-0a1b2c3")
    cli = Cli(operation(droplet))
    settle(cli, "dev")
    taken_up = {**droplet, "id": "77", "outputs": {"name": "web-1-0a1b2c3"}}
    assert cli.imported == {"resources": [TAG, taken_up], "pending_operations": []}
    assert cli.asked == [("refresh", "--yes", "--skip-preview", "--stack", "dev", "--target", droplet["urn"])]
    assert capsys.readouterr().out == (
        "Made by the command before, which was killed, and taken up into the state: Droplet web-1\n"
    )


def test_what_cannot_be_read_is_an_error(there: Any) -> None:
    there["web-1"] = Lost(id="77")
    cli = Cli(operation(resource(DROPLET, "web-1")))
    cli.status = 1
    with pytest.raises(StackError, match=r"Pulumi cannot read what it has taken up \(Droplet web-1\): no such droplet"):
        settle(cli, "dev")


def test_what_is_unclear_is_told_with_the_commands(there: Any, capsys: pytest.CaptureFixture[str]) -> None:
    there["web-1"] = Lost(unclear="more than one fits: 7, 8")
    unclear = operation(resource(DROPLET, "web-1"))
    cli = Cli(unclear, operation(resource(FIREWALL, "firewall")))
    settle(cli, "dev")
    assert cli.imported == {"resources": [TAG], "pending_operations": []}
    assert capsys.readouterr().err == (
        "Pulumi was killed while it made this, and whether it exists is not known:\n"
        "  Droplet web-1: more than one fits: 7, 8\n"
        "  The next `make up` makes it in any case. Delete what is left over: nothing will name it again.\n"
    )


def test_a_cloud_that_cannot_be_asked_settles_nothing_of_its_own(
    there: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    there["web-1"] = CloudApiError("no answer")
    cli = Cli(operation(resource(DROPLET, "web-1")))
    settle(cli, "dev")
    assert "Droplet web-1: DigitalOcean could not be asked: no answer" in capsys.readouterr().err


def test_what_was_made_twice_is_told(there: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """An `up` that ran in between has made another one."""
    there["web-1"] = Lost(id="77")
    droplet = resource(DROPLET, "web-1")
    cli = Cli(operation(droplet), resources=(TAG, {**droplet, "id": "78"}))
    settle(cli, "dev")
    assert cli.imported
    assert [one["id"] for one in cli.imported["resources"]] == ["t", "78"]
    assert "it exists with the id 77, beside the one that the stack has by now" in capsys.readouterr().err


def test_what_the_state_has_is_nothing_to_tell(there: Any, capsys: pytest.CaptureFixture[str]) -> None:
    there["web-1"] = Lost(id="77")
    droplet = resource(DROPLET, "web-1")
    cli = Cli(operation(droplet), resources=(TAG, {**droplet, "id": "77"}))
    settle(cli, "dev")
    assert cli.imported
    assert cli.imported["pending_operations"] == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("cloud", ["digitalocean", "ssh"])
def test_steps_and_keys_are_made_again(there: Any, cloud: str) -> None:
    there["web-1-stage"] = there["login-key"] = AssertionError("no cloud has these")
    cli = Cli(
        operation(resource("command:remote:Command", "web-1-stage")),
        operation(resource("tls:index/privateKey:PrivateKey", "login-key")),
    )
    cli.config = {"decant:cloud": cloud}
    settle(cli, "dev")
    assert cli.imported == {"resources": [TAG], "pending_operations": []}


def test_a_failure_after_a_kill_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    explain_pending(Cli(operation(resource(DROPLET, "web-1")), operation(resource(FIREWALL, "f"), "updating")), "dev")
    assert capsys.readouterr().err == (
        "\nA command before this one was killed while it made: Droplet web-1\n"
        "If the cloud says above that something exists already, this takes up what is surely the stack's; then try"
        " again:\n"
        "    make unlock STACK=dev\n"
    )


def test_another_failure_says_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    explain_pending(Cli(operation(resource(FIREWALL, "f"), "updating")), "dev")
    assert capsys.readouterr() == ("", "")
