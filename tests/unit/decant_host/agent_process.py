"""The agent in a process of its own, with a clock that the test sets and commands that do nothing."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

START = 1000.0
"""What the machine's clock shows when the agent starts."""

# Commands by name. `lock` waits for a file as if for a lock, and then asks for the lease.
PROGRAM = """
import json, mmap, os, pathlib, sys, time
from decant_host import agent, errors, lease, locks

options = json.loads(sys.argv[1])
locks.RUN = lease.RUN = pathlib.Path(options["run"])
lease.LEASE = lease.RUN / "lease"
agent.LEASE_TIMEOUT, lease.LEASE_PATIENCE = options["lease_timeout"], options["lease_patience"]
agent.FIRST_LINE_TIMEOUT = options["first_line_timeout"]
sleep = time.sleep
lease.time.sleep = lambda seconds: (print("waits", flush=True), sleep(seconds))
now = memoryview(mmap.mmap(os.open(options["clock"], os.O_RDWR), 8)).cast("d")

def wait_for(path):
    while not os.path.exists(path):
        sleep(0.01)

def run_command(argv):
    command, *rest = argv
    print(json.dumps({"argv": rest}))
    if command == "fail":
        print("web-1: no", file=sys.stderr)
        return 1
    if command == "die":
        os.kill(os.getpid(), 9)
    if command == "raise":
        raise ValueError(rest[0])
    if command in ("wait", "lock"):
        pathlib.Path(rest[0] + ".waits").touch()
        wait_for(rest[0])
        if command == "lock":
            try:
                lease.need_lease(options["attempt"])
            except errors.HostError as error:
                print(error, file=sys.stderr)
                return 1
        pathlib.Path(rest[0] + ".done").touch()
    return 0

clock = time.monotonic if options["real_clock"] else lambda: now[0]
try:
    agent.serve_requests(options["attempt"], "carol@laptop", run_command, clock)
except errors.HostError as error:
    sys.exit(str(error))
"""


class AgentProcess:
    """A running agent, and the coordinator's end of its connection."""

    def __init__(
        self,
        run: Path,
        attempt: str = "one",
        *,
        lease_timeout: float = 60,
        lease_patience: float = 0,
        first_line_timeout: float = 60,
        real_clock: bool = False,
        ask_for_lease: bool = True,
    ) -> None:
        clock = run / f"clock-of-{attempt}"
        clock.write_bytes(bytes(8))
        with clock.open("r+b") as file:
            self._now = memoryview(mmap.mmap(file.fileno(), 8)).cast("d")
        self.now = START
        options = {
            "run": str(run), "attempt": attempt, "clock": str(clock), "real_clock": real_clock,
            "lease_timeout": lease_timeout, "lease_patience": lease_patience,
            "first_line_timeout": first_line_timeout,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # On a machine nothing sets it, so a line that the agent does not flush would never come.
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )  # fmt: skip
        if ask_for_lease:
            self.heartbeat(0)

    @property
    def now(self) -> float:
        """The machine's clock."""
        return self._now[0]

    @now.setter
    def now(self, value: float) -> None:
        self._now[0] = value

    def send(self, *lines: str) -> None:
        """Send lines, which arrive at once."""
        assert self.process.stdin
        self.process.stdin.write("".join(line + "\n" for line in lines))
        self.process.stdin.flush()

    def heartbeat(self, echo: float) -> None:
        self.send(json.dumps({"clock": echo}))

    def request(self, number: int, *argv: str, echo: float | None = None) -> None:
        """Send a request. Its echo is the machine's clock, unless `echo` is set."""
        self.send(json.dumps({"id": number, "argv": argv, "clock": self.now if echo is None else echo}))

    def line(self) -> str:
        """The next line of the agent; empty at its end."""
        assert self.process.stdout
        watch = threading.Timer(30, self.process.kill)  # a line that never comes fails the test
        watch.start()
        try:
            return self.process.stdout.readline()
        finally:
            watch.cancel()

    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.line())
        return message

    def hold(self) -> None:
        """Wait until the agent holds the lease."""
        assert self.message()["held"] is True
        assert set(self.message()) == {"clock"}

    def finish(self) -> tuple[str, str]:
        """Hang up; the rest of the agent's output, and its errors."""
        return self.process.communicate(timeout=60)
