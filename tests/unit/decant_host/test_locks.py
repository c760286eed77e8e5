"""The locks of the program."""

from __future__ import annotations

import os

import pytest

from decant_host import locks, paths
from tests.unit.decant_host.machine import Machine


def test_the_switching_lock_does_not_wait_for_the_staging_lock(machine: Machine) -> None:
    with locks.staging_lock() as mine, locks.staging_lock(wait=False) as other:
        assert (mine, other) == (True, False)
        with locks.switching_lock() as apart:
            assert apart, "a revert must not wait for an installation"
    with locks.staging_lock(wait=False) as again:
        assert again


def test_lock_files_can_be_opened_by_root_alone(machine: Machine) -> None:
    """A user who can open a file can lock it, and so block a revert."""
    (paths.RUN / "lease").touch(mode=0o644)  # of an older version
    before = os.umask(0)
    try:
        with locks.staging_lock(), locks.switching_lock(), locks.open_lock("lease"):
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
