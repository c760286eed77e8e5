"""Probes: HTTP requests to a release on this machine, through its own socket or through nginx."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from decant_host.atomic import read_json
from decant_host.paths import LIVE_CERTIFICATE, SETTINGS

if TYPE_CHECKING:
    import ssl

LARGEST_ANSWER = 1 << 16
"""Bytes of an answer that are read."""


class ProbeResult(NamedTuple):
    """The answer to a probe. A `status` of 0 means that none came; `body` is then the reason."""

    status: int
    release: str
    body: str

    def serves(self, release: str, *, needs_200: bool) -> bool:
        """Whether this is a healthy answer of the release."""
        good = self.status == 200 if needs_200 else 0 < self.status < 500
        return good and self.release == release

    def __str__(self) -> str:
        if not self.status:
            return self.body
        # Not cut here: secrets must be masked in it first. It has 2000 characters at most.
        return f"status {self.status}" + (f", body: {self.body!r}" if self.body else "")


def probe(path: str, *, through: Path | None, timeout: float = 5.0) -> ProbeResult:
    """GET a path under the site's own name, through a gunicorn socket, or through nginx (`through` None).

    `timeout` seconds is the limit for the whole answer: the caller may hold a lock, and an app may answer one byte a
    second.
    """
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=timeout)
    site = read_json(SETTINGS)
    name, https = site.get("name", "localhost"), ends_https(site)
    # As visitors come: an app may redirect all requests over http to https.
    scheme = "https" if https else site.get("scheme", "http")
    headers = {"Host": name, "User-Agent": "decant"}
    headers |= {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": scheme}
    headers["Connection"] = "close"
    late = threading.Event()
    try:
        with _connect(through, timeout, port=443 if https else 80) as plain, _hang_up_after(plain, timeout, late):
            connection.sock = _with_tls(plain, name) if through is None and https else plain
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            if reply.chunked:
                # A chunk with a negative size would make http.client read without a limit.
                reply.fp = io.BufferedReader(io.BytesIO(reply.fp.read(LARGEST_ANSWER)))
            body = reply.read(2000).decode(errors="replace").strip()
            if not late.is_set():
                return ProbeResult(status=reply.status, release=reply.getheader("X-Release", ""), body=body)
    except TimeoutError:
        late.set()
    except (OSError, ValueError, ArithmeticError, http.client.HTTPException) as error:
        if not late.is_set():
            return ProbeResult(status=0, release="", body=f"no answer: {error or type(error).__name__}")
    finally:
        connection.close()
    return ProbeResult(status=0, release="", body=f"no answer within {timeout:.0f} s")


def ends_https(site: Mapping[str, Any]) -> bool:
    """Whether this machine itself serves HTTPS: `site` are its settings, and it has a certificate."""
    return bool(site.get("https")) and (LIVE_CERTIFICATE / "fullchain.pem").exists()


def _with_tls(sock: socket.socket, name: str) -> ssl.SSLSocket:
    """The connection over TLS. Nothing is verified: it leads to nginx on this machine."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=None if _is_address(name) else name)


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return False


def _connect(through: Path | None, timeout: float, *, port: int) -> socket.socket:
    if through is None:
        return socket.create_connection(("127.0.0.1", port), timeout)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(str(through))
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _hang_up_after(sock: socket.socket, seconds: float, late: threading.Event) -> Iterator[None]:
    """Shut the socket down after so many seconds, if the block still runs, and set `late`."""

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
