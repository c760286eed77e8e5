"""The locks that keep two commands from changing the same things at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TextIO

from decant_host.paths import RUN


def open_lock(name: str) -> TextIO:
    """Open a lock file that only root can open: a user who can read a file can lock it, and so block a revert."""
    descriptor = os.open(RUN / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "r+", encoding="utf-8")


@contextlib.contextmanager
def _locked(name: str, wait: bool = True) -> Iterator[bool]:
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open_lock(name) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def staging_lock(*, wait: bool = True) -> contextlib.AbstractContextManager[bool]:
    """Lock releases/ and venvs/. The value of the context is False where `wait` is false and another process holds it.

    It is held for minutes. A command that needs both locks takes this one before `switching_lock`.
    """
    return _locked("staging.lock", wait)


def switching_lock() -> contextlib.AbstractContextManager[bool]:
    """Lock what is live. It is held for moments, because the revert timer must not wait for an installation."""
    return _locked("switching.lock")
