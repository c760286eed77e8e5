"""The look-up of names on machines: what DNS servers say, and which records count."""

from __future__ import annotations

import importlib.util
import io
import json
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

from tests.support.host_files import HERE

_SPEC = importlib.util.spec_from_file_location("dns_lookup", HERE / "acme" / "dns_lookup.py")
assert _SPEC is not None
assert _SPEC.loader is not None
dns_lookup: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(dns_lookup)

ZONE = {
    ("app.test.", "A"): ["203.0.113.7"],
    ("app.test.", "AAAA"): ["2001:db8::7"],
    ("www.app.test.", "CNAME"): ["app.test."],
    ("app.test.", "CAA"): ['0 issue "ca.test; policy=ev"', '0 iodef "mailto:a@app.test"'],
    ("many.test.", "A"): [f"203.0.113.{number}" for number in range(1, 200)],
    ("test.", "CAA"): ['0 issue "registry.test"'],
    ("bytes.test.", "A"): ["203.0.113.7"],
    ("bytes.test.", "CAA"): [r'0 issue "ca\255\195.test"'],
}


def answer(wire: bytes, broken: bool, stream: bool) -> bytes:
    """What a server answers that has ZONE; it cuts an answer that is too long for a packet."""
    query = dns.message.from_wire(wire)
    reply = dns.message.make_response(query)
    question = query.question[0]
    name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
    if broken:
        reply.set_rcode(dns.rcode.SERVFAIL)
        return reply.to_wire()
    if (name, "CNAME") in ZONE:
        target = ZONE[name, "CNAME"][0]
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", target))
        name = target
    if (name, kind) in ZONE:
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *ZONE[name, kind]))
    elif not any(known == name for known, _ in ZONE):
        reply.set_rcode(dns.rcode.NXDOMAIN)
    if not stream and len(reply.to_wire(max_size=65535)) > 512:
        reply.answer.clear()
        reply.flags |= dns.flags.TC
    return reply.to_wire(max_size=65535)


class Server:
    """A DNS server at 127.0.0.1, over UDP and TCP."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.port = self.udp.getsockname()[1]
        self.tcp = socket.create_server(("127.0.0.1", self.port))
        for serve in (self._packets, self._streams):
            threading.Thread(target=serve, daemon=True).start()

    def _packets(self) -> None:
        while True:
            try:
                wire, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            self.udp.sendto(answer(wire, self.broken, stream=False), peer)

    def _streams(self) -> None:
        while True:
            try:
                sock, _ = self.tcp.accept()
            except OSError:
                return
            with sock:
                length = int.from_bytes(sock.recv(2), "big")
                reply = answer(sock.recv(length), self.broken, stream=True)
                sock.sendall(len(reply).to_bytes(2, "big") + reply)

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Server]]:
    """DNS servers by the address that they are asked at."""
    made = {"192.0.2.1": Server(), "192.0.2.2": Server(broken=True)}

    def resolver_of(address: str) -> dns.resolver.Resolver:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], made[address].port
        return resolver

    monkeypatch.setattr(dns_lookup, "resolver_of", resolver_of)
    monkeypatch.setattr(dns_lookup, "TIMEOUT", 2.0)
    yield made
    for server in made.values():
        server.close()


def look_up(monkeypatch: pytest.MonkeyPatch, capsys: Any, names: list[str], *resolvers: str) -> Any:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"names": names, "resolvers": resolvers})))
    dns_lookup.main()
    return json.loads(capsys.readouterr().out)


def test_all_records_of_names(servers: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    caa = [["iodef", "mailto:a@app.test"], ["issue", "ca.test; policy=ev"]]
    found = look_up(monkeypatch, capsys, ["app.test", "www.app.test", "none.test"], "192.0.2.1")
    for records in found[0]["names"].values():
        records["CAA"].sort()
    here = {"A": ["203.0.113.7"], "AAAA": ["2001:db8::7"], "CAA": caa}
    none: dict[str, list[str]] = {"A": [], "AAAA": [], "CAA": []}
    assert found == [
        {"resolver": "192.0.2.1", "names": {"app.test": here, "www.app.test": here, "none.test": none}}
    ]  # fmt: skip


def test_the_records_of_the_nearest_name_above_count(
    servers: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    found = look_up(monkeypatch, capsys, ["a.b.app.test"], "192.0.2.1")
    assert sorted(found[0]["names"]["a.b.app.test"]["CAA"])[1] == ["issue", "ca.test; policy=ev"]


def test_a_long_answer_comes_over_tcp(servers: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = look_up(monkeypatch, capsys, ["many.test"], "192.0.2.1")
    assert len(found[0]["names"]["many.test"]["A"]) == 199


def test_a_server_that_fails_is_left_out(servers: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = look_up(monkeypatch, capsys, ["app.test"], "192.0.2.2", "192.0.2.1")
    assert [answer["resolver"] for answer in found] == ["192.0.2.1"]


def test_the_machines_own_servers_are_asked_last(servers: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    own = dns_lookup.resolver_of("192.0.2.1")
    monkeypatch.setattr(dns_lookup, "system_resolver", lambda: own)
    found = look_up(monkeypatch, capsys, ["app.test"], "192.0.2.2")
    assert [answer["resolver"] for answer in found] == ["the machine's own"]
    assert found[0]["names"]["app.test"]["A"] == ["203.0.113.7"]


def test_nobody_answers(servers: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for own in (dns_lookup.resolver_of("192.0.2.2"), None):
        monkeypatch.setattr(dns_lookup, "system_resolver", lambda own=own: own)
        assert look_up(monkeypatch, capsys, ["app.test"], "192.0.2.2") == []


def test_a_record_that_is_no_text_takes_no_other_answer_away(
    servers: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    found = look_up(monkeypatch, capsys, ["bytes.test", "app.test"], "192.0.2.1")
    assert found[0]["names"]["bytes.test"] == {
        "A": ["203.0.113.7"], "AAAA": [], "CAA": [["issue", r"ca\xff\xc3.test"]]
    }  # fmt: skip
    assert found[0]["names"]["app.test"]["A"] == ["203.0.113.7"]
