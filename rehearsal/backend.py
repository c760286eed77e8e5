"""What the doubles of resources need done: the interface `Backend`, for real machines and for tests without any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from decant.ssh.client import Access, CommandResult
from rehearsal.accounts.base import Account
from rehearsal.issuer import Issuer


@dataclass(frozen=True, kw_only=True)
class Check:
    """How a load balancer checks machines, and how it treats connections. All times are in seconds."""

    path: str
    interval: int
    """From one check to the next."""
    timeout: int
    """How long a machine may take to answer a check."""
    rise: int
    """Good answers in a row before a machine gets requests, also a new one."""
    fall: int
    """Bad answers in a row before a machine gets none."""
    idle: int
    """How long a connection may be silent, a visitor's or a machine's."""
    keepalive: bool
    """Whether a connection to a machine is used for more than one request."""
    host: str | None = None
    """The Host header of a check; None: the machine's address."""
    expect: str = "200-399"
    """The statuses of a good answer."""


SAME_HOST = "same"


@dataclass(frozen=True, kw_only=True)
class Entrance:
    """How visitors come into a load balancer. Without certificates, nobody gets in at port 443."""

    certificates: tuple[str, ...] = ()
    """Each a PEM text: certificate, chain and key."""
    redirect: str | None = None
    """The host at https to which requests at port 80 are redirected; SAME_HOST for theirs. None: they are passed on."""


class Backend(Protocol):
    """What doubles ask for. Machines and load balancers are named by their public addresses."""

    issuer: Issuer
    """Issues what clouds' own certificate authorities do."""
    accounts: dict[str, Account]
    """The accounts at clouds, by the clouds' names in `decant:cloud`. A double adds its account where there is none."""

    def boot(self, name: str, user_data: str) -> str:
        """Start a machine with first-boot data and return its address."""
        ...

    def reserve(self) -> str:
        """Return an address that can be assigned to a machine."""
        ...

    def assign_address(self, reserved: str, machine: str) -> None:
        """Assign a reserved address to a machine."""
        ...

    def attach_to_network(self, machine: str, network: str) -> str:
        """Attach a machine to a private network, such as 10.0.0.0/16, and return its address there."""
        ...

    def create_load_balancer(self, name: str, network: str, check: Check) -> str:
        """Start a load balancer that reaches machines from inside a private network, and return its address."""
        ...

    def set_entrance(self, balancer: str, entrance: Entrance) -> None:
        """Change how visitors come in. Connections that are open stay. A new load balancer has `Entrance()`."""
        ...

    def set_targets(self, balancer: str, machines: Sequence[str]) -> None:
        """Replace the machines that a load balancer may send requests to, named by their private addresses."""
        ...

    def local(self, step: str, command: str, stdin: str) -> CommandResult:
        """Run a shell line where the program runs."""
        ...

    def remote(self, step: str, access: Access, command: str, stdin: str) -> CommandResult:
        """Run a shell line on a machine."""
        ...

    def copy(self, step: str, access: Access, source: Path, target: str) -> None:
        """Copy a file to a machine."""
        ...
