"""A load balancer: a throwaway machine with HAProxy, which checks machines and treats requests as the clouds' do.

Where the clouds differ, it behaves like the stricter one. It never sends a request a second time: not after an answer
of 5xx, which no cloud's balancer does, and not after a refused connection, which an Application Load Balancer answers
with 502.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rehearsal.backend import SAME_HOST, Check, Entrance
from rehearsal.errors import RehearsalError
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from rehearsal.this_host import Say

_TARGETS = "usr/local/sbin/balancer-targets"
_ENTRANCE = "usr/local/sbin/balancer-entrance"
_AGAIN = f"[Service]\nExecStartPost=/bin/sh /{_TARGETS} again\n"
_SOCKET = "/run/haproxy/admin.sock"


@dataclass(frozen=True)
class BalancerMachine:
    """A balancer that runs. Without targets, it answers 503."""

    machine: Machine

    @classmethod
    def start(
        cls, network: Network, name: str, interface: str, check: Check, say: Say = lambda _: None
    ) -> BalancerMachine:
        """Boot the machine. `interface` is the private address that it reaches machines from, such as 10.0.0.3/16.

        Raises:
            RehearsalError: The machine does not start.
        """
        files = {
            "etc/haproxy/haproxy.cfg": configuration(check),
            "etc/haproxy/server": f"check inter {check.interval}s rise {check.rise} fall {check.fall}\n",
            "etc/haproxy/targets": "",
            "etc/haproxy/certificates/list": "",
            "etc/haproxy/redirect.map": "",
            _TARGETS: Path(__file__).with_name("balancer.sh").read_text(encoding="utf-8"),
            _ENTRANCE: Path(__file__).with_name("entrance.sh").read_text(encoding="utf-8"),
            "etc/systemd/system/haproxy.service.d/targets.conf": _AGAIN,
            "etc/systemd/network/10-host0.network.d/inside.conf": f"[Network]\nAddress={interface}\n",
        }
        return cls(network.boot(name, flavour="balancer", files=files, say=say))

    @property
    def address(self) -> str:
        """Its public address."""
        return self.machine.address

    def wait_serving(self, timeout: float = 60) -> None:
        """Wait until it answers visitors.

        Raises:
            RehearsalError: HAProxy does not run after `timeout` seconds.
        """
        state = self.machine.wait_running(timeout)
        if state != "running":
            said = self.machine.run("systemctl --failed; journalctl --no-pager -n 20 -u haproxy", check=False).stdout
            raise RehearsalError(f"the balancer {self.machine.name} is {state}:\n{said}")

    def set_targets(self, addresses: Sequence[str]) -> None:
        """Replace the machines that it may send requests to. A new one gets none before it has passed its checks."""
        self.machine.run(["/bin/sh", f"/{_TARGETS}", "set", *addresses])

    def set_entrance(self, entrance: Entrance) -> None:
        """Change how visitors come in, without a restart, so that no connection is lost."""
        names = []
        for pem in entrance.certificates:
            names.append(f"{hashlib.sha256(pem.encode()).hexdigest()[:12]}.pem")
            self.machine.run(["/bin/sh", f"/{_ENTRANCE}", "certificate", names[-1]], input=pem)
        self.machine.run(["/bin/sh", f"/{_ENTRANCE}", "set", entrance.redirect or "-", *names])

    def states(self) -> dict[str, str]:
        """Return UP, DOWN or MAINT (not a target any more) for each address that is or was a target."""
        ask = f"echo 'show stat machines 4 -1' | socat -t 10 - UNIX-CONNECT:{_SOCKET}"
        rows = [line.split(",") for line in self.machine.run(ask).stdout.splitlines()]
        return {row[1]: row[17].split()[0] for row in rows if len(row) > 17 and row[0] == "machines"}


def configuration(check: Check) -> str:
    """Return HAProxy's configuration. It has no servers, because balancer.sh adds and removes them."""
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
    timeout tunnel {check.idle}s
    retries 0

frontend web
    bind :80
    # strict-sni lets it start without a certificate. Its socket adds and removes them.
    bind :443 ssl crt-list /etc/haproxy/certificates/list strict-sni alpn h2,http/1.1 ssl-min-ver TLSv1.2
    option forwardfor
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    http-request set-header X-Forwarded-Proto http unless {{ ssl_fc }}
    http-request set-var(txn.to) str(to),map(/etc/haproxy/redirect.map)
    http-request redirect scheme https code 301 if !{{ ssl_fc }} {{ var(txn.to) -m str {SAME_HOST} }}
    http-request redirect location https://%[var(txn.to)]%[pathq] code 301 if !{{ ssl_fc }} {{ var(txn.to) -m found }}
    default_backend machines

backend machines
    balance roundrobin
    {"http-reuse safe" if check.keepalive else "option http-server-close"}
    option httpchk
    http-check send meth GET uri {check.path} ver HTTP/1.1 hdr Host {check.host or "%[srv_name]"}
    http-check expect status {check.expect}
    timeout check {check.timeout}s
"""
