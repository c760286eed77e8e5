"""The stacks of pull requests in an account, found by their tags: the types that the modules `reviews` of clouds share.

Such a module has two functions. `find(account)` returns the review stacks of the account's project. `remove(account,
review, others)` deletes one that no state has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from decant.clouds.inventory import Resource
from decant.errors import CloudApiError, StackError

PATIENCE = 600.0
"""Seconds that a cloud may say that something is in use by what was just deleted."""

INTERVAL = 5.0
"""Seconds between two attempts."""


@dataclass(frozen=True, kw_only=True)
class ReviewStack:
    """A review stack, as the tags in the account describe it.

    `ids` identify it in a state: the state that has one of them as an id or in an output is this stack's. A stack whose
    state was lost and one that was made anew may have the same name, so that there are two of these.
    """

    stack: str
    expires: datetime
    ids: frozenset[str]


def texts(resources: Iterable[Resource]) -> frozenset[str]:
    """All ids of resources in a state, and all texts in their outputs."""
    found: set[str] = set()
    for one in resources:
        found.update(_texts(one.get("outputs")), _texts(one.get("id")))
    return frozenset(found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def in_use(stack: str, what: str, why: str) -> StackError:
    """The error of something that has the tags of a review stack and may be another stack's."""
    return StackError(
        f"{what} has a tag of review stack {stack}, and {why}. So nothing of {stack} was deleted.\n"
        "  Take the tag that is not its own off it, or delete it by hand; then: make review-reap"
    )


def when_free(delete: Callable[[], None], busy: Callable[[CloudApiError], bool]) -> None:
    """Delete something as soon as the cloud lets it go. `busy` tells a refusal that will pass. Raises CloudApiError."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return delete()
        except CloudApiError as error:
            if not busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(INTERVAL)
