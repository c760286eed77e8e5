"""Looking at this computer's processes and at a machine's ports."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.waiting import PATIENCE


@contextlib.contextmanager
def command_lines() -> Iterator[set[str]]:
    """Collect the command lines of all processes of this computer and its machines while the block runs."""
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # it ended meanwhile
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(PATIENCE)


def open_ports(address: str, ports: Iterable[int]) -> Iterator[int]:
    """Yield the TCP ports that accept a connection. At most 500 are tried at a time."""
    left, trying = iter(ports), {}
    poll = select.epoll()
    while True:
        for port in left:
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((address, port))
            trying[one.fileno()] = (one, port)
            poll.register(one.fileno(), select.EPOLLOUT)
            if len(trying) >= 500:
                break
        if not trying:
            return
        ready = poll.poll(PATIENCE)
        assert ready, "neither accepted nor refused: this host has no firewall"
        for descriptor, _ in ready:
            one, port = trying.pop(descriptor)
            poll.unregister(descriptor)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                yield port
            one.close()
