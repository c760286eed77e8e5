"""Run the program once in the rehearsal's runner. Its configuration is JSON on standard input."""

from __future__ import annotations

import json
import sys

from rehearsal.computer import RehearsalError
from rehearsal.machines import Network
from rehearsal.runner import Progress, ThrowawayWorld, finish, run_program

NETWORK = "bench"


def main() -> int:
    """Everything that it says goes to the bench's log."""
    network = Network(name=NETWORK)
    world = ThrowawayWorld(network, Progress())
    try:
        run_program(NETWORK, json.load(sys.stdin), ["decant:sshPrivateKey"], world)
    except RehearsalError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    finish(main())
