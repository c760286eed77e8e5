"""Asking a release how it is: through its own socket, or through nginx."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from decant_host.files import RUN, SETTINGS, read_json


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
    """GET a path as the site's own name: through a gunicorn socket, or through nginx (`through` None)."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=timeout)
    name = read_json(SETTINGS).get("name", "localhost")
    headers = {"Host": name, "User-Agent": "decant", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http"}
    try:
        if through is not None:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(timeout)
            connection.sock.connect(str(through))
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        body = reply.read(2000).decode(errors="replace").strip()
        return Reply(status=reply.status, release=reply.getheader("X-Release", ""), body=body)
    except TimeoutError:
        return Reply(status=0, release="", body=f"no answer within {timeout:.0f} s")
    except (OSError, http.client.HTTPException) as error:
        return Reply(status=0, release="", body=f"no answer: {error or type(error).__name__}")
    finally:
        connection.close()


def socket_of(release: str) -> Path:
    """Where a release's gunicorn listens."""
    return RUN / release / "socket" / "gunicorn.sock"
