"""`logs`: the logs of all machines at once, each line marked by its machine."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TextIO, cast

from decant.errors import MachineError, UnreachableError
from decant.ssh.client import Access, Session
from decant.ssh.machine_client import decant_host_command
from decant.verbs.machines import failed, on_all
from decant.verbs.units import moment
from decant_host.protocol import PING_INTERVAL, LogLine

CLEAR_TIMEOUT = 60.0
"""Seconds without any output in which the lines that are there must come."""


def show_logs(machines: Sequence[Access], argv: Sequence[str], *, follow: bool, as_json: bool) -> int:
    """Print the logs that `decant-host logs` with these options gives; the exit status.

    A machine that fails is told on standard error, and the others go on.
    """
    width = max(len(machine.name) for machine in machines)
    if follow:
        return _follow(machines, [*argv, "--follow"], width, as_json=as_json)
    errors = 0
    every: list[tuple[float, str, LogLine]] = []
    for machine, found in zip(machines, on_all(machines, lambda m: list(_lines(m, argv))), strict=True):
        if isinstance(found, MachineError):
            print(found, file=sys.stderr)
            errors += 1
        else:
            every += [(line["time"] or 0, machine.name, line) for line in found]
    # Of each machine, nginx's lines stay in their order: they have no time but in their text.
    for _, name, line in sorted(every, key=lambda entry: entry[0]):
        _print(name, line, width, as_json=as_json)
    return 1 if errors else 0


def _follow(machines: Sequence[Access], argv: Sequence[str], width: int, *, as_json: bool) -> int:
    """Print what comes from all machines until none is left."""
    arrived: queue.Queue[tuple[str, LogLine | MachineError | None]] = queue.Queue()

    def read(machine: Access) -> None:
        try:
            for line in _lines(machine, argv):
                arrived.put((machine.name, line))
            arrived.put((machine.name, None))
        except MachineError as error:
            arrived.put((machine.name, error))

    for machine in machines:
        threading.Thread(target=read, args=(machine,), daemon=True).start()
    left, errors = len(machines), 0
    while left:
        name, found = arrived.get()
        if found is None or isinstance(found, MachineError):
            left -= 1
            errors += found is not None
            if found:
                print(found, file=sys.stderr)
            continue
        _print(name, found, width, as_json=as_json)
    return 1 if errors else 0


def _lines(machine: Access, argv: Sequence[str]) -> Iterator[LogLine]:
    """The lines as they come. Raises MachineError where the machine fails or the connection breaks."""
    follow = "--follow" in argv
    with Session(machine) as session:
        channel = session.start(decant_host_command(machine.user, ["logs", *argv]), PING_INTERVAL)
        unread, pinged, heard = b"", time.monotonic(), time.monotonic()
        try:
            while True:
                now = time.monotonic()
                if follow and now - pinged >= PING_INTERVAL:
                    channel.sendall(b"\n")
                    pinged = now
                try:
                    data = channel.recv(1 << 16)
                except TimeoutError:
                    if not follow and now - heard > CLEAR_TIMEOUT:
                        raise
                    continue
                if not data:
                    break
                heard = now
                *whole, unread = (unread + data).split(b"\n")
                yield from (cast(LogLine, json.loads(line)) for line in whole if line.startswith(b"{"))
            said = channel.makefile_stderr("rb").read().decode(errors="replace")
            status = channel.recv_exit_status()
        except (OSError, EOFError) as error:
            raise UnreachableError(f"{machine}: {error or 'no answer'} while its log was read") from None
        if status < 0:
            raise UnreachableError(f"{machine}: the connection closed while its log was read")
        if status:
            raise failed(machine, status, said)


def _print(name: str, line: LogLine, width: int, *, as_json: bool) -> None:
    out: TextIO = sys.stdout
    if as_json:
        out.write(json.dumps({"machine": name, **line}) + "\n")
    else:
        # A text of several lines has the mark on each, so that nobody takes one for another machine's.
        head = f"{moment(line['time'])} {line['release']} {line['source']}: " if line["time"] is not None else ""
        out.writelines(f"{name:<{width}} | {head}{text}\n" for text in line["text"].split("\n"))
    out.flush()
