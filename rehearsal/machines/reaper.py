"""Networks that end with the process that made them, also when that process is killed.

`owned_network` starts this module as a second process, the reaper. The reaper reads from a pipe that only the owner
holds open. When the owner ends, in whatever way, the kernel closes the pipe, and the reaper takes the network down.
The reaper is in a session of its own, so that Ctrl-C in the owner's terminal does not reach it.

Owner and reaper both hold the lock `tests-NAME`. So the next owner waits until everything is gone, and a network whose
lock is free belongs to nobody: `abandoned_networks` finds what is left when both were killed with SIGKILL.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from rehearsal.errors import RehearsalError
from rehearsal.machines.network import Network, known_networks
from rehearsal.this_host import is_locked, locked


def _lock(name: str) -> str:
    return f"tests-{name}"


@contextlib.contextmanager
def owned_network(name: str) -> Iterator[Network]:
    """Make a network for this block, waiting for another process that has it; gone after the block.

    Raises:
        RehearsalError: The network cannot be made, or cannot be taken down.
    """
    network = Network(name=name)
    with locked(_lock(name)) as lock:
        network.down()  # left by an owner that was killed together with its reaper
        reaper = subprocess.Popen(
            [sys.executable, "-m", "rehearsal.machines.reaper", name],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, pass_fds=[lock], start_new_session=True,
        )  # fmt: skip
        try:
            network.up()
            yield network
        finally:
            _, errors = reaper.communicate()  # closes the pipe
            if reaper.returncode:
                raise RehearsalError(f"network {name} could not be taken down:\n{errors}")


def abandoned_networks() -> list[Network]:
    """Return the networks whose owner is gone. The rehearsal's own network, which has no owner, is among them."""
    return [network for network in known_networks() if not is_locked(_lock(network.name))]


def main() -> None:
    """Wait until standard input is closed, then take the network down that the first argument names."""
    sys.stdin.read()
    Network(name=sys.argv[1]).down()


if __name__ == "__main__":
    main()
