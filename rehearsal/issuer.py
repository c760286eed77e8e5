"""A certificate authority in memory: the certificates that a cloud's load balancer shows in a rehearsal.

Machines that get their certificates by themselves have an ACME server instead.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate with its chain and its private key, as PEM."""

    fullchain: str
    key: str
    serial: int

    def write(self, folder: Path) -> None:
        """Put both files into a folder, under the names that nginx reads on a machine."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fullchain.pem").write_text(self.fullchain)
        (folder / "privkey.pem").write_text(self.key)


class Issuer:
    """An authority with a key of its own, which issues whatever it is asked for."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Throwaway root")])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def root(self) -> str:
        """The root certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self, *names: str, days: float = 20, begins: float = 1, key: ec.EllipticCurvePrivateKey | None = None
    ) -> Issued:
        """Return a certificate for names and addresses, valid from `begins` days ago for `days` days from now."""
        own = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - begins * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return Issued(
            fullchain=certificate.public_bytes(Encoding.PEM).decode() + self.root,
            key=own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            serial=certificate.serial_number,
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
