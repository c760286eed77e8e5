"""The load bench: one release after another under load, on one machine and on several."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.environment import Environment
from bench.tools import Decant, decant, versions
from bench.visitors import MIXED, Visitors
from rehearsal.backend import Check
from rehearsal.balancer import BalancerMachine
from rehearsal.machines.machine import Machine

RATE = 400.0  # requests a second
BETWEEN = 5.0  # seconds of load alone before each release, to compare with
INSIDE = "10.66.0.{}"  # private addresses of the balancer and the machines
# A page that takes more than a second, as one page of most apps does.
SLOW = """

import time


@app.get("/slow")
def _slow() -> str:
    time.sleep(1.5)
    return "slow"
"""


def measure(environment: Environment, *, quick: bool) -> dict[str, Any]:
    """Return raw figures: what visitors saw before and during the releases."""
    cases = [("one machine", 1, 10), ("three machines behind a balancer", 3, 5)]
    return {
        "versions": {name: version for name, version in versions().items() if name == "pulumi"},
        "rate": RATE,
        "cases": {name: _case(environment, count, 2 if quick else releases) for name, count, releases in cases},
    }


def _case(environment: Environment, count: int, releases: int) -> dict[str, Any]:
    machines = [environment.boot(f"load-{count}-{number}") for number in range(count)]
    address, settings = machines[0].address, {}
    if count > 1:
        balancer = _balance(environment, machines)
        machines.append(balancer.machine)
        address = balancer.address
        settings = {"url": f"http://{address}", "trustedProxies": [f"{INSIDE.format(2)}/32"]}
    tool = _tool(environment, machines[:count], settings)
    environment.say(f"putting the app live on {count} machine(s)")
    tool.up(first=True)
    spans = Spans([], [], [])
    with Visitors(address, rate=RATE, kinds=MIXED, release_header="x-release") as visitors:
        time.sleep(3)  # a new balancer takes a moment
        tool.low_priority = True
        for number in range(releases):
            with spans.timed(spans.between):
                time.sleep(BETWEEN)
            tool.change(str(number))
            # On this computer, the user's command slows the visitors down, too. A preview shows by how much.
            if tool.plans:
                with spans.timed(spans.planning):
                    tool.plan()
            with spans.timed(spans.releases):
                tool.up(first=False)
            environment.say(
                f"{count} machine(s), release {number + 1} under load: {visitors.statistics(spans.releases[-1])}"
            )
        time.sleep(BETWEEN)
    for machine in machines:
        machine.power_off()
    return {
        "between": visitors.statistics(*spans.between),
        "planning": visitors.statistics(*spans.planning),
        "during": visitors.statistics(*spans.releases),
        "releases": [
            {"seconds": round(end - start, 2), **visitors.statistics((start, end))} for start, end in spans.releases
        ],
    }


@dataclass(frozen=True)
class Spans:
    """The times of each phase: beginning and end, by time.monotonic."""

    between: list[tuple[float, float]]
    planning: list[tuple[float, float]]
    releases: list[tuple[float, float]]

    @staticmethod
    @contextlib.contextmanager
    def timed(spans: list[tuple[float, float]]) -> Iterator[None]:
        """Append the time of the block."""
        began = time.monotonic()
        yield
        spans.append((began, time.monotonic()))


def _tool(environment: Environment, machines: Sequence[Machine], settings: Mapping[str, Any]) -> Decant:
    tool = decant()(environment, *machines, settings=settings)
    tool.wsgi += SLOW
    tool.change("first")
    return tool


def _balance(environment: Environment, machines: Sequence[Machine]) -> BalancerMachine:
    """Start a rehearsal's balancer (HAProxy) that spreads requests over the machines."""
    check = Check(path="/healthz", interval=10, timeout=5, rise=2, fall=2, idle=60, keepalive=True, host=None)
    balancer = BalancerMachine.start(environment.network, "balancer", f"{INSIDE.format(2)}/24", check, environment.say)
    balancer.wait_serving()
    inside = [INSIDE.format(10 + number) for number in range(len(machines))]
    for machine, own in zip(machines, inside, strict=True):
        machine.add_address(f"{own}/24")
    balancer.set_targets(inside)
    return balancer
