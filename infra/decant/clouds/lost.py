"""What a killed command may have made without Pulumi's knowing: the types that the modules `lost` of the clouds share.

Pulumi records that it begins to make a resource, and its id when the cloud has answered. Killed in between, it does not
know whether there is one: its state has a pending operation. Such a module has one function. `find(account, resource)`
asks the cloud for the resource of a pending operation, by what nothing but that resource can have.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What the cloud has of a resource that was being made.

    `id` is the one that the provider would have given it; empty where there is none. `unclear` says why that is not
    known, and how to look for it; empty where it is known.
    """

    id: str = ""
    unclear: str = ""


NOTHING = Lost()
