"""What HTTPS costs: requests on kept connections beside plain HTTP, and full handshakes beside nginx's own.

The machine has one core to itself and the load generator another one. The machine's processor time for each request
comes from its control group, so it does not depend on the generator, which encrypts as much as the machine does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.environment import HERE, BenchError, Environment, rounds, this_computer
from decant.host import manifest, render
from decant.rollout.http_probe import probe
from decant.rollout.route import Route
from decant_host.protocol import HttpsSettings
from rehearsal.issuer import Issuer
from rehearsal.machines.machine import Machine

FILES = HERE / "serve"
CONNECTIONS = 32  # kept alive
AT_ONCE = 8  # new connections
NAME = "bench.test"  # of the machine
LIVE = "/var/lib/decant/tls/live"
STOCK = "/srv/bench/stock"
HTTP_PORT, HTTPS_PORT = 8086, 8446  # of nginx with its own settings
STATIC = "/static/style.css"
WARM_UP = 1  # seconds before each measurement, not counted


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way to ask the machine. `new`: on a new connection for each request, with a full handshake over HTTPS."""

    name: str
    url: str
    new: bool


def measure(environment: Environment, machine: Machine, visitor: Machine, *, quick: bool) -> dict[str, Any] | None:
    """Return raw figures of all cases, in interleaved rounds; None on a computer with one core alone.

    The machine serves the app already, and the visitor has wrk and report.lua.
    """
    if len(os.sched_getaffinity(0)) < 2:
        environment.say("HTTPS is not measured: the machine and the load generator need a core each")
        return None
    visitor.run("apt-get -qqy install --no-install-recommends apache2-utils", timeout=300)
    cases, on = prepare(machine, visitor), this_computer()
    figures: dict[str, list[dict[str, float]]] = {case.name: [] for case in cases}
    seconds, connections = (2, 1000) if quick else (4, 4000)
    with pinned(machine):
        for number in rounds(1 if quick else 9, 300):
            # Each round turns the order around, so that no case always has the warmer machine.
            for case in cases if number % 2 == 0 else cases[::-1]:
                found = ask(machine, visitor, case, seconds, connections)
                environment.say(f"{case.name}: {found['rate']:.0f}/s, {found['microseconds']:.0f} us of the machine")
                figures[case.name].append(found)
    nginx = machine.run("nginx -v 2>&1").stdout.strip().rpartition("/")[2].split()[0]
    return {
        "on": on, "versions": {"nginx": nginx}, "seconds": seconds, "connections": connections, "cases": figures
    }  # fmt: skip


@contextlib.contextmanager
def pinned(machine: Machine) -> Iterator[None]:
    """Leave the machine one core, and all that this process starts, such as the load generator, the others."""
    before = os.sched_getaffinity(0)
    first = min(before)
    machine.pin(first)
    os.sched_setaffinity(0, before - {first})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def prepare(machine: Machine, visitor: Machine) -> Sequence[Case]:
    """Serve HTTPS by a name with Decant's settings, and with nginx's own on other ports; the key is the same."""
    issuer = Issuer()
    issued = issuer.issue(NAME)
    for folder in (LIVE, STOCK):
        machine.run(f"install -d -m 0750 -g www-data {folder}")
        for file, text in (("fullchain.pem", issued.fullchain), ("privkey.pem", issued.key)):
            machine.run(f"cat > {folder}/{file} && chgrp www-data {folder}/{file}", input=text)
    machine.run("systemctl stop decant-certificate.timer")  # no authority is there to ask
    machine.run("cat > /etc/decant/nginx.conf", input=_ours(machine))
    fit = manifest.read("scripts/fit-nginx.sh").decode()
    machine.run(["bash", "-s", "/etc/decant/nginx.conf"], input=fit)
    machine.run("systemctl reload nginx")
    stock = (FILES / "stock.conf").read_text().replace("HTTPS_PORT", str(HTTPS_PORT))
    machine.run("cat > /srv/bench/stock.conf", input=stock.replace("HTTP_PORT", str(HTTP_PORT)))
    machine.run("systemd-run --quiet --unit=bench-nginx-stock --service-type=forking nginx -c /srv/bench/stock.conf")
    visitor.run(f"echo {machine.address} {NAME} >> /etc/hosts")
    plain, secure = f"http://{machine.address}", f"https://{NAME}"
    cases = (
        Case(name="kept, HTTP", url=f"{plain}/healthz", new=False),
        Case(name="kept, HTTPS", url=f"{secure}/healthz", new=False),
        Case(name="new, HTTP", url=f"{plain}{STATIC}", new=True),
        Case(name="new, HTTPS", url=f"{secure}{STATIC}", new=True),
        Case(name="new, HTTP, nginx's own settings", url=f"{plain}:{HTTP_PORT}{STATIC}", new=True),
        Case(name="new, HTTPS, nginx's own settings", url=f"{secure}:{HTTPS_PORT}{STATIC}", new=True),
    )
    for case in cases:
        seen = probe(case.url, route=Route(connect_to=machine.address, root=issuer.root))
        if seen.status != 200:
            raise BenchError(f"{case.url} gave {seen.why}")
    return cases


def _ours(machine: Machine) -> str:
    """Decant's configuration for a site with a name. By its address, the machine answers over plain HTTP, too."""
    https: HttpsSettings = {
        "names": [NAME], "by_address": False, "own": False, "profile": "classic", "server": "",
        "root": False, "email": None, "resolvers": [], "hsts": None,
    }  # fmt: skip
    limits = render.Limits(request_timeout=30, max_body=16 << 20)
    site = render.HostSite(names=(NAME,), tunnel_names=(machine.address,), https=https)
    return render.nginx_conf(machine="web-1", site=site, proxy=None, health_path="/healthz", limits=limits)


def ask(machine: Machine, visitor: Machine, case: Case, seconds: int, connections: int) -> dict[str, float]:
    """Measure one case: its rate, and the machine's microseconds of processor time for each request."""
    if not case.new:
        wrk(visitor, case.url, WARM_UP, connections=CONNECTIONS, threads=1)
    before = machine.processor_seconds()
    if case.new:
        requests, rate = _new_connections(visitor, case.url, connections)
    else:
        found = wrk(visitor, case.url, seconds, connections=CONNECTIONS, threads=1)
        requests, rate = int(found["requests"]), found["rate"]
    used = machine.processor_seconds() - before
    return {"requests": requests, "rate": rate, "microseconds": round(used / requests * 1e6, 1)}


def wrk(visitor: Machine, url: str, seconds: int, *, connections: int, threads: int) -> dict[str, Any]:
    """Load a page on kept connections, and return what report.lua prints, with the rate."""
    argv = ["wrk", "--threads", str(threads), "--connections", str(connections), "--duration", f"{seconds}s"]
    output = visitor.run([*argv, "--script", "/root/report.lua", url], timeout=seconds + 60).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    if not found["requests"] or found["failed"] > found["requests"] / 2:
        raise BenchError(f"{url} does not answer as it should: {found}")
    found["rate"] = round(found["requests"] / found["seconds"], 1)
    return found


def _new_connections(visitor: Machine, url: str, number: int) -> tuple[int, float]:
    """Ask for a page on as many new connections, without resuming a session; returns the number and the rate."""
    said = visitor.run(["ab", "-q", "-d", "-n", str(number), "-c", str(AT_ONCE), url], timeout=120).stdout
    values = dict(
        re.findall(r"^(Complete requests|Failed requests|Requests per second): +([\d.]+)", said, re.MULTILINE)
    )
    if values.get("Failed requests") != "0" or values.get("Complete requests") != str(number):
        raise BenchError(f"{url} does not answer as it should:\n{said}")
    return number, float(values["Requests per second"])
