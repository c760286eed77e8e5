"""Who is releasing on this machine: at most one attempt, and only as long as its coordinator lives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from typing import Any, TextIO

from decant_host.files import RUN, HostError, open_lock, read_json

PATIENCE = 3  # seconds that a new attempt waits for an old one to let go


def lease_holder() -> dict[str, Any] | None:
    """Who is releasing on this machine right now, if anybody: `attempt`, `owner`, `since`."""
    path = RUN / "lease"
    try:
        with path.open() as lease:
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        try:
            return read_json(path)
        except ValueError:  # it is being written
            return {}
    return None


@contextlib.contextmanager
def hold_lease(attempt: str, owner: str) -> Iterator[TextIO]:
    """Hold this machine for one attempt while the block runs; the lock.

    It goes with its process, so no stale lease is ever left behind. Raises HostError with who holds it already.
    """
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open_lock("lease") as lease:
        if not _take(lease):
            holder = read_json(RUN / "lease")
            since = time.strftime("%H:%M:%S", time.localtime(holder.get("since", 0)))
            raise HostError(
                f"{holder.get('owner', 'somebody')} is rolling out a release here since {since} (machine's time).\n"
                "  Wait for it to end, then run pulumi up again."
            )
        lease.truncate(0)
        lease.write(json.dumps({"attempt": attempt, "owner": owner, "since": time.time()}))
        lease.flush()
        yield lease


def _take(lease: TextIO) -> bool:
    """The lock, if it comes free within moments: sshd may not yet have noticed that the last coordinator was killed."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def need_lease(attempt: str) -> None:
    """Refuse a verb whose attempt does not hold this machine."""
    holder = lease_holder()
    if holder is None or holder.get("attempt") != attempt:
        who = f"{holder.get('owner')} holds it" if holder is not None else "the lease lapsed"
        raise HostError(f"this attempt does not hold the machine any more: {who}. Run pulumi up again.")
