"""What the real nginx does with requests, before releases that answer well, badly, late or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decant.host import render
from tests.support.host_files import ADDRESS, SHAPES
from tests.support.real_nginx import Nginx, reply, running
from tests.support.websocket import WebSocket, accept_key, frame

SITE = "203.0.113.7"
LIMITS = render.Limits(request_timeout=1, max_body=100_000)
HERE = render.Proxy(networks=("127.0.0.0/8",), trusts_forwarded_proto=True, drain_seconds=25, idle_timeout=60)
Start = Callable[..., Nginx]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start nginx with a machine's configuration, of which a test may change something."""
    with contextlib.ExitStack() as stack:
        # Not pytest's own folder: the path of a unix socket has 107 characters at most.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def run(**changes: Any) -> Nginx:
            text = render.nginx_conf(**{**SHAPES["plain"], "limits": LIMITS, **changes})
            return stack.enter_context(running(text, folder))

        yield run


def hang_up(sock: socket.socket, _: bytes) -> None:
    sock.close()


def answer_late(sock: socket.socket, request: bytes) -> None:
    time.sleep(1.5)
    reply("late")(sock, request)


def tell_head(sock: socket.socket, request: bytes) -> None:
    reply(request.partition(b"\r\n\r\n")[0].decode())(sock, request)


def echo(sock: socket.socket, request: bytes) -> None:
    """A WebSocket server for one text."""
    (key,) = [line[19:] for line in request.decode().splitlines() if line.startswith("Sec-WebSocket-Key: ")]
    upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    sock.sendall(f"{upgrade}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode())
    head = sock.recv(6)
    masked = sock.recv(head[1] & 0x7F)
    sock.sendall(frame(bytes(byte ^ head[2 + at % 4] for at, byte in enumerate(masked))))


# ------------------------------------------------------------------------------------------------ one run


@pytest.mark.parametrize(("method", "body"), [("GET", ""), ("POST", "form")])
def test_a_request_that_takes_too_long_is_a_504_and_runs_once(start: Start, method: str, body: str) -> None:
    nginx = start()
    nginx.release("current", answer_late)
    nginx.release("previous", reply("old"))
    began = time.monotonic()
    assert nginx.status("/slow", method=method, body=body) == 504
    assert 0.9 < time.monotonic() - began < 1.4
    assert nginx.runs == [f"current {method} /slow {len(body)}"]
    assert nginx.logged(" upstream=504 ")


@pytest.mark.parametrize(("method", "body"), [("GET", ""), ("POST", "form")])
def test_a_request_whose_worker_dies_is_a_502_and_runs_once(start: Start, method: str, body: str) -> None:
    nginx = start()
    nginx.release("current", hang_up)
    nginx.release("previous", reply("old"))
    assert nginx.status("/crash", method=method, body=body) == 502
    assert nginx.runs == [f"current {method} /crash {len(body)}"]
    assert nginx.logged(" upstream=502 ")


@pytest.mark.parametrize("path", ["/page", "/static/page"])
@pytest.mark.parametrize(("method", "body"), [("GET", ""), ("POST", "x" * 90_000)])
def test_a_request_that_reaches_no_live_release_is_answered_by_the_one_before(
    start: Start, method: str, body: str, path: str
) -> None:
    """Its whole body is sent again, from the file that nginx keeps it in."""
    nginx = start()
    nginx.release("current", None)
    nginx.release("previous", reply("old"))
    answer = nginx.ask(path, method=method, body=body)
    assert (answer.split()[1], answer[-3:]) == (b"200", b"old")
    assert nginx.runs == [f"previous {method} {path} {len(body)}"]
    assert nginx.logged(" upstream=502 : 200 ")


def test_without_any_release_the_answer_is_nginxs_own_502(start: Start) -> None:
    nginx = start()
    nginx.release("current", None)
    nginx.release("previous", None)
    assert nginx.status("/") == 502
    assert nginx.logged(" upstream=502 : 502 ")


@pytest.mark.parametrize("status", ["502 Bad Gateway", "504 Gateway Timeout", "418 I'm a teapot", "404 Not Found"])
def test_the_apps_own_errors_pass(start: Start, status: str) -> None:
    nginx = start()
    nginx.release("current", reply("the app's own page", status))
    nginx.release("previous", reply("old"))
    answer = nginx.ask("/")
    assert (answer.split()[1].decode(), answer[-18:]) == (status[:3], b"the app's own page")
    assert len(nginx.runs) == 1


# ------------------------------------------------------------------------------------------------ WebSockets, streams


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket"])
def test_a_websocket_passes_and_may_be_silent_for_longer_than_a_request(start: Start, upgrade: str) -> None:
    nginx = start()
    nginx.release("current", echo)
    with WebSocket.over(nginx.connect(), "/echo", host=SITE, headers={"Upgrade": upgrade}) as opened:
        assert opened.status == 101
        time.sleep(LIMITS.request_timeout + 0.5)
        opened.send("hello")
        assert opened.receive() == "hello"
        assert opened.receive() is None, "the app has ended it"


@pytest.mark.parametrize(
    ("method", "upgrade"), [("GET", "h2c"), ("GET", "websocket, h2c"), ("POST", "websocket"), ("GET", "")]
)
def test_no_other_protocol_passes(start: Start, method: str, upgrade: str) -> None:
    nginx = start()
    nginx.release("current", tell_head)
    asked = f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\n"
    head = nginx.ask("/", method=method, headers=asked).decode()
    assert "\r\nConnection: close\r\n" in head.partition("\r\n\r\n")[2]
    assert "upgrade:" not in head.lower()


def test_a_handshake_carries_the_same_forwarded_headers_as_a_request(start: Start) -> None:
    nginx = start()
    nginx.release("current", tell_head)
    forged = (
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n"
    )

    def seen(more: str) -> dict[str, str]:
        answer = nginx.exchange(f"GET / HTTP/1.1\r\nHost: {SITE}\r\n{forged}{more}\r\n").decode()
        lines = answer.partition("\r\n\r\n")[2].splitlines()[1:]
        return {name: value for name, _, value in (line.partition(": ") for line in lines) if name != "X-Request-ID"}

    handshake = seen("Connection: Upgrade, close\r\nUpgrade: websocket\r\n")
    assert handshake == {**seen("Connection: close\r\n"), "Connection": "upgrade", "Upgrade": "websocket"}
    assert (handshake["X-Forwarded-For"], handshake["X-Forwarded-Proto"]) == ("127.0.0.1", "http")


def test_events_arrive_at_once_and_a_stream_may_outlast_the_time_for_a_request(start: Start) -> None:
    def stream(sock: socket.socket, _: bytes) -> None:
        """In chunks, as gunicorn sends what has no length."""
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            sock.sendall(b"9\r\ndata: %d\n\n\r\n" % number)
            time.sleep(0.4)
        sock.sendall(b"0\r\n\r\n")

    nginx = start()
    nginx.release("current", stream)
    with nginx.connect() as sock:
        sock.sendall(f"GET /events HTTP/1.1\r\nHost: {SITE}\r\nConnection: close\r\n\r\n".encode())
        came: list[float] = []
        for line in sock.makefile("rb"):
            if line.startswith(b"data:"):
                came.append(time.monotonic())
    assert len(came) == 5
    gaps = [later - earlier for earlier, later in itertools.pairwise(came)]
    assert all(0.2 < gap < 0.7 for gap in gaps), gaps


# ------------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize(("size", "status"), [(32_000, 200), (40_000, 502)])
def test_32_kilobytes_of_headers_pass_in_an_answer(start: Start, size: int, status: int) -> None:
    nginx = start()
    nginx.release("current", reply("page", "200 OK", *(f"Set-Cookie: c{n}={'x' * 3_980}" for n in range(size // 4000))))
    assert nginx.status("/") == status


def test_a_body_may_be_as_large_as_the_setting_says_and_no_larger(start: Start) -> None:
    nginx = start()
    nginx.release("current", reply("taken"))
    assert nginx.status("/", method="POST", body="x" * 100_000) == 200
    with contextlib.suppress(ConnectionError):
        assert nginx.status("/", method="POST", body="x" * 100_001) == 413
    assert nginx.runs == ["current POST / 100000"]


# ------------------------------------------------------------------------------------------------ paths


def test_names_with_dots_are_the_apps_but_for_static_files(start: Start) -> None:
    nginx = start()
    nginx.release("current", reply("app"))
    folder = nginx.folder / "run" / "current" / "static"
    (folder / ".git").mkdir(parents=True)
    (folder / ".well-known").mkdir()
    for name in (".env", ".git/config", ".well-known/app.json", "style.css"):
        (folder / name).write_text("static")
    nginx.release("previous", reply("old"))
    asked = {
        path: (answer.split()[1].decode(), answer[-6:].decode().rpartition("\n")[2])
        for path in ("/.env", "/a/.hidden/b", "/.well-known/x", "/static/style.css", "/static/.well-known/app.json",
                     "/static/.env", "/static/.git/config", "/static/%2eenv", "//static/.env", "/x/../static/.env",
                     "/static/.none")
        for answer in [nginx.ask(path)]
    }  # fmt: skip
    app = {path for path, (status, body) in asked.items() if (status, body) == ("200", "app")}
    files = {path for path, (status, body) in asked.items() if (status, body) == ("200", "static")}
    assert app == {"/.env", "/a/.hidden/b", "/.well-known/x"}
    assert files == {"/static/style.css", "/static/.well-known/app.json"}
    assert {asked[path][0] for path in asked.keys() - app - files} == {"404"}


# ------------------------------------------------------------------------------------------------ visitors


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this computer has no IPv6")
def test_visitors_over_ipv6_are_answered_by_their_own_address(start: Start) -> None:
    nginx = start(site=render.HostSite(names=("[2001:db8::7]", SITE)))
    nginx.release("current", tell_head)

    def ask(host: str) -> str:
        request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        return nginx.exchange(request, family=socket.AF_INET6).decode()

    assert "\r\nX-Forwarded-For: ::1\r\n" in ask(SITE)
    assert "\r\nHost: [2001:db8::7]\r\n" in ask("[2001:DB8::7]")
    assert ask("other.example") == ""


def test_an_ipv6_visitor_of_the_proxy_is_the_visitor(start: Start) -> None:
    nginx = start(proxy=HERE)
    nginx.release("current", tell_head)
    assert "\r\nX-Forwarded-For: 2001:db8::9\r\n" in nginx.ask("/", headers="X-Forwarded-For: 2001:db8::9\r\n").decode()


def test_decant_host_may_say_how_visitors_come(start: Start) -> None:
    """It connects from 127.0.0.1; only behind a proxy whose word counts, too."""
    other = render.Proxy(networks=("10.0.0.5/32",), trusts_forwarded_proto=True, drain_seconds=25, idle_timeout=60)
    nginx = start(proxy=other)
    nginx.release("current", tell_head)
    said = "X-Forwarded-Proto: https\r\nX-Forwarded-For: 6.6.6.6\r\n"
    head = nginx.ask("/", headers=said).decode()
    assert "\r\nX-Forwarded-Proto: https\r\n" in head
    assert "\r\nX-Forwarded-For: 127.0.0.1\r\n" in head


# ------------------------------------------------------------------------------------------------ health checks


def by_path(**statuses: str) -> Callable[[socket.socket, bytes], None]:
    """A release that answers `/` and `/healthz` with these statuses."""

    def answer(sock: socket.socket, request: bytes) -> None:
        path = request.split()[1].decode()
        reply("", statuses["page" if path == "/" else "healthz"])(sock, request)

    return answer


@pytest.mark.parametrize("host", [SITE, "10.110.0.9"])
@pytest.mark.parametrize(
    ("healthz", "page", "status"),
    [
        ("200 OK", "500 Error", 200),
        ("404 Not Found", "200 OK", 200),
        ("404 Not Found", "302 Found", 200),
        ("404 Not Found", "403 Forbidden", 200),
        ("302 Found", "401 Unauthorized", 200),
        ("403 Forbidden", "404 Not Found", 200),
        ("308 Permanent Redirect", "200 OK", 200),
        ("404 Not Found", "500 Error", 500),
        ("503 Unavailable", "200 OK", 503),
    ],
)
def test_the_balancer_gets_200_for_each_answer_below_500_of_an_app_without_a_health_path(
    start: Start, healthz: str, page: str, status: int, host: str
) -> None:
    nginx = start(proxy=HERE, health_path=None)
    nginx.release("current", by_path(healthz=healthz, page=page))
    (nginx.folder / "run" / "open").touch()
    assert nginx.status("/healthz", host=host) == status
    visitor = nginx.status("/healthz", headers="X-Forwarded-For: 192.0.2.1\r\n")
    assert visitor == int(healthz[:3]), "a visitor gets what the app says"
    (nginx.folder / "run" / "open").unlink()
    assert nginx.status("/healthz", host=host) == 503, "out of rotation"


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_the_balancer_gets_the_apps_own_answer_at_the_stacks_health_path(start: Start, status: int) -> None:
    nginx = start(proxy=HERE, health_path="/healthz")
    nginx.release("current", by_path(healthz=f"{status} x", page="200 OK"))
    (nginx.folder / "run" / "open").touch()
    assert nginx.status("/healthz", host="10.110.0.9") == status


def test_health_checks_are_the_balancers_alone(start: Start) -> None:
    other = render.Proxy(networks=("10.0.0.5/32",), trusts_forwarded_proto=False, drain_seconds=25, idle_timeout=60)
    nginx = start(proxy=other, health_path=None)
    nginx.release("current", reply("ok"))
    (nginx.folder / "run" / "open").touch()
    assert nginx.status("/healthz", host="10.110.0.9") == 404
    assert nginx.status("/healthz", host="10.110.0.9", headers="X-Forwarded-For: 10.0.0.5\r\n") == 404
    assert nginx.status("/healthz") == 200


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_health_checks_speak_the_scheme_of_the_public_url(start: Start, scheme: str) -> None:
    """An app that redirects everything to https would otherwise never be healthy."""
    heads: list[str] = []

    def remember(sock: socket.socket, request: bytes) -> None:
        heads.append(request.decode())
        reply("ok")(sock, request)

    nginx = start(proxy=HERE, health_path="/healthz", site=replace(ADDRESS, scheme=scheme))
    nginx.release("current", remember)
    (nginx.folder / "run" / "open").touch()
    assert nginx.status("/healthz", host="10.110.0.9") == 200
    assert f"\r\nX-Forwarded-Proto: {scheme}\r\n" in heads[0]
    assert f"\r\nHost: {SITE}\r\n" in heads[0]


def test_many_requests_at_once_are_all_answered_by_the_release_before(start: Start) -> None:
    """As when a new release crashes under load."""
    nginx = start()
    nginx.release("current", None)
    nginx.release("previous", reply("old"))
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(nginx.status("/"))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_links_of_the_app_lead_nginx_to_the_apps_own_files_alone(start: Start) -> None:
    nginx = start()
    code, data = nginx.folder / "releases" / "static", nginx.folder / "data"
    for folder in (code / "real", data):
        folder.mkdir(parents=True)
    for path in (code / "real" / "a.css", nginx.folder / "secret", data / "mine"):
        path.write_text("static")
    (code / "link.css").symlink_to("real/a.css")
    (code / "up").symlink_to(data)
    (data / "theirs").symlink_to(nginx.folder / "secret")
    (data / "all").symlink_to(nginx.folder)
    (data / "again").symlink_to("mine")
    for path in (code / "up", data, *data.iterdir()):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    for release in ("current", "previous"):
        nginx.release(release, reply("app"))
        (nginx.folder / "run" / release / "static").symlink_to(code)
    names = ("real/a.css", "link.css", "up/mine", "up/again", "up/theirs", "up/all/secret")
    served = {name for name in names if nginx.ask(f"/static/{name}").endswith(b"static")}
    assert served == {"real/a.css", "link.css", "up/mine", "up/again"}
