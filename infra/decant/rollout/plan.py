"""The plan: which release goes to which machines, and how many of them switch at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

from decant.rollout.certificate import Renewal
from decant.ssh.client import Access, AccessData
from decant_host import protocol

Balancer = Literal["managed", "external"]
"""`managed`: the stack makes the load balancer. `external`: it is the user's own."""


class PlannedMachine(AccessData):
    """A machine in a plan. `tag` is what it calls itself in answers; a machine that replaces it has another."""

    tag: str


class PlanData(TypedDict):
    """The JSON that the `rollout` step reads from standard input.

    `address` is where `url` leads to once the site's name, `domain`, does; None where it has no name. `root` is the PEM
    of a private certificate authority's root, None for the roots that this computer trusts.
    `renewal` is there where a load balancer of the stack ends HTTPS: who renews its certificates.
    `batch` is how many machines switch at a time. `done` has the outputs of the steps before; they are here so that a
    step that ran again makes the rollout run again.
    """

    url: str
    address: str
    domain: str | None
    root: str | None
    balancer: Balancer | None
    renewal: NotRequired[Renewal]
    batch: float
    machines: list[PlannedMachine]
    done: list[str]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to roll out and where. `balancer` is None where the URL leads to a machine."""

    release: str
    machines: tuple[Access, ...]
    url: str
    batch: int
    address: str = ""
    """Where the URL leads to once the site's name does."""
    domain: str | None = None
    root: str | None = field(default=None, repr=False)
    """PEM of a private certificate authority."""
    orders_certificate: bool = True
    """Whether a machine that gets HTTPS by itself is asked to order or renew its certificate."""
    balancer: Balancer | None = None
    renewal: Renewal | None = None
    """Of the certificates with which the load balancer ends HTTPS."""
    tags: frozenset[str] = frozenset()

    @classmethod
    def from_dict(cls, release: str, data: PlanData) -> Plan:
        """Read a plan's JSON; numbers may be floats, which is how Pulumi carries them."""
        return cls(
            release=release,
            machines=tuple(Access.from_dict(machine) for machine in data["machines"]),
            url=data["url"],
            address=data["address"],
            domain=data["domain"],
            root=data["root"],
            batch=int(data["batch"]),
            balancer=data["balancer"],
            renewal=data.get("renewal"),
            tags=frozenset(machine["tag"] for machine in data["machines"]),
        )

    @property
    def confirm_timeout(self) -> int:
        """Seconds after which a machine that was switched and not confirmed reverts by itself."""
        return int(protocol.CONFIRM_TIMEOUT + protocol.CONFIRM_TIMEOUT_PER_MACHINE * len(self.machines))
