"""The prober: it asks the public URL all the time while a release goes live, and counts what visitors would see."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from decant.rollout import http_probe
from decant.rollout.http_probe import BY_NAME, ProbeResult
from decant.rollout.report import ProbeSummary
from decant.rollout.route import Route
from decant.rollout.timeouts import PROBE_INTERVAL


@dataclass
class Prober:
    """Probes a URL from a thread of its own."""

    url: str
    needs_200: bool = True
    interval: float = PROBE_INTERVAL
    route: Route = BY_NAME
    results: list[ProbeResult] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Probe while the block runs."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                self.results.append(http_probe.probe(self.url, route=self.route))
                stop.wait(self.interval)

        thread = threading.Thread(target=work, name="prober", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=10)

    def summary(self) -> ProbeSummary:
        """Return how many requests there were, how many failed, and the times of those that did not."""
        good = [r for r in self.results if r.is_good(needs_200=self.needs_200)]
        if not good:
            return {"requests": len(self.results), "failed": len(self.results)}
        # From the start of the first request to the end of the last, so that an outage at either end counts as well.
        ends = [self.results[0].at + good[0].seconds, *(r.at + r.seconds for r in good)]
        ends.append(max(ends[-1], self.results[-1].at))
        gaps = [later - earlier for earlier, later in itertools.pairwise(ends)]
        times = sorted(r.seconds for r in good)
        return {
            "requests": len(self.results),
            "failed": len(self.results) - len(good),
            "longest_gap_ms": round(1000 * max(gaps)),
            "p50_ms": round(1000 * statistics.median(times), 1),
            "p99_ms": round(1000 * times[int(0.99 * len(times))], 1),
        }
