"""A state that does not fit the account: what is gone leaves it, and leaves no trace in what depended on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from decant import clouds
from decant.cli import destroy
from decant.cli.account import Account, _remove, check_owner, forget_gone
from decant.cli.pulumi_cli import PulumiCli
from decant.clouds.inventory import Kept, Left, StackInAccount
from decant.errors import CloudApiError, StackError


def test_what_is_gone_leaves_the_state_and_what_depended_on_it_stays() -> None:
    step = {
        "urn": "step",
        "dependencies": ["tag", "droplet"],
        "propertyDependencies": {"connection": ["droplet", "key"], "stdin": None},
        "deletedWith": "droplet",
    }
    other = {"urn": "other", "dependencies": ["tag"], "deletedWith": "tag"}
    deployment = {"resources": [{"urn": "droplet", "id": "1"}, {"urn": "tag"}, step, other]}
    _remove(deployment, {("droplet", "1")})
    assert deployment["resources"] == [
        {"urn": "tag", "dependencies": [], "propertyDependencies": {}},
        {
            "urn": "step",
            "dependencies": ["tag"],
            "propertyDependencies": {"connection": ["key"], "stdin": []},
        },
        {"urn": "other", "dependencies": ["tag"], "propertyDependencies": {}, "deletedWith": "tag"},
    ]


@pytest.mark.parametrize(("gone", "left", "needed"), [("old", "new", ["droplet"]), ("new", "old", [])])
def test_a_replacement_that_was_cut_short_loses_only_what_is_gone(gone: str, left: str, needed: list[str]) -> None:
    """The old one is still to be deleted, and has the same URN. Pulumi refuses a state whose URNs come too late."""
    step = {"urn": "step", "dependencies": ["droplet"], "deletedWith": "droplet"}
    old_step = {"urn": "step", "delete": True, "dependencies": ["droplet"]}
    new, old = {"urn": "droplet", "id": "new"}, {"urn": "droplet", "id": "old", "delete": True}
    deployment: dict[str, Any] = {"resources": [new, step, old, old_step]}
    _remove(deployment, {("droplet", gone)})
    after = deployment["resources"]
    assert [(one["urn"], one.get("id")) for one in after if one["urn"] == "droplet"] == [("droplet", left)]
    assert [one["dependencies"] for one in after if one["urn"] == "step"] == [needed, ["droplet"]]
    assert [one.get("deletedWith") for one in after if one["urn"] == "step"] == [needed[0] if needed else None, None]


def test_a_state_without_resources_stays_empty() -> None:
    deployment: dict[str, object] = {}
    _remove(deployment, {("droplet", "1")})
    assert deployment == {"resources": []}


# ------------------------------------------------------------------------------------------------ another account


class Cli(PulumiCli):
    """A CLI with a state."""

    def __init__(self, *resources: dict[str, Any]) -> None:
        super().__init__("pulumi")
        self.state: dict[str, Any] = {"deployment": {"resources": list(resources)}}

    def export_state(self, stack: str) -> dict[str, Any]:
        copied: dict[str, Any] = json.loads(json.dumps(self.state))
        return copied

    def import_state(self, stack: str, state: Any) -> None:
        self.state = state


NEW = {"urn": "a::web-1", "id": "new", "type": "digitalocean:index/droplet:Droplet"}
OLD = {**NEW, "id": "old", "delete": True}


def account(*resources: dict[str, Any], **environ: str) -> Account:
    stack = StackInAccount(project="decant", stack="dev", provider={}, environ=environ, resources=resources)
    return Account("digitalocean", stack)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set what the account says, one answer after another."""
    monkeypatch.setattr("decant.cli.account.time.sleep", lambda seconds: None)
    monkeypatch.setattr(clouds, "gone", lambda *account: [("a::web-1", "old")])

    def answers(*said: str | CloudApiError) -> None:
        left = list(said)

        def ask(*_: Any) -> str:
            answer = left.pop(0)
            if isinstance(answer, CloudApiError):
                raise answer
            return answer

        monkeypatch.setattr(clouds, "foreign", ask)

    return answers


def test_only_the_entry_that_is_gone_is_forgotten(foreign: Callable[..., None]) -> None:
    foreign("")
    cli = Cli(NEW, OLD)
    forget_gone(cli, account(NEW, OLD))
    assert [one["id"] for one in cli.state["deployment"]["resources"]] == ["new"]


def test_only_the_entry_that_is_kept_is_marked() -> None:
    cli = Cli(NEW, OLD)
    destroy._retain(cli, "dev", [Kept(entry=("a::web-1", "old"), why="")])
    assert [one.get("retainOnDelete") for one in cli.state["deployment"]["resources"]] == [None, True]


def test_credentials_of_another_account_change_nothing(foreign: Callable[..., None]) -> None:
    foreign("it has nothing", "it has nothing")
    cli = Cli(NEW, OLD)
    with pytest.raises(StackError) as told:
        forget_gone(cli, account(NEW, OLD))
    assert str(told.value) == (
        "These credentials seem to be of another account than that of stack dev: it has nothing. Nothing was changed.\n"
        "  Set the right ones. Whose these are: make check-account STACK=dev\n"
        "  If all of the stack was deleted by hand, run the command again with this in front of it:"
        " DECANT_ANY_ACCOUNT=yes"
    )
    assert cli.state["deployment"]["resources"] == [NEW, OLD]


def test_a_cloud_that_cannot_be_asked_changes_nothing(foreign: Callable[..., None]) -> None:
    foreign(CloudApiError("Unable to authenticate you", status=401, code="x"))
    with pytest.raises(StackError, match=r"could not be asked .*: Unable to authenticate you\n .*make check-account"):
        forget_gone(Cli(NEW), account(NEW))


def test_an_account_that_lags_behind_is_asked_twice(foreign: Callable[..., None]) -> None:
    foreign("it has nothing", "")
    check_owner(account(NEW))


@pytest.mark.parametrize("asked", [account(NEW, DECANT_ANY_ACCOUNT="yes"), account({"urn": "a::cloud"}), account()])
def test_nobody_asks_where_the_user_says_so_or_there_is_nothing(foreign: Callable[..., None], asked: Account) -> None:
    foreign()
    check_owner(asked)


# ------------------------------------------------------------------------------------------------ what is left


def left(what: str, *, ours: bool) -> Left:
    return Left(what=what, command=f"delete {what}", ours=ours)


def test_only_what_is_the_stacks_own_is_to_be_deleted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clouds, "left", lambda *account: [left("theirs\x1b", ours=False), left("mine\x1b", ours=True)])
    monkeypatch.setattr(destroy, "PATIENCE", 0)
    with pytest.raises(StackError) as told:
        destroy._report(account(NEW), [])
    assert str(told.value) == (
        "DigitalOcean still has this of stack dev, which Pulumi does not know. It may cost money. Delete it in this"
        " order:\n  mine\\x1b\n      delete mine\\x1b"
    )
    assert capsys.readouterr().out == (
        "\nDigitalOcean has this with the name or the tags of a stack dev. If another state has it, such as a"
        " colleague's (docs/state.md), it is in use: leave it alone. Else it is left over, and may cost money:\n"
        "  theirs\\x1b\n      delete theirs\\x1b\n"
    )


def test_what_others_have_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clouds, "left", lambda *account: [left("theirs", ours=False)])
    monkeypatch.setattr("decant.cli.destroy.time.sleep", lambda seconds: pytest.fail("it waits"))
    destroy._report(account(NEW), [])
    assert capsys.readouterr().out.endswith("\nNothing of stack dev is left at DigitalOcean but the above.\n")


def test_a_colleagues_droplet_does_not_become_the_stacks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [replace(left(name, ours=name == "mine"), type="droplet", id=name) for name in ("mine", "theirs")]
    monkeypatch.setattr(clouds, "left", lambda *account: both)
    assert destroy._with_lost(account(NEW)).stack.resources == [NEW, {"type": "droplet", "id": "mine"}]
