"""Running decant-host over SSH: as root, with its output read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decant.errors import MachineError
from decant.host.steps import PROGRAM
from decant.ssh import machine_client
from decant.ssh.machine_client import as_root, decant_host_command, run_decant_host, status
from tests.support.in_memory_sshd import Run, Sshd

STATUS: dict[str, Any] = {
    "machine": "web-1", "current": None, "persisted": None, "running": [], "releases": [], "confirmed": [],
    "lease": None, "in_rotation": False, "reverted": None,
}  # fmt: skip


def printing(text: str, *, error: str = "", code: int = 0) -> Sshd:
    def command(run: Run) -> int:
        run.say(text)
        run.say(error, error=True)
        return code

    return Sshd(on_command=command)


def test_root_needs_no_sudo() -> None:
    assert as_root("root", "true") == "true"
    assert as_root("carol", "true") == "sudo -n true"


def test_arguments_are_quoted_for_the_shell() -> None:
    assert decant_host_command("carol", ["revert", "--because", "it's $(id)"]) == (
        f"sudo -n {PROGRAM} revert --because 'it'\"'\"'s $(id)'"
    )


def test_a_command_has_its_result() -> None:
    with printing("out", error="err", code=3).running() as sshd:
        result = run_decant_host(sshd.access(), ["boot"], timeout=30)
        assert sshd.lines == [f"sudo -n {PROGRAM} boot"]
    assert (result.status, result.stdout, result.stderr) == (3, "out", "err")


def test_status_is_what_the_machine_reports() -> None:
    with printing(json.dumps(STATUS) + "\n").running() as sshd:
        assert status(sshd.access()) == STATUS
        assert sshd.lines == [f"sudo -n {PROGRAM} status"]


@pytest.mark.parametrize(
    ("error", "text"), [("sudo: a password is required\n", "a password is required"), ("", "exit status 1")]
)
def test_a_status_that_fails_names_the_machine_and_the_reason(error: str, text: str) -> None:
    with printing("", error=error, code=1).running() as sshd, pytest.raises(MachineError) as caught:
        status(sshd.access())
    assert str(caught.value).startswith("web-1 (carol@127.0.0.1")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "output", ["Welcome to web-1!\n" + json.dumps(STATUS), json.dumps(STATUS) + "\nBye", "[]", "7"]
)
def test_text_of_the_login_shell_is_named_with_the_remedy(output: str) -> None:
    with printing(output).running() as sshd, pytest.raises(MachineError) as caught:
        status(sshd.access())
    assert f"the login shell of user carol prints text when it runs a command: {output[:5]!r}"[:-1] in str(caught.value)
    assert "Make what it reads silent for non-interactive shells" in str(caught.value)


def test_long_text_of_the_login_shell_is_cut() -> None:
    with printing("x" * 5000).running() as sshd, pytest.raises(MachineError) as caught:
        status(sshd.access())
    assert "x" * 200 + " ..." in str(caught.value)
    assert "x" * 201 not in str(caught.value)


def test_no_output_at_all_suggests_another_program_in_place_of_the_shell() -> None:
    with printing("").running() as sshd, pytest.raises(MachineError, match=r"without any output.*exec zsh"):
        status(sshd.access())


def test_a_silent_machine_is_given_up_within_a_minute() -> None:
    """`make rollback` waits for each machine's status."""
    assert 10 <= machine_client.STATUS_TIMEOUT <= 60
