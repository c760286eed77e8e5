"""What both doubles of clouds are made of: throwaway machines and balancers that also go again."""

from __future__ import annotations

import secrets
import subprocess
import threading
from collections.abc import Sequence

from rehearsal.doubles import Check
from rehearsal.machines import Network
from rehearsal.runner import Progress, ThrowawayWorld


class Estate(ThrowawayWorld):
    """The machines and balancers of one account."""

    def __init__(self, network: Network) -> None:
        super().__init__(network, Progress())
        self.changing = threading.RLock()
        self.members: dict[str, list[str]] = {}
        """Who may be sent requests, by the balancer's address."""
        self.excluded: set[str] = set()

    def boot(self, name: str, user_data: str) -> str:
        """As in a rehearsal, but a name may come again while the machine that had it is still there."""
        return super().boot(f"{name}-{secrets.token_hex(3)}", user_data)

    def balance(self, name: str, network: str, check: Check) -> str:
        """The same for a balancer."""
        return super().balance(f"{name}-{secrets.token_hex(3)}"[-32:], network, check)

    def assign(self, reserved: str, machine: str) -> None:
        """Other than a cloud's network, this computer remembers which machine had an address before."""
        super().assign(reserved, machine)
        subprocess.run(["ip", "neighbour", "flush", "to", reserved], check=True)

    def targets(self, balancer: str, machines: Sequence[str]) -> None:
        """As in a rehearsal, but without those that were taken out."""
        with self.changing:
            self.members[balancer] = [address for address in machines if address not in self.excluded]
            super().targets(balancer, self.members[balancer])

    def exclude(self, inside: str) -> None:
        """The machine with this inside address is no balancer's target from now on."""
        with self.changing:
            self.excluded.add(inside)
            for balancer in self.balancers:
                self.targets(balancer, self.members[balancer])

    def remove(self, address: str) -> None:
        """Delete the machine, or the balancer, with this public address. Neither is ever another's."""
        with self.changing:
            machine = self._machine(address)
            self.balancers.pop(address, None)
            with self.lock:
                for members in self.private.values():
                    members.update({inside: None for inside, one in members.items() if one == machine})
            machine.power_off()

    def remove_balancers(self) -> None:
        """Delete all balancers."""
        for address in list(self.balancers):
            self.remove(address)
