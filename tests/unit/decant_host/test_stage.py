"""Staging, preparing and expiring a release, and its release command."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from decant_host import atomic, locks, memory, paths, processes, protocol, stage, switch
from decant_host.errors import HostError
from decant_host.probe import ProbeResult
from tests.unit.decant_host.machine import ATTEMPT, NEW, OLD, OLDER, Machine


def test_stage_starts_a_release_beside_the_live_one(machine: Machine) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.add(NEW)
    one, two = stage.stage(NEW, {"tar": None}), stage.stage(NEW, {"tar": None})
    assert one["health"] == "/healthz"
    assert one["nonce"] != two["nonce"], "the rollout must run again"
    assert machine.live() == (OLD, None, OLD)
    assert machine.running() == {OLD, NEW}
    (timer,) = machine.systemd.timers.values()
    assert timer[-2:] == ["expire", NEW]
    assert "--on-active=900" in timer
    assert machine.asked == [("/healthz", NEW)] * 6, "three healthy answers each time, through its own socket"
    assert atomic.link_target(paths.RUN / NEW / "static") == "static"


def test_a_small_machine_is_warned_of(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.add(NEW)
    stage.stage(NEW, {"tar": None})
    assert capsys.readouterr().err == ""
    (memory.PROC / "meminfo").write_text("MemTotal: 480000 kB\nSwapTotal: 0 kB\n")
    stage.stage(NEW, {"tar": None})
    assert capsys.readouterr().err.startswith("warning: this machine has 468 MB of memory and no swap.")


def test_prepare_waits_for_another_stage_and_then_names_it(
    staged: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A colleague installs the requirements of another release, which may take half an hour."""
    waited: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(waited), sleep=waited.append, strftime=lambda _: "12:34:56")
    monkeypatch.setattr(locks, "time", clock)
    with locks.staging_lock(f"release {OLDER}"):
        with pytest.raises(HostError) as caught:
            stage.prepare(NEW, ATTEMPT)
        assert str(caught.value) == (
            f"release {OLDER} is being staged here since 12:34:56 (machine's time), and did not end within 120 s.\n"
            "  Wait for its end, then run pulumi up again."
        )
        assert 120 <= sum(waited) < 121
    assert stage.prepare(NEW, ATTEMPT)["release"] == NEW


def test_prepare_gives_up_before_the_coordinator_does() -> None:
    """The longest decant:healthTimeout is 300 s."""
    assert protocol.STAGING_PATIENCE + 300 <= protocol.PREPARE_TIMEOUT


def test_stage_refuses_a_release_that_is_not_here(machine: Machine) -> None:
    machine.add(OLD, age=5)
    machine.add(OLDER)
    with pytest.raises(
        HostError, match=rf"release {NEW} is not on this machine; here are: {OLDER}, {OLD}\.\n.*config rm"
    ):
        stage.stage(NEW, {"tar": None})


def test_the_live_release_gets_no_expire_timer(machine: Machine) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    stage.stage(OLD, {"tar": None})
    assert not machine.systemd.timers


def test_expire_stops_a_release_that_is_not_live(machine: Machine) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.add(NEW)
    stage.stage(NEW, {"tar": None})
    assert stage.expire(NEW) == {"release": NEW, "stopped": True}
    assert f"systemctl stop --no-block app@{NEW}.service" in machine.systemd.done, "a revert must not wait for it"
    assert machine.running() == {OLD}
    assert stage.expire(OLD) == {"release": OLD, "stopped": False}
    assert machine.running() == {OLD}


def test_expire_waits_for_a_rollout_that_runs(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    def wait(seconds: float) -> None:
        assert NEW in staged.running()
        waited.append(seconds)
        if len(waited) == 2:
            switch.switch(NEW, ATTEMPT, 30)
            monkeypatch.setattr(stage, "lease_holder", lambda: None)

    monkeypatch.setattr(time, "sleep", wait)
    assert stage.expire(NEW) == {"release": NEW, "stopped": False}
    assert len(waited) == 2
    assert NEW in staged.running(), "it is live"


def test_expire_waits_no_longer_than_the_longest_rollout(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        assert clock.now < 100_000, "this waits for ever"
        clock.now += seconds

    monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    assert stage.expire(NEW) == {"release": NEW, "stopped": True}
    assert staged.running() == {OLD}
    assert clock.now > 3600, "a release command may take an hour"


def test_prepare_sets_the_expire_timer_anew(staged: Machine) -> None:
    """This coordinator, too, may die before it switches."""
    assert f"systemctl stop decant-unclaimed-{NEW}.timer decant-unclaimed-{NEW}.service" in staged.systemd.done
    assert f"decant-unclaimed-{NEW}" in staged.systemd.timers
    assert stage.prepare(NEW, ATTEMPT) == {
        "release": NEW, "health": "/healthz", "needs_200": True, "current": OLD, "persisted": OLD, "confirmed": False,
        "release_command": False, "in_rotation": False, "https": None,
    }  # fmt: skip
    paths.IN_ROTATION.touch()
    output = stage.prepare(OLD, ATTEMPT)
    assert (output["confirmed"], output["in_rotation"]) == (True, True)
    with pytest.raises(HostError, match=rf"release {OLDER} is not on this machine; here are: {NEW}, {OLD}"):
        stage.prepare(OLDER, ATTEMPT)


def test_the_expire_timer_is_set_before_the_release_starts(staged: Machine) -> None:
    """A kill in between would leave a release that runs until the next boot."""
    staged.systemd.active.discard(f"app@{NEW}.service")
    staged.systemd.timers.clear()
    staged.systemd.fail["systemctl start"] = 1
    with pytest.raises(HostError):
        stage.prepare(NEW, ATTEMPT)
    assert f"decant-unclaimed-{NEW}" in staged.systemd.timers
    assert f"decant-unclaimed-{OLD}" not in staged.systemd.timers, "it is live"


@pytest.mark.parametrize(("release", "age", "waits"), [(NEW, 0.0, True), (NEW, 60.0, False), (OLD, 0.0, False)])
def test_prepare_waits_out_the_first_seconds_of_a_new_release(
    staged: Machine, monkeypatch: pytest.MonkeyPatch, release: str, age: float, waits: bool
) -> None:
    clock = SimpleNamespace(now=1000.0, slept=0.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds
        clock.slept += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock.now)
    staged.systemd.started = 1000.0 - age
    stage.prepare(release, ATTEMPT)
    assert clock.slept == pytest.approx(processes.FIRST_SECONDS if waits else 0.0)


def test_prepare_refuses_a_new_release_that_has_been_restarted(staged: Machine) -> None:
    staged.systemd.restarts[NEW] = 1
    with pytest.raises(HostError, match="it crashes when it starts"):
        stage.prepare(NEW, ATTEMPT)
    assert staged.running() == {OLD}
    staged.systemd.restarts[OLD] = 3
    assert stage.prepare(OLD, ATTEMPT)["release"] == OLD, "it was live: a crash of last week means nothing"


def test_prepare_refuses_a_new_release_that_crashes_in_its_first_seconds(
    staged: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    staged.systemd.started = now

    def crash(seconds: float) -> None:
        staged.systemd.restarts[NEW] = 1

    monkeypatch.setattr(time, "sleep", crash)
    with pytest.raises(HostError, match="it starts, answers, and crashes seconds later"):
        stage.prepare(NEW, ATTEMPT)
    assert staged.running() == {OLD}


def test_prepare_refuses_a_new_release_whose_worker_ends_in_its_first_seconds(
    staged: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gunicorn replaces the worker, so systemd does not notice."""
    staged.systemd.started = time.clock_gettime(time.CLOCK_MONOTONIC)
    marker = paths.RUN / NEW / "socket" / "worker-exited"
    monkeypatch.setattr(time, "sleep", lambda seconds: marker.touch())
    with pytest.raises(HostError, match="it starts, answers, and crashes seconds later"):
        stage.prepare(NEW, ATTEMPT)
    assert staged.running() == {OLD}
    assert stage.prepare(OLD, ATTEMPT)["release"] == OLD


def test_prepare_reverts_what_a_dead_attempt_left_unconfirmed(staged: Machine) -> None:
    staged.add(OLDER)
    switch.switch(NEW, ATTEMPT, 35)
    output = stage.prepare(OLDER, ATTEMPT)
    assert (output["current"], output["persisted"]) == (NEW, OLD), "so that the coordinator can tell"
    assert staged.live()[0] == OLD
    assert staged.running() == {OLD, OLDER}
    assert not staged.systemd.revert_timers(), "else it would take back what is switched to next"


def test_prepare_of_the_unconfirmed_release_keeps_it_running(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    stage.prepare(NEW, ATTEMPT)
    assert staged.live()[0] == OLD
    assert staged.running() == {OLD, NEW}
    assert not [line for line in staged.systemd.done if " stop " in line and line.endswith(f"app@{NEW}.service")]


def test_the_release_command_runs_once_and_never_for_a_confirmed_release(held: Machine) -> None:
    held.add(NEW, release_command="flask db upgrade")
    processes.start(NEW)
    held.add(OLD, release_command="flask db upgrade", confirmed=True)
    held.add(OLDER)
    assert stage.migrate(NEW, ATTEMPT) == {"release": NEW, "migrated": True, "skipped": False}
    assert stage.migrate(OLD, ATTEMPT) == {"release": OLD, "migrated": False, "skipped": True}
    assert stage.migrate(OLDER, ATTEMPT) == {"release": OLDER, "migrated": False, "skipped": False}
    started = [line for line in held.systemd.done if line.startswith("systemctl start release@")]
    assert started == [f"systemctl start release@{NEW}.service"]


def test_two_release_commands_never_run_at_once(held: Machine) -> None:
    """A coordinator that dies leaves its release command running."""
    held.add(NEW, release_command="flask db upgrade")
    processes.start(NEW)
    held.systemd.done.clear()
    held.systemd.migrating = [OLD]
    with pytest.raises(HostError, match=rf"command of release {OLD} still runs here.*\n.*systemctl stop release@{OLD}"):
        stage.migrate(NEW, ATTEMPT)
    assert not [line for line in held.systemd.done if line.startswith("systemctl start")]
    held.systemd.migrating = [NEW]
    assert stage.migrate(NEW, ATTEMPT)["migrated"], "systemd waits for the one that runs, and starts no second"


def test_an_app_may_fail_until_its_release_command_has_run(held: Machine) -> None:
    """Its first page may read a table that the command makes."""
    held.add(NEW, release_command="flask db upgrade", health_path=None, health_timeout=0.3)
    held.answers[NEW] = lambda: ProbeResult(status=500, release="", body="gunicorn's own page")
    assert processes.start(NEW) == "/healthz"
    with pytest.raises(HostError, match=rf"release {NEW} does not serve after its release command: .*\n.*at /healthz"):
        stage.migrate(NEW, ATTEMPT)
    held.answers[NEW] = lambda: ProbeResult(status=404, release=NEW, body="")
    assert stage.migrate(NEW, ATTEMPT)["migrated"]
    assert paths.RUN.joinpath(NEW, "health").read_text() == "/"


@pytest.mark.parametrize("release_command", [None, "flask db upgrade"])
def test_an_app_that_has_no_release_command_to_come_must_not_fail(held: Machine, release_command: str | None) -> None:
    held.add(
        NEW, release_command=release_command, confirmed=bool(release_command), health_path=None, health_timeout=0.3
    )
    held.answers[NEW] = lambda: ProbeResult(status=500, release=NEW, body="no such table")
    with pytest.raises(HostError, match=r"not healthy within 0 s at /healthz: status 500"):
        processes.start(NEW)


def test_the_error_of_a_release_command_shows_its_masked_log(held: Machine) -> None:
    held.add(NEW, release_command="flask db upgrade")
    held.systemd.fail[f"systemctl start release@{NEW}.service"] = 1
    held.systemd.log = "cannot connect with canary-key\n"
    with pytest.raises(HostError) as caught:
        stage.migrate(NEW, ATTEMPT)
    assert str(caught.value) == "the release command failed: flask db upgrade\n    cannot connect with [KEY]"


def test_the_error_of_a_release_command_begins_with_what_to_do(held: Machine) -> None:
    held.add(NEW, release_command="flask db upgrade")
    held.systemd.fail[f"systemctl start release@{NEW}.service"] = 1
    held.systemd.log = "ModuleNotFoundError: No module named 'flask_migrate'\n"
    with pytest.raises(HostError) as caught:
        stage.migrate(NEW, ATTEMPT)
    assert str(caught.value).splitlines()[0] == (
        "the release command failed: flask db upgrade: the module flask_migrate is not there. Add flask-migrate to"
        " requirements.txt (or the module to the app folder)"
    )
