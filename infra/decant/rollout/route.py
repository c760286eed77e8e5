"""The way to the public URL: by its name, or pinned to the address that the name will lead to; and who is trusted."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Route:
    """How requests for the public URL travel.

    `connect_to` is an address or name to connect to in place of the URL's; the Host header and the name in the
    certificate stay the URL's. `root` is the PEM of a private certificate authority, trusted besides the usual ones.
    """

    connect_to: str | None = None
    root: str | None = None

    def handlers(self) -> list[urllib.request.BaseHandler]:
        """urllib's handlers for this way. A pinned request goes through no proxy, which would look the name up."""
        context = trust(self.root)
        if self.connect_to is None:
            return [urllib.request.HTTPSHandler(context=context)]
        return [
            urllib.request.ProxyHandler({}),
            _PinnedHttp(self.connect_to),
            _PinnedHttps(self.connect_to, context),
        ]


def trust(root: str | None) -> ssl.SSLContext:
    """Who may vouch for a server: the usual authorities, and a private one by its root as PEM."""
    context = ssl.create_default_context()
    if root:
        context.load_verify_locations(cadata=root)
    return context


def _connections(connect_to: str, kind: type[http.client.HTTPConnection], **options: Any) -> Callable[..., Any]:
    """What makes urllib's connections of a kind, which then connect to another address than their name's."""

    def connection(host: str, **more: Any) -> http.client.HTTPConnection:
        made = kind(host, **more, **options)

        def connect(address: tuple[str, int], *arguments: Any) -> socket.socket:
            return socket.create_connection((connect_to, address[1]), *arguments)

        made._create_connection = connect  # type: ignore[attr-defined]  # http.client's own hook
        return made

    return connection


class _PinnedHttp(urllib.request.HTTPHandler):
    def __init__(self, connect_to: str) -> None:
        super().__init__()
        self.connect_to = connect_to

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_connections(self.connect_to, http.client.HTTPConnection), req)


class _PinnedHttps(urllib.request.HTTPSHandler):
    def __init__(self, connect_to: str, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self.connect_to, self.context = connect_to, context

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_connections(self.connect_to, http.client.HTTPSConnection, context=self.context), req)


def https_url(url: str) -> str:
    """The URL with the scheme https."""
    return "https://" + url.partition("://")[2]


def addresses_of(name: str) -> set[str]:
    """The addresses that a name leads to from this computer; none where it is not known."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def route_to(domain: str | None, address: str, root: str | None) -> Route:
    """The way to a site: by its name where that leads to `address` (an address or a balancer's name), else pinned.

    `domain` None: the site has no name, and its URL names the address.
    """
    if domain is None or addresses_of(domain) & addresses_of(address):
        return Route(root=root)
    return Route(connect_to=address, root=root)
