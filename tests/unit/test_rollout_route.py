"""The way to the public URL: pinned to an address, by its name, and whose certificates are trusted."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from decant.rollout import route
from decant.rollout.http_probe import probe
from decant.rollout.route import Route, https_url, route_to
from tests.support.certificates import Authority

NAME = "www.example.com"


@dataclass
class Server:
    """An HTTPS server on this computer, and the Host headers that it got."""

    port: int
    hosts: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def secure(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """It has a certificate for NAME."""
    authority.issue(NAME).write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "fullchain.pem", tmp_path / "privkey.pem")
    hosts: list[str] = []

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("X-Release", "0123456789ab")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield Server(server.server_port, hosts)
        server.shutdown()


def test_a_pinned_request_keeps_the_name(secure: Server, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a proxy is configured, which would look the name up."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    way = Route(connect_to="127.0.0.1", root=authority.root)
    result = probe(f"https://{NAME}:{secure.port}/", route=way)
    assert (result.status, result.release) == (200, "0123456789ab"), result.why
    assert secure.hosts == [f"{NAME}:{secure.port}"]


def test_a_certificate_that_nobody_trusts_is_no_answer(secure: Server) -> None:
    result = probe(f"https://{NAME}:{secure.port}/", route=Route(connect_to="127.0.0.1"))
    assert (result.status, result.release) == (0, "")
    assert "CERTIFICATE_VERIFY_FAILED" in result.why
    assert secure.hosts == []


def test_a_certificate_for_another_name_is_no_answer(secure: Server, authority: Authority) -> None:
    way = Route(connect_to="127.0.0.1", root=authority.root)
    result = probe(f"https://other.example:{secure.port}/", route=way)
    assert result.status == 0
    assert "is not valid for 'other.example'" in result.why


def test_a_name_that_leads_there_is_asked_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "example.com": {"203.0.113.7", "203.0.113.8"},
        "203.0.113.7": {"203.0.113.7"},
        "203.0.113.9": {"203.0.113.9"},
        "lb.example": {"203.0.113.8"},
    }
    monkeypatch.setattr(route, "addresses_of", lambda name: known.get(name, set()))
    assert route_to("example.com", "203.0.113.7", "PEM") == Route(root="PEM")
    assert route_to("example.com", "lb.example", None) == Route()
    assert route_to("example.com", "203.0.113.9", None) == Route(connect_to="203.0.113.9")
    assert route_to("unknown.example", "203.0.113.7", None) == Route(connect_to="203.0.113.7")
    assert route_to(None, "203.0.113.7", None) == Route()


def test_addresses_are_their_own_and_unknown_names_have_none() -> None:
    assert route.addresses_of("127.0.0.1") == {"127.0.0.1"}
    assert route.addresses_of("name.invalid") == set()


def test_https_url_changes_the_scheme_alone() -> None:
    assert https_url("http://example.com") == "https://example.com"
    assert https_url("http://[2001:db8::7]") == "https://[2001:db8::7]"
