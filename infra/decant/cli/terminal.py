"""Runs a program in the user's terminal, reads its errors along, and lets it end by itself when this one is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

TAIL = 20_000  # bytes of standard error that are kept
CHUNK = 4096


def run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """The exit status of the program, and the end of what it wrote to standard error, which the user sees as well.

    Standard input and output are the terminal's own. Pulumi asks those two alone whether somebody is there.
    """
    with (
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process,
        _passing_signals_on(process),
    ):
        errors = process.stderr.fileno() if process.stderr else -1
        tail = b""
        while chunk := os.read(errors, CHUNK):
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()
            tail = (tail + chunk)[-TAIL:]
        return process.wait(), tail.decode(errors="replace")


@contextmanager
def _passing_signals_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let Pulumi end what it does when this process is told to stop: one killed at once leaves a lock behind.

    A forge tells only the first process of a step, and kills all of them seconds later. From a terminal, Ctrl-C reaches
    Pulumi as well, and a second one would make it give up what it does.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGTERM or not sys.stdin.isatty():
            process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
