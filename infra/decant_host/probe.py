"""Asking a release how it is: through its own socket, or through nginx."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from decant_host.files import RUN, SETTINGS, read_json

LARGEST = 1 << 16  # bytes of an answer that are looked at


class Reply(NamedTuple):
    """One answer to a probe; `status` 0 means that none came, and `body` then says why."""

    status: int
    release: str
    body: str

    def __str__(self) -> str:
        if not self.status:
            return self.body
        # Whole (2000 characters at most): secrets are masked in it before anything is cut.
        return f"status {self.status}" + (f", body: {self.body!r}" if self.body else "")


def ask(path: str, *, through: Path | None, timeout: float = 5.0) -> Reply:
    """GET a path as the site's own name: through a gunicorn socket, or through nginx (`through` None).

    `timeout` seconds for all of it: an app that answers a byte a second must not hold up whoever holds a lock.
    """
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=timeout)
    name = read_json(SETTINGS).get("name", "localhost")
    headers = {"Host": name, "User-Agent": "decant", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http"}
    headers["Connection"] = "close"
    late = threading.Event()
    try:
        with _connect(through, timeout) as sock, _cut_off(sock, timeout, late):
            connection.sock = sock
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            if reply.chunked:
                # An app's chunk may claim a negative size, which reads without bounds.
                reply.fp = io.BufferedReader(io.BytesIO(reply.fp.read(LARGEST)))
            body = reply.read(2000).decode(errors="replace").strip()
            if not late.is_set():
                return Reply(status=reply.status, release=reply.getheader("X-Release", ""), body=body)
    except TimeoutError:
        late.set()
    except (OSError, ValueError, ArithmeticError, http.client.HTTPException) as error:
        if not late.is_set():
            return Reply(status=0, release="", body=f"no answer: {error or type(error).__name__}")
    finally:
        connection.close()
    return Reply(status=0, release="", body=f"no answer within {timeout:.0f} s")


def _connect(through: Path | None, timeout: float) -> socket.socket:
    if through is None:
        return socket.create_connection(("127.0.0.1", 80), timeout)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(str(through))
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _cut_off(sock: socket.socket, seconds: float, late: threading.Event) -> Iterator[None]:
    """Whoever reads from the socket in the block reads its end after so long, and `late` is set."""

    def hang_up() -> None:
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    watch = threading.Timer(seconds, hang_up)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def socket_of(release: str) -> Path:
    """Where a release's gunicorn listens."""
    return RUN / release / "socket" / "gunicorn.sock"
