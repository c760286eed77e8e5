"""The verbs on a machine: logs and one-off commands as a user has them, and what is left when the connection dies."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from decant.verbs.logs import show_logs
from decant.verbs.machines import overview
from tests.support.site import CANARY, GREETING, Site
from tests.support.waiting import PATIENCE, wait_for

SANDBOX = (
    "User,Group,UMask,WorkingDirectory,ReadWritePaths,NoNewPrivileges,CapabilityBoundingSet,ProtectSystem,ProtectHome,"
    "PrivateTmp,PrivateDevices,ProtectKernelTunables,ProtectKernelModules,ProtectKernelLogs,ProtectProc,Environment,"
    "ProtectControlGroups,ProtectClock,ProtectHostname,RestrictSUIDSGID,RestrictNamespaces,RestrictRealtime,RemoveIPC,"
    "RestrictAddressFamilies,LockPersonality,SystemCallArchitectures,SystemCallFilter,SystemCallErrorNumber,MemoryMax,"
    "IPAddressDeny,MemoryHigh,TasksMax,LimitNOFILE,OOMScoreAdjust,StateDirectory,StateDirectoryMode,AmbientCapabilities"
)

CTRL_C = b"\x03"

CLIENT = """
import json, sys
from decant.ssh.client import Access
from decant.verbs.logs import show_logs
from decant.verbs.one_off import run_command
access, verb, *words = json.loads(sys.argv[1])
access = Access.from_dict(access)
try:
    if verb == "logs":
        sys.exit(show_logs([access], words, follow=True, as_json=False))
    sys.exit(run_command(access, *words))
except Exception as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module", params=["root", "carol"])
def user(request: pytest.FixtureRequest, site: Site) -> str:
    """Who logs in: root, or somebody who becomes root by sudo, which stands between sshd and the program."""
    name = str(request.param)
    if name != "root":
        site.machine.run(
            f"useradd --create-home --shell /bin/bash {name} && install -d -o {name} -m 700 /home/{name}/.ssh"
            f" && install -o {name} -m 600 /root/.ssh/authorized_keys /home/{name}/.ssh/"
            f" && echo '{name} ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/{name}"
        )
    return name


def client(site: Site, *words: Any, user: str = "root", **options: Any) -> subprocess.Popen[bytes]:
    """A process that runs a verb, which the test can kill."""
    argument = json.dumps([vars(site.access) | {"through": None, "user": user}, *words])
    return subprocess.Popen([sys.executable, "-c", CLIENT, argument], **options)


def run(site: Site, command: str | None, *, given: bytes = b"", release: str | None = None) -> tuple[int, str, str]:
    """Run a one-off command without a terminal: its status, output and errors."""
    pipe = subprocess.PIPE
    with client(site, "run", command, release, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        out, err = process.communicate(given, timeout=120)
    return process.returncode, out.decode(), err.decode()


def left(site: Site) -> str:
    """Units and files of one-off commands, and followers of logs, on the machine."""
    listed = (
        "systemctl list-units --all --plain --no-legend 'decant-run-*'; ls /run/decant/runs 2>/dev/null;"
        " pgrep -af 'journalctl --follow|tail -F|decant.host (run|logs)|sleep 98[0-9]' | grep -v pgrep; true"
    )
    return site.machine.run(listed).stdout


def test_a_command_runs_in_the_live_release_with_its_environment(site: Site) -> None:
    names = ("GREETING", "API_TOKEN", "DECANT_RELEASE", "DECANT_MACHINE")
    code = f"import json, os; print(json.dumps([os.environ[name] for name in {names}] + [os.getcwd()]))"
    status, out, err = run(site, f'python -c "{code}"')
    assert (status, err) == (0, "")
    home = f"/var/lib/decant/releases/{site.live}/app"
    hostname = site.machine.run("hostname").stdout.strip()
    assert json.loads(out) == [GREETING, CANARY, site.live, hostname, home]


def test_its_sandbox_is_that_of_a_release_command(site: Site) -> None:
    options = f"--property={SANDBOX}"
    with client(site, "run", "sleep 980", None, stdin=subprocess.PIPE) as process:
        wait_for(lambda: "decant-run-" in left(site), "it runs")
        unit = left(site).split()[0]
        shown = site.machine.run(["systemctl", "show", unit, options]).stdout.splitlines()
        process.terminate()
    expected = site.machine.run(["systemctl", "show", f"release@{site.live}", options]).stdout.splitlines()
    assert sorted(shown) == sorted(expected)


@pytest.mark.parametrize(("command", "status"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("nonsense", 127)])
def test_its_exit_status_is_passed_on(site: Site, command: str, status: int) -> None:
    assert run(site, command)[0] == status
    assert left(site) == ""


def test_input_and_both_outputs_are_passed_on(site: Site) -> None:
    data = os.urandom(3 << 20)
    with client(site, "run", "cat; echo error >&2", None, stdin=-1, stdout=-1, stderr=-1) as process:
        out, err = process.communicate(data, timeout=120)
    assert (process.returncode, out == data, err) == (0, True, b"error\n")


def test_quotes_reach_the_command(site: Site) -> None:
    odd = 'it\'s "$HOME" `id` \\ ä;&|'
    status, out, _ = run(site, f"cat <<'END'\n{odd}\nEND")
    assert (status, out) == (0, odd + "\n")


def test_a_terminal_is_one_for_the_command(site: Site) -> None:
    outer, inner = pty.openpty()
    with client(site, "run", "tty; stty size; exec cat", None, stdin=inner, stdout=inner, stderr=inner) as process:
        os.close(inner)
        seen = b""
        deadline = time.monotonic() + PATIENCE
        sent = 0
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([outer], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):
                    seen += os.read(outer, 4096)
            for number, (before, keys) in enumerate([(b"24 80", b"hello\n"), (b"hello\r\nhello", CTRL_C)]):
                if sent == number and before in seen:
                    os.write(outer, keys)
                    sent += 1
        assert process.wait(timeout=PATIENCE) == 130
    assert re.search(rb"/dev/pts/\d+\r\n24 80\r\nhello\r\nhello\r\n\^C", seen), seen
    assert left(site) == ""


def test_the_console_has_the_app(site: Site) -> None:
    status, out, err = run(site, None, given=b"print('app is', app.name)\n")
    assert (status, "app is " in out) == (0, True), out + err


def test_neither_the_command_nor_a_secret_is_in_a_log_or_a_command_line_of_decants(site: Site, user: str) -> None:
    with client(site, "run", "sleep 981 # pass-word-5b1f", None, user=user, stdin=subprocess.PIPE) as process:
        wait_for(lambda: "sleep 981" in site.machine.run("pgrep -af sleep; true").stdout, "it runs")
        lines = site.machine.run("ps axww -o args; journalctl --no-pager -b").stdout
        process.terminate()
    where = [line for line in lines.splitlines() if "pass-word-5b1f" in line or "canary5b1f" in line]
    assert set(where) <= {"/bin/sh -c sleep 981 # pass-word-5b1f"}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_command_ends_with_the_connection(site: Site, user: str, terminal: bool) -> None:
    outer, inner = pty.openpty()
    streams = {"stdin": inner, "stdout": inner, "stderr": inner} if terminal else {"stdin": subprocess.PIPE}
    with client(site, "run", "trap '' HUP TERM; sleep 982; sleep 983", None, user=user, **streams) as process:
        wait_for(lambda: "sleep 982" in left(site), "it runs")
        process.kill()
    wait_for(lambda: left(site) == "", "it is gone", 30)
    os.close(outer)
    os.close(inner)


def test_what_a_killed_supervisor_leaves_ends_with_the_next_command(site: Site) -> None:
    with client(site, "run", "sleep 984", None, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: "sleep 984" in left(site), "it runs")
        site.machine.run("pkill -9 -f 'decant_host [r]un'")
        process.wait(timeout=PATIENCE)
    assert "decant-run-" in left(site)
    assert run(site, "true")[0] == 0
    assert left(site) == ""


def test_following_ends_with_the_connection(site: Site, user: str) -> None:
    with client(site, "logs", "--source", "app", "--lines", "1", user=user, stdout=subprocess.PIPE) as process:
        wait_for(lambda: "journalctl --follow" in left(site), "it runs")
        process.kill()
    wait_for(lambda: left(site) == "", "it is gone", 30)


def test_logs_follow_what_the_app_writes_without_its_secrets(site: Site) -> None:
    with client(site, "logs", "--source", "app", "--lines", "1", stdout=subprocess.PIPE) as process:
        wait_for(lambda: "journalctl --follow" in left(site), "it runs")
        site.inside("import os, sys; print('a line', os.environ['API_TOKEN'], file=sys.stderr)")
        assert process.stdout is not None
        line = b""
        while b"a line" not in line:
            line = process.stdout.readline()
        process.terminate()
    assert re.fullmatch(rf"web \| [-\d]+ [:\d]+Z {site.live} web: a line \[API_TOKEN\]\n", line.decode())


def test_logs_of_a_release_that_never_went_live(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = site.variant(tmp_path / "broken", {"wsgi.py": "raise RuntimeError('no such luck')\n"})
    staged = site.stage(broken, read_as=site.project.app)
    assert staged.status == 1
    argv = ["--source", "app", "--lines", "200", "--release", staged.release]
    assert show_logs([site.access], argv, follow=False, as_json=False) == 0
    out = capsys.readouterr().out
    assert "web: Error: no such luck\n" in out
    assert {line.split()[4] for line in out.splitlines()} == {staged.release}


def test_nginxs_logs(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.ask("/healthz?mark=5b1f")
    argv = ["--source", "access", "--lines", "50", "--release", site.live]
    assert show_logs([site.access], argv, follow=False, as_json=True) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any("mark=5b1f" in one["text"] for one in found)
    assert {one["release"] for one in found} == {site.live}
    assert show_logs([site.access], ["--source", "error"], follow=False, as_json=False) in (0, 1)


def test_the_overview_of_a_machine(site: Site) -> None:
    found = overview(site.access)
    (web,) = [p for p in found["processes"] if p["state"] == "live"]
    assert (web["kind"], web["release"], web["restarts"]) == ("web", site.live, 0)
    assert 0 < found["time"] - (web["since"] or 0) < 3600
    assert web["memory"] is None or web["memory"] > 10 << 20, "some kernels count no memory for throwaway machines"
    assert found["history"][0]["id"] in (site.live, *found["releases"])
    assert found["services"]["nginx.service"] == "active"
    assert found["environment"]["API_TOKEN"] == "secret"
    assert (found["environment"]["GREETING"], found["environment"]["DATA_DIR"]) == ("plain", "decant")
    assert not {CANARY, GREETING} & {*json.dumps(found).split('"')}
    assert "canary5b1f" not in json.dumps(found)
