"""Run decant-host, the machine's own program, over SSH."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any, cast

from decant.errors import MachineError
from decant.host.steps import PROGRAM
from decant.ssh.client import Access, CommandResult, Session
from decant_host.protocol import Status

STATUS_TIMEOUT = 30.0
"""Seconds for the answer to `status`."""


def as_root(user: str, command: str) -> str:
    """Return a shell command that runs as root for somebody who logs in as `user`."""
    return command if user == "root" else f"sudo -n {command}"


def decant_host_command(user: str, argv: Sequence[str]) -> str:
    """Return the shell command that runs decant-host with these arguments as root."""
    return as_root(user, shlex.join([PROGRAM, *argv]))


def run_decant_host(access: Access, argv: Sequence[str], timeout: float) -> CommandResult:
    """Run one command of decant-host, such as `["status"]`, on a connection of its own.

    Raises:
        UnreachableError: nobody answered within `timeout` seconds, or the connection broke.
        MachineError: the login is not possible.
    """
    with Session(access) as session:
        return session.run(decant_host_command(access.user, argv), timeout=timeout)


def status(access: Access) -> Status:
    """Return what decant-host reports about a machine.

    Raises:
        MachineError: the machine cannot be reached, the command failed, or the login shell prints text of its own.
    """
    result = run_decant_host(access, ["status"], STATUS_TIMEOUT)
    if result.status != 0:
        raise MachineError(f"{access}: {result.stderr.strip() or f'exit status {result.status}'}")
    return cast(Status, parse_object(access, result.stdout))


def save_certificate(access: Access) -> str | None:
    """Return the machine's certificate with its keys, to be kept as a secret; None where it has none.

    Raises:
        MachineError: as for `status`.
    """
    result = run_decant_host(access, ["certificate-save"], STATUS_TIMEOUT)
    if result.status != 0:
        raise MachineError(f"{access}: {result.stderr.strip() or f'exit status {result.status}'}")
    saved = parse_object(access, result.stdout)["saved"]
    return str(saved) if saved else None


def parse_object(access: Access, output: str) -> dict[str, Any]:
    """Return the JSON object that a command printed.

    Raises:
        MachineError: there is anything else in the output, which the user's login shell must have printed.
    """
    try:
        found = json.loads(output)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise shell_output_error(access, output)
    return found


def shell_output_error(access: Access, output: str) -> MachineError:
    """Return the error for output that did not come from a command of Decant.

    sshd runs every command through the user's login shell, and bash reads ~/.bashrc for it (bash(1), "invoked by the
    remote shell daemon").
    """
    shown = output if len(output) <= 200 else f"{output[:200]} ..."
    if not output:
        return MachineError(
            f"{access}: a command ran without any output. Does the login shell of user {access.user} start another"
            " program, as `exec zsh` in ~/.bashrc does?\n  Take that out, then run pulumi up again."
        )
    return MachineError(
        f"{access}: the login shell of user {access.user} prints text when it runs a command: {shown!r}\n"
        "  Make what it reads silent for non-interactive shells: ~/.bashrc of bash, ~/.zshenv of zsh,\n"
        "  ~/.config/fish/config.fish of fish. For bash, put this line first: case $- in *i*) ;; *) return ;; esac\n"
        "  Then run pulumi up again."
    )
