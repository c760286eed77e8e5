"""One-off commands: what systemd is asked for, input and output, and their end with the one who asked."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from decant_host import one_off, paths
from decant_host.protocol import SHELL_GUARD
from tests.unit.decant_host.machine import NEW, OLD, Machine

INFRA = Path(one_off.__file__).parents[1]
SANDBOX = INFRA / "decant/host/systemd/sandbox.conf"

# The program with its paths in a folder, and a systemd-run that starts the command as it is.
PROGRAM = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
from decant_host import one_off, paths, releases
for module in (one_off, releases):
    for name in ("RUNS", "RELEASES", "CURRENT", "SANDBOX"):
        if hasattr(module, name):
            setattr(module, name, folder / getattr(paths, name).relative_to("/"))
one_off.PING_TIMEOUT = float(sys.argv[3])
one_off.pwd.getpwnam = lambda name: type("Nobody", (), {"pw_uid": 0})
from decant_host.commands import main
sys.exit(main(["run"]))
"""

SYSTEMD_RUN = """#!/bin/sh
echo "$@" >{folder}/asked
for word; do case $word in --unit=*) unit=${{word#--unit=}} ;; esac; done
cp {folder}/run/decant/runs/$unit.json {folder}/credential
exec sh -c "$(python3 -c 'import json; print(json.load(open("{folder}/credential"))["command"])')"
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a machine where OLD is live and NEW is staged."""
    for release in (OLD, NEW):
        folder = tmp_path / paths.RELEASES.relative_to("/") / release
        (folder / "venv").mkdir(parents=True)
        (folder / "release.json").write_text(json.dumps({"entry": "my app:make()"}))
    current = tmp_path / paths.CURRENT.relative_to("/")
    current.parent.mkdir(parents=True)
    current.symlink_to(OLD)
    sandbox = tmp_path / paths.SANDBOX.relative_to("/")
    sandbox.parent.mkdir(parents=True)
    sandbox.write_text("# a comment = none\n[Service]\nUser=decant\nEnvironment=DECANT_RELEASE=%i\n")
    (tmp_path / "bin").mkdir()
    for name, text in (
        ("systemd-run", SYSTEMD_RUN.format(folder=tmp_path)),
        ("systemctl", f'#!/bin/sh\necho "$@" >>{tmp_path}/stopped\npkill -KILL -P "$(cat {tmp_path}/parent)"\n'),
    ):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def start(
    host: Path, request: dict[str, Any], *, silence: float = 60.0, guard: str = SHELL_GUARD, **options: Any
) -> subprocess.Popen[bytes]:
    asked = {"command": "true", "release": None, "terminal": None} | request
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(host), str(INFRA), str(silence)],
        stdin=subprocess.PIPE, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip
    (host / "parent").write_text(str(process.pid))
    assert process.stdin is not None
    process.stdin.write(f"{guard}{json.dumps(asked)}\n".encode())
    process.stdin.flush()
    return process


def say(process: subprocess.Popen[bytes], **line: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(line).encode() + b"\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Wait for the end, with standard input open: to close it is to go away."""
    assert process.stdout is not None
    assert process.stderr is not None
    found = process.stdout.read(), process.stderr.read()
    return (process.wait(timeout=20), *found)


def test_the_exit_status_is_the_commands(host: Path) -> None:
    assert finish(start(host, {"command": "echo out; echo err >&2; exit 7"})) == (7, b"out\n", b"err\n")
    assert list((host / "run/decant/runs").iterdir()) == []


def test_the_command_is_in_no_command_line(host: Path) -> None:
    finish(start(host, {"command": ": pass-word"}))
    asked = (host / "asked").read_text()
    assert "pass-word" not in asked
    assert json.loads((host / "credential").read_text()) == {"command": ": pass-word", "terminal": None}
    unit = asked.partition("--unit=")[2].split()[0]
    assert asked == (
        f"--quiet --pipe --wait --collect --unit={unit} --service-type=exec"
        f" --description=A one-off command in release {OLD} --property=User=decant"
        f" --property=Environment=DECANT_RELEASE={OLD}"
        f" --property=LoadCredential=command.json:{host}/run/decant/runs/{unit}.json --property=OOMScoreAdjust=300"
        " --property=TimeoutStopSec=10 --property=SendSIGHUP=yes"
        f" {host}/var/lib/decant/releases/{OLD}/venv/bin/python /opt/decant/python/run_command.py\n"
    )
    assert unit.startswith(f"decant-run-{OLD}-")


def test_a_staged_release_can_be_named(host: Path) -> None:
    finish(start(host, {"release": NEW}))
    assert f"DECANT_RELEASE={NEW}" in (host / "asked").read_text()


def test_the_console_is_a_flask_shell_of_the_apps_entry_point(host: Path) -> None:
    finish(start(host, {"command": None}))
    command = json.loads((host / "credential").read_text())["command"]
    assert command == "FLASK_APP=${FLASK_APP:-'my app:make()'} exec flask shell"


@pytest.mark.parametrize(
    ("release", "error"),
    [
        ("0123456789ab", f"release 0123456789ab is not on this machine; here are: {OLD}"),
        ("../../etc", "'../../etc' is not a release id"),
    ],
)
def test_a_release_that_is_not_there_is_refused(host: Path, release: str, error: str) -> None:
    status, out, err = finish(start(host, {"release": release}))
    assert (status, out) == (1, b"")
    assert error in err.decode().replace(f"{NEW}, {OLD}", OLD).replace(f"{OLD}, {NEW}", OLD)
    assert not (host / "asked").exists()


def test_nothing_live_is_refused(host: Path) -> None:
    (host / paths.CURRENT.relative_to("/")).unlink()
    status, _, err = finish(start(host, {}))
    assert (status, "nothing is live on this machine yet" in err.decode()) == (1, True)


@pytest.mark.parametrize("guard", [SHELL_GUARD, ""])
def test_input_reaches_the_command_and_ends(host: Path, guard: str) -> None:
    process = start(host, {"command": "cat"}, guard=guard)
    data = os.urandom(300_000)
    say(process, data=base64.b64encode(data).decode())
    say(process)
    say(process, end=True)
    assert finish(process) == (0, data, b"")


def test_a_command_that_reads_nothing_ends_all_the_same(host: Path) -> None:
    process = start(host, {"command": "exec 0<&-; sleep 0.3; echo over"})
    for _ in range(3):
        say(process, data=base64.b64encode(b"x" * 200_000).decode())
    assert finish(process) == (0, b"over\n", b"")


def test_a_command_ends_with_standard_input(host: Path) -> None:
    process = start(host, {"command": "echo begun; exec sleep 300"})
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"begun\n"
    process.stdin.close()
    assert process.wait(timeout=20) == 255
    assert (host / "stopped").read_text().startswith(f"stop decant-run-{OLD}-")
    assert list((host / "run/decant/runs").iterdir()) == []


@pytest.mark.parametrize("what", ["output", "silence", "signal"])
def test_a_command_ends_with_the_one_who_asked(host: Path, what: str) -> None:
    process = start(host, {"command": "echo begun; exec sleep 300"}, silence=0.7 if what == "silence" else 60)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    if what == "output":
        process.stdout.close()
    if what == "signal":
        process.terminate()
        process.terminate()
    assert process.wait(timeout=20) == 255
    assert (host / "stopped").exists()
    assert list((host / "run/decant/runs").iterdir()) == []


def test_signs_of_life_keep_a_command_alive(host: Path) -> None:
    process = start(host, {"command": "sleep 5; echo over"}, silence=3.5)
    for _ in range(12):
        time.sleep(0.4)
        say(process)
    assert finish(process)[:2] == (0, b"over\n")


def test_a_terminal_has_a_size_which_changes(host: Path) -> None:
    process = start(host, {"command": "stty size; read line; stty size", "terminal": ["xterm", 33, 101]})
    assert process.stdout is not None
    assert process.stdout.readline() == b"33 101\r\n"
    say(process, size=[44, 55])
    say(process, data=base64.b64encode(b"go\n").decode())
    assert finish(process)[:2] == (0, b"go\r\n44 55\r\n")


def test_what_a_killed_supervisor_left_is_stopped(machine: Machine) -> None:
    paths.RUNS.mkdir()
    unit = f"decant-run-{OLD}-0a1b2c3d"
    (paths.RUNS / f"{unit}.json").write_text("{}")
    held = paths.RUNS / f"decant-run-{OLD}-11111111.json"
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        one_off.sweep()
    assert machine.systemd.done == [f"systemctl stop {unit}.service"]
    assert list(paths.RUNS.iterdir()) == [held]


def test_the_sandbox_is_that_of_a_release_command(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.SANDBOX.parent.mkdir(parents=True)
    paths.SANDBOX.write_text(SANDBOX.read_text())
    monkeypatch.setattr(socket, "gethostname", lambda: "web-7")
    found = one_off.sandbox_properties(OLD)
    lines = [line for line in SANDBOX.read_text().splitlines() if line and line[0] not in "#["]
    assert len(found) == len(lines) > 40
    assert f"--property=WorkingDirectory=/var/lib/decant/releases/{OLD}/app" in found
    assert "--property=Environment=DECANT_MACHINE=web-7" in found
    assert not [one for one in found if "%i" in one or "%H" in one]
    # systemd-run expands no other specifier either.
    assert not [line for line in lines if re.search("%[a-zA-Z%]", line.replace("%i", "").replace("%H", ""))]
    assert not [line for line in lines if line.endswith("\\")]
