"""Orders: the ACME client gets or renews the certificate, and what it says becomes a cause with a remedy."""

from __future__ import annotations

import calendar
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from decant_host.certificate_checks import trusted_roots
from decant_host.certificate_files import plain_name
from decant_host.masking import one_line
from decant_host.paths import ACME_CLIENT, ACME_DATA, WEBROOT
from decant_host.protocol import HttpsSettings

LINEAGE = "site"
"""The ACME client's name for the machine's one certificate."""

CHAIN = ACME_DATA / "live" / LINEAGE / "fullchain.pem"
KEY = ACME_DATA / "live" / LINEAGE / "privkey.pem"
LOG = ACME_DATA / "logs" / "letsencrypt.log"

ORDER_TIMEOUT = 240.0


class Failure(NamedTuple):
    """Why an order failed: a word out of `CAUSES`, a sentence with the remedy, and when the authority takes another."""

    cause: str
    reason: str
    retry_at: float | None = None


def order(settings: HttpsSettings, names: Sequence[str], *, renew: bool, new_key: bool) -> Failure | None:
    """Let the ACME client get a certificate for the names, or see that none is due; None where that worked.

    Whether a renewal is due is the client's decision: the authority's renewal information (ARI, RFC 9773) where there
    is one, else a third of the lifetime. `renew` orders in any case; only `new_key` changes the certificate's key.
    """
    output = _run_client(settings, names, renew=renew, new_key=new_key)
    if output is not None and "accountDoesNotExist" in _log():
        # The authority has forgotten the account, which the client does not notice by itself.
        shutil.rmtree(ACME_DATA / "accounts", ignore_errors=True)
        output = _run_client(settings, names, renew=renew, new_key=new_key)
    return None if output is None else explain(output, _log(), ", ".join(names), settings["server"])


def ordered_from(folder: Path | None = None) -> str:
    """The directory URL of the authority that the client's certificate is from; "" where there is none."""
    settings = (folder or ACME_DATA) / "renewal" / f"{LINEAGE}.conf"
    try:
        found = re.search(r"^server = (\S+)$", settings.read_text(encoding="utf-8"), re.MULTILINE)
    except FileNotFoundError:
        return ""
    return found[1] if found else ""


def client_command(settings: HttpsSettings, names: Sequence[str], *, renew: bool, new_key: bool) -> list[str]:
    """The client's command line. It is the same for the first order and for renewals."""
    account = ["--email", settings["email"]] if settings["email"] else ["--register-unsafely-without-email"]
    # With `required`, an authority that has no such profile refuses: Let's Encrypt has one profile for addresses.
    profile = "--required-profile" if settings["by_address"] else "--preferred-profile"
    identifiers = [part for name in names for part in _identifier(name, by_address=settings["by_address"])]
    return [
        str(ACME_CLIENT / "bin" / "certbot"), "certonly", "--non-interactive", "--agree-tos", *account,
        "--server", settings["server"], "--cert-name", LINEAGE, *identifiers,
        "--config-dir", str(ACME_DATA), "--work-dir", str(ACME_DATA / "work"), "--logs-dir", str(ACME_DATA / "logs"),
        "--max-log-backups", "10", "--webroot", "--webroot-path", str(WEBROOT),
        "--force-renewal" if renew else "--keep-until-expiring",
        "--key-type", "ecdsa", "--elliptic-curve", "secp256r1", "--reuse-key",
        *(["--new-key"] if new_key else []), profile, settings["profile"],
    ]  # fmt: skip


def _identifier(name: str, *, by_address: bool) -> list[str]:
    return ["--ip-address", plain_name(name)] if by_address else ["--domain", name]


def _run_client(settings: HttpsSettings, names: Sequence[str], *, renew: bool, new_key: bool) -> str | None:
    """Run the client; its output where it failed."""
    LOG.unlink(missing_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # decant_host's
    own = {"HOME": str(ACME_DATA), "LC_ALL": "C.UTF-8", "REQUESTS_CA_BUNDLE": trusted_roots()}
    try:
        done = subprocess.run(
            client_command(settings, names, renew=renew, new_key=new_key),
            env={**inherited, **own}, capture_output=True, encoding="utf-8", errors="replace", timeout=ORDER_TIMEOUT,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"requests.exceptions.Timeout: no answer within {ORDER_TIMEOUT:.0f} s"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None if done.returncode == 0 else f"{done.stdout}\n{done.stderr}"


def _log() -> str:
    try:
        return LOG.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


# The types of problems of RFC 8555, 6.7: the cause, and the sentence before the authority's own words.
_PROBLEMS = {
    "rateLimited": ("rate-limited", "the certificate authority takes no further order for {names} now"),
    "caa": ("caa", "a CAA record forbids the certificate authority to issue for {names}. Remove it or add another one"),
    "connection": (
        "port-closed",
        "the certificate authority does not reach {names} at port 80. Open port 80 to everybody, in every firewall",
    ),
    "dns": ("no-record", "the certificate authority finds no address of {names}. Correct the DNS records"),
    "unauthorized": (
        "elsewhere",
        "the certificate authority gets another server's answer for {names}. Correct the DNS records",
    ),
    "serverInternal": ("away", "the certificate authority has a fault of its own. It is asked again later"),
    "rejectedIdentifier": ("refused", "the certificate authority issues nothing for {names}"),
    "unsupportedIdentifier": ("refused", "the certificate authority issues nothing for {names}"),
}
_PROBLEMS["incorrectResponse"] = _PROBLEMS["unauthorized"]

# What the client says where the authority sent no problem.
_SYMPTOMS = (
    (r"CERTIFICATE_VERIFY_FAILED|SSLError", "untrusted",
     "the certificate of {server} is not trusted. For a private certificate authority: pulumi config set"
     " decant:acmeRoot -- \"$(cat root.pem)\""),
    (r"Response \[5\d\d\]|ConnectionError|NewConnectionError|[Tt]imeout|timed out|NameResolutionError", "away",
     "the certificate authority does not answer at {server}. It is asked again later"),
    (r"No space left on device", "disk-full", "the disk is full. See what fills it: du -xh / | sort -h | tail"),
)  # fmt: skip


def explain(output: str, log: str, names: str, server: str) -> Failure:
    """The cause and the remedy, out of the client's output and its log, which has the authority's problem."""
    kinds = re.findall(r"urn:ietf:params:acme:error:(\w+)", log)
    words = _words(output)
    if kinds:
        cause, text = _PROBLEMS.get(kinds[-1], ("refused", "the certificate authority refuses the order for {names}"))
        retry_at = _retry_at(words, log) if cause == "rate-limited" else None
        return Failure(cause, f"{text.format(names=names)}: {words}", retry_at)
    for pattern, cause, text in _SYMPTOMS:
        if re.search(pattern, output):
            return Failure(cause, f"{text.format(server=server)}: {words}")
    return Failure("client", f"the ACME client failed: {words}. Its log on the machine: {LOG}")


def _words(output: str) -> str:
    """The part of the client's output that says why, on one line."""
    details = re.findall(r"^\s*Detail: (.+)$", output, re.MULTILINE)
    if details:
        return _short(" / ".join(dict.fromkeys(details)))
    error = re.search(r"unexpected error occurred:\n(.*?)(?:\nAsk for help|\Z)", output, re.DOTALL)
    if error:
        return _short(error[1])
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith("Saving debug log")]
    return _short(lines[0] if lines else "it says nothing")


def _short(text: str) -> str:
    text = one_line(text).rstrip(".")
    return text if len(text) <= 400 else text[:400] + " ..."


def _retry_at(words: str, log: str) -> float | None:
    """When a limited client may order again: Let's Encrypt's text says it, and the header Retry-After in seconds."""
    text = re.search(r"retry after (\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)", words)
    if text:
        return float(calendar.timegm(time.strptime(f"{text[1]} {text[2]}", "%Y-%m-%d %H:%M:%S")))
    header = re.findall(r"^Retry-After: (\d+)$", log, re.MULTILINE | re.IGNORECASE)
    return time.time() + int(header[-1]) if header else None
