"""Where names lead: asks DNS servers and prints the answers. Runs in the ACME client's environment, with dnspython.

Standard input: {"names": [...], "resolvers": [...]}. Standard output: a list with an item for each resolver that
answered, {"resolver": ..., "names": {NAME: {"A": [...], "AAAA": [...], "CAA": [[TAG, VALUE], ...]}}}. Where none of
them answers (a firewall may stop the questions), the machine's own resolvers are asked.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dns.exception
import dns.name
import dns.resolver

TIMEOUT = 5.0
"""Seconds for one question, whose packets may get lost."""


def ask(resolver: dns.resolver.Resolver, name: dns.name.Name | str, kind: str) -> list[Any]:
    """The records of one kind; none where there are none. Raises DNSException where nobody answers."""
    try:
        return list(resolver.resolve(name, kind, lifetime=TIMEOUT, search=False))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []


def certificate_authorities(resolver: dns.resolver.Resolver, name: str) -> list[list[str]]:
    """The CAA records that count for a name: its own, else those of the nearest name above (RFC 8659, 3)."""
    above = dns.name.from_text(name)
    while len(above) > 2:  # the last label is the root's; registries have no CAA records for others
        records = ask(resolver, above, "CAA")
        if records:
            return [[_text(record.tag).lower(), _text(record.value)] for record in records]
        above = above.parent()
    return []


def _text(data: bytes) -> str:
    """What a record holds, which anybody may have set to bytes that are no text."""
    return data.decode(errors="backslashreplace")


def look_up(resolver: dns.resolver.Resolver, names: list[str]) -> dict[str, Any] | None:
    """All that one resolver says of the names; None where it does not answer."""
    try:
        return {
            name: {
                "A": sorted(str(record) for record in ask(resolver, name, "A")),
                "AAAA": sorted(str(record) for record in ask(resolver, name, "AAAA")),
                "CAA": certificate_authorities(resolver, name),
            }
            for name in names
        }
    except dns.exception.DNSException:
        return None


def resolver_of(address: str) -> dns.resolver.Resolver:
    """A resolver that asks one server."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [address]
    return resolver


def system_resolver() -> dns.resolver.Resolver | None:
    """What /etc/resolv.conf says; None where it names no server."""
    try:
        return dns.resolver.Resolver()
    except dns.exception.DNSException:
        return None


def main() -> None:
    """Answer the question on standard input."""
    question = json.load(sys.stdin)
    resolvers = [(address, resolver_of(address)) for address in question["resolvers"]]
    with ThreadPoolExecutor(max_workers=len(resolvers) or 1) as pool:
        answers = list(pool.map(lambda pair: look_up(pair[1], question["names"]), resolvers))
    found = [
        {"resolver": address, "names": names}
        for (address, _), names in zip(resolvers, answers, strict=True)
        if names is not None
    ]
    if not found:
        own = system_resolver()
        names = look_up(own, question["names"]) if own else None
        if names is not None:
            found = [{"resolver": "the machine's own", "names": names}]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
