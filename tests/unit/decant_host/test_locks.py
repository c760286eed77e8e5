"""The locks of the program."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from decant_host import lease, locks, paths, switch
from tests.unit.decant_host.machine import ATTEMPT, NEW, OLD, Machine


def test_the_switching_lock_does_not_wait_for_the_staging_lock(machine: Machine) -> None:
    with locks.staging_lock("release a") as mine, locks.staging_lock("release b", patience=0) as other:
        assert (mine, other) == (True, False)
        with locks.switching_lock():
            pass  # a revert must not wait for an installation
    with locks.staging_lock("release b", patience=0) as again:
        assert again


def test_who_waits_for_the_staging_lock_is_told_for_whom(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    clock = SimpleNamespace(
        monotonic=lambda: sum(waited), sleep=waited.append, strftime=lambda shape: "T" if shape == "%H:%M:%S" else shape
    )
    monkeypatch.setattr(locks, "time", clock)
    with locks.staging_lock("release a longer name"):
        pass
    with locks.staging_lock("release a"):
        with locks.staging_lock("release b", patience=9) as other:
            assert not other
        assert 9 <= sum(waited) < 10
    said = capsys.readouterr().err
    assert said == "release a is being staged here since T (machine's time); waiting for its end\n"


@contextlib.contextmanager
def nothing_can_be_written() -> Iterator[None]:
    """As where an app has filled /run: each write fails, also one that comes late from a buffer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_run_folder_prevents_no_lock(machine: Machine) -> None:
    done = list[bool]()
    with nothing_can_be_written():
        with locks.staging_lock("release a") as mine:
            done.append(mine)
        with locks.staging_lock("release b", patience=0) as again:
            done.append(again)
    assert done == [True, True]
    assert locks.staging_holder() == "another release is being staged here"


def test_a_confirm_in_a_full_run_folder_ends_well(staged: Machine) -> None:
    switch.switch(NEW, ATTEMPT, 35)
    with nothing_can_be_written():
        assert switch.confirm(NEW, ATTEMPT) == {"release": NEW}
    assert staged.live() == (NEW, OLD, NEW)


def test_a_lease_that_cannot_be_written_says_so_once(machine: Machine) -> None:
    hold = lease.hold_lease("one", "carol")
    with nothing_can_be_written(), pytest.raises(OSError, match="File too large") as caught, hold:
        pass
    assert caught.value.__context__ is None, "a buffer fails again when it is closed"
    assert lease.lease_holder() is None
    with lease.hold_lease("two", "bob"):
        lease.need_lease("two")


def test_lock_files_can_be_opened_by_root_alone(machine: Machine) -> None:
    """A user who can open a file can lock it, and so block a revert."""
    (paths.RUN / "lease").touch(mode=0o644)  # of an older version
    before = os.umask(0)
    try:
        with locks.staging_lock("release a"), locks.switching_lock(), locks.open_lock("lease"):
            modes = {p.name: p.stat().st_mode & 0o777 for p in paths.RUN.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"staging.lock": 0o600, "switching.lock": 0o600, "lease": 0o600}


def test_a_lock_file_is_never_open_to_others(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even between its creation and the change of its mode."""
    modes: list[int] = []
    monkeypatch.setattr(os, "fchmod", lambda descriptor, mode: modes.append(os.fstat(descriptor).st_mode & 0o777))
    before = os.umask(0)
    try:
        locks.open_lock("lease").close()
    finally:
        os.umask(before)
    assert modes == [0o600]
