"""What lands on machines: nginx site, units, firewall, scripts and gunicorn settings, each by its own checker."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant import clouds, host, session
from tests.unit.paper import REPOSITORY, carried

HERE = REPOSITORY / "infra" / "decant" / "host"
BIN = Path(sys.executable).parent
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def program(name: str) -> str:
    """A checker's path; the test is skipped, and says why, where it is not installed."""
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        pytest.skip(f"{name} is not installed on this computer")
    return found


# ------------------------------------------------------------------------------------------------ nginx

OWN = host.Proxy(networks=("10.0.0.5/32", "fd00::/8"), tells_scheme=True, noticed=25)  # a proxy of the user's
CLOUDS = host.Proxy(networks=("10.110.0.0/20",), tells_scheme=False, noticed=25)  # a balancer that takes HTTP alone
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"names": ["203.0.113.7"], "proxy": None, "health_path": "/healthz"},
    "ipv6": {"names": ["[2001:db8::7]"], "proxy": None, "health_path": "/healthz"},
    "url": {"names": ["www.example.com", "10.0.0.7"], "proxy": None, "health_path": "/up"},
    "proxied": {"names": ["www.example.com", "10.0.0.7"], "proxy": OWN, "health_path": "/healthz?deep=1"},
    "balanced": {"names": ["203.0.113.7"], "proxy": CLOUDS, "health_path": None},
    "front-page": {"names": ["203.0.113.7"], "proxy": CLOUDS, "health_path": "/"},
}
SHAPES = {shape: {"machine": "web-2", **given} for shape, given in SHAPES.items()}
PROXIED = {shape for shape, given in SHAPES.items() if given["proxy"]}


@dataclass
class Directive:
    """A line of nginx's configuration, with those inside its braces."""

    words: list[str]
    inner: list[Directive] = field(default_factory=list)

    def all(self, name: str) -> Iterator[Directive]:
        """Every directive of that name, at any depth."""
        for one in self.inner:
            if one.words[0] == name:
                yield one
            yield from one.all(name)

    def own(self, name: str) -> list[list[str]]:
        """The arguments of the directives of that name at this level."""
        return [one.words[1:] for one in self.inner if one.words[0] == name]


def parse(text: str) -> Directive:
    """nginx's grammar: words, quoted words, braces, semicolons, comments."""
    tokens = re.findall(r"""\s*(?:\#[^\n]*|("(?:\\.|[^"])*"|'(?:\\.|[^'])*'|[{};]|[^\s;{}'"]+))""", text)
    root = Directive(words=["root"])
    open_blocks, words = [root], list[str]()
    for token in filter(None, tokens):
        if token == "}":
            open_blocks.pop()
        elif token in ("{", ";"):
            made = Directive(words=words)
            open_blocks[-1].inner.append(made)
            words = []
            if token == "{":
                open_blocks.append(made)
        else:
            words.append(token.strip("\"'"))
    assert open_blocks == [root]
    assert not words
    return root


@pytest.fixture(params=sorted(SHAPES))
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def text(shape: str) -> str:
    return host.nginx_conf(**SHAPES[shape])


@pytest.fixture
def site(text: str) -> Directive:
    return parse(text)


def test_nginx_takes_it(text: str, tmp_path: Path) -> None:
    """The real parser, moved to a folder and ports where it needs no root."""
    nginx = program("nginx")
    (tmp_path / "mime.types").write_text("types { text/css css; }\n")
    temporary = "".join(f"{p}_temp_path {tmp_path}/{p};" for p in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    moved = text.replace("/etc/nginx/mime.types", f"{tmp_path}/mime.types").replace("/run/nginx.pid", f"{tmp_path}/pid")
    moved = moved.replace("/var/log/nginx", str(tmp_path)).replace("http {", "http {" + temporary, 1)
    moved, ports = re.subn(r"listen (\[::\]:)?80\b", r"listen \g<1>18480", moved)
    assert ports == 4
    if not Path("/proc/net/if_inet6").exists():
        moved = re.sub(r"listen \[::\]:[^;]*;", "", moved)
    if os.geteuid() != 0:
        moved = moved.replace("user www-data;", "")
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
ACCEPTED = "try_files_is_evil_too"
# A closed machine's 503 comes before allow and deny, but only to those whom they would let in: see `$must_exist`.
CLOSED = ("return_bypasses_allow_deny", "return 503")


def accepted(finding: dict[str, Any]) -> bool:
    return bool(
        finding["plugin"] == CLOSED[0] and finding["config"].count("return") == finding["config"].count(CLOSED[1])
    )


def test_gixy_finds_nothing(tmp_path: Path) -> None:
    """All shapes at once, and a file with a mistake in it, to prove that it would."""
    gixy = program(str(BIN / "gixy"))
    texts = {shape: host.nginx_conf(**given) for shape, given in SHAPES.items()}
    texts["mistake"] = texts["plain"].replace("Host $host;", "Host $http_host;")
    texts["bypass"] = texts["balanced"].replace("return 503", "return 500")
    files = {shape: tmp_path / f"{shape}.conf" for shape in texts}
    for shape, file in files.items():
        file.write_text(texts[shape].replace("/etc/nginx/mime.types", "/dev/null"))
    words = [gixy, "-f", "json", "--skips", ACCEPTED, *map(str, files.values())]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = [f for f in json.loads(done.stdout) if f["severity"] in ("MEDIUM", "HIGH") and not accepted(f)]
    assert {Path(f["file"]).stem: f["plugin"] for f in found} == {
        "mistake": "host_spoofing",
        "bypass": CLOSED[0],
    }
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


def test_the_sites_own_locations_inherit_them(site: Directive) -> None:
    """nginx inherits proxy_set_header only into a level that sets none of its own."""
    for server in [s for s in site.all("server") if s.own("server_name") not in ([], [["_"]])]:
        assert not list(server.all("proxy_set_header"))


def test_every_level_that_sets_a_forwarded_header_sets_them_all(shape: str, site: Directive) -> None:
    """An exact-match location too: nginx would pass a client's own X-Forwarded-For on from there."""
    setting = [one for one in site.all("location") if one.own("proxy_set_header")]
    for location in setting:
        given = location.own("proxy_set_header")
        assert len(given) == len(FORWARDED), location.words
        assert dict(given) == {**FORWARDED, "Host": SHAPES[shape]["names"][0]}, location.words
    assert bool(setting) == (shape in PROXIED)


def mapping(site: Directive, variable: str) -> tuple[str, dict[str, str]]:
    """What a variable is made from, and its table."""
    (one,) = [m for m in site.all("map") if m.words[2] == variable]
    return one.words[1], dict(d.words for d in one.inner)


def test_the_clients_word_counts_only_behind_a_proxy(shape: str, site: Directive) -> None:
    proxy = SHAPES[shape]["proxy"]
    trusted = [one.words[1] for one in site.all("set_real_ip_from")]
    assert trusted == (list(proxy.networks) if proxy else [])
    source, table = mapping(site, "$public_scheme")
    if proxy and proxy.tells_scheme:
        assert source == "$from_proxy:$http_x_forwarded_proto"
        assert table == {"default": "$scheme", "1:https": "https", "1:http": "http"}
    else:
        assert (source, table) == ("$scheme", {"default": "$scheme"})
    assert [one.words[1:] for one in site.all("real_ip_header")] == ([["X-Forwarded-For"]] if proxy else [])
    assert [one.words[1:] for one in site.all("real_ip_recursive")] == ([["on"]] if proxy else [])
    geos = list(site.all("geo"))
    if proxy:
        (geo,) = geos
        assert geo.words[1:] == ["$realip_remote_addr", "$from_proxy"], "the peer, not the address that it names"
        assert [d.words for d in geo.inner] == [["default", "0"], *[[n, "1"] for n in trusted]]
    else:
        assert not geos
        read = {word for d in site.all("map") for word in [*d.words, *(w for one in d.inner for w in one.words)]}
        assert {word for word in read if "$http_" in word} == {"$http_x_decant_probe"}


# ------------------------------------------------------------------------------------------------ balancers


def health_locations(site: Directive) -> list[Directive]:
    """The exact-match locations, of strangers' names first."""
    return [one for one in site.all("location") if one.words[1] == "="]


def test_only_the_sites_names_are_answered(shape: str, site: Directive) -> None:
    stranger, own = [one for one in site.all("server") if one.inner]  # without those of the upstream
    assert stranger.own("server_name") == [["_"]]
    assert [listen[-1] for listen in stranger.own("listen")] == ["default_server", "default_server"]
    last = [one for one in stranger.all("location") if one.words[1:] == ["/"]]
    assert [one.own("return") for one in last] == [[["444"]]]
    assert own.own("server_name") == [SHAPES[shape]["names"]]
    assert own.own("listen") == [["80"], ["[::]:80"]]
    health = [one for one in stranger.all("location") if one.words[1] == "="]
    if shape not in PROXIED:
        assert not health_locations(site)
        return
    (location,) = health
    path = "/" if SHAPES[shape]["health_path"] == "/" else "/healthz"
    assert location.words[1:] == ["=", path], "without the query, which is no part of a location"
    assert location.own("allow") == [[n] for n in SHAPES[shape]["proxy"].networks]
    assert location.own("deny") == [["all"]]
    assert [one.words[0] for one in location.inner].index("deny") > [one.words[0] for one in location.inner].index(
        "allow"
    )
    assert ["Host", SHAPES[shape]["names"][0]] in location.own("proxy_set_header")


def test_health_checks_may_send_any_name(shape: str, site: Directive) -> None:
    """Clouds differ in what Host they send; the site's own name is one of them."""
    of = [one.words[2] for one in health_locations(site)]
    path = (SHAPES[shape]["health_path"] or "/healthz").partition("?")[0]
    assert of == ([path, path] if shape in PROXIED else [])
    assert all(one.own("proxy_pass") == [["http://app"]] for one in health_locations(site))


STRANGER = ["error_page", "403", "=", "@nobody"]


def test_strangers_get_no_answer_at_the_health_path_either(shape: str, site: Directive) -> None:
    nobody = [one for one in site.all("location") if one.words[1:] == ["@nobody"]]
    assert [one.own("return") for one in nobody] == [[["444"]]] * (shape in PROXIED)
    assert [one.words for one in site.all("error_page") if "403" in one.words] == [STRANGER] * (shape in PROXIED)


def test_an_app_without_a_health_path_is_judged_by_its_front_page(shape: str, site: Directive) -> None:
    falls_back = shape in PROXIED and SHAPES[shape]["health_path"] is None
    front = [one for one in site.all("location") if one.words[1:] == ["@front_page"]]
    if not falls_back:
        assert not front
        assert [one.words for one in site.all("error_page")] == [STRANGER] * (shape in PROXIED)
        assert not list(site.all("proxy_intercept_errors"))
        return
    (location,) = front
    assert location.own("rewrite") == [["^", "/", "break"]]
    assert location.own("proxy_pass") == [["http://app"]]
    stranger = health_locations(site)[0]
    pages = [STRANGER[1:], ["404", "=", "@front_page"]]
    assert stranger.own("error_page") == pages, "no other answer is made a good one"
    assert stranger.own("proxy_intercept_errors") == [["on"]]


def test_a_closed_machine_refuses_its_balancers_checks_alone(shape: str, site: Directive) -> None:
    asking = [one for one in site.all("location") if one.own("if")]
    assert asking == health_locations(site)
    for location in asking:
        (closed,) = [one for one in location.inner if one.words[0] == "if"]
        assert closed.words[1:] == ["(!-e", "$must_exist)"]
        # Nothing but this is safe inside an `if` of a location.
        assert [d.words for d in closed.inner] == [["return", "503"]]
    assert len(list(site.all("if"))) == sum(d.words[1:] == ["503"] for d in site.all("return")) == len(asking)
    if shape in PROXIED:
        source, table = mapping(site, "$must_exist")
        assert source == "$from_proxy:$http_x_forwarded_for"
        assert table == {"default": "/", "1:": "/run/decant/open"}, "from the balancer itself, on nobody's behalf"
    else:
        assert "$must_exist" not in str(site)


def test_the_file_that_opens_a_machine_is_the_one_that_its_program_makes(text: str, shape: str) -> None:
    program_text = (HERE.parents[1] / "decant_host" / "paths.py").read_text()
    assert 'RUN = Path("/run/decant")' in program_text
    assert 'IN_ROTATION = RUN / "open"' in program_text
    assert text.count("/run/decant/open") == (1 if shape in PROXIED else 0)


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
    assert telling == [next(one for one in own.all("location") if one.words[1:] == ["/"]), *health]
    assert not stranger.own("add_header")


def test_a_machines_name_is_quoted() -> None:
    """A host's name may hold a colon, which means something in a map's value to nobody, and quotes keep it so."""
    _, table = mapping(parse(host.nginx_conf(**{**SHAPES["plain"], "machine": "a.b_c-d:1"})), "$asked_machine")
    assert table["1"] == "a.b_c-d:1"


def seconds(value: str) -> int:
    assert value.endswith("s")
    return int(value[:-1])


def test_the_ladder_of_timeouts(shape: str, site: Directive, gunicorn: dict[str, Any]) -> None:
    """Each waits longer than what it waits for (C15, C16)."""
    (http,) = site.all("http")

    def of(name: str) -> int:
        ((value,),) = http.own(name)
        return seconds(value)

    assert gunicorn["timeout"] == 30
    assert clouds.IDLE == 60, "what balancers are told, and wait without being told"
    assert gunicorn["timeout"] < of("proxy_read_timeout") == 35 < clouds.IDLE
    assert of("proxy_send_timeout") == 35
    assert of("proxy_connect_timeout") < of("proxy_read_timeout")
    if shape in PROXIED:
        assert of("keepalive_timeout") == 75 > clouds.IDLE, "a balancer must not find its connection closed"
    else:
        assert of("keepalive_timeout") == 15
    unit = (HERE / "systemd" / "app@.service").read_text()
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])  # type: ignore[index]
    assert gunicorn["graceful_timeout"] < stop
    # systemd counts for each ExecStop= anew.
    assert stop > clouds.NOTICED
    assert clouds.NOTICED == 2 * 10 + 5
    start = int(re.search(r"^TimeoutStartSec=(\d+)$", unit, re.MULTILINE)[1])  # type: ignore[index]
    assert start > 300, "decant:healthTimeout may be 300"


def test_the_largest_body_is_the_apps(site: Directive) -> None:
    spec = importlib.util.spec_from_file_location("hello_config", REPOSITORY / "app" / "hello" / "config.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (http,) = site.all("http")
    ((size,),) = http.own("client_max_body_size")
    assert size.endswith("m")
    assert int(size[:-1]) << 20 == module.from_environ({})["MAX_CONTENT_LENGTH"]


def test_the_longest_request_line_passes_nginx_and_gunicorn_alike(site: Directive, gunicorn: dict[str, Any]) -> None:
    (buffers,) = site.all("large_client_header_buffers")
    assert buffers.words[1:] == ["4", "8k"]
    assert gunicorn["limit_request_line"] >= 8190


def test_the_switch_is_one_rename(site: Directive) -> None:
    (upstream,) = site.all("upstream")
    assert [d.words for d in upstream.inner] == [
        ["server", "unix:/run/decant/current/socket/gunicorn.sock", "max_fails=0"],
        ["server", "unix:/run/decant/previous/socket/gunicorn.sock", "backup", "max_fails=0"],
    ]
    assert not list(site.all("open_file_cache"))
    assert {one.words[1] for one in site.all("proxy_pass")} == {"http://app"}
    assert {one.words[1] for one in site.all("root")} == {"/run/decant/current", "/run/decant/previous"}


def test_hidden_files_are_not_served(site: Directive) -> None:
    (hidden,) = [one for one in site.all("location") if one.words[1] == "~"]
    assert hidden.own("return") == [["404"]]
    for path, found in (("/.env", True), ("/static/.git/config", True), ("/a/.htpasswd", True), ("/a.b/c.d", False),
                        ("/.well-known/security.txt", False), ("/.well-knownx", True)):  # fmt: skip
        assert bool(re.search(hidden.words[2], path)) == found, path


def test_a_template_that_misses_a_value_is_an_error() -> None:
    assert "undefined=jinja2.StrictUndefined" in (HERE / "__init__.py").read_text()
    for missing in SHAPES["plain"]:
        with pytest.raises(TypeError):
            host.nginx_conf(**{name: value for name, value in SHAPES["plain"].items() if name != missing})


@pytest.mark.parametrize(
    ("address", "name"),
    [("203.0.113.7", "203.0.113.7"), ("2001:db8::7", "[2001:db8::7]"), ("Server.Example.com", "server.example.com")],
)
def test_an_address_as_a_server_name(address: str, name: str) -> None:
    assert host.server_name(address) == name


# ------------------------------------------------------------------------------------------------ units

UNITS = {
    "app@0123456789ab.service": {"app@.service": "app@.service", "app@.service.d/sandbox.conf": "sandbox.conf"},
    "release@0123456789ab.service": {
        "release@.service": "release@.service",
        "release@.service.d/sandbox.conf": "sandbox.conf",
    },
    "decant-boot.service": {"decant-boot.service": "decant-boot.service"},
    "decant-firewall.service": {"decant-firewall.service": "decant-firewall.service"},
    "nginx.service": {"nginx.service.d/decant.conf": "nginx.conf"},
}
DEBIANS_NGINX = """[Unit]
Description=A high performance web server and a reverse proxy server
[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStartPre=/usr/sbin/nginx -t -q -g 'daemon on; master_process on;'
ExecStart=/usr/sbin/nginx -g 'daemon on; master_process on;'
ExecReload=/usr/sbin/nginx -g 'daemon on; master_process on;' -s reload
ExecStop=-/usr/sbin/nginx -s stop
KillMode=mixed
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system as provision.sh leaves it, with programs that exist and do nothing."""
    units = tmp_path / "etc" / "systemd" / "system"
    for files in UNITS.values():
        for target, source in files.items():
            (units / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / "systemd" / source, units / target)
    (units / "nginx.service").write_text(DEBIANS_NGINX)
    ours = tmp_path / "usr" / "lib" / "systemd" / "system"
    ours.mkdir(parents=True)
    system = next((p for p in map(Path, ("/usr/lib/systemd/system", "/lib/systemd/system")) if p.is_dir()), None)
    for path in [*system.glob("*.target"), *system.glob("*.slice")] if system else ():
        shutil.copy(path, ours / path.name)
    for name in (
        "var/lib/decant/releases/0123456789ab/venv/bin/python", "opt/decant/bin/decant-host", "usr/sbin/nft",
        "usr/sbin/nginx",
    ):  # fmt: skip
        stub = tmp_path / name
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text("#!/bin/sh\n")
        stub.chmod(0o755)
    return tmp_path


def analyze(root: Path, verb: str, unit: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [program("systemd-analyze"), verb, f"--root={root}", *words, unit]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_the_unit(root: Path, unit: str) -> None:
    done = analyze(root, "verify", unit, "--recursive-errors=no")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "mistake", ["RestartSecs=1\n", "TimeoutStartSec=soon\n", "ExecStartPost=/nowhere/to/be/found\n"]
)
def test_systemd_would_find_a_mistake(root: Path, unit: str, mistake: str) -> None:
    """Else the test above would prove nothing."""
    file = root / "etc" / "systemd" / "system" / list(UNITS[unit])[-1]
    file.write_text(f"{file.read_text()}\n[Service]\n{mistake}")
    done = analyze(root, "verify", unit, "--recursive-errors=no")
    assert done.stderr


@pytest.mark.parametrize("unit", ["app@0123456789ab.service", "release@0123456789ab.service"])
def test_the_sandbox_is_tight(root: Path, unit: str) -> None:
    done = analyze(root, "security", unit, "--offline=true", "--threshold=25", "--no-pager")
    assert done.returncode == 0, done.stdout
    for drop_in in (root / "etc" / "systemd" / "system").glob("*@.service.d/sandbox.conf"):
        drop_in.unlink()
    assert analyze(root, "security", unit, "--offline=true", "--threshold=25").returncode != 0


def service(name: str) -> dict[str, list[str]]:
    """The [Service] settings of a unit with its drop-ins, in order."""
    made: dict[str, list[str]] = {}
    for source in UNITS[name].values():
        section = (HERE / "systemd" / source).read_text().partition("[Service]\n")[2].partition("\n[")[0]
        for line in section.splitlines():
            if line and not line.startswith("#"):
                key, _, value = line.partition("=")
                made.setdefault(key, []).append(value)
    return made


def test_the_app_is_nobody_special() -> None:
    app = service("app@0123456789ab.service")
    assert app["User"] == app["Group"] == ["decant"]
    assert app["NoNewPrivileges"] == ["yes"]
    assert app["ProtectSystem"] == ["strict"]
    assert app["CapabilityBoundingSet"] == app["AmbientCapabilities"] == [""]
    assert "ReadWritePaths" not in app
    assert "EnvironmentFile" not in app, "everybody can read a unit's environment"
    assert "169.254.169.254" in app["IPAddressDeny"][0]
    for name in ("MemoryMax", "TasksMax", "LimitNOFILE"):
        assert app[name]


def test_the_app_stays_up_and_stops_gently() -> None:
    app = service("app@0123456789ab.service")
    assert app["Type"] == ["notify"]
    assert app["Restart"] == ["always"]
    assert app["KillMode"] == ["mixed"]
    assert app["OOMPolicy"] == ["continue"]
    assert app["RuntimeDirectory"] == ["decant/%i/socket"], "one unit's stop must not take another's away"
    assert (HERE / "systemd" / "app@.service").read_text().count("[Install]") == 0, (
        "the boot unit starts the confirmed one"
    )


def test_the_balancer_notices_before_the_app_stops() -> None:
    """Also at a shutdown: what starts after nginx stops before it."""
    app = service("app@0123456789ab.service")
    assert app["ExecStop"] == [f"+{host.PROGRAM} close %i"], "with the machine's rights, not the app's"
    assert app["KillMode"] == ["mixed"]
    unit = (HERE / "systemd" / "app@.service").read_text()
    (after,) = re.findall(r"^After=(.*)$", unit, re.MULTILINE)
    assert "nginx.service" in after.split()


def test_nginx_reads_only_our_file() -> None:
    drop_in = service("nginx.service")
    for key in ("ExecStartPre", "ExecStart", "ExecReload"):
        first, ours = drop_in[key]
        assert first == "", "the distribution's line is taken back"
        assert " -c /etc/decant/nginx.conf " in ours
    limit = int(drop_in["LimitNOFILE"][0])
    (rlimit,) = parse(host.nginx_conf(**SHAPES["plain"])).all("worker_rlimit_nofile")
    assert int(rlimit.words[1]) == limit


def test_the_confirmed_release_is_back_before_nginx() -> None:
    text = (HERE / "systemd" / "decant-boot.service").read_text()
    assert "Before=nginx.service" in text
    assert "ConditionPathExists=/var/lib/decant/persisted" in text
    assert "WantedBy=multi-user.target" in text


# ------------------------------------------------------------------------------------------------ firewall, scripts


def test_nft_takes_the_firewall(tmp_path: Path) -> None:
    nft, unshare = program("nft"), program("unshare")
    inside = [unshare, "--map-root-user", "--net"]  # its own network: nothing of this computer is looked at
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this computer lets nobody but root make a network namespace")
    good, bad = HERE / "nftables" / "firewall.nft", tmp_path / "bad.nft"
    bad.write_text(good.read_text().replace("tcp dport", "tcp doprt"))
    for file, fine in ((good, True), (bad, False)):
        done = subprocess.run([*inside, nft, "--check", "-f", str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == fine, done.stderr


def test_the_firewall_lets_in_what_it_should() -> None:
    text = re.sub(r"#.*", "", (HERE / "nftables" / "firewall.nft").read_text())
    assert re.findall(r"tcp dport \{([^}]*)\} accept", text) == [" 22, 80 "]
    assert re.findall(r"udp dport \{([^}]*)\} accept", text) == [" 68, 546 "]
    assert len(re.findall(r"policy drop;", text)) == 2
    assert "policy accept" not in text
    assert text.count("accept") == 6  # established, related, loopback, icmp, dhcp, ports
    assert "flush ruleset" not in text, "other programs' tables are theirs"


def test_base_can_put_sshds_own_port_into_the_firewall() -> None:
    """Its `sed` looks for the file's text to the letter; where it finds nothing it says nothing."""
    (pattern,) = re.findall(r'sed -i "s/(dport [^/]*)/', (HERE / "scripts" / "provision.sh").read_text())
    assert (HERE / "nftables" / "firewall.nft").read_text().count(pattern) == 1


def test_sshd() -> None:
    lines = [
        line.split() for line in (HERE / "sshd" / "sshd.conf").read_text().splitlines() if not line.startswith("#")
    ]
    given = dict(lines)
    assert given["PasswordAuthentication"] == given["KbdInteractiveAuthentication"] == given["PermitRootLogin"] == "no"
    assert given["DisableForwarding"] == "yes"


def test_updates_never_reboot() -> None:
    text = (HERE / "apt" / "apt-upgrades.conf").read_text()
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in text
    assert 'APT::Periodic::Unattended-Upgrade "1";' in text


def ours(pattern: str) -> list[Path]:
    """The repository's own files, environments and caches left aside."""
    tops = [p for p in REPOSITORY.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "node_modules"]
    found = [path for top in tops for path in top.rglob(pattern)]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(REPOSITORY).parts))


def shellcheck(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    tool = program(str(BIN / "shellcheck"))
    return subprocess.run([tool, *words], input=text, capture_output=True, text=True, check=False)


def test_there_are_scripts() -> None:
    assert {"provision.sh", "remove.sh"} <= {p.name for p in ours("*.sh")}


@pytest.mark.parametrize("path", ours("*.sh"), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_shellcheck(path: Path) -> None:
    done = shellcheck(str(path))
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_of_lines_inside_python() -> None:
    _, script = base_step()
    lines = {
        "base": re.sub(r"<<'END'\n.*?\nEND\n", "<<'END'\nx\nEND\n", script, flags=re.DOTALL),
        "ready": session._CHECK,
        "remove": host.REMOVE_STEP,
        "updates": host.UPDATES_STEP,
        "stage": host.stage_step("0" * 12),
    }
    for name, text in lines.items():
        done = shellcheck("-s", "sh", "-", text=text + "\n")
        # SC1091: /etc/os-release is the machine's. SC2016: what is in single quotes is for the inner shell.
        assert set(re.findall(r"SC\d+", done.stdout)) <= {"SC1091", "SC2016"}, f"{name}: {done.stdout}"
    assert "SC2086" in shellcheck("-s", "sh", "-", text="rm $1\n").stdout, "this check cannot fail"


# ------------------------------------------------------------------------------------------------ Python on machines

ON_MACHINES = sorted(
    p for p in HERE.rglob("*.py") if p != HERE / "__init__.py" and not any(part == "__pycache__" for part in p.parts)
)
# PEP 594 and others: gone in Python 3.13, which machines have.
GONE = {
    "aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "lib2to3", "mailcap", "msilib", "nis", "nntplib",
    "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib", "asynchat", "asyncore", "imp",
    "smtpd", "distutils",
}  # fmt: skip


@pytest.mark.parametrize("path", ON_MACHINES, ids=lambda p: str(p.relative_to(HERE)))
def test_a_machines_python_needs_nothing_but_its_library(path: Path) -> None:
    beside = {p.stem for p in ON_MACHINES} | {p.parent.name for p in ON_MACHINES}
    allowed = (set(sys.stdlib_module_names) - GONE) | {"gunicorn"} | beside
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            assert name.partition(".")[0] in allowed, f"{name}, line {node.lineno}"  # type: ignore[attr-defined]
    if "gunicorn" not in path.name and "entry" not in path.name:
        assert "gunicorn.util" not in path.read_text()


def test_there_is_python_on_machines() -> None:
    assert {"gunicorn_settings.py", "release_environment.py", "release_command.py", "decant_entry.py"} <= {
        p.name for p in ON_MACHINES
    }


@pytest.mark.parametrize("name", ["gunicorn-requirements.txt", "uv-requirements.txt"])
def test_what_machines_install_is_pinned_by_hash(name: str) -> None:
    text = (HERE / name).read_text().replace("\\\n", " ")
    for line in text.strip().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)


RELEASE = "0123456789ab"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What systemd and the release's folder would give a program on a machine."""
    (tmp_path / "environment.json").write_text(json.dumps({"GREETING": "hello", "SECRET_KEY": "canary"}))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name, value in {
        "DECANT_RELEASE": RELEASE,
        "DECANT_APP": "",
        "GREETING": "",
        "SECRET_KEY": "",
        "PATH": "/bin",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", [str(HERE / "gunicorn"), *sys.path])
    settings = {"entry": "shop:create_app()", "workers": None, "threads": None, "release_command": "flask db upgrade"}
    inner = Path.read_text

    def read_text(self: Path, *words: Any, **more: Any) -> str:
        if str(self) == f"/var/lib/decant/releases/{RELEASE}/release.json":
            return json.dumps(settings)
        return inner(self, *words, **more)

    monkeypatch.setattr(Path, "read_text", read_text)
    return SimpleNamespace(settings=settings)


@pytest.fixture
def gunicorn(machine: SimpleNamespace) -> dict[str, Any]:
    """gunicorn's settings as gunicorn reads them."""
    return runpy.run_path(str(HERE / "gunicorn" / "gunicorn_settings.py"))


def test_gunicorn_knows_every_setting(gunicorn: dict[str, Any]) -> None:
    """It ignores what it does not know, so a typing mistake would never show."""
    from gunicorn.config import Config

    known = Config().settings
    tree = ast.parse((HERE / "gunicorn" / "gunicorn_settings.py").read_text())
    names = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    names += [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    assert set(names) - set(known) == {"release", "settings"}
    for name in set(names) & set(known):
        Config().set(name, gunicorn[name])  # raises for a value of the wrong kind


def test_gunicorn_serves_the_release_on_its_own_socket(gunicorn: dict[str, Any]) -> None:
    assert gunicorn["bind"] == f"unix:/run/decant/{RELEASE}/socket/gunicorn.sock"
    assert gunicorn["umask"] == 0o007
    assert gunicorn["worker_tmp_dir"] == f"/run/decant/{RELEASE}/socket"
    assert gunicorn["preload_app"] is True
    assert gunicorn["wsgi_app"] == "decant_entry:application"
    assert os.environ["DECANT_APP"] == "shop:create_app()"
    assert (os.environ["GREETING"], os.environ["SECRET_KEY"]) == ("hello", "canary")


def test_a_worker_does_not_wait_for_what_nginx_has_sent(gunicorn: dict[str, Any]) -> None:
    from gunicorn.config import Config
    from gunicorn.workers.gthread import TConn, ThreadWorker

    def wait(seconds: float) -> bool:
        raise AssertionError("it waits")

    def submit(work: Callable[[TConn], object], conn: TConn) -> Future[object]:
        done: Future[object] = Future()
        done.set_result(work(conn))
        return done

    worker = object.__new__(gunicorn["worker_class"])
    assert isinstance(worker, ThreadWorker)
    worker.cfg, worker.log = Config(), SimpleNamespace(debug=lambda *_: None)
    worker.tpool, worker.method_queue = SimpleNamespace(submit=submit), SimpleNamespace(defer=lambda *_: None)
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        conn = TConn(worker.cfg, ours, "", "")
        conn.wait_for_data = wait
        worker.enqueue_req(conn)
        assert conn.initialized, "it was read from"


def test_gunicorn_believes_one_header(gunicorn: dict[str, Any]) -> None:
    assert gunicorn["secure_scheme_headers"] == {"X-FORWARDED-PROTO": "https"}
    assert gunicorn["forwarder_headers"] == ""


@pytest.mark.parametrize(
    ("cores", "megabytes", "workers"),
    [(1, 1024, 2), (1, 512, 2), (1, 350, 1), (2, 400, 1), (2, 4096, 3), (16, 16384, 12), (None, 2048, 2)],
)
def test_workers_from_cores_and_memory(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, cores: int | None, megabytes: int, workers: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": megabytes * 256}.__getitem__)
    made = runpy.run_path(str(HERE / "gunicorn" / "gunicorn_settings.py"))
    assert (made["workers"], made["threads"]) == (workers, 8)


def test_workers_and_threads_of_the_settings_win(machine: SimpleNamespace) -> None:
    machine.settings.update(workers=7, threads=9)
    made = runpy.run_path(str(HERE / "gunicorn" / "gunicorn_settings.py"))
    assert (made["workers"], made["threads"]) == (7, 9)


def test_a_new_worker_can_be_stopped_at_once(gunicorn: dict[str, Any]) -> None:
    import signal

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        gunicorn["post_fork"](None, None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_release_command_runs_as_the_app_would(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda path, words: ran.append((path, words, dict(os.environ))))
    runpy.run_path(str(HERE / "gunicorn" / "release_command.py"))
    ((path, words, environment),) = ran
    assert (path, words) == ("/bin/sh", ["sh", "-c", "flask db upgrade"])
    assert environment["PATH"].startswith(f"/var/lib/decant/releases/{RELEASE}/venv/bin:")
    assert environment["SECRET_KEY"] == "canary"


def test_every_answer_says_which_release_gave_it(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "paper_shop.py").write_text(
        "def app(environ, start_response):\n"
        "    headers = [('X-Release', 'forged'), ('x-release', 'too'), ('X-Other', 'kept')]\n"
        "    start_response('404 Not Found', headers, 'info')\n"
        "    return [b'body']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DECANT_APP", "paper_shop:app")
    application = runpy.run_path(str(HERE / "gunicorn" / "decant_entry.py"))["application"]
    said: list[Any] = []
    assert list(application({}, lambda *words: said.append(words))) == [b"body"]
    assert said == [("404 Not Found", [("X-Other", "kept"), ("X-Release", RELEASE)], "info")]
    sys.modules.pop("paper_shop", None)


@pytest.fixture
def press(machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Serves an app with templates as gunicorn would: the names of what is compiled, the module that serves it."""
    texts = {"page.html": "{{ 1 + 1 }}", "broken.html": "{% nonsense %}", "row.html": "{{ 2 }}", "data.csv": "{{ 3 }}",
             "export.xml": "{{ 4 }}" + " " * (128 << 10)}  # fmt: skip
    (tmp_path / "templates").mkdir()
    for name, text in texts.items():
        (tmp_path / "templates" / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DECANT_APP", "paper_press:app")

    def serve(more: str = "") -> tuple[set[str], dict[str, Any]]:
        (tmp_path / "paper_press.py").write_text(f"import flask, jinja2\napp = flask.Flask(__name__)\n{more}")
        entry = runpy.run_path(str(HERE / "gunicorn" / "decant_entry.py"))
        return {key[1] for key in sys.modules["paper_press"].app.jinja_env.cache}, entry

    yield serve
    sys.modules.pop("paper_press", None)


def test_pages_are_compiled_before_any_visitor_comes(press: Callable[..., Any]) -> None:
    compiled, _ = press()
    assert compiled == {"page.html", "row.html"}, "no data, and what cannot be compiled is its page's business"


@pytest.mark.parametrize(
    "unusual",
    [
        "app.jinja_loader = jinja2.FunctionLoader(lambda name: 'of a database')",
        "app.register_blueprint(flask.Blueprint('b', __name__))\n"
        "app.blueprints['b'].jinja_loader = jinja2.FunctionLoader(lambda name: 'of a database')",
        "app.jinja_env.loader = jinja2.FileSystemLoader('.')",
        "app.jinja_env.bytecode_cache = jinja2.FileSystemBytecodeCache('.')",
    ],
)
def test_unusual_templates_are_left_alone(press: Callable[..., Any], unusual: str) -> None:
    assert press(unusual)[0] == set()


def test_an_app_whose_templates_need_a_request_is_served(press: Callable[..., Any]) -> None:
    more = """
class Late:
    blueprints = {}
    def __call__(self, environ, start_response):
        return []
    @property
    def jinja_env(self):
        raise RuntimeError("Working outside of application context")
real, app = app, Late()
Late.cache = ()
"""
    with pytest.raises(RuntimeError, match="outside"):  # of this test's own look at it, not of the start
        press(more)
    assert "application" in runpy.run_path(str(HERE / "gunicorn" / "decant_entry.py"))


def test_compiling_ends_after_a_while(press: Callable[..., Any]) -> None:
    """An app may have thousands of pages."""
    _, entry = press()
    app = sys.modules["paper_press"].app
    app.jinja_env.cache.clear()
    times = [1.3, 1.2, 1.1, 0.9, 0.5, 0.0]
    compile_templates = entry["compile_templates"]
    compile_templates.__globals__["time"] = SimpleNamespace(monotonic=times.pop)
    compile_templates(app)
    assert times == [1.3, 1.2], "two of the four pages were come to"


# ------------------------------------------------------------------------------------------------ the base step


def base_step(**changes: Any) -> tuple[str, str]:
    given = {"stack": "blue", "user": "deploy", "harden": True, **SHAPES["plain"], **changes}
    return host.base_step(**given)


def common() -> dict[str, bytes]:
    """The files that every machine gets."""
    with tarfile.open(fileobj=io.BytesIO(host.files_tar())) as tar:
        assert all(m.isfile() and m.mtime == 0 and m.uid == 0 and not m.uname for m in tar.getmembers())
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def travelling() -> set[str]:
    """Every real file of the folder but this computer's own part."""
    files = {str(p.relative_to(HERE)) for p in HERE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    return files - {"__init__.py", "nginx.conf.j2"}


def test_base_brings_every_file_along() -> None:
    line, script = base_step()
    files = carried(script)
    assert set(files) == {"nginx.conf", "settings.json"}
    assert common() == {name: (HERE / name).read_bytes() for name in travelling()}
    assert files["nginx.conf"].decode() == host.nginx_conf(**SHAPES["plain"])
    assert json.loads(files["settings.json"]) == {"stack": "blue", "name": "203.0.113.7", "noticed": 0}
    assert re.fullmatch(r"sh -s base [0-9a-f]{12}", line)
    assert script.rstrip().endswith(f"blue deploy true {line.split()[-1]}")


def test_base_tells_how_long_a_balancer_takes_to_notice() -> None:
    given = json.loads(carried(base_step(proxy=CLOUDS)[1])["settings.json"])
    assert given == {"stack": "blue", "name": "203.0.113.7", "noticed": 25}


def test_base_brings_what_its_script_installs() -> None:
    """And nothing that it would only look at: a file nobody installs is a file nobody needs."""
    text = (HERE / "scripts" / "provision.sh").read_text()
    names = set(re.findall(r'"\$here/([^"$]+)"', text))
    assert len(names) > 10
    for name in names:
        assert name in carried(base_step()[1]) | common() or any(n.startswith(name) for n in travelling()), name


def test_the_same_base_twice_is_the_same() -> None:
    assert base_step() == base_step()
    assert host.files_tar() == host.files_tar()


def test_the_state_stays_small() -> None:
    """It holds each step's input twice for each machine, and is written after each step."""
    assert len(base_step()[1]) < 20_000


@pytest.mark.parametrize(
    "change",
    [{"stack": "green"}, {"user": "root"}, {"harden": False}, {"names": ["203.0.113.8"]}, {"machine": "web-3"},
     {"proxy": CLOUDS}, {"health_path": "/up"}, {"proxy": replace(OWN, noticed=26)},
     {"proxy": replace(OWN, tells_scheme=False)}, {"proxy": replace(OWN, networks=("10.0.0.6/32",))}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_changes_a_machine_changes_the_line(change: dict[str, Any]) -> None:
    before: dict[str, Any] = {"proxy": OWN}
    assert base_step(**{**before, **change})[0] != base_step(**before)[0]


def test_a_health_path_is_nginxs_business_only_behind_a_proxy() -> None:
    assert base_step(health_path="/up") == base_step()


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder's files where a test may change them."""
    shutil.copytree(HERE, tmp_path / "host", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(host, "HERE", tmp_path / "host")
    return tmp_path / "host"


@pytest.mark.parametrize("name", [*sorted(travelling()), "nginx.conf.j2"])
def test_a_changed_file_runs_base_again(copied: Path, name: str) -> None:
    before = base_step()[0]
    with (copied / name).open("a") as file:
        file.write("# changed\n")
    assert base_step()[0] != before


SERVING = {
    "units/app@.service", "units/sandbox.conf", "python/gunicorn_settings.py", "python/release_environment.py",
    "python/decant_entry.py", "gunicorn-requirements.txt",
}  # fmt: skip


@pytest.mark.parametrize("name", [*sorted(travelling()), "nginx.conf.j2"])
def test_what_serves_a_release_is_part_of_it_and_nothing_else_is(copied: Path, name: str) -> None:
    before = host.runtime_digest()
    with (copied / name).open("a") as file:
        file.write("# changed\n")
    assert (host.runtime_digest() != before) == (name in SERVING)


def test_stage_says_all_in_its_input_and_only_the_id_in_its_line() -> None:
    assert host.stage_step(RELEASE).split()[-2:] == ["stage", RELEASE]
    text = host.stage_input(tar="a.tar", sha256="b", settings={"entry": "x:y"}, environment={"KEY": "canary"})
    assert json.loads(text) == {
        "tar": "a.tar", "sha256": "b", "settings": {"entry": "x:y"}, "environment": {"KEY": "canary"},
    }  # fmt: skip
    assert json.loads(host.stay_input()) == {"tar": None}
    assert host.incoming("a.tar") == "/var/lib/decant/incoming/a.tar"
