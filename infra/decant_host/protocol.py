"""The protocol between the coordinator (`decant.rollout`, where `pulumi` runs) and the agent on a machine.

The coordinator starts `decant-host lease` over SSH and keeps that connection open for the whole rollout attempt. Both
directions carry lines of JSON:

    coordinator -> agent    Heartbeat, Request
    agent -> coordinator    Held (once), Heartbeat, Reply

**Freshness.** Every line of the agent carries the machine's monotonic clock, and every line of the coordinator echoes
the newest clock value that it has received. The agent carries out a request only while that echo is at most
ECHO_TIMEOUT seconds old, measured with the machine's clock alone. The coordinator gives a machine up when it has
received nothing for REPLY_TIMEOUT seconds. Since ECHO_TIMEOUT is shorter, a request that a broken network delivers
late is refused: no machine acts for a coordinator that has given it up. The same check runs again after a command has
waited for a lock.

**Times.** All are in seconds. They form a ladder, which tests/unit/test_protocol.py checks:

    2 * HEARTBEAT_INTERVAL < ECHO_TIMEOUT < REPLY_TIMEOUT < LEASE_TIMEOUT < CONFIRM_TIMEOUT

This module is imported by both ends, so it uses the standard library alone.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

RELEASE_ID = r"[0-9a-f]{12}"
"""The pattern of a release id."""

HEARTBEAT_INTERVAL = 2.0
"""Between two heartbeats of the coordinator. The agent answers each one at once."""

ECHO_TIMEOUT = 8.0
"""Age of the echoed clock from which the agent refuses requests. It exceeds two heartbeat intervals, because an echo is
up to one interval old when it is sent and stays the newest one for another interval."""

REPLY_TIMEOUT = 12.0
"""Without any line from the agent, after which the coordinator gives the machine up."""

LEASE_TIMEOUT = 15.0
"""Without any line from the coordinator, after which the agent gives the lease back."""

LEASE_PATIENCE = 3.0
"""That a new attempt waits for the lease of an attempt which has just ended: sshd may not have noticed its end yet."""

CONFIRM_TIMEOUT = 30.0
"""That a switched release waits for its confirm before the machine goes back by itself, for a fleet of one ..."""

CONFIRM_TIMEOUT_PER_MACHINE = 5.0
"""... and more for each machine of the fleet."""

EXTEND_AFTER = 5.0
"""Of a confirm time-out after which the coordinator extends it while other machines have their turn."""

PREPARE_TIMEOUT = 420.0
"""For the reply to `prepare`: it may wait out a health time-out (300 s at most) and install requirements."""

MIGRATE_TIMEOUT = 3700.0
"""For the reply to `migrate`: systemd ends a release command after 3600 s (host/systemd/release@.service)."""

COMMAND_TIMEOUT = 60.0
"""For the reply to any other command."""

UNCLAIMED_TIMEOUT = 15 * 60
"""That a staged release runs before it stops, when no rollout switches to it."""

LONGEST_ROLLOUT = 2 * 3600
"""A rollout may take this long; a release command alone may take an hour."""

LONGEST_REQUEST = 40.0
"""A visitor's request ends within this time: nginx waits 35 s for an answer."""


class Held(TypedDict):
    """The agent's first line: it holds the machine's lease for this attempt."""

    held: bool
    clock: float


class Heartbeat(TypedDict):
    """A sign of life. `clock` is the machine's monotonic clock: the agent's own, or the coordinator's echo of it."""

    clock: float


class Request(TypedDict):
    """A command of decant-host for this machine, as its command line. `id` is unique within the attempt."""

    id: int
    argv: list[str]
    clock: float


class Reply(TypedDict):
    """What a command came to: exit status, and its output as text. A status of 0 has a JSON object in `stdout`."""

    id: int
    status: int
    stdout: str
    stderr: str
    clock: float


class Prepared(TypedDict):
    """Output of `prepare`.

    `current` is what was live before the command, `persisted` what a boot would bring back; None where there is none.
    `confirmed`: this release was live here once. `health`: the path that it answers on. `in_rotation`: the load
    balancer's health check is let through.
    """

    release: str
    health: str
    current: str | None
    persisted: str | None
    confirmed: bool
    release_command: bool
    in_rotation: bool


class Migrated(TypedDict):
    """Output of `migrate`. `skipped`: there is a release command, but the release was live here before."""

    release: str
    migrated: bool
    skipped: bool


class Switched(TypedDict):
    """Output of `switch` and `extend`."""

    release: str


class Confirmed(TypedDict):
    """Output of `confirm`."""

    release: str


class Reverted(TypedDict):
    """Output of `revert`: what is live now, and what was live before; None where there is none."""

    release: str | None
    reverted: str | None


class Staged(TypedDict):
    """Output of `stage`, which Pulumi runs over SSH outside of an attempt. `seconds`: preparing, then starting.

    `nonce` differs each time, so that a stage that ran again makes the rollout run again.
    """

    release: str
    machine: str
    health: str
    installed: bool
    seconds: dict[str, float]
    nonce: str


class LeaseHolder(TypedDict):
    """Who rolls out a release on a machine; `since` is a Unix time on the machine's clock."""

    attempt: NotRequired[str]
    owner: NotRequired[str]
    since: NotRequired[float]


class Status(TypedDict):
    """Output of `status`."""

    machine: str
    current: str | None
    persisted: str | None
    running: list[str]
    releases: list[str]
    confirmed: list[str]
    lease: LeaseHolder | None
    in_rotation: bool
    reverted: dict[str, object] | None
