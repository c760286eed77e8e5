"""The `rollout` step: its input, its output and its signals."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from decant.errors import HttpsError, NotInRotationError, UnreachableError
from decant.rollout import __main__ as step
from decant.rollout import attempt, http_probe
from decant.rollout.http_probe import ProbeResult, probe
from decant.rollout.prober import Prober
from tests.support.fake_fleet import NEW, NO_CERTIFICATE, OLD, Fleet, access
from tests.support.in_memory import PRIVATE


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Puts the handlers of before back. Where the step sets none, the test fails instead of its whole process.

    SIGINT is ignored at first, as in a process that a shell starts in the background.
    """
    terminate = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nobody handles SIGTERM"))
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, interrupt)


def run_step(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """`python -m decant.rollout NEW < plan.json` on machine a."""
    fleet.current["a"] = fleet.persisted["a"] = OLD
    machine = {"tag": "a.1", **vars(access("a"))}
    plan = {
        "url": fleet.site.url,
        "address": "127.0.0.1",
        "domain": None,
        "root": None,
        "batch": 1,
        "machines": [machine],
        "balancer": None,
        "done": [],
    }
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(plan)))
    status = step.main([NEW])
    out, err = capsys.readouterr()
    assert PRIVATE.splitlines()[2] not in out + err
    return status, out, err


@pytest.mark.usefixtures("own_signals")
def test_the_step_prints_one_line(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run_step(fleet, monkeypatch, capsys)
    assert status == 0
    assert out.count("\n") == 1
    assert set(json.loads(out)) == {"url", "certificate", "saved_certificate", "release", "machines", "receipt"}


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("command", ["connect", "acquire lease", "prepare", "migrate", "switch"])
def test_the_step_fails_with_a_reason_and_no_traceback(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    fleet.faults[("a", command)] = UnreachableError("a: no answer")
    status, out, err = run_step(fleet, monkeypatch, capsys)
    assert (status, out) == (1, "")
    assert f"release {NEW} is not live: a: no answer" in err
    assert "What was served before is served still." in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_step_reverts_its_switch(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    inner = http_probe.wait_for_release

    def terminated(url: str, release: str, timeout: float, **options: Any) -> ProbeResult:
        os.kill(os.getpid(), number)
        return inner(url, release, timeout, **options)

    monkeypatch.setattr(attempt, "wait_for_release", terminated)
    status, out, err = run_step(fleet, monkeypatch, capsys)
    assert (status, out) == (130, "")
    assert "interrupted" in err
    assert fleet.touched("revert") == ["a"]
    assert fleet.touched("confirm") == []
    assert fleet.connections == set()


def test_the_step_needs_a_release(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        step.main([])
    assert caught.value.code == 2
    assert "release" in capsys.readouterr().err


# At a failed confirm, the new release is what visitors get, and other machines may keep it.
@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(
    "error", [UnreachableError("a: no answer"), KeyboardInterrupt()], ids=["failure", "interruption"]
)
def test_the_step_does_not_promise_the_old_release_when_a_confirm_failed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    fleet.faults[("a", "confirm")] = error
    status, _, err = run_step(fleet, monkeypatch, capsys)
    assert status != 0
    assert probe(fleet.site.url).release == NEW
    assert "served before is served still" not in err


@pytest.mark.usefixtures("own_signals")
def test_an_interruption_after_the_confirms_says_that_the_release_is_live(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prober, for one, may still wait for its last answer."""

    @contextlib.contextmanager
    def interrupted(self: Prober) -> Iterator[None]:
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(Prober, "running", interrupted)
    status, _, err = run_step(fleet, monkeypatch, capsys)
    assert status == 130
    assert fleet.touched("confirm") == ["a"]
    assert f"release {NEW}: interrupted; it is live" in err


@pytest.mark.usefixtures("own_signals")
def test_a_release_that_visitors_do_not_reach_everywhere_is_live(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: attempt.Attempt) -> None:
        raise NotInRotationError("the balancer sent no request to b")

    monkeypatch.setattr(attempt.Attempt, "run", fails)
    status, out, err = run_step(fleet, monkeypatch, capsys)
    assert (status, out) == (1, "")
    assert f"release {NEW} is live and confirmed on all machines, but visitors do not reach all: the balancer" in err
    assert "run pulumi up again" in err


@pytest.mark.usefixtures("own_signals")
def test_https_that_does_not_work_is_told_as_such(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: attempt.Attempt) -> None:
        raise HttpsError("https://example.com gave no answer")

    monkeypatch.setattr(attempt.Attempt, "run", fails)
    status, out, err = run_step(fleet, monkeypatch, capsys)
    assert (status, out) == (1, "")
    assert f"release {NEW} is live and confirmed, but HTTPS does not work: https://example.com gave no answer" in err


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(("left", "exit_status"), [(0.5, 0), (0.3, 0), (0.1, 1)])
def test_a_certificate_that_ends_soon_warns_and_then_fails(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], left: float, exit_status: int
) -> None:
    """With a third of its lifetime left, and with a sixth; the release is live each time."""
    begins = time.time() - (1 - left) * 7776000
    ends = begins + 7776000
    certificate = {**NO_CERTIFICATE, "state": "live", "not_before": begins, "not_after": ends, "reason": "port 80"}
    receipt = {"to": NEW, "from": OLD, "requests": 0, "failed": 0, "seconds": {"all": 1.0}}
    result = {"url": "https://x", "certificate": certificate, "release": NEW, "machines": [], "receipt": receipt}
    monkeypatch.setattr(attempt.Attempt, "run", lambda self: result)
    status, out, err = run_step(fleet, monkeypatch, capsys)
    assert (status, bool(out)) == (exit_status, not exit_status)
    assert ("was not renewed: port 80" in err) == (left < 1 / 3)


def test_the_module_can_be_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "decant.rollout", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "plan" in done.stdout
