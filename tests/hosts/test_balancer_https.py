"""HTTPS on the balancer of rehearsals: certificates and redirects come and go without a restart."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rehearsal.backend import SAME_HOST, Check, Entrance
from rehearsal.balancer import BalancerMachine
from rehearsal.issuer import Issuer
from rehearsal.machines.network import Network
from tests.support.waiting import wait_for

ISSUER = Issuer()


def pem(*names: str) -> str:
    made = ISSUER.issue(*names)
    return made.fullchain + made.key


class Scheme(BaseHTTPRequestHandler):
    """Answers with the scheme that the balancer says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        said = ",".join(self.headers.get_all("X-Forwarded-Proto") or [])
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def balancer(hosts: Network) -> Iterator[BalancerMachine]:
    check = Check(path="/", interval=1, timeout=1, rise=1, fall=3, idle=60, keepalive=True)
    made = BalancerMachine.start(hosts, "https-balancer", "10.79.0.2/24", check, print)
    target = ThreadingHTTPServer((hosts.gateway, 80), Scheme)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    try:
        made.wait_serving()
        made.set_targets([hosts.gateway])
        wait_for(lambda: over_http(made)[0] == 200, "the balancer sends requests to its target")
        yield made
    finally:
        target.shutdown()
        target.server_close()


def over_http(balancer: BalancerMachine, path: str = "/", **headers: str) -> tuple[int, str]:
    """Return the status of a request at port 80, and where it is redirected to or else the answer's body."""
    connection = http.client.HTTPConnection(balancer.address, 80, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers.get("Location") or body


def handshake(balancer: BalancerMachine, name: str, *, alpn: str = "http/1.1") -> ssl.SSLSocket:
    context = ssl.create_default_context(cadata=ISSUER.root)
    context.set_alpn_protocols([alpn])
    return context.wrap_socket(socket.create_connection((balancer.address, 443), 10), server_hostname=name)


def over_https(balancer: BalancerMachine, name: str, **headers: str) -> str:
    """Return the answer's body; the certificate is verified."""
    lines = [f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close", *(f"{k}: {v}" for k, v in headers.items())]
    with handshake(balancer, name) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode().rpartition("\r\n\r\n")[2]


def test_https_comes_and_goes_without_a_restart(balancer: BalancerMachine) -> None:
    assert over_http(balancer, "/a?b=c", Host="example.com") == (200, "http")
    with pytest.raises(ssl.SSLError):
        handshake(balancer, "example.com")
    started = balancer.machine.run("systemctl show -p ExecMainStartTimestamp haproxy").stdout

    balancer.set_entrance(Entrance(certificates=(pem("example.com"), pem("www.example.com")), redirect="example.com"))
    assert over_https(balancer, "example.com") == "https"
    assert over_https(balancer, "www.example.com", **{"X-Forwarded-Proto": "http"}) == "https", "what a visitor says"
    assert over_http(balancer, "/a?b=c", Host="www.example.com") == (301, "https://example.com/a?b=c")
    with handshake(balancer, "example.com", alpn="h2") as connection:
        assert (connection.selected_alpn_protocol(), connection.version()) == ("h2", "TLSv1.3")
    with pytest.raises(ssl.SSLError):
        handshake(balancer, "other.example.com")

    balancer.set_entrance(Entrance(certificates=(pem("example.com"),), redirect=SAME_HOST))
    assert over_https(balancer, "example.com") == "https"
    assert over_http(balancer, "/a?b=c", Host="old.example.com") == (301, "https://old.example.com/a?b=c")
    with pytest.raises(ssl.SSLError):
        handshake(balancer, "www.example.com")

    balancer.set_entrance(Entrance())
    assert over_http(balancer, "/", **{"X-Forwarded-Proto": "https"}) == (200, "http"), "what a visitor says"
    with pytest.raises(ssl.SSLError):
        handshake(balancer, "example.com")
    assert balancer.machine.run("systemctl show -p ExecMainStartTimestamp haproxy").stdout == started

    balancer.set_entrance(Entrance(certificates=(pem("example.com"),), redirect="example.com"))
    balancer.machine.run("systemctl restart haproxy")
    wait_for(lambda: over_http(balancer)[0] == 301, "the balancer keeps its entrance")
    wait_for(lambda: over_https(balancer, "example.com") == "https", "the balancer keeps its certificate")
