"""HTTPS around Pulumi's commands: what the machine says now, a url that becomes https, a certificate that is kept."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from decant.cli import https
from decant.cli.https import (
    certificate_lines,
    current_certificate,
    find_to_keep,
    keep,
    notice_https,
    route,
    site_route,
)
from decant.errors import UnreachableError
from decant.rollout.route import Route
from tests.support.fake_fleet import NO_CERTIFICATE
from tests.support.in_memory_sshd import Sshd

DAY = 86400.0
LIVE = {**NO_CERTIFICATE, "state": "live", "names": ["example.com"], "missing": []}
RECORDS = {"names": ["example.com"], "type": "A", "value": "203.0.113.7"}
OUTPUTS: dict[str, Any] = {
    "url": "http://example.com", "certificate": NO_CERTIFICATE, "dns": RECORDS,
    "machines": [{"name": "web-1", "address": "203.0.113.7"}],
}  # fmt: skip
ROOT = "-----BEGIN CERTIFICATE-----"


class Cli:
    """Pulumi's CLI with these outputs, and what was stored."""

    def __init__(self, **outputs: Any) -> None:
        self.known = {**OUTPUTS, **outputs}
        self.secret = {"ssh": [vars_of_access()], "savedCertificate": "cmVjb3JkZWQ="}
        self.stored: list[tuple[str, str, str]] = []

    def outputs(self, stack: str) -> dict[str, Any]:
        return self.known

    def settings(self, stack: str) -> dict[str, Any]:
        return {"decant:acmeRoot": ROOT}

    def set_secret(self, stack: str, name: str, value: str) -> None:
        self.stored.append((stack, name, value))

    def capture(self, *argv: str) -> SimpleNamespace:
        found = self.secret.get(argv[2])
        shown = found if isinstance(found, str) else json.dumps(found)
        return SimpleNamespace(returncode=0 if found else 255, stdout=f"{shown}\n", stderr="")


def vars_of_access() -> dict[str, Any]:
    access = Sshd().access()
    return {name: getattr(access, name) for name in ("name", "address", "port", "user", "host_key", "private_key")}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the machine answers; an exception is raised."""
    answers: dict[str, Any] = {"https": LIVE, "saved": "bGl2ZQ=="}

    def answer(name: str) -> Any:
        if isinstance(answers[name], Exception):
            raise answers[name]
        return answers[name]

    monkeypatch.setattr(https, "status", lambda access: {"https": answer("https")})
    monkeypatch.setattr(https, "save_certificate", lambda access: answer("saved"))
    return answers


def test_the_machine_knows_its_certificate_better_than_the_outputs(machine: dict[str, Any]) -> None:
    cli: Any = Cli()
    assert current_certificate(cli, "dev", cli.known) == LIVE
    machine["https"] = UnreachableError("no answer")
    assert current_certificate(cli, "dev", cli.known) == NO_CERTIFICATE


@pytest.mark.usefixtures("machine")
def test_a_stack_whose_machine_gets_no_certificate_is_not_asked() -> None:
    cli: Any = Cli(certificate=None)
    assert current_certificate(cli, "dev", cli.known) is None
    assert current_certificate(cli, "dev", {}) is None
    assert notice_https(cli, "dev", {}) == []
    assert certificate_lines(None, {}) == []


def test_an_up_after_https_has_come_asks_the_site_over_it(
    machine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cli: Any = Cli()
    assert notice_https(cli, "dev", cli.known) == ["--replace", "**rollout"]
    assert "HTTPS works now" in capsys.readouterr().out
    machine["https"] = NO_CERTIFICATE
    assert notice_https(cli, "dev", cli.known) == []
    machine["https"] = LIVE
    assert notice_https(cli, "dev", {**cli.known, "url": "https://example.com"}) == []


def test_a_private_root_and_the_address_are_known_to_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str | None, str, str | None]] = []

    def way(domain: str | None, address: str, root: str | None) -> Route:
        asked.append((domain, address, root))
        return Route(connect_to=address, root=root)

    monkeypatch.setattr(https, "route_to", way)
    cli: Any = Cli()
    assert route(cli, "dev", cli.known) == Route(connect_to="203.0.113.7", root=ROOT)
    assert asked == [("example.com", "203.0.113.7", ROOT)]
    assert site_route({}, None) == Route()


def test_the_lines_of_a_summary() -> None:
    now = time.time()
    live = {**LIVE, "not_before": now - 30 * DAY, "not_after": now + 60.4 * DAY}
    ((label, text),) = certificate_lines(live, OUTPUTS)  # type: ignore[arg-type]
    assert (label, text[: text.index("until")]) == ("https", "for example.com, valid for 60 days, ")
    waiting = {**NO_CERTIFICATE, "cause": "no-record", "reason": "example.com leads to no address"}
    rows = certificate_lines(waiting, OUTPUTS)  # type: ignore[arg-type]
    assert [label for label, _ in rows] == ["https", "", "", "", ""]
    assert rows[3] == ("", "example.com  A  203.0.113.7")


def test_a_certificate_that_ends_soon_is_told() -> None:
    now = time.time()
    late = {**LIVE, "not_before": now - 80 * DAY, "not_after": now + 20 * DAY, "reason": "port 80 is closed"}
    rows = certificate_lines(late, OUTPUTS)  # type: ignore[arg-type]
    assert rows[-1][1].startswith("warning: the certificate is for example.com")
    assert rows[-1][1].endswith("port 80 is closed")


RENEWAL = {"names": ["example.com"], "days_left": None, "help": "look at the record"}


def test_a_load_balancer_is_looked_at_again(machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outputs may be months old, and no machine knows of its certificate."""
    recorded = {**LIVE, "renewal": RENEWAL}
    shown: dict[str, Any] | None = {**recorded, "not_after": 7.0}
    asked: list[tuple[Any, ...]] = []

    def look(*arguments: Any) -> dict[str, Any] | None:
        asked.append(arguments)
        return shown

    monkeypatch.setattr(https, "shown_certificate", look)
    machine["https"] = NO_CERTIFICATE
    cli: Any = Cli(certificate=recorded)
    assert current_certificate(cli, "dev", cli.known) == shown
    assert asked == [("203.0.113.7", RENEWAL, ROOT)]
    shown = None
    assert current_certificate(cli, "dev", cli.known) == recorded
    assert find_to_keep(cli, "dev") is None, "it goes with the balancer"


def test_destroy_keeps_what_the_machine_has_now_else_what_was_recorded(machine: dict[str, Any]) -> None:
    cli: Any = Cli()
    assert find_to_keep(cli, "dev") == "bGl2ZQ=="
    machine["saved"] = UnreachableError("no answer")
    assert find_to_keep(cli, "dev") == "cmVjb3JkZWQ="
    del cli.secret["savedCertificate"]
    assert find_to_keep(cli, "dev") is None
    cli.known["certificate"] = None
    assert find_to_keep(cli, "dev") is None


def test_what_is_kept_is_a_secret_setting(capsys: pytest.CaptureFixture[str]) -> None:
    cli: Any = Cli()
    keep(cli, "dev", None)
    assert cli.stored == []
    keep(cli, "dev", "bGl2ZQ==")
    assert cli.stored == [("dev", "decant:savedCertificate", "bGl2ZQ==")]
    told = capsys.readouterr().out
    assert "pulumi config rm decant:savedCertificate --stack dev" in told
    assert "bGl2ZQ" not in told
