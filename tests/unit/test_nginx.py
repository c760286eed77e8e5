"""nginx's configuration: what it forwards, whom it believes, whom it answers, its limits and time-outs."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest

import decant_host
from decant.clouds import base
from decant.host import render
from tests.support import host_files, real_nginx
from tests.support.host_files import (
    BIN,
    HERE,
    HTTPS_SHAPES,
    LIMITS,
    PROXIED,
    SHAPES,
    Directive,
    parse,
    program,
)
from tests.support.in_memory import REPOSITORY

gunicorn, machine = host_files.gunicorn, host_files.machine


@pytest.fixture(params=sorted(SHAPES))
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def text(shape: str) -> str:
    return render.nginx_conf(**SHAPES[shape])


@pytest.fixture
def site(text: str) -> Directive:
    return parse(text)


def test_nginx_accepts_the_configuration(text: str, tmp_path: Path) -> None:
    """The real parser, moved to a folder and ports where it needs no root."""
    nginx = program("nginx")
    moved = real_nginx.move(text, tmp_path, 18480)
    file = tmp_path / "nginx.conf"

    def check(content: str) -> subprocess.CompletedProcess[str]:
        file.write_text(content)
        words = [nginx, "-t", "-q", "-p", str(tmp_path), "-e", str(tmp_path / "errors"), "-c", str(file)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    done = check(moved)
    assert (done.returncode, done.stderr) == (0, "")
    assert check(moved.replace("sendfile off;", "sendfile maybe;")).returncode != 0, "this check cannot fail"


# try_files without open_file_cache: the cache would go on serving the old release's files after a switch, which is one
# rename of a folder; and a look-up in a tmpfs, through one link, is what it would save.
# fit-nginx.sh takes out the groups of the key exchange that an older OpenSSL does not know. HSTS is sent where it
# cannot lock anybody out: not for an address, and not before a renewal has worked.
ACCEPTED = "try_files_is_evil_too,ssl_ecdh_curve,hsts_header"


def test_gixy_finds_no_fault(tmp_path: Path) -> None:
    """All shapes at once, and a file with a mistake in it, to prove that it would."""
    gixy = program(str(BIN / "gixy"))
    texts = {shape: render.nginx_conf(**given) for shape, given in (SHAPES | HTTPS_SHAPES).items()}
    texts["mistake"] = texts["plain"].replace("Host $host;", "Host $http_host;")
    files = {shape: tmp_path / f"{shape}.conf" for shape in texts}
    for shape, file in files.items():
        file.write_text(texts[shape].replace("/etc/nginx/mime.types", "/dev/null"))
    words = [gixy, "-f", "json", "--skips", ACCEPTED, *map(str, files.values())]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = [f for f in json.loads(done.stdout) if f["severity"] in ("MEDIUM", "HIGH")]
    assert {Path(f["file"]).stem: f["plugin"] for f in found} == {"mistake": "host_spoofing"}
    assert len(texts) > len(PROXIED) >= 2, "with and without a balancer"


FORWARDED = {
    "Connection": "close",
    "Host": "$host",
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Proto": "$public_scheme",
    "X-Request-ID": "$request_id",
    **dict.fromkeys(
        ["X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Ssl",
         "X-Forwarded-Protocol", "X-Forwarded-Scheme", "Forwarded", "Proxy"],
        "",
    ),
}  # fmt: skip


def test_every_forwarded_header_is_overwritten(site: Directive) -> None:
    (http,) = site.all("http")
    assert dict(http.own("proxy_set_header")) == FORWARDED
    assert not list(site.all("proxy_pass_request_headers"))
    assert not list(site.all("underscores_in_headers")), "off by default: X_Forwarded_For is dropped"


def test_the_sites_pages_inherit_the_forwarded_headers(site: Directive) -> None:
    """nginx inherits proxy_set_header only into a level that sets none of its own."""
    _, own = [one for one in site.all("server") if one.inner]
    assert {one.words[-1] for one in own.all("location") if one.own("proxy_set_header")} <= {
        "@websocket", "@check", "@check_front_page",
    }  # fmt: skip
    assert not own.own("proxy_set_header")


def test_every_level_that_sets_a_forwarded_header_sets_them_all(shape: str, site: Directive) -> None:
    """A location that sets one header inherits none: nginx would pass a client's own X-Forwarded-For on from there."""
    check = {"Host": SHAPES[shape]["site"].names[0], "X-Forwarded-Proto": SHAPES[shape]["site"].scheme}
    own = {
        "@websocket": {"Connection": "upgrade", "Upgrade": "websocket"},
        "@check": check,
        "@check_front_page": check,
    }
    setting = [one for one in site.all("location") if one.own("proxy_set_header")]
    for location in setting:
        given = location.own("proxy_set_header")
        assert len(given) == len(dict(given)), location.words
        assert dict(given) == {**FORWARDED, **own[location.words[-1]]}, location.words
    checks = ["@check"] + ["@check_front_page"] * (SHAPES[shape]["health_path"] is None)
    wanted = [*checks, "@websocket", *checks] if shape in PROXIED else ["@websocket"]
    assert [one.words[-1] for one in setting] == wanted


def mapping(site: Directive, variable: str) -> tuple[str, dict[str, str]]:
    """What a variable is made from, and its table."""
    (one,) = [m for m in site.all("map") if m.words[2] == variable]
    return one.words[1], dict(d.words for d in one.inner)


def test_forwarded_headers_are_believed_only_from_the_proxy(shape: str, site: Directive) -> None:
    proxy = SHAPES[shape]["proxy"]
    trusted = [one.words[1] for one in site.all("set_real_ip_from")]
    assert trusted == (list(proxy.networks) if proxy else [])
    source, table = mapping(site, "$public_scheme")
    if proxy and proxy.trusts_forwarded_proto:
        assert source == "$says_scheme:$http_x_forwarded_proto"
        assert table == {"default": "$scheme", "1:https": "https", "1:http": "http"}
    else:
        assert (source, table) == ("$scheme", {"default": "$scheme"})
    assert [one.words[1:] for one in site.all("real_ip_header")] == ([["X-Forwarded-For"]] if proxy else [])
    assert [one.words[1:] for one in site.all("real_ip_recursive")] == ([["on"]] if proxy else [])
    peers = {one.words[2]: [d.words for d in one.inner] for one in site.all("geo")}
    assert {one.words[1] for one in site.all("geo")} <= {"$realip_remote_addr"}, "not the address that the peer names"
    wanted = {"$from_proxy": [["default", "0"], *[[n, "1"] for n in trusted]]} if proxy else {}
    if proxy and proxy.trusts_forwarded_proto:
        wanted["$says_scheme"] = [["default", "0"], ["127.0.0.1", "1"], *[[n, "1"] for n in trusted]]
    assert peers == wanted
    if not proxy:
        read = {word for d in site.all("map") for word in [*d.words, *(w for one in d.inner for w in one.words)]}
        assert {word for word in read if "$http_" in word} == {"$http_x_decant_probe", "$request_method:$http_upgrade"}


# ------------------------------------------------------------------------------------------------ balancers


def health_locations(site: Directive) -> list[Directive]:
    """The exact-match locations, of strangers' names first."""
    return [one for one in site.all("location") if one.words[1] == "="]


def test_only_the_sites_names_are_answered(shape: str, site: Directive) -> None:
    stranger, own = [one for one in site.all("server") if one.inner]  # without those of the upstream
    assert stranger.own("server_name") == [["_"]]
    assert [listen[-1] for listen in stranger.own("listen")] == ["default_server", "default_server"]
    last = [one for one in stranger.all("location") if one.words[1:] == ["/"]]
    # A balancer makes a 502 of no answer, and its alarms count those.
    status = "404" if shape in PROXIED else "444"
    assert [one.own("return") for one in last] == [[[status]]]
    assert own.own("server_name") == [list(SHAPES[shape]["site"].names)]
    assert own.own("listen") == [["80"], ["[::]:80"]]
    health = [one for one in stranger.all("location") if one.words[1] == "="]
    if shape not in PROXIED:
        assert not health_locations(site)
        return
    (location,) = health
    path = "/" if SHAPES[shape]["health_path"] == "/" else "/healthz"
    assert location.words[1:] == ["=", path], "without the query, which is no part of a location"
    assert location.own("return") == [["404"]], "but for the balancer"


def test_health_checks_may_send_any_name(shape: str, site: Directive) -> None:
    """Clouds differ in what Host they send; the site's own name is one of them."""
    path = (SHAPES[shape]["health_path"] or "/healthz").partition("?")[0]
    assert [one.words[2] for one in health_locations(site)] == ([path, path] if shape in PROXIED else [])
    for location in health_locations(site):
        (asks,) = [one for one in location.inner if one.words[0] == "if"]
        assert (asks.words[1:], [d.words for d in asks.inner]) == (["($balancer_asks)"], [["return", "418"]])
        assert ["418", "=", "@check"] in location.own("error_page")


def test_only_the_balancer_itself_asks_for_its_health_checks(shape: str, site: Directive) -> None:
    if shape in PROXIED:
        source, table = mapping(site, "$balancer_asks")
        assert source == "$from_proxy:$http_x_forwarded_for"
        assert table == {"default": "0", "1:": "1"}, "from the balancer itself, on nobody's behalf"
    else:
        assert "$balancer_asks" not in str(site)


def test_a_machine_out_of_rotation_fails_only_the_balancers_own_checks(shape: str, site: Directive) -> None:
    asking = [one for one in site.all("location") if "/run/decant/open" in str(one)]
    assert [one.words[-1] for one in asking] == ["@check"] * 2 * (shape in PROXIED)
    for location in asking:
        (closed,) = [one for one in location.inner if one.words[0] == "if"]
        assert closed.words[1:] == ["(!-e", "/run/decant/open)"]
        assert [d.words for d in closed.inner] == [["return", "503"]]


def test_nothing_but_a_return_is_in_an_if(site: Directive) -> None:
    """Nothing else is safe inside an `if` of a location."""
    assert {d.words[0] for one in site.all("if") for d in one.inner} == {"return"}


BELOW_500 = [str(n) for n in (*range(300, 304), 305, 306, 307, 308, *range(400, 432), 451)]


def test_an_app_without_a_health_path_is_judged_by_its_front_page(shape: str, site: Directive) -> None:
    falls_back = shape in PROXIED and SHAPES[shape]["health_path"] is None
    found = {one.words[-1]: one for one in site.all("location") if one.words[-1].startswith("@")}
    if not falls_back:
        assert not {"@check_front_page", "@healthy"} & set(found)
        assert not list(site.all("proxy_intercept_errors"))
        return
    assert found["@check_front_page"].own("rewrite") == [["^", "/", "break"]]
    assert found["@check_front_page"].own("error_page") == [[*BELOW_500, "=", "@healthy"]]
    assert found["@check"].own("error_page") == [[*BELOW_500, "=", "@check_front_page"]]
    assert found["@healthy"].own("return") == [["200"]]
    assert len(list(site.all("proxy_intercept_errors"))) == 4, "visitors get the app's own answers"


def test_the_file_that_puts_a_machine_in_rotation_is_the_one_that_its_program_makes(text: str, shape: str) -> None:
    modules = [path.read_text() for path in Path(decant_host.__file__).parent.glob("*.py")]
    assert any('RUN = Path("/run/decant")' in module and 'RUN / "open"' in module for module in modules)
    assert text.count("/run/decant/open") == (2 if shape in PROXIED else 0)


def test_only_a_probe_is_told_which_machine_answered(shape: str, site: Directive) -> None:
    source, table = mapping(site, "$asked_machine")
    assert (source, table) == ("$http_x_decant_probe", {"default": "", "1": "web-2"})
    telling = [
        one for one in site.all("location") if one.own("add_header") and "X-Machine" in str(one.own("add_header"))
    ]
    stranger, own = [one for one in site.all("server") if one.inner]
    assert all(one in list(own.all("location")) for one in telling), "strangers are told nothing"
    for location in telling:
        assert location.own("add_header") == [["X-Machine", "$asked_machine", "always"]], "nginx omits an empty header"
    health = [one for one in own.all("location") if one.words[1] == "="]
    page = next(one for one in own.all("location") if one.words[1:] == ["/"])
    named = [one for one in own.all("location") if one.words[1] in ("@websocket", "@before", "@app")]
    assert telling == [page, *named[:2], *health, named[2]]
    assert not stranger.own("add_header")


def test_a_machines_name_is_quoted() -> None:
    """In the text, because the parser above takes the quotes away: nginx reads an unquoted `a;b` as two words."""
    text = render.nginx_conf(**{**SHAPES["plain"], "machine": "a.b_c-d:1"})
    assert '"1" "a.b_c-d:1";' in text


def seconds(value: str) -> int:
    assert value.endswith("s")
    return int(value[:-1])


def test_the_ladder_of_timeouts(shape: str, site: Directive, gunicorn: dict[str, Any]) -> None:
    """Each level waits longer than the one behind it; else a slow answer becomes a 502 that hides its cause."""
    (http,) = site.all("http")

    def of(name: str) -> int:
        ((value,),) = http.own(name)
        return seconds(value)

    assert of("proxy_read_timeout") == of("proxy_send_timeout") == 30 < gunicorn["timeout"]
    assert of("proxy_connect_timeout") == 5
    proxy = SHAPES[shape]["proxy"]
    if proxy:
        assert of("keepalive_timeout") == proxy.idle_timeout + 15, "a balancer must not find its connection closed"
    else:
        assert of("keepalive_timeout") == 15
    # systemd counts for each ExecStop= anew.
    assert re.findall(r"TimeoutStopSec=(\d+)", render.stop_timeout_conf(LIMITS)) == ["40"]
    assert base.DRAIN_SECONDS == 2 * 10 + 5 < 40
    unit = (HERE / "systemd" / "app@.service").read_text()
    assert "TimeoutStopSec=" not in unit.replace("has TimeoutStopSec=.", "")
    start = int(re.search(r"^TimeoutStartSec=(\d+)$", unit, re.MULTILINE)[1])  # type: ignore[index]
    assert start > 300, "decant:healthTimeout may be 300"


@pytest.mark.parametrize(("request_timeout", "max_body"), [(1, 1024), (3600, 100 << 30)])
def test_the_settings_limits_are_nginxs(request_timeout: int, max_body: int) -> None:
    limits = render.Limits(request_timeout=request_timeout, max_body=max_body)
    (http,) = parse(render.nginx_conf(**{**SHAPES["plain"], "limits": limits})).all("http")
    assert http.own("proxy_read_timeout") == http.own("proxy_send_timeout") == [[f"{request_timeout}s"]]
    assert http.own("client_max_body_size") == [[str(max_body)]]


def test_the_largest_body_is_the_apps(site: Directive) -> None:
    spec = importlib.util.spec_from_file_location("hello_config", REPOSITORY / "app" / "hello" / "config.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (http,) = site.all("http")
    ((size,),) = http.own("client_max_body_size")
    assert int(size) == module.from_environ({})["MAX_CONTENT_LENGTH"]


def test_the_longest_request_line_passes_nginx_and_gunicorn_alike(site: Directive, gunicorn: dict[str, Any]) -> None:
    (buffers,) = site.all("large_client_header_buffers")
    assert buffers.words[1:] == ["4", "8k"]
    assert gunicorn["limit_request_line"] >= 8190


def test_the_switch_is_one_rename(site: Directive) -> None:
    assert {one.words[1]: [d.words for d in one.inner] for one in site.all("upstream")} == {
        "live": [["server", "unix:/run/decant/current/socket/gunicorn.sock"]],
        "before": [["server", "unix:/run/decant/previous/socket/gunicorn.sock"]],
    }
    assert not list(site.all("open_file_cache"))
    assert {one.words[1] for one in site.all("proxy_pass")} == {"http://live", "http://before"}
    assert {one.words[1] for one in site.all("root")} == {"/run/decant/current", "/run/decant/previous"}


def test_hidden_files_of_the_static_folder_are_not_served(site: Directive) -> None:
    """By nobody: Flask would serve them, too. Other paths are the app's."""
    (hidden,) = [one for one in site.all("location") if one.words[1] == "~"]
    (static,) = [one for one in site.all("location") if one.words[1] == "/static/"]
    assert hidden in static.inner
    assert hidden.own("return") == [["404"]]
    for path, found in (("/static/.env", True), ("/static/.git/config", True), ("/static/a/.htpasswd", True),
                        ("/static/a.b/c.d", False), ("/static/.well-known/security.txt", False),
                        ("/static/.well-knownx", True)):  # fmt: skip
        assert bool(re.search(hidden.words[2], path)) == found, path


def test_a_template_that_misses_a_value_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """jinja2 would otherwise write nothing in its place."""
    (tmp_path / "nginx").mkdir()
    monkeypatch.setattr(render, "HERE", tmp_path)
    template = tmp_path / "nginx" / "nginx.conf.j2"
    template.write_text("{{ machine }}")
    assert render.nginx_conf(**SHAPES["plain"]) == "web-2"
    template.write_text("{{ machien }}")
    with pytest.raises(jinja2.UndefinedError, match="machien"):
        render.nginx_conf(**SHAPES["plain"])


@pytest.mark.parametrize(
    ("address", "name"),
    [("203.0.113.7", "203.0.113.7"), ("2001:db8::7", "[2001:db8::7]"), ("Server.Example.com", "server.example.com")],
)
def test_an_address_as_a_server_name(address: str, name: str) -> None:
    assert render.server_name(address) == name


# ------------------------------------------------------------------------------------------------ limits and time-outs

# Every directive at the level of `http` that holds no block, but proxy_set_header, which has a test of its own.
HTTP = {
    "include": ["/etc/nginx/mime.types"],
    "default_type": ["application/octet-stream"],
    "server_tokens": ["off"],
    "sendfile": ["off"],
    "access_log": ["off"],
    "client_header_timeout": ["10s"],
    "client_body_timeout": ["15s"],
    "send_timeout": ["15s"],
    "reset_timedout_connection": ["on"],
    "client_max_body_size": ["16777216"],
    "recursive_error_pages": ["on"],
    "large_client_header_buffers": ["4", "8k"],
    "server_names_hash_bucket_size": ["512"],
    "gzip_comp_level": ["5"],
    "gzip_min_length": ["256"],
    "gzip_vary": ["on"],
    "gzip_types": ["text/css", "text/javascript", "application/javascript", "application/json", "image/svg+xml",
                   "application/manifest+json"],
    "limit_req_zone": ["$binary_remote_addr", "zone=requests:10m", "rate=50r/s"],
    "limit_conn_zone": ["$binary_remote_addr", "zone=connections:10m"],
    "limit_req": ["zone=requests", "burst=200", "nodelay"],
    "limit_conn": ["connections", "50"],
    "limit_req_status": ["429"],
    "limit_conn_status": ["429"],
    "limit_req_log_level": ["info"],
    "limit_conn_log_level": ["info"],
    "limit_req_dry_run": ["on"],
    "limit_conn_dry_run": ["on"],
    "proxy_http_version": ["1.1"],
    "proxy_connect_timeout": ["5s"],
    "proxy_send_timeout": ["30s"],
    "proxy_read_timeout": ["30s"],
    "proxy_buffer_size": ["36k"],
    "proxy_buffers": ["8", "16k"],
}  # fmt: skip
ELSEWHERE = ("proxy_set_header", "set_real_ip_from", "real_ip_header", "real_ip_recursive", "keepalive_timeout")


def test_limits_and_time_outs_are_these(site: Directive) -> None:
    """A line that is missing has a default that serves as well, until the day that it is needed for."""
    (http,) = site.all("http")
    simple = [d.words for d in http.inner if not d.inner and d.words[0] not in (*ELSEWHERE, "log_format")]
    assert {name: arguments for name, *arguments in simple} == HTTP
    assert len(simple) == len(HTTP), "each once"


def test_no_location_changes_a_limit(site: Directive) -> None:
    """But one: a WebSocket may be silent for an hour."""
    changes = [(where.words[-1], d.words[0], *d.words[1:]) for where in site.all("location") for d in where.inner
               if d.words[0] in HTTP]  # fmt: skip
    assert changes == [
        ("@websocket", "proxy_read_timeout", "3600s"),
        ("@websocket", "proxy_send_timeout", "3600s"),
    ]
    for server in site.all("server"):
        given = [d.words for d in server.inner if d.words[0] in HTTP]
        assert given in ([], [["access_log", "/var/log/nginx/access.log", "decant"]])


def test_a_websocket_is_a_handshake_and_nothing_else_that_asks_for_another_protocol(site: Directive) -> None:
    source, table = mapping(site, "$websocket")
    assert (source, table) == ("$request_method:$http_upgrade", {"default": "0", "GET:websocket": "1"})
    (page,) = [one for one in site.all("location") if one.words[1:] == ["/"] and one.own("proxy_pass")]
    (asks,) = [one for one in page.inner if one.words[0] == "if"]
    assert (asks.words[1:], [d.words for d in asks.inner]) == (["($websocket)"], [["return", "418"]])
    assert page.own("error_page") == [["502", "=", "@before"], ["418", "=", "@websocket"]]


def test_the_process_has_room_for_its_connections(site: Directive) -> None:
    (events,) = site.all("events")
    (connections,) = [int(d.words[1]) for d in events.inner if d.words[0] == "worker_connections"]
    (descriptors,) = [int(d.words[1]) for d in site.all("worker_rlimit_nofile")]
    assert (connections, descriptors) == (8192, 16384)
    assert descriptors >= 2 * connections, "a proxied request takes two"
    assert site.own("user") == [["www-data"]]
    assert site.own("worker_processes") == [["auto"]]


def test_the_process_is_the_one_that_systemd_and_logrotate_know(site: Directive) -> None:
    """Debian's unit waits for that PID file, and its logrotate rotates /var/log/nginx/*.log."""
    simple = [d.words for d in site.inner if not d.inner]
    assert simple == [
        ["user", "www-data"], ["worker_processes", "auto"], ["worker_rlimit_nofile", "16384"],
        ["worker_shutdown_timeout", "3600s"], ["pid", "/run/nginx.pid"], ["error_log", "/var/log/nginx/error.log"],
    ]  # fmt: skip


def test_the_log_shows_what_a_limit_would_do(text: str, site: Directive) -> None:
    """And who asked, by way of whom, what the app took for it and which release answered."""
    (lines,) = re.findall(r"log_format decant ([^;]*);", text)
    assert "".join(re.findall("'([^']*)'", lines)) == (
        '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" '
        '"$http_user_agent" id=$request_id peer=$realip_remote_addr host=$host '
        "upstream=$upstream_status time=$request_time/$upstream_response_time "
        "release=$upstream_http_x_release limit=$limit_req_status/$limit_conn_status"
    )
    _, own = [one for one in site.all("server") if one.inner]
    assert own.own("access_log") == [["/var/log/nginx/access.log", "decant"]]


def test_only_static_files_are_compressed(site: Directive) -> None:
    """A compressed page that reflects input gives away the secrets on it (BREACH)."""
    compressed = [one.words[1] for one in site.all("location") if ["on"] in one.own("gzip")]
    assert compressed == ["/static/", "@previous_static"]
    assert len(list(site.all("gzip"))) == len(compressed), "nor at any other level"


def test_static_files_are_the_live_releases_then_the_previous_ones_then_the_apps(site: Directive) -> None:
    found = {one.words[-1]: one for one in site.all("location")}
    for name, root, otherwise in (
        ("/static/", "/run/decant/current", "@previous_static"),
        ("@previous_static", "/run/decant/previous", "@app"),
    ):
        assert found[name].own("root") == [[root]]
        assert found[name].own("try_files") == [["$uri", otherwise]]
        assert found[name].own("disable_symlinks") == [["if_not_owner"]]
        # A level that adds one header inherits none, and the app does not answer here.
        assert found[name].own("add_header") == [
            ["Cache-Control", "$static_cache"],
            ["X-Content-Type-Options", "nosniff", "always"],
        ]
    assert found["@app"].own("proxy_pass") == [["http://live"]]
    assert mapping(site, "$static_cache") == ("$arg_v", {
        "default": "public, max-age=31536000, immutable", "": "no-cache",
    })  # fmt: skip
