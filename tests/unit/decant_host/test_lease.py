"""The lease of a machine, and the commands that need it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import lease, paths, stage, switch
from decant_host.errors import HostError
from tests.unit.decant_host.agent_process import AgentProcess
from tests.unit.decant_host.machine import ATTEMPT, NEW, OLD, Machine

COMMANDS: dict[str, Callable[[], Any]] = {
    "prepare": lambda: stage.prepare(NEW, ATTEMPT),
    "migrate": lambda: stage.migrate(NEW, ATTEMPT),
    "switch": lambda: switch.switch(NEW, ATTEMPT, 35),
    "extend": lambda: switch.extend(OLD, ATTEMPT, 35),
    "confirm": lambda: switch.confirm(OLD, ATTEMPT),
    "revert": lambda: switch.revert(ATTEMPT, "x"),
}


def test_one_attempt_holds_the_lease_and_no_lease_outlives_it(machine: Machine) -> None:
    assert lease.lease_holder() is None
    first = AgentProcess(paths.RUN, "one")
    first.hold()
    holder = lease.lease_holder()
    assert holder
    assert (holder["attempt"], holder["owner"]) == ("one", "carol@laptop")
    lease.need_lease("one")
    with pytest.raises(HostError, match=r"carol@laptop holds it\. Run pulumi up again"):
        lease.need_lease("two")
    second = AgentProcess(paths.RUN, "two")
    _, err = second.finish()
    assert second.process.returncode == 1
    assert re.search(r"carol@laptop is rolling out a release here since \d\d:\d\d:\d\d", err)
    lease.need_lease("one")
    first.process.kill()  # as when the coordinator's connection dies
    first.finish()
    assert lease.lease_holder() is None
    with pytest.raises(HostError, match="the lease lapsed"):
        lease.need_lease("one")
    third = AgentProcess(paths.RUN, "three")
    third.hold()
    third.finish()  # the end of its input gives the lease back
    assert third.process.returncode == 0
    assert lease.lease_holder() is None


def test_the_holder_is_read_although_an_earlier_one_had_a_longer_name(machine: Machine) -> None:
    with lease.hold_lease("one", "carol@laptop-" + "x" * 99):
        pass
    with lease.hold_lease("two", "bob"):
        assert json.loads(paths.LEASE.read_text())["owner"] == "bob"


def test_a_new_attempt_waits_for_a_lease_that_is_about_to_end(machine: Machine) -> None:
    """sshd may not have noticed yet that the last coordinator was killed."""
    first = AgentProcess(paths.RUN, "one")
    first.hold()
    second = AgentProcess(paths.RUN, "two", lease_patience=60)
    assert second.line() == "waits\n"
    first.process.kill()
    first.finish()
    assert any('"held"' in line for line in iter(second.line, ""))
    lease.need_lease("two")
    second.finish()


def test_an_agent_takes_the_lease_only_when_it_is_asked(machine: Machine) -> None:
    first = AgentProcess(paths.RUN, "one")
    first.hold()
    second = AgentProcess(paths.RUN, "two", ask_for_lease=False)
    assert second.finish() == ("", "")
    assert second.process.returncode == 0
    first.finish()


def test_silence_gives_the_lease_back(machine: Machine) -> None:
    silent = AgentProcess(paths.RUN, lease_timeout=0.05, real_clock=True)
    assert silent.process.wait(timeout=60) == 0
    assert lease.lease_holder() is None
    silent.finish()


def live_and_staged(machine: Machine) -> tuple[object, ...]:
    """OLD is live, NEW is staged beside it; what a command might change."""
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.add(NEW, release_command="flask db upgrade")
    return what_may_change(machine)


def what_may_change(machine: Machine) -> tuple[object, ...]:
    commands = [line for line in machine.systemd.done if "release@" in line]
    return machine.live(), machine.running(), dict(machine.systemd.timers), commands, paths.IN_ROTATION.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_its_lease_does_nothing(machine: Machine, command: str) -> None:
    before = live_and_staged(machine)
    with pytest.raises(HostError, match="this attempt does not hold the machine"):
        COMMANDS[command]()
    assert what_may_change(machine) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_gets_its_lock_too_late_does_nothing(
    held: Machine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    before = live_and_staged(held)
    clock = SimpleNamespace(now=100.0)
    echo = lease.NewestEcho(lambda: clock.now)
    echo.command = command
    echo.receive(100.0)
    monkeypatch.setattr(lease, "coordinator", echo)
    clock.now = 108.1
    with pytest.raises(HostError, match=rf"decant-host {command} is too late and is refused: .* 8\.1 s old"):
        COMMANDS[command]()
    assert what_may_change(held) == before


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"prepare", "migrate"}))
def test_a_command_that_waited_until_its_coordinator_gives_it_up_does_nothing(
    held: Machine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Heartbeats come all the time, so the newest echo alone does not show it."""
    before = live_and_staged(held)
    echo = lease.NewestEcho(lambda: 150.1)
    echo.command, echo.requested = command, 100.0
    echo.receive(150.1)
    monkeypatch.setattr(lease, "coordinator", echo)
    with pytest.raises(HostError, match=rf"decant-host {command} is refused, because it waited 50 s"):
        COMMANDS[command]()
    assert what_may_change(held) == before


@pytest.mark.parametrize(("command", "limit"), [("prepare", 410), ("migrate", 3990), ("confirm", 50)])
def test_a_command_may_wait_as_long_as_its_coordinator_does(command: str, limit: int) -> None:
    clock = SimpleNamespace(now=100.0 + limit)
    echo = lease.NewestEcho(lambda: clock.now)
    echo.command, echo.requested = command, 100.0
    echo.receive(clock.now)
    echo.check()
    clock.now += 0.1
    with pytest.raises(HostError, match=f"the limit is {limit} s"):
        echo.check()


def test_a_switch_whose_timer_takes_too_long_to_set_changes_nothing(
    staged: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(lease, "coordinator", lease.NewestEcho(lambda: clock.now))
    assert lease.coordinator
    lease.coordinator.receive(100.0)

    def set_slowly(deadline: int) -> None:
        clock.now += 9

    monkeypatch.setattr(switch, "set_revert_timer", set_slowly)
    with pytest.raises(HostError, match="is too late and is refused"):
        switch.switch(NEW, ATTEMPT, 35)
    assert staged.live() == (OLD, None, OLD)


def test_a_revert_by_the_timer_needs_no_lease_and_no_coordinator(
    staged: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    monkeypatch.setattr(lease, "coordinator", lease.NewestEcho())
    assert switch.revert(None, "no confirm came") == {"release": OLD, "reverted": NEW}
