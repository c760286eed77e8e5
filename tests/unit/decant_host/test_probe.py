"""Probes, against servers that misbehave."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from pathlib import Path

import pytest

from decant_host import probe
from decant_host.probe import ProbeResult
from tests.support.certificates import Authority
from tests.unit.decant_host.machine import NEW


@pytest.mark.parametrize(
    ("site", "scheme"),
    [
        ('{"name": "www.example.com"}', "http"),  # of a machine that the release before provisioned
        ('{"name": "www.example.com", "scheme": "http"}', "http"),
        ('{"name": "www.example.com", "scheme": "https"}', "https"),
    ],
)
def test_a_probe_through_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, scheme: str) -> None:
    heard: list[str] = []

    class Answering(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = iter(lambda: self.rfile.readline().decode().strip(), "")
            heard.extend(lines)
            body = b"x" * 5000
            self.wfile.write(
                b"HTTP/1.1 503 Not yet\r\nX-Release: " + NEW.encode() + b"\r\nContent-Length: 5000\r\n\r\n" + body
            )

    (tmp_path / "settings.json").write_text(site)
    monkeypatch.setattr(probe, "SETTINGS", tmp_path / "settings.json")
    path = tmp_path / "s"
    with socketserver.UnixStreamServer(str(path), Answering) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        seen = probe.probe("/up?x=1", through=path)
        thread.join(timeout=30)
    assert (seen.status, seen.release, len(seen.body)) == (503, NEW, 2000)
    assert heard[0] == "GET /up?x=1 HTTP/1.1"
    assert {"Host: www.example.com", "X-Forwarded-For: 127.0.0.1", f"X-Forwarded-Proto: {scheme}"} <= set(heard)
    assert heard.count("Host: www.example.com") == 1
    assert "Connection: close" in heard, "a kept connection would hold up the release's stop"
    gone = probe.probe("/", through=tmp_path / "nowhere")
    assert (gone.status, str(gone).startswith("no answer: ")) == (0, True)


@pytest.mark.parametrize("size", [b"-1", b"-5", b"-ffffffffffffffffffff", b"7fffffffffffffff", b"no"])
def test_a_chunk_of_an_impossible_size_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: bytes
) -> None:
    monkeypatch.setattr(probe, "SETTINGS", tmp_path / "settings.json")
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Release: " + NEW.encode() + b"\r\n\r\n" + size + b"\r\n"
    taken = 0

    class Flooding(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            nonlocal taken
            self.wfile.write(head)
            with contextlib.suppress(OSError):
                while taken < 100 << 20:
                    taken += self.connection.send(bytes(1 << 16))

    path = tmp_path / "s"
    with socketserver.UnixStreamServer(str(path), Flooding) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        seen = probe.probe("/", through=path, timeout=5)
        thread.join(timeout=30)
    assert len(seen.body) <= 2000
    assert taken < 10 << 20


@pytest.mark.parametrize("part", ["head", "body", "endless"])
def test_an_answer_that_trickles_ends_at_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(probe, "SETTINGS", tmp_path / "settings.json")
    head = b"HTTP/1.1 200 OK\r\nX-Release: " + NEW.encode() + b"\r\n"
    if part != "head":
        head += b"Content-Length: 500\r\n\r\n" if part == "body" else b"\r\n"
    enough = threading.Event()

    class Trickling(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(head)
            with contextlib.suppress(OSError):
                while not enough.wait(0.05):
                    self.wfile.write(b"x")

    path = tmp_path / "s"
    with socketserver.UnixStreamServer(str(path), Trickling) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        stop = threading.Timer(20, enough.set)  # else a probe that waits for ever would hang the test, too
        stop.start()
        seen = probe.probe("/", through=path, timeout=0.3)
        in_time = not enough.is_set()
        stop.cancel()
        enough.set()
        thread.join(timeout=30)
    assert in_time
    assert (seen.status, str(seen)) == (0, "no answer within 0 s")


def test_a_probe_result_as_text() -> None:
    assert str(ProbeResult(status=0, release="", body="no answer within 5 s")) == "no answer within 5 s"
    assert str(ProbeResult(status=200, release="", body="")) == "status 200"
    assert len(str(ProbeResult(status=500, release="", body="x" * 2000))) < 2100


@pytest.mark.parametrize(
    ("status", "release", "with_path", "without"),
    [(200, NEW, True, True), (302, NEW, False, True), (404, NEW, False, True), (499, NEW, False, True),
     (500, NEW, False, False), (0, NEW, False, False), (200, "", False, False), (302, "", False, False)],
)  # fmt: skip
def test_a_healthy_answer(status: int, release: str, with_path: bool, without: bool) -> None:
    """Without a health path of the stack's, everything below 500 is an answer of the app."""
    seen = ProbeResult(status=status, release=release, body="")
    assert seen.serves(NEW, needs_200=True) is with_path
    assert seen.serves(NEW, needs_200=False) is without


@pytest.mark.parametrize("certificate", [False, True])
def test_a_probe_through_nginx_comes_as_visitors_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: bool
) -> None:
    """Over HTTPS from the moment when the machine has a certificate: plain HTTP leads there."""
    names: list[str | None] = []
    heard: list[str] = []
    issued = Authority().issue("www.example.com")
    issued.write(tmp_path / "live")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "live" / "fullchain.pem", tmp_path / "live" / "privkey.pem")
    context.set_servername_callback(lambda _, name, __: names.append(name))

    class Answering(socketserver.StreamRequestHandler):
        def setup(self) -> None:
            if certificate:
                self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def handle(self) -> None:
            heard.extend(iter(lambda: self.rfile.readline().decode().strip(), ""))
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Release: " + NEW.encode() + b"\r\nContent-Length: 0\r\n\r\n")

    (tmp_path / "settings.json").write_text('{"name": "www.example.com", "https": {"names": ["www.example.com"]}}')
    monkeypatch.setattr(probe, "SETTINGS", tmp_path / "settings.json")
    monkeypatch.setattr(probe, "LIVE_CERTIFICATE", tmp_path / ("live" if certificate else "none"))
    connect = socket.create_connection
    ports: list[int] = []
    with socketserver.TCPServer(("127.0.0.1", 0), Answering) as server:

        def to_server(address: tuple[str, int], timeout: float) -> socket.socket:
            ports.append(address[1])
            return connect(("127.0.0.1", server.server_address[1]), timeout)

        monkeypatch.setattr(socket, "create_connection", to_server)
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        seen = probe.probe("/", through=None)
        thread.join(timeout=30)
    assert (seen.status, seen.release) == (200, NEW), seen.body
    assert ports == [443 if certificate else 80]
    assert names == (["www.example.com"] if certificate else [])
    assert f"X-Forwarded-Proto: {'https' if certificate else 'http'}" in heard
