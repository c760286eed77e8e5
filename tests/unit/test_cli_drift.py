"""`make drift`: what is compared, what counts as wrong, and what the report shows."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from decant.cli import drift as command
from decant.cli.pulumi_cli import PulumiCli
from decant.errors import StackError, UnreachableError
from decant.rollout.http_probe import ProbeResult
from decant.rollout.route import Route
from tests.support.certificates import DAY, Authority

RELEASE, OTHER = "0123456789ab", "ba9876543210"
OUTPUTS = {"url": "http://192.0.2.1", "release": RELEASE, "machines": []}
CHANGED = """Previewing refresh (dev):
  ~ digitalocean:index/firewall:Firewall: (refresh)
      ~ inboundRules: [
          + [1]: {{ portRange: "22", sourceAddresses: ["0.0.0.0/0"] }}
Resources:
    ~ 1 to update
    - 2 to delete
    3 unchanged
"""
UNEXPECTED = "error: no changes were expected for refresh but changes were proposed\n"


def answered(status: int, release: str, why: str) -> ProbeResult:
    return ProbeResult(status=status, release=release, machine="", why=why, at=0.0, seconds=0.1)


class Cli(PulumiCli):
    """A CLI whose refresh and outputs a test sets."""

    def __init__(self) -> None:
        super().__init__("/nowhere/pulumi")
        self.known: dict[str, Any] = dict(OUTPUTS)
        self.refreshed = (0, "", "")
        self.asked: list[tuple[str, ...]] = []

    def read_config(self, stack: str) -> dict[str, dict[str, Any]]:
        return {"decant:secrets": {"value": json.dumps({"KEY": "drift-canary"}), "secret": True}}

    def capture(self, *argv: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(argv)
        if argv[0] == "refresh":
            return subprocess.CompletedProcess(argv, *self.refreshed)
        if argv[:3] == ("stack", "output", "ssh"):
            logins = [
                {"name": name, "address": "192.0.2.1", "port": 22, "user": "root", "host_key": "k", "private_key": "p"}
                for name in ("web-1", "web-2")
            ]
            return subprocess.CompletedProcess(argv, 0, json.dumps(logins), "")
        assert argv[:2] == ("stack", "output"), argv
        return subprocess.CompletedProcess(argv, 0, json.dumps(self.known), "")


@pytest.fixture
def cli() -> Cli:
    return Cli()


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stack where all is well; tests change one thing each."""
    found: dict[str, Any] = {"account": None, "site": answered(200, RELEASE, "HTTP 200")}
    live = {"current": RELEASE, "persisted": RELEASE, "lease": None}
    found["machines"] = {"web-1": dict(live), "web-2": dict(live)}

    def account(cli: PulumiCli, stack: str, *, reads_only: bool) -> None:
        found["reads_only"] = reads_only
        if found["account"]:
            raise StackError(found["account"])

    def status(access: Any) -> Any:
        answer = found["machines"][access.name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(command, "check_account", account)
    monkeypatch.setattr(command, "probe", lambda url, route: found["site"])
    monkeypatch.setattr(command, "status", status)
    monkeypatch.setattr(command, "route", lambda cli, stack, outputs: Route())
    monkeypatch.setattr(command, "current_certificate", lambda cli, stack, outputs: None)
    return found


def failure(cli: Cli, file: Path | None = None) -> str:
    with pytest.raises(StackError) as raised:
        command.drift(cli, "dev", file)
    return str(raised.value)


WRONG = "Stack dev is not as its state says, or cannot be deployed: see {}."


def test_a_stack_that_is_as_its_state_says(cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.drift(cli, "dev", tmp_path / "drift.md")
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[3:-1]]
    assert lines == [
        ["resources", "yes", "each is as in the state"],
        ["account", "yes", "the stack can be deployed"],
        ["site", "yes", f"http://192.0.2.1/ gives release {RELEASE}"],
        ["web-1", "yes", f"release {RELEASE} is live and for the next boot"],
        ["web-2", "yes", f"release {RELEASE} is live and for the next boot"],
    ]
    text = (tmp_path / "drift.md").read_text()
    assert text.startswith("## Stack dev\n\nStack dev is as its state says, and can be deployed.\n\n```\n----")
    assert "<details>" not in text


@pytest.mark.parametrize("reads_only", [True, False])
def test_a_role_that_may_read_alone_is_asked_for_no_more(cli: Cli, world: dict[str, Any], reads_only: bool) -> None:
    command.drift(cli, "dev", None, reads_only=reads_only)
    assert world["reads_only"] is reads_only


def test_the_comparison_changes_neither_the_state_nor_the_cloud(cli: Cli) -> None:
    command.drift(cli, "dev", None)
    (refresh,) = [argv for argv in cli.asked if argv[0] == "refresh"]
    assert {"--preview-only", "--expect-no-changes"} <= set(refresh)
    assert "--yes" not in refresh


def test_resources_that_differ_are_counted_and_shown(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.refreshed = (255, CHANGED, UNEXPECTED)
    assert failure(cli, tmp_path / "drift.md") == WRONG.format("resources")
    printed, text = capsys.readouterr().out, (tmp_path / "drift.md").read_text()
    assert "not as in the state: 1 to update, 2 to delete. " in " ".join(printed.split())
    for shown in (printed, text):
        assert 'sourceAddresses: ["0.0.0.0/0"]' in shown
        assert "make up STACK=dev ARGS=--refresh   (puts back what the settings say)" in shown
    assert text.count("<details><summary>") == text.count("</details>") == 1


def test_resources_that_cannot_be_read_are_not_called_changed(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    cli.refreshed = (255, "", "error: the token is not valid\n")
    assert failure(cli) == WRONG.format("resources")
    assert "they could not be read: error: the token is not valid" in capsys.readouterr().out


def test_a_diff_cannot_leave_its_code_block_or_fill_the_issue(cli: Cli, tmp_path: Path) -> None:
    cli.refreshed = (255, "```\n@everyone <b>\n" + "x" * 40_000, UNEXPECTED)
    failure(cli, tmp_path / "drift.md")
    text = (tmp_path / "drift.md").read_text()
    assert "````\n```\n@everyone <b>\nxxx" in text
    assert len(text) < 33_000
    assert " more characters are left out: `make drift` shows them." in text


def test_no_secret_is_in_an_issue(
    cli: Cli, world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the cloud says has no marks by which Pulumi knows a secret, and issues may be public."""
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "token-canary")
    cli.refreshed = (255, "userData: drift-canary token-canary", UNEXPECTED)
    world["account"] = "401 for token-canary"
    failure(cli, tmp_path / "drift.md")
    for text in (capsys.readouterr().out, (tmp_path / "drift.md").read_text()):
        assert "canary" not in text
        assert "userData: [secret] [secret]" in text
        assert "401 for [secret]" in text


def test_an_account_that_cannot_make_the_stack(cli: Cli, world: dict[str, Any], tmp_path: Path) -> None:
    world["account"] = "DigitalOcean cannot make stack dev:\n  see scopes above"
    assert failure(cli, tmp_path / "drift.md") == WRONG.format("account")
    text = (tmp_path / "drift.md").read_text()
    assert "account    no       DigitalOcean cannot make stack dev: see scopes above" in text
    assert "make check-account STACK=dev" in text


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (answered(200, OTHER, "HTTP 200"), f"gives HTTP 200 from release {OTHER}, not release {RELEASE}"),
        (answered(0, "", "no answer"), f"gives no answer, not release {RELEASE}"),
    ],
)
def test_a_site_that_gives_something_else(
    cli: Cli, world: dict[str, Any], result: ProbeResult, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world["site"] = result
    assert failure(cli) == WRONG.format("site")
    assert said in capsys.readouterr().out


def test_machines_are_named_with_what_is_wrong(
    cli: Cli, world: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    world["machines"]["web-1"]["persisted"] = OTHER
    world["machines"]["web-2"] = UnreachableError("web-2 (192.0.2.1): nobody answers on port 22")
    assert failure(cli) == WRONG.format("web-1, web-2")
    printed = capsys.readouterr().out
    assert f"{OTHER} is for the next boot, not release {RELEASE}" in printed
    assert "nobody answers on port 22" in printed
    assert "is SSH open to this computer (decant:adminCidrs, or make ssh-open in CI)?" in printed


def test_a_deploy_under_way_is_no_drift(cli: Cli, world: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    world["machines"]["web-1"].update(current=OTHER, lease={"pid": 1})
    command.drift(cli, "dev", None)
    assert "unknown  a deploy is under way" in capsys.readouterr().out


def test_a_stack_without_a_release_has_nothing_to_compare(cli: Cli) -> None:
    cli.known = {}
    assert failure(cli) == "Stack dev has no release in its state, so nothing can differ: make up STACK=dev"
    assert [argv[0] for argv in cli.asked] == ["stack"]


@pytest.mark.parametrize(
    ("lifetime", "left", "answer"), [(90, 15, "yes"), (90, 13, "no"), (395, 13, "no"), (6, 3, "yes"), (6, 1, "no")]
)
def test_days_of_the_certificate_that_visitors_see(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, lifetime: int, left: int, answer: str
) -> None:
    cli.known["url"] = "https://example.com"
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=left, hours=1)
    begins = ends - datetime.timedelta(days=lifetime)
    monkeypatch.setattr(command, "served_certificate", lambda url, way: (begins, ends))
    checks = list(command._certificate(cli, "dev", cli.known, Route()))
    assert [(check.subject, check.answer) for check in checks] == [("certificate", answer)]
    assert checks[0].detail == f"valid for {left} days, until {ends:%Y-%m-%d}"


def test_a_renewal_that_is_overdue_is_reported_before_the_certificate_ends(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    status = {
        "state": "live", "names": ["example.com"], "not_before": now - 70 * 86400, "not_after": now + 20 * 86400,
        "renewed": None, "reason": "the authority says no", "cause": "", "missing": [],
    }  # fmt: skip
    monkeypatch.setattr(command, "current_certificate", lambda cli, stack, outputs: status)
    (check,) = command._certificate(cli, "dev", OUTPUTS, Route())
    assert (check.subject, check.answer) == ("renewal", "no")
    assert "the authority says no" in check.detail


def test_a_site_that_shows_no_certificate(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(url: str, way: Route) -> Any:
        raise ssl.SSLCertVerificationError("certificate has expired")

    monkeypatch.setattr(command, "served_certificate", refused)
    (check,) = command._certificate(cli, "dev", {**OUTPUTS, "url": "https://example.com"}, Route())
    assert check.answer == "no"
    assert "https://example.com shows none: " in check.detail
    assert "certificate has expired" in check.detail


def test_the_certificate_is_read_from_where_the_name_will_lead(tmp_path: Path) -> None:
    authority = Authority()
    issued = authority.issue("example.com", days=20, begins=3)
    (tmp_path / "chain").write_text(issued.fullchain)
    (tmp_path / "key").write_text(issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            for _ in range(2):
                with contextlib.suppress(OSError), context.wrap_socket(server.accept()[0], server_side=True) as one:
                    one.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        way = Route(connect_to="127.0.0.1", root=authority.root)
        begins, ends = command.served_certificate(f"https://example.com:{port}", way)
        with pytest.raises(OSError, match="certificate verify failed"):
            command.served_certificate(f"https://example.org:{port}", way)
    now = datetime.datetime.now(datetime.UTC)
    assert (round((now - begins) / DAY), round((ends - now) / DAY)) == (3, 20)
