"""`make check-account`, and the same check before a first `up`: settings by the CLI, the table, and when it stops."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from decant import clouds
from decant.cli import __main__ as cli_main
from decant.cli import check_account as command
from decant.cli.pulumi_cli import PulumiCli
from decant.cli.up import cost_line
from decant.clouds.checks import Check
from decant.errors import SettingsError, StackError
from tests.support.digitalocean_reads import TOKEN, Account, serving

DROPLET = {
    "decant:cloud": {"value": "digitalocean", "secret": False},
    "decant:adminCidrs": {"value": '["8.8.8.0/24"]', "objectValue": ["8.8.8.0/24"], "secret": False},
    "digitalocean:token": {"value": TOKEN, "secret": True},
}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWgdkZ5bVwMHtCBd5zIiUxKSV7tLqpnlRNBmkXXHEEC"


class Cli(PulumiCli):
    """A CLI that answers from what a test sets, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__("/nowhere/pulumi")
        self.config: Mapping[str, Any] = DROPLET
        self.state: list[dict[str, Any]] = []
        self.known: dict[str, Any] = {}
        self.said: list[tuple[str, ...]] = []
        self.error = ""

    def capture(self, *argv: str) -> subprocess.CompletedProcess[str]:
        self.said.append(argv)
        answers = {
            "config": self.config,
            "export": {"deployment": {"resources": self.state}},
            "output": self.known,
            "ls": [{"name": "dev"}],
            "whoami": {"url": "https://app.pulumi.com"},
        }
        verb = argv[1] if argv[0] == "stack" else argv[0]
        return subprocess.CompletedProcess(argv, int(bool(self.error)), json.dumps(answers[verb]), self.error)

    def run(self, *argv: str) -> int:
        self.said.append(argv)
        self.known = {"release": "0123456789ab"}
        return 0


@pytest.fixture
def cli() -> Cli:
    return Cli()


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    made = Account()
    with serving(made) as url:
        monkeypatch.setenv("DIGITALOCEAN_API_URL", url)
        yield made


@pytest.fixture
def make(cli: Cli, account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line: `make("up", "dev")` gives the exit status and what was printed."""
    monkeypatch.setattr(cli_main, "find_cli", lambda: cli.path)
    monkeypatch.setattr(cli_main, "PulumiCli", lambda path: cli)
    monkeypatch.setattr(cli_main, "show_summary", lambda *given: print("SUMMARY"))

    def run(*words: str) -> tuple[int, str, str]:
        status = cli_main.main(words)
        return (status, *capsys.readouterr())

    return run


def ups(cli: Cli) -> list[tuple[str, ...]]:
    return [argv for argv in cli.said if argv[0] == "up"]


# ------------------------------------------------------------------------------------------------ previews


def test_a_token_that_may_only_read_is_enough_for_previews(make: Any, account: Account) -> None:
    account.scopes = ["read"]
    status, out, err = make("check-account", "dev")
    assert (status, "the token lacks write" in out) == (1, True)
    assert "DigitalOcean cannot make stack dev: see scopes above" in err
    status, out, _ = make("--read-only", "check-account", "dev")
    assert (status, "the token may do all that a preview needs" in out) == (0, True)


def test_a_token_that_may_not_read_is_not_enough_for_previews(make: Any, account: Account) -> None:
    account.refused, account.scopes = {"/v2/droplets"}, None
    status, _, err = make("--read-only", "check-account", "dev")
    assert status == 1
    assert "These credentials cannot preview stack dev on DigitalOcean: see scopes" in err


def test_the_role_to_check_reaches_the_cloud(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(facts: Any) -> list[Check]:
        asked.append((facts.role, facts.reads_only))
        return [Check(subject="token", answer="yes", detail="")]

    monkeypatch.setattr(clouds, "check_account", note)
    make("--role=arn:aws:iam::1:role/ci", "--read-only", "check-account", "dev")
    make("check-account", "dev")
    assert asked == [("arn:aws:iam::1:role/ci", True), ("", False)]


# ------------------------------------------------------------------------------------------------ the settings


def test_settings_are_read_by_the_cli_with_secrets_in_clear(cli: Cli) -> None:
    checked = command.read_settings(cli, "dev")
    assert cli.said == [("config", "--json", "--show-secrets", "--stack", "dev")]
    assert checked.settings is not None
    assert (checked.settings.cloud, checked.settings.size, checked.settings.admin_cidrs) == (
        "digitalocean", "s-1vcpu-1gb", ("8.8.8.0/24",),
    )  # fmt: skip
    assert checked.settings.provider == {"token": TOKEN}


def test_which_settings_are_secret_is_known(cli: Cli) -> None:
    cli.config = {**DROPLET, "decant:secrets": {"value": '{"SECRET_KEY": "k"}', "secret": True}}
    checked = command.read_settings(cli, "dev")
    assert checked.settings is not None, checked.problems
    assert checked.settings.secrets == {"SECRET_KEY": "k"}
    cli.config = {**DROPLET, "decant:secrets": {"value": '{"SECRET_KEY": "k"}', "secret": False}}
    assert command.read_settings(cli, "dev").settings is None


def test_settings_that_cannot_be_read(cli: Cli) -> None:
    cli.error = "passphrase must be set"
    with pytest.raises(StackError, match="The settings of stack dev cannot be read: passphrase must be set"):
        command.read_settings(cli, "dev")


def test_settings_that_are_wrong_come_first(cli: Cli, account: Account) -> None:
    cli.config = {**DROPLET, "decant:machines": {"value": "0"}}
    with pytest.raises(SettingsError, match="decant:machines"):
        command.check_account(cli, "dev")
    assert account.asked == []


# ------------------------------------------------------------------------------------------------ the command


def test_the_table_names_each_answer_and_the_cost(make: Any, cli: Cli) -> None:
    status, out, err = make("check-account", "dev")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[1] == "  Stack dev in your account on DigitalOcean"
    assert lines[3] == "  token                yes      valid, of Carol's team"
    assert "  droplets             yes      0 of 10 droplets in use, 1 more needed" in lines
    assert lines[-4:-1] == [
        "  cost                          about 6.00 USD a month (1 x droplet s-1vcpu-1gb, 6.00 each; 1 x reserved",
        " " * 32 + "address, 0.00 each; list prices of 2026-11-28, before tax). Traffic beyond the",
        " " * 32 + "droplets' allowance comes on top: 0.01 a GiB.",
    ]
    assert not ups(cli)


def test_a_no_is_an_error_that_names_it(make: Any, account: Account) -> None:
    account.limits["droplet_limit"] = 1
    account.lists["droplets"] = [{"id": 1, "name": "other", "tags": []}]
    account.lists["sizes"] = []
    status, out, err = make("check-account", "dev")
    assert status == 1
    assert err == (
        "\nDigitalOcean cannot make stack dev: see size s-1vcpu-1gb, droplets above. Nothing was made or changed.\n"
    )
    index = out.splitlines().index("  droplets             no       1 of 1 droplets in use, 1 more needed")
    assert out.splitlines()[index + 1] == " " * 32 + (
        "ask for more: https://cloud.digitalocean.com/account/team/resource-limits"
    )


def test_what_the_state_has_is_the_stacks_own(make: Any, cli: Cli, account: Account) -> None:
    account.limits["droplet_limit"] = 1
    account.lists["droplets"] = [{"id": 7, "name": "web-1", "tags": ["decant-dev"]}]
    assert make("check-account", "dev")[0] == 1
    cli.state = [{"urn": "u", "type": "digitalocean:index/droplet:Droplet", "id": "7"}, {"urn": "v", "type": "x:y:z"}]
    status, out, _ = make("check-account", "dev")
    assert status == 0
    assert "1 of 1 droplets in use, 0 more needed" in out
    assert "nothing else is named decant-dev" in out


def test_no_secret_is_printed(make: Any, cli: Cli, account: Account) -> None:
    account.scopes, account.refused = None, {"/v2/droplets"}
    _, out, err = make("check-account", "dev")
    assert TOKEN not in out + err


def test_hosts_of_ones_own_have_no_account(make: Any, cli: Cli) -> None:
    cli.config = {
        "decant:cloud": {"value": "ssh"},
        "decant:hosts": {"value": json.dumps([{"address": "192.0.2.1", "hostKey": HOST_KEY}])},
        "decant:sshPrivateKey": {"value": _private_key(), "secret": True},
    }
    status, out, _ = make("check-account", "dev")
    assert (status, out) == (
        0,
        "Stack dev is on hosts of your own: there is no account to check, and they cost nothing more.\n",
    )


def _private_key() -> str:
    from tests.support.in_memory import PRIVATE

    return PRIVATE


# ------------------------------------------------------------------------------------------------ before an up


def test_a_first_up_checks_the_account(make: Any, cli: Cli) -> None:
    status, out, _ = make("up", "dev")
    assert status == 0
    assert out.startswith("Before the first up, the account is asked (CHECK=no leaves it out) ...\n---")
    assert "Stack dev in your account on DigitalOcean" in out
    assert ups(cli) == [("up", "--stack", "dev")]


def test_a_first_up_stops_where_the_account_cannot_make_the_stack(make: Any, cli: Cli, account: Account) -> None:
    account.limits["droplet_limit"] = 0
    account.limits["status"] = "locked"
    status, _, err = make("up", "dev")
    assert status == 1
    assert "DigitalOcean cannot make stack dev: see token above." in err
    assert not ups(cli)


def test_a_replacement_without_room_does_not_stop_a_first_up(make: Any, cli: Cli, account: Account) -> None:
    account.limits["droplet_limit"] = 1
    status, out, _ = make("up", "dev")
    assert status == 0
    assert "  a replacement        no " in out
    assert ups(cli)


def test_the_check_before_a_first_up_can_be_left_out(make: Any, cli: Cli, account: Account) -> None:
    account.limits["status"] = "locked"
    assert make("--no-check", "up", "dev")[0] == 0
    assert account.asked == []


def test_a_stack_that_is_live_is_not_checked(make: Any, cli: Cli, account: Account) -> None:
    cli.known = {"release": "0123456789ab"}
    assert make("up", "dev")[0] == 0
    assert make("preview", "dev")[0] == 0
    assert account.asked == []


def test_a_destroy_asks_what_is_left_alone(make: Any, cli: Cli, account: Account) -> None:
    cli.known = {"release": "0123456789ab"}
    status, out, _ = make("destroy", "dev")
    assert (status, account.asked[0]) == (0, "GET /v2/droplets")
    assert "Can DigitalOcean make stack dev?" not in out
    assert "Nothing of stack dev is left at DigitalOcean." in out


def test_wrong_settings_are_left_to_the_program(make: Any, cli: Cli, account: Account) -> None:
    """It reports them together with the app's problems."""
    cli.config = {**DROPLET, "decant:machines": {"value": "0"}}
    assert make("up", "dev")[0] == 0
    assert account.asked == []
    assert ups(cli)


# ------------------------------------------------------------------------------------------------ the table, the cost


def test_a_clouds_words_do_not_control_the_terminal() -> None:
    """The names of a team, a droplet or an image are somebody else's choice."""
    check = Check(subject="s\x1b", answer="no", detail="of team\x1b[2J\x07x", fix="doctl \x07")
    rows = command.table("Title", [check], None).splitlines()
    assert [row.strip() for row in rows[3:5]] == ["s\\x1b  no       of team\\x1b[2J\\x07x", "doctl \\x07"]


def test_a_long_detail_is_wrapped_and_a_command_is_not() -> None:
    fix = "pulumi config set " + "x" * 150
    rows = command.table("Title", [Check(subject="s", answer="no", detail="word " * 30, fix=fix)], None).splitlines()
    assert rows[3].startswith("  s  no       word word")
    assert max(map(len, rows[3:-2])) <= 110
    assert rows[-2] == " " * 14 + fix


@pytest.mark.parametrize(
    ("now", "then", "text"),
    [
        (24.0, 6.0, "about 24.00 USD a month, +18.00 by this up (list prices of 2026-11-28"),
        (6.0, 24.0, "about 6.00 USD a month, -18.00 by this up (list prices of 2026-11-28"),
        (6.0, 6.0, "about 6.00 USD a month (list prices of 2026-11-28"),
        (6.0, None, "about 6.00 USD a month (list prices of 2026-11-28"),
        (None, 6.0, "a sum that is not in the price list (list prices of 2026-11-28"),
    ],
)
def test_the_summary_says_what_an_up_changed_in_the_cost(now: float | None, then: float | None, text: str) -> None:
    def outputs(sum_: float | None) -> dict[str, Any]:
        return {"cost": {"usdPerMonth": sum_, "items": [], "pricesOf": "2026-11-28"}}

    ((label, line),) = cost_line(outputs(now), outputs(then))
    assert label == "cost"
    assert line.startswith(text)


def test_a_stack_without_a_cost_has_no_line() -> None:
    assert cost_line({"url": "http://a"}, {}) == []
