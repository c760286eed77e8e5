"""The timers that revert a release, or stop it."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import processes, switch
from decant_host.errors import HostError
from tests.unit.decant_host.machine import ATTEMPT, NEW, OLD, Machine


def test_the_revert_timer_is_set_before_anything_is_switched(staged: Machine) -> None:
    staged.systemd.fail["systemd-run"] = 1
    with pytest.raises(HostError, match="systemd-run"):
        switch.switch(NEW, ATTEMPT, 35)
    assert staged.live() == (OLD, None, OLD)


def test_a_revert_that_an_old_timer_started_is_stopped_by_a_switch(staged: Machine) -> None:
    """It failed, and systemd repeats it."""
    staged.systemd.active.add("decant-revert-0badcafe.service")
    switch.switch(NEW, ATTEMPT, 35)
    assert "decant-revert-0badcafe.service" not in staged.systemd.active
    assert len(staged.systemd.revert_timers()) == 1


def count_timers(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many revert timers there are after each command of systemd."""
    seen: list[int] = []
    inner = machine.systemd.run

    def run(command: tuple[str, ...], **more: Any) -> subprocess.CompletedProcess[str]:
        done = inner(command, **more)
        seen.append(len(machine.systemd.revert_timers()))
        return done

    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(run=run))
    return seen


@pytest.mark.parametrize("again", ["extend", "switch"])
def test_there_is_a_revert_timer_at_every_moment(staged: Machine, monkeypatch: pytest.MonkeyPatch, again: str) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    (first,) = staged.systemd.revert_timers()
    seen = count_timers(staged, monkeypatch)
    getattr(switch, again)(NEW, ATTEMPT, 60)
    ((second, timer),) = staged.systemd.revert_timers().items()
    assert second != first
    assert "--on-active=60" in timer
    assert min(seen) == 1
    assert max(seen) == 2, "the new one is set before the old one is stopped"


def test_a_timer_that_cannot_be_extended_is_kept(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    before = dict(staged.systemd.revert_timers())
    staged.systemd.fail["systemd-run"] = 1
    with pytest.raises(HostError, match="systemd-run"):
        switch.extend(NEW, ATTEMPT, 40)
    assert staged.systemd.revert_timers() == before


@pytest.mark.parametrize("end", ["confirm", "revert"])
def test_confirm_and_revert_stop_every_revert_timer(staged: Machine, end: str) -> None:
    """They also stop one that a killed `extend` left behind."""
    switch.switch(NEW, ATTEMPT, 35)
    staged.systemd.timers["decant-revert-0badcafe"] = []
    staged.systemd.timers["decant-unclaimed-cccccccccccc"] = []
    if end == "confirm":
        switch.confirm(NEW, ATTEMPT)
    else:
        switch.revert(ATTEMPT, "x")
    assert not staged.systemd.revert_timers()
    assert "decant-unclaimed-cccccccccccc" in staged.systemd.timers, "another release's"


def test_what_a_timer_starts_is_repeated_until_it_succeeds(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    assert len(staged.systemd.timers) == 2
    for argv in staged.systemd.timers.values():
        assert {
            "--property=Restart=on-failure", "--property=RestartSec=2s", "--property=StartLimitIntervalSec=0",
        } <= set(argv)  # fmt: skip
