"""Checks before an order: where names lead, whether the machine answers there, and what CAA records say."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import certificate_checks as checks
from decant_host.certificate_checks import Answer, Problem
from decant_host.protocol import HttpsSettings

NAME = "app.test"
HERE, OTHER = "203.0.113.7", "203.0.113.99"
HERE6, OTHER6 = "2001:db8::7", "2001:db8::99"
SETTINGS: HttpsSettings = {
    "names": [NAME], "by_address": False, "own": False, "server": "https://ca.test/dir", "root": False,
    "profile": "classic", "email": None, "resolvers": [], "hsts": None,
}  # fmt: skip


def said(a: tuple[str, ...] = (HERE,), aaaa: tuple[str, ...] = (), caa: tuple[tuple[str, str], ...] = ()) -> Any:
    """What one DNS server says of a name."""
    return {"resolver": "1.1.1.1", "A": list(a), "AAAA": list(aaaa), "CAA": [list(record) for record in caa]}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The DNS and the addresses of the world: this machine's have the token, others answer what they are told."""
    made = SimpleNamespace(dns={NAME: [said()]}, here={HERE, HERE6}, asked=[], others={}, identities=["ca.test"])
    made.challenges = tmp_path / "challenges"
    monkeypatch.setattr(checks, "CHALLENGES", made.challenges)

    def fetch(address: str, name: str, path: str) -> Answer:
        made.asked.append((address, name))
        if address in made.here:
            return Answer(200, (made.challenges / path.rpartition("/")[2]).read_text())
        others: dict[str, Answer] = made.others
        return others.get(address, Answer(0, "timed out"))

    def look_up(names: Any, resolvers: Any) -> Any:
        made.resolvers = tuple(resolvers)
        return made.dns

    monkeypatch.setattr(checks, "fetch_token", fetch)
    monkeypatch.setattr(checks, "look_up", look_up)
    monkeypatch.setattr(checks, "identities", lambda server: made.identities)
    return made


def cause(world: SimpleNamespace, **changes: Any) -> str:
    problem = checks.check_names({**SETTINGS, **changes}, [NAME]).get(NAME)  # type: ignore[typeddict-item]
    return problem.cause if problem else ""


def test_a_name_that_leads_here_has_no_problem(world: SimpleNamespace) -> None:
    assert checks.check_names(SETTINGS, [NAME]) == {}
    assert world.asked == [(HERE, NAME)]
    assert world.resolvers == ("1.1.1.1", "8.8.8.8", "9.9.9.9")
    assert list(world.challenges.iterdir()) == []


def test_a_rehearsal_has_resolvers_of_its_own(world: SimpleNamespace) -> None:
    cause(world, resolvers=["198.51.100.2"])
    assert world.resolvers == ("198.51.100.2",)


@pytest.mark.parametrize(
    ("answers", "others", "expected"),
    [
        ([], {}, "no-resolver"),
        ([said(a=())], {}, "no-record"),
        ([said(a=(OTHER,))], {}, "unreachable"),
        ([said(a=(OTHER,))], {OTHER: Answer(404, "")}, "elsewhere"),
        ([said(a=(OTHER,))], {OTHER: Answer(200, "welcome")}, "elsewhere"),
        ([said(a=(HERE, OTHER))], {OTHER: Answer(200, "welcome")}, "elsewhere"),
        ([said(aaaa=(HERE6,))], {}, ""),
        ([said(a=(), aaaa=(HERE6,))], {}, ""),
        ([said(aaaa=(OTHER6,))], {}, "ipv6-elsewhere"),
        ([said(aaaa=(OTHER6,))], {OTHER6: Answer(404, "")}, "ipv6-elsewhere"),
        # Servers keep old answers for a while; the authority asks those that hold the zone.
        ([said(a=()), said()], {}, ""),
        ([said(a=(OTHER,)), said()], {}, ""),
        ([said(a=()), said(a=(OTHER,))], {}, "no-record"),
        ([said(caa=(("issue", "other.test"),))], {}, "caa"),
        ([said(caa=(("issue", ";"),))], {}, "caa"),
        ([said(caa=(("issue", "other.test"), ("issue", "CA.test; policy=ev")))], {}, ""),
        ([said(caa=(("issuewild", "other.test"), ("iodef", "mailto:a@b.test")))], {}, ""),
    ],
)
def test_causes(world: SimpleNamespace, answers: Any, others: Any, expected: str) -> None:
    world.dns, world.others = {NAME: answers}, others
    assert cause(world) == expected


def test_reasons_name_the_record_and_the_remedy(world: SimpleNamespace) -> None:
    def reason(answer: Any) -> str:
        world.dns = {NAME: [answer]}
        return checks.check_names(SETTINGS, [NAME])[NAME].reason

    assert reason(said(a=(OTHER,))) == (
        "app.test leads to 203.0.113.99, where nothing answers at its port 80 (timed out). If that is this machine,"
        " open its port 80 to everybody; else correct the A record."
    )
    assert reason(said(aaaa=(OTHER6,))) == (
        "app.test has the AAAA record 2001:db8::99, where nothing answers at its port 80 (timed out). Remove that"
        " record, or let it lead to this machine."
    )
    assert reason(said(caa=(("issue", ";"),))) == (
        "a CAA record of app.test or of the name above it lets nobody issue certificates. Add the record: CAA 0 issue"
        ' "ca.test"'
    )


def test_reasons_hold_no_control_characters_of_others(world: SimpleNamespace) -> None:
    def reason(answer: Any) -> str:
        world.dns = {NAME: [answer]}
        return checks.check_names(SETTINGS, [NAME])[NAME].reason

    assert reason(said(caa=(("issue", "evil.test\x1b[2J\x1b[31m\x07\r\nline\t\x9b1m\u202e"),))) == (
        r"a CAA record of app.test or of the name above it lets evil.test\x07 line \x9b1m\u202e issue certificates. Add"
        ' the record: CAA 0 issue "ca.test"'
    )
    world.others = {OTHER: Answer(0, "\x1b[31mHTTP\x08 bad")}
    assert r"at its port 80 (HTTP\x08 bad)" in reason(said(a=(OTHER,)))


def test_an_authority_that_says_no_name_for_caa_is_asked_all_the_same(world: SimpleNamespace) -> None:
    world.dns, world.identities = {NAME: [said(caa=(("issue", "other.test"),))]}, []
    assert cause(world) == ""


def test_an_address_needs_no_look_up(world: SimpleNamespace) -> None:
    world.dns = {}
    settings: HttpsSettings = {**SETTINGS, "by_address": True}
    assert checks.check_names(settings, [HERE]) == {}
    assert checks.check_names(settings, ["[2001:db8::7]"]) == {}
    assert world.asked == [(HERE, HERE), (HERE6, "[2001:db8::7]")]
    assert checks.check_names(settings, [OTHER])[OTHER].cause == "unreachable"


def test_each_address_is_asked_once(world: SimpleNamespace) -> None:
    world.dns = {NAME: [said(), said(), said(a=(OTHER,))]}
    cause(world)
    assert world.asked == [(HERE, NAME), (OTHER, NAME)]


# ---------------------------------------------------------------- asking an address


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[int, str, str]]]:
    """A server at 127.0.0.1 that answers paths with a status, a location and a body."""
    answers: dict[str, tuple[int, str, str]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, location, body = answers.get(f"{self.headers['Host']}{self.path}", (404, "", ""))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setattr(checks, "PORT", made.server_port)
    yield answers
    made.shutdown()
    made.server_close()


def test_redirects_within_the_name_are_followed(server: dict[str, tuple[int, str, str]]) -> None:
    server[f"{NAME}/a"] = (301, f"http://{NAME}/b", "")
    server[f"{NAME}/b"] = (200, "", "token\n")
    assert checks.fetch_token("127.0.0.1", NAME, "/a") == Answer(200, "token")


def test_redirects_elsewhere_are_not_followed(server: dict[str, tuple[int, str, str]]) -> None:
    server[f"{NAME}/a"] = (301, "http://other.test/b", "")
    server["other.test/b"] = server[f"{NAME}/b"] = (200, "", "token")
    assert checks.fetch_token("127.0.0.1", NAME, "/a").status == 301


def test_redirects_in_a_circle_end(server: dict[str, tuple[int, str, str]]) -> None:
    server[f"{NAME}/a"] = (302, f"http://{NAME}/a", "")
    assert checks.fetch_token("127.0.0.1", NAME, "/a").status == 302


def test_a_long_answer_is_not_read_to_its_end(server: dict[str, tuple[int, str, str]]) -> None:
    server[f"{NAME}/a"] = (200, "", "x" * 100_000)
    assert len(checks.fetch_token("127.0.0.1", NAME, "/a").body) == checks.LONGEST_TOKEN


def test_nobody_who_answers_is_a_status_of_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PORT", 1)
    assert checks.fetch_token("127.0.0.1", NAME, "/a") == Answer(0, "Connection refused")


# ---------------------------------------------------------------- the look-up


def test_answers_are_sorted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = json.dumps([{"resolver": "1.1.1.1", "names": {NAME: {"A": [HERE], "AAAA": [], "CAA": []}}}])
    asked = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append((command, json.loads(options["input"])))
        return SimpleNamespace(stdout=printed)

    monkeypatch.setattr(subprocess, "run", run)
    found = checks.look_up([NAME, "www.app.test"], ["1.1.1.1"])
    assert found == {NAME: [said()], "www.app.test": []}
    assert asked == [
        (
            ["/opt/decant/certbot/bin/python", "-I", "/opt/decant/python/dns_lookup.py"],
            {"names": [NAME, "www.app.test"], "resolvers": ["1.1.1.1"]},
        )
    ]


@pytest.mark.parametrize("error", [OSError("gone"), subprocess.TimeoutExpired("x", 1)])
def test_a_look_up_that_fails_knows_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def run(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert checks.look_up([NAME], []) == {}


def test_every_cause_has_a_meaning() -> None:
    assert Problem("caa", "").cause in checks.CAUSES
    assert all(text and not text.endswith(".") for text in checks.CAUSES.values())
