"""A network for the machines of these tests, where this computer has all that they need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rehearsal.computer import locked
from rehearsal.image import missing_needs
from rehearsal.machines import Network
from tests.engine.project import missing


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    lacking = missing("command") + [f"{need.what} ({need.command})" for need in missing_needs()]
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    with locked("tests-engine"):  # one run of these tests at a time on this computer
        network = Network(name="engine")
        network.down()  # of a run that was killed
        network.up()
        yield network
        network.down()
