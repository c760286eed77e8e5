"""A certificate authority for rehearsals: a throwaway machine with Debian's ACME server pebble, and a DNS server.

nginx stands before pebble: it keeps a log of all orders, and answers in pebble's place while a fault is set. pebble has
everything in memory: a restart forgets accounts and makes another root.
"""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from rehearsal.this_host import Say, wait

Fault = Literal["", "away", "overloaded", "rate-limited"]

IDENTITY = "authority.test"
"""What a CAA record has to name for this authority."""

_PORT, _PEBBLE, _MANAGEMENT = 14000, 14001, 15000
_LOG = "/var/log/nginx/acme.log"
_NINETY_DAYS = 90 * 86400

# Delays and refused nonces are for tests of ACME clients. Without them, an order takes two seconds. A name is checked
# for each order anew.
_PEBBLE_UNIT = """
[Unit]
Description=The ACME server
After=dnsmasq.service

[Service]
Environment=PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 PEBBLE_AUTHZREUSE=0
ExecStart=/usr/bin/pebble -config /etc/acme/pebble.json -dnsserver 127.0.0.1:53
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""


@dataclass
class Authority:
    """A certificate authority that runs, with the DNS server that it and the machines ask.

    `root` is the PEM of its roots: that of its own certificate, and that of those that it issues.
    """

    machine: Machine
    root: str = ""
    records: dict[str, Sequence[str]] = field(default_factory=dict)
    caa: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(
        cls, network: Network, name: str = "authority", *, lifetime: int = _NINETY_DAYS, say: Say = lambda _: None
    ) -> Authority:
        """Boot the machine. `lifetime` is that of its certificates, in seconds. No name is known at first.

        Raises:
            RehearsalError: The machine does not start.
        """
        files = {"etc/systemd/system/pebble.service": _PEBBLE_UNIT, "etc/acme/pebble.json": _pebble_json(lifetime)}
        machine = network.boot(name, flavour="authority", files=files, say=say)
        machine.wait_running()
        certificate, key = _own_certificate(machine.address)
        machine.run("cat >/etc/acme/own.crt", input=certificate)
        machine.run("umask 077; cat >/etc/acme/own.key", input=key)
        made = cls(machine=machine)
        made.set_records({})
        made.set_fault("")
        machine.run("systemctl daemon-reload; systemctl enable --quiet --now pebble dnsmasq nginx")
        made.wait_serving()
        made._read_root()
        return made

    @classmethod
    def of(cls, machine: Machine) -> Authority:
        """The one that runs on a machine already. Its records are those that were set, and are not known here."""
        made = cls(machine=machine)
        made._read_root()
        return made

    @property
    def directory(self) -> str:
        """The URL for `decant:acmeServer`."""
        return f"https://{self.machine.address}:{_PORT}/dir"

    @property
    def resolver(self) -> str:
        """The address of the DNS server."""
        return self.machine.address

    def wait_serving(self, timeout: float = 30) -> None:
        """Wait until it answers.

        Raises:
            RehearsalError: It does not answer after `timeout` seconds.
        """

        def answers() -> bool:
            try:
                return "newOrder" in self._get(self.directory)
            except OSError:
                return False

        wait(answers, timeout, f"{self.machine.name}: the ACME server does not answer at {self.directory}")

    def set_records(self, records: Mapping[str, Sequence[str]], caa: Mapping[str, str] | None = None) -> None:
        """Replace all records of the DNS: addresses of both kinds by name, and who may issue (CAA) by name."""
        self.records, self.caa = dict(records), dict(caa or {})
        self.machine.run("cat >/etc/dnsmasq.conf", input=_dnsmasq_conf(self.records, self.caa))
        self.machine.run("systemctl reset-failed dnsmasq; systemctl restart dnsmasq")

    def set_fault(self, fault: Fault, *, until: str = "2030-01-01 10:00:00 UTC") -> None:
        """Let it fail from now on, or no more (""). A client that is `rate-limited` is told the time `until`."""
        self.machine.run("cat >/etc/nginx/nginx.conf", input=_nginx_conf(fault, until))
        self.machine.run("nginx -t -q && systemctl reset-failed nginx")
        self.machine.run("systemctl stop nginx" if fault == "away" else "systemctl restart nginx")

    def forget(self) -> None:
        """Restart the ACME server, which then knows no account and has another root."""
        self.machine.run("systemctl restart pebble")
        self.wait_serving()
        self._read_root()

    def orders(self) -> list[int]:
        """The status of the answer to each order so far."""
        lines = self.machine.run(f"cat {_LOG}", check=False).stdout.splitlines()
        return [int(line.split()[2]) for line in lines if line.split()[:2] == ["POST", "/order-plz"]]

    def _read_root(self) -> None:
        own = self.machine.run("cat /etc/acme/own.crt").stdout
        self.root = own + self._get(f"https://{self.machine.address}:{_MANAGEMENT}/roots/0")

    def _get(self, url: str) -> str:
        context = ssl.create_default_context(cadata=self.machine.run("cat /etc/acme/own.crt").stdout)
        with urllib.request.urlopen(url, timeout=5, context=context) as reply:  # noqa: S310 - https alone
            return str(reply.read().decode())


def _own_certificate(address: str) -> tuple[str, str]:
    """A certificate that is its own root, for an address, with its key; both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, IDENTITY)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    certificate = builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()
    return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _pebble_json(lifetime: int) -> str:
    return json.dumps(
        {
            "pebble": {
                "listenAddress": f"127.0.0.1:{_PEBBLE}",
                "managementListenAddress": f"0.0.0.0:{_MANAGEMENT}",
                "certificate": "/etc/acme/own.crt",
                "privateKey": "/etc/acme/own.key",
                "httpPort": 80,
                "tlsPort": 443,
                "ocspResponderURL": "",
                "externalAccountBindingRequired": False,
                "domainBlocklist": ["blocked.test"],
                "retryAfter": {"authz": 1, "order": 1},
                "certificateValidityPeriod": lifetime,
            }
        }
    )


def _dnsmasq_conf(records: Mapping[str, Sequence[str]], caa: Mapping[str, str]) -> str:
    lines = ["no-resolv", "no-hosts", "local=/#/"]
    for name, addresses in records.items():
        for address in addresses:
            ip_address(address)
            lines.append(f"host-record={name},{address}")
    # RFC 8659, 4.1: flags, length of the tag, tag, value. dnsmasq takes a type that it does not know as hexadecimal.
    for name, issuer in caa.items():
        lines.append(f"dns-rr={name},257,{(bytes([0, 5]) + b'issue' + issuer.encode()).hex()}")
    return "\n".join([*lines, ""])


def _nginx_conf(fault: Fault, until: str) -> str:
    """nginx before pebble, which makes its URLs from the Host header, and says nothing of CAA records by itself."""
    problem = {
        "type": "urn:ietf:params:acme:error:rateLimited",
        "detail": "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s,"
        f" retry after {until}: see https://letsencrypt.org/docs/rate-limits/",
        "status": 429,
    }
    answer = {
        "rate-limited": "location = /order-plz { default_type application/problem+json; return 429 '"
        + json.dumps(problem)
        + "'; }",
        "overloaded": "location ~ . { return 503; }",
    }.get(fault, "")
    return f"""
worker_processes 1;
pid /run/nginx.pid;
events {{}}
http {{
    log_format orders "$request_method $uri $status";
    access_log {_LOG} orders;
    # Another site, for names that lead to a wrong machine.
    server {{
        listen 80;
        access_log off;
        return 200 "another site";
    }}
    server {{
        listen {_PORT} ssl;
        ssl_certificate /etc/acme/own.crt;
        ssl_certificate_key /etc/acme/own.key;
        {answer}
        location / {{
            proxy_pass https://127.0.0.1:{_PEBBLE};
            proxy_set_header Host $http_host;
            sub_filter_types application/json;
            sub_filter '"meta": {{' '"meta": {{"caaIdentities": ["{IDENTITY}"],';
        }}
    }}
}}
"""
