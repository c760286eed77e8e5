"""Which tests run, and how they are distributed over two processes."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support import thorough


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the thorough tests out, unless `-m` asks for them or CI has to run them."""
    if "thorough" in config.getoption("markexpr") or thorough.are_due():
        return
    slow = [item for item in items if item.get_closest_marker("thorough")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in set(slow)]
