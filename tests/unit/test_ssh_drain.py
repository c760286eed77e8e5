"""The `drain` step: a machine leaves its load balancer, and no error then keeps it from being deleted."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from decant.clouds import base
from decant.host.steps import PROGRAM
from decant.ssh import drain
from decant.ssh.client import Access
from decant_host import protocol
from rehearsal.doubles import key_pair
from tests.support.in_memory_sshd import Run, Sshd

Capture = pytest.CaptureFixture[str]


def run_step(access: Access, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> tuple[int, str, str]:
    """Exit status and both outputs of the step."""
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(vars(access))))
    status = drain.main()
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize(("user", "sudo"), [("root", ""), ("carol", "sudo -n ")])
def test_drain_runs_the_machines_own_command(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, user: str, sudo: str
) -> None:
    with Sshd(user=user).running() as sshd:
        assert run_step(sshd.access(), monkeypatch, capsys) == (0, "", "")
        assert sshd.lines == [f"{sudo}{PROGRAM} drain"]


def test_a_command_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def fails(run: Run) -> int:
        run.say("decant-host: no such file\n", error=True)
        return 127

    with Sshd(on_command=fails).running() as sshd:
        status, out, err = run_step(sshd.access(), monkeypatch, capsys)
    assert (status, out) == (0, "")
    assert "web-1" in err
    assert "is deleted without leaving its load balancer first: decant-host: no such file" in err


def test_a_command_that_gives_no_reason_is_reported_by_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with Sshd(on_command=lambda run: 3).running() as sshd:
        status, _, err = run_step(sshd.access(), monkeypatch, capsys)
    assert status == 0
    assert err.rstrip().endswith("is deleted without leaving its load balancer first: exit status 3")


def test_a_machine_that_is_gone_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    status, out, err = run_step(Sshd(port=port).access(), monkeypatch, capsys)
    assert (status, out) == (0, "")
    assert "is deleted without leaving its load balancer first: " in err


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host_key": key_pair()[1].strip()}, "shows another host key than the one that is pinned"),
        ({"private_key": key_pair()[0]}, "refused the login"),
    ],
    ids=["another machine", "another login"],
)
def test_another_machine_at_the_address_is_reported_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, changes: dict[str, Any], reason: str
) -> None:
    with Sshd().running() as sshd:
        status, _, err = run_step(sshd.access(**changes), monkeypatch, capsys)
        assert sshd.lines == []
    assert status == 0
    assert reason in err


def test_a_server_that_hangs_up_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with Sshd(hang_up="at once").running() as sshd:
        status, _, err = run_step(sshd.access(), monkeypatch, capsys)
    assert status == 0
    assert "is deleted without leaving its load balancer first: " in err


def test_a_command_that_never_ends_times_out(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(drain, "DRAIN_TIMEOUT", 0.5)
    done = threading.Event()
    with Sshd(on_command=lambda run: int(done.wait(30))).running() as sshd:
        status, _, err = run_step(sshd.access(), monkeypatch, capsys)
        done.set()
    assert status == 0
    assert "is deleted without leaving its load balancer first: " in err


def test_the_private_key_is_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    access = Sshd(port=1).access()
    _, _, err = run_step(access, monkeypatch, capsys)
    assert not any(line in err for line in access.private_key.splitlines()[1:-1])


def test_the_step_waits_longer_than_the_machine() -> None:
    assert base.DRAIN_SECONDS + protocol.kept_after_switch(protocol.LONGEST_REQUEST_TIMEOUT) + 30 < drain.DRAIN_TIMEOUT


def test_nothing_is_drained_where_all_machines_are_deleted(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv(drain.SKIP_VARIABLE, "yes")
    with Sshd().running() as sshd:
        assert run_step(sshd.access(), monkeypatch, capsys) == (0, "", "")
        assert sshd.connections == 0


def test_a_machine_of_the_release_before_is_drained_by_the_old_command(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Such a machine may be deleted by the first `up` after an upgrade, which does not prepare it anew."""
    with Sshd(user="root", on_command=lambda run: 2 if run.line.endswith("drain") else 0).running() as sshd:
        assert run_step(sshd.access(), monkeypatch, capsys) == (0, "", "")
        assert sshd.lines == [f"{PROGRAM} drain", f"{PROGRAM} leave"]


def test_the_old_module_name_still_drains() -> None:
    """States made by the release before name `decant.leave` in a delete command."""
    with Sshd(user="root").running() as sshd:
        given = json.dumps(vars(sshd.access()))
        done = subprocess.run(
            [sys.executable, "-m", "decant.leave"], input=given, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert sshd.lines == [f"{PROGRAM} drain"]
