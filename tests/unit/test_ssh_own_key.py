"""A machine's own host key: made once, recorded by Pulumi, then active, wherever a run is killed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from decant.errors import HostKeyMismatchError, MachineError, UnreachableError
from decant.ssh import own_key, ready
from decant.ssh.client import Access, OuterLogin, Session
from decant.ssh.keys import fingerprint
from rehearsal.doubles import key_pair
from tests.support.in_memory_sshd import HOST_PRIVATE, SHOWN_KEY, Run, Sshd

OWN_PRIVATE, OWN_PUBLIC = key_pair()
OWN_PUBLIC = OWN_PUBLIC.strip()
FOREIGN_PRIVATE, FOREIGN = key_pair()
INSIDE = "sudo -n /usr/sbin/sshd -i -h /etc/ssh/decant_new_host_key"
FACTS = f"{ready.BEGIN}\nos=debian 13\nroot=yes\nfirst_boot=0\nsystemd=yes\n{ready.END}\n"

Capture = pytest.CaptureFixture[str]


# ------------------------------------------------------------------------------------------------ scripts


class EtcSsh:
    """A folder in place of /etc/ssh, with the key of the user data, and the scripts rewritten for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.active, self.waiting = folder / "ssh_host_ed25519_key", folder / "decant_new_host_key"
        self.reloads = folder / "reloads"
        private, public = key_pair()
        self.first = public.strip()
        self.active.write_text(private)
        self.active.chmod(0o600)
        self.active.with_suffix(".pub").write_text(public)
        systemctl = folder / "bin" / "systemctl"
        systemctl.parent.mkdir()
        systemctl.write_text(f'#!/bin/sh\necho "$@" >>{self.reloads}\n')
        systemctl.chmod(0o755)

    def run(self, script: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end; it must succeed."""
        return subprocess.run(
            ["sh", "-s", *argv],
            input=script.replace("/etc/ssh", str(self.folder)),
            env={**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip

    def make(self) -> str:
        """The machine's own public key, as the script prints it."""
        return " ".join(self.run(own_key._MAKE, self.first.split()[1]).stdout.split()[:2])

    def activate(self) -> None:
        self.run(own_key._ACTIVATE)

    def shown(self) -> str:
        """The public half of the key that sshd would read."""
        done = subprocess.run(["ssh-keygen", "-y", "-f", self.active], capture_output=True, text=True, check=True)
        return " ".join(done.stdout.split()[:2])


@pytest.fixture
def etc_ssh(tmp_path: Path) -> EtcSsh:
    return EtcSsh(tmp_path)


def test_the_own_key_is_made_and_not_active_yet(etc_ssh: EtcSsh) -> None:
    key = etc_ssh.make()
    assert key.startswith("ssh-ed25519 AAAA")
    assert key != etc_ssh.first
    assert etc_ssh.shown() == etc_ssh.first
    assert etc_ssh.waiting.stat().st_mode & 0o777 == 0o600
    assert not etc_ssh.reloads.exists()


def test_it_is_made_once(etc_ssh: EtcSsh) -> None:
    assert etc_ssh.make() == etc_ssh.make()


def test_it_becomes_the_only_key(etc_ssh: EtcSsh) -> None:
    key = etc_ssh.make()
    etc_ssh.activate()
    assert etc_ssh.shown() == key
    assert etc_ssh.active.with_suffix(".pub").read_text().split()[:2] == key.split()
    assert etc_ssh.active.stat().st_mode & 0o777 == 0o600
    assert etc_ssh.active.with_suffix(".pub").stat().st_mode & 0o777 == 0o644
    assert etc_ssh.reloads.read_text() == "try-reload-or-restart ssh\n"
    left = {path.name for path in etc_ssh.folder.iterdir()} - {"bin", "reloads"}
    assert left == {"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}


def test_an_active_own_key_stays(etc_ssh: EtcSsh) -> None:
    key = etc_ssh.make()
    etc_ssh.activate()
    etc_ssh.activate()
    assert etc_ssh.make() == key == etc_ssh.shown()
    assert etc_ssh.reloads.read_text().count("\n") == 2, "sshd may still hold the first key: the run before was killed"


@pytest.mark.parametrize("line", range(1, own_key._ACTIVATE.count("\n")))
def test_a_run_that_is_killed_at_any_line_is_finished_by_the_next(etc_ssh: EtcSsh, line: int) -> None:
    key = etc_ssh.make()
    lines = own_key._ACTIVATE.splitlines()
    cut = [*lines[:line], "kill -9 $$", *lines[line:]]
    with pytest.raises(subprocess.CalledProcessError):
        etc_ssh.run("\n".join(cut) + "\n")
    assert etc_ssh.make() == key
    etc_ssh.activate()
    assert etc_ssh.shown() == key


def test_a_key_that_is_half_made_is_made_anew(etc_ssh: EtcSsh) -> None:
    for name in ("decant_new_host_key.tmp", "decant_new_host_key.tmp.pub"):
        (etc_ssh.folder / name).write_text("half")
    key = etc_ssh.make()
    etc_ssh.activate()
    assert etc_ssh.shown() == key


# ------------------------------------------------------------------------------------------------ over SSH


class Machine:
    """An SSH server whose host key is exchanged by the script that activates the own one."""

    def __init__(self) -> None:
        self.sshd = Sshd(on_command=self.answer)
        self.activates = True
        self.made = OWN_PUBLIC
        self.inside: Any = paramiko.Ed25519Key(file_obj=io.StringIO(OWN_PRIVATE))
        self.told: list[tuple[str, str]] = []

    def answer(self, run: Run) -> int:
        if run.line == INSIDE:
            return self.sshd.serve_inside(run, self.inside) if self.inside else 1
        script = run.read()
        self.told.append((run.line, script))
        if ready.BEGIN in script:
            run.say(FACTS)
        elif script == own_key._MAKE:
            run.say(self.made + "\n")
        elif script == own_key._ACTIVATE and self.activates:
            self.show_own()
        return 0

    def show_own(self) -> None:
        self.sshd.host_keys[:] = [paramiko.Ed25519Key(file_obj=io.StringIO(OWN_PRIVATE))]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(own_key, "RELOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(own_key, "RETRY_INTERVAL", 0.05)
    made = Machine()
    with made.sshd.running():
        yield made


Step = Callable[..., tuple[int, str, str]]


@pytest.fixture
def step(machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Step:
    """Run a step's module: exit status and both outputs."""

    def run(module: Any, access: Access, *, recorded: str | None = None, **more: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**vars(access), **more})))
        monkeypatch.delenv(ready.RECORDED, raising=False)
        if recorded is not None:
            monkeypatch.setenv(ready.RECORDED, recorded)
        status = module.main()
        return (status, *capsys.readouterr())

    return run


def test_the_first_login_returns_the_own_key(machine: Machine, step: Step) -> None:
    status, out, _ = step(ready, machine.sshd.access(), own_key=True, timeout=5)
    assert (status, json.loads(out)) == (0, {"machine": "web-1", "ready": True, "host_key": OWN_PUBLIC})
    assert machine.sshd.lines[1:] == [f"sudo -n sh -s {SHOWN_KEY.split()[1]}"]


def test_a_host_of_the_users_own_keeps_its_key(machine: Machine, step: Step) -> None:
    status, out, _ = step(ready, machine.sshd.access(), timeout=5)
    assert (status, json.loads(out)) == (0, {"machine": "web-1", "ready": True})
    assert len(machine.sshd.lines) == 1


def test_a_machine_of_an_earlier_version_gets_its_own_key_at_the_next_run(machine: Machine, step: Step) -> None:
    before = json.dumps({"machine": "web-1", "ready": True})
    status, out, _ = step(ready, machine.sshd.access(), recorded=before, own_key=True, timeout=5)
    assert (status, json.loads(out)["host_key"]) == (0, OWN_PUBLIC)


@pytest.mark.parametrize("active", [True, False])
def test_a_recorded_key_is_returned_whatever_the_machine_says(machine: Machine, step: Step, active: bool) -> None:
    """Somebody who has the key of the user data and answers at the address could say anything."""
    if active:
        machine.show_own()
    machine.made = FOREIGN.strip()
    recorded = json.dumps({"machine": "web-1", "ready": True, "host_key": OWN_PUBLIC})
    status, out, _ = step(ready, machine.sshd.access(), recorded=recorded, own_key=True, timeout=5)
    assert (status, out.strip()) == (0, recorded)


def test_without_a_record_no_other_key_than_the_first_is_accepted(machine: Machine, step: Step) -> None:
    machine.show_own()
    status, out, err = step(ready, machine.sshd.access(), own_key=True, timeout=5)
    assert (status, out) == (1, "")
    assert f"pinned: ssh-ed25519 {fingerprint(SHOWN_KEY)}" in err
    assert f"shown:  ssh-ed25519 {fingerprint(OWN_PUBLIC)}" in err


@pytest.mark.parametrize("made", ["", "ssh-rsa AAAA", "bash: ssh-keygen: command not found"])
def test_a_machine_that_makes_no_key_is_an_error(machine: Machine, made: str) -> None:
    machine.made = made
    with pytest.raises(MachineError, match=r"web-1 .* could not make a host key of its own.*\n.*make replace"):
        own_key.make_own_key(machine.sshd.access())


@pytest.mark.parametrize("active", [True, False])
def test_the_own_key_is_active_after_the_step(machine: Machine, step: Step, active: bool) -> None:
    if active:
        machine.show_own()
    access = machine.sshd.access(host_key=OWN_PUBLIC)
    status, out, _ = step(own_key, access, first_key=SHOWN_KEY)
    assert (status, json.loads(out)) == (0, {"machine": "web-1", "host_key": fingerprint(OWN_PUBLIC)})
    assert machine.sshd.lines == ([] if active else ["sudo -n sh -s"])


def test_a_machine_that_goes_on_showing_the_first_key_is_not_believed(machine: Machine) -> None:
    machine.activates = False
    access = machine.sshd.access(host_key=OWN_PUBLIC)
    with pytest.raises(HostKeyMismatchError):
        own_key.activate(access, SHOWN_KEY)


def test_a_machine_with_a_third_key_gets_no_command(machine: Machine) -> None:
    machine.show_own()
    with pytest.raises(HostKeyMismatchError):
        own_key.activate(replace(machine.sshd.access(), host_key=FOREIGN.strip()), SHOWN_KEY)
    assert machine.sshd.lines == []


def test_an_activation_that_fails_says_why(machine: Machine) -> None:
    def fails(run: Run) -> int:
        run.read()
        run.say("mv: read-only file system\n", error=True)
        return 1

    machine.sshd.on_command = fails
    with pytest.raises(MachineError, match="its own host key could not be made active: mv: read-only file system"):
        own_key.activate(machine.sshd.access(host_key=OWN_PUBLIC), SHOWN_KEY)


def test_a_login_under_the_own_key_goes_through_one_under_the_first(machine: Machine) -> None:
    access = own_key.under_own_key(machine.sshd.access())
    assert (access.host_key, access.through) == (OWN_PUBLIC, OuterLogin(host_key=SHOWN_KEY, command=INSIDE))
    with Session(access) as session:
        session.run("command", stdin="secret")
        assert session.client.get_transport().get_remote_server_key().get_base64() == OWN_PUBLIC.split()[1]  # type: ignore[union-attr]
    assert machine.told == [(f"sudo -n sh -s {SHOWN_KEY.split()[1]}", own_key._MAKE), ("command", "secret")]
    for transport in machine.sshd.transports:
        transport.join(10)
        assert not transport.is_active(), "the login outside ends with the one inside"


@pytest.mark.parametrize("inside", [HOST_PRIVATE, FOREIGN_PRIVATE], ids=["first", "foreign"])
def test_whoever_has_only_the_first_key_is_told_nothing(machine: Machine, inside: str) -> None:
    access = own_key.under_own_key(machine.sshd.access())
    machine.inside = paramiko.Ed25519Key(file_obj=io.StringIO(inside))
    with pytest.raises(HostKeyMismatchError, match=f"pinned: ssh-ed25519 {re.escape(fingerprint(OWN_PUBLIC))}"):
        Session(access)
    assert len(machine.told) == 1, "the script that makes the key"
    machine.sshd.transports[-1].join(10)
    assert not machine.sshd.transports[-1].is_active()


def test_a_server_inside_that_does_not_start_is_worth_another_try(machine: Machine) -> None:
    access = own_key.under_own_key(machine.sshd.access())
    machine.inside = None
    with pytest.raises(UnreachableError, match=r"web-1 .*: Error reading SSH protocol banner"):
        Session(access)


assert shutil.which("ssh-keygen"), "these tests need openssh-client"
