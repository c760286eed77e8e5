"""Logs for people: what is asked of journalctl and tail, and lines as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from decant_host import logs, paths
from decant_host.errors import HostError
from tests.unit.decant_host.machine import NEW, OLD, Machine


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for journalctl: it notes its words and prints what is in `entries`."""
    script = tmp_path / "bin" / "journalctl"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncat {tmp_path}/entries\n'
        'case "$*" in *--follow*) exec sleep 300 ;; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    (tmp_path / "entries").write_text("")
    return tmp_path


def entry(message: object, **fields: str) -> str:
    usual = {"__REALTIME_TIMESTAMP": "1700000000500000", "_SYSTEMD_UNIT": f"app@{OLD}.service", "MESSAGE": message}
    return json.dumps(usual | fields) + "\n"


def shown(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_all_releases_are_found_by_their_slices(
    machine: Machine, program: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (program / "entries").write_text(
        entry("hello")
        + entry("done", _SYSTEMD_UNIT=f"release@{NEW}.service")
        + entry("Started", _SYSTEMD_UNIT="init.scope", UNIT=f"app@{NEW}.service")
        + entry("other", _SYSTEMD_UNIT="ssh.service")
        + "cut off"
    )
    logs.show_logs("app", None, 7, follow=False)
    at = 1_700_000_000.5
    assert shown(capfd) == [
        {"time": at, "release": OLD, "source": "web", "text": "hello"},
        {"time": at, "release": NEW, "source": "release", "text": "done"},
        {"time": at, "release": NEW, "source": "systemd", "text": "Started"},
    ]
    assert (program / "asked").read_text() == (
        "--output=json --all --no-pager --quiet --lines=7"
        " _SYSTEMD_SLICE=system-app.slice _SYSTEMD_SLICE=system-release.slice\n"
    )


def test_one_release_is_found_by_its_units(machine: Machine, program: Path) -> None:
    machine.add(OLD)
    logs.show_logs("app", OLD, 7, follow=False)
    assert f"--unit=app@{OLD}.service --unit=release@{OLD}.service" in (program / "asked").read_text()


def test_a_release_that_is_gone_from_the_disk_has_a_log_while_the_journal_has_it(
    machine: Machine, program: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (program / "entries").write_text(entry("old news"))
    logs.show_logs("app", OLD, 7, follow=False)
    assert [line["text"] for line in shown(capfd)] == ["old news"]
    (program / "entries").write_text("")
    with pytest.raises(HostError, match=f"release {OLD} was never on this machine"):
        logs.show_logs("app", OLD, 7, follow=False)


def test_secrets_and_controls_are_hidden(machine: Machine, program: Path, capfd: pytest.CaptureFixture[str]) -> None:
    machine.add(OLD)
    text = (
        entry("key canary-key \x1b[31mred")
        + entry(list(b"raw canary-key"))
        + entry("x canary-key", _SYSTEMD_UNIT=f"app@{NEW}.service")
    )
    (program / "entries").write_text(text)
    logs.show_logs("app", None, 7, follow=False)
    assert [line["text"] for line in shown(capfd)] == ["key [KEY] red", "raw [KEY]", "x [KEY]"]


def test_the_access_log_of_one_release(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    paths.NGINX_LOGS.mkdir(parents=True)
    told = f'HTTP/1.1" 200 "- release={NEW} limit=x" release='
    lines = [f'"GET /{n}?t=canary-key {told}{OLD if n % 2 else NEW} limit=-/-\n' for n in range(5)]
    (paths.NGINX_LOGS / "access.log").write_text("".join(lines))
    machine.add(OLD)
    logs.show_logs("access", None, 2, follow=False)
    assert [line["release"] for line in shown(capfd)] == [OLD, NEW]
    logs.show_logs("access", OLD, 1, follow=False)
    assert shown(capfd) == [
        {"time": None, "release": OLD, "source": "access", "text": lines[3].strip().replace("canary-key", "[KEY]")},
    ]  # fmt: skip


def test_the_error_log_knows_no_releases(machine: Machine) -> None:
    with pytest.raises(HostError, match="does not say which release a line is about"):
        logs.show_logs("error", OLD, 1, follow=False)
    with pytest.raises(HostError, match=r"error\.log is not there yet"):
        logs.show_logs("error", None, 1, follow=False)


FOLLOW = """
import sys
sys.path.insert(0, sys.argv[1])
from decant_host import logs
logs.PING_TIMEOUT = float(sys.argv[2])
logs.show_logs("app", None, 1, follow=True)
"""


def follower(program: Path, silence: float = 60.0) -> subprocess.Popen[str]:
    (program / "entries").write_text(entry("hello"))
    infra = str(Path(logs.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", FOLLOW, infra, str(silence)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )  # fmt: skip


def test_following_ends_with_standard_input(program: Path) -> None:
    with follower(program) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["text"] == "hello"
        process.stdin.write("\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def test_following_ends_without_signs_of_life(program: Path) -> None:
    with follower(program, silence=0.5) as process:
        assert process.wait(timeout=20) == 0
