"""Fixtures for the tests of the machine's program."""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import atomic, debian, lease, memory, paths, processes, stage, switch
from decant_host.probe import ProbeResult
from tests.unit.decant_host.machine import ATTEMPT, MODULES, NEW, OLD, Machine, Systemd


@pytest.fixture(autouse=True)
def debian_13(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' machine has Debian 13, whatever this computer has."""
    monkeypatch.setattr(debian, "version", lambda: 13)
    monkeypatch.setattr(debian, "suite", lambda: "trixie")
    monkeypatch.setattr(debian, "own_python", lambda: "3.13")


@pytest.fixture
def debian_12(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' machine has Debian 12."""
    monkeypatch.setattr(debian, "version", lambda: 12)
    monkeypatch.setattr(debian, "suite", lambda: "bookworm")
    monkeypatch.setattr(debian, "own_python", lambda: "3.11")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine whose paths are all below one folder, so that nothing of this computer is touched."""
    made = Machine(root=tmp_path, systemd=Systemd())
    for module in MODULES:
        for name, value in list(vars(module).items()):
            if isinstance(value, Path) and value.is_absolute() and name.isupper():
                monkeypatch.setattr(module, name, tmp_path / value.relative_to("/"))
    for folder in (paths.RELEASES, paths.VENVS, paths.RUN, paths.SETTINGS.parent, paths.INCOMING, paths.OPT):
        folder.mkdir(parents=True, exist_ok=True)
    memory.PROC.mkdir()
    (memory.PROC / "meminfo").write_text("MemTotal:        2000000 kB\nSwapTotal:             0 kB\n")
    paths.SETTINGS.write_text(json.dumps({"name": "www.example.com", "stack": "blue"}))

    def probe(path: str, *, through: Path | None, timeout: float = 5.0) -> ProbeResult:
        release = atomic.link_target(paths.CURRENT) if through is None else through.parent.parent.name
        made.asked.append((path, "nginx" if through is None else str(release)))
        answer = made.answers.get("nginx" if through is None else str(release))
        return answer() if answer else ProbeResult(status=200, release=str(release), body="ok")

    for module in (processes, switch):
        monkeypatch.setattr(module, "probe", probe)
    monkeypatch.setattr(stage, "install", lambda release: False)
    monkeypatch.setattr(lease, "coordinator", None)
    run_in_memory = made.systemd.run

    def run(command: tuple[str, ...], **more: Any) -> subprocess.CompletedProcess[str]:
        done = run_in_memory(command, **more)
        if command[:2] == ("systemctl", "start") and not done.returncode:
            release = command[-1][4:16]
            if command[-1].startswith("app@") and release not in made.systemd.broken:
                (paths.RUN / release / "socket").mkdir(parents=True, exist_ok=True)
                (paths.RUN / release / "socket" / "gunicorn.sock").touch()
        return done

    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(run=run))
    return made


@pytest.fixture
def held(machine: Machine) -> Iterator[Machine]:
    """The same machine, whose lease ATTEMPT holds."""
    with paths.LEASE.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"attempt": ATTEMPT, "owner": "carol@laptop", "since": 0}, file)
        file.flush()
        yield machine


@pytest.fixture
def staged(held: Machine) -> Machine:
    """The same machine, where OLD is live and NEW is healthy beside it."""
    held.add(OLD, confirmed=True, age=10)
    held.serve(OLD)
    held.add(NEW)
    stage.prepare(NEW, ATTEMPT)
    return held
