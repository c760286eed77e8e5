"""The machines of a stack as the verbs need them: all asked at once, one chosen by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from decant.errors import MachineError
from decant.ssh.client import Access, CommandResult
from decant.ssh.machine_client import STATUS_TIMEOUT, parse_object, run_decant_host
from decant_host.protocol import Overview

T = TypeVar("T")

UNKNOWN_COMMAND = 2
"""Exit status of decant-host for a command or an option that it does not know."""


def on_all(machines: Sequence[Access], action: Callable[[Access], T]) -> list[T | MachineError]:
    """What an action came to on each machine, all at once; for one that failed, the error."""

    def attempt(machine: Access) -> T | MachineError:
        try:
            return action(machine)
        except MachineError as error:
            return error

    with ThreadPoolExecutor(max(1, len(machines))) as pool:
        return list(pool.map(attempt, machines))


def chosen(machines: Sequence[Access], name: str) -> list[Access]:
    """The machine of this name, or all where it is "". Raises MachineError where there is no such machine."""
    found = [machine for machine in machines if name in ("", machine.name)]
    if not found:
        raise MachineError(
            f"There is no machine {name} in this stack; there are: {', '.join(m.name for m in machines)}"
        )
    return found


def overview(machine: Access) -> Overview:
    """What a machine says of itself. Raises MachineError."""
    result = run_decant_host(machine, ["overview"], STATUS_TIMEOUT)
    check(machine, result)
    return cast(Overview, parse_object(machine, result.stdout))


def check(machine: Access, result: CommandResult) -> None:
    """Raise MachineError where a command of decant-host failed."""
    if result.status != 0:
        raise failed(machine, result.status, result.stderr)


def failed(machine: Access, status: int, said: str) -> MachineError:
    """The error for a command of decant-host that failed."""
    if status == UNKNOWN_COMMAND:
        return MachineError(f"{machine}: the program there is older than this command. Renew it: make up STACK=...")
    return MachineError(f"{machine}: {said.strip() or f'exit status {status}'}")
