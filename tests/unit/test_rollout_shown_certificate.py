"""What a load balancer's certificate is like, as a handshake shows it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decant.rollout.certificate import Renewal
from decant.rollout.shown_certificate import shown_certificate
from tests.support.certificates import Authority, Issued

DAY = 86400
NAMES = ["example.com", "www.example.com"]
HELP = "look at the record"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def renewal(names: list[str], days_left: float | None = None) -> Renewal:
    return {"names": names, "days_left": days_left, "help": HELP}


@contextlib.contextmanager
def balancer(folder: Path, **certificates: Issued) -> Iterator[int]:
    """A server with a certificate for each first label of a name; `default` for others. Yields its port."""
    contexts = {}
    for label, issued in certificates.items():
        issued.write(folder / label)
        contexts[label] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[label].load_cert_chain(folder / label / "fullchain.pem", folder / label / "privkey.pem")

    def choose(connection: ssl.SSLObject, name: str | None, _: Any) -> None:
        connection.context = contexts.get((name or "").partition(".")[0], contexts["default"])

    contexts["default"].sni_callback = choose
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):  # it is closed in the end
            while True:
                plain, _ = server.accept()
                with contextlib.suppress(OSError), contexts["default"].wrap_socket(plain, server_side=True) as secure:
                    secure.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def test_it_is_the_one_that_visitors_get(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue(*reversed(NAMES), "*.example.com", days=60, begins=30)
    with balancer(tmp_path, default=issued) as port:
        found = shown_certificate("127.0.0.1", renewal(NAMES), authority.root, port)
    assert found
    begins, ends = found["not_before"], found["not_after"]
    assert begins is not None
    assert ends is not None
    assert ends - begins == 90 * DAY
    assert (found["state"], found["names"], found["missing"], found["reason"]) == (
        "live",
        [*NAMES, "*.example.com"],
        [],
        "",
    )
    assert found["renewal"] == renewal(NAMES)


def test_of_several_the_first_to_end_counts(tmp_path: Path, authority: Authority) -> None:
    site, www = authority.issue("example.com", days=60), authority.issue("www.example.com", days=7)
    with balancer(tmp_path, default=site, www=www) as port:
        found = shown_certificate("127.0.0.1", renewal(NAMES), authority.root, port)
    assert found
    assert found["names"] == ["www.example.com"]


def test_a_name_without_a_valid_one_is_told(tmp_path: Path, authority: Authority) -> None:
    site, www = authority.issue("example.com"), authority.issue("www.example.com", days=-1, begins=9)
    with balancer(tmp_path, default=site, www=www) as port:
        found = shown_certificate("127.0.0.1", renewal(NAMES), authority.root, port)
    assert found
    assert (found["names"], found["missing"]) == (["example.com"], ["www.example.com"])
    assert found["reason"] == "www.example.com: certificate has expired"


@pytest.mark.parametrize("root", [None, "another"])
def test_one_that_nobody_trusts_is_none(tmp_path: Path, authority: Authority, root: str | None) -> None:
    trusted = Authority().root if root else None
    with balancer(tmp_path, default=authority.issue(*NAMES)) as port:
        assert shown_certificate("127.0.0.1", renewal(NAMES), trusted, port) is None


def test_a_port_that_is_closed_shows_none(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert shown_certificate("127.0.0.1", renewal(NAMES), authority.root, port) is None
