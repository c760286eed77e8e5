"""What is left of a stack in an account: the types that the modules `inventory` of the clouds share.

Such a module has three functions. `kept(resources)` returns what the cloud never deletes, of the resources in a stack's
state. `gone(account)` returns the URNs of those that somebody has deleted at the cloud, as far as Pulumi's provider
cannot cope with that. `left(account)` asks the cloud's API what it still has of a stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Resource = Mapping[str, Any]
"""A resource in the state of a stack, as Pulumi exports it: with `urn`, `type`, `id` and `outputs`."""


@dataclass(frozen=True, kw_only=True)
class StackInAccount:
    """A stack, and how to ask its account.

    `provider` are the settings of the cloud's provider, in clear and without their namespace. `resources` are those of
    the state before the stack was destroyed: their ids find what has neither a tag nor a name.
    """

    project: str
    stack: str
    provider: Mapping[str, Any]
    environ: Mapping[str, str]
    resources: Sequence[Resource] = ()

    def ids(self, kind: str) -> frozenset[str]:
        """The ids of the state's resources of a type."""
        return frozenset(str(one["id"]) for one in self.resources if one.get("type") == kind and one.get("id"))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A resource that the cloud never deletes. `why` says so, and how to let go of it."""

    urn: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Left:
    """Something that is left of a stack, and the command that deletes it.

    `type` and `id` are those of its resource, where it can lose the tag by which it was found.
    """

    what: str
    command: str
    type: str = ""
    id: str = ""
