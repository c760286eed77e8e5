"""People at a site while it changes: one request after another at a fixed rate, each on a connection of its own.

The rate is kept whatever the site does, and a request's time counts from when it was due: a site that stalls does not
make its visitors wait politely and look fast (coordinated omission).
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

LONGEST = 10.0  # seconds that a visitor waits
MOST = 1000  # requests under way at once; what would be more is not sent, and counts as failed


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One request: when it was due and when it ended (time.monotonic), its status (0: no whole answer), its mark."""

    due: float
    ended: float
    status: int
    mark: str

    @property
    def seconds(self) -> float:
        """From when it was due."""
        return self.ended - self.due


class Visitors:
    """They come as long as the block runs; `visits` grows meanwhile. `mark` is a header that tells releases apart."""

    def __init__(self, address: str, *, rate: float, path: str = "/healthz", mark: str = "x-bench") -> None:
        self.address = address
        self.rate = rate
        self.mark = mark
        self.visits: list[Visit] = []
        self._request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
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
                task = asyncio.create_task(self._visit(due))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            else:
                self.visits.append(Visit(due=due, ended=due, status=0, mark=""))
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*under_way)

    async def _visit(self, due: float) -> None:
        status, mark = 0, ""
        try:
            async with asyncio.timeout(LONGEST):
                status, mark = await self._ask()
        except (OSError, ValueError, EOFError, LookupError):  # a time-out is an OSError
            pass
        self.visits.append(Visit(due=due, ended=time.monotonic(), status=status, mark=mark))

    async def _ask(self) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(self.address, 80)
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            await reader.readexactly(int(headers["content-length"]))
            return int(head[0].split()[1]), headers.get(self.mark, "")
        finally:
            writer.close()

    # ---------------------------------------------------------------- what they saw

    def verified(self, mark: str) -> float | None:
        """When the site had answered with this mark and gave nothing else any more; None: it has not come to that."""
        others = [v.due for v in self.visits if (v.status, v.mark) != (200, mark)]
        since = max(others, default=0.0)
        return min((v.ended for v in self.visits if (v.status, v.mark) == (200, mark) and v.due > since), default=None)

    def told(self, began: float, ended: float) -> dict[str, float]:
        """Requests that were due in this time: how many, how many failed, and milliseconds of the good ones."""
        seen = [v for v in self.visits if began <= v.due <= ended]
        times = [1000 * v.seconds for v in seen if v.status == 200]
        return {
            "requests": len(seen),
            "failed": len(seen) - len(times),
            "p50_ms": round(statistics.median(times), 1) if times else 0.0,
            "p99_ms": round(percentile(times, 99), 1),
        }


def percentile(values: Sequence[float], wanted: float) -> float:
    """The value that `wanted` percent of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * wanted / 100))] if ordered else 0.0
