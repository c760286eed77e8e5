"""The visitors of a site under test: the bench's load generator, with a mix of requests that must all succeed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import visitors
from bench.visitors import Kind
from tests.support.waiting import PATIENCE, wait_for

KINDS = (
    Kind(path="/", kept=True),
    Kind(path="/request"),
    Kind(path="/healthz", kept=True),
    Kind(path="/echo", body=20_000),
    Kind(path="/echo", body=20_000, kept=True),
    Kind(path="/static/style.css"),
)


class Visitors(visitors.Visitors):
    """Send GET and POST requests on kept and on new connections while the block runs, at most `at_once` at a time.

    `failures` has a text for each request without a whole answer of status 200. `releases` has the releases that
    answered, in order, each again whenever another one answered in between.
    """

    def __init__(
        self,
        address: str,
        *,
        rate: float = 80,
        kinds: Sequence[Kind] = KINDS,
        at_once: int = len(KINDS),
        **options: Any,
    ) -> None:
        super().__init__(
            address, rate=rate, kinds=kinds, release_header="x-release", at_once=at_once, patience=PATIENCE,
            skips=True, **options,
        )  # fmt: skip
        self.failures: list[str] = []
        self.releases: list[str] = []
        self.answers = 0

    def __enter__(self) -> Visitors:
        super().__enter__()
        self.more()
        return self

    def record(self, visit: visitors.Visit) -> None:
        """Keep the result of one request."""
        super().record(visit)
        if visit.failure:
            self.failures.append(visit.failure)
            return
        self.answers += 1
        if visit.release and self.releases[-1:] != [visit.release]:
            self.releases.append(visit.release)

    def more(self, count: int = 30) -> None:
        """Wait until `count` more requests have ended."""
        enough = len(self.visits) + count
        wait_for(lambda: len(self.visits) >= enough, f"{count} more requests")
