"""What stands for machines where a test is about a cloud's resources alone: nothing boots, and nothing needs root."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from rehearsal.backend import Check, Entrance
from rehearsal.issuer import Issuer


class NoMachine:
    """A machine that is only on or off. A shutdown takes as long as real ones may."""

    def __init__(self, address: str, shutdown: float) -> None:
        self.address = address
        self.shutdown = shutdown
        self.addresses: list[str] = []
        self._on = True
        self._off_at: float | None = None

    @property
    def is_on(self) -> bool:
        if self._off_at is not None and time.monotonic() >= self._off_at:
            self._on, self._off_at = False, None
        return self._on

    def run(self, command: str | Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        if "poweroff" in command:
            self._off_at = time.monotonic() + self.shutdown
        return subprocess.CompletedProcess(command, 0, "", "")

    def power_off(self) -> None:
        self._on = False

    def boot_again(self) -> None:
        self._on = True

    def add_address(self, interface: str) -> None:
        self.addresses.append(interface)


class NoNetwork:
    """Hands out addresses."""

    cidr = "198.51.100.0/24"

    def __init__(self, shutdown: float) -> None:
        self.shutdown = shutdown
        self.numbers = itertools.count(10)

    def boot(self, name: str, **options: object) -> NoMachine:
        return NoMachine(f"198.51.100.{next(self.numbers)}", self.shutdown)


class NoMachines:
    """The machines and load balancers of an account that has none."""

    def __init__(self, shutdown: float = 45) -> None:
        self.network = NoNetwork(shutdown)
        self.balancers: dict[str, Any] = {}
        self.members: dict[str, list[str]] = {}
        self.entrances: dict[str, Entrance] = {}
        self.issuer = Issuer()
        self.inside = itertools.count(10)

    def attach_to_network(self, machine: str, network: str) -> str:
        return f"{network.rpartition('.')[0]}.{next(self.inside)}"

    def create_load_balancer(self, name: str, network: str, check: Check) -> str:
        address = f"198.51.100.{next(self.network.numbers)}"
        self.members[address] = []
        return address

    def set_entrance(self, balancer: str, entrance: Entrance) -> None:
        self.entrances[balancer] = entrance

    def set_targets(self, balancer: str, machines: Sequence[str]) -> None:
        self.members[balancer] = list(machines)

    def remove(self, address: str) -> None:
        self.members.pop(address, None)
