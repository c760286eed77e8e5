"""The agent: it holds the machine's lease for a rollout attempt and runs the commands that the coordinator sends.

One process serves a whole attempt, because most of the time that a single command takes is the start of Python.
`protocol.py` describes the lines on both directions of the connection.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import selectors
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TextIO

from decant_host import lease as leases
from decant_host.errors import HostError
from decant_host.lease import NewestEcho, hold_lease
from decant_host.protocol import FIRST_LINE_TIMEOUT, LEASE_TIMEOUT, Heartbeat, Held, Reply, Request

RunCommand = Callable[[Sequence[str]], int]

STDIN = 0


class Running(NamedTuple):
    """A command that runs in a process of its own: if it is killed or slow, the lease is not affected."""

    id: int
    command: str
    process: int
    output: bytearray


class Outcome(NamedTuple):
    """The result of a command, as its process reports it to the agent."""

    status: int
    stdout: str
    stderr: str


class Agent:
    """The state of one attempt on this machine."""

    def __init__(self, attempt: str, owner: str, run_command: RunCommand, clock: Callable[[], float]) -> None:
        self.attempt = attempt
        self.owner = owner
        self.run_command = run_command
        self.clock = clock
        self.newest_echo = leases.coordinator = NewestEcho(clock)
        self.lease: TextIO | None = None
        self.running: dict[int, Running] = {}
        """Commands by the pipe that their outcome comes from."""

    def serve(self) -> None:
        """Read and answer lines until the coordinator has gone. Commands that run then go on to their end."""
        heard, unread = self.clock(), b""
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as events:
            events.register(STDIN, selectors.EVENT_READ)
            while (left := heard + (LEASE_TIMEOUT if self.lease else FIRST_LINE_TIMEOUT) - self.clock()) > 0:
                for source in [key.fd for key, _ in events.select(left)]:
                    data = os.read(source, 1 << 16)
                    if source != STDIN:
                        self._take_output(source, data, events)
                        continue
                    if not data:
                        return
                    heard = self.clock()
                    *lines, unread = (unread + data).split(b"\n")
                    for line in lines:
                        message = _parse(line)
                        if self.lease is None:
                            self.lease = stack.enter_context(hold_lease(self.attempt, self.owner))
                            _send(Held(held=True, clock=self.clock()))
                        self._receive(message, events)

    def _receive(self, message: dict[str, Any], events: selectors.BaseSelector) -> None:
        self.newest_echo.receive(message["clock"])
        if "argv" not in message:
            _send(Heartbeat(clock=self.clock()))
            return
        request = Request(id=message["id"], argv=message["argv"], clock=message["clock"])
        self.newest_echo.begin(request["argv"][0])
        try:
            self.newest_echo.check()
        except HostError as error:
            self._reply(request["id"], Outcome(1, "", f"{socket.gethostname()}: {error}"))
            return
        running, pipe = self._start(request)
        self.running[pipe] = running
        events.register(pipe, selectors.EVENT_READ)

    def _start(self, request: Request) -> tuple[Running, int]:
        """Fork a process for a request; that process, and the pipe that its outcome comes from."""
        read_end, write_end = os.pipe()
        process = os.fork()  # the agent has no threads
        if process == 0:
            self._run(request, write_end)
        os.close(write_end)
        return Running(request["id"], request["argv"][0], process, bytearray()), read_end

    def _run(self, request: Request, pipe: int) -> NoReturn:
        """Carry out a request and report its outcome, in the process that was forked for it."""
        status, out, error = 1, io.StringIO(), io.StringIO()
        try:
            if self.lease:
                os.close(self.lease.fileno())  # the lease belongs to the attempt and ends with the coordinator
            nothing = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nothing, standard)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
                status = self.run_command(request["argv"])
        except BaseException:
            error.write(traceback.format_exc())
        with contextlib.suppress(OSError):
            report_outcome(pipe, Outcome(status, out.getvalue(), error.getvalue()))
        os._exit(status)

    def _take_output(self, pipe: int, data: bytes, events: selectors.BaseSelector) -> None:
        """Add what a command's process has sent; reply to the request once that process has ended."""
        self.running[pipe].output.extend(data)
        if not data:
            events.unregister(pipe)
            os.close(pipe)
            running = self.running.pop(pipe)
            self._reply(running.id, _wait_for_outcome(running))

    def _reply(self, request_id: int, outcome: Outcome) -> None:
        status, stdout, stderr = outcome
        _send(Reply(id=request_id, status=status, stdout=stdout, stderr=stderr, clock=self.clock()))


def serve_requests(
    attempt: str, owner: str, run_command: RunCommand, clock: Callable[[], float] = time.monotonic
) -> None:
    """Hold this machine for one attempt and carry out its requests, until its coordinator has gone.

    The coordinator has gone when standard input ends, or when nothing came for LEASE_TIMEOUT seconds. `run_command` is
    the command line's own main function; it gets the `argv` of a request. Raises HostError when another attempt holds
    the machine, or when a line is not of the protocol.
    """
    Agent(attempt, owner, run_command, clock).serve()


def report_outcome(pipe: int, outcome: Outcome) -> None:
    """Write an outcome to the agent, as a line of JSON."""
    with os.fdopen(pipe, "w") as out:
        out.write(json.dumps(outcome) + "\n")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
        float(message["clock"])
    except (ValueError, TypeError, KeyError):
        raise HostError(
            "the coordinator speaks another version of the protocol than this machine.\n"
            "  Update the project where you run pulumi, then run pulumi up again."
        ) from None
    parsed: dict[str, Any] = message
    return parsed


def _send(message: Mapping[str, object]) -> None:
    """Send a line to the coordinator. Its connection may be gone, which is not an error."""
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
        sys.stdout.buffer.flush()


def _wait_for_outcome(running: Running) -> Outcome:
    """What the command's process reported, or how it ended without a report."""
    _, status = os.waitpid(running.process, 0)
    if running.output.endswith(b"\n"):
        return Outcome(*json.loads(running.output))
    code = os.waitstatus_to_exitcode(status)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    text = (
        f"{socket.gethostname()}: decant-host {running.command} {how}."
        " journalctl -k shows whether the machine ran out of memory. Run pulumi up again."
    )
    return Outcome(1, "", text)
