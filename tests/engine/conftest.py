"""A network for the machines of these tests, on a computer that has everything that they need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rehearsal.machines.image import missing_needs
from rehearsal.machines.network import Network
from rehearsal.machines.reaper import owned_network
from tests.support.pulumi_stack import missing


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """The network; where this computer lacks something, the tests are skipped with the command that installs it."""
    lacking = missing("command") + [f"{need.what} ({need.command})" for need in missing_needs()]
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    with owned_network("engine") as network:
        yield network
