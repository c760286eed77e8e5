"""`run` from where the user is: the request, input, output, and the status, against an SSH server in memory."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest

from decant.errors import UnreachableError
from decant.host.steps import PROGRAM
from decant.verbs import one_off
from decant.verbs.one_off import run_command
from decant_host.protocol import SHELL_GUARD
from tests.support.in_memory_sshd import Run, Sshd


class Machine:
    """What `decant-host run` reads, line by line."""

    def __init__(self, run: Run) -> None:
        self.lines = run.channel.makefile("r")
        self.guard = "".join(self.lines.readline() for _ in range(SHELL_GUARD.count("\n")))
        self.request: dict[str, Any] = json.loads(self.lines.readline())

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.lines.readline())
        return found


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set what is on this process's standard input."""

    def give(data: bytes) -> None:
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        monkeypatch.setattr(sys, "stdin", os.fdopen(reading, "r"))

    return give


def test_the_request_goes_by_standard_input_behind_its_guard(given: Any) -> None:
    given(b"")
    seen: list[Machine] = []

    def command(run: Run) -> int:
        seen.append(Machine(run))
        return 0

    with Sshd(on_command=command).running() as sshd:
        assert run_command(sshd.access(), "flask users set 'pass word'", None) == 0
        assert sshd.lines == [f"sudo -n {PROGRAM} run"]
    assert seen[0].guard == SHELL_GUARD
    assert seen[0].request == {"command": "flask users set 'pass word'", "release": None, "terminal": None}


def test_input_outputs_and_the_status_are_passed_on(given: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    given(b"in\x00\xff")

    def command(run: Run) -> int:
        machine = Machine(run)
        got = b""
        while not (line := machine.read()).get("end"):
            got += base64.b64decode(line.get("data", ""))
        run.channel.sendall(b"out " + got)
        run.say("err", error=True)
        return 7

    with Sshd(on_command=command).running() as sshd:
        assert run_command(sshd.access(), "cat", "0123456789ab") == 7
    assert capfdbinary.readouterr() == (b"out in\x00\xff", b"err")


def test_without_input_the_end_of_input_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    lines: list[dict[str, Any]] = []

    def command(run: Run) -> int:
        lines.append(Machine(run).read())
        return 0

    with Sshd(on_command=command).running() as sshd:
        assert run_command(sshd.access(), "true", None) == 0
    assert lines == [{"end": True}]


def test_a_silent_user_sends_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(reading, "r"))
    monkeypatch.setattr(one_off, "PING_INTERVAL", 0.05)
    lines: list[dict[str, Any]] = []

    def command(run: Run) -> int:
        machine = Machine(run)
        lines.extend([machine.read(), machine.read()])
        return 0

    with Sshd(on_command=command).running() as sshd:
        assert run_command(sshd.access(), "true", None) == 0
    os.close(writing)
    assert lines == [{}, {}]


def test_a_connection_that_breaks_names_the_machine(given: Any) -> None:
    given(b"")

    def command(run: Run) -> int:
        Machine(run)
        run.channel.get_transport().close()
        return 0

    with Sshd(on_command=command).running() as sshd, pytest.raises(UnreachableError) as caught:
        run_command(sshd.access(), "true", None)
    assert str(caught.value).startswith("web-1 (carol@127.0.0.1")
    assert "while the command ran. The machine stops the command." in str(caught.value)


def test_a_machine_with_an_older_program_is_told(given: Any, capfd: pytest.CaptureFixture[str]) -> None:
    given(b"")

    def command(run: Run) -> int:
        run.say("decant-host: error: argument COMMAND: invalid choice: 'run' (choose from stage)\n", error=True)
        return 2

    with Sshd(on_command=command).running() as sshd:
        assert run_command(sshd.access(), "true", None) == 2
    assert "Renew it: make up STACK=..." in capfd.readouterr().err


TERMINAL = """
import os, sys
from decant.ssh.client import Access
from decant.verbs.one_off import run_command
import json
sys.exit(run_command(Access(**json.loads(sys.argv[1])), "bash", None))
"""


def test_a_terminal_is_passed_on_key_by_key() -> None:
    outer, inner = pty.openpty()
    seen: list[Any] = []

    def command(run: Run) -> int:
        machine = Machine(run)
        seen.append(machine.request["terminal"])
        run.say("ready\r\n")
        typed = b""
        while b"\x03" not in typed:
            typed += base64.b64decode(machine.read().get("data", ""))
        seen.append(typed)
        return 130

    with Sshd(on_command=command).running() as sshd:
        words = [sys.executable, "-c", TERMINAL, json.dumps(vars(sshd.access()))]
        with subprocess.Popen(
            words,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=os.environ | {"TERM": "vt220", "COLUMNS": "91", "LINES": "17"},
        ) as process:
            text = b""
            while b"ready" not in text:
                text += os.read(outer, 1000)
            os.write(outer, b"ab\x03")
            try:
                assert process.wait(timeout=30) == 130
            finally:
                process.kill()
    assert seen == [["vt220", 17, 91], b"ab\x03"]
    assert b"ab" not in text, "the machine echoes, not this terminal"
    os.close(inner)
    os.close(outer)
