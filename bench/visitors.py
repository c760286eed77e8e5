"""People at a site while it changes: one request after another at a fixed rate.

The rate is kept whatever the site does, and a request's time counts from when it was due: a site that stalls does not
make its visitors wait politely and look fast (coordinated omission).
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LONGEST = 10.0  # seconds that a visitor waits
MOST = 1000  # requests under way at once; what would be more is not sent, and counts as failed


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a visitor asks for: with `body` bytes it is a POST; on a connection that is `kept`, or on a new one.

    `slow` is what takes its time and counts in no percentile.
    """

    path: str
    body: int = 0
    kept: bool = False
    slow: bool = False


NEW = Kind(path="/healthz")
# A browser's visits, a form now and then, and one in two hundred that the app thinks about.
_PAGES = 5 * (NEW, Kind(path="/", kept=True), Kind(path="/request", kept=True))
_FORMS = (*3 * (Kind(path="/echo", body=2000),), Kind(path="/echo", body=20_000, kept=True))
MIXED = (*10 * (*_PAGES, *_FORMS, Kind(path="/static/style.css", kept=True)), Kind(path="/slow", slow=True))


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One request: when it was due and when it ended (time.monotonic), its status (0: no whole answer), its mark."""

    due: float
    ended: float
    status: int
    mark: str
    slow: bool = False

    @property
    def seconds(self) -> float:
        """From when it was due."""
        return self.ended - self.due


class Visitors:
    """They come as long as the block runs; `visits` grows meanwhile. `mark` is a header that tells releases apart."""

    def __init__(self, address: str, *, rate: float, kinds: Sequence[Kind] = (NEW,), mark: str = "x-bench") -> None:
        self.address = address
        self.rate = rate
        self.mark = mark
        self.visits: list[Visit] = []
        self._kinds = itertools.cycle(kinds)
        self._idle: list[Connection] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._come()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(LONGEST + 5)

    async def _come(self) -> None:
        due, under_way = time.monotonic(), set[asyncio.Task[None]]()
        while not self._stop.is_set():
            if len(under_way) < MOST:
                task = asyncio.create_task(self._visit(due, next(self._kinds)))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            else:
                self.visits.append(Visit(due=due, ended=due, status=0, mark=""))
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*under_way)

    async def _visit(self, due: float, kind: Kind) -> None:
        status, mark = 0, ""
        try:
            async with asyncio.timeout(LONGEST):
                status, mark = await self._ask(kind)
        except (OSError, ValueError, EOFError, LookupError):  # a time-out is an OSError
            pass
        self.visits.append(Visit(due=due, ended=time.monotonic(), status=status, mark=mark, slow=kind.slow))

    async def _connect(self, kind: Kind) -> Connection:
        while kind.kept and self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():  # closed for being idle, which every client looks for
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.address, 80)

    async def _ask(self, kind: Kind) -> tuple[int, str]:
        reader, writer = await self._connect(kind)
        keep = False
        try:
            head_of = f"{'POST' if kind.body else 'GET'} {kind.path} HTTP/1.1\r\nHost: {self.address}\r\n"
            ends = "" if kind.kept else "Connection: close\r\n"
            writer.write(f"{head_of}{ends}Content-Length: {kind.body}\r\n\r\n".encode() + b"x" * kind.body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            await reader.readexactly(int(headers["content-length"]))
            keep = kind.kept and headers.get("connection") != "close"
            return int(head[0].split()[1]), headers.get(self.mark, "")
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                writer.close()

    # ---------------------------------------------------------------- what they saw

    def verified(self, mark: str) -> float | None:
        """When the site had answered with this mark and gave nothing else any more; None: it has not come to that."""
        others = [v.due for v in self.visits if (v.status, v.mark) != (200, mark)]
        since = max(others, default=0.0)
        return min((v.ended for v in self.visits if (v.status, v.mark) == (200, mark) and v.due > since), default=None)

    def told(self, *spans: tuple[float, float]) -> dict[str, float]:
        """Requests that were due in these times: how many, how many failed, and milliseconds of the good ones."""
        seen = [v for v in self.visits if any(began <= v.due <= ended for began, ended in spans)]
        good = [v for v in seen if v.status == 200]
        times = [1000 * v.seconds for v in good if not v.slow]
        return {
            "requests": len(seen),
            "failed": len(seen) - len(good),
            "p50_ms": round(statistics.median(times), 1) if times else 0.0,
            "p99_ms": round(percentile(times, 99), 1),
        }


def percentile(values: Sequence[float], wanted: float) -> float:
    """The value that `wanted` percent of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * wanted / 100))] if ordered else 0.0
