"""The serving bench: Decant's set-up and others on one machine, each measured alone and in turn."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench import https
from bench.environment import HERE, BenchError, Environment, rounds
from bench.https import CONNECTIONS, WARM_UP, wrk
from bench.tools import decant
from decant.rollout.http_probe import probe
from rehearsal.machines.machine import Machine

FILES = HERE / "serve"
PATHS = {"dynamic": "/healthz", "static": "/static/style.css"}
APP = "/srv/bench"
PATIENCE = 30.0  # seconds until a set-up that was just started must answer


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """A way to serve the app. `gunicorn` has its arguments, `nginx` the file of its configuration or None.

    Decant's own set-up has neither.
    """

    name: str
    text: str
    port: int
    gunicorn: tuple[str, ...] = ()
    nginx: str | None = None
    socket: str = ""


def set_ups(workers: int, threads: int) -> list[SetUp]:
    """Return Decant's set-up and those that it is compared with, which have as many worker processes."""
    many = ("--workers", str(workers))
    return [
        SetUp(
            name="decant", text=f"Decant: nginx, {workers} gthread workers of {threads} threads, unix socket", port=80
        ),
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
    for kind in kinds:
        for path in PATHS.values():
            _wait_for_answer(f"http://{machine.address}:{kind.port}{path}")
    figures: dict[str, Any] = {kind.name: {"text": kind.text, **{what: [] for what in PATHS}} for kind in kinds}
    seconds = 2 if quick else 4
    for number in rounds(1 if quick else 5, 200):
        for what, path in PATHS.items():
            for kind in kinds[number % len(kinds) :] + kinds[: number % len(kinds)]:
                url = f"http://{machine.address}:{kind.port}{path}"
                wrk(visitor, url, WARM_UP, connections=CONNECTIONS, threads=2)
                found = wrk(visitor, url, seconds, connections=CONNECTIONS, threads=2)
                environment.say(
                    f"{what}, {kind.name}: {found['rate']:.0f} requests/s, p50 {found['p50_ms']:.1f} ms,"
                    f" p99 {found['p99_ms']:.1f} ms, {found['failed']} failed"
                )
                figures[kind.name][what].append(found)
    over_https = https.measure(environment, machine, visitor, quick=quick)
    return {
        "versions": dict(_versions(machine, visitor, release)),
        "connections": CONNECTIONS,
        "seconds": seconds,
        "set_ups": figures,
        **({"https": over_https} if over_https else {}),
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


def _wait_for_answer(url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while (seen := probe(url)).status != 200:
        if time.monotonic() > deadline:
            raise BenchError(f"{url} gave {seen.why} for {PATIENCE:.0f} s")
        time.sleep(0.1)


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
