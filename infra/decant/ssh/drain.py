"""The `drain` step: take a machine out of its load balancer before it is deleted (`python -m decant.ssh.drain`).

It always exits with 0: whatever keeps a machine from draining must not keep the user from deleting it.
"""

from __future__ import annotations

import json
import os
import sys

from decant.errors import MachineError
from decant.ssh.client import Access, CommandResult
from decant.ssh.machine_client import run_decant_host
from decant_host.protocol import LONGEST_REQUEST_TIMEOUT

DRAIN_TIMEOUT = LONGEST_REQUEST_TIMEOUT + 180.0
"""Seconds. A load balancer stops sending requests within 30, and the machine itself knows how long a request takes."""

SKIP_VARIABLE = "DECANT_ALL_MACHINES_GO"
"""Set in the environment by `make destroy`: no machine is left to take over, so there is nothing to wait for."""

UNKNOWN_COMMAND = 2
"""Exit status of decant-host for a command that it does not know."""


def drain(access: Access) -> CommandResult:
    """Run the machine's own command, which ends when its load balancer sends nothing more and all is answered.

    Raises:
        MachineError: the machine cannot be reached.
    """
    result = run_decant_host(access, ["drain"], DRAIN_TIMEOUT)
    if result.status == UNKNOWN_COMMAND:  # a machine that the release before prepared calls it so
        result = run_decant_host(access, ["leave"], DRAIN_TIMEOUT)
    return result


def main() -> int:
    """Run the step for an `Access`, read as JSON from standard input."""
    if os.environ.get(SKIP_VARIABLE):
        return 0
    access = Access.from_dict(json.load(sys.stdin))
    try:
        result = drain(access)
    except MachineError as error:
        problem = str(error)
    else:
        problem = "" if result.status == 0 else result.stderr.strip() or f"exit status {result.status}"
    if problem:
        print(f"{access} is deleted without leaving its load balancer first: {problem}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
