"""A site on a throwaway machine that gets its certificate from a rehearsal's authority."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from decant.host import steps
from decant.host.manifest import files_name, files_tar
from decant.host.render import HostSite, Limits
from decant_host.protocol import CertificateStatus, HttpsSettings
from rehearsal.authority import Authority
from rehearsal.machines.machine import Machine
from tests.support.project_copy import STACK
from tests.support.waiting import PATIENCE

NAME, WWW = "app.test", "www.app.test"
UNIT, TIMER = "decant-certificate.service", "decant-certificate.timer"
DATA = "/var/lib/decant"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer over HTTP or HTTPS; `serial` is that of the certificate."""

    status: int
    headers: Mapping[str, str]
    serial: str = ""


@dataclass(kw_only=True)
class HttpsSite:
    """The machine of a site, with the authority that it asks."""

    machine: Machine
    authority: Authority

    @property
    def address(self) -> str:
        return self.machine.address

    def provision(self, *, own: tuple[str, str] = ("", ""), **changes: Any) -> None:
        """Run the `provision` step with the settings of a site that gets a certificate, changed by `changes`.

        `own` is a certificate of the user's, and its key.
        """
        wanted = {
            "names": [NAME, WWW], "by_address": False, "own": bool(own[0]), "server": self.authority.directory,
            "root": True, "profile": "classic", "email": None, "resolvers": [self.authority.resolver], "hsts": None,
            **changes,
        }  # fmt: skip
        https = cast(HttpsSettings, wanted)
        names = https["names"]
        site = HostSite(
            names=tuple(dict.fromkeys([names[0], self.address])), redirects=tuple(names[1:]), https=https,
            acme_root=self.authority.root, certificate=own[0], certificate_key=own[1],
        )  # fmt: skip
        tar = files_tar()
        self.machine.run(f"mkdir -p {steps.HOME}")
        (self.machine.root / "root" / steps.HOME / files_name(tar)).write_bytes(tar)
        line, script = steps.provision_step(
            stack=STACK, machine="web.x", user="root", harden=False, site=site, proxy=None, health_path=None,
            limits=Limits(request_timeout=30, max_body=1 << 20),
        )  # fmt: skip
        self.machine.run(line, input=script)
        # The tests say when something is due, but for one that is about the timer.
        self.machine.run(["systemctl", "stop", TIMER])

    def start_over(self) -> None:
        """Forget every certificate and account, on a machine whose authority is well and knows no name."""
        self.machine.run(f"systemctl stop {TIMER} {UNIT}; rm -rf {DATA}/certbot/* {DATA}/tls/* {DATA}/tls/.[!.]*")
        self.authority.set_fault("")
        self.authority.set_records({})

    def lead_here(self, *names: str) -> None:
        """Let names lead to the machine, and no other names anywhere."""
        self.authority.set_records({name: [self.address] for name in names})

    def certificate(self, *options: str) -> CertificateStatus:
        """Run `decant-host certificate`, as the coordinator does."""
        done = self.machine.run([steps.PROGRAM, "certificate", *options])
        found: CertificateStatus = json.loads(done.stdout)
        return found

    def at(self, days: int) -> CertificateStatus:
        """Run what the unit runs, with the clock moved by so many days. Then return the status by the right clock."""
        self.machine.run(["faketime", f"+{days} days", steps.PROGRAM, "certificate-run"])
        return self.status()

    def status(self) -> CertificateStatus:
        found: CertificateStatus = json.loads(self.machine.run([steps.PROGRAM, "status"]).stdout)["https"]
        return found

    def orders(self) -> int:
        """How many orders have reached the authority."""
        return len(self.authority.orders())

    # ---------------------------------------------------------------- as a visitor

    def get(self, scheme: str = "https", name: str = NAME, path: str = "/healthz", root: str = "") -> Reply:
        """Ask the machine for a page under a name. The certificate is verified with the authority's root."""
        with self._connected(scheme, name, root or self.authority.root) as (sock, serial):
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while part := sock.recv(65536):
                    received += part
        head = received.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head[1:]}
        return Reply(status=int(head[0].split()[1]), headers=headers, serial=serial)

    @contextlib.contextmanager
    def _connected(self, scheme: str, name: str, root: str) -> Iterator[tuple[socket.socket, str]]:
        port = 443 if scheme == "https" else 80
        with socket.create_connection((self.address, port), timeout=PATIENCE) as sock:
            if scheme == "http":
                yield sock, ""
                return
            context = ssl.create_default_context(cadata=root)
            with context.wrap_socket(sock, server_hostname=name) as tls:
                yield tls, str((tls.getpeercert() or {})["serialNumber"]).lower().lstrip("0")

    def refuses_https(self) -> bool:
        """Whether a TLS handshake fails."""
        try:
            self.get()
        except ssl.SSLError:
            return True
        return False
