"""Checks before an order: each name leads to this machine, and the certificate authority may issue for it."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import secrets
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypedDict, cast
from urllib.parse import urlsplit

from decant_host.atomic import write
from decant_host.certificate_files import plain_name
from decant_host.masking import one_line
from decant_host.paths import ACME_CLIENT, ACME_ROOT, CHALLENGES, DNS_LOOKUP
from decant_host.protocol import PUBLIC_RESOLVERS, HttpsSettings

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"

PORT = 80
ANSWER_TIMEOUT = 5.0
LOOKUP_TIMEOUT = 60.0
LONGEST_TOKEN = 200
MOST_REDIRECTS = 3


class Problem(NamedTuple):
    """Why nothing is ordered for a name: a word out of `CAUSES`, and a sentence with the remedy."""

    cause: str
    reason: str


class Answer(NamedTuple):
    """What came back from an address. `status` is 0 where nothing answers, and `body` then the reason."""

    status: int
    body: str


CAUSES = {
    "no-release": "no release is live yet",
    "no-resolver": "no DNS server answers",
    "no-record": "the name leads nowhere",
    "elsewhere": "the name leads to another machine",
    "ipv6-elsewhere": "the name's AAAA record leads to another machine",
    "unreachable": "nothing answers where the name leads",
    "caa": "a CAA record forbids the certificate authority to issue",
    "rate-limited": "the certificate authority limits the number of certificates",
    "port-closed": "the certificate authority does not reach port 80",
    "refused": "the certificate authority refuses",
    "away": "the certificate authority does not answer",
    "untrusted": "the certificate authority's own certificate is not trusted",
    "disk-full": "the machine's disk is full",
    "client": "the ACME client failed",
    "invalid": "the certificate that came is not valid here",
    "expired": "the certificate has ended",
    "own-invalid": "the certificate of the user's own is not valid",
}
"""Every cause that a status can have, and what it means."""


class Records(TypedDict):
    """What one DNS server says of a name. A CAA record is its tag and its value."""

    resolver: str
    A: list[str]
    AAAA: list[str]
    CAA: list[list[str]]


def check_names(settings: HttpsSettings, names: Sequence[str]) -> dict[str, Problem]:
    """The problem of each name that has one. An address needs no look-up; the rest is the same."""
    if settings["by_address"]:
        answers = {name: [Records(resolver="", A=[plain_name(name)], AAAA=[], CAA=[])] for name in names}
    else:
        answers = look_up(names, settings["resolvers"] or PUBLIC_RESOLVERS)
    found = {}
    with _challenge() as challenge:
        for name in names:
            problems = [_problem(settings, name, records, challenge) for records in answers.get(name, [])]
            # DNS servers keep old answers for a while. The authority asks those that hold the zone, so one is enough.
            if not problems:
                found[name] = Problem("no-resolver", NO_RESOLVER)
            elif None not in problems:
                problem = next(problem for problem in problems if problem)
                # It quotes records and answers of others.
                found[name] = problem._replace(reason=one_line(problem.reason))
    return found


NO_RESOLVER = (
    "no DNS server answers this machine, neither 1.1.1.1, 8.8.8.8 and 9.9.9.9 nor its own. Let it reach one of them at"
    " port 53 (UDP and TCP)."
)


class _Challenge:
    """A file that nginx serves as it serves the authority's challenges. Each address is asked for it once."""

    def __init__(self, path: str, token: str) -> None:
        self.path = path
        self.token = token
        self.answers: dict[tuple[str, str], Answer] = {}

    def ask(self, address: str, name: str) -> Answer:
        """What the address answers under the name."""
        if (address, name) not in self.answers:
            self.answers[address, name] = fetch_token(address, name, self.path)
        return self.answers[address, name]


@contextlib.contextmanager
def _challenge() -> Iterator[_Challenge]:
    CHALLENGES.mkdir(mode=0o755, parents=True, exist_ok=True)
    name, token = f"decant-{secrets.token_hex(16)}", secrets.token_hex(16)
    write(CHALLENGES / name, token)
    try:
        yield _Challenge(f"/.well-known/acme-challenge/{name}", token)
    finally:
        (CHALLENGES / name).unlink(missing_ok=True)


def _problem(settings: HttpsSettings, name: str, records: Records, challenge: _Challenge) -> Problem | None:
    """What one DNS server's answer comes to."""
    if not records["A"] and not records["AAAA"]:
        return Problem("no-record", f"{name} leads nowhere: set an A record for it, with the address of this machine.")
    for address in (*records["AAAA"], *records["A"]):  # authorities and browsers prefer IPv6
        answer = challenge.ask(address, name)
        if answer != Answer(200, challenge.token):
            return _elsewhere(name, "AAAA" if address in records["AAAA"] else "A", address, answer)
    return _caa_problem(settings, name, records["CAA"])


def _elsewhere(name: str, kind: str, address: str, answer: Answer) -> Problem:
    silent = answer.status == 0
    says = f"nothing answers at its port 80 ({answer.body})" if silent else "another server answers"
    if kind == "AAAA":
        reason = (
            f"{name} has the AAAA record {address}, where {says}. Remove that record, or let it lead to this machine."
        )
        return Problem("ipv6-elsewhere", reason)
    if silent:
        reason = (
            f"{name} leads to {address}, where {says}. If that is this machine, open its port 80 to everybody;"
            " else correct the A record."
        )
        return Problem("unreachable", reason)
    return Problem("elsewhere", f"{name} leads to {address}, where {says}. Let its A record lead to this machine.")


def _caa_problem(settings: HttpsSettings, name: str, records: Sequence[Sequence[str]]) -> Problem | None:
    """RFC 8659: where records say who may issue, the authority has to be among them."""
    issuers = [value.partition(";")[0].strip().lower() for tag, value in records if tag == "issue"]
    if not issuers:
        return None
    own = identities(settings["server"])
    if not own or set(own) & set(issuers):
        return None
    allowed = " and ".join(filter(None, dict.fromkeys(issuers))) or "nobody"
    reason = (
        f"a CAA record of {name} or of the name above it lets {allowed} issue certificates. Add the record:"
        f' CAA 0 issue "{own[0]}"'
    )
    return Problem("caa", reason)


def identities(server: str) -> list[str]:
    """What a CAA record has to name for a certificate authority; empty where it does not say so or does not answer."""
    context = ssl.create_default_context(cafile=trusted_roots())
    try:
        with urllib.request.urlopen(server, timeout=ANSWER_TIMEOUT, context=context) as reply:  # noqa: S310 - https
            meta = json.load(reply).get("meta", {})
    except (OSError, ValueError):
        return []
    return [str(name).lower() for name in meta.get("caaIdentities", [])]


def trusted_roots() -> str:
    """The file of the root certificates that the certificate authority's own is checked with."""
    return str(ACME_ROOT) if ACME_ROOT.exists() and ACME_ROOT.stat().st_size else SYSTEM_ROOTS


def look_up(names: Sequence[str], resolvers: Sequence[str]) -> dict[str, list[Records]]:
    """What each DNS server that answers says of each name."""
    command = [str(ACME_CLIENT / "bin" / "python"), "-I", str(DNS_LOOKUP)]
    question = json.dumps({"names": list(names), "resolvers": list(resolvers)})
    try:
        done = subprocess.run(
            command, input=question, capture_output=True, text=True, timeout=LOOKUP_TIMEOUT, check=False
        )
        answers = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, list[Records]] = {name: [] for name in names}
    for answer in answers:
        for name, records in answer["names"].items():
            found[name].append(cast("Records", {"resolver": answer["resolver"], **records}))
    return found


def fetch_token(address: str, name: str, path: str) -> Answer:
    """Ask an address for a path under a name, as a certificate authority does, which follows redirects."""
    scheme = "http"
    try:
        for _ in range(MOST_REDIRECTS):
            status, location, body = _get(scheme, address, name, path)
            target = urlsplit(location)
            # Only within the name: other hosts of a site are not asked for its challenges.
            if status not in (301, 302, 307, 308) or target.hostname != name or target.scheme not in ("http", "https"):
                return Answer(status, body)
            scheme, path = target.scheme, target.path or "/"
        return Answer(status, body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(0, str(getattr(error, "strerror", None) or error or type(error).__name__))


def _get(scheme: str, address: str, name: str, path: str) -> tuple[int, str, str]:
    if scheme == "https":
        # The authority does not check this certificate either: that is what it is asked for.
        context = ssl._create_unverified_context()  # noqa: S323
        connection: http.client.HTTPConnection = _Pinned(address, name, context)
    else:
        connection = http.client.HTTPConnection(address, PORT, timeout=ANSWER_TIMEOUT)
    with contextlib.closing(connection):
        host = f"[{name}]" if _is_ipv6(name) else name
        connection.request("GET", path, headers={"Host": host, "User-Agent": "decant", "Connection": "close"})
        reply = connection.getresponse()
        return reply.status, reply.getheader("Location", ""), reply.read(LONGEST_TOKEN).decode(errors="replace").strip()


class _Pinned(http.client.HTTPSConnection):
    """HTTPS to an address, for a name that leads elsewhere perhaps."""

    def __init__(self, address: str, name: str, context: ssl.SSLContext) -> None:
        super().__init__(address, 443, timeout=ANSWER_TIMEOUT, context=context)
        self.name = name
        self.tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self.tls.wrap_socket(self.sock, server_hostname=self.name)


def _is_ipv6(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).version == 6
    except ValueError:
        return False
