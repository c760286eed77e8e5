"""One-off commands: run in a release, in the sandbox of release commands, for as long as the one who asked is there."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import pwd
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

from decant_host.atomic import link_target, read_json
from decant_host.errors import HostError
from decant_host.locks import lock_patiently
from decant_host.memory import EXPENDABLE
from decant_host.paths import CURRENT, RELEASES, RUNS, SANDBOX
from decant_host.processes import run
from decant_host.protocol import PING_TIMEOUT, RELEASE_ID, RunRequest
from decant_host.releases import complete_releases, is_complete

LOST = 255
"""The exit status of a command that was ended because nobody was there any more, as ssh has it."""

STOP_TIMEOUT = 10
"""Seconds that such a command has to end by itself."""

_MOST_PENDING = 1 << 20
"""Bytes of input that wait for a command which does not read. More stays in the connection."""


def run_one_off() -> NoReturn:
    """Run the command that the first line of standard input asks for, and exit with its status.

    It ends with the one who asked: when standard input ends, or falls silent for PING_TIMEOUT, it is stopped. Raises
    HostError when there is no such release, or the command could not be started.
    """
    client = _Client()
    request = client.request()
    release = request["release"] or link_target(CURRENT)
    if release is None:
        raise HostError("nothing is live on this machine yet. Put the app live first: make up")
    if not (is_complete(release) and (RELEASES / release / "venv").exists()):
        here = ", ".join(complete_releases()) or "none"
        raise HostError(f"release {release} is not on this machine; here are: {here}")
    sweep()
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: client.leave())
    with _recorded(release, request) as (unit, record):
        raise SystemExit(_supervise(client, request, _command(release, unit, record)))


def sweep() -> None:
    """Stop commands whose supervisor was killed."""
    for path in RUNS.glob("*.json"):
        with contextlib.suppress(FileNotFoundError), path.open("r+", encoding="utf-8") as record:
            if lock_patiently(record, 0):
                run("systemctl", "stop", f"{path.stem}.service", check=False)
                path.unlink(missing_ok=True)


def sandbox_properties(release: str) -> list[str]:
    """What a release command may use of the machine, as options of systemd-run, which expands no specifiers."""
    lines = SANDBOX.read_text(encoding="utf-8").splitlines()
    settings = [line for line in lines if "=" in line and not line.startswith("#")]
    return [f"--property={line.replace('%i', release).replace('%H', socket.gethostname())}" for line in settings]


@contextlib.contextmanager
def _recorded(release: str, request: RunRequest) -> Iterator[tuple[str, Path]]:
    """The name of a new unit, and the file with its command, which this process keeps locked. Both go at the end."""
    unit = f"decant-run-{release}-{os.urandom(4).hex()}"
    RUNS.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = RUNS / f"{unit}.json"
    command = request["command"]
    if command is None:
        entry = shlex.quote(str(read_json(RELEASES / release / "release.json").get("entry", "")))
        command = f"FLASK_APP=${{FLASK_APP:-{entry}}} exec flask shell"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as record:
        fcntl.flock(record, fcntl.LOCK_EX)
        record.write(json.dumps({"command": command, "terminal": request["terminal"]}))
        record.flush()
        try:
            yield unit, path
        finally:
            run("systemctl", "stop", f"{unit}.service", check=False)
            path.unlink(missing_ok=True)


def _command(release: str, unit: str, record: Path) -> list[str]:
    """The command line of systemd-run. The command itself is not in it: systemd writes it to the journal."""
    return [
        "systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--unit={unit}", "--service-type=exec",
        f"--description=A one-off command in release {release}", *sandbox_properties(release),
        f"--property=LoadCredential=command.json:{record}", f"--property=OOMScoreAdjust={EXPENDABLE}",
        f"--property=TimeoutStopSec={STOP_TIMEOUT}", "--property=SendSIGHUP=yes",
        f"{RELEASES / release}/venv/bin/python", "/opt/decant/python/run_command.py",
    ]  # fmt: skip


class _Client:
    """The one who asked, at the other end of standard input and output."""

    def __init__(self) -> None:
        self.unread = b""
        self.heard = time.monotonic()
        self.ending = False

    def leave(self) -> None:
        """End this process, once: a second signal must not end the tidying up."""
        if not self.ending:
            self.ending = True
            raise SystemExit(LOST)

    def request(self) -> RunRequest:
        """The first line. Lines before it are for a shell that took the login shell's place (SHELL_GUARD)."""
        while True:
            line, newline, rest = self.unread.partition(b"\n")
            if newline and line.startswith(b"{"):
                self.unread = rest
                found = json.loads(line)
                if found["release"] and not re.fullmatch(RELEASE_ID, found["release"]):
                    raise HostError(f"{found['release']!r} is not a release id (12 hexadecimal digits)")
                return cast(RunRequest, found)
            if newline:
                self.unread = rest
            elif data := os.read(0, 1 << 16):
                self.unread += data
            else:
                raise HostError("no command came on standard input. Run it by: fab run")

    def lines(self) -> list[dict[str, Any]] | None:
        """The lines that have come; None when standard input has ended."""
        data = os.read(0, 1 << 16)
        if not data:
            return None
        self.heard = time.monotonic()
        *whole, self.unread = (self.unread + data).split(b"\n")
        return [json.loads(line) for line in whole]

    def is_silent(self) -> bool:
        """Whether nothing has come for so long that the connection must be gone."""
        return time.monotonic() > self.heard + PING_TIMEOUT


def _supervise(client: _Client, request: RunRequest, command: list[str]) -> int:
    """Start the command and pass on what goes in, and with a terminal what comes out; its exit status."""
    if request["terminal"]:
        outer, inner = os.openpty()
        _resize(outer, request["terminal"][1:])
        os.chown(os.ttyname(inner), pwd.getpwnam("decant").pw_uid, -1)
        process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner)
        os.close(inner)
        source = outer
    else:
        reading, outer = os.pipe()
        process = subprocess.Popen(command, stdin=reading)
        os.close(reading)
        source = -1
    os.set_blocking(outer, False)
    status = _Relay(client, process, outer, source).run()
    return LOST if status is None else status


def _resize(terminal: int, size: Any) -> None:
    rows, columns = size
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class _Relay:
    """What goes from the client to a command, and with a terminal what comes back.

    `outer` takes the command's input. `source` gives its output: the same terminal, or -1 where it writes to the
    client's by itself.
    """

    def __init__(self, client: _Client, process: subprocess.Popen[bytes], outer: int, source: int) -> None:
        self.client, self.process, self.outer, self.source = client, process, outer, source
        self.pending = bytearray()
        self.ended = False  # the client's input

    def run(self) -> int | None:
        """Pass on until the command ends; its status, or None where the client is gone."""
        over = os.pidfd_open(self.process.pid)
        if not self._take([json.loads(line) for line in self._first_lines()]):
            return None
        while True:
            watched = select.poll()
            watched.register(over, select.POLLIN)
            # Without events, poll still tells that the other end is gone.
            watched.register(0, select.POLLIN if len(self.pending) < _MOST_PENDING else 0)
            watched.register(1, 0)
            if self.outer >= 0 and (self.pending or self.source >= 0):
                output = select.POLLIN if self.source >= 0 else 0
                watched.register(self.outer, output | (select.POLLOUT if self.pending else 0))
            events = dict(watched.poll(1000))
            if not self._handle(events) or self.client.is_silent():
                return None
            if over in events:
                self._drain()
                return self.process.wait()

    def _first_lines(self) -> list[bytes]:
        """Lines that came together with the request."""
        *whole, self.client.unread = self.client.unread.split(b"\n")
        return whole

    def _handle(self, events: dict[int, int]) -> bool:
        """Do what `poll` says; False where the client is gone."""
        if events.get(1, 0) & (select.POLLERR | select.POLLHUP):
            return False
        if 0 in events:
            if not events[0] & select.POLLIN:
                return False
            lines = self.client.lines()
            if lines is None or not self._take(lines):
                return False
        if self.outer in events and events[self.outer] & (select.POLLIN | select.POLLHUP) and self.source >= 0:
            return self._give()
        self._push()
        return True

    def _take(self, lines: list[dict[str, Any]]) -> bool:
        for line in lines:
            if self.source >= 0 and (size := line.get("size")):
                _resize(self.outer, size)
            self.pending += base64.b64decode(line.get("data", ""))
            self.ended = self.ended or bool(line.get("end"))
        self._push()
        return True

    def _push(self) -> None:
        """Give the command as much of its input as it takes, and its end."""
        try:
            while self.outer >= 0 and self.pending:
                del self.pending[: os.write(self.outer, self.pending[: 1 << 16])]
        except BlockingIOError:
            return
        except OSError:  # it reads no more
            self.pending.clear()
            self.ended = True
        if self.ended and not self.pending and self.source < 0 <= self.outer:
            os.close(self.outer)
            self.outer = -1

    def _give(self) -> bool:
        """Give the client what the terminal shows; False where the client is gone."""
        try:
            data = os.read(self.source, 1 << 16)
        except BlockingIOError:
            return True
        except OSError:  # nobody has the terminal open any more
            self.outer, self.source = -1, -1
            return True
        try:
            while data:
                data = data[os.write(1, data) :]
        except BrokenPipeError:
            return False
        return True

    def _drain(self) -> None:
        """What the terminal still shows after the command's end."""
        while self.source >= 0 and select.select([self.source], [], [], 0)[0] and self._give():
            pass
