"""The balancer of rehearsals is as strict as the strictest of the clouds' balancers."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rehearsal.backend import Check
from rehearsal.balancer import BalancerMachine
from rehearsal.machines.network import Network
from tests.support.waiting import wait_for

CHECK = Check(path="/up", interval=2, timeout=1, rise=1, fall=3, idle=60, keepalive=False)


class Target(BaseHTTPRequestHandler):
    """A machine that answers every request."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def ask(address: str) -> tuple[int, float]:
    """Return the status of one request through the balancer, and the seconds that it took."""
    began = time.monotonic()
    connection = http.client.HTTPConnection(address, 80, timeout=30)
    connection.request("GET", "/")
    status = connection.getresponse().status
    connection.close()
    return status, time.monotonic() - began


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
