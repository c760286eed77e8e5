"""The balancer of rehearsals is as strict as the strictest of the clouds' balancers."""

from __future__ import annotations

import http.client
import socketserver
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rehearsal.backend import Check
from rehearsal.balancer import BalancerMachine
from rehearsal.machines.network import Network
from tests.support.waiting import wait_for
from tests.support.websocket import WebSocket, accept_key, frame

CHECK = Check(path="/up", interval=2, timeout=1, rise=1, fall=3, idle=60, keepalive=False)


class Target(BaseHTTPRequestHandler):
    """A machine that answers every request."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def ask(address: str, path: str = "/") -> tuple[int, float]:
    """Return the status of one request through the balancer, and the seconds that it took."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(address, 80, timeout=30)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status, time.monotonic() - began


class Echo(socketserver.StreamRequestHandler):
    """A machine that opens WebSockets which echo, and answers /slow after three seconds."""

    def handle(self) -> None:
        lines = [line.decode().strip() for line in iter(self.rfile.readline, b"\r\n")]
        key = next((line[19:] for line in lines if line.lower().startswith("sec-websocket-key: ")), None)
        if key is None:
            time.sleep(3 if "/slow" in lines[0] else 0)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        self.wfile.write(f"{upgrade}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode())
        while len(head := self.rfile.read(6)) == 6:
            masked = self.rfile.read(head[1] & 0x7F)
            self.wfile.write(frame(bytes(byte ^ head[2 + at % 4] for at, byte in enumerate(masked))))


class EchoServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@pytest.mark.parametrize("keepalive", [True, False], ids=["aws", "digitalocean"])
def test_a_websocket_passes_until_it_is_silent_for_too_long(hosts: Network, keepalive: bool) -> None:
    """As a request does, which a balancer answers with 504 when the machine takes longer than that."""
    check = replace(CHECK, path="/", idle=2, keepalive=keepalive)
    balancer = BalancerMachine.start(hosts, f"echo-{keepalive}".lower(), "10.78.0.2/24", check, print)
    target = EchoServer((hosts.gateway, 80), Echo)
    try:
        threading.Thread(target=target.serve_forever, daemon=True).start()
        balancer.wait_serving()
        balancer.set_targets([hosts.gateway])
        wait_for(lambda: ask(balancer.address)[0] == 200, "the balancer sends requests to its target")
        with WebSocket(balancer.address, "/") as opened:
            for _ in range(4):
                opened.send("hello")
                assert opened.receive() == "hello"
                time.sleep(1)
            began = time.monotonic()
            assert opened.receive() is None
            assert 0.5 < time.monotonic() - began < 3
        assert ask(balancer.address, "/slow")[0] == 504
    finally:
        target.shutdown()
        target.server_close()
        balancer.machine.power_off()


def test_a_refused_connection_is_an_error_for_the_visitor(hosts: Network) -> None:
    """HAProxy waits for a second before it tries again, and clouds' balancers do not try again at all."""
    balancer = BalancerMachine.start(hosts, "balancer", "10.77.0.2/24", CHECK, print)
    target = ThreadingHTTPServer((hosts.gateway, 80), Target)
    try:
        threading.Thread(target=target.serve_forever, daemon=True).start()
        balancer.wait_serving()
        assert ask(balancer.address)[0] == 503, "without a target"
        balancer.set_targets([hosts.gateway])
        wait_for(lambda: ask(balancer.address)[0] == 200, "the balancer sends requests to its target")
        target.shutdown()
        target.server_close()
        status, seconds = ask(balancer.address)
        assert status == 503
        assert seconds < 0.9
        assert balancer.states() == {hosts.gateway: "UP"}, "no check has failed yet often enough"
    finally:
        target.server_close()
        balancer.machine.power_off()
