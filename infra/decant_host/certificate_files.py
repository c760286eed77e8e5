"""Certificates on the disk: what one is like, and putting it where nginx reads it."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import ipaddress
import os
import re
import shutil
import ssl
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from decant_host.atomic import link, link_target, write
from decant_host.paths import LIVE_CERTIFICATE, TLS
from decant_host.processes import run

NGINX = "www-data"
"""The group of nginx's workers, which read the certificate and its key at each full handshake."""

KEPT = 2
"""Certificates that stay: the one that is served and the one before it."""


class Certificate(NamedTuple):
    """What is in a certificate. Times are Unix times; `key_fits`: the private key beside it is its own."""

    serial: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    key_fits: bool

    @property
    def lifetime(self) -> float:
        """Seconds from its beginning to its end."""
        return self.not_after - self.not_before

    def covers(self, name: str) -> bool:
        """Whether it is for a name or an address; a wildcard stands for one label (RFC 6125, 6.4.3)."""
        return name in self.names or f"*.{name.partition('.')[2]}" in self.names

    def is_valid(self, name: str) -> bool:
        """Whether browsers take it for a name, if they trust who issued it.

        One that begins later counts, too: rather is this machine's clock slow, and visitors have clocks of their own.
        """
        return self.key_fits and time.time() < self.not_after and self.covers(name)


@contextlib.contextmanager
def certificate_lock() -> Iterator[None]:
    """One command at a time changes certificates. The file is in a folder that the ACME client's unit may write."""
    descriptor = os.open(TLS / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_certificate(chain: Path, key: Path) -> Certificate | None:
    """The first certificate of a file with its key; None where one of them is missing, empty or broken."""
    # One question for each field: a name in a certificate may hold newlines, and text that looks like other fields.
    shown = _of_certificate(chain, "-serial", "-startdate", "-enddate")
    names = _of_certificate(chain, "-ext", "subjectAltName")
    certified = _of_certificate(chain, "-pubkey")
    public = _openssl("pkey", "-in", str(key), "-pubout")
    fields = re.fullmatch(r"serial=([0-9A-F]+)\nnotBefore=(.+)\nnotAfter=(.+)\n", shown)
    if not fields or not certified or not public:
        return None
    return Certificate(
        serial=fields[1].lower(),
        names=tuple(plain_name(name) for name in re.findall(r"(?:DNS|IP Address):([^,\s]+)", names)),
        not_before=ssl.cert_time_to_seconds(fields[2]),
        not_after=ssl.cert_time_to_seconds(fields[3]),
        key_fits=public.strip() == certified.strip(),
    )


def _of_certificate(chain: Path, *fields: str) -> str:
    return _openssl("x509", "-in", str(chain), "-noout", *fields)


def _openssl(*options: str) -> str:
    done = run("openssl", *options, check=False)
    return done.stdout if done.returncode == 0 else ""


def plain_name(name: str) -> str:
    """A name in lower case; an address in its shortest form, without the brackets that it has in a URL."""
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower()


def live_certificate() -> Certificate | None:
    """What nginx serves; None where there is nothing."""
    if not LIVE_CERTIFICATE.is_symlink():
        return None
    return read_certificate(LIVE_CERTIFICATE / "fullchain.pem", LIVE_CERTIFICATE / "privkey.pem")


def install_certificate(chain: Path, key: Path, certificate: Certificate) -> None:
    """Let nginx serve a certificate from now on. No handshake sees a part of it, and a power cut undoes all or nothing.

    nginx reads the chain and then the key. A rename between the two mixes them, which the client's option --reuse-key
    makes harmless: both certificates have the same key. Where a person asks for a new key, a handshake at that very
    moment may fail, and the browser repeats it.
    """
    folder = TLS / certificate.serial
    folder.mkdir(mode=0o700, exist_ok=True)
    for source, name in ((key, "privkey.pem"), (chain, "fullchain.pem")):
        write(folder / name, source.read_text(encoding="ascii"), mode=0o600)
        _let_nginx_read(folder / name, 0o640)
    _let_nginx_read(folder, 0o750)
    os.utime(folder)  # the order in which certificates came
    link(LIVE_CERTIFICATE, certificate.serial)
    _remove_old_folders()


def _let_nginx_read(path: Path, mode: int) -> None:
    os.chown(path, 0, grp.getgrnam(NGINX).gr_gid)
    path.chmod(mode)


def _remove_old_folders() -> None:
    live = link_target(LIVE_CERTIFICATE)
    folders = [path for path in TLS.iterdir() if path.is_dir() and not path.is_symlink()]
    folders.sort(key=lambda path: (path.name == live, path.stat().st_mtime), reverse=True)
    for folder in folders[KEPT:]:
        shutil.rmtree(folder)
    for unfinished in TLS.glob(f".{LIVE_CERTIFICATE.name}.*"):  # of a command that was killed
        unfinished.unlink()


def withdraw_certificate() -> None:
    """Let nginx serve no certificate: HTTPS is refused, and plain HTTP leads there no more."""
    LIVE_CERTIFICATE.unlink(missing_ok=True)


def missing_names(certificate: Certificate | None, wanted: Sequence[str]) -> list[str]:
    """Those of the wanted names that a certificate is not for."""
    return [name for name in wanted if certificate is None or not certificate.covers(name)]
