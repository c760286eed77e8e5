"""A load balancer: a throwaway machine with HAProxy, which asks and behaves as the balancers of clouds do.

Where those differ it is like the stricter one. No request is sent a second time: not after an answer of 5xx, which
none of them does, and not after a refused connection either, which an Application Load Balancer answers with 502.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rehearsal.backend import Check
from rehearsal.errors import RehearsalError
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from rehearsal.this_host import Say

_TARGETS = "usr/local/sbin/balancer-targets"
_AGAIN = f"[Service]\nExecStartPost=/bin/sh /{_TARGETS} again\n"
_SOCKET = "/run/haproxy/admin.sock"


@dataclass(frozen=True)
class BalancerMachine:
    """One balancer, on and with nothing to send requests to at first."""

    machine: Machine

    @classmethod
    def start(
        cls, network: Network, name: str, inside_address: str, check: Check, say: Say = lambda _: None
    ) -> BalancerMachine:
        """Boot it. `inside_address` is the one that it asks machines from, with its network: 10.0.0.3/16."""
        files = {
            "etc/haproxy/haproxy.cfg": _configuration(check),
            "etc/haproxy/server": f"check inter {check.interval}s rise {check.rise} fall {check.fall}\n",
            "etc/haproxy/targets": "",
            _TARGETS: Path(__file__).with_name("balancer.sh").read_text(encoding="utf-8"),
            "etc/systemd/system/haproxy.service.d/targets.conf": _AGAIN,
            "etc/systemd/network/10-host0.network.d/inside.conf": f"[Network]\nAddress={inside_address}\n",
        }
        return cls(network.boot(name, flavour="balancer", files=files, say=say))

    @property
    def address(self) -> str:
        """The public one."""
        return self.machine.address

    def wait_serving(self, timeout: float = 60) -> None:
        """Wait until it answers visitors: with 503 while there is no machine to ask."""
        state = self.machine.wait_running(timeout)
        if state != "running":
            said = self.machine.run("systemctl --failed; journalctl --no-pager -n 20 -u haproxy", check=False).stdout
            raise RehearsalError(f"the balancer {self.machine.name} is {state}:\n{said}")

    def set_targets(self, addresses: Sequence[str]) -> None:
        """All machines that it may send requests to. Whoever is new gets none before it has passed its checks."""
        self.machine.run(["/bin/sh", f"/{_TARGETS}", "set", *addresses])

    def states(self) -> dict[str, str]:
        """UP, DOWN or MAINT (no target any more) for each machine that is or was a target."""
        ask = f"echo 'show stat machines 4 -1' | socat -t 10 - UNIX-CONNECT:{_SOCKET}"
        rows = [line.split(",") for line in self.machine.run(ask).stdout.splitlines()]
        return {row[1]: row[17].split()[0] for row in rows if len(row) > 17 and row[0] == "machines"}


def _configuration(check: Check) -> str:
    """Of haproxy, without servers: those come and go by balancer.sh."""
    return f"""
global
    user haproxy
    group haproxy
    log /dev/log local0
    stats socket {_SOCKET} mode 600 level admin
    maxconn 5000

defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout client {check.idle}s
    timeout http-keep-alive {check.idle}s
    timeout server {check.idle}s
    retries 0

frontend web
    bind :80
    option forwardfor
    http-request set-header X-Forwarded-Proto http
    default_backend machines

backend machines
    balance roundrobin
    {"http-reuse safe" if check.keepalive else "option http-server-close"}
    option httpchk
    http-check send meth GET uri {check.path} ver HTTP/1.1 hdr Host {check.host or "%[srv_name]"}
    http-check expect status {check.expect}
    timeout check {check.timeout}s
"""
