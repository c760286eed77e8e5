"""Where machines come from: one module a cloud, one Protocol between them and the rest.

A cloud is a module in this folder with `KIND`, what it says of itself without importing any of the cloud's packages,
and `create(settings)`, which returns a `Cloud`. Nothing else has to know that it exists: docs/clouds.md has the list.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pulumi

    from decant.machine import Machine
    from decant.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a cloud's module says of itself."""

    title: str
    """Its name as people write it."""
    settings: frozenset[str]
    """Settings that mean something here; one that no cloud names in its `settings` belongs to all of them."""
    required: tuple[str, ...]
    """Settings that a stack must have."""
    defaults: Mapping[str, Any]
    """Values of settings that the stack leaves out."""
    provider: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Settings of the cloud's own Pulumi provider that a stack must have, each with an environment variable that does
    as well, and an example of a value."""


# How a cloud's balancer asks a machine whether it may send requests there. Serving checklist A7.
CHECK_INTERVAL = 10  # seconds
CHECK_TIMEOUT = 5  # seconds
CHECK_THRESHOLD = 2  # checks in a row, both ways
NOTICED = CHECK_THRESHOLD * CHECK_INTERVAL + CHECK_TIMEOUT  # seconds until every balancer acts on a failing check
IDLE = 60  # seconds that a balancer keeps an idle connection; nginx keeps it for longer


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """What stands before the machines, as the rest of the program needs to know it."""

    networks: pulumi.Input[list[str]]
    """Where its requests and health checks come from: nobody else's word on a client's address is taken."""
    tells_scheme: bool
    """Whether its X-Forwarded-Proto says how the visitor asks; else it was http."""
    ours: bool
    """Whether this stack makes it: then the public URL answers only when it sends requests to a machine."""
    noticed: int = NOTICED
    """Seconds after which it has noticed that a machine wants no more requests."""
    first: tuple[pulumi.Resource, ...] = ()
    """What must exist before the public URL can answer."""


class Cloud(Protocol):
    """What a cloud gives: machines that can be logged in to, perhaps a balancer, and the site's names."""

    machines: list[Machine]
    balancer: Balancer | None

    def names(self, machine: Machine) -> pulumi.Output[list[str]]:
        """Host names and addresses that visitors use, the public one first."""
        ...

    @property
    def url(self) -> pulumi.Output[str]:
        """The public URL, without a path."""
        ...


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"decant.clouds.{name}")


def kinds() -> dict[str, Kind]:
    """Every cloud there is, by the word for it in `decant:cloud`."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: _module(name).KIND for name in names if hasattr(_module(name), "KIND")}


def create(settings: Settings) -> Cloud:
    """The stack's machines and what belongs to them."""
    cloud: Cloud = _module(settings.cloud).create(settings)
    return cloud


class _WhenUsed:
    """Stands for a package until something is asked of it."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._package), name)


def when_used(package: str) -> Any:
    """A cloud's package, imported at its first use: they take seconds, and a stack needs those of one cloud.

    importlib.LazyLoader would not do: it imports as soon as anything looks through sys.modules, as `inspect` does.
    """
    return _WhenUsed(package)
