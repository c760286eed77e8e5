"""The deploy bench: how long each tool takes, and how many requests fail meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, TypeVar

from bench.environment import BenchError, Environment, rounds
from bench.tools import Ansible, Fabric, Pyinfra, Tool, decant, versions
from bench.visitors import Visitors

WATCHING = 20.0  # requests a second, to see when a release has come
LOAD = 200.0  # requests a second during a release under load
BEFORE = 4.0  # seconds of load before a release, to compare with
AFTER = 2.0  # seconds of load after it
PATIENCE = 60.0  # seconds until the URL must answer once the command has ended

T = TypeVar("T")


def measure(environment: Environment, *, quick: bool) -> dict[str, Any]:
    """Return raw figures of all tools. Rounds are interleaved, so a slow minute of the computer affects all of them."""
    kinds: list[type[Tool]] = [decant(), Ansible, Pyinfra, Fabric]
    figures: dict[str, Any] = {
        kind.name: {"command": kind.command, **{what: [] for what in ("first", "again", "release", "live", "loaded")}}
        for kind in kinds
    }
    numbers = iter(range(1_000_000))
    tools: list[Tool] = []

    for number in rounds(1 if quick else 3, 200):
        for old in tools:
            old.machine.power_off()
        tools = []
        for kind in _turned(kinds, number):
            tool = kind(environment, environment.boot(f"{kind.name.lower()}-{number}"))
            taken, _ = _release(tool, str(next(numbers)), first=True)
            environment.say(f"first deploy by {tool.name}: {taken:.1f} s")
            figures[tool.name]["first"].append(round(taken, 2))
            tools.append(tool)

    def in_turn(count: int) -> Iterator[tuple[Tool, dict[str, Any]]]:
        for number in rounds(count, 90):
            for tool in _turned(tools, number):
                yield tool, figures[tool.name]

    for tool, found in in_turn(1 if quick else 5):
        taken = tool.up(first=False)
        environment.say(f"nothing to do by {tool.name}: {taken:.2f} s")
        found["again"].append(round(taken, 2))
    for tool, found in in_turn(1 if quick else 5):
        taken, live = _release(tool, str(next(numbers)))
        environment.say(f"release by {tool.name}: {taken:.2f} s, live after {live:.2f} s")
        found["release"].append(round(taken, 2))
        found["live"].append(round(live, 2))
    for tool, found in in_turn(1 if quick else 3):
        seen = _loaded(tool, str(next(numbers)))
        environment.say(
            f"release under load by {tool.name}: {seen['during']['failed']} of {seen['during']['requests']} requests"
            f" failed, p99 {seen['during']['p99_ms']:.0f} ms (usually {seen['before']['p99_ms']:.0f} ms),"
            f" {seen['seconds']:.1f} s"
        )
        found["loaded"].append(seen)
    return {"versions": versions(), "tools": figures}


def _turned(items: list[T], by: int) -> list[T]:
    """Return the items in an order that begins with another one each round."""
    by %= len(items)
    return items[by:] + items[:by]


def _release(tool: Tool, release: str, *, first: bool = False) -> tuple[float, float]:
    """Put a release live and return two times in seconds, both from the start of the command.

    The first is until the command has ended and the URL gives the new release alone, the second until the URL does.
    """
    tool.change(release)
    with Visitors(tool.machine.address, rate=WATCHING) as visitors:
        began = time.monotonic()
        tool.up(first=first)
        return _verified(tool, visitors, release, began)


def _verified(tool: Tool, visitors: Visitors, release: str, began: float) -> tuple[float, float]:
    ended = time.monotonic()
    deadline = ended + PATIENCE
    while (seen := visitors.verified(release)) is None or time.monotonic() < max(seen, ended) + 0.5:
        if time.monotonic() > deadline:
            last = visitors.visits[-1] if visitors.visits else "nothing"
            raise BenchError(f"{tool.name} ended, but http://{tool.machine.address}/ does not give its release: {last}")
        time.sleep(0.02)
    return max(seen, ended) - began, seen - began


def _loaded(tool: Tool, release: str) -> dict[str, Any]:
    """Put a code-only release live under load, with a command that runs at a low priority."""
    tool.change(release)
    tool.low_priority = True
    with Visitors(tool.machine.address, rate=LOAD) as visitors:
        start = time.monotonic()
        time.sleep(BEFORE)
        began = time.monotonic()
        tool.up(first=False)
        taken, _ = _verified(tool, visitors, release, began)
        time.sleep(AFTER)
        ended = time.monotonic()
    return {
        "seconds": round(taken, 2),
        "before": visitors.statistics((start + 0.5, began)),
        "during": visitors.statistics((began, ended)),
    }
