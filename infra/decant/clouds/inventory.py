"""What is left of a stack in an account: the types that the modules `inventory` of the clouds share.

Such a module has four functions. `foreign(account)` says why the credentials seem to be of another account than the
stack's. `kept(resources)` returns what the cloud never deletes, of the resources in a stack's state. `gone(account)`
returns those that somebody has deleted at the cloud, as far as Pulumi's provider cannot cope with that. `left(account)`
asks the cloud's API what it still has of a stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Resource = Mapping[str, Any]
"""A resource in the state of a stack, as Pulumi exports it: with `urn`, `type`, `id` and `outputs`."""

Entry = tuple[str, str]
"""The URN and the id of a resource. After a replacement that was cut short, two entries of a state have one URN."""


def entry(resource: Resource) -> Entry:
    """What tells a resource in a state from all others there."""
    return str(resource["urn"]), str(resource.get("id", ""))


@dataclass(frozen=True, kw_only=True)
class StackInAccount:
    """A stack, and how to ask its account.

    `provider` are the settings of the cloud's provider, in clear and without their namespace. `resources` are those of
    the state before the stack was destroyed: their ids find what has neither a tag nor a name.
    """

    project: str
    stack: str
    provider: Mapping[str, Any] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)
    resources: Sequence[Resource] = ()

    def ids(self, kind: str) -> frozenset[str]:
        """The ids of the state's resources of a type."""
        return frozenset(str(one["id"]) for one in self.resources if one.get("type") == kind and one.get("id"))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A resource that the cloud never deletes. `why` says so, and how to let go of it."""

    entry: Entry
    why: str


@dataclass(frozen=True, kw_only=True)
class Left:
    """Something that is left of a stack, and the command that deletes it.

    `ours` says whether the state tells that it is this stack's. Else another state may have it: a colleague's stack may
    have the same name. `type` and `id` are those of its resource, where it can lose the tag by which it was found.
    """

    what: str
    command: str
    ours: bool
    type: str = ""
    id: str = ""
