"""The part of DigitalOcean's HTTP API that a check of an account reads, with an account that a test describes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
TOKEN = "dop_v1_double"


def size(slug: str, memory: int, price: float, *, regions: tuple[str, ...] = ("fra1", "nyc3")) -> Json:
    return {"slug": slug, "memory": memory, "price_monthly": price, "available": True, "regions": list(regions)}


@dataclass
class Account:
    """What the account has, and what its token may read. `asked` are all calls, as "GET /v2/droplets"."""

    limits: Json = field(
        default_factory=lambda: {
            "status": "active",
            "droplet_limit": 10,
            "reserved_ip_limit": 3,
            "team": {"name": "Carol's team"},
        }
    )
    scopes: list[str] | None = field(default_factory=lambda: ["read", "write"])
    """What the panel says of the token; None where it does not answer."""
    refused: set[str] = field(default_factory=set)
    """Paths that the token may not read."""
    lists: dict[str, list[Json]] = field(
        default_factory=lambda: {
            "regions": [{"slug": "fra1", "available": True}, {"slug": "nyc3", "available": True},
                        {"slug": "nyc2", "available": False}],
            "sizes": [size("s-1vcpu-512mb-10gb", 512, 4), size("s-1vcpu-1gb", 1024, 6), size("s-1vcpu-2gb", 2048, 12),
                      size("c-2", 4096, 42, regions=("nyc3",))],
            "images": [
                {"id": 1, "slug": "debian-13-x64", "distribution": "Debian", "regions": ["fra1", "nyc3"]},
                {"id": 2, "slug": "ubuntu-24-04-x64", "distribution": "Ubuntu", "regions": ["fra1", "nyc3"]},
            ],
            "vpcs": [{"id": "v1", "region": "fra1", "name": "default-fra1"}],
        }
    )  # fmt: skip
    broken: set[str] = field(default_factory=set)
    """Paths that answer with an error of the API's own."""
    failing: list[tuple[int, Json, dict[str, str]]] = field(default_factory=list)
    """Answers to give first: status, body and headers."""
    page: int = 200
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, Json]:
        if path in self.refused:
            return 403, {"id": "forbidden", "message": "You are not authorized to perform this operation"}
        if path in self.broken:
            return 500, {"id": "server_error", "message": "Unexpected server-side error"}
        if path == "/v2/account":
            return 200, {"account": self.limits}
        if path == "/v1/oauth/token/info":
            return (404, {"id": "not_found"}) if self.scopes is None else (200, {"scopes": self.scopes})
        key = {"keys": "ssh_keys"}.get(path.rpartition("/")[2], path.rpartition("/")[2])
        return 200, self._page(key, int(query["page"][0]) if "page" in query else 1)

    def _page(self, key: str, number: int) -> Json:
        found = self.lists.get(key, [])
        shown = found[(number - 1) * self.page : number * self.page]
        more = len(found) > number * self.page
        links = {"pages": {"next": f"https://api.digitalocean.com/v2/{key}?page={number + 1}"}} if more else {}
        return {key: shown, "links": links}


@contextmanager
def serving(account: Account) -> Iterator[str]:
    """Serve the account's API and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            account.asked.append(f"{self.command} {parts.path}")
            headers: dict[str, str] = {}
            if account.failing:
                status, body, headers = account.failing.pop(0)
            elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                status, body = 401, {"id": "Unauthorized", "message": "Unable to authenticate you"}
            else:
                status, body = account.answer(parts.path, parse_qs(parts.query))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
