"""`run` and `console`: a command in a release on one machine, with this terminal where there is one."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from decant.errors import UnreachableError
from decant.ssh.client import Access, Session
from decant.ssh.machine_client import decant_host_command
from decant.verbs.machines import UNKNOWN_COMMAND
from decant_host.protocol import PING_INTERVAL, SHELL_GUARD, RunRequest

START_TIMEOUT = 30.0

QUIET = 1.0
"""Seconds without output after which a program that has ended will print nothing more."""


def run_command(machine: Access, command: str | None, release: str | None) -> int:
    """Run a shell line in a release (None: the live one) and return its exit status; None is the app's console.

    The line goes by standard input, because sudo and systemd write command lines to the journal. Raises MachineError.
    """
    terminal = None
    if sys.stdin.isatty() and sys.stdout.isatty():
        columns, rows = shutil.get_terminal_size()
        terminal = (os.environ.get("TERM", "xterm"), rows, columns)
    request: RunRequest = {"command": command, "release": release, "terminal": terminal}
    with Session(machine) as session:
        channel = session.start(decant_host_command(machine.user, ["run"]), START_TIMEOUT)
        try:
            channel.sendall(f"{SHELL_GUARD}{json.dumps(request)}\n".encode())
            channel.settimeout(None)
            with _raw_terminal() if terminal else contextlib.nullcontext(), _Sender(channel, resizes=bool(terminal)):
                said = _show(channel)
            status = int(channel.recv_exit_status())
        except (OSError, EOFError) as error:
            raise _gone(machine, str(error)) from None
    if status < 0:
        raise _gone(machine, "the connection closed")
    if status == UNKNOWN_COMMAND and b"invalid choice: 'run'" in said:
        print(f"{machine}: the program there is older than `run`. Renew it: make up STACK=...", file=sys.stderr)
    return status


def _gone(machine: Access, reason: str) -> UnreachableError:
    return UnreachableError(f"{machine}: {reason or 'no answer'} while the command ran. The machine stops the command.")


def _show(channel: Any) -> bytes:
    """Print what the command prints until it ends; the end of what went to standard error."""
    tail = b""
    while True:
        select.select([channel], [], [], QUIET)
        # Asked before what is there is read: nothing comes after an end.
        over = channel.eof_received or channel.closed or channel.exit_status_ready()
        quiet = True
        if channel.recv_stderr_ready():
            tail = (tail + _copy(channel.recv_stderr(1 << 16), sys.stderr.buffer))[-4000:]
            quiet = False
        if channel.recv_ready():
            _copy(channel.recv(1 << 16), sys.stdout.buffer)
            quiet = False
        if quiet and over and (channel.eof_received or channel.closed or _stays_quiet(channel)):
            return tail


def _stays_quiet(channel: Any) -> bool:
    """Whether nothing more comes, though its program has ended: something that it started has its output."""
    return not select.select([channel], [], [], QUIET)[0]


def _copy(data: bytes, out: BinaryIO) -> bytes:
    out.write(data)
    out.flush()
    return data


class _Sender:
    """Sends this process's input, its end, new sizes of the terminal, and signs of life, while the block runs."""

    def __init__(self, channel: Any, *, resizes: bool) -> None:
        self.channel = channel
        self.resizes = resizes
        self.wake, self.woken = os.pipe()
        self.over = False

    def __enter__(self) -> None:
        if self.resizes:
            self.before = signal.signal(signal.SIGWINCH, lambda *_: os.write(self.woken, b"s"))
        threading.Thread(target=self._send, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.over = True
        os.write(self.woken, b".")
        if self.resizes:
            signal.signal(signal.SIGWINCH, self.before)

    def _send(self) -> None:
        try:
            source = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError):  # closed, or not a file
            source = -1
            self._line(end=True)
        with contextlib.suppress(OSError, EOFError):  # the command has ended; the other thread knows its status
            while not self.over:
                ready = select.select([self.wake] if source < 0 else [self.wake, source], [], [], PING_INTERVAL)[0]
                if not ready:
                    self._line()
                if self.wake in ready and b"s" in os.read(self.wake, 100):
                    columns, rows = shutil.get_terminal_size()
                    self._line(size=(rows, columns))
                if source in ready:
                    if data := os.read(source, 1 << 15):
                        self._line(data=base64.b64encode(data).decode())
                    else:
                        source = -1
                        self._line(end=True)

    def _line(self, **line: object) -> None:
        self.channel.sendall(json.dumps(line).encode() + b"\n")


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Pass on every key, also Ctrl-C, to the command's own terminal while the block runs."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
