"""The protocol between the coordinator (`decant.rollout`, where `pulumi` runs) and the agent on a machine.

The coordinator starts `decant-host lease` over SSH and keeps that connection open for the whole rollout attempt. Both
directions carry lines of JSON:

    coordinator -> agent    Heartbeat, Request
    agent -> coordinator    Held (once), Heartbeat, Reply

**Freshness.** Every line of the agent carries the machine's monotonic clock, and every line of the coordinator echoes
the newest clock value that it has received. The agent carries out a request only while that echo is at most
ECHO_TIMEOUT seconds old, measured with the machine's clock alone. The coordinator gives a machine up when it has
received nothing for REPLY_TIMEOUT seconds. Since ECHO_TIMEOUT is shorter, a request that a broken network delivers
late is refused: no machine acts for a coordinator that stopped waiting. The same check runs again after a command has
waited for a lock. It then also refuses a command whose request is so old that its coordinator waits no more for the
reply, or not for long enough.

**Times.** All are in seconds. They form a ladder, which tests/unit/test_protocol.py checks:

    2 * HEARTBEAT_INTERVAL < ECHO_TIMEOUT < REPLY_TIMEOUT < LEASE_TIMEOUT < CONFIRM_TIMEOUT

This module is imported by both ends, so it uses the standard library alone.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

RELEASE_ID = r"[0-9a-f]{12}"
"""The pattern of a release id."""

PUBLIC_RESOLVERS = ("1.1.1.1", "8.8.8.8", "9.9.9.9")
"""The DNS servers that are asked where no others are set."""

HEARTBEAT_INTERVAL = 2.0
"""The coordinator sends a heartbeat at this interval. The agent answers each one at once."""

ECHO_TIMEOUT = 8.0
"""The agent refuses a request when the echoed clock is older than this. It is more than two heartbeat intervals: an
echo may be one interval old when it is sent, and stays the newest one for another interval."""

REPLY_TIMEOUT = 12.0
"""The coordinator gives a machine up when no line came from its agent for this time."""

LEASE_TIMEOUT = 15.0
"""The agent gives the lease back when no line came from the coordinator for this time."""

FIRST_LINE_TIMEOUT = 120.0
"""The agent ends when no line at all came for this time. The coordinator logs in to all machines before it asks for a
lease, and one of them may be slow."""

LEASE_PATIENCE = 3.0
"""A new attempt waits this long for the lease of another one, which may have ended without sshd noticing it yet."""

CONFIRM_TIMEOUT = 30.0
"""A machine goes back by itself when a switched release gets no confirm within this time ..."""

CONFIRM_TIMEOUT_PER_MACHINE = 5.0
"""... and this much more for each machine of the fleet."""

EXTEND_AFTER = 5.0
"""While other machines have their turn, the coordinator extends a confirm time-out that has run for this time."""

PREPARE_TIMEOUT = 420.0
"""The reply to `prepare` may take this long: it waits for a health time-out (300 s at most) and may install
requirements."""

STAGING_PATIENCE = 120.0
"""`prepare` waits this long for another release that is being staged; the longest health time-out then still fits into
PREPARE_TIMEOUT."""

MIGRATE_TIMEOUT = 4000.0
"""The reply to `migrate` may take this long: systemd ends a release command after 3600 s (release@.service), and then
the app has its health time-out."""

CERTIFICATE_TIMEOUT = 120.0
"""The reply to `certificate` may take this long: the certificate authority asks the machine in turn."""

COMMAND_TIMEOUT = 60.0
"""The reply to any other command may take this long."""

ACT_MARGIN = 10.0
"""A command that has waited for a lock is refused when less than this is left of the time-out for its reply."""

UNCLAIMED_TIMEOUT = 15 * 60
"""A staged release is stopped after this time when no rollout has switched to it."""

LONGEST_ROLLOUT = 2 * 3600
"""A rollout may take this long; a release command alone may take an hour."""

REQUEST_TIMEOUT = 30
"""The time that an app has to answer, where neither `decant:requestTimeout` nor its web line says more."""

LONGEST_REQUEST_TIMEOUT = 3600
"""The largest `decant:requestTimeout`."""

KEPT_AT_LEAST = 30.0
"""A release that has lost the traffic keeps its requests, streams and WebSockets for at least this time."""


OTHER_SHELL = "The login shell starts another program, as exec zsh in .bashrc does. Take that out of what it reads."
SHELL_GUARD = f'echo "{OTHER_SHELL}"\nexit 97\n'
"""What precedes a description with secrets on standard input. sshd runs every command through the user's login shell.
If that shell starts another one in its place, the other shell takes standard input for commands: every shell
understands these two, and ends before it has read a secret."""


def unguarded(text: str) -> str:
    """A description from standard input without SHELL_GUARD, which versions before 0.8 do not send."""
    return text.removeprefix(SHELL_GUARD)


def reply_timeout(command: str) -> float:
    """Return how many seconds the reply to a command may take: the coordinator waits that long, and no longer."""
    longer = {"prepare": PREPARE_TIMEOUT, "migrate": MIGRATE_TIMEOUT, "certificate": CERTIFICATE_TIMEOUT}
    return longer.get(command, COMMAND_TIMEOUT)


def kept_after_switch(request_timeout: float) -> float:
    """Return how many seconds a release that has lost the traffic keeps its requests, streams and WebSockets.

    A request in flight may take its whole `request_timeout`. What still goes on after that is ended.
    """
    return max(KEPT_AT_LEAST, request_timeout)


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
    `confirmed`: this release was live here once. `health`: the path that it answers on. `needs_200`: only 200 is a
    good answer there; otherwise each status below 500. `in_rotation`: the load balancer's health check is let through.
    `https`: whether the machine itself has a valid certificate; None where it is to get none.
    """

    release: str
    health: str
    needs_200: bool
    current: str | None
    persisted: str | None
    confirmed: bool
    release_command: bool
    in_rotation: bool
    https: NotRequired[bool | None]


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


class Booted(TypedDict):
    """Output of `boot`: what is live now; None where nothing was ever confirmed."""

    release: str | None


class Expired(TypedDict):
    """Output of `expire`. `stopped`: no rollout had switched to the release."""

    release: str
    stopped: bool


class Ended(TypedDict):
    """Output of `end-draining`. `ended`: the release still kept requests, streams or WebSockets."""

    release: str
    ended: bool


class PreStopped(TypedDict):
    """Output of `pre-stop`. `waited`: seconds that the machine waited for the load balancer."""

    release: str
    waited: float


class Drained(TypedDict):
    """Output of `drain`. `seconds`: how long it took."""

    drained: bool
    seconds: float


class SpaceChecked(TypedDict):
    """Output of `check-space`, which fails where the tar does not fit."""

    fits: bool


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
    https: NotRequired[CertificateStatus]


class HttpsSettings(TypedDict):
    """How a machine gets its certificate: `https` in the machine's settings file; None there where it gets none.

    `names` are host names, the site's own first, or with `by_address` one public address. `own`: the certificate is the
    user's, which nobody renews. `server` is the directory URL of the certificate authority. `root`: the machine has the
    authority's own root as a file. `profile` is the kind of certificate that is asked for. `resolvers` are the DNS
    servers that say where names lead. `hsts`: see `Site` in decant/settings/model.py.
    """

    names: list[str]
    by_address: bool
    own: bool
    server: str
    root: bool
    profile: str
    email: str | None
    resolvers: list[str]
    hsts: bool | None


class ReleaseRecord(TypedDict):
    """A release on a machine. Times are Unix times; `confirmed` is None for one that was never live."""

    id: str
    staged: float | None
    confirmed: float | None


class ProcessRecord(TypedDict):
    """A unit of a release. `kind` is "web", "release" (the release command) or "run" (a one-off command).

    `state` is "live", "unconfirmed", "staged" and "draining" of a web process, else systemd's own word. `since` is a
    Unix time, `memory` in bytes; None where systemd does not know it. `tasks` counts processes and threads.
    """

    kind: str
    release: str
    state: str
    since: float | None
    memory: int | None
    tasks: int | None
    restarts: int


class DiskRecord(TypedDict):
    """A file system; in bytes."""

    path: str
    total: int
    free: int


class Overview(Status):
    """Output of `overview`: `status`, and what people ask of a machine. Times are Unix times, sizes bytes.

    `environment` has the live release's variables by name: "secret", "plain" or "decant" (set by Decant itself).
    """

    time: float
    booted: float
    memory_total: int
    memory_available: int
    disks: list[DiskRecord]
    processes: list[ProcessRecord]
    history: list[ReleaseRecord]
    services: dict[str, str]
    environment: dict[str, str]


class LogLine(TypedDict):
    """A line of `logs`. `time` is a Unix time, None in nginx's logs, whose text has it. `source` names the process."""

    time: float | None
    release: str
    source: str
    text: str


PING_INTERVAL, PING_TIMEOUT = 10.0, 60.0
"""Whoever follows a log or runs a one-off command sends a line each 10 s, and the machine ends it after 60 without."""


class RunRequest(TypedDict):
    """The first line to `run`. `command` is a shell line as in a Procfile, None for the app's console.

    `release` None is the live one. `terminal` has its TERM, rows and columns; None where there is no terminal. Each
    line that follows has `data` (base64), `end` (of the input), `size` (new rows and columns), or is a sign of life.
    """

    command: str | None
    release: str | None
    terminal: tuple[str, int, int] | None


LEADS_ELSEWHERE = ("no-record", "elsewhere", "ipv6-elsewhere", "unreachable")
"""Causes of a `CertificateStatus` for which the DNS records of a name have to be set."""


class CertificateStatus(TypedDict):
    """Output of `certificate` and a part of `status`: what the machine's certificate is like. Times are Unix times.

    `state` is "off" (no HTTPS is wanted), "waiting" (a name does not lead here yet; nothing was ordered), "failed" (the
    last order or renewal failed and no valid certificate is there) or "live". `names` are those of the certificate that
    is served, `missing` those that are wanted and not in it. `reason` says why there is none, or why the last renewal
    failed, with the remedy, and is "" where all is well; `cause` is a word for it out of `certificate_checks.CAUSES`.
    No order is made before `next_try`. `renewed` is when a certificate was replaced by a newer one for the same names,
    None before the first time.
    """

    state: str
    names: list[str]
    missing: list[str]
    not_before: float | None
    not_after: float | None
    issued: float | None
    renewed: float | None
    last_try: float | None
    next_try: float | None
    cause: str
    reason: str
