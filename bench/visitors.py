"""The load generator of bench and tests: requests to a site at a fixed rate.

Requests are sent on schedule, whether earlier ones were answered or not, and a request's time counts from the moment
when it was due. Otherwise a site that stalls would delay the requests that measure the stall, and look fast (this error
is known as coordinated omission).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PATIENCE = 10.0  # seconds until a request without a whole answer counts as failed
AT_ONCE = 1000  # requests under way at most


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of request: a POST when it has `body` bytes; on a connection that is `kept`, or on a new one.

    `slow` requests take long on purpose, and count in no percentile.
    """

    path: str
    body: int = 0
    kept: bool = False
    slow: bool = False


NEW = Kind(path="/healthz")
# Pages, some forms, static files, and one request in two hundred that the app needs 1.5 s for.
_PAGES = 5 * (NEW, Kind(path="/", kept=True), Kind(path="/request", kept=True))
_FORMS = (*3 * (Kind(path="/echo", body=2000),), Kind(path="/echo", body=20_000, kept=True))
MIXED = (*10 * (*_PAGES, *_FORMS, Kind(path="/static/style.css", kept=True)), Kind(path="/slow", slow=True))


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One request: when it was due and when it ended (time.monotonic), its status (0: no whole answer), its release.

    `failure` is the reason when the answer was not a whole one with status 200, else empty.
    """

    due: float
    ended: float
    status: int
    release: str
    failure: str = ""
    slow: bool = False

    @property
    def seconds(self) -> float:
        """The time from when it was due until it ended."""
        return self.ended - self.due


class Visitors:
    """Sends `rate` requests a second while the block runs, and appends each to `visits` when it has ended.

    `release_header` names the header that has an answer's release. When `at_once` requests are under way, one more
    counts as failed, or is left out if `skips` is set. A request may take `patience` seconds. With `tls`, requests are
    sent over HTTPS to a site of that `name`.
    """

    def __init__(
        self,
        address: str,
        *,
        rate: float,
        kinds: Sequence[Kind] = (NEW,),
        release_header: str = "x-bench",
        at_once: int = AT_ONCE,
        patience: float = PATIENCE,
        skips: bool = False,
        tls: ssl.SSLContext | None = None,
        name: str = "",
    ) -> None:
        self.address = address
        self.name = name or address
        self.tls = tls
        self.rate = rate
        self.release_header = release_header
        self.at_once = at_once
        self.patience = patience
        self.skips = skips
        self.visits: list[Visit] = []
        self._kinds = itertools.cycle(kinds)
        self._idle = deque[Connection]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send_all()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(self.patience + 5)

    def record(self, visit: Visit) -> None:
        """Keep the result of one request; called in the generator's thread."""
        self.visits.append(visit)

    async def _send_all(self) -> None:
        due, under_way = time.monotonic(), set[asyncio.Task[None]]()
        while not self._stop.is_set():
            if len(under_way) < self.at_once:
                task = asyncio.create_task(self._visit(due, next(self._kinds)))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            elif not self.skips:
                self.record(Visit(due=due, ended=due, status=0, release="", failure="too many requests under way"))
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*under_way)

    async def _visit(self, due: float, kind: Kind) -> None:
        status, release, failure = 0, "", ""
        try:
            async with asyncio.timeout(self.patience):
                status, release, body = await self._ask(kind)
            # The app answers a form with the number of bytes that it received.
            if status != 200 or (kind.body and json.loads(body)["length"] != kind.body):
                failure = f"{kind.path}: {status} {body[:200]!r}"
        except (OSError, ValueError, EOFError, LookupError) as error:  # a time-out is an OSError
            status, failure = 0, f"{kind.path}: {error!r}"
        ended = time.monotonic()
        self.record(Visit(due=due, ended=ended, status=status, release=release, failure=failure, slow=kind.slow))

    async def _connect(self, kind: Kind) -> Connection:
        # In turn: the server closes one that is idle for long, perhaps while the next request is on its way.
        while kind.kept and self._idle:
            reader, writer = self._idle.popleft()
            if not reader.at_eof():  # the server closed it as idle; every client looks for that
                return reader, writer
            writer.close()
        if self.tls:
            return await asyncio.open_connection(self.address, 443, ssl=self.tls, server_hostname=self.name)
        return await asyncio.open_connection(self.address, 80)

    async def _ask(self, kind: Kind) -> tuple[int, str, bytes]:
        reader, writer = await self._connect(kind)
        keep = False
        try:
            start = f"{'POST' if kind.body else 'GET'} {kind.path} HTTP/1.1\r\nHost: {self.name}\r\n"
            ends = "" if kind.kept else "Connection: close\r\n"
            writer.write(f"{start}{ends}Content-Length: {kind.body}\r\n\r\n".encode() + b"x" * kind.body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            body = await reader.readexactly(int(headers["content-length"]))
            keep = kind.kept and headers.get("connection") != "close"
            return int(head[0].split()[1]), headers.get(self.release_header, ""), body
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                writer.close()

    # ---------------------------------------------------------------- results

    def verified(self, release: str) -> float | None:
        """Return the time from which this release alone answered; None while anything else answers."""
        others = [v.due for v in self.visits if (v.status, v.release) != (200, release)]
        since = max(others, default=0.0)
        new = (v.ended for v in self.visits if (v.status, v.release) == (200, release) and v.due > since)
        return min(new, default=None)

    def statistics(self, *spans: tuple[float, float]) -> dict[str, float]:
        """Count the requests that were due in these spans and those that failed; percentiles are of the others."""
        seen = [v for v in self.visits if any(began <= v.due <= ended for began, ended in spans)]
        good = [v for v in seen if not v.failure]
        times = [1000 * v.seconds for v in good if not v.slow]
        return {
            "requests": len(seen),
            "failed": len(seen) - len(good),
            "p50_ms": round(statistics.median(times), 1) if times else 0.0,
            "p99_ms": round(percentile(times, 99), 1),
        }


def percentile(values: Sequence[float], wanted: float) -> float:
    """Return the value that `wanted` percent of the values do not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * wanted / 100))] if ordered else 0.0
