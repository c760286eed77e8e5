"""`make ssh-open` and `make ssh-close`: who is let in, for how long, and what is taken away again."""

from __future__ import annotations

import getpass
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from decant import clouds
from decant.ci.runs import Run
from decant.cli import opening_later, runner_access
from decant.cli.account import Account
from decant.cli.opening_later import opened_when_possible
from decant.cli.pulumi_cli import PulumiCli
from decant.cli.runner_access import close_all, noted, run_name, ssh_close, ssh_open
from decant.clouds.inventory import StackInAccount
from decant.clouds.runner_access import Opening
from decant.errors import CloudApiError, ForgeError, StackError

CI = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "17321", "GITHUB_RUN_ATTEMPT": "2", "ADDRESS": "198.41.0.4"}
RUN = "github-17321-2"
NOW = datetime.now(UTC).replace(microsecond=0)
TAG = {"urn": "urn:pulumi:dev::decant::digitalocean:index/tag:Tag::tag", "type": "digitalocean:index/tag:Tag",
       "id": "t", "outputs": {"name": "t"}}  # fmt: skip


class Cloud:
    """DigitalOcean as this stack sees it, in memory."""

    def __init__(self) -> None:
        self.openings: list[Opening] = []
        self.refuses = ""

    def open_to(self, cloud: str, account: StackInAccount, *, run: str, network: str, until: datetime) -> bool:
        if self.refuses:
            raise CloudApiError(self.refuses)
        self.openings.append(Opening(id=str(len(self.openings)), network=network, run=run, until=until))
        return True

    def close(self, cloud: str, account: StackInAccount, opening: Opening) -> None:
        if self.refuses:
            raise CloudApiError(self.refuses)
        self.openings.remove(opening)

    @property
    def runs(self) -> list[str]:
        return [one.run for one in self.openings]


class Cli(PulumiCli):
    """A stack that is live on DigitalOcean."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {"decant:cloud": "digitalocean", "decant:adminCidrs": '["10.0.0.0/8"]'}
        self.state: list[dict[str, Any]] = [TAG]
        self.machines: list[dict[str, str]] = []

    def settings(self, stack: str) -> dict[str, Any]:
        return self.config

    def resources(self, stack: str) -> list[dict[str, Any]]:
        return self.state

    def outputs(self, stack: str) -> dict[str, Any]:
        return {"machines": self.machines}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    made = Cloud()
    monkeypatch.setattr(clouds, "openings", lambda *_: list(made.openings))
    monkeypatch.setattr(clouds, "open_to", made.open_to)
    monkeypatch.setattr(clouds, "close", made.close)
    monkeypatch.setattr(runner_access, "PROJECT", tmp_path)
    monkeypatch.setattr(runner_access, "INTERVAL", 0.01)
    return made


@pytest.fixture
def cli() -> Cli:
    return Cli()


def a_rule(run: str, minutes: int) -> Opening:
    return Opening(id=run, network="199.7.83.42/32", run=run, until=datetime.now(UTC) + timedelta(minutes=minutes))


# ------------------------------------------------------------------------------------------------ open


def test_this_run_alone_is_let_in_for_an_hour(cli: Cli, cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    ssh_open(cli, "dev", CI)
    (one,) = cloud.openings
    assert (one.network, one.run) == ("198.41.0.4/32", RUN)
    assert timedelta(minutes=59) < one.until - datetime.now(UTC) <= timedelta(minutes=60)
    assert capsys.readouterr().out == (
        f"SSH to the machines of stack dev is open to 198.41.0.4/32 for {RUN} until {one.until:%Y-%m-%d %H:%M} UTC.\n"
    )


def test_the_time_can_be_chosen(cli: Cli, cloud: Cloud) -> None:
    ssh_open(cli, "dev", {**CI, "MINUTES": "360"})
    assert timedelta(minutes=359) < cloud.openings[0].until - datetime.now(UTC) <= timedelta(minutes=360)


@pytest.mark.parametrize("minutes", ["0", "361", "-5", "1.5", "an hour", "\u0663"])
def test_a_time_that_is_no_time_opens_nothing(cli: Cli, cloud: Cloud, minutes: str) -> None:
    with pytest.raises(StackError, match=r"MINUTES is .*: it must be a number from 1 to 360"):
        ssh_open(cli, "dev", {**CI, "MINUTES": minutes})
    assert cloud.openings == []


def test_opening_takes_away_what_is_past_its_time(cli: Cli, cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.openings = [a_rule("github-1-1", -1), a_rule("github-2-1", 5)]
    ssh_open(cli, "dev", CI)
    assert cloud.runs == ["github-2-1", RUN]
    said = capsys.readouterr().out
    assert "SSH from 199.7.83.42/32 (github-1-1) to stack dev is closed: its time was over.\n" in said


@pytest.mark.parametrize(
    ("listed", "by"),
    [('["10.0.0.0/8", "198.41.0.0/24"]', "198.41.0.0/24"), (["198.41.0.4/32"], "198.41.0.4/32"),
     ('["2001:db8::/32", "198.41.0.4"]', "198.41.0.4")],
)  # fmt: skip
def test_an_address_that_the_settings_allow_needs_no_rule(
    cli: Cli, cloud: Cloud, capsys: pytest.CaptureFixture[str], listed: object, by: str
) -> None:
    cli.config["decant:adminCidrs"] = listed
    ssh_open(cli, "dev", CI)
    assert cloud.openings == []
    assert capsys.readouterr().out == f"198.41.0.4/32 may use SSH already: decant:adminCidrs has {by}.\n"


@pytest.mark.parametrize("listed", ["not json", '["here"]'])
def test_settings_that_are_wrong_allow_nobody(cli: Cli, cloud: Cloud, listed: str) -> None:
    cli.config["decant:adminCidrs"] = listed
    ssh_open(cli, "dev", CI)
    assert cloud.runs == [RUN]


def test_hosts_of_ones_own_are_left_alone(cli: Cli, cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cli.config = {"decant:cloud": "ssh"}
    ssh_open(cli, "dev", {})
    ssh_close(cli, "dev", {})
    assert capsys.readouterr().out == (
        "Stack dev is on hosts of your own: Decant opens nothing there.\n"
        "Stack dev is on hosts of your own: Decant has opened nothing there.\n"
    )


def test_a_cloud_that_refuses_is_told(cli: Cli, cloud: Cloud) -> None:
    cloud.refuses = "You are not authorized"
    with pytest.raises(StackError) as raised:
        ssh_open(cli, "dev", CI)
    assert str(raised.value) == (
        "DigitalOcean does not open SSH to the machines of stack dev: You are not authorized\n"
        "  What the credentials may do: make check-account STACK=dev"
    )


@pytest.fixture
def sshd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(runner_access, "PORT", server.getsockname()[1])
        yield server


def test_opening_ends_when_the_machines_answer(cli: Cli, cloud: Cloud, sshd: socket.socket) -> None:
    cli.machines = [{"address": "127.0.0.1"}]
    ssh_open(cli, "dev", CI)
    sshd.settimeout(5)
    sshd.accept()[0].close()


def test_machines_that_do_not_answer_are_named(
    cli: Cli, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, sshd: socket.socket
) -> None:
    monkeypatch.setattr(runner_access, "PATIENCE", 0.0)
    cli.machines = [{"address": "127.0.0.1"}, {"address": "127.0.0.2"}]
    with pytest.raises(
        StackError, match=r"SSH is open to 198.41.0.4/32, but 127.0.0.2 did not answer at port"
    ) as raised:
        ssh_open(cli, "dev", CI)
    assert "make ssh-open STACK=dev ADDRESS=..." in str(raised.value)


# ------------------------------------------------------------------------------------------------ close


def test_closing_takes_away_this_runs_rule_and_those_past_their_time(
    cli: Cli, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.openings = [a_rule("github-1-1", -1), a_rule("github-2-1", 5), a_rule(RUN, 5), a_rule("github-17321-20", 5)]
    ssh_close(cli, "dev", CI)
    assert cloud.runs == ["github-2-1", "github-17321-20"]
    assert capsys.readouterr().out == (
        "SSH from 199.7.83.42/32 (github-1-1) to stack dev is closed: its time was over.\n"
        f"SSH from 199.7.83.42/32 ({RUN}) to stack dev is closed: this run has closed it.\n"
    )


def test_the_next_run_closes_what_a_run_has_left_that_is_over(
    cli: Cli, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was killed. A run that goes on, or that nobody can be asked about, keeps its rule for its time."""
    asked: list[str] = []

    def run_is_over(run: Run, environ: Mapping[str, str]) -> bool:
        asked.append(run.name)
        assert environ is CI
        if run.id == "3":
            raise ForgeError("GitHub does not answer")
        return run.id == "1"

    monkeypatch.setattr(runner_access, "run_is_over", run_is_over)
    left = ("github-1-1", "github-2-1", "github-3-1", "alice-laptop")
    cloud.openings = [a_rule(run, 5) for run in left]
    ssh_open(cli, "dev", CI)
    assert cloud.runs == ["github-2-1", "github-3-1", "alice-laptop", RUN]
    assert asked == ["github-1-1", "github-2-1", "github-3-1"], "a person's computer is no run"
    assert capsys.readouterr().out.startswith(
        "SSH from 199.7.83.42/32 (github-1-1) to stack dev is closed: run 1 (attempt 1) on GitHub is over.\n"
    )


def test_closing_needs_no_address(cli: Cli, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_access, "own_address", lambda _: pytest.fail("nobody needs the address"))
    cloud.openings = [a_rule(RUN, 5)]
    ssh_close(cli, "dev", CI)
    assert cloud.openings == []


def test_a_rule_that_cannot_be_closed_fails(cli: Cli, cloud: Cloud) -> None:
    cloud.openings = [a_rule(RUN, 5)]
    cloud.refuses = "Unexpected server-side error"
    with pytest.raises(StackError) as raised:
        ssh_close(cli, "dev", CI)
    assert str(raised.value) == (
        "DigitalOcean could not close SSH to the machines of stack dev: Unexpected server-side error\n"
        "  To try again: make ssh-close STACK=dev"
    )


def test_at_the_end_of_a_stack_all_rules_go(cloud: Cloud) -> None:
    cloud.openings = [a_rule("github-1-1", 5), a_rule("carol-laptop", 5)]
    stack = StackInAccount(project="decant", stack="dev", provider={}, environ={}, resources=[TAG])
    close_all(Account("digitalocean", stack))
    assert cloud.openings == []


def test_a_person_is_a_run_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "Carol")
    monkeypatch.setattr(socket, "gethostname", lambda: "MacBook.local")
    assert run_name({}) == "carol-macbook-local"
    assert run_name(CI) == RUN


# ------------------------------------------------------------------------------------------------ a new stack


def test_a_new_stack_is_opened_while_it_is_made(
    cli: Cli, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening_later, "INTERVAL", 0.01)
    cli.state = []
    ssh_open(cli, "dev", CI)
    assert cloud.openings == []
    assert "`make up` opens SSH to 198.41.0.4/32 as soon as it can" in capsys.readouterr().out
    with opened_when_possible(cli, "dev", CI):
        cli.state = [TAG]
        opened = threading.Event()
        for _ in range(500):
            if cloud.openings:
                break
            opened.wait(0.01)
    assert cloud.runs == [RUN]
    with opened_when_possible(cli, "dev", CI):
        opened.wait(0.1)
    assert cloud.runs == [RUN], "once"


def test_what_another_run_has_asked_for_is_not_opened(cli: Cli, cloud: Cloud) -> None:
    cli.state = []
    ssh_open(cli, "dev", CI)
    assert noted("dev", {**CI, "GITHUB_RUN_ID": "2"}) is None
    assert noted("prod", CI) is None
    assert noted("dev", CI) is not None


def test_a_close_takes_back_what_was_asked_for(cli: Cli, cloud: Cloud) -> None:
    cli.state = []
    ssh_open(cli, "dev", CI)
    ssh_close(cli, "dev", CI)
    assert noted("dev", CI) is None


def test_what_was_asked_for_ends_at_its_time(cli: Cli, cloud: Cloud, tmp_path: Path) -> None:
    cli.state = []
    ssh_open(cli, "dev", CI)
    (file,) = (tmp_path / ".decant").iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), "until": (NOW - timedelta(1)).isoformat()}))
    assert noted("dev", CI) is None
    file.write_text("{}")
    assert noted("dev", CI) is None


def test_a_cloud_that_refuses_does_not_stop_the_up(
    cli: Cli, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pulumi says in the end that it cannot log in; this is said before, once."""
    monkeypatch.setattr(opening_later, "INTERVAL", 0.01)
    cli.state = []
    ssh_open(cli, "dev", CI)
    cloud.refuses = "not today"
    with opened_when_possible(cli, "dev", CI):
        cli.state = [TAG]
        threading.Event().wait(0.2)
    assert capsys.readouterr().err.count("DigitalOcean does not open SSH to the machines of stack dev: not today") == 1
