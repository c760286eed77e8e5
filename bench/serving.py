"""The serving bench: Decant's set-up and others on one machine, each measured alone and in turn."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.environment import HERE, BenchError, Environment, rounds
from bench.tools import decant
from decant.host import render
from decant.rollout.http_probe import probe
from decant.rollout.route import Route
from decant_host.protocol import HttpsSettings
from rehearsal.machines.machine import Machine

FILES = HERE / "serve"
CONNECTIONS = 32  # kept alive where the server does
WARM_UP = 1  # seconds before each measurement, not counted
PATHS = {"dynamic": "/healthz", "static": "/static/style.css"}
APP = "/srv/bench"
NAME = "bench.test"  # of the machine over HTTPS
PATIENCE = 30.0  # seconds until a set-up that was just started must answer


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """A way to serve the app. `gunicorn` has its arguments, `nginx` the file of its configuration or None.

    The set-ups of Decant's own, whose port is that of a `scheme`, have neither.
    """

    name: str
    text: str
    port: int
    gunicorn: tuple[str, ...] = ()
    nginx: str | None = None
    socket: str = ""
    scheme: str = "http"

    def url(self, address: str, path: str) -> str:
        """The URL of a page of this set-up, by the machine's name where a certificate is checked."""
        return f"{self.scheme}://{NAME if self.scheme == 'https' else address}:{self.port}{path}"


def set_ups(workers: int, threads: int) -> list[SetUp]:
    """Return Decant's set-up and those that it is compared with, which have as many worker processes."""
    many = ("--workers", str(workers))
    return [
        SetUp(
            name="decant", text=f"Decant: nginx, {workers} gthread workers of {threads} threads, unix socket", port=80
        ),
        SetUp(name="decant-https", text="Decant over HTTPS: the same, with a certificate", port=443, scheme="https"),
        SetUp(
            name="page-printed", text="gunicorn's deployment page as printed: nginx, 1 sync worker, unix socket",
            port=8081, nginx="page.conf", socket="/run/bench-1.sock",
        ),
        SetUp(
            name="page", text=f"gunicorn's deployment page with {workers} sync workers",
            port=8082, gunicorn=many, nginx="page.conf", socket="/run/bench-2.sock",
        ),
        SetUp(
            name="plain", text=f"plain: nginx, proxy_pass to 127.0.0.1:8000, {workers} sync workers",
            port=8083, gunicorn=many, nginx="plain.conf", socket="127.0.0.1:8000",
        ),
        SetUp(
            name="direct", text=f"gunicorn without nginx, {workers} gthread workers of {threads} threads as Decant's",
            port=8084, gunicorn=(*many, "--worker-class", "gthread", "--threads", str(threads), "--preload"),
            socket="0.0.0.0:8084",
        ),
        SetUp(
            name="direct-sync", text=f"gunicorn without nginx, {workers} sync workers",
            port=8085, gunicorn=many, socket="0.0.0.0:8085",
        ),
    ]  # fmt: skip


def measure(environment: Environment, *, quick: bool) -> dict[str, Any]:
    """Return raw figures of all set-ups. Rounds are interleaved, so a slow minute of the computer affects all."""
    tool = decant()(environment, environment.boot("served"))
    environment.say("putting the app live on the machine that is measured")
    tool.up(first=True)
    machine, visitor = tool.machine, environment.boot("visitor")
    environment.say("installing wrk on a second machine")
    visitor.run("apt-get -qq update && apt-get -qqy install --no-install-recommends wrk", timeout=300)
    visitor.run("cat > /root/report.lua", input=(FILES / "report.lua").read_text())
    release = machine.run("readlink /run/decant/current").stdout.strip()
    kinds = set_ups(*_processes(machine, release))
    _install(machine, release, kinds)
    root = _serve_https(machine)
    visitor.run(f"echo {machine.address} {NAME} >> /etc/hosts")
    for kind in kinds:
        for path in PATHS.values():
            _wait_for_answer(kind.url(machine.address, path), Route(connect_to=machine.address, root=root))
    figures: dict[str, Any] = {kind.name: {"text": kind.text, **{what: [] for what in PATHS}} for kind in kinds}
    seconds = 2 if quick else 4
    for number in rounds(1 if quick else 5, 200):
        for what, path in PATHS.items():
            for kind in kinds[number % len(kinds) :] + kinds[: number % len(kinds)]:
                url = kind.url(machine.address, path)
                _ask(visitor, url, WARM_UP)
                found = _ask(visitor, url, seconds)
                environment.say(
                    f"{what}, {kind.name}: {found['rate']:.0f} requests/s, p50 {found['p50_ms']:.1f} ms,"
                    f" p99 {found['p99_ms']:.1f} ms, {found['failed']} failed"
                )
                figures[kind.name][what].append(found)
    return {
        "versions": dict(_versions(machine, visitor, release)),
        "connections": CONNECTIONS,
        "seconds": seconds,
        "set_ups": figures,
    }


def _processes(machine: Machine, release: str) -> tuple[int, int]:
    """Return the number of workers, and of threads in each, that Decant chose on this machine."""
    master = machine.run(f"systemctl show --value --property=MainPID app@{release}").stdout.strip()
    workers = len(machine.run(f"cat /proc/{master}/task/*/children").stdout.split())
    settings = machine.run("cat /opt/decant/python/gunicorn_settings.py").stdout
    threads = re.search(r"^threads = .*? or \(?(\d+)\b", settings, re.MULTILINE)
    if threads is None:
        raise BenchError("gunicorn_settings.py does not say how many threads there are by default")
    return workers, int(threads[1])


def _install(machine: Machine, release: str, kinds: list[SetUp]) -> None:
    """Start the other set-ups: the same code and virtual environment, with units and ports of their own."""
    home = f"/var/lib/decant/releases/{release}"
    machine.run(
        f"mkdir -p {APP}/public && cp -r {home}/app {APP}/app && cp -r {home}/app/static {APP}/public/"
        f" && chmod -R a+rX {APP} && systemctl stop unattended-upgrades apt-daily.timer apt-daily-upgrade.timer"
    )
    for kind in kinds:
        if not kind.socket:
            continue  # it runs already
        bind = kind.socket if ":" in kind.socket else f"unix:{kind.socket}"
        # systemd makes a socket in /run and passes it on, as on gunicorn's page.
        passed = [f"--socket-property=ListenStream={kind.socket}"] if ":" not in kind.socket else []
        argv = [f"{home}/venv/bin/python", "-m", "gunicorn", *([] if passed else ["--bind", bind]), *kind.gunicorn]
        unit = [f"--unit=bench-{kind.name}", "--quiet", "--property=User=decant", "--property=PrivateTmp=yes"]
        unit += [f"--property=WorkingDirectory={APP}/app", "--property=StateDirectory=bench"]
        unit += ["--setenv=PROXY_HOPS=1", "--setenv=DATA_DIR=/var/lib/bench", f"--setenv=DECANT_RELEASE={release}"]
        unit += ["--setenv=PYTHONDONTWRITEBYTECODE=1"]
        machine.run(shlex.join(["systemd-run", *unit, *passed, *argv, "wsgi:app"]))
        if kind.nginx:
            text = (FILES / kind.nginx).read_text().replace("PORT", str(kind.port)).replace("SOCKET", kind.socket)
            machine.run(f"cat > {APP}/{kind.name}.conf", input=text)
            machine.run(f"systemd-run --quiet --unit=bench-nginx-{kind.name} --service-type=forking"
                        f" nginx -c {APP}/{kind.name}.conf")  # fmt: skip


def _serve_https(machine: Machine) -> str:
    """Let Decant's nginx serve HTTPS by a name, besides HTTP by the address, and return the root as PEM.

    Only the certificate authority is missing: the certificate is its own root.
    """
    https: HttpsSettings = {
        "names": [NAME], "by_address": False, "own": False, "profile": "classic", "server": "",
        "root": False, "email": None, "resolvers": [], "hsts": None,
    }  # fmt: skip
    limits = render.Limits(request_timeout=30, max_body=16 << 20)
    site = render.HostSite(names=(NAME,), tunnel_names=(machine.address,), https=https)
    text = render.nginx_conf(machine="web-1", site=site, proxy=None, health_path="/healthz", limits=limits)
    live = "/var/lib/decant/tls/live"
    machine.run(
        f"install -d -m 0750 -g www-data {live} && cd {live} && openssl req -x509 -newkey ec -pkeyopt"
        " ec_paramgen_curve:P-256 -nodes -days 9 -keyout privkey.pem -out fullchain.pem -subj /CN=bench"
        f" -addext subjectAltName=DNS:{NAME} 2>&1 && chgrp www-data *.pem && chmod 0640 *.pem"
    )
    machine.run("cat > /etc/decant/nginx.conf && systemctl reload nginx", input=text)
    return machine.run(f"cat {live}/fullchain.pem").stdout


def _wait_for_answer(url: str, route: Route) -> None:
    deadline = time.monotonic() + PATIENCE
    while (seen := probe(url, route=route)).status != 200:
        if time.monotonic() > deadline:
            raise BenchError(f"{url} gave {seen.why} for {PATIENCE:.0f} s")
        time.sleep(0.1)


def _ask(visitor: Machine, url: str, seconds: int) -> dict[str, Any]:
    argv = ["wrk", "--threads", "2", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"]
    output = visitor.run([*argv, "--script", "/root/report.lua", url], timeout=seconds + 60).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    if not found["requests"] or found["failed"] > found["requests"] / 2:
        raise BenchError(f"{url} does not answer as it should: {found}")
    found["rate"] = round(found["requests"] / found["seconds"], 1)
    return found


def _versions(machine: Machine, visitor: Machine, release: str) -> Iterator[tuple[str, str]]:
    python = f"/var/lib/decant/releases/{release}/venv/bin/python"
    asked = f'{python} -c "import gunicorn, flask, importlib.metadata as m, platform;'
    asked += " print(gunicorn.__version__, m.version('flask'), platform.python_version())\""
    gunicorn, flask, version = machine.run(asked).stdout.split()
    yield "gunicorn", gunicorn
    yield "flask", flask
    yield "python on the machine", version
    yield "nginx", machine.run("nginx -v 2>&1").stdout.strip().rpartition("/")[2].split()[0]
    yield "wrk", visitor.run("dpkg-query -W -f '${Version}' wrk").stdout.strip()
