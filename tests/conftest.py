"""Which tests go together where two processes run them."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling


class Halves(LoadScopeScheduling):
    """The tests that share one machine in one process, the fleets' and those without in the other.

    Both take about as long, and each test waits for its own machines alone.
    """

    def _split_scope(self, nodeid: str) -> str:
        shares = nodeid.startswith("tests/hosts/") and not nodeid.startswith("tests/hosts/test_fleet")
        return "one machine" if shares else "the rest"


def pytest_xdist_make_scheduler(config: Any, log: Any) -> Halves:
    """Asked for by `pytest -n 2`. (Groups by marks, which xdist has itself, do nothing with pytest 9.2.)"""
    return Halves(config, log)
