"""Requests that reach a real agent late: the machine refuses them, whatever they are and whenever they come."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from decant.ssh.client import Session
from decant.ssh.machine_client import decant_host_command
from decant_host.protocol import ECHO_TIMEOUT, LEASE_TIMEOUT
from tests.support.site import Site, settled
from tests.support.visitors import Visitors
from tests.support.waiting import PATIENCE, wait_for

ATTEMPT = "0123456789abcdef"
SEED = 20261128
LOCK = "/run/decant/switching.lock"


class Coordinator:
    """Speaks the protocol by hand, so that the echo in a request can have any age: what ages in a network that is down
    is the echo, and an old one is the same as a late one."""

    def __init__(self, session: Session) -> None:
        command = decant_host_command("root", ["lease", "--attempt", ATTEMPT, "--owner", "test"])
        self.channel = session.start(command, timeout=PATIENCE)
        self.lines = self.channel.makefile("rb")
        self.requests = 0
        self.send({"clock": 0.0})
        assert self.read()["held"] is True

    def send(self, message: dict[str, Any]) -> None:
        self.channel.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> dict[str, Any]:
        line = self.lines.readline()
        assert line, self.channel.makefile_stderr("rb").read()
        message: dict[str, Any] = json.loads(line)
        self.clock: float = message["clock"]
        return message

    def ask(self, argv: list[str], *, age: float) -> None:
        """Send a request whose echo is so many seconds old."""
        self.requests += 1
        clock = self.clock - age
        self.send({"id": self.requests, "argv": [*argv, "--attempt", ATTEMPT], "clock": clock})

    def call(self, argv: list[str], *, age: float) -> dict[str, Any]:
        """Send a request and return the reply."""
        self.ask(argv, age=age)
        return self.reply()

    def reply(self) -> dict[str, Any]:
        """Return the reply to the last request; answers to heartbeats come between."""
        while "id" not in (message := self.read()):
            pass
        assert message["id"] == self.requests
        return message

    def close(self) -> None:
        self.channel.shutdown_write()
        assert self.channel.status_event.wait(PATIENCE)


@pytest.fixture
def session(site: Site) -> Iterator[Session]:
    with Session(site.access) as session:
        yield session
    wait_for(lambda: settled(site), "the end of the attempt")


@pytest.fixture(scope="module")
def other(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A release that is staged and not live."""
    app = site.variant(tmp_path_factory.mktemp("late"), {"static/name.txt": "late"})
    staged = site.stage(app)
    assert staged.status == 0, staged.error
    return staged.release


def commands(release: str) -> list[list[str]]:
    """All that a coordinator asks for."""
    return [
        ["prepare", release],
        ["migrate", release],
        ["switch", release, "--deadline", "600"],
        ["extend", release, "--deadline", "600"],
        ["confirm", release],
        ["revert", "--because", "a test"],
    ]


def deliver_late(coordinator: Coordinator, release: str, count: int, chance: random.Random) -> None:
    """Requests at random ages from the limit on; the machine refuses each of them."""
    for _ in range(count):
        argv = chance.choice(commands(release))
        age = chance.uniform(ECHO_TIMEOUT, 4 * LEASE_TIMEOUT)
        reply = coordinator.call(argv, age=age)
        assert reply["status"] == 1, (argv, age, reply)
        assert "Run pulumi up again" in reply["stderr"], (argv, age, reply)


def test_200_late_requests_switch_nothing(site: Site, session: Session, other: str) -> None:
    live, chance = site.live, random.Random(SEED)
    with Visitors(site.address) as visitors:
        coordinator = Coordinator(session)
        deliver_late(coordinator, other, 100, chance)
        status = site.status()
        assert (status["current"], status["persisted"]) == (live, live)

        # In time, the same requests are carried out: the agent reads what this test writes.
        for argv in commands(other)[:3]:
            reply = coordinator.call(argv, age=0.0)
            assert reply["status"] == 0, reply
        assert site.status()["current"] == other
        coordinator.close()

        # On another connection, because an echo in time counts for the requests after it.
        coordinator = Coordinator(session)
        deliver_late(coordinator, other, 100, chance)
        status = site.status()
        assert (status["current"], status["persisted"]) == (other, live), "neither confirmed nor reverted"
        assert coordinator.call(["revert", "--because", "a test"], age=0.0)["status"] == 0
        assert site.live == live
        coordinator.close()
        visitors.more()
    assert visitors.failures == []
    assert set(visitors.releases) == {live, other}


def test_a_request_that_waits_for_a_lock_until_it_is_too_late_is_refused(
    site: Site, session: Session, other: str
) -> None:
    live = site.live
    coordinator = Coordinator(session)
    assert coordinator.call(["prepare", other], age=0.0)["status"] == 0
    site.machine.run(f"systemd-run --quiet --collect --unit=holds-the-lock flock {LOCK} sleep 600")
    try:
        try_lock = ["flock", "--nonblock", LOCK, "true"]
        wait_for(lambda: site.machine.run(try_lock, check=False).returncode, "the lock")
        coordinator.ask(["switch", other, "--deadline", "600"], age=0.0)
        time.sleep(ECHO_TIMEOUT + 1)  # without a heartbeat, as from a coordinator that is cut off
    finally:
        site.machine.run("systemctl stop holds-the-lock")
    reply = coordinator.reply()
    assert reply["status"] == 1, reply
    assert "Run pulumi up again" in reply["stderr"]
    assert site.live == site.status()["current"] == live
    coordinator.close()


def test_a_cut_off_machine_gives_its_lease_back(site: Site, session: Session) -> None:
    """Another attempt can begin once the first coordinator was silent for LEASE_TIMEOUT."""
    coordinator = Coordinator(session)
    began = time.monotonic()
    while coordinator.lines.readline():  # the answer to the heartbeat that asked for the lease
        pass
    silent = time.monotonic() - began
    assert LEASE_TIMEOUT - 1 < silent < LEASE_TIMEOUT + 10
    assert site.status()["lease"] is None
