"""What a preview's steps mean at a cloud: which resources are machines, addresses, openings, names and certificates.

`decant.preview` makes the sentences of it. A kind is the engine's type of a resource, `PACKAGE:MODULE/NAME:NAME`.
Values are those of `decant.preview.events`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from decant.preview.events import Hidden

Inputs = Mapping[str, Any]
MACHINES = "the machines"
BALANCER = "the load balancer"
EVERYBODY = "everybody"
ANY_ADDRESS = frozenset({"0.0.0.0/0", "::/0"})


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Somebody may connect to something."""

    port: str
    """A port, a range such as `8000-8010`, or empty for all ports."""
    protocol: str
    """`tcp`, `udp`, `icmp`, or empty for all protocols."""
    of: str
    """`MACHINES` or `BALANCER`."""
    peer: str
    """`EVERYBODY`, `BALANCER`, a network in CIDR notation, or other words."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A DNS record."""

    name: str
    type: str
    value: str
    """Where it leads; empty where that is known only after the run."""
    ttl: int
    """Seconds that a resolver keeps it."""
    validates: bool = False
    """Whether it only proves to a certificate authority that the name is the user's."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate of a load balancer."""

    names: tuple[str, ...]
    """Empty for one of the user's own."""
    own: bool


def _nothing(kind: str, name: str, inputs: Inputs) -> None:
    return None


def _no_openings(kind: str, name: str, inputs: Inputs) -> tuple[Opening, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class CloudChanges:
    """How to read a cloud's resources. The three functions take a resource's kind, its name and its inputs.

    A cloud of hosts that exist has nothing of it.
    """

    title: str
    machine: str = ""
    """The kind of its machines."""
    size: str = ""
    """The input of a machine that is its size."""
    stopping: frozenset[str] = frozenset()
    """Inputs of a machine that the cloud changes in place, but only while the machine is off."""
    running: frozenset[str] = frozenset()
    """Inputs of a machine that the cloud changes while it runs."""
    stop: str = ""
    """How a machine alone is stopped, and for how long the site is away: one sentence."""
    cuts_power: bool = False
    """Whether it is stopped without a shutdown, so that what is not on the disk yet is lost."""
    of_one_machine: tuple[str, ...] = ()
    """Kinds of what is made and deleted with one machine, and has its name."""
    address: str = ""
    """The kind of the address of a site without a load balancer."""
    address_output: str = ""
    balancer: str = ""
    """The kind of its load balancers."""
    balancer_output: str = ""
    """The output of a load balancer that is its name or address."""
    openings: Callable[[str, str, Inputs], tuple[Opening, ...]] = _no_openings
    record: Callable[[str, str, Inputs], Record | None] = _nothing
    certificate: Callable[[str, str, Inputs], Certificate | None] = _nothing
    validation: str = ""
    """The kind of the step that waits until a certificate of the same name is issued; empty where all wait."""
    opening_inputs: frozenset[str] = frozenset()
    """The inputs that `openings` reads: nothing else has to be told of their changes."""


def peer(network: Any) -> str:
    """A network as the other side of an opening."""
    return EVERYBODY if network in ANY_ADDRESS else str(network)


def known(value: Any) -> str:
    """A value as text; empty where it is not known yet."""
    return "" if value is None or isinstance(value, Hidden) else str(value)
