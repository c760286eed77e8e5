"""Keeps this computer's own settings out of the tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pulumi.runtime.settings import SETTINGS

from decant.rollout import attempt
from rehearsal import doubles
from tests.support import in_memory
from tests.support.fake_fleet import FakeAgent, Fleet, Site


@pytest.fixture(autouse=True)
def no_settings_of_this_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy, a cloud's token or a Pulumi setting of whoever runs the tests must not change what they find."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PULUMI_CONFIG", "PULUMI_CONFIG_SECRET_KEYS", "PULUMI_CONFIG_PASSPHRASE",
                 "PULUMI_CONFIG_PASSPHRASE_FILE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    for name in [n for n in os.environ if n.startswith(doubles.environment())]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def an_event_loop() -> Iterator[None]:
    """A test's own, as Pulumi's outputs need one, whatever the test before it left."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    # Pulumi waits for every output at the end of a program, and one of this loop would never come.
    SETTINGS.outputs.clear()
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., in_memory.Run]:
    """Run the program once: `start(DROPLET, machines=2)`, with `preview=True` for a preview."""
    count = iter(range(100))

    def run(config: Mapping[str, Any], *, preview: bool = False, **settings: Any) -> in_memory.Run:
        folder = in_memory.project(tmp_path / str(next(count)))
        return in_memory.run_program(folder, {**config, **settings}, monkeypatch, preview=preview)

    return run


@pytest.fixture
def site() -> Iterator[Site]:
    """A public URL."""
    with Site().running() as running:
        yield running


@pytest.fixture
def fleet(site: Site, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Machines that an attempt finds in place of real ones."""
    made = Fleet(site=site)
    monkeypatch.setattr(attempt, "MachineAgent", type("Agent", (FakeAgent,), {"fleet": made}))
    return made
