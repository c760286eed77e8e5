"""A machine leaves its balancer before it is deleted; nothing that goes wrong then keeps it from being deleted."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from typing import Any

import pytest

from decant import clouds, host, leave
from decant.session import Access
from rehearsal.doubles import key_pair
from tests.unit.paper_sshd import Run, Sshd

Capture = pytest.CaptureFixture[str]


def left(access: Access, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> tuple[int, str, str]:
    """Exit status and both outputs of the step."""
    given = {name: getattr(access, name) for name in access.__dataclass_fields__}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(given)))
    status = leave.main()
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize(("user", "sudo"), [("root", ""), ("carol", "sudo -n ")])
def test_it_runs_the_machines_own_verb(monkeypatch: pytest.MonkeyPatch, capsys: Capture, user: str, sudo: str) -> None:
    with Sshd(user=user).running() as sshd:
        assert left(sshd.access(), monkeypatch, capsys) == (0, "", "")
        assert sshd.lines == [f"{sudo}{host.PROGRAM} leave"]


def test_a_verb_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def fails(run: Run) -> int:
        run.say("decant-host: no such file\n", error=True)
        return 127

    with Sshd(on_command=fails).running() as sshd:
        status, out, err = left(sshd.access(), monkeypatch, capsys)
    assert (status, out) == (0, "")
    assert "web-1" in err
    assert "goes without leaving its balancer first: decant-host: no such file" in err


def test_a_verb_that_fails_without_a_word_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with Sshd(on_command=lambda run: 3).running() as sshd:
        status, _, err = left(sshd.access(), monkeypatch, capsys)
    assert status == 0
    assert err.rstrip().endswith("goes without leaving its balancer first: exit status 3")


def test_a_machine_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    status, out, err = left(Sshd(port=port).access(), monkeypatch, capsys)
    assert (status, out) == (0, "")
    assert "goes without leaving its balancer first: " in err


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host_key": key_pair()[1].strip()}, "shows another host key than the one that is pinned"),
        ({"private_key": key_pair()[0]}, "refused the login"),
    ],
    ids=["another machine", "another login"],
)
def test_a_machine_that_is_not_ours_is_told_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, changes: dict[str, Any], reason: str
) -> None:
    with Sshd().running() as sshd:
        status, _, err = left(sshd.access(**changes), monkeypatch, capsys)
        assert sshd.lines == []
    assert status == 0
    assert reason in err


def test_a_server_that_hangs_up_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with Sshd(hang_up="at once").running() as sshd:
        status, _, err = left(sshd.access(), monkeypatch, capsys)
    assert status == 0
    assert "goes without leaving its balancer first: " in err


def test_a_machine_that_never_ends_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(leave, "LONGEST", 0.5)
    done = threading.Event()
    began = time.monotonic()
    with Sshd(on_command=lambda run: int(done.wait(30))).running() as sshd:
        status, _, err = left(sshd.access(), monkeypatch, capsys)
        done.set()
    assert status == 0
    assert "goes without leaving its balancer first: " in err
    assert time.monotonic() - began < 20


def test_no_secret_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    access = Sshd(port=1).access()
    _, _, err = left(access, monkeypatch, capsys)
    assert not any(line in err for line in access.private_key.splitlines()[1:-1])


def test_it_waits_longer_than_the_machine_does() -> None:
    from decant_host import protocol

    assert leave.LONGEST > clouds.NOTICED + protocol.LONGEST_REQUEST + 30


def test_nobody_waits_where_all_machines_go(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv(leave.ALL_GO, "yes")
    with Sshd().running() as sshd:
        assert left(sshd.access(), monkeypatch, capsys) == (0, "", "")
        assert sshd.connections == 0
