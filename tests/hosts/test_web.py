"""The web as apps use it: WebSockets, streams, large headers, slow and dying requests, IPv6, logins and redirects."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decant.errors import RolloutError
from tests.support.events import event_times
from tests.support.site import ENV, SECRETS, Site
from tests.support.waiting import PATIENCE, wait_for
from tests.support.websocket import WebSocket

ECHO = {"X-Probe": "websocket"}
RUN = {"X-Probe": "run"}


def runs(site: Site, path: str) -> int:
    """How often the app was asked for this path."""
    return site.machine.run("cat /var/lib/decant/data/requests").stdout.count(f" {path}\n")


def open_socket(site: Site) -> WebSocket:
    opened = WebSocket(site.address, "/", headers=ECHO, timeout=60)
    assert opened.status == 101, opened.headers
    return opened


def echoed_by(opened: WebSocket) -> str | None:
    """The release that echoes a message; None where the WebSocket has ended."""
    try:
        opened.send("hello")
    except OSError:
        return None
    said = opened.receive()
    if said is None:
        return None
    release, _, text = said.partition(" ")
    assert text == "hello"
    return release


# ------------------------------------------------------------------------------------------------ what passes


def test_a_websocket_echoes(site: Site) -> None:
    with open_socket(site) as opened:
        assert [echoed_by(opened) for _ in range(3)] == [site.live] * 3


def test_events_come_when_they_are_sent(site: Site) -> None:
    came = event_times(site.address)
    assert len(came) == 3
    assert all(0.3 < later - earlier < 0.8 for earlier, later in itertools.pairwise(came))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_an_answer_may_have_32_kilobytes_of_headers(site: Site, count: int) -> None:
    reply = site.ask("/", method="POST", body=str(count), headers={"X-Probe": "cookies"})
    assert (reply.status, len(reply.headers.get_all("Set-Cookie", []))) == (200, count)


@pytest.mark.parametrize("path", ["/path/.env", "/path/x/.hidden/y", "/.env"])
def test_paths_with_dots_are_the_apps_own(site: Site, path: str) -> None:
    before = runs(site, path)
    site.ask(path)
    assert runs(site, path) == before + 1


def test_the_app_sees_the_visitor_without_any_proxy_fix(site: Site) -> None:
    """The probe is in front of the app's own ProxyFix."""
    seen = site.ask("/", headers={"X-Probe": "environ"}).json()
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == (site.network.gateway, "http")
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"], seen["HTTP_HOST"]) == (site.address, "80", site.address)


def test_a_visitor_over_ipv6_is_answered_and_has_an_address(site: Site) -> None:
    """This computer is the visitor."""
    here, there = "fd00:dec:a27::1", "fd00:dec:a27::2"
    own = ["ip", "-6", "address", "replace", f"{here}/64", "dev", site.machine.bridge, "nodad"]
    subprocess.run(own, check=True)
    site.machine.run(f"ip -6 address add {there}/64 dev host0 nodad")

    def ask(host: str) -> Any:
        with contextlib.closing(http.client.HTTPConnection(there, 80, timeout=PATIENCE)) as connection:
            connection.request("GET", "/", headers={"Host": host, "X-Probe": "environ"})
            return json.loads(connection.getresponse().read())

    try:
        seen = ask(site.address)
        assert (seen["REMOTE_ADDR"], seen["HTTP_X_FORWARDED_FOR"]) == (here, here)
        with pytest.raises(ConnectionResetError):  # the default server listens there, too
            ask("other.example")
    finally:
        site.machine.run(f"ip -6 address del {there}/64 dev host0")
        subprocess.run(["ip", "-6", "address", "del", f"{here}/64", "dev", site.machine.bridge], check=True)


# ------------------------------------------------------------------------------------------------ one run


@pytest.fixture(scope="module")
def hasty(site: Site) -> Iterator[Site]:
    """The site with little time and room for a request."""
    run = site.up(env=ENV, secrets=SECRETS, requestTimeout=2, maxBody="100k")
    assert run.status == 0, run.error + run.log
    yield site
    run = site.up(env=ENV, secrets=SECRETS)
    assert run.status == 0, run.error + run.log


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_takes_too_long_is_a_504_and_runs_once(hasty: Site, method: str) -> None:
    """Also right after a release, while the one before still runs."""
    path = f"/slow-{method}"
    began = time.monotonic()
    reply = hasty.ask(path, method=method, body=b"import time; time.sleep(4)", headers=RUN)
    assert reply.status == 504
    assert 1.8 < time.monotonic() - began < 3
    time.sleep(3)
    assert runs(hasty, path) == 1
    (line,) = hasty.machine.run(f"grep '{method} {path} ' /var/log/nginx/access.log").stdout.splitlines()
    assert " upstream=504 " in line


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_whose_worker_dies_is_a_502_and_runs_once(hasty: Site, tmp_path: Path, method: str) -> None:
    """While the release before still runs: it holds a WebSocket, and so keeps its socket for a while."""
    path = f"/die-{method}"
    with open_socket(hasty):
        hasty.release(hasty.variant(tmp_path / "next", {"note.txt": method}))
        reply = hasty.ask(path, method=method, body=b"import os; os._exit(1)", headers=RUN)
    assert reply.status == 502
    assert runs(hasty, path) == 1
    wait_for(lambda: hasty.ask("/healthz").status == 200, "another worker")


def test_a_body_may_be_as_large_as_the_setting_says(hasty: Site) -> None:
    assert hasty.ask("/echo", method="POST", body=b"x" * (100 << 10)).status == 200
    assert hasty.ask("/echo", method="POST", body=b"x" * ((100 << 10) + 1)).status == 413


# ------------------------------------------------------------------------------------------------ releases


def test_a_release_keeps_open_websockets_for_half_a_minute_and_waits_for_none(site: Site, tmp_path: Path) -> None:
    """New ones go to the new release; the old one ends its own, and going back to it need not wait for them."""
    old = site.live
    with open_socket(site) as first:
        began = time.monotonic()
        new = site.release(site.variant(tmp_path / "new", {"note.txt": "websockets"}))
        assert time.monotonic() - began < 15
        assert echoed_by(first) == old, "it is still open"
        with open_socket(site) as second:
            assert echoed_by(second) == new
        assert first.receive() is None, "the old release has ended it"
        assert 25 < time.monotonic() - began < 45
    wait_for(lambda: site.status()["running"] == [new], "the old release to be gone")


def test_going_back_does_not_wait_for_the_websockets_of_the_release_that_drains(site: Site, tmp_path: Path) -> None:
    old = site.live
    with open_socket(site) as first:
        site.release(site.variant(tmp_path / "newer", {"note.txt": "and back"}))
        assert echoed_by(first) == old
        began = time.monotonic()
        site.roll_out(old)
        assert time.monotonic() - began < 15
        assert site.live == old
        assert echoed_by(first) is None


# ------------------------------------------------------------------------------------------------ health

REDIRECTS = """
from flask import Flask, redirect, request
app = Flask(__name__)
{config}
@app.before_request
def guard():
    {guard}
@app.get("/")
@app.get("/up")
def page():
    return "page over " + request.scheme
"""
LOGIN = 'return None if request.path == "/login" else redirect("/login")'
HTTPS = 'return None if request.is_secure else redirect(request.url.replace("http", "https", 1))'
FORBIDDEN = 'return ("no", 403)'
BROKEN = 'return ("no", 500)'


def gated(site: Site, folder: Path, guard: str) -> Path:
    return site.variant(folder, {"wsgi.py": REDIRECTS.format(guard=guard, config="")})


@pytest.mark.parametrize(("guard", "status"), [(LOGIN, 302), (HTTPS, 302), (FORBIDDEN, 403)])
def test_an_app_without_a_health_path_may_ask_for_a_login_or_https(
    site: Site, tmp_path: Path, guard: str, status: int
) -> None:
    old = site.live
    try:
        release = site.release(gated(site, tmp_path / "gated", guard), health_path=None)
        assert (site.ask("/").status, site.ask("/").release) == (status, release)
    finally:
        site.roll_out(old)


def test_an_app_without_a_health_path_may_not_fail(site: Site, tmp_path: Path) -> None:
    staged = site.stage(gated(site, tmp_path / "broken", BROKEN), health_path=None, health_timeout=2)
    assert staged.status == 1
    assert "not healthy within 2 s at /healthz: status 500" in staged.error


@pytest.mark.parametrize("guard", [LOGIN, HTTPS])
def test_a_health_path_of_the_stacks_needs_200(site: Site, tmp_path: Path, guard: str) -> None:
    staged = site.stage(gated(site, tmp_path / "gated", guard), health_path="/up", health_timeout=2)
    assert staged.status == 1
    assert "the health path /up redirects" in staged.error


def test_staging_speaks_https_where_the_public_url_does(site: Site, tmp_path: Path) -> None:
    settings = "/etc/decant/settings.json"
    site.machine.run(f'cp -p {settings} /run/settings && sed -i \'s/"scheme": "http"/"scheme": "https"/\' {settings}')
    try:
        staged = site.stage(gated(site, tmp_path / "gated", HTTPS), health_path="/up", health_timeout=5)
        assert staged.status == 0, staged.error
    finally:
        site.machine.run(f"mv /run/settings {settings}")


def test_a_release_that_is_not_there_any_more_is_refused(site: Site) -> None:
    with pytest.raises(RolloutError, match="is not on this machine"):
        site.roll_out("0123456789ab")
