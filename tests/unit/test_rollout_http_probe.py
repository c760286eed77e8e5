"""Requests to the public URL, and what is waited for there."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from decant.errors import NotInRotationError, RolloutError
from decant.host.manifest import HERE
from decant.rollout import http_probe
from decant.rollout.http_probe import (
    BY_NAME,
    ProbeResult,
    port_of,
    probe,
    routes_to_us,
    wait_for_release,
    wait_until_in_rotation,
)
from decant.rollout.route import Route
from tests.support.fake_fleet import NEW, OLD, Site


@contextlib.contextmanager
def answering_once(
    status: int, headers: Callable[[http.server.BaseHTTPRequestHandler], Mapping[str, str]]
) -> Iterator[str]:
    """The address of a server that answers one request, without a body, with the headers that it gets for it."""

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers(self), "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"


def test_probe_reads_the_status_and_the_release(site: Site) -> None:
    result = probe(site.url + "/healthz")
    assert (result.status, result.release, result.why) == (200, OLD, "status 200")
    site.status = 503
    assert (probe(site.url).status, probe(site.url).release, probe(site.url).why) == (503, OLD, "status 503")
    site.status, site.release = 200, ""
    assert probe(site.url).release == ""
    site.fault = "silent"
    broken = probe(site.url)
    assert (broken.status, broken.release) == (0, "")
    assert broken.why
    assert site.paths[0] == "/healthz"


# http.client's own errors are not OSErrors.
@pytest.mark.parametrize("fault", ["garbage", "cut short"])
def test_a_broken_answer_is_no_answer(site: Site, fault: str) -> None:
    site.fault = fault
    broken = probe(site.url)
    assert broken.status == 0
    assert broken.why


@pytest.mark.parametrize("fault", ["trickling", "trickling chunks", "trickling to the end"])
def test_an_answer_that_trickles_is_given_up(site: Site, fault: str) -> None:
    """Each piece comes in time, and the last one never."""
    site.fault = fault
    result = probe(site.url, timeout=0.3)
    assert (result.status, result.why) == (0, "no whole answer within 0 s")


def test_probe_follows_a_redirect_within_the_site(site: Site) -> None:
    """It does not read the redirect's own body, which may never end."""
    site.fault = "trickling redirect"
    result = probe(site.url + "/", timeout=2)
    assert (result.status, result.release, site.paths) == (200, OLD, ["/", "/there"])


def test_a_redirect_of_a_release_is_an_answer() -> None:
    """To a login, or to https where nothing listens yet."""

    with answering_once(
        302,
        lambda asked: {"Location": f"https://127.0.0.1:{asked.connection.getsockname()[1]}/login", "X-Release": NEW},
    ) as url:
        result = probe(url)
    assert (result.status, result.release) == (302, NEW)
    assert result.serves(NEW, needs_200=False)
    assert not result.serves(NEW)


def test_probe_follows_no_redirect_to_another_host(site: Site) -> None:
    """The app chooses the target, and this computer may reach services that the app cannot."""
    paths: list[str] = []

    def headers(asked: http.server.BaseHTTPRequestHandler) -> dict[str, str]:
        paths.append(asked.path)
        return {"X-Release": NEW, "Location": f"http://localhost:{site.port}/secret"}

    with answering_once(302, headers) as url:
        result = probe(url)
    assert (result.status, result.release) == (302, NEW)
    assert result.why == f"status 302 to 'http://localhost:{site.port}/secret'"
    assert (paths, site.paths) == (["/"], [])


def test_a_probe_asks_nginx_which_machine_it_is() -> None:
    """nginx adds X-Machine for requests with this header alone."""
    template = (HERE / "nginx" / "nginx.conf.j2").read_text()
    assert re.search(r"map \$http_x_decant_probe \$\w+ \{[^}]*\"1\"", template)

    def headers(asked: http.server.BaseHTTPRequestHandler) -> dict[str, str]:
        return {"X-Machine": "web-1.0a1b2c3d" if asked.headers["X-Decant-Probe"] == "1" else ""}

    with answering_once(200, headers) as url:
        result = probe(url)
    assert result.machine == "web-1.0a1b2c3d"


def test_a_page_that_ends_in_its_middle_is_no_answer() -> None:
    class Ending(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 900)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Ending) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert probe(f"http://127.0.0.1:{server.server_port}/").status == 0


def test_an_address_without_a_server_is_a_result() -> None:
    result = probe("http://127.0.0.1:1/")
    assert (result.status, result.release) == (0, "")
    assert "refused" in result.why
    assert probe("http://nowhere.invalid/").status == 0


# ------------------------------------------------------------------------------------------------ waiting


class Url:
    """Stands in for `probe` and for the clock: each answer takes a second, and the last one stays."""

    def __init__(self, *answers: tuple[int, str, str]) -> None:
        self.answers = list(answers)
        self.now = 100.0
        self.probed: list[str] = []

    def probe(self, url: str, route: Route = BY_NAME) -> ProbeResult:
        self.now += 1
        self.probed.append(url)
        status, release, machine = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return ProbeResult(
            status=status, release=release, machine=machine, why=f"status {status}", at=self.now - 1, seconds=1.0
        )

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Url:
    made = Url((503, "", ""))
    monkeypatch.setattr(http_probe, "probe", made.probe)
    monkeypatch.setattr(http_probe, "time", made)
    return made


GOOD, OTHER, SILENT = (200, NEW, "a"), (200, OLD, "a"), (0, "", "")


def test_wait_for_release_returns_the_first_good_answer(url: Url) -> None:
    url.answers = [OTHER, (502, "", ""), (503, NEW, "a"), (200, "", ""), GOOD]
    assert wait_for_release("http://x/healthz", NEW, timeout=60).release == NEW
    assert url.probed == ["http://x/healthz"] * 5


def test_wait_for_release_gives_up_after_its_time(url: Url) -> None:
    with pytest.raises(RolloutError):
        wait_for_release("http://x/", NEW, timeout=15)
    assert 15 <= url.now - 100 <= 18


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (OTHER, f"gave status 200 from release {OLD} instead of 200 from release {NEW}"),
        ((503, NEW, ""), f"gave status 503 from release {NEW} instead"),
        ((200, "", ""), f"gave status 200 instead of 200 from release {NEW}"),
    ],
)
def test_wait_for_release_names_the_last_answer(url: Url, answer: tuple[int, str, str], text: str) -> None:
    url.answers = [answer]
    with pytest.raises(RolloutError) as caught:
        wait_for_release("http://x/healthz", NEW, timeout=0)
    assert str(caught.value).startswith(f"http://x/healthz {text}")


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404])
def test_without_a_health_path_each_answer_below_500_is_good(url: Url, status: int) -> None:
    url.answers = [(status, OLD, "a"), (status, "", ""), (500, NEW, "a"), (status, NEW, "a")]
    assert wait_for_release("http://x/", NEW, timeout=60, needs_200=False).status == status
    assert len(url.probed) == 4
    url.answers = [(status, OLD, "a")]
    assert routes_to_us("http://x/", {OLD}, timeout=3, needs_200=False)
    url.answers = [(status, NEW, "a")]
    wait_until_in_rotation("http://x/", NEW, {"a"}, timeout=3, needs_200=False)
    with pytest.raises(RolloutError, match=f"gave status {status} from release {NEW} instead of 200 from"):
        wait_for_release("http://x/", NEW, timeout=0)
    url.answers = [(500, NEW, "a")]
    with pytest.raises(RolloutError, match=f"instead of a status below 500 from release {NEW}"):
        wait_for_release("http://x/", NEW, timeout=0, needs_200=False)


@pytest.mark.parametrize(
    ("address", "port"),
    [("http://x/up", 80), ("https://x", 443), ("http://x:8080/", 8080), ("http://[2001:db8::1]:81/", 81)],
)
def test_an_error_asks_about_the_port_of_the_url(url: Url, address: str, port: int) -> None:
    assert port_of(address) == port
    with pytest.raises(RolloutError, match=f"Is port {port} open to this computer"):
        wait_for_release(address, NEW, timeout=0)


@pytest.mark.parametrize(
    ("answers", "routes"),
    [
        ([SILENT, (503, "", ""), OTHER], True),
        ([SILENT], False),
        ([(500, OLD, "a")], False),
        ([(200, "cccccccccccc", "a")], False),
    ],
)
def test_routes_to_us_needs_a_good_answer_of_a_known_release(
    url: Url, answers: Iterable[tuple[int, str, str]], routes: bool
) -> None:
    url.answers = list(answers)
    assert routes_to_us("http://x/", {OLD}, timeout=3) is routes
    assert url.now - 100 <= 6


def test_every_machine_must_answer_through_the_balancer(url: Url, capsys: pytest.CaptureFixture[str]) -> None:
    url.answers = [(200, NEW, "a"), (200, OLD, "b"), (503, "", ""), (200, NEW, "a"), (200, NEW, "b")]
    wait_until_in_rotation("http://x/", NEW, {"a", "b"}, timeout=60)
    assert len(url.probed) == 5
    assert capsys.readouterr().err == ""


def test_missing_machines_are_named_in_their_order(url: Url) -> None:
    url.answers = [(502, NEW, "")]
    with pytest.raises(NotInRotationError, match="no request to a, b, c, d, e, f, g, h; "):
        wait_until_in_rotation("http://x/", NEW, set("hgfedcba"), timeout=60)


def test_machines_without_an_answer_are_named(url: Url, capsys: pytest.CaptureFixture[str]) -> None:
    url.answers = [(200, NEW, "a"), (502, NEW, "")]
    with pytest.raises(NotInRotationError) as caught:
        wait_until_in_rotation("http://x/", NEW, {"a", "b", "c"}, timeout=60)
    assert str(caught.value).startswith(
        f"within 60 s the balancer sent no request to b, c; http://x/ gave status 502 from release {NEW}.\n"
    )
    waiting = capsys.readouterr().err.splitlines()
    assert waiting[0] == (
        f"waiting until the balancer sends requests to b, c; http://x/ gave status 502 from release {NEW}"
    )
    assert 2 <= len(waiting) <= 4, "every 15 s"
