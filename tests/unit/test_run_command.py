"""The script that runs a one-off command, run as its unit runs it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parents[2] / "infra/decant/host/gunicorn"
RELEASE = "0123456789ab"


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Start the script, which finds `command` among its credentials, as a session of its own."""

    def start(command: str, terminal: Any = None, **options: Any) -> subprocess.Popen[str]:
        (tmp_path / "command.json").write_text(json.dumps({"command": command, "terminal": terminal}))
        (tmp_path / "environment.json").write_text(json.dumps({"SECRET_KEY": "canary"}))
        environment = {"DECANT_RELEASE": RELEASE, "CREDENTIALS_DIRECTORY": str(tmp_path)}
        words = [sys.executable, str(HERE / "run_command.py")]
        return subprocess.Popen(
            words, env=environment, start_new_session=True, text=True, **{"stdout": subprocess.PIPE, **options}
        )

    return start


def test_it_has_the_environment_of_its_release(start: Any) -> None:
    with start('echo $SECRET_KEY $PATH; echo "it\'s $0"') as process:
        assert process.stdout.read() == (
            f"canary /var/lib/decant/releases/{RELEASE}/venv/bin:/usr/local/bin:/usr/bin:/bin\nit's /bin/sh\n"
        )


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -TERM $$", 143), ("kill -INT $$", 130)])
def test_it_ends_as_its_command(start: Any, command: str, status: int) -> None:
    with start(command) as process:
        assert process.wait(timeout=20) == status


def test_it_waits_for_a_command_that_tidies_up(start: Any) -> None:
    """systemd sends SIGTERM to all processes of a unit, and kills those that are left when the first one has ended."""
    with start("trap 'echo tidy; exit 3' TERM; echo begun; while :; do sleep 0.05; done") as process:
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGTERM)
        assert process.stdout.read() == "tidy\n"
        assert process.wait(timeout=20) == 3


def test_a_terminal_is_its_own(start: Any) -> None:
    outer, inner = pty.openpty()
    with start('echo "$TERM"; sleep 300', ["vt220", 24, 80], stdin=inner, stdout=inner, stderr=inner) as process:
        os.close(inner)
        assert os.read(outer, 100) == b"vt220\r\n"
        time.sleep(0.1)
        os.write(outer, b"\x03")
        assert process.wait(timeout=20) == 130
    os.close(outer)
