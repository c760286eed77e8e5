"""Releases that drain: nothing waits for them, and they are not kept for long beside a new one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import draining, paths, stage
from decant_host.protocol import KEPT_AT_LEAST
from tests.unit.decant_host.machine import ATTEMPT, NEW, OLD, OLDER, Machine

KILL = f"systemctl kill --signal=KILL app@{OLDER}.service"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The machine's monotonic clock, which goes on only while something sleeps."""
    made = SimpleNamespace(now=1000.0)

    def sleep(seconds: float) -> None:
        made.now += seconds

    fake = SimpleNamespace(monotonic=lambda: made.now, sleep=sleep, clock_gettime=lambda _: made.now, CLOCK_MONOTONIC=1)
    monkeypatch.setattr(draining, "time", fake)
    return made


def drain(machine: Machine, clock: SimpleNamespace, release: str, *, since: float) -> None:
    machine.systemd.active.add(f"app@{release}.service")
    machine.systemd.draining[release] = clock.now - since


def test_a_release_that_has_drained_for_long_ends_when_another_starts(machine: Machine, clock: SimpleNamespace) -> None:
    drain(machine, clock, OLDER, since=KEPT_AT_LEAST)
    draining.limit_draining(NEW)
    assert KILL in machine.systemd.done
    assert machine.systemd.timers == {}


def test_a_release_that_began_to_drain_just_now_ends_later(machine: Machine, clock: SimpleNamespace) -> None:
    drain(machine, clock, OLDER, since=12.5)
    draining.limit_draining(NEW)
    assert KILL not in machine.systemd.done
    ((name, argv),) = machine.systemd.timers.items()
    assert name.startswith("decant-end-")
    assert argv[-3:] == [str(paths.PROGRAM), "end-draining", OLDER]
    assert "--on-active=17.5" in argv


def test_releases_that_serve_are_left_alone(machine: Machine, clock: SimpleNamespace) -> None:
    machine.systemd.active |= {f"app@{OLD}.service", f"app@{NEW}.service"}
    drain(machine, clock, OLDER, since=100)
    draining.limit_draining(OLDER)
    assert not [line for line in machine.systemd.done if "kill" in line or "systemd-run" in line]


def test_the_timer_ends_what_still_drains_and_nothing_else(machine: Machine, clock: SimpleNamespace) -> None:
    """It may have been started again meanwhile, or be the one that a revert goes back to."""
    machine.add(OLDER)
    drain(machine, clock, OLDER, since=40)
    assert draining.end_draining(OLDER) == {"release": OLDER, "ended": True}
    assert machine.systemd.done.count(KILL) == 1
    del machine.systemd.draining[OLDER]
    assert draining.end_draining(OLDER) == {"release": OLDER, "ended": False}
    machine.systemd.draining[OLDER] = clock.now
    for link in (paths.CURRENT, paths.PERSISTED):
        link.symlink_to(OLDER)
        assert draining.end_draining(OLDER)["ended"] is False
        link.unlink()
    assert machine.systemd.done.count(KILL) == 1


def test_a_release_that_is_to_start_again_gets_five_seconds_for_its_last_requests(
    machine: Machine, clock: SimpleNamespace
) -> None:
    drain(machine, clock, OLDER, since=1)
    draining.finish_draining(OLDER)
    assert 1005 <= clock.now < 1005.2
    done = machine.systemd.done
    assert done.index(KILL) < done.index(f"systemctl stop app@{OLDER}.service")


def test_a_release_that_does_not_drain_starts_at_once(machine: Machine, clock: SimpleNamespace) -> None:
    draining.finish_draining(OLDER)
    assert clock.now == 1000
    assert KILL not in machine.systemd.done


@pytest.mark.parametrize("step", ["stage", "prepare"])
def test_both_steps_that_start_a_release_make_way_for_it(
    staged: Machine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stage, "limit_draining", lambda release: seen.append(("limit", release)))
    monkeypatch.setattr(stage, "finish_draining", lambda release: seen.append(("finish", release)))
    monkeypatch.setattr(stage, "start", lambda *_, **__: seen.append("start") or "/healthz")  # type: ignore[func-returns-value]
    if step == "stage":
        stage.stage(NEW, {})
    else:
        stage.prepare(NEW, ATTEMPT)
    assert seen == [("limit", NEW), ("finish", NEW), "start"]
