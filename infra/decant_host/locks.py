"""The locks that keep two commands from changing the same things at once."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from decant_host.paths import RUN

_STAGING = "staging.lock"


def open_lock(name: str) -> TextIO:
    """Open a lock file that only root can open: a user who can read a file can lock it, and so block a revert."""
    descriptor = os.open(RUN / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "r+", encoding="utf-8")


def lock_patiently(lock: TextIO, patience: float) -> bool:
    """Lock a file; False where another process still holds it after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def overwrite(lock: TextIO, text: str) -> None:
    """Replace the content of a lock file. Nothing is left in a buffer, which would fail once more when it is closed.

    The new text comes before the cut: in a full /run, it takes the space of the old one.
    """
    data = text.encode()
    os.pwrite(lock.fileno(), data, 0)
    os.ftruncate(lock.fileno(), len(data))


@contextlib.contextmanager
def staging_lock(holder: str, *, patience: float = math.inf) -> Iterator[bool]:
    """Lock releases/ and venvs/ for `holder`, a text for those who wait, such as `release 0123456789ab`.

    The value of the context is False where another process still holds the lock after `patience` seconds. It is held
    for minutes. A command that needs both locks takes this one before `switching_lock`.
    """
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open_lock(_STAGING) as lock:
        if not lock_patiently(lock, 0):
            if patience > 0:
                print(f"{staging_holder()}; waiting for its end", file=sys.stderr, flush=True)
            if not lock_patiently(lock, patience):
                yield False
                return
        with contextlib.suppress(OSError):  # /run may be full
            overwrite(lock, f"{holder} is being staged here since {time.strftime('%H:%M:%S')} (machine's time)")
        yield True


def staging_holder() -> str:
    """Who holds the staging lock, and since when; without a full stop."""
    return (RUN / _STAGING).read_text(encoding="utf-8") or "another release is being staged here"


@contextlib.contextmanager
def switching_lock() -> Iterator[None]:
    """Lock what is live. It is held for moments, because the revert timer must not wait for an installation."""
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open_lock("switching.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
