"""The steps of a machine in Pulumi's state: names that stacks of earlier versions know, and options."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.in_memory import DROPLET, HOST, Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Start = Callable[..., Run]


def test_renamed_steps_and_components_have_aliases(start: Start) -> None:
    """Without one, an upgrade would replace the step. tests/engine/test_upgrade.py shows it with the real engine."""
    run = start(DROPLET, machines=2)
    aliases = {one.short: one.aliases for one in run.resources.values() if one.aliases}
    expected = {"Rollout rollout": (("decant:fleet:Rollout", ""),)}
    for name in ("web-1", "web-2"):
        expected |= {
            f"MachineSteps {name}": (("decant:fleet:PreparedMachine", ""),),
            f"Command {name}-provision": (("", f"{name}-base"),),
            f"Command {name}-check-space": (("", f"{name}-room"),),
            f"Command {name}-drain": (("", f"{name}-leave"),),
        }
    assert aliases == expected


def test_no_alias_is_the_name_of_another_step(start: Start) -> None:
    run = start(HOST)
    former = {name for one in run.resources.values() for _, name in one.aliases if name}
    assert former
    assert not former & {one.name for one in run.resources.values()}


def test_the_drain_step_is_for_balancers_of_the_stack(start: Start) -> None:
    def draining(run: Run) -> list[str]:
        return sorted(one.name for one in run.resources.values() if one.name.endswith("-drain"))

    assert draining(start(DROPLET, machines=2)) == ["web-1-drain", "web-2-drain"]
    assert draining(start(DROPLET)) == []
    assert draining(start(HOST, trustedProxies=["10.0.0.9/32"])) == [], "its balancer is the user's own"
