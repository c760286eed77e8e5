"""Lines that show what a rehearsal does, and how many seconds have passed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator


class Progress:
    """Prints lines from any thread. `running` has the steps under way, each with the time when it began."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.running: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """The seconds since this object was made."""
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        """Print a text, with the seconds that have passed in front of its first line."""
        with self.lock:
            print(f"{self.seconds:6.1f} s  " + text.replace("\n", "\n" + 10 * " "), flush=True)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Print a line when the block begins and another one when it has ended without an error."""
        self.say(f"{name} ...")
        started = time.monotonic()
        self.running[name] = started
        try:
            yield
        finally:
            self.running.pop(name, None)
        self.say(f"{name} done in {time.monotonic() - started:.1f} s")
