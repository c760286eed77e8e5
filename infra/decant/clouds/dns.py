"""DNS records of the site, and whether the world asks the zone that holds them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TypedDict

import pulumi

from decant.clouds.checks import Check
from decant.errors import DelegationError
from decant_host.protocol import PUBLIC_RESOLVERS

TTL = 300  # seconds; a site that moves is found at its new place after five minutes
RESOLVERS_VARIABLE = "DECANT_RESOLVERS"
"""Names other resolvers, separated by commas, where a network lets nobody ask the public ones."""
TIMEOUT = 3.0  # seconds for the answer of a resolver


class DnsRecord(TypedDict):
    """A record that the user sets where a name is registered."""

    name: str
    type: str
    value: str


class Delegation:
    """Whether the zone is the one that the world asks: the zone above it names the zone's own name servers.

    It is asked right before a resource is made that needs the zone. Nothing is asked where that resource exists.
    """

    def __init__(self, zone: str, name_servers: pulumi.Input[Sequence[str]], resolvers: Sequence[str]) -> None:
        self.zone = zone
        self.name_servers = pulumi.Output.from_input(name_servers)
        self.resolvers = resolvers_of(resolvers)
        self._problem: asyncio.Task[str] | None = None
        required = pulumi.ResourceHook(f"delegation of {zone}", self._require)
        self.required = pulumi.ResourceHookBinding(before_create=[required])
        """For a resource that would wait in vain."""
        self.warning = pulumi.ResourceHook(f"delegation of {zone}, for records", self._warn)
        """For a record, which nobody waits for."""

    async def _require(self, _: pulumi.ResourceHookArgs) -> None:
        if problem := await self._ask_once():
            raise DelegationError(problem)

    async def _warn(self, _: pulumi.ResourceHookArgs) -> None:
        if problem := await self._ask_once():
            pulumi.log.warn(problem)

    async def _ask_once(self) -> str:
        if self._problem is None:
            self._problem = asyncio.ensure_future(self._ask())
        return await self._problem

    async def _ask(self) -> str:
        expected = list(await self.name_servers.future() or ())
        return await asyncio.to_thread(problem_of, self.zone, expected, self.resolvers)


def resolvers_of(settings: Sequence[str]) -> tuple[str, ...]:
    """The resolvers to ask: those of the settings, else those that the environment names, else public ones."""
    named = [one.strip() for one in os.environ.get(RESOLVERS_VARIABLE, "").split(",") if one.strip()]
    return tuple(settings or named or PUBLIC_RESOLVERS)


def zone_check(zone: str, expected: Sequence[str], resolvers: Sequence[str]) -> Check:
    """Whether the world asks a zone that the account has, for a check of the account."""
    subject = f"zone {zone}"
    problem = problem_of(zone, expected, resolvers_of(resolvers))
    if not problem:
        return Check(subject=subject, answer="yes", detail="the account has it")
    what, fix = (line.strip() for line in problem.split("\n")[:2])
    return Check(subject=subject, answer="no", detail=what.partition(": ")[2], fix=fix)


def problem_of(zone: str, expected: Sequence[str], resolvers: Sequence[str]) -> str:
    """Why the world does not ask the zone at its `expected` name servers, with the remedy; "" where it does.

    The zone counts as delegated where no resolver answers: a firewall may stop the questions.
    """
    wanted = {_plain(name) for name in expected}
    found: set[str] = set()
    answered = False
    for address in resolvers:
        names = name_servers(zone, address)
        if names is None:
            continue
        if names & wanted:
            return ""
        answered = True
        found |= names
    if not answered:
        return ""
    leads = f"its name servers are {', '.join(sorted(found))}" if found else "no name servers are known for it"
    return (
        f"decant:dnsZone is {zone}: the world does not ask the zone in your account, because {leads}\n"
        f"      Where {zone} is registered, set these name servers: {', '.join(sorted(wanted))}\n"
        "      then run the same command again; a change may take a day to be seen everywhere"
    )


def name_servers(zone: str, resolver: str) -> frozenset[str] | None:
    """The name servers of a zone, as a resolver (an address, with a port after # if it is another than 53) sees them.

    Empty where there is no such zone, or it is broken. None where the resolver does not answer.
    """
    import dns.exception  # here, because few runs ask
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype

    address, _, port = resolver.partition("#")
    question = dns.message.make_query(zone, "NS")
    try:
        answer, _ = dns.query.udp_with_fallback(question, address, timeout=TIMEOUT, port=int(port or 53))
    except (OSError, dns.exception.DNSException):
        return None
    # A zone whose name servers do not know it is answered with SERVFAIL.
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL):
        return None
    sets = [records for records in answer.answer if records.rdtype == dns.rdatatype.NS]
    return frozenset(_plain(str(record.target)) for records in sets for record in records)


def _plain(name: str) -> str:
    return name.rstrip(".").lower()
