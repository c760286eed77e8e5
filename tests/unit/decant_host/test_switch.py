"""Switching, confirming and reverting."""

from __future__ import annotations

import contextlib
import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest

from decant_host import atomic, locks, memory, paths, releases, stage, status, switch
from decant_host.errors import HostError
from decant_host.probe import ProbeResult
from tests.unit.decant_host.machine import ATTEMPT, NEW, OLD, Machine


def test_a_switched_release_is_unconfirmed(staged: Machine) -> None:
    assert switch.switch(NEW, ATTEMPT, 35) == {"release": NEW}
    assert staged.live() == (NEW, OLD, OLD), "the old one is nginx's backup, and what a boot brings back"
    assert staged.running() == {OLD, NEW}
    ((name, timer),) = staged.systemd.revert_timers().items()
    assert re.fullmatch(r"decant-revert-[0-9a-f]{8}", name), (
        "a name of its own, so that the next timer can be set beside it"
    )
    assert "--on-active=35" in timer
    assert "--timer-property=AccuracySec=100ms" in timer
    assert timer[timer.index("revert") :] == ["revert", "--because", "no confirm came"]
    assert [a for a in staged.asked if a[1] == "nginx"] == [("/healthz", "nginx")] * 5


@pytest.mark.parametrize(
    "bad", [ProbeResult(status=502, release="", body="Bad Gateway"), ProbeResult(status=200, release=OLD, body="")]
)
def test_a_switch_whose_probe_fails_goes_back_at_once(staged: Machine, bad: ProbeResult) -> None:
    answers = iter([ProbeResult(status=200, release=NEW, body="ok"), bad])
    staged.answers["nginx"] = lambda: next(answers)
    with pytest.raises(
        HostError, match=rf"release {NEW} answered status \d+.* through nginx at /healthz; went back to {OLD}"
    ):
        switch.switch(NEW, ATTEMPT, 35)
    assert staged.live() == (OLD, NEW, OLD)
    assert staged.running() == {OLD}
    assert not staged.systemd.revert_timers()
    assert next(answers, None) is None, "it stops at the first failed probe"


@pytest.mark.parametrize(("status", "hinted"), [(502, True), (500, False)])
def test_a_bad_gateway_is_explained_where_something_confines_nginx(
    staged: Machine, monkeypatch: pytest.MonkeyPatch, status: int, hinted: bool
) -> None:
    monkeypatch.setattr(switch, "confinement_hint", lambda: "\n  AppArmor")
    staged.answers["nginx"] = lambda: ProbeResult(status=status, release="", body="")
    with pytest.raises(HostError, match=f"answered status {status} through nginx") as caught:
        switch.switch(NEW, ATTEMPT, 35)
    assert str(caught.value).endswith(f"went back to {OLD}" + ("\n  AppArmor" if hinted else ""))


@pytest.mark.parametrize(("health_path", "stays"), [(None, True), ("/healthz", False)])
def test_a_redirect_is_an_answer_where_the_stack_sets_no_health_path(
    staged: Machine, health_path: str | None, stays: bool
) -> None:
    file = paths.RELEASES / NEW / "release.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "health_path": health_path}))
    staged.answers["nginx"] = lambda: ProbeResult(status=302, release=NEW, body="")
    with contextlib.nullcontext() if stays else pytest.raises(HostError, match="answered status 302 through nginx"):
        switch.switch(NEW, ATTEMPT, 35)
    assert staged.live()[0] == (NEW if stays else OLD)


def test_switching_again_changes_nothing_but_the_deadline(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    switch.switch(NEW, ATTEMPT, 99)
    assert staged.live() == (NEW, OLD, OLD)
    (timer,) = staged.systemd.revert_timers().values()
    assert "--on-active=99" in timer


def test_confirm_persists_the_release_and_stops_the_old_one(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    assert switch.confirm(NEW, ATTEMPT) == {"release": NEW}
    assert staged.live() == (NEW, OLD, NEW)
    assert staged.running() == {NEW}
    assert not staged.systemd.timers
    assert (paths.RELEASES / NEW / "confirmed").exists()
    assert switch.confirm(NEW, ATTEMPT) == {"release": NEW}
    assert staged.live() == (NEW, OLD, NEW)


def test_a_persisted_release_that_does_not_start_gets_the_traffic_and_systemd_retries(staged: Machine) -> None:
    """It is the confirmed release, and an unconfirmed one must not stay live."""
    switch.switch(NEW, ATTEMPT, 35)
    staged.systemd.active.discard(f"app@{OLD}.service")
    staged.systemd.broken.add(OLD)
    with pytest.raises(HostError, match=f"release {OLD} does not serve"):
        switch.revert(None, "no confirm came")
    assert atomic.link_target(paths.CURRENT) == OLD
    assert staged.running() == {OLD}
    assert not [timer for timer in staged.systemd.timers if timer.startswith("decant-revert")]


def test_confirming_again_needs_no_disk_space(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "prepare_confirm", lambda release: pytest.fail("it needs disk space"))
    assert switch.confirm(OLD, ATTEMPT)["release"] == OLD


def test_confirm_of_a_reverted_release_is_refused(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    switch.revert(None, "no confirm came")
    with pytest.raises(HostError, match=rf"release {NEW} is not live here any more: {OLD} is\. Run pulumi up again"):
        switch.confirm(NEW, ATTEMPT)
    assert staged.live()[2] == OLD


@pytest.mark.parametrize("attempt", [None, ATTEMPT], ids=["timer", "rollout"])
def test_revert_gives_the_persisted_release_the_traffic(staged: Machine, attempt: str | None) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    assert switch.revert(attempt, "because") == {"release": OLD, "reverted": NEW}
    assert staged.live() == (OLD, NEW, OLD)
    assert staged.running() == {OLD}
    assert not staged.systemd.revert_timers()
    output = atomic.read_json(paths.RUN / "reverted.json")
    assert (output["from"], output["to"], output["because"]) == (NEW, OLD, "because")
    switch.revert(attempt, "again")
    assert atomic.read_json(paths.RUN / "reverted.json")["because"] == "because", "nothing was reverted this time"


def test_the_status_shows_a_revert_until_the_next_confirm(staged: Machine) -> None:
    assert status.status()["reverted"] is None
    switch.switch(NEW, ATTEMPT, 35)
    switch.revert(None, "no confirm came")
    reverted = status.status()["reverted"]
    assert reverted
    assert reverted["because"] == "no confirm came"
    switch.switch(NEW, ATTEMPT, 35)
    assert status.status()["reverted"] == reverted
    switch.confirm(NEW, ATTEMPT)
    assert status.status()["reverted"] is None


def test_a_revert_switches_even_when_the_old_release_does_not_become_healthy(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    staged.systemd.active.discard(f"app@{OLD}.service")
    staged.systemd.broken.add(OLD)
    with pytest.raises(HostError):
        switch.revert(ATTEMPT, "x")
    assert staged.live()[0] == OLD


def test_a_revert_switches_whatever_error_the_start_raises(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    staged.systemd.active.discard(f"app@{OLD}.service")

    def impossible(*_: Any) -> None:
        raise RecursionError("an error of any kind")

    monkeypatch.setattr(switch, "start", impossible)
    with pytest.raises(RecursionError):
        switch.revert(None, "no confirm came")
    assert staged.live()[0] == OLD
    assert staged.running() == {OLD}
    assert f"systemctl kill --signal=KILL app@{NEW}.service" in staged.systemd.done, "it may fill the disk"


@pytest.mark.parametrize("attempt", [None, ATTEMPT], ids=["timer", "rollout"])
def test_a_revert_needs_no_disk_space(staged: Machine, monkeypatch: pytest.MonkeyPatch, attempt: str | None) -> None:
    """An app can fill /run, where its socket is."""
    switch.switch(NEW, ATTEMPT, 35)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", full)
    monkeypatch.setattr(switch, "write", full)
    assert switch.revert(attempt, "because") == {"release": OLD, "reverted": NEW}
    assert staged.live()[0] == OLD
    assert staged.running() == {OLD}
    assert not staged.systemd.revert_timers()


def test_the_first_release_is_reverted_to_none(held: Machine) -> None:
    held.add(NEW)
    stage.prepare(NEW, ATTEMPT)
    assert switch.switch(NEW, ATTEMPT, 35) == {"release": NEW}
    assert held.live() == (NEW, None, None)
    assert switch.revert(ATTEMPT, "x") == {"release": None, "reverted": NEW}
    assert held.live() == (None, None, None)
    assert held.running() == set()


def test_boot_brings_back_the_confirmed_release(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    for link in (paths.CURRENT, paths.PREVIOUS):
        link.unlink()
    staged.systemd.active.clear()
    assert switch.boot() == {"release": OLD}
    assert staged.live() == (OLD, None, OLD)
    assert staged.running() == {OLD}


def test_boot_of_a_machine_without_a_release_does_nothing(machine: Machine) -> None:
    assert switch.boot() == {"release": None}
    assert machine.live() == (None, None, None)


def test_extend_changes_only_the_timer(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    before, asked = staged.live(), len(staged.asked)
    assert switch.extend(NEW, ATTEMPT, 40) == {"release": NEW}
    assert staged.live() == before
    assert staged.running() == {OLD, NEW}
    assert len(staged.asked) == asked
    (timer,) = staged.systemd.revert_timers().values()
    assert timer[timer.index("revert") :] == ["revert", "--because", "no confirm came"]


def test_extend_of_a_reverted_release_is_refused_and_sets_no_timer(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    switch.revert(None, "no confirm came")
    with pytest.raises(HostError, match=rf"release {NEW} is not live here any more: {OLD} is\. Run pulumi up again"):
        switch.extend(NEW, ATTEMPT, 35)
    assert not staged.systemd.revert_timers()


def test_a_confirm_succeeds_whatever_cannot_be_removed(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release is confirmed by then. A folder in incoming/ that is named like a tar is enough."""
    switch.switch(NEW, ATTEMPT, 35)

    def fails() -> None:
        raise IsADirectoryError(21, "Is a directory", "x.tar")

    monkeypatch.setattr(switch, "prune", fails)
    assert switch.confirm(NEW, ATTEMPT) == {"release": NEW}


def test_the_kernel_spares_what_is_confirmed(staged: Machine) -> None:
    """Where memory runs out, it ends the process with the highest score."""
    for pid, release in (("10", OLD), ("11", NEW)):
        (memory.PROC / pid).mkdir()
        (memory.PROC / pid / "cgroup").write_text(f"0::/system.slice/app@{release}.service\n")
    switch.switch(NEW, ATTEMPT, 35)
    assert not list(memory.PROC.glob("*/oom_score_adj")), "what is not confirmed may go back"
    switch.confirm(NEW, ATTEMPT)
    assert [(memory.PROC / pid / "oom_score_adj").read_text() for pid in ("10", "11")] == ["300", "0"]


def test_confirm_waits_for_the_old_backlog_and_prunes(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = []
    monkeypatch.setattr(switch, "prune", lambda: pruned.append(True))
    paths.REVERTED.write_text("{}")
    switch.switch(NEW, ATTEMPT, 35)
    staged.systemd.backlog = 2
    switch.confirm(NEW, ATTEMPT)
    assert staged.systemd.backlog == 0
    assert not paths.REVERTED.exists(), "what was reverted before does not matter any more"
    assert pruned == [True]


def test_confirm_does_not_wait_for_a_stage_that_runs(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "prune", lambda: pytest.fail("the stage needs these files"))
    switch.switch(NEW, ATTEMPT, 35)
    with locks.staging_lock("release x"):
        assert switch.confirm(NEW, ATTEMPT) == {"release": NEW}
