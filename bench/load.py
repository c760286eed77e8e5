"""The load bench: one release after another while many people visit, on one machine and on several."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.lab import Lab, Machine
from bench.tools import Decant, decant, versions
from bench.visitors import MIXED, Visitors
from rehearsal.balancer import BalancerMachine
from rehearsal.doubles import Check

RATE = 400.0  # requests a second
BETWEEN = 5.0  # seconds of nothing but visitors before each release, to compare with
INSIDE = "10.66.0.{}"  # addresses of balancer and machines in a network of their own
# What the app thinks about: more than a second, as some page always does.
SLOW = """

import time


@app.get("/slow")
def _slow() -> str:
    time.sleep(1.5)
    return "slow"
"""


def measure(lab: Lab, *, quick: bool) -> dict[str, Any]:
    """Raw figures: what visitors saw before and during the releases."""
    cases = [("one machine", 1, 10), ("three machines behind a balancer", 3, 5)]
    return {
        "versions": {name: version for name, version in versions().items() if name == "pulumi"},
        "rate": RATE,
        "cases": {name: _case(lab, count, 2 if quick else releases) for name, count, releases in cases},
    }


def _case(lab: Lab, count: int, releases: int) -> dict[str, Any]:
    machines = [lab.boot(f"load-{count}-{number}") for number in range(count)]
    address, more = machines[0].address, {}
    if count > 1:
        balancer = _balance(lab, machines)
        machines.append(balancer.machine)
        address = balancer.address
        more = {"url": f"http://{address}", "trustedProxies": [f"{INSIDE.format(2)}/32"]}
    tool = _tool(lab, machines[:count], more)
    lab.say(f"putting the app live on {count} machine(s)")
    tool.up(first=True)
    spans = Spans([], [], [])
    with Visitors(address, rate=RATE, kinds=MIXED, mark="x-release") as visitors:
        time.sleep(3)  # whoever is new takes a moment
        tool.behind = True
        for number in range(releases):
            with spans.timed(spans.between):
                time.sleep(BETWEEN)
            tool.change(str(number))
            # This computer also plays the user's: what planning alone does to the visitors is no release's doing.
            if tool.plans:
                with spans.timed(spans.planning):
                    tool.plan()
            with spans.timed(spans.releases):
                tool.up(first=False)
            lab.say(f"{count} machine(s), release {number + 1} under load: {visitors.told(spans.releases[-1])}")
        time.sleep(BETWEEN)
    for machine in machines:
        machine.power_off()
    return {
        "between": visitors.told(*spans.between),
        "planning": visitors.told(*spans.planning),
        "during": visitors.told(*spans.releases),
        "releases": [
            {"seconds": round(end - start, 2), **visitors.told((start, end))} for start, end in spans.releases
        ],
    }


@dataclass(frozen=True)
class Spans:
    """When what went on: from and until, by time.monotonic."""

    between: list[tuple[float, float]]
    planning: list[tuple[float, float]]
    releases: list[tuple[float, float]]

    @staticmethod
    @contextlib.contextmanager
    def timed(spans: list[tuple[float, float]]) -> Iterator[None]:
        """Add the time that the block takes."""
        began = time.monotonic()
        yield
        spans.append((began, time.monotonic()))


def _tool(lab: Lab, machines: Sequence[Machine], more: Mapping[str, Any]) -> Decant:
    tool = decant()(lab, *machines, more=more)
    tool.wsgi += SLOW
    tool.change("first")
    return tool


def _balance(lab: Lab, machines: Sequence[Machine]) -> BalancerMachine:
    """HAProxy, as a rehearsal has it, that spreads requests over the machines."""
    check = Check(path="/healthz", interval=10, timeout=5, rise=2, fall=2, idle=60, keepalive=True, host=None)
    balancer = BalancerMachine.start(lab.network, "balancer", f"{INSIDE.format(2)}/24", check, lab.say)
    balancer.wait_serving()
    inside = [INSIDE.format(10 + number) for number in range(len(machines))]
    for machine, own in zip(machines, inside, strict=True):
        machine.add_address(f"{own}/24")
    balancer.set_targets(inside)
    return balancer
