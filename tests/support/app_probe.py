"""WSGI middleware for the app on a throwaway machine, which shows tests what the app sees and can do.

With the header `X-Probe: environ`, a request is answered with its WSGI environment and the length of its body, as JSON.
With `X-Probe: run`, the worker runs the body as Python code, and the answer is what the code prints. `X-Probe: events`
gives three events, one each half second, and `X-Probe: cookies` as many cookies of 4000 bytes as the body says. With
`X-Probe: websocket`, a handshake opens a WebSocket, which echoes each message with the release in front. Method and
address of every request are appended to $DATA_DIR/requests.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455


def echo(environ: dict[str, Any]) -> Iterable[bytes]:
    """Serve short messages on gunicorn's own socket, and tell gunicorn at the end that nothing is left to send."""
    sock = environ["gunicorn.socket"]
    accept = base64.b64encode(hashlib.sha1((environ["HTTP_SEC_WEBSOCKET_KEY"] + MAGIC).encode()).digest()).decode()
    upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    sock.sendall(f"{upgrade}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    while len(head := sock.recv(6)) == 6 and head[0] & 0x0F == 1:
        text = bytes(byte ^ head[2 + at % 4] for at, byte in enumerate(sock.recv(head[1] & 0x7F)))
        said = os.environ["DECANT_RELEASE"].encode() + b" " + text
        sock.sendall(bytes([0x81, len(said)]) + said)
    raise StopIteration


def events() -> Iterator[bytes]:
    for number in range(3):
        yield f"data: {number}\n\n".encode()
        time.sleep(0.5)


class Probe:
    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with open(os.path.join(os.environ["DATA_DIR"], "requests"), "a") as log:  # noqa: PTH118, PTH123
            log.write(f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}\n")
        wanted = environ.get("HTTP_X_PROBE")
        if wanted == "websocket":
            return echo(environ)
        if wanted == "events":
            start_response("200 OK", [("Content-Type", "text/event-stream")])
            return events()
        if wanted == "cookies":
            count = int(environ["wsgi.input"].read())
            start_response("200 OK", [("Set-Cookie", f"c{n}={'x' * 3_997}") for n in range(count)])
            return []
        if wanted == "environ":
            length = len(environ["wsgi.input"].read())
            seen = {key: value for key, value in environ.items() if isinstance(value, str)}
            answer = json.dumps({**seen, "length": length})
        elif wanted == "run":
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                try:
                    exec(environ["wsgi.input"].read().decode(), {})
                except Exception:
                    print(traceback.format_exc())
            answer = said.getvalue()
        else:
            return self.app(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer.encode()]
