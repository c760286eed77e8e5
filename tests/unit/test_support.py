"""The support of the tests proves what the tests rely on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.visitors import Kind
from tests.support import thorough
from tests.support.project_copy import REPOSITORY, Project
from tests.support.visitors import KINDS, Visitors


def test_a_copy_of_the_project_imports_its_own_modules(tmp_path: Path) -> None:
    """The virtual environment that it shares with the project has the project's own modules installed."""
    project = Project(tmp_path / "copy")
    code = (
        "import decant, decant_host, rehearsal, sys; print(*(m.__path__[0] for m in (decant, decant_host, rehearsal)))"
    )
    argv = [str(project.folder / ".venv" / "bin" / "python"), "-c", code]
    done = subprocess.run(argv, env=project.environment(), cwd="/", capture_output=True, text=True, check=True)
    infra = project.folder / "infra"
    assert done.stdout.split() == [str(infra / "decant"), str(infra / "decant_host"), str(project.folder / "rehearsal")]


class Site(BaseHTTPRequestHandler):
    """Answers like the app, with one release after another."""

    protocol_version = "HTTP/1.1"
    release = "a"
    broken = ""

    def do_GET(self) -> None:
        self.answer(b"page")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(json.dumps({"length": len(body)}).encode())

    def answer(self, body: bytes) -> None:
        if self.path == Site.broken:
            body = b"broken"
        self.send_response(502 if self.path == Site.broken else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Release", Site.release)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a site on port 80 of a loopback address of its own."""
    try:
        server = ThreadingHTTPServer(("127.0.0.77", 80), Site)
    except OSError as error:
        pytest.skip(f"port 80 of 127.0.0.77 cannot be used: {error}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Site, "release", "a")
    monkeypatch.setattr(Site, "broken", "")
    yield "127.0.0.77"
    server.shutdown()
    server.server_close()


def test_visitors_see_the_releases_in_order_and_no_failure(site: str) -> None:
    with Visitors(site) as visitors:
        Site.release = "b"
        visitors.more()
    assert visitors.failures == []
    assert visitors.releases[0] == "a"
    assert visitors.releases[-1] == "b"
    assert visitors.answers == len(visitors.visits) >= 60


@pytest.mark.parametrize("kind", sorted({kind.path for kind in KINDS}))
def test_visitors_report_every_kind_of_request_that_fails(site: str, kind: str) -> None:
    Site.broken = kind
    with Visitors(site) as visitors:
        visitors.more()
    assert visitors.failures
    assert {failure.partition(":")[0] for failure in visitors.failures} == {kind}
    assert "502 b'broken'" in visitors.failures[0]


def test_visitors_count_an_answer_that_does_not_come_as_a_failure(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Site, "answer", lambda self, body: self.connection.shutdown(socket.SHUT_RDWR))
    with Visitors(site) as visitors:
        pass
    assert len(visitors.failures) == len(visitors.visits)


def test_requests_of_a_site_that_stalls_count_from_when_they_were_due(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the requests that a stall holds back would not be measured (coordinated omission)."""
    from bench import visitors

    answer, stalled = Site.answer, threading.Event()

    def slow(self: Site, body: bytes) -> None:
        if not stalled.is_set():
            stalled.set()
            time.sleep(0.5)
        answer(self, body)

    monkeypatch.setattr(Site, "answer", slow)
    with visitors.Visitors(site, rate=100, kinds=[Kind(path="/")], at_once=1) as people:
        time.sleep(1)
    found = people.statistics((0.0, time.monotonic()))
    assert found["failed"] >= 40, "those that found no room while the site stalled"
    assert max(visit.seconds for visit in people.visits) >= 0.5


# ------------------------------------------------------------------------------------------------ slow tests


def test_slow_tests_are_due_in_ci_alone_and_only_after_a_change(tmp_path: Path) -> None:
    record = tmp_path / "thorough.sha256"
    assert thorough.are_due({"CI": "true"}, record=record)
    record.write_text(thorough.digest() + "\n")
    assert not thorough.are_due({"CI": "true"}, record=record)
    record.write_text("another\n")
    assert thorough.are_due({"CI": "true"}, record=record)
    assert not thorough.are_due({}, record=record)


@pytest.mark.parametrize("name", ["infra/decant_host/agent.py", "infra/decant/rollout/attempt.py"])
def test_a_change_of_what_the_slow_tests_are_about_changes_the_digest(tmp_path: Path, name: str) -> None:
    for pattern in thorough.ABOUT:
        assert list(REPOSITORY.glob(pattern)), pattern
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("1")
    before = thorough.digest(tmp_path)
    (tmp_path / name).write_text("2")
    assert thorough.digest(tmp_path) != before


@pytest.mark.parametrize(("expression", "selected"), [("", 0), ("thorough", 1)])
def test_slow_tests_run_on_request(expression: str, selected: int) -> None:
    test = "tests/hosts/test_fleet.py::test_connections_that_are_idle_for_long_can_be_used_again"
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *(["-m", expression] if expression else []), test],
        cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "CI": ""}, check=False,
    )  # fmt: skip
    assert listed.stdout.count(test) == selected, listed.stdout
