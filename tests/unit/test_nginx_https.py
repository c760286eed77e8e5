"""HTTPS by the real nginx: which names get a certificate, what moves to HTTPS, and what a renewal needs."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decant.host import render
from decant_host import paths
from tests.support.certificates import Authority
from tests.support.host_files import BY_NAME, HTTPS_SHAPES, program
from tests.support.real_nginx import Nginx, move, reply, running
from tests.support.waiting import wait_for

SITE, OTHER, ADDRESS = "www.example.com", "example.com", "203.0.113.7"
Start = Callable[..., Nginx]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start nginx with the configuration of a machine that gets HTTPS by itself, and an app behind it."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def run(shape: str = "https", **changes: Any) -> Nginx:
            nginx = stack.enter_context(running(render.nginx_conf(**{**HTTPS_SHAPES[shape], **changes}), folder))
            nginx.release("current", tell_head)
            return nginx

        yield run


def tell_head(sock: socket.socket, request: bytes) -> None:
    reply(request.partition(b"\r\n\r\n")[0].decode())(sock, request)


def install(nginx: Nginx, issued: Any, serial: str = "1") -> None:
    """Put a certificate where decant-host does, by renaming a link."""
    tls = nginx.folder / "lib" / "tls"
    issued.write(tls / serial)
    (tls / "next").symlink_to(serial)
    (tls / "next").rename(tls / "live")


def handshake(
    nginx: Nginx, authority: Authority, name: str | None = SITE, *, verify: str | None = None, **options: Any
) -> ssl.SSLSocket:
    """A verified TLS connection. `name` is sent as SNI, None sends none; `verify` is the name or address to check."""
    context = ssl.create_default_context(cadata=authority.root)
    context.check_hostname = False
    if alpn := options.pop("alpn", None):
        context.set_alpn_protocols(alpn)
    for option, value in options.items():
        setattr(context, option, value)
    sock = context.wrap_socket(socket.create_connection(("127.0.0.1", nginx.tls_port), 10), server_hostname=name)
    certificate = sock.getpeercert()
    assert certificate
    names = {entry[1] for entry in certificate["subjectAltName"]}
    assert (verify or name) in names
    return sock


def ask(nginx: Nginx, authority: Authority, path: str, *, sni: str | None = SITE, **more: str) -> str:
    """One request over TLS; the whole answer."""
    host, headers = more.get("host", sni or ADDRESS), more.get("headers", "")
    with handshake(nginx, authority, sni, verify=more.get("verify")) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n".encode())
        received = b""
        while part := sock.recv(65536):
            received += part
    return received.decode()


def location(answer: bytes | str) -> tuple[int, str]:
    """The status of an answer and where it leads to."""
    head = answer.decode() if isinstance(answer, bytes) else answer
    lines = head.partition("\r\n\r\n")[0].split("\r\n")
    return int(lines[0].split()[1]), next((line[10:] for line in lines if line.startswith("Location: ")), "")


# ------------------------------------------------------------------------------------------------ before and after


@pytest.mark.parametrize("shape", sorted(HTTPS_SHAPES))
def test_nginx_takes_the_configuration(shape: str, tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text(move(render.nginx_conf(**HTTPS_SHAPES[shape]), tmp_path, 18480))
    words = [program("nginx"), "-t", "-q", "-p", str(tmp_path), "-e", str(tmp_path / "errors"), "-c", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_paths_are_those_of_the_machines_program() -> None:
    text = render.nginx_conf(**HTTPS_SHAPES["https"])
    assert f"default {paths.LIVE_CERTIFICATE};" in text
    assert f"if (-e {paths.LIVE_CERTIFICATE}/fullchain.pem)" in text
    assert f"if (-e {paths.HSTS})" in text


def test_without_a_certificate_http_serves_and_handshakes_are_refused(start: Start, authority: Authority) -> None:
    nginx = start()
    assert nginx.status("/page", host=SITE) == 200
    assert nginx.status("/page", host=ADDRESS.replace("203.0.113.7", "10.0.0.7")) == 200
    assert location(nginx.ask("/a?b=c", host=OTHER)) == (308, f"http://{SITE}/a?b=c")
    with pytest.raises(ssl.SSLError, match=r"ALERT_INTERNAL_ERROR|alert internal error"):
        handshake(nginx, authority)


def test_with_a_certificate_http_leads_to_https_with_path_and_query(start: Start, authority: Authority) -> None:
    """Without a reload of nginx: from the moment when the link is there."""
    nginx = start()
    assert nginx.status("/", host=SITE) == 200
    install(nginx, authority.issue(SITE, OTHER))
    for host in (SITE, "10.0.0.7", OTHER):
        assert location(nginx.ask("/a/b?c=d%20e&f", host=host)) == (308, f"https://{SITE}/a/b?c=d%20e&f"), host
    assert location(nginx.ask("/a", host=SITE, method="POST", body="x")) == (308, f"https://{SITE}/a")
    answer = ask(nginx, authority, "/a?b")
    assert answer.startswith("HTTP/1.1 200 ")
    assert "\r\nX-Forwarded-Proto: https\r\n" in answer
    assert location(ask(nginx, authority, "/a?b=c", sni=OTHER)) == (308, f"https://{SITE}/a?b=c")


def test_the_name_of_a_tunnel_stays_on_http(start: Start, authority: Authority) -> None:
    nginx = start()
    install(nginx, authority.issue(SITE))
    assert nginx.status("/", host="localhost") == 200


def test_a_renewed_certificate_is_served_without_a_reload(start: Start, authority: Authority) -> None:
    nginx = start()

    def served() -> str:
        with handshake(nginx, authority) as sock:
            return str((sock.getpeercert() or {})["serialNumber"])

    install(nginx, authority.issue(SITE), "1")
    first = served()
    install(nginx, authority.issue(SITE), "2")
    # nginx 1.27.4 and newer keep a certificate for ten seconds.
    wait_for(lambda: served() != first, "the renewed certificate", timeout=15)


def test_the_challenges_are_answered_over_http_before_and_after(start: Start, authority: Authority) -> None:
    nginx = start()
    folder = nginx.folder / "lib" / "acme" / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True)
    (folder / "token-1").write_text("answer-1")
    for _ in range(2):
        for host in (SITE, OTHER):
            assert nginx.ask("/.well-known/acme-challenge/token-1", host=host).endswith(b"\r\n\r\nanswer-1")
            assert nginx.status("/.well-known/acme-challenge/other", host=host) == 404
        install(nginx, authority.issue(SITE, OTHER))
    assert location(nginx.ask("/.well-known/x", host=SITE))[0] == 308, "the challenges alone are an exception"
    assert nginx.runs == []


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["stranger.example", None])
def test_an_unknown_name_gets_no_certificate(start: Start, authority: Authority, name: str | None) -> None:
    nginx = start()
    install(nginx, authority.issue(SITE, OTHER))
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        handshake(nginx, authority, name)
    assert nginx.status("/", host="stranger.example") == 444


def test_a_stranger_in_the_host_header_is_not_answered_by_the_app(start: Start, authority: Authority) -> None:
    nginx = start()
    install(nginx, authority.issue(SITE, OTHER))
    assert location(ask(nginx, authority, "/", host="evil.example") or "HTTP/1.1 444")[0] in (421, 444)
    assert nginx.runs == []


def test_a_certificate_for_an_address_serves_both_schemes(start: Start, authority: Authority) -> None:
    """Browsers send no SNI for an address. Nothing is redirected, and nothing is kept by HSTS."""
    nginx = start("https-address")
    install(nginx, authority.issue(ADDRESS))
    (nginx.folder / "lib" / "tls" / "hsts").touch()
    assert nginx.status("/", host=ADDRESS) == 200
    answer = ask(nginx, authority, "/", sni=None, verify=ADDRESS)
    assert answer.startswith("HTTP/1.1 200 ")
    assert "\r\nX-Forwarded-Proto: https\r\n" in answer
    assert "Strict-Transport-Security" not in answer
    assert ask(nginx, authority, "/", sni=None, verify=ADDRESS, host="evil.example") == ""
    with pytest.raises(ssl.SSLError):
        handshake(nginx, authority, "stranger.example")


def test_clients_that_name_the_address_in_their_handshake_are_served() -> None:
    """RFC 6066 allows no addresses there, and some clients send them all the same. Python's does not."""
    text = render.nginx_conf(**HTTPS_SHAPES["https-address"])
    assert f'"{ADDRESS}" {paths.LIVE_CERTIFICATE};' in text


# ------------------------------------------------------------------------------------------------ headers, protocols


@pytest.mark.parametrize("claimed", ["http", "https", "wss"])
def test_a_forged_scheme_changes_nothing(start: Start, authority: Authority, claimed: str) -> None:
    nginx = start()
    forged = f"X-Forwarded-Proto: {claimed}\r\nX-Forwarded-Ssl: on\r\nForwarded: proto={claimed}\r\n"
    assert b"\r\nX-Forwarded-Proto: http\r\n" in nginx.ask("/", host=SITE, headers=forged)
    install(nginx, authority.issue(SITE))
    answer = ask(nginx, authority, "/", headers=forged)
    assert "\r\nX-Forwarded-Proto: https\r\n" in answer
    assert "X-Forwarded-Ssl" not in answer
    assert "Forwarded: proto" not in answer


def test_hsts_is_sent_once_the_machine_says_so_and_over_https_alone(start: Start, authority: Authority) -> None:
    nginx = start()
    install(nginx, authority.issue(SITE))
    assert "Strict-Transport-Security" not in ask(nginx, authority, "/")
    (nginx.folder / "lib" / "tls" / "hsts").touch()
    assert "\r\nStrict-Transport-Security: max-age=63072000\r\n" in ask(nginx, authority, "/")
    assert b"Strict-Transport-Security" not in nginx.ask("/", host="localhost")
    static = nginx.folder / "run" / "release-current" / "static"
    static.mkdir()
    (static / "a.css").write_text("a")
    answer = ask(nginx, authority, "/static/a.css")
    assert "\r\nStrict-Transport-Security: max-age=63072000\r\n" in answer
    assert "\r\nCache-Control: no-cache\r\n" in answer


def test_an_app_keeps_its_own_hsts(start: Start, authority: Authority) -> None:
    nginx = start()
    install(nginx, authority.issue(SITE))
    (nginx.folder / "lib" / "tls" / "hsts").touch()
    (nginx.folder / "run" / "current").unlink()
    (nginx.folder / "run" / "release-current").rename(nginx.folder / "run" / "gone")
    nginx.release("current", reply("x", "200 OK", "Strict-Transport-Security: max-age=60"))
    lines = ask(nginx, authority, "/").split("\r\n")
    assert [line for line in lines if line.startswith("Strict")] == ["Strict-Transport-Security: max-age=60"]


@pytest.mark.parametrize(("wanted", "sent"), [(None, "once-renewed"), (True, "once-renewed"), (False, "")])
def test_the_setting_hsts_decides_whether_the_header_is_there(wanted: bool | None, sent: str) -> None:
    given = HTTPS_SHAPES["https"]
    site = replace(given["site"], https={**BY_NAME, "hsts": wanted})
    assert ("Strict-Transport-Security" in render.nginx_conf(**{**given, "site": site})) == bool(sent)


def test_behind_a_balancer_hsts_is_the_settings_alone() -> None:
    given = HTTPS_SHAPES["https-proxied"]
    assert 'set $hsts "max-age=63072000";' in render.nginx_conf(**given)
    for change in ({"hsts": False}, {"scheme": "http"}):
        assert "Strict" not in render.nginx_conf(**{**given, "site": replace(given["site"], **change)})


def test_other_names_behind_a_balancer_lead_to_the_sites_own() -> None:
    text = render.nginx_conf(**HTTPS_SHAPES["https-proxied"])
    assert f"return 308 https://{SITE}$request_uri;" in text
    assert "listen 443" not in text


def test_http_2_is_offered_and_old_protocols_are_not(start: Start, authority: Authority) -> None:
    nginx = start()
    install(nginx, authority.issue(SITE))
    with handshake(nginx, authority, alpn=["h2", "http/1.1"]) as sock:
        assert sock.selected_alpn_protocol() == "h2"
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with handshake(nginx, authority, maximum_version=version, minimum_version=version) as sock:
            assert sock.version() == version.name.replace("v1_", "v1.")
    text = render.nginx_conf(**HTTPS_SHAPES["https"])
    assert "    ssl_protocols TLSv1.2 TLSv1.3;\n" in text
    assert "    ssl_ecdh_curve X25519MLKEM768:X25519:prime256v1:secp384r1;\n" in text
    assert "    ssl_session_tickets off;\n" in text


def test_a_session_is_resumed_after_a_renewal(start: Start, authority: Authority) -> None:
    nginx = start()
    install(nginx, authority.issue(SITE))
    context = ssl.create_default_context(cadata=authority.root)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its session is known right after the handshake

    def connect(session: ssl.SSLSession | None) -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", nginx.tls_port), 10)
        return context.wrap_socket(sock, server_hostname=SITE, session=session)

    with connect(None) as first:
        session = first.session
    install(nginx, authority.issue(SITE), "2")
    with connect(session) as second:
        assert second.session_reused
