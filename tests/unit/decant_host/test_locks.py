"""The locks of the program."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from decant_host import locks, paths
from tests.unit.decant_host.machine import Machine


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
