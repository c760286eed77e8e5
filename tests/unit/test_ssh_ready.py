"""The `ready` step: it waits for a login, and refuses machines that Decant cannot use."""

from __future__ import annotations

import io
import itertools
import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant.errors import MachineError, PortClosedError, UnreachableError
from decant.ssh import host_checks, ready
from decant.ssh.client import Access, CommandResult
from decant.ssh.ready import BEGIN, END, wait_ready
from tests.support.in_memory import HOST_KEY, PRIVATE
from tests.support.in_memory_sshd import Run, Sshd

# ------------------------------------------------------------------------------------------------ waiting

PLAIN: dict[str, Any] = {
    "name": "web-1",
    "address": "203.0.113.7",
    "user": "deploy",
    "host_key": HOST_KEY,
    "private_key": PRIVATE,
}


def answer(facts: str) -> str:
    """What the check prints on a machine."""
    return f"{BEGIN}\n{facts}{END}\n"


def prints(output: str) -> Callable[[Run], int]:
    def command(run: Run) -> int:
        run.say(output)
        return 0

    return command


READY = answer("os=debian 13\nroot=yes\nfirst_boot=0\nsystemd=yes\n")


NOW = 1_700_000_000  # 2023-11-14 22:13:20 UTC


class Clock:
    """A clock that moves only in `sleep`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert self.now < 10_000, "this waits for ever"
        self.slept.append(seconds)
        self.now += seconds


class ScriptedSession:
    """Stands in for Session: a try takes `takes` seconds and has the next of `outcomes`; the last one stays."""

    def __init__(self, clock: Clock, *outcomes: str | Exception, takes: float = 0.0) -> None:
        self.clock = clock
        self.outcomes = list(outcomes)
        self.takes = takes
        self.tried: list[float] = []

    def __call__(self, access: Access) -> ScriptedSession:
        self.tried.append(self.clock.now)
        self.clock.now += self.takes
        self.outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(self.outcome, Exception) and "running" not in str(self.outcome):
            raise self.outcome
        return self

    def run(self, command: str, *, stdin: str, timeout: float) -> CommandResult:
        assert (command, stdin) == (ready._COMMAND, ready._CHECK)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return CommandResult(status=0, stdout=self.outcome, stderr="")

    def __enter__(self) -> ScriptedSession:
        return self

    def __exit__(self, *_: object) -> None:
        pass


ACCESS = Access(**PLAIN, port=2222)
SILENT = UnreachableError(f"{ACCESS}: no answer")
CLOSED = PortClosedError(f"{ACCESS}: Unable to connect to port 2222 on 203.0.113.7")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(ready, "time", made)
    day = SimpleNamespace(time=lambda: NOW, gmtime=time.gmtime, strftime=time.strftime)
    monkeypatch.setattr(host_checks, "time", day)
    return made


def scripted(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, *outcomes: str | Exception, takes: float = 0.0
) -> ScriptedSession:
    tries = ScriptedSession(clock, *outcomes, takes=takes)
    monkeypatch.setattr(ready, "Session", tries)
    return tries


def test_a_machine_that_answers_is_ready_at_once(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    logged: list[str] = []
    tries = scripted(monkeypatch, clock, READY)
    wait_ready(ACCESS, timeout=60, log=logged.append)
    assert len(tries.tried) == 1
    assert clock.slept == []
    assert logged == [f"{ACCESS} is ready after 0.0 s"]


def test_a_login_is_tried_every_two_seconds_and_each_reason_logged_once(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Debian 13's sshd penalises a source that connects more often."""
    reset = UnreachableError(f"{ACCESS}: reset by peer")
    broken = UnreachableError(f"{ACCESS}: the connection closed while running x")
    logged: list[str] = []
    tries = scripted(monkeypatch, clock, SILENT, SILENT, reset, reset, broken, SILENT, READY)
    wait_ready(ACCESS, timeout=60, log=logged.append)
    assert [b - a for a, b in itertools.pairwise(tries.tried)] == [2.0] * 6
    assert [line.split(": ", 1)[1].split(";")[0] for line in logged[:-1]] == [
        "no answer", "reset by peer", "the connection closed while running x", "no answer",
    ]  # fmt: skip
    assert all("trying until 60 s are over" in line for line in logged[:-1])
    assert logged[-1] == f"{ACCESS} is ready after 12.0 s"


def test_a_refused_connection_is_retried_sooner(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """No sshd listens yet that could penalise us."""
    tries = scripted(monkeypatch, clock, CLOSED, CLOSED, SILENT, CLOSED, READY)
    wait_ready(ACCESS, timeout=60, log=lambda text: None)
    assert [b - a for a, b in itertools.pairwise(tries.tried)] == [0.5, 0.5, 2.0, 0.5]


@pytest.mark.parametrize(("takes", "count"), [(0.0, 31), (3.0, 13), (15.0, 4), (100.0, 1)])
def test_the_timeout_is_in_seconds_and_not_in_tries(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, takes: float, count: int
) -> None:
    tries = scripted(monkeypatch, clock, SILENT, takes=takes)
    with pytest.raises(MachineError) as caught:
        wait_ready(ACCESS, timeout=60, log=lambda text: None)
    assert len(tries.tried) == count
    assert clock.now - 1000 <= 60 + takes
    text = str(caught.value)
    assert not isinstance(caught.value, UnreachableError)
    assert "did not let us in within 60 s: no answer" in text
    assert "ssh -p 2222 deploy@203.0.113.7" in text
    assert "decant:adminCidrs" in text
    assert "decant:hosts" not in text, "this machine is a cloud's"
    assert "pulumi up" in text


def test_the_address_of_a_host_is_named_by_its_setting(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    scripted(monkeypatch, clock, SILENT)
    with pytest.raises(MachineError) as caught:
        wait_ready(replace(ACCESS, setting="decant:hosts[2]"), timeout=60, log=lambda text: None)
    assert "pulumi config set --path 'decant:hosts[2].address' ADDRESS" in str(caught.value)
    assert "decant:adminCidrs" not in str(caught.value), "only a cloud has it"


def test_an_error_that_stays_ends_the_wait_at_once(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    refused = MachineError("refused the login")
    tries = scripted(monkeypatch, clock, refused, READY)
    with pytest.raises(MachineError) as caught:
        wait_ready(ACCESS, timeout=60, log=lambda text: None)
    assert caught.value is refused
    assert len(tries.tried) == 1
    assert clock.slept == []


@pytest.mark.parametrize("change", [{"host_key": HOST_KEY}, {"user": "root"}])
def test_a_wrong_key_and_a_refused_login_end_the_wait_at_once(clock: Clock, change: dict[str, str]) -> None:
    with Sshd().running() as sshd:
        with pytest.raises(MachineError, match=r"another host key|refused the login"):
            wait_ready(sshd.access(**change), timeout=60, log=lambda text: None)
        assert sshd.connections == 1
    assert clock.slept == []


ON_A_HOST, ON_A_CLOUD = "decant:hosts[1]", None
SOUND = "os=debian 13\nroot=yes\nsystemd=yes\n"


@pytest.mark.parametrize(
    ("facts", "setting", "texts"),
    [
        ("os=debian 12\nroot=yes\nsystemd=yes\n", ON_A_CLOUD, ["runs debian 12; Decant supports debian 13.\n",
                                                               "pulumi config rm decant:image"]),
        ("os=ubuntu 24.04\nroot=yes\nsystemd=yes\n", ON_A_HOST, ["runs ubuntu 24.04", "Bring a Debian 13 host"]),
        ("root=yes\nsystemd=yes\n", ON_A_HOST, ["runs an unknown system"]),
        ("os=debian 13\nroot=no\n", ON_A_HOST, ["user deploy cannot use sudo without a password",
                                               "/etc/sudoers.d/deploy", "--path 'decant:hosts[1].user' root"]),
        ("os=debian 13\nroot=no\nwhy=sudo: sorry, you must have a tty to run sudo\n", ON_A_HOST,
         ["sudo wants a terminal (requiretty)", "'Defaults:deploy !requiretty' > /etc/sudoers.d/deploy-no-terminal",
          "--path 'decant:hosts[1].user' root"]),
        ("os=debian 13\nroot=no\nwhy=sh: 6: sudo: not found\n", ON_A_HOST,
         ["user deploy is not root, and there is no sudo", "apt-get install sudo &&", "hosts[1].user' root"]),
        (f"{SOUND}read_only=/var\n", ON_A_HOST, ["/var is read-only. Linux does that", "remount,rw $(findmnt"]),
        (f"{SOUND}home=4095\n", ON_A_CLOUD, ["the disk is full: 4095 kB are free in the home of user deploy, 4096 kB"]),
        (f"{SOUND}clock={NOW - 601}\n", ON_A_HOST, ["its clock says 2023-11-14 22:03:19 UTC, and this computer's says"
                                                    " 2023-11-14 22:13:20 UTC", "date -u -s '2023-11-14 22:13:20'"]),
        (f"{SOUND}clock={NOW + 601}\n", ON_A_CLOUD, ["its clock says 2023-11-14 22:23:21 UTC"]),
        ("os=debian 13\nroot=no\n", ON_A_CLOUD, ["user deploy cannot use sudo", "MACHINE=web-1"]),
        ("os=debian 13\nroot=yes\nsystemd=no\n", ON_A_HOST, ["is not run by systemd"]),
        ("os=debian 13\nroot=yes\nfirst_boot=1\nsystemd=yes\n", ON_A_CLOUD, ["first boot (cloud-init) failed",
                                                                            "cloud-init-output.log"]),
        ("os=debian 13\nroot=yes\nfirst_boot=124\nsystemd=yes\n", ON_A_HOST, ["first boot (cloud-init) failed"]),
    ],
)  # fmt: skip
def test_a_machine_that_cannot_be_used_is_refused_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, facts: str, setting: str | None, texts: list[str]
) -> None:
    scripted(monkeypatch, clock, answer(facts))
    with pytest.raises(MachineError) as caught:
        wait_ready(replace(ACCESS, setting=setting), timeout=60, log=lambda text: None)
    assert str(caught.value).startswith(str(ACCESS))
    for text in texts:
        assert text in str(caught.value)
    if setting is None:
        assert "decant:hosts" not in str(caught.value)
    assert clock.slept == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_fix_for_sudo_is_for_the_host_that_failed(place: int) -> None:
    with Sshd(on_command=prints(answer("os=debian 13\nroot=no\n"))).running() as sshd:
        access = sshd.access(setting=f"decant:hosts[{place}]")
        with pytest.raises(MachineError) as caught:
            wait_ready(access, timeout=60, log=lambda text: None)
    assert re.findall(r"decant:hosts\S*", str(caught.value)) == [f"decant:hosts[{place}].user'"]


# ------------------------------------------------------------------------------------------------ login shells


@pytest.mark.parametrize(
    "output",
    ["Welcome to web-1!\n" + READY, "Welcome! " + READY, READY + "Bye\n", f"Welcome!\n{BEGIN}\n"],
    ids=["a line before", "no line end", "a line after", "and the shell ends"],
)
def test_a_login_shell_that_prints_text_is_named_with_the_remedy(output: str) -> None:
    """Every later step would find that text in its own output, and sftp would not work at all."""
    with Sshd(on_command=prints(output)).running() as sshd, pytest.raises(MachineError) as caught:
        wait_ready(sshd.access(), timeout=60, log=lambda text: None)
    text = str(caught.value)
    assert "the login shell of user carol prints text when it runs a command: " in text
    assert ("Welcome" in text) is ("Welcome" in output)
    assert ("Bye" in text) is ("Bye" in output)
    assert "Make what it reads silent for non-interactive shells: ~/.bashrc of bash, ~/.zshenv of zsh" in text


@pytest.mark.parametrize(
    "output",
    ["", f"{BEGIN}\n", answer("shell=other\nos=debian 13\nroot=no\n"), "Welcome!\n"],
    ids=["fish", "tcsh", "zsh", "fish with a greeting"],
)
def test_a_login_shell_that_starts_another_one_is_named_with_the_remedy(output: str) -> None:
    with Sshd(on_command=prints(output)).running() as sshd, pytest.raises(MachineError) as caught:
        wait_ready(sshd.access(), timeout=60, log=lambda text: None)
    text = str(caught.value)
    assert "the login shell of user carol does not run commands; it starts another program." in text
    assert "Take lines such as `exec zsh` out of what it reads" in text
    assert "chsh -s /bin/zsh carol" in text
    assert "unknown system" not in text
    assert ("Welcome!" in text) is ("Welcome!" in output)


@pytest.mark.parametrize("first_boot", ["", "first_boot=0\n", "first_boot=2\n"])
def test_a_first_boot_with_a_warning_is_done(monkeypatch: pytest.MonkeyPatch, clock: Clock, first_boot: str) -> None:
    scripted(monkeypatch, clock, answer(f"os=debian 13\nroot=yes\n{first_boot}systemd=yes\n"))
    wait_ready(ACCESS, timeout=60, log=lambda text: None)


@pytest.mark.parametrize(
    "facts", ["", "home=4096\n", "home=\nclock=\n", f"clock={NOW - 600}\n", f"clock={NOW + 600}\n"]
)
@pytest.mark.parametrize("system", ["debian 13", "debian 12"])
def test_a_sound_host_is_ready(monkeypatch: pytest.MonkeyPatch, clock: Clock, facts: str, system: str) -> None:
    scripted(monkeypatch, clock, answer(f"os={system}\nroot=yes\nsystemd=yes\n{facts}"))
    wait_ready(replace(ACCESS, setting=ON_A_HOST), timeout=60, log=lambda text: None)


# ------------------------------------------------------------------------------------------------ the check


def run_check(tmp_path: Path, *, shell: str = "/bin/sh", argument: str = "decant-check", **programs: str) -> str:
    """The check, run here with stand-ins for programs; its output."""
    df = "echo Filesystem 1024-blocks Used Available; echo /dev/sda1 9000 1000 8000 12% /"
    usual = {"timeout": 'shift; exec "$@"', "df": df, "tail": "read -r _; cat", "cat": "exec /bin/cat",
             "date": "echo 1700000000", "test": "exit 0"}  # fmt: skip
    for name, body in {**usual, **programs}.items():
        file = tmp_path / name.replace("_", "-")
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
    done = subprocess.run(
        [shell, "-s", argument], input=ready._CHECK,
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout


SUDO = 'shift; exec "$@"'


@pytest.mark.parametrize(
    ("programs", "facts"),
    [
        ({"id": "echo 0"}, {"root": "yes"}),
        ({"id": "echo 1000", "sudo": SUDO, "true": ""}, {"root": "yes"}),
        ({"id": "echo 1000", "sudo": "echo sudo: a password is >&2; echo required >&2; exit 1"},
         {"root": "no", "why": "sudo: a password is required"}),
        ({"id": "echo 1000", "sudo": SUDO, "true": "", "test": '[ "$2" != /opt ]'},
         {"root": "yes", "read_only": "/opt"}),
        ({"id": "echo 0", "cloud_init": "exit 0"}, {"root": "yes", "first_boot": "0"}),
        ({"id": "echo 0", "cloud_init": "echo noise; exit 2"}, {"root": "yes", "first_boot": "2"}),
        ({"id": "echo 1000", "sudo": SUDO, "true": "", "cloud_init": "exit 1"}, {"root": "yes", "first_boot": "1"}),
        ({"id": "echo 0", "timeout": "exit 124", "cloud_init": "exit 0"}, {"root": "yes", "first_boot": "124"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_the_check_reports_what_it_finds(
    tmp_path: Path, programs: dict[str, str], facts: dict[str, str], shell: str
) -> None:
    found = ready._read_facts(ACCESS, run_check(tmp_path, shell=shell, **programs))
    assert re.fullmatch(r"\w+ .*", found.pop("os"))
    systemd = found.pop("systemd", None)
    assert found == {**facts, "home": "8000", "clock": "1700000000"}
    assert systemd == (None if facts["root"] == "no" else "yes" if Path("/run/systemd/system").is_dir() else "no")


def test_a_missing_sudo_is_reported(tmp_path: Path) -> None:
    found = ready._read_facts(ACCESS, run_check(tmp_path, id="echo 1000"))
    assert found["root"] == "no"
    assert "not found" in found["why"]


def test_the_check_notices_that_another_shell_reads_it(tmp_path: Path) -> None:
    """The shell that ~/.bashrc starts has not got the command's argument."""
    output = run_check(tmp_path, argument="", id="echo 0")
    with pytest.raises(MachineError, match="the login shell of user deploy does not run commands"):
        ready._read_facts(ACCESS, output)
    assert ready._COMMAND == "sh -s decant-check"


# ------------------------------------------------------------------------------------------------ the step


def run_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **given: Any) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**PLAIN, "port": 2222, "id": "7", **given})))
    status = ready.main()
    out, err = capsys.readouterr()
    return status, out, err


def test_the_step_prints_the_same_every_time(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, clock, SILENT, READY)
    status, out, err = run_step(monkeypatch, capsys, timeout=60)
    assert status == 0
    assert json.loads(out) == {"machine": "web-1", "ready": True}, (
        "no times, so that an unchanged machine's step has an unchanged output"
    )
    assert "is ready after 2.0 s" in err


def test_the_step_fails_with_a_reason_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = scripted(monkeypatch, clock, SILENT)
    status, out, err = run_step(monkeypatch, capsys, timeout=10.0)
    assert (status, out) == (1, "")
    assert "did not let us in within 10 s" in err
    assert "Traceback" not in err
    assert PRIVATE.splitlines()[2] not in err
    assert len(tries.tried) == 6
