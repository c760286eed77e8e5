"""Leaving and entering a load balancer's rotation."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from decant_host import balancer, paths, processes, stage, status, switch
from decant_host.errors import HostError
from tests.unit.decant_host.machine import ATTEMPT, NEW, OLD, Machine


@pytest.fixture
def balanced(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine behind a balancer. `slept` has its waits: seconds, and whether it was in rotation meanwhile."""
    paths.SETTINGS.write_text(json.dumps({"name": "www.example.com", "stack": "blue", "drain_seconds": 25}))
    made = SimpleNamespace(machine=staged, slept=[], now=0.0)
    monkeypatch.setenv("MAINPID", "77")  # systemd sets it while a release runs

    def sleep(seconds: float) -> None:
        made.slept.append((seconds, paths.IN_ROTATION.exists()))
        made.now += seconds

    for module in (balancer, processes):
        monkeypatch.setattr(
            module, "time", SimpleNamespace(monotonic=lambda: made.now, sleep=sleep, time=lambda: 1000.0)
        )
    return made


def test_a_new_machine_is_out_of_rotation_until_a_confirm(held: Machine) -> None:
    held.add(NEW)
    assert stage.prepare(NEW, ATTEMPT)["in_rotation"] is False
    switch.switch(NEW, ATTEMPT, 35)
    assert not paths.IN_ROTATION.exists(), "unconfirmed: not for visitors yet"
    assert status.status()["in_rotation"] is False
    switch.confirm(NEW, ATTEMPT)
    assert paths.IN_ROTATION.exists()
    assert status.status()["in_rotation"] is True


@pytest.mark.parametrize("in_rotation", [True, False])
def test_switch_and_revert_leave_the_rotation_alone(staged: Machine, in_rotation: bool) -> None:
    paths.IN_ROTATION.touch() if in_rotation else None
    switch.switch(NEW, ATTEMPT, 35)
    assert paths.IN_ROTATION.exists() == in_rotation, "one that serves goes on serving during a switch"
    switch.revert(ATTEMPT, "x")
    assert paths.IN_ROTATION.exists() == in_rotation


def test_a_confirm_that_is_refused_puts_nothing_in_rotation(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    switch.revert(None, "no confirm came")
    with pytest.raises(HostError):
        switch.confirm(NEW, ATTEMPT)
    assert not paths.IN_ROTATION.exists()


def test_a_boot_with_a_confirmed_release_puts_the_machine_in_rotation(staged: Machine) -> None:
    assert switch.boot() == {"release": OLD}
    assert paths.IN_ROTATION.exists()


def test_a_boot_without_a_release_stays_out_of_rotation(machine: Machine) -> None:
    switch.boot()
    assert not paths.IN_ROTATION.exists()


def test_pre_stop_waits_until_the_balancer_has_noticed(balanced: SimpleNamespace) -> None:
    paths.IN_ROTATION.touch()
    assert balancer.pre_stop(OLD) == {"release": OLD, "waited": 25}
    assert balanced.slept == [(25, False)], "out of rotation meanwhile"
    assert paths.IN_ROTATION.exists(), "a release that is started again finds the machine as it was"
    assert balanced.machine.running() >= {OLD}, "it serves while the balancer has not noticed"


@pytest.mark.parametrize("why", ["not live", "out of rotation", "no balancer", "older settings", "crashed"])
def test_pre_stop_does_not_wait_without_reason(
    balanced: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    paths.IN_ROTATION.touch()
    if why == "crashed":
        monkeypatch.delenv("MAINPID")
    if why == "out of rotation":
        paths.IN_ROTATION.unlink()
    if why in ("no balancer", "older settings"):
        settings = {"name": "x", "stack": "blue"} | ({"drain_seconds": 0} if why == "no balancer" else {})
        paths.SETTINGS.write_text(json.dumps(settings))
    release = NEW if why == "not live" else OLD
    before = paths.IN_ROTATION.exists()
    assert balancer.pre_stop(release) == {"release": release, "waited": 0}
    assert not balanced.slept
    assert paths.IN_ROTATION.exists() == before


def test_settings_of_the_release_before_are_understood(balanced: SimpleNamespace) -> None:
    paths.SETTINGS.write_text(json.dumps({"name": "x", "stack": "blue", "noticed": 12}))
    paths.IN_ROTATION.touch()
    assert balancer.pre_stop(OLD)["waited"] == 12
    paths.SETTINGS.write_text(json.dumps({"name": "x", "stack": "blue", "noticed": 12, "drain_seconds": 0}))
    assert balancer.pre_stop(OLD)["waited"] == 0


def test_drain_takes_the_machine_out_of_rotation_for_good(balanced: SimpleNamespace) -> None:
    paths.IN_ROTATION.touch()
    balanced.machine.systemd.requests = 3
    output = balancer.drain()
    assert output["drained"] is True
    assert balanced.slept[0] == (25, False)
    assert not any(in_rotation for _, in_rotation in balanced.slept)
    assert not paths.IN_ROTATION.exists()
    assert balanced.machine.systemd.requests == 0, "what was sent here is answered first"
    assert 25 < output["seconds"] < 27
    assert balanced.machine.running() >= {OLD}, "requests still come until the balancer has noticed"
    asked = [line for line in balanced.machine.systemd.done if line.startswith("ss ")]
    assert all(f"{paths.RUN}/{OLD}/socket/gunicorn.sock" in line for line in asked)
    assert len(asked) == 4


def test_a_pre_stop_that_waits_does_not_undo_a_drain(
    balanced: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.IN_ROTATION.touch()
    waits: list[float] = []

    def sleep(seconds: float) -> None:  # the machine is drained in the middle of the first wait
        if not waits:
            waits.append(seconds)
            balancer.drain()

    monkeypatch.setattr("decant_host.balancer.time.sleep", sleep)
    balancer.pre_stop(OLD)
    assert waits == [25]
    assert not paths.IN_ROTATION.exists()


def test_a_full_run_folder_does_not_keep_a_machine_out_of_rotation(
    balanced: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.IN_ROTATION.touch()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    balancer.pre_stop(OLD)
    assert paths.IN_ROTATION.exists()


@pytest.mark.parametrize(("said", "kept"), [({}, 30), ({"request_timeout": 5}, 30), ({"request_timeout": 300}, 300)])
def test_drain_waits_no_longer_than_a_release_keeps_its_requests(
    balanced: SimpleNamespace, said: dict[str, int], kept: int
) -> None:
    settings = json.loads(paths.SETTINGS.read_text())
    paths.SETTINGS.write_text(json.dumps({**settings, **said}))
    paths.IN_ROTATION.touch()
    balanced.machine.systemd.requests = 1_000_000
    output = balancer.drain()
    assert 25 + kept <= output["seconds"] < 25 + kept + 1


def test_drain_of_a_machine_without_a_release(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decant_host.balancer.time.sleep", lambda seconds: None)
    assert balancer.drain()["drained"] is True
    paths.SETTINGS.unlink()
    assert balancer.drain()["drained"] is True, "a machine that was never provisioned"
    assert not paths.IN_ROTATION.exists()
