"""Whether the world asks a zone: a resolver's answers, and what is made of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import dns.rcode
import pytest

from decant.clouds import dns as zones
from decant.clouds.dns import name_servers, problem_of
from tests.support.dns_server import DnsServer

OURS = ["ns-1.awsdns-01.com", "ns-2.awsdns-02.net"]


@pytest.fixture
def server() -> Iterator[DnsServer]:
    made = DnsServer()
    yield made
    made.close()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a resolver that never answers."""
    monkeypatch.setattr(zones, "TIMEOUT", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1#{bound.getsockname()[1]}"


def test_a_zone_at_its_own_name_servers_is_delegated(server: DnsServer) -> None:
    server.zones["example.com"] = ["NS-2.awsdns-02.NET"]
    assert problem_of("example.com", [f"{name}." for name in OURS], [server.address]) == ""
    assert server.asked == ["example.com"]


def test_a_zone_at_other_name_servers_is_told_which_to_set(server: DnsServer) -> None:
    server.zones["example.com"] = ["b.registrar.test", "a.registrar.test"]
    assert problem_of("example.com", OURS, [server.address]) == (
        "decant:dnsZone is example.com: the world does not ask the zone in your account, because its name servers are"
        " a.registrar.test, b.registrar.test\n"
        "      Where example.com is registered, set these name servers: ns-1.awsdns-01.com, ns-2.awsdns-02.net\n"
        "      then run the same command again; a change may take a day to be seen everywhere"
    )


@pytest.mark.parametrize("zone", ["unknown.test", "broken.test"])
def test_a_zone_that_is_not_known_or_broken_is_not_delegated(server: DnsServer, zone: str) -> None:
    server.zones["broken.test"] = []
    assert "because no name servers are known for it" in problem_of(zone, OURS, [server.address])


def test_one_resolver_that_knows_the_change_is_enough(server: DnsServer) -> None:
    """Others may still have the old answer."""
    other = DnsServer()
    server.zones["example.com"], other.zones["example.com"] = ["a.registrar.test"], OURS
    assert problem_of("example.com", OURS, [server.address, other.address]) == ""
    assert problem_of("example.com", OURS, [other.address, server.address]) == ""
    other.close()
    assert len(server.asked) == 1, "nobody is asked after that"


def test_a_resolver_that_does_not_answer_proves_nothing(server: DnsServer, silent: str) -> None:
    assert name_servers("example.com", silent) is None
    assert problem_of("example.com", OURS, [silent]) == ""
    assert problem_of("example.com", OURS, []) == ""
    assert "not known" not in problem_of("example.com", OURS, [silent, server.address])
    assert problem_of("example.com", OURS, [silent, server.address]) != ""


def test_a_resolver_that_refuses_proves_nothing(server: DnsServer) -> None:
    server.rcode = dns.rcode.REFUSED
    assert name_servers("example.com", server.address) is None


def test_public_resolvers_are_asked_unless_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from decant.clouds.dns import resolvers_of

    monkeypatch.delenv("DECANT_RESOLVERS", raising=False)
    assert resolvers_of(()) == ("1.1.1.1", "8.8.8.8", "9.9.9.9")
    monkeypatch.setenv("DECANT_RESOLVERS", "10.0.0.2, 10.0.0.3#5353")
    assert resolvers_of(()) == ("10.0.0.2", "10.0.0.3#5353")
    assert resolvers_of(("198.51.100.9",)) == ("198.51.100.9",)
