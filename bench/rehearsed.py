"""Runs the program once in the rehearsal's runner, with the configuration (JSON) from standard input."""

from __future__ import annotations

import json
import sys

from rehearsal.errors import RehearsalError
from rehearsal.machines.network import Network
from rehearsal.progress import Progress
from rehearsal.runner import finish, run_program
from rehearsal.throwaway_backend import ThrowawayBackend

NETWORK = "bench"


def main() -> int:
    """Run the program and return the exit status."""
    network = Network(name=NETWORK)
    backend = ThrowawayBackend(network, Progress())
    try:
        run_program(NETWORK, json.load(sys.stdin), ["decant:sshPrivateKey"], backend)
    except RehearsalError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    finish(main())
