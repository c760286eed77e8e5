"""Two machines behind a balancer, as the program makes them: who serves whom, and what a visitor's word counts."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from decant.clouds import base
from decant.host import steps
from decant.rollout.http_probe import probe
from rehearsal.balancer import BalancerMachine
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from rehearsal.machines.reaper import owned_network
from tests.support.events import event_times
from tests.support.project_copy import Project, Run
from tests.support.visitors import Visitors
from tests.support.waiting import PATIENCE, wait_for
from tests.support.websocket import WebSocket

NAMES = {"web-1", "web-2"}
# The cloud's own would have every step here wait for 25 s; the order of all of them stays the same.
QUICKER = {
    ("base.py", "CHECK_INTERVAL = 10"): "CHECK_INTERVAL = 3",
    ("base.py", "CHECK_TIMEOUT = 5"): "CHECK_TIMEOUT = 2",
    ("digitalocean/balancer.py", "IDLE_TIMEOUT = 600"): "IDLE_TIMEOUT = 60",
}
NOTICED = 2 * 3 + 2


@dataclass(kw_only=True)
class Idle:
    """Two connections that say nothing for a while, beside everything else here: one through the balancer and one to a
    machine, as a balancer keeps them. `answers` has what came when they were used again."""

    answers: dict[str, Any] = field(default_factory=dict)

    def use_again(self, name: str, address: str, host: str, seconds: float) -> None:
        connection = http.client.HTTPConnection(address, 80, timeout=PATIENCE)
        for wait in (0, seconds):
            time.sleep(wait)
            if wait:
                connection.auto_open = 0  # it would hide that the other side has hung up
            try:
                connection.request("GET", "/healthz", headers={"Host": host})
                reply = connection.getresponse()
                reply.read()
                self.answers[name] = reply.status
            except (OSError, http.client.HTTPException) as error:
                self.answers[name] = repr(error)
        connection.close()


@dataclass(kw_only=True)
class Fleet:
    run: Run
    network: Network
    balancer: BalancerMachine
    machines: dict[str, Machine]
    inside: dict[str, str]
    idle: Idle
    threads: list[threading.Thread]

    @property
    def address(self) -> str:
        """What visitors ask: the balancer's."""
        return self.balancer.address

    def serving(self) -> set[str]:
        """Whom requests reach."""
        return {probe(f"http://{self.address}/").machine.partition(".")[0] for _ in range(10)}

    def ask(self, path: str, *, to: str = "", **headers: str) -> tuple[int, Any]:
        """One request, of the balancer unless another address is given: status, and the body if it is JSON."""
        with contextlib.closing(http.client.HTTPConnection(to or self.address, 80, timeout=PATIENCE)) as connection:
            try:
                connection.request("GET", path, headers=headers)
                reply = connection.getresponse()
            except ConnectionResetError:
                return 444, None  # as nginx calls it when it hangs up
            body = reply.read()
            return reply.status, json.loads(body) if body.startswith(b"{") else body

    def check(self, name: str, *headers: str) -> str:
        """The first line of a machine's answer to its health check, asked from where the balancer asks."""
        asked = "\r\n".join(["GET /healthz HTTP/1.1", "Connection: close", *headers, "", ""])
        socat = ["socat", "-t", "10", "-", f"TCP:{self.inside[name]}:80,shut-none"]  # nginx answers nobody who hung up
        return self.balancer.machine.run(socat, input=asked).stdout.partition("\n")[0]


@pytest.fixture(scope="module")
def fleet(folder: Path) -> Iterator[Fleet]:
    project = Project(folder / "balanced")
    project.add_probe()
    for (name, given), quicker in QUICKER.items():
        constants = project.folder / "infra" / "decant" / "clouds" / name
        text = constants.read_text()
        assert given in text
        constants.write_text(text.replace(given, quicker))
    with owned_network("hosts-fleet") as network:
        config = {"decant:cloud": "digitalocean", "decant:machines": 2, "decant:adminCidrs": [network.cidr]}
        run = project.run(network, config, stack="balanced")
        assert run.status == 0, run.error + run.log
        machines = {machine.name: machine for machine in network.machines()}
        balancer = BalancerMachine(machines.pop("balancer"))
        inside = {}
        for name, machine in machines.items():
            shown = machine.run("ip -4 -oneline address show dev host0").stdout.split()
            inside[name] = next(word.partition("/")[0] for word in shown if word.startswith("10."))
        idle = Idle()
        threads = [
            threading.Thread(target=idle.use_again, args=given, daemon=True)
            for given in (
                ("balancer", balancer.address, balancer.address, base.IDLE_TIMEOUT - 4),
                ("machine", machines["web-1"].address, balancer.address, base.IDLE_TIMEOUT + 2),
            )
        ]
        for thread in threads:
            thread.start()
        yield Fleet(
            run=run, network=network, balancer=balancer, machines=machines, inside=inside, idle=idle, threads=threads
        )


def test_both_machines_serve_through_the_balancer(fleet: Fleet) -> None:
    assert fleet.run.outputs["url"] == f"http://{fleet.address}"
    assert {machine["name"] for machine in fleet.run.outputs["machines"]} == NAMES
    assert fleet.serving() == NAMES
    assert set(fleet.balancer.states()) == set(fleet.inside.values())


# ------------------------------------------------------------------------------------------------ who asks


FORGED: Mapping[str, str] = {
    "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "evil", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Ssl": "on", "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=https",
}  # fmt: skip


@pytest.mark.parametrize("to", ["", "web-1", "web-2"])
def test_forged_headers_change_neither_address_nor_scheme(fleet: Fleet, to: str) -> None:
    """Through the balancer, and at a machine past it, where only the cloud's firewall keeps visitors out."""
    address = fleet.machines[to].address if to else fleet.address
    for headers in ({}, FORGED, {"X-Forwarded-For": f"6.6.6.6, {next(iter(fleet.inside.values()))}"}):
        status, seen = fleet.ask("/request", to=address, Host=fleet.address, **headers)
        assert status == 200
        assert (seen["client"], seen["scheme"], seen["host"]) == (fleet.network.gateway, "http", fleet.address)
    _, environ = fleet.ask("/request", to=address, Host=fleet.address, **FORGED, **{"X-Probe": "environ"})
    assert [name for name, value in environ.items() if "evil" in str(value) or "6.6.6.6" in str(value)] == []
    assert not {"HTTP_X_FORWARDED_SSL", "HTTP_FORWARDED"} & set(environ)


def test_another_visitor_has_another_address(fleet: Fleet) -> None:
    """Not each visitor the balancer's, and not each this computer's."""
    visitor = fleet.machines["web-2"]
    code = f"import urllib.request; print(urllib.request.urlopen('http://{fleet.address}/request').read().decode())"
    assert json.loads(visitor.run(["python3", "-c", code]).stdout)["client"] == visitor.address


def test_websockets_and_streams_pass_the_balancer(fleet: Fleet) -> None:
    """To both machines, and for longer than a moment."""
    opened = [WebSocket(fleet.address, "/", headers={"X-Probe": "websocket"}) for _ in range(4)]
    for one in [*opened, *opened]:
        one.send("hello")
        assert one.receive() == f"{fleet.run.release} hello"
    for one in opened:
        one.close()
    came = event_times(fleet.address)
    assert len(came) == 3
    assert all(0.3 < later - earlier < 0.8 for earlier, later in itertools.pairwise(came))


def test_other_names_are_not_found(fleet: Fleet) -> None:
    for machine in fleet.machines.values():
        assert fleet.ask("/", to=machine.address)[0] == 404, "by its own address, which is not the site's name"
        assert fleet.ask("/", to=machine.address, Host="evil.example")[0] == 404
    assert fleet.ask("/", Host="evil.example")[0] == 404, "no 502, which a balancer makes of no answer"


# ------------------------------------------------------------------------------------------------ health


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("asked", ["evil.example", "10.110.16.3", "localhost", "the site"])
def test_health_checks_are_answered_for_any_host(fleet: Fleet, name: str, asked: str) -> None:
    asked = fleet.address if asked == "the site" else asked
    assert fleet.check(name, f"Host: {asked}") == "HTTP/1.1 200 OK"


def test_health_checks_for_any_host_are_the_balancers_alone(fleet: Fleet) -> None:
    for machine in fleet.machines.values():
        assert fleet.ask("/healthz", to=machine.address)[0] == 404
        assert fleet.ask("/healthz", to=machine.address, Host="evil.example")[0] == 404
    assert fleet.ask("/healthz", Host="evil.example")[0] == 404, "a visitor, though it is the balancer that asks"
    assert fleet.ask("/healthz")[0] == 200


def test_a_closed_machine_says_so_to_its_balancer_and_serves_visitors(fleet: Fleet) -> None:
    machine = fleet.machines["web-1"]
    machine.run("rm /run/decant/open")
    try:
        for asked in ("evil.example", fleet.address):
            assert fleet.check("web-1", f"Host: {asked}").startswith("HTTP/1.1 503")
            visit = fleet.check("web-1", f"Host: {fleet.address}", "X-Forwarded-For: 192.0.2.1")
            assert visit == "HTTP/1.1 200 OK", "what still comes is answered"
    finally:
        machine.run("touch /run/decant/open")
    wait_for(lambda: fleet.serving() == NAMES, "both machines behind the balancer")


# ------------------------------------------------------------------------------------------------ coming and going


def test_stopping_the_app_by_hand_takes_the_machine_out_first(fleet: Fleet) -> None:
    machine, app = fleet.machines["web-2"], f"app@{fleet.run.release}"
    with Visitors(fleet.address) as visitors:
        began = time.monotonic()
        machine.run(["systemctl", "stop", app])
        assert time.monotonic() - began > NOTICED, "it serves until its balancer has noticed"
        assert fleet.balancer.states()[fleet.inside["web-2"]] == "DOWN"
        assert fleet.serving() == {"web-1"}
        machine.run(["systemctl", "start", app])
        wait_for(lambda: fleet.serving() == NAMES, "both machines behind the balancer")
        visitors.more()
    assert visitors.failures == []


def test_a_reboot_takes_the_machine_out_and_brings_it_back(fleet: Fleet) -> None:
    machine = fleet.machines["web-2"]
    with Visitors(fleet.address) as visitors:
        machine.reboot()
        assert fleet.serving() == {"web-1"}
        wait_for(lambda: fleet.serving() == NAMES, "both machines behind the balancer")
        visitors.more()
    assert visitors.failures == []
    assert json.loads(machine.run([steps.PROGRAM, "status"]).stdout)["current"] == fleet.run.release


def test_who_is_no_target_any_more_gets_nothing_and_nobody_is_cut_off(fleet: Fleet) -> None:
    both = [fleet.inside[name] for name in sorted(NAMES)]
    nobody = str(both[0]).rpartition(".")[0] + ".250"
    with Visitors(fleet.address) as visitors:
        for _ in range(3):
            fleet.balancer.set_targets([*both, nobody])
            fleet.balancer.set_targets(both[:1])
        visitors.more()
        assert fleet.serving() == {"web-1"}
        fleet.balancer.set_targets(both)
        assert fleet.balancer.states()[both[1]] == "DOWN", "whoever is new has to pass its checks"
        wait_for(lambda: fleet.serving() == NAMES, "both machines behind the balancer")
    assert visitors.failures == []


@pytest.mark.thorough  # it takes the minute that a balancer keeps a connection
def test_connections_that_are_idle_for_long_can_be_used_again(fleet: Fleet) -> None:
    """A visitor's for as long as the balancer keeps it; the balancer's own for longer than it keeps them."""
    for thread in fleet.threads:
        thread.join(2 * PATIENCE)
    assert fleet.idle.answers == {"balancer": 200, "machine": 200}
