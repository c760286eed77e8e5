"""The plan that the `rollout` step reads, and the times that it gives to machines."""

from __future__ import annotations

from decant.rollout import timeouts
from decant.rollout.plan import Plan, PlanData, PlannedMachine
from decant_host import protocol
from tests.support.fake_fleet import NEW, access
from tests.support.in_memory import PRIVATE
from tests.support.in_memory_sshd import SHOWN_KEY


def test_a_plan_is_read_from_what_pulumi_carries() -> None:
    machines: list[PlannedMachine] = [
        {
            "name": name,
            "tag": f"{name}.1",
            "address": "203.0.113.1",
            "port": 22.0,
            "user": "u",
            "host_key": SHOWN_KEY,
            "private_key": PRIVATE,
            "setting": f"decant:hosts[{place}]",
        }
        for place, name in enumerate("abc")
    ]
    data: PlanData = {
        "url": "http://x", "address": "x", "domain": None, "root": None, "balancer": "managed", "batch": 2.0,
        "machines": machines, "done": ["."],
    }  # fmt: skip
    plan = Plan.from_dict(NEW, data)
    assert (plan.release, plan.url, plan.batch, plan.balancer) == (NEW, "http://x", 2, "managed")
    assert isinstance(plan.batch, int)
    assert plan.tags == {"a.1", "b.1", "c.1"}
    assert [m.name for m in plan.machines] == ["a", "b", "c"]
    assert [m.setting for m in plan.machines] == ["decant:hosts[0]", "decant:hosts[1]", "decant:hosts[2]"]


def fleet_of(count: int) -> Plan:
    return Plan(release=NEW, machines=tuple(access(f"m{n}") for n in range(count)), url="", batch=1)


def test_a_larger_fleet_has_more_time_for_its_confirms() -> None:
    alone = protocol.CONFIRM_TIMEOUT + protocol.CONFIRM_TIMEOUT_PER_MACHINE
    assert fleet_of(1).confirm_timeout == alone
    assert fleet_of(3).confirm_timeout == alone + 2 * protocol.CONFIRM_TIMEOUT_PER_MACHINE


def test_the_confirm_timeout_leaves_time_for_the_url() -> None:
    """A timer is up to EXTEND_AFTER old when the URL's turn begins, and a last probe may begin at the URL's end."""
    longest = protocol.EXTEND_AFTER + timeouts.URL_TIMEOUT + timeouts.PROBE_TIMEOUT
    assert fleet_of(1).confirm_timeout - longest >= 5, "else machines revert while the URL is still asked"


def test_a_lease_is_answered_before_the_coordinator_gives_up() -> None:
    assert timeouts.LEASE_REPLY_TIMEOUT > protocol.LEASE_PATIENCE + 20, "decant-host takes a second or two to start"
    assert timeouts.ROUTING_TIMEOUT < protocol.LEASE_TIMEOUT
