"""The overview of a machine: processes, releases, disks and names of variables."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from decant_host import overview as module
from decant_host import paths
from decant_host.atomic import link
from decant_host.memory import PROC
from decant_host.overview import overview, processes
from tests.unit.decant_host.machine import NEW, OLD, OLDER, Machine


@pytest.fixture(autouse=True)
def files(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / PROC.relative_to("/") / "uptime").write_text("7200.51 1000.00\n")
    (tmp_path / PROC.relative_to("/") / "meminfo").write_text(
        "MemTotal:        2000000 kB\nMemAvailable:     500000 kB\nSwapTotal:             0 kB\n"
    )
    paths.SANDBOX.parent.mkdir(parents=True)
    paths.SANDBOX.write_text("[Service]\nEnvironment=DATA_DIR=/var/lib/decant/data\nUser=decant\n")


def test_an_empty_machine_has_an_overview() -> None:
    found = overview()
    assert (found["current"], found["processes"], found["history"], found["environment"]) == (None, [], [], {})
    assert (found["memory_total"], found["memory_available"]) == (2_048_000_000, 512_000_000)
    assert found["time"] - found["booted"] == pytest.approx(7200.51, abs=5)


def test_each_process_has_its_state(machine: Machine) -> None:
    machine.systemd.started = time.monotonic() - 60
    for release in (OLD, NEW, OLDER):
        machine.add(release, confirmed=release != NEW)
    machine.serve(OLD)
    machine.systemd.active |= {f"app@{NEW}.service", f"app@{OLDER}.service", f"decant-run-{OLD}-0a1b2c3d.service"}
    machine.systemd.draining[OLDER] = 1.0
    found = {(p["kind"], p["release"]): p for p in processes()}
    states = {key: p["state"] for key, p in found.items()}
    assert states == {
        ("web", OLD): "live", ("web", NEW): "staged", ("web", OLDER): "draining", ("run", OLD): "active",
    }  # fmt: skip
    live = found["web", OLD]
    assert (live["memory"], live["tasks"], live["restarts"]) == (52_428_800, 9, 0)
    assert time.time() - (live["since"] or 0) == pytest.approx(60, abs=5)


def test_a_switched_release_is_unconfirmed(staged: Machine) -> None:
    link(paths.CURRENT, NEW)
    assert {p["release"]: p["state"] for p in processes()} == {OLD: "staged", NEW: "unconfirmed"}


def test_a_crashed_release_has_systemds_word(machine: Machine) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.systemd.broken.add(OLD)
    assert [p["state"] for p in processes()] == ["failed"]


@pytest.mark.parametrize("text", ["[not set]", "18446744073709551615", "", None])
def test_what_systemd_does_not_know_is_none(text: str | None) -> None:
    assert module._number(text) is None
    assert module._number("17") == 17


def test_releases_have_their_times(machine: Machine) -> None:
    machine.add(NEW, staged=1_700_000_000.5)
    machine.add(OLD, confirmed=True, age=10)
    (paths.RELEASES / OLD / "confirmed").touch()
    confirmed = (paths.RELEASES / OLD / "confirmed").stat().st_mtime
    assert overview()["history"] == [
        {"id": NEW, "staged": 1_700_000_000.5, "confirmed": None},
        {"id": OLD, "staged": None, "confirmed": confirmed},
    ]


def test_variables_have_names_and_no_values(machine: Machine) -> None:
    folder = machine.add(OLD, confirmed=True)
    (folder / "environment.json").write_text(json.dumps({"KEY": "canary-key", "GREETING": "canary-plain"}))
    machine.serve(OLD)
    found = overview()
    assert found["environment"] == {
        "DATA_DIR": "decant", "PATH": "decant", "VIRTUAL_ENV": "decant", "PORT": "decant",
        "KEY": "secret", "GREETING": "plain",
    }  # fmt: skip
    assert "canary" not in json.dumps(found)


def test_each_file_system_is_there_once(machine: Machine) -> None:
    found = overview()["disks"]
    assert len({disk["path"] for disk in found}) == len(found) >= 1
    assert all(0 <= disk["free"] <= disk["total"] for disk in found)
