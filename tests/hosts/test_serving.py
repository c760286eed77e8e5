"""What visitors and attackers get from outside: the page, static files, limits, and nothing else."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from decant.host import steps
from decant.host.render import HostSite
from tests.support.host_files import LIMITS
from tests.support.project_copy import STACK
from tests.support.site import ENV, SECRETS, Site
from tests.support.waiting import PATIENCE, wait_for
from tests.support.watching import open_ports

MEBIBYTE = 1024 * 1024
SECURITY_HEADERS = ("Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy")


def test_the_page_is_served_by_the_release_that_the_program_names(site: Site) -> None:
    page = site.ask("/")
    assert page.status == 200
    assert b"It is live." in page.body
    assert page.headers.get_all("X-Release") == [site.live]
    assert site.first.outputs["url"] == f"http://{site.address}"
    assert site.first.outputs["machines"][0]["address"] == site.address
    assert all(page.headers[name] for name in SECURITY_HEADERS)


@pytest.mark.parametrize(
    "request_line",
    [
        "GET / HTTP/1.1\r\nHost: other.example",
        "GET / HTTP/1.0",
        "POST /echo HTTP/1.1\r\nHost: localhost.example",
        "GET http://other.example/ HTTP/1.1\r\nHost: {}",
    ],
)
def test_other_names_get_no_answer_at_all(site: Site, request_line: str) -> None:
    assert site.exchange(f"{request_line.format(site.address)}\r\nConnection: close\r\n\r\n".encode()) == b""


# ------------------------------------------------------------------------------------------------ static files


def test_static_files_come_from_nginx_and_are_asked_for_again(site: Site) -> None:
    plain = site.ask("/static/style.css")
    assert plain.status == 200
    assert plain.body == (site.project.app / "static/style.css").read_bytes()
    assert plain.headers["Content-Type"] == "text/css"
    assert plain.release == "", "the app was not asked"
    assert plain.headers["Cache-Control"] == "no-cache"
    assert plain.headers["X-Content-Type-Options"] == "nosniff", "the app does not add it here"
    again = site.ask("/static/style.css", headers={"If-None-Match": plain.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")

    versioned = site.ask("/static/style.css?v=1")
    assert "immutable" in versioned.headers["Cache-Control"]
    packed = site.ask("/static/style.css", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert site.ask("/static/no-such-file").headers["Cache-Control"] != versioned.headers["Cache-Control"]


@pytest.mark.parametrize(
    "path",
    [
        "/.env", "/.git/config", "/app.py", "/wsgi.py", "/hello/config.py", "/requirements.txt", "/static/../wsgi.py",
        "/static/..%2fwsgi.py", "/static/%2e%2e/wsgi.py", "/static../wsgi.py", "/static/..%252fwsgi.py",
        "/static/.hidden", "/static/", "/static/%2e%2e%2f%2e%2e%2fenvironment.json",
        "/static/..\\wsgi.py", "/static/%00", "/../../../../etc/passwd", "/static/../../../../../etc/passwd",
    ],
)  # fmt: skip
def test_code_and_dotfiles_are_out_of_reach(site: Site, path: str) -> None:
    reply = site.ask(path)
    # nginx calls a path that climbs out of the root, or has a zero byte, a bad request.
    assert reply.status == (400 if "/../../" in path or "%2e%2e%2f%2e%2e" in path or "%00" in path else 404)
    assert not any(secret in reply.body for secret in (b"import", b"root:", b"canary", b"flask"))


# ------------------------------------------------------------------------------------------------ what the app sees


@pytest.mark.parametrize(
    "path", ["/a%2Fb", "//a//b", "/100%25", "/a;b=1/c", "/%C3%A9", "/a%20b/?q=%2F&r=a+b;c", "/a/./b/%2e"]
)
def test_addresses_reach_the_app_unchanged(site: Site, path: str) -> None:
    assert site.ask(path, headers={"X-Probe": "environ"}).json()["RAW_URI"] == path


def test_forged_headers_change_nothing(site: Site) -> None:
    forged = {
        "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "evil", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Ssl": "on", "X-Real-IP": "6.6.6.6",
        "X-Forwarded-Protocol": "evil", "X-Forwarded-Scheme": "evil", "Forwarded": "for=6.6.6.6;host=evil.example",
        "SCRIPT_NAME": "/evil", "PATH_INFO": "/evil", "REMOTE_USER": "evil", "X_FORWARDED_FOR": "6.6.6.6",
        "Remote_Addr": "6.6.6.6", "Proxy": "http://evil.example", "X-Release": "evil", "Wsgi.Url_Scheme": "https",
    }  # fmt: skip
    honest, visit = site.ask("/request").json(), site.ask("/request", headers=forged)
    believed = visit.json()
    assert visit.status == 200
    assert {**believed, "visits": 0} == {**honest, "visits": 0}
    assert (believed["client"], believed["scheme"], believed["host"]) == (site.network.gateway, "http", site.address)
    assert visit.headers.get_all("X-Release") == [site.live]

    seen = site.ask("/request", headers={**forged, "X-Probe": "environ"}).json()
    del seen["HTTP_X_RELEASE"]  # not one that anything believes
    assert [name for name, value in seen.items() if "evil" in str(value) or "6.6.6.6" in str(value)] == []
    assert not {"HTTP_X_FORWARDED_SSL", "HTTP_FORWARDED"} & set(seen)


# ------------------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_16_mebibytes_get_through_and_no_larger(site: Site, chunked: bool) -> None:
    def send(length: int) -> tuple[int, bytes]:
        parts = [b"x" * min(MEBIBYTE, length - at) for at in range(0, length, MEBIBYTE)]
        headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(length)}
        with contextlib.suppress(ConnectionError):  # it may hang up on what it has refused already
            reply = site.ask("/echo", method="POST", body=iter(parts), headers=headers, chunked=chunked)
            return reply.status, reply.body
        return 413, b""

    status, body = send(16 * MEBIBYTE)
    assert (status, b"16777216" in body) == (200, True)
    assert send(16 * MEBIBYTE + 1)[0] == 413


@pytest.mark.parametrize(("length", "status"), [(4_095, 200), (8_150, 200), (9_000, 414)])
def test_long_addresses_get_through_nginx_and_gunicorn_alike(site: Site, length: int, status: int) -> None:
    assert site.ask("/healthz?" + "x" * (length - 9)).status == status


def test_headers_of_7_kilobytes_get_through(site: Site) -> None:
    assert site.ask("/healthz", headers={"Cookie": "x" * 7_000}).status == 200
    assert site.ask("/healthz", headers={"Cookie": "x" * 9_000}).status == 400


# ------------------------------------------------------------------------------------------------ two parsers in a row

INNER = "GET /smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n"
CHUNKED = f"0\r\n\r\n{INNER}"  # a whole body for who reads chunks, and a request behind it
LENGTH = len(INNER.replace("HOST", "198.51.100.000"))


@pytest.mark.parametrize(
    "head",
    [
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nTransfer-Encoding: chunked",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: LENGTH",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nTransfer-Encoding : chunked",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nTransfer-Encoding: xchunked",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nTransfer-Encoding:\x0bchunked",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nTransfer-Encoding: identity, chunked",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nTransfer_Encoding: chunked",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nX: y\r\n Transfer-Encoding: chunked",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nX: y\nTransfer-Encoding: chunked",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nX: y\rTransfer-Encoding: chunked",
        "POST /outer HTTP/1.0\r\nHost: HOST\r\nContent-Length: LENGTH\r\nTransfer-Encoding: chunked",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\nContent-Length: LENGTH",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH, 0",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: +LENGTH",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length : LENGTH",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nHost: other.example\r\nContent-Length: LENGTH",
        "POST /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\n\tContent-Length: 0",
        "GET /outer HTTP/1.1\r\nHost: HOST\r\nContent-Length: LENGTH\r\nConnection: Content-Length, keep-alive",
        "GET /outer\nHost: HOST\nContent-Length: LENGTH",
        "GET /outer HTTP/1.1\nHost: HOST\nContent-Length: LENGTH",
    ],
)
def test_no_request_hides_in_another(site: Site, head: str) -> None:
    """Each is refused, or the app sees one request, and the next on the connection is the visitor's next."""
    body = CHUNKED if "chunked" in head else INNER
    sent = f"{head}\r\n\r\n{body}".replace("HOST", site.address)
    sent = sent.replace("LENGTH", str(len(body.replace("HOST", site.address))))
    last = f"GET /last HTTP/1.1\r\nHost: {site.address}\r\nConnection: close\r\n\r\n"
    requests = "/var/lib/decant/data/requests"
    before = len(site.machine.run(["cat", requests]).stdout)
    said = site.exchange((sent + last).encode("latin-1"))

    statuses = [int(status) for status in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", said, re.MULTILINE)]
    seen = site.machine.run(["cat", requests]).stdout[before:].splitlines()
    refused = not seen and len(statuses) <= 1 and all(400 <= status <= 501 for status in statuses)
    well_formed = [line.split()[1] for line in seen] == ["/outer", "/last"] and len(statuses) == 2
    assert refused or well_formed, (seen, said)


def test_what_is_well_formed_is_seen_as_one_request_each(site: Site) -> None:
    """The test above can fail: two honest requests in one packet are seen as two."""
    one = f"GET /one HTTP/1.1\r\nHost: {site.address}\r\n\r\n"
    two = f"GET /two HTTP/1.1\r\nHost: {site.address}\r\nConnection: close\r\n\r\n"
    assert site.exchange((one + two).encode()).count(b"HTTP/1.1 404 ") == 2
    assert site.machine.run("tail -n 2 /var/lib/decant/data/requests").stdout == "GET /one\nGET /two\n"


# ------------------------------------------------------------------------------------------------ limits of a client


def logged_limits(site: Site, mark: str) -> Counter[str]:
    """How nginx judged the requests whose path holds the mark, as the access log says."""
    lines = site.machine.run("cat /var/log/nginx/access.log").stdout.splitlines()
    return Counter(line.rpartition(" limit=")[2] for line in lines if mark in line)


def test_requests_over_the_limit_are_counted_and_answered(site: Site) -> None:
    """50 a second and 200 at once: 400 in one go are too many, and none is refused."""
    with contextlib.closing(http.client.HTTPConnection(site.address, 80, timeout=PATIENCE)) as connection:
        for _ in range(400):
            connection.request("GET", "/static/style.css?limit=requests")
            reply = connection.getresponse()
            reply.read()
            assert reply.status == 200
    verdicts = wait_for(lambda: (seen := logged_limits(site, "limit=requests ")).total() >= 400 and seen, "the log")
    assert verdicts.keys() == {"PASSED/PASSED", "REJECTED_DRY_RUN/PASSED"}, verdicts
    assert verdicts["PASSED/PASSED"] >= 100, "the burst, less what the tests before this one have used of it"


def test_connections_over_the_limit_are_counted_and_answered(site: Site) -> None:
    """50 of one client: of 70 that wait at once for the app, 20 are too many."""
    code = b"import time; time.sleep(0.4)"

    def ask(_: int) -> int:
        return site.ask("/?limit=connections", method="POST", body=code, headers={"X-Probe": "run"}).status

    with ThreadPoolExecutor(70) as threads:
        assert set(threads.map(ask, range(70))) == {200}
    verdicts = wait_for(lambda: (seen := logged_limits(site, "limit=connections ")).total() >= 70 and seen, "the log")
    assert sum(count for verdict, count in verdicts.items() if verdict.endswith("/REJECTED_DRY_RUN")) >= 10, verdicts


def test_pages_are_not_compressed(site: Site) -> None:
    """A compressed page that reflects input gives away the secrets on it (BREACH)."""
    page = site.ask("/", headers={"Accept-Encoding": "gzip"})
    assert (page.status, page.headers["Content-Encoding"]) == (200, None)


# ------------------------------------------------------------------------------------------------ behind a proxy


def test_only_the_trusted_proxy_says_who_asks_and_how(site: Site) -> None:
    """The proxy is this computer; the machine itself, by its own address, is another client."""
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
    code = (
        "import urllib.request as u\n"
        f"print(u.urlopen(u.Request('http://{site.address}/request', headers={forwarded})).read().decode())"
    )
    settings: dict[str, Any] = {"env": ENV, "secrets": SECRETS}
    proxied = site.up(url=f"http://{site.address}", trustedProxies=[f"{site.network.gateway}/32"], **settings)
    try:
        assert proxied.status == 0, proxied.error + proxied.log
        by_proxy = site.ask("/request", headers=forwarded).json()
        assert (by_proxy["scheme"], by_proxy["client"]) == ("https", "203.0.113.9")
        direct = json.loads(site.machine.run(["python3", "-c", code]).stdout)
        assert (direct["scheme"], direct["client"]) == ("http", site.address)
    finally:
        restored = site.up(**settings)
    assert restored.status == 0, restored.error + restored.log
    assert site.ask("/request", headers=forwarded).json()["scheme"] == "http"


# ------------------------------------------------------------------------------------------------ nginx itself


def test_nginx_is_the_newest_that_the_mirror_has(site: Site) -> None:
    policy = site.machine.run("apt-cache policy nginx").stdout
    versions = dict(re.findall(r"(Installed|Candidate): (\S+)", policy))
    assert versions["Installed"] == versions["Candidate"] != "(none)", policy


def test_a_site_that_nginx_refuses_is_not_installed(site: Site) -> None:
    """A name that is no name stands for a fault in our template."""
    conf = "cat /etc/decant/nginx.conf"
    before = site.machine.run(conf).stdout
    line, script = steps.provision_step(
        stack=STACK, machine="web.x", user="root", harden=False, site=HostSite(names=(site.address, "web{")),
        proxy=None, health_path=None, limits=LIMITS,
    )  # fmt: skip
    done = site.machine.run(line, input=script, check=False)
    assert done.returncode == 1
    assert "nginx refuses the new site, so the old one stays" in done.stderr, done.stderr
    assert site.machine.run(conf).stdout == before
    certificates = ["acme-root.pem", "certificate-key.pem", "certificate.pem"]
    assert site.machine.run("ls /etc/decant").stdout.split() == [*certificates, "nginx.conf", "settings.json"]
    site.machine.run("systemctl reload nginx")
    assert site.ask("/healthz").status == 200


# ------------------------------------------------------------------------------------------------ open ports


def test_nothing_but_ssh_and_nginx_answers_from_outside(site: Site) -> None:
    assert sorted(open_ports(site.address, range(1, 65536))) == [22, 80]


def test_only_nginx_reaches_the_apps_socket(site: Site) -> None:
    path = f"/run/decant/{site.live}/socket/gunicorn.sock"
    mode, *owner = site.machine.run(["stat", "-c", "%A %U %G", path]).stdout.split()
    assert (mode[-3:], owner) == ("---", ["decant", "decant"])
    listening = site.machine.run("ss -xlH | grep -c gunicorn; ss -ltnH").stdout
    assert listening.startswith("1\n"), "one gunicorn, which listens at one socket: no control socket"
    assert set(re.findall(r"LISTEN\s+\S+\s+\S+\s+\S+:(\d+)", listening)) == {"22", "80"}

    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{path}'); print('connected')"

    def as_user(name: str) -> str:
        done = site.machine.run(
            ["setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups", "python3", "-c", connect], check=False
        )
        return (done.stdout + done.stderr).strip().splitlines()[-1]

    assert as_user("www-data") == "connected"
    for other in ("games", "decant-build", "daemon"):
        assert as_user(other) == "PermissionError: [Errno 13] Permission denied"


def test_nothing_tells_its_version(site: Site) -> None:
    asked = [site.ask(path) for path in ("/", "/.env", "/static/style.css", "/no-such-page", "/?" + "x" * 9_000)]
    asked.append(site.ask("/", method="TRACE"))
    for reply in asked:
        assert reply.headers["Server"] == "nginx"
        told = f"{reply.headers}{reply.body.decode()}"
        assert not re.search(r"nginx/|gunicorn|Python|Werkzeug|Debian", told), told
