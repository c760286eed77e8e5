"""The certificate authority of rehearsals: it issues for names of its DNS, logs orders, and fails as it is told to."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from rehearsal.authority import IDENTITY, Authority
from rehearsal.machines.network import Network

A, AAAA, CAA = 1, 28, 257


@pytest.fixture(scope="module")
def authority(hosts: Network) -> Authority:
    return Authority.start(hosts, "test-authority", say=print)


@pytest.fixture(autouse=True)
def healthy(authority: Authority) -> Iterator[None]:
    yield
    authority.set_fault("")


def get(authority: Authority, path: str = "dir") -> tuple[int, str]:
    """Ask the ACME server for a path, and trust its root alone."""
    context = ssl.create_default_context(cadata=authority.root)
    url = authority.directory.removesuffix("dir") + path
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask(authority: Authority, name: str, kind: int) -> tuple[int, bytes]:
    """Ask the DNS server: the code of its answer, and the bytes after the question."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(question, (authority.resolver, 53))
        answer = sock.recv(4096)
    return answer[3] & 15, answer[len(question) :]


def test_the_directory_says_what_a_caa_record_has_to_name(authority: Authority) -> None:
    status, body = get(authority)
    assert status == 200
    assert json.loads(body)["meta"]["caaIdentities"] == [IDENTITY]
    assert json.loads(body)["newOrder"] == authority.directory.removesuffix("dir") + "order-plz"


def test_the_root_holds_both_certificates(authority: Authority) -> None:
    assert authority.root.count("BEGIN CERTIFICATE") == 2
    assert Authority.of(authority.machine).root == authority.root


def test_the_dns_knows_the_records_and_no_other_name(authority: Authority) -> None:
    authority.set_records({"site.test": ["198.51.100.9", "2001:db8::9"]}, caa={"site.test": "other.test"})
    assert socket.inet_aton("198.51.100.9") in ask(authority, "site.test", A)[1]
    assert socket.inet_pton(socket.AF_INET6, "2001:db8::9") in ask(authority, "site.test", AAAA)[1]
    assert b"issueother.test" in ask(authority, "site.test", CAA)[1]
    assert ask(authority, "www.site.test", A) == (3, b"")
    authority.set_records({})
    assert ask(authority, "site.test", A) == (3, b"")


def test_faults_are_those_of_an_authority(authority: Authority) -> None:
    authority.set_fault("overloaded")
    assert get(authority)[0] == 503
    authority.set_fault("rate-limited", until="2031-02-03 04:05:06 UTC")
    assert get(authority)[0] == 200
    status, body = get(authority, "order-plz")
    assert status == 429
    assert json.loads(body)["type"] == "urn:ietf:params:acme:error:rateLimited"
    assert "retry after 2031-02-03 04:05:06 UTC" in json.loads(body)["detail"]
    authority.set_fault("away")
    with pytest.raises(urllib.error.URLError, match="Connection refused"):
        get(authority)


def test_an_authority_that_forgets_has_another_root(authority: Authority) -> None:
    before = authority.root
    authority.forget()
    assert authority.root != before
    assert get(authority)[0] == 200
