"""What the tests' GitHub and GitLab have in common: an HTTP server with pages and with the bad moods of a forge."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit


@dataclass(frozen=True)
class Call:
    """One request. `path` has no query and no prefix such as /api/v4."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}" + (f"?{urlencode(self.query)}" if self.query else "")


@dataclass
class Reply:
    status: int
    data: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818 (an answer, not an error of the test)
    def __init__(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(data)
        self.reply = Reply(status, data, headers or {})


@dataclass
class Mood:
    """What happens to the next `times` requests that fit.

    `after` carries the request out all the same: the forge did it, and its answer got lost. `cut` closes the
    connection without an answer.
    """

    times: int
    method: str
    path: str
    reply: Callable[[], Reply]
    after: bool = False
    cut: bool = False

    def fits(self, call: Call) -> bool:
        return self.times > 0 and self.method in ("", call.method) and bool(re.search(self.path, call.path))


class ForgeApi:
    """A forge behind a URL. `calls` are all requests that came, also those that were refused."""

    prefix = ""
    page_size = 30

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.unknown: list[str] = []
        """Requests that this double does not know; it answers them with 404."""
        self.moods: list[Mood] = []
        self.before: Callable[[Call], None] = lambda call: None
        """Runs before a request is carried out, with no lock held: a test that races two jobs waits here."""
        self.lock = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    # Moods

    def fail(self, status: int = 502, *, times: int = 1, method: str = "", path: str = "", after: bool = False) -> None:
        """The next requests get an error page, as a proxy in front of the forge sends it."""
        page = "<html><head><title>Error</title></head><body>Unicorn!</body></html>"
        self.moods.append(Mood(times, method, path, lambda: Reply(status, page), after))

    def cut(self, *, times: int = 1, method: str = "", path: str = "", after: bool = False) -> None:
        """The next requests get no answer: the connection closes."""
        self.moods.append(Mood(times, method, path, lambda: Reply(0), after, cut=True))

    # Requests

    def answer(self, call: Call) -> Reply:
        """Who asks, and what for. Raises Refused."""
        raise NotImplementedError

    def handle(self, call: Call) -> Reply | None:
        """The reply; None for none at all."""
        self.before(call)
        with self.lock:
            self.calls.append(call)
            mood = next((mood for mood in self.moods if mood.fits(call)), None)
            if mood is not None:
                mood.times -= 1
                if mood.after:
                    self._answered(call)
                return None if mood.cut else mood.reply()
            return self._answered(call)

    def _answered(self, call: Call) -> Reply:
        try:
            return self.answer(call)
        except Refused as refused:
            return refused.reply

    def page(self, call: Call, entries: Iterable[Any], **headers: str) -> Reply:
        """One page of a list, with the links to its neighbours."""
        everything = list(entries)
        size = min(100, int(call.query.get("per_page", self.page_size)))
        number, last = int(call.query.get("page", 1)), max(1, -(-len(everything) // size))
        links = {"prev": number - 1, "next": number + 1, "first": 1, "last": last}
        shown = [
            f'<{self.url}{self.prefix}{call.path}?{urlencode({**call.query, "page": str(page)})}>; rel="{name}"'
            for name, page in links.items()
            if 1 <= page <= last and page != number
        ]
        return Reply(
            200,
            everything[(number - 1) * size : number * size],
            {**headers, **({"Link": ", ".join(shown)} if shown else {})},
        )

    def said(self, method: str = "") -> list[str]:
        """The requests so far as "POST /path", without their queries."""
        return [f"{call.method} {call.path}" for call in self.calls if method in ("", call.method)]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _handler(api: ForgeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = Call(
                self.command,
                parts.path.removeprefix(api.prefix),
                dict(parse_qsl(parts.query)),
                {name.lower(): value for name, value in self.headers.items()},
                json.loads(raw) if raw else {},
            )
            reply = api.handle(call)
            self.close_connection = True
            if reply is not None:
                self._send(reply)

        def _send(self, reply: Reply) -> None:
            text = reply.data if isinstance(reply.data, str) else json.dumps(reply.data)
            body = b"" if reply.status in (204, 304) else text.encode()
            tag = f'W/"{hashlib.sha256(text.encode()).hexdigest()}"'
            if self.command == "GET" and reply.status == 200:
                reply.headers.setdefault("ETag", tag)
                if self.headers.get("If-None-Match") == tag:
                    reply.status, body = 304, b""
            self.send_response(reply.status)
            kind = "text/html" if isinstance(reply.data, str) else "application/json; charset=utf-8"
            for name, value in {"Content-Type": kind, **reply.headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
