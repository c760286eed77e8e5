"""An account at a cloud, for the clouds' doubles in tests/engine: a backend that can also remove machines."""

from __future__ import annotations

import secrets
import subprocess
import threading
from collections.abc import Sequence

from rehearsal.backend import Check
from rehearsal.machines.network import Network
from rehearsal.progress import Progress
from rehearsal.throwaway_backend import ThrowawayBackend


class FakeAccount(ThrowawayBackend):
    """The machines and load balancers of one account."""

    def __init__(self, network: Network) -> None:
        super().__init__(network, Progress())
        self.changing = threading.RLock()
        self.members: dict[str, list[str]] = {}
        """The targets of each balancer, by its address."""
        self.excluded: set[str] = set()

    def boot(self, name: str, user_data: str) -> str:
        """Boot a machine. Other than in a rehearsal, a name may be used again while its first machine still exists."""
        return super().boot(f"{name}-{secrets.token_hex(3)}", user_data)

    def create_load_balancer(self, name: str, network: str, check: Check) -> str:
        """Start a load balancer, also under a name that is still in use."""
        return super().create_load_balancer(f"{name}-{secrets.token_hex(3)}"[-32:], network, check)

    def assign_address(self, reserved: str, machine: str) -> None:
        """Assign an address, and have this computer forget which machine had it before."""
        super().assign_address(reserved, machine)
        subprocess.run(["ip", "neighbour", "flush", "to", reserved], check=True)

    def set_targets(self, balancer: str, machines: Sequence[str]) -> None:
        """Replace a balancer's targets, without the machines that `exclude` named."""
        with self.changing:
            self.members[balancer] = [address for address in machines if address not in self.excluded]
            super().set_targets(balancer, self.members[balancer])

    def exclude(self, inside: str) -> None:
        """Take the machine with this private address out of all balancers, for good."""
        with self.changing:
            self.excluded.add(inside)
            for balancer in self.balancers:
                self.set_targets(balancer, self.members[balancer])

    def remove(self, address: str) -> None:
        """Delete the machine or the balancer with this public address. No other one ever gets its addresses."""
        with self.changing:
            machine = self._machine(address)
            self.balancers.pop(address, None)
            with self.lock:
                for members in self.private.values():
                    members.update({inside: None for inside, one in members.items() if one == machine})
            machine.power_off()

    def power_off(self, address: str) -> None:
        """Switch a machine off."""
        self._machine(address).power_off()

    def power_on(self, address: str) -> None:
        """Switch on a machine that is off, with its disk as it was."""
        self._machine(address).boot_again()

    def remove_balancers(self) -> None:
        """Delete all balancers."""
        for address in list(self.balancers):
            self.remove(address)
