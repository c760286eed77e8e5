"""Doubles of the resources that the program asks for: they return what the real provider would, to the letter.

What a double must really do (boot a machine, run a command) it asks of a `World`: throwaway machines in a rehearsal,
paper ones in the unit tests. A type that no double stands for is an error, never a guess.

Each module in this folder stands for one provider: `doubles(world, numbers)` maps types of resources to their doubles;
`calls(world)`, where there is one, does the same for look-ups; ENVIRONMENT has the prefixes of the environment
variables that the provider reads, which a rehearsal drops so that it reaches no account by accident.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pulumi
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from decant.ssh.client import Access, CommandResult

SIGNATURE = "4dabf18193072939515e22adb298388d"  # how Pulumi marks special values on the wire
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the mark of a secret, not one

Double = Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]
"""Given a resource's name and inputs, its id and what the provider computes."""
Call = Callable[[dict[str, Any]], dict[str, Any]]
"""Given a look-up's arguments, its result."""


class UnknownResourceError(Exception):
    """The program asks for a resource that no double stands for."""


class StepFailedError(Exception):
    """A command of the program failed; the text is what the user has to see."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """How a balancer asks machines whether they take requests, and how it treats connections."""

    path: str
    interval: int
    """Seconds from one check to the next."""
    timeout: int
    """Seconds that an answer may take."""
    rise: int
    """Good answers in a row until a machine gets requests, also one that is new."""
    fall: int
    """Bad answers in a row until it gets none."""
    idle: int
    """Seconds that a connection may be silent, a visitor's or a machine's."""
    keepalive: bool
    """Whether a connection to a machine is used for more than one request."""
    host: str | None = None
    """The Host header of a check; without one, the address of the machine."""
    expect: str = "200-399"
    """The statuses of a good answer."""


class World(Protocol):
    """What doubles do for real, or on paper."""

    def boot(self, name: str, user_data: str) -> str:
        """Start a machine with first-boot data; its address."""
        ...

    def reserve(self) -> str:
        """An address that can be given to a machine."""
        ...

    def assign(self, reserved: str, machine: str) -> None:
        """Give a reserved address to the machine at another address."""
        ...

    def inside(self, machine: str, network: str) -> str:
        """Put the machine at an address into a private network (10.0.0.0/16, say); its own address there."""
        ...

    def balance(self, name: str, network: str, check: Check) -> str:
        """Start a balancer that asks machines from inside a private network; its public address."""
        ...

    def targets(self, balancer: str, machines: Sequence[str]) -> None:
        """All that the balancer at a public address may send requests to: machines' addresses in its network."""
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


def revealed(value: Any) -> Any:
    """The value with every secret in it unwrapped."""
    if isinstance(value, Mapping):
        if value.get(SIGNATURE) == SECRET:
            return revealed(value["value"])
        return {key: revealed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [revealed(item) for item in value]
    return value


def is_wrapped(value: Any) -> bool:
    """Did the program mark this whole value as secret?"""
    return isinstance(value, Mapping) and value.get(SIGNATURE) == SECRET


def key_pair() -> tuple[str, str]:
    """A new ed25519 key: the private half in OpenSSH form, the public half as one line with its newline."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, public + "\n"


def providers() -> list[ModuleType]:
    """The modules of this folder, one a provider."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def environment() -> tuple[str, ...]:
    """Prefixes of the environment variables that providers read."""
    return tuple(prefix for one in providers() for prefix in getattr(one, "ENVIRONMENT", ()))


class Doubles(pulumi.runtime.Mocks):
    """Pulumi's mocks, with a double for each type of resource that the program uses."""

    def __init__(self, world: World) -> None:
        self.lock = threading.Lock()
        self._numbers = itertools.count(400000001)
        self.doubles: dict[str, Double] = {}
        self.calls: dict[str, Call] = {}
        for one in providers():
            self.doubles |= one.doubles(world, self.number)
            self.calls |= one.calls(world) if hasattr(one, "calls") else {}

    def number(self) -> str:
        """An id that nothing else has."""
        with self.lock:
            return str(next(self._numbers))

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        """One resource: its id and its outputs, inputs included and secrets still wrapped."""
        if not args.custom or args.typ.startswith("pulumi:providers:"):
            return "" if not args.custom else args.name, dict(args.inputs)
        double = self.doubles.get(args.typ)
        if double is None:
            raise UnknownResourceError(f"{args.typ} ({args.name}) has no double in rehearsal/doubles/")
        identity, outputs = double(args.name, revealed(args.inputs))
        return identity, {**args.inputs, **outputs}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]]]:
        """One look-up at a cloud."""
        if args.token not in self.calls:
            raise UnknownResourceError(f"the look-up {args.token} has no double in rehearsal/doubles/")
        return self.calls[args.token](revealed(args.args)), []
