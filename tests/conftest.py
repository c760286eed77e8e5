"""The distribution of tests over two processes."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling


class TwoHalvesScheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Runs the tests that share one machine in one process, and the fleets' tests and all others in the other one.

    Both halves take about the same time, and no process waits for a machine that the other one uses.
    """

    def _split_scope(self, nodeid: str) -> str:
        shares = nodeid.startswith("tests/hosts/") and not nodeid.startswith("tests/hosts/test_fleet")
        return "one machine" if shares else "the rest"


def pytest_xdist_make_scheduler(config: Any, log: Any) -> TwoHalvesScheduling:
    """Return the scheduler for `pytest -n 2`. xdist's own groups by marks have no effect with pytest 9.2."""
    return TwoHalvesScheduling(config, log)
