"""What the accounts of all clouds share: a clock, errors in the cloud's own words, call limits, and late listings.

An account is a cloud's control plane in memory. It boots nothing: its caller starts machines and balancers, and
tells the account when they run. All methods expect the caller to hold `Account.lock` if it uses several threads.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

Item = TypeVar("Item")


class CloudError(Exception):
    """A call that the cloud refuses: the HTTP status, the error's code and the message, in the cloud's own words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Clock(Protocol):
    """Where an account reads the time, in seconds from any fixed moment."""

    def now(self) -> float:
        """Return the time."""
        ...


class RealClock:
    """The computer's clock."""

    def now(self) -> float:
        """Return the seconds since the computer started; nobody can set this clock."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        """Return the time that the test has set."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.time += seconds


@dataclass(kw_only=True)
class RateLimit:
    """At most `calls` calls in any `seconds` seconds."""

    calls: int
    seconds: float
    error: CloudError
    taken: list[float] = field(default_factory=list)

    def take(self, now: float) -> None:
        """Count one call.

        Raises:
            CloudError: `error`, when the limit is reached. A refused call does not count.
        """
        self.taken = [moment for moment in self.taken if moment > now - self.seconds]
        if len(self.taken) >= self.calls:
            raise self.error
        self.taken.append(now)


class Store(Generic[Item]):
    """Resources of one kind by their ids. One that was just made is not visible for `delay` seconds.

    `in`, iteration and `len` tell what there is; `get` and `visible` tell what a call to the cloud finds.
    """

    def __init__(self, clock: Clock, missing: CloudError, delay: float = 0) -> None:
        self.clock = clock
        self.missing = missing
        self.delay = delay
        self._items: dict[str, Item] = {}
        self._since: dict[str, float] = {}

    def add(self, key: str, item: Item) -> Item:
        """Keep a new resource and return it."""
        self._items[key] = item
        self._since[key] = self.clock.now()
        return item

    def get(self, key: str) -> Item:
        """Return the resource that a call names.

        Raises:
            CloudError: `missing`, because there is none, or because it is not visible yet.
        """
        if not self._is_visible(key):
            raise CloudError(self.missing.status, self.missing.code, self.missing.message.replace("{}", key))
        return self._items[key]

    def remove(self, key: str) -> Item:
        """Delete the resource that a call names, and return it. Raises CloudError as `get` does."""
        self.get(key)
        self._since.pop(key)
        return self._items.pop(key)

    def visible(self, delay: float | None = None) -> list[Item]:
        """Return the resources that a list shows, which may take another delay than a call that names one."""
        return [item for key, item in self._items.items() if self._is_visible(key, delay)]

    def _is_visible(self, key: str, delay: float | None = None) -> bool:
        wait = self.delay if delay is None else delay
        return key in self._items and self.clock.now() >= self._since[key] + wait

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, key: str) -> Item:
        return self._items[key]

    def values(self) -> list[Item]:
        """Return all resources, also those that no call finds yet."""
        return list(self._items.values())


class Account:
    """A cloud account with a clock, a lock, ids, and a limit of calls. Each cloud's account is a subclass."""

    def __init__(self, clock: Clock | None = None, rate: RateLimit | None = None) -> None:
        self.clock: Clock = clock or RealClock()
        self.rate = rate
        self.lock = threading.RLock()
        self._numbers = itertools.count(400000001)

    def number(self) -> int:
        """Return a number that nothing else in this account has."""
        return next(self._numbers)

    def called(self) -> None:
        """Count one call of the API. Raises CloudError when there are too many of them."""
        if self.rate:
            self.rate.take(self.clock.now())

    def inventory(self) -> dict[str, list[Any]]:
        """Return what is left in the account by kind, without kinds of which there is nothing."""
        raise NotImplementedError
