"""The certificate of the public URL, for people: what it is like, what is missing, and when to worry."""

from __future__ import annotations

import datetime
import ipaddress
import time
from collections.abc import Sequence
from typing import NamedTuple, NotRequired, TypedDict

from decant_host.protocol import LEADS_ELSEWHERE, CertificateStatus

WARN_BELOW = 1 / 3
"""The part of a certificate's lifetime that is left when its renewal is due: with less, the renewal has failed."""

FAIL_BELOW = 1 / 6
"""With less than this part left, an `up` fails, after its release is live."""


OWN_HELP = "set a newer decant:certificate and decant:certificateKey, or leave both out"
"""What to do about a certificate of the user's own that ends."""


class Renewal(TypedDict):
    """Who renews the certificates of a load balancer.

    `names` are those that it has certificates for. `days_left` is how many days before its end a certificate has been
    renewed at the latest; None: with a third of its lifetime left. `help` is what to do where it was not.
    """

    names: list[str]
    days_left: float | None
    help: str


class SiteCertificate(CertificateStatus):
    """The certificate of the public URL. `renewal` is there where a load balancer shows it, else a machine does."""

    renewal: NotRequired[Renewal]


def remaining(status: CertificateStatus, now: float | None = None) -> float:
    """The part of the certificate's lifetime that is left, from 0 to 1; 0 where there is no certificate."""
    begins, ends = status["not_before"], status["not_after"]
    if begins is None or ends is None or ends <= begins:
        return 0.0
    return min(1.0, max(0.0, (ends - (time.time() if now is None else now)) / (ends - begins)))


class Ending(NamedTuple):
    """A certificate that ends too soon. `fails`: so soon that an `up` fails."""

    text: str
    fails: bool


def ending_soon(status: SiteCertificate | None, now: float | None = None) -> Ending | None:
    """What to say of a certificate whose renewal is overdue; None where all is well or there is none."""
    if status is None or status["state"] != "live":
        return None
    due, left = _renewal_due(status), remaining(status, now)
    if left >= due:
        return None
    fails = left < due * FAIL_BELOW / WARN_BELOW
    renewal = status.get("renewal")
    why = renewal["help"] if renewal else status["reason"] or OWN_HELP
    begin = "the release is live, but its certificate" if fails else "warning: the certificate"
    return Ending(f"{begin} is {_validity(status, now)}, and was not renewed: {why}", fails)


def _renewal_due(status: SiteCertificate) -> float:
    """The part of the lifetime that is left when the renewal is overdue. Some clouds renew later than the machines."""
    renewal, begins, ends = status.get("renewal"), status["not_before"], status["not_after"]
    if renewal is None or renewal["days_left"] is None or begins is None or ends is None or ends <= begins:
        return WARN_BELOW
    return min(WARN_BELOW, renewal["days_left"] * 86400 / (ends - begins))


def record_type(address: str) -> str:
    """The type of the DNS record that leads a name to an IP address or to a load balancer's name."""
    try:
        return "A" if ipaddress.ip_address(address).version == 4 else "AAAA"
    except ValueError:
        return "CNAME"


def records(names: Sequence[str], address: str) -> list[str]:
    """The DNS records that lead `names` to `address`, which is an IP address or a load balancer's name."""
    kind = record_type(address)
    width = max(map(len, names), default=0)
    return [f"{name:<{width}}  {kind}  {address}" for name in names]


def describe(status: CertificateStatus, address: str, now: float | None = None) -> list[str]:
    """The certificate in lines for a summary: how long it is valid, or why there is none and what to do."""
    if status["state"] == "off":
        return ["off"]
    lines = [_validity(status, now)] if status["state"] == "live" else ["not yet; the site is served over http"]
    if status["reason"]:
        lines += status["reason"].splitlines()
    if status["cause"] in LEADS_ELSEWHERE and status["missing"]:
        lines += ["set these records where the name is registered:", *records(status["missing"], address)]
    if status["state"] != "live":
        lines.append("the machine goes on by itself, also after this command")
    return lines


def _validity(status: CertificateStatus, now: float | None) -> str:
    ends = status["not_after"] or 0.0
    days = (ends - (time.time() if now is None else now)) / 86400
    text = f"for {', '.join(status['names'])}, valid for {days:.0f} days, until {_day(ends)}"
    return text + (f", renewed {_day(status['renewed'])}" if status["renewed"] else "")


def _day(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%d")
