"""The lease of a machine: one rollout attempt at a time holds it, and only while its coordinator is heard."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from typing import TextIO, cast

from decant_host.atomic import read_json
from decant_host.errors import HostError
from decant_host.locks import lock_patiently, open_lock, overwrite
from decant_host.paths import LEASE, RUN
from decant_host.protocol import (
    ACT_MARGIN,
    ECHO_TIMEOUT,
    LEASE_PATIENCE,
    LeaseHolder,
    reply_timeout,
)


class NewestEcho:
    """The newest value of this machine's clock that the coordinator has echoed: how long ago it certainly was alive.

    Processes that are forked after it is made share the value, so a command learns what the agent receives meanwhile.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        import mmap

        self.clock = clock
        self.command = ""
        """The command that is checked."""
        self.requested = 0.0
        """The newest echo when its request came, so never later than the moment when the request was sent."""
        # One aligned double, which processors write in one step: a reader sees the old value or the new one.
        self._value = memoryview(mmap.mmap(-1, 8)).cast("d")

    def receive(self, echo: float) -> None:
        """Note an echo. A value that this machine cannot have sent yet does not count."""
        if self._value[0] < echo <= self.clock():
            self._value[0] = echo

    def begin(self, command: str) -> None:
        """Note that the request for this command has come."""
        self.command, self.requested = command, self._value[0]

    def check(self) -> None:
        """Raises HostError when the newest echo is older than ECHO_TIMEOUT, or when there is none yet."""
        newest = self._value[0]
        if not newest:
            raise HostError(
                f"decant-host {self.command} is refused, because it came before the coordinator had echoed this"
                " machine's clock. Run pulumi up again."
            )
        age = self.clock() - newest
        if age > ECHO_TIMEOUT:
            raise HostError(
                f"decant-host {self.command} is too late and is refused: what its coordinator knew of this machine was"
                f" {age:.1f} s old, and the limit is {ECHO_TIMEOUT:.0f} s. Run pulumi up again."
            )
        waited, limit = self.clock() - self.requested, reply_timeout(self.command) - ACT_MARGIN
        if self.requested and waited > limit:
            raise HostError(
                f"decant-host {self.command} is refused, because it waited {waited:.0f} s for another command to end,"
                f" and the limit is {limit:.0f} s. Run pulumi up again."
            )


coordinator: NewestEcho | None = None
"""What the agent has heard, in the agent and in the processes of its commands. None outside of an agent."""


def lease_holder() -> LeaseHolder | None:
    """The attempt that holds this machine right now; None where there is none."""
    try:
        with LEASE.open() as lease:
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        try:
            return cast(LeaseHolder, read_json(LEASE))
        except ValueError:  # it is being written
            return {}
    return None


@contextlib.contextmanager
def hold_lease(attempt: str, owner: str) -> Iterator[TextIO]:
    """Hold this machine for one attempt while the block runs. The value of the context is the locked file.

    The lock ends with its process, so a killed attempt leaves no stale lease. Raises HostError, with the name of the
    holder, when another attempt holds the machine for longer than LEASE_PATIENCE.
    """
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open_lock(LEASE.name) as lease:
        # sshd may not have noticed yet that the last coordinator was killed.
        if not lock_patiently(lease, LEASE_PATIENCE):
            holder = read_json(LEASE)
            since = time.strftime("%H:%M:%S", time.localtime(holder.get("since", 0)))
            raise HostError(
                f"{holder.get('owner', 'somebody')} is rolling out a release here since {since} (machine's time).\n"
                "  Wait for it to end, then run pulumi up again."
            )
        overwrite(lease, json.dumps({"attempt": attempt, "owner": owner, "since": time.time()}))
        yield lease


def need_lease(attempt: str) -> None:
    """Raises HostError when the attempt does not hold this machine, or when its coordinator was not heard in time.

    A command calls this once it has its locks. From then on it runs to its end.
    """
    holder = lease_holder()
    if holder is None or holder.get("attempt") != attempt:
        who = f"{holder.get('owner')} holds it" if holder is not None else "the lease lapsed"
        raise HostError(f"this attempt does not hold the machine any more: {who}. Run pulumi up again.")
    if coordinator:
        coordinator.check()
