"""Starting releases and waiting for them, with systemd and ss in memory."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import paths, processes
from decant_host.errors import HostError
from decant_host.probe import ProbeResult
from tests.unit.decant_host.machine import NEW, OLD, Machine


def test_a_start_that_fails_shows_no_secret(machine: Machine) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.add(NEW)
    machine.systemd.broken.add(NEW)
    machine.systemd.log = "KeyError: 'MISSING'\nkey is canary-key\n"
    with pytest.raises(HostError) as caught:
        processes.start(NEW)
    text = str(caught.value)
    assert "canary-key" not in text
    assert "key is [KEY]" in text
    assert "pulumi config set --path 'decant:env.MISSING' VALUE" in text
    assert machine.running() == {OLD}
    assert f"systemctl reset-failed app@{NEW}.service" in machine.systemd.done
    assert f"systemctl kill --signal=KILL app@{NEW}.service" in machine.systemd.done
    assert machine.live() == (OLD, None, OLD)


def set_answers(machine: Machine, release: str, *results: ProbeResult) -> None:
    left = list(results)
    machine.answers[release] = lambda: left.pop(0) if len(left) > 1 else left[0]


def answer(status: int, release: str = NEW) -> ProbeResult:
    return ProbeResult(status=status, release=release, body="body")


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes only when the program waits."""
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        assert clock.now < 10_000, "this waits for ever"
        clock.now += seconds

    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep, time=lambda: 1.0))
    return clock


def test_a_start_needs_three_healthy_answers_in_a_row(machine: Machine, no_sleep: Any) -> None:
    machine.add(NEW)
    set_answers(machine, NEW, answer(503), answer(200), answer(200), answer(500), answer(200, OLD), answer(200))
    assert processes.start(NEW) == "/healthz"
    assert len(machine.asked) == 8
    assert (paths.RUN / NEW / "health").read_text() == "/healthz"


def test_without_a_health_path_the_first_page_counts_when_healthz_is_missing(machine: Machine, no_sleep: Any) -> None:
    machine.add(NEW, health_path=None)
    set_answers(machine, NEW, answer(404), answer(200))
    assert processes.start(NEW) == "/"
    assert [path for path, _ in machine.asked] == ["/healthz", "/", "/", "/"]


@pytest.mark.parametrize("healthz", [301, 302, 308, 401, 403, 404, 405])
@pytest.mark.parametrize("page", [200, 302, 401, 403, 404])
def test_without_a_health_path_each_answer_of_the_first_page_below_500_counts(
    machine: Machine, no_sleep: Any, healthz: int, page: int
) -> None:
    """A login, or a redirect to https."""
    machine.add(NEW, health_path=None)
    set_answers(machine, NEW, answer(healthz), answer(page))
    assert processes.start(NEW) == "/"
    assert [path for path, _ in machine.asked] == ["/healthz", "/", "/", "/"]
    assert no_sleep.now == 0


def test_without_a_health_path_an_error_at_healthz_is_waited_out(machine: Machine, no_sleep: Any) -> None:
    """The app has a health check of its own, and it says no."""
    machine.add(NEW, health_path=None)
    set_answers(machine, NEW, answer(503), answer(503), answer(200))
    assert processes.start(NEW) == "/healthz"
    assert [path for path, _ in machine.asked] == ["/healthz"] * 5


def test_without_a_health_path_an_answer_of_another_release_is_none(machine: Machine, no_sleep: Any) -> None:
    machine.add(NEW, health_path=None)
    set_answers(machine, NEW, answer(404), answer(302, OLD), answer(404, ""), answer(302))
    assert processes.start(NEW) == "/"
    assert len(machine.asked) == 6


def test_an_error_names_the_path_that_was_asked(machine: Machine, no_sleep: Any) -> None:
    machine.add(NEW, health_path=None)
    set_answers(machine, NEW, answer(404), answer(500))
    with pytest.raises(HostError, match=r"the health path / answers with an error") as caught:
        processes.start(NEW)
    assert "not healthy within 15 s at /: status 500" in str(caught.value)
    assert "/healthz" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302])
def test_a_redirect_at_the_stacks_health_path_is_not_healthy(machine: Machine, no_sleep: Any, status: int) -> None:
    machine.add(NEW, health_path="/up")
    set_answers(machine, NEW, answer(status))
    with pytest.raises(HostError, match="the health path /up redirects"):
        processes.start(NEW)


@pytest.mark.parametrize("status", [404, 401, 403])
def test_an_answer_that_will_not_change_ends_the_wait(machine: Machine, no_sleep: Any, status: int) -> None:
    machine.add(NEW)
    set_answers(machine, NEW, answer(status))
    with pytest.raises(HostError, match=f"its health path /healthz answered status {status}"):
        processes.start(NEW)
    assert len(machine.asked) == 1
    assert machine.running() == set()


@pytest.mark.parametrize(("timeout", "expected"), [(15, 15), (2, 2)])
def test_the_health_timeout_of_the_settings_is_kept(
    machine: Machine, no_sleep: Any, timeout: int, expected: int
) -> None:
    machine.add(NEW, health_timeout=timeout)
    set_answers(machine, NEW, answer(503))
    with pytest.raises(HostError, match=rf"not healthy within {timeout} s at /healthz: status 503, body: 'body'"):
        processes.start(NEW)
    assert expected <= no_sleep.now <= expected + 1


def test_a_release_that_ends_is_not_waited_for(machine: Machine, no_sleep: Any) -> None:
    machine.add(NEW)
    machine.systemd.broken.add(NEW)
    with pytest.raises(HostError, match=r"it stopped by itself \(exit-code, exit status 1\)"):
        processes.start(NEW)
    assert no_sleep.now < 1
    assert not machine.asked


def test_the_live_release_is_left_running_when_it_is_unhealthy(machine: Machine, no_sleep: Any) -> None:
    machine.add(OLD)
    machine.serve(OLD)
    set_answers(machine, OLD, answer(503, OLD))
    with pytest.raises(HostError):
        processes.start(OLD)
    assert machine.running() == {OLD}


def test_a_release_that_systemd_restarts_again_and_again_is_not_waited_for(machine: Machine, no_sleep: Any) -> None:
    machine.add(NEW)
    machine.systemd.crashing.add(NEW)
    with pytest.raises(HostError, match=r"it stopped by itself \(exit-code, exit status 1\)"):
        processes.start(NEW)
    assert no_sleep.now < 1
    assert not machine.asked


@pytest.mark.parametrize(
    ("result", "restarts", "text"),
    [
        ("exit-code", "0", "exit-code, exit status 9"),
        ("exit-code", "1", "exit-code, exit status 9"),
        ("success", "0", "success, exit status 9"),
        ("success", "1", "systemd has started it again since"),
    ],
)
def test_how_a_process_ended_is_not_guessed_after_a_restart(result: str, restarts: str, text: str) -> None:
    assert processes._how_it_ended({"Result": result, "NRestarts": restarts, "ExecMainStatus": "9"}) == text


@pytest.mark.parametrize(
    ("running", "logged", "shown"),
    [(False, 1000.0, True), (False, 999.9, False), (True, 995.0, True), (True, 994.9, False)],
)
def test_the_log_of_a_failed_start_begins_with_the_start(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, running: bool, logged: float, shown: bool
) -> None:
    """The last lines of a release that ran already may be seconds old. The clock of the day plays no part."""
    machine.add(NEW)
    machine.systemd.log, machine.systemd.logged = "KeyError: 'CANARY'", logged
    if running:
        machine.serve(NEW)
    set_answers(machine, NEW, answer(404))
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    with pytest.raises(HostError, match="answered status 404") as caught:
        processes.start(NEW)
    assert ("CANARY" in str(caught.value)) == shown


def test_a_log_of_any_bytes_is_shown(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """journalctl gives a text that is not UTF-8 as a list of bytes, and none at all as null."""
    entries = [{"MESSAGE": text, "__MONOTONIC_TIMESTAMP": "5000000"} for text in ([97, 255, 98], None, "c")]
    said = "".join(json.dumps(entry) + "\n" for entry in entries)
    monkeypatch.setattr(processes, "run", lambda *argv, check: SimpleNamespace(stdout=said))
    assert processes.journal("app@x", since=5.0) == "a\N{REPLACEMENT CHARACTER}b\n\nc"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (["a", "b"], "a\nb"),
        ([[97, 255], "b", None], "a\N{REPLACEMENT CHARACTER}\nb"),
        ([], ""),
        ([97, "b"], "b"),
        ([256, -1], ""),
        ({"a": 1}, ""),
        (7, ""),
        ("a\u2028b\x85c", "a\u2028b\x85c"),
    ],
)
def test_a_log_of_any_shape_is_shown(monkeypatch: pytest.MonkeyPatch, message: Any, text: str) -> None:
    """An app that writes to journald's own socket chooses its fields, and may send one twice."""
    entries = [{"MESSAGE": said, "__MONOTONIC_TIMESTAMP": "5000000"} for said in ("first", message, "last")]
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    said = "\n".join([*lines[:2], "{", "[]", "null", lines[2]]) + "\n"
    monkeypatch.setattr(processes, "run", lambda *argv, check: SimpleNamespace(stdout=said))
    assert processes.journal("app@x", since=5.0) == f"first\n{text}\nlast"


@pytest.mark.parametrize("where", ["journal", "wait_until_healthy"])
def test_a_release_that_is_not_healthy_is_ended_whatever_fails(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TypeError("of a kind that nobody expects")

    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.add(NEW)
    machine.systemd.broken.add(NEW)
    monkeypatch.setattr(processes, where, fail)
    with pytest.raises(TypeError, match="of a kind that nobody expects"):
        processes.start(NEW)
    assert machine.systemd.done[-2:] == [
        f"systemctl kill --signal=KILL app@{NEW}.service", f"systemctl stop app@{NEW}.service",
    ]  # fmt: skip
    assert machine.running() == {OLD}


def test_a_new_release_has_to_survive_as_long_as_crashes_after_a_start_take() -> None:
    """tests/hosts/test_broken_releases.py has a release that crashes after two seconds."""
    assert 2 < processes.FIRST_SECONDS <= 5, "each rollout waits that long"


def test_the_backlog_of_a_listening_socket_is_waited_for(machine: Machine, no_sleep: Any) -> None:
    machine.serve(OLD)
    machine.systemd.backlog = 3
    processes.wait_for_backlog(OLD)
    assert machine.systemd.backlog == 0
    assert 0 < no_sleep.now < 1
    no_sleep.now = 0.0
    processes.wait_for_backlog(OLD)
    assert no_sleep.now == 0.0, "an empty queue is not waited for, whatever its limit is"


def test_a_backlog_without_end_is_waited_for_no_longer_than_the_timeout(machine: Machine, no_sleep: Any) -> None:
    machine.serve(OLD)
    machine.systemd.backlog = 1_000_000
    processes.wait_for_backlog(OLD, timeout=5)
    assert 5 <= no_sleep.now < 6


def test_output_that_is_not_utf8_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app may write any bytes to the journal."""
    done = processes.run(sys.executable, "-c", r"import os; os.write(1, b'caf\xe9 \xff ok'); os.write(2, b'\xe9')")
    assert (done.stdout, done.stderr) == ("caf\ufffd \ufffd ok", "\ufffd")
    with pytest.raises(HostError, match="failed: \ufffd"):
        processes.run(sys.executable, "-c", r"import os, sys; os.write(2, b'\xe9'); sys.exit(1)")
