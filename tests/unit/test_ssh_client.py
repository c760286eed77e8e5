"""Logging in with a pinned key, and waiting until a machine lets us in."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from decant import session
from decant.errors import HostKeyError, MachineError, PortClosedError, UnreachableError
from decant.session import Access, Answer, Session, check_host_key, check_private_key, fingerprint, wait_ready
from rehearsal.doubles import key_pair
from tests.unit.paper import HOST_KEY, PRIVATE
from tests.unit.paper_sshd import SHOWN_KEY, Run, Sshd

# ------------------------------------------------------------------------------------------------ keys

KNOWN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
BLOB = KNOWN.split()[1]


@pytest.mark.parametrize("text", [KNOWN, KNOWN + " root@shop", f"  {KNOWN} a comment of words\n"])
def test_a_host_key_loses_its_comment(text: str) -> None:
    assert check_host_key(text) == KNOWN


def altered(position: int) -> str:
    raw = bytearray(base64.b64decode(BLOB))
    raw[position] ^= 1
    return "ssh-ed25519 " + base64.b64encode(bytes(raw)).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "it is missing"),
        ("", "it is missing"),
        (" \n", "it is missing"),
        (7, "it is missing"),
        ({"a": 1}, "it is missing"),
        (BLOB, "does not begin with ssh-ed25519"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==", "does not begin with ssh-ed25519"),
        ("ecdsa-sha2-nistp256 AAAA", "does not begin with ssh-ed25519"),
        ("sk-ssh-ed25519@openssh.com AAAA", "does not begin with ssh-ed25519"),
        ("server.example.com " + KNOWN, "does not begin with ssh-ed25519"),
        ("ssh-ed25519", "it is cut short or altered"),
        ("ssh-ed25519 AAAA...", "its second word is not base64"),
        ("ssh-ed25519 größe", "its second word is not base64"),
        (KNOWN[:-4], "it is cut short or altered"),
        (KNOWN[:-3], "its second word is not base64"),
        (KNOWN + "AAAA", "it is cut short or altered"),
        ("ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25518" + bytes(36)).decode(), "cut short or altered"),
        (altered(8), "it is cut short or altered"),
    ],
)
def test_what_is_no_ed25519_host_key(text: object, reason: str) -> None:
    with pytest.raises(HostKeyError, match=re.escape(reason)):
        check_host_key(text)


# The lengths inside: such a pin could only fail at the login.
@pytest.mark.parametrize("position", [0, 3, 15, 18])
def test_a_host_key_with_altered_lengths(position: int) -> None:
    with pytest.raises(HostKeyError):
        check_host_key(altered(position))


def test_fingerprint_is_what_ssh_shows() -> None:
    assert fingerprint(KNOWN) == "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"


def pem(key: Any, form: str = "OpenSSH", password: bytes | None = None) -> str:
    lock = s.BestAvailableEncryption(password) if password else s.NoEncryption()
    return str(key.private_bytes(s.Encoding.PEM, getattr(s.PrivateFormat, form), lock).decode())


KEYS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ecdsa": ec.generate_private_key(ec.SECP256R1()),
}
FORMS = [("ed25519", "OpenSSH"), ("rsa", "OpenSSH"), ("ecdsa", "OpenSSH"), ("rsa", "TraditionalOpenSSL"),
         ("ecdsa", "TraditionalOpenSSL")]  # fmt: skip


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_private_key_that_passes_the_gate_can_log_in(kind: str, form: str) -> None:
    text = check_private_key("  \n" + pem(KEYS[kind], form).strip())
    assert text.endswith("-----\n")
    assert kind in session._load_key(text).get_name()


# PKCS#8 ("BEGIN PRIVATE KEY") and keys whose line ends became spaces (`echo $KEY`), which paramiko does not read.
@pytest.mark.parametrize(
    "text", [*[pem(key, "PKCS8") for key in KEYS.values()], PRIVATE.replace("\n", " ")], ids=[*KEYS, "one line"]
)
def test_a_key_that_cannot_log_in_is_refused_at_the_gate(text: str) -> None:
    try:
        passed = check_private_key(text)
    except ValueError:
        return
    session._load_key(passed)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "does not begin with -----BEGIN"),
        ("canary", "does not begin with -----BEGIN"),
        (KNOWN, "does not begin with -----BEGIN"),
        (pem(KEYS["ed25519"], password=b"canary"), "it has a passphrase"),
        (pem(KEYS["rsa"], "TraditionalOpenSSL", b"canary"), "it has a passphrase"),
        (pem(KEYS["ecdsa"], "PKCS8", b"canary"), "it has a passphrase"),
        (PRIVATE[:120] + "\n" + PRIVATE[140:], "it cannot be read"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n-----END OPENSSH PRIVATE KEY-----\n", "it cannot be read"),
        ("-----BEGIN RSA PRIVATE KEY-----\ncanary\n-----END RSA PRIVATE KEY-----\n", "it cannot be read"),
    ],
)
def test_what_is_no_usable_private_key(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        check_private_key(value)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# ------------------------------------------------------------------------------------------------ access

PLAIN = {"name": "web-1", "address": "203.0.113.7", "user": "deploy", "host_key": HOST_KEY, "private_key": PRIVATE}


def test_access_from_what_pulumi_carries() -> None:
    made = Access.from_dict({**PLAIN, "port": 22.0, "id": "more", "patience": 300})
    assert made == Access(**PLAIN, port=22)
    assert isinstance(made.port, int)
    with pytest.raises(KeyError):
        Access.from_dict(PLAIN)


def test_access_does_not_show_its_key() -> None:
    access = Access(**PLAIN, port=22)
    assert PRIVATE.splitlines()[2] not in repr(access) + str(access)
    assert str(access) == "web-1 (deploy@203.0.113.7)"
    assert str(Access(**PLAIN, port=2222)) == "web-1 (deploy@203.0.113.7 port 2222)"


# ------------------------------------------------------------------------------------------------ a real login


def echo(run: Run) -> int:
    """Say back what came, on both streams, and end with the status that the line names."""
    run.say(f"out {run.read()}")
    run.say("err", error=True)
    return int(run.line.split()[-1])


def test_run_a_command() -> None:
    with Sshd(on_command=echo).running() as sshd:
        with Session(sshd.access()) as one:
            assert one.run("first 0", stdin="größe\n") == Answer(status=0, stdout="out größe\n", stderr="err")
            assert one.run("second 7") == Answer(status=7, stdout="out ", stderr="err")
        assert sshd.lines == ["first 0", "second 7"]
        assert sshd.connections == 1


def test_output_that_is_no_text_is_not_fatal() -> None:
    def raw(run: Run) -> int:
        run.channel.sendall(b"\xff\xfe ok")
        return 0

    with Sshd(on_command=raw).running() as sshd, Session(sshd.access()) as one:
        assert one.run("x").stdout == "\ufffd\ufffd ok"


def test_a_connection_that_breaks_is_worth_another_try() -> None:
    def hang_up(run: Run) -> int:
        run.read()  # the command has begun
        run.channel.get_transport().close()
        return 0

    broken = pytest.raises(UnreachableError, match="the connection closed while running some words")
    with Sshd(on_command=hang_up).running() as sshd, Session(sshd.access()) as one, broken:
        one.run("some words")


def test_a_command_without_an_end_is_given_up() -> None:
    def silent(run: Run) -> int:
        run.read()
        run.channel.makefile("rb").read()
        run.channel.get_transport().join()
        return 0

    given_up = pytest.raises(UnreachableError, match="no answer while running forever")
    with Sshd(on_command=silent).running() as sshd, Session(sshd.access()) as one, given_up:
        one.run("forever", timeout=0.2)


def test_another_host_key_sends_nothing() -> None:
    with Sshd().running() as sshd:
        with pytest.raises(MachineError) as caught:
            Session(sshd.access(host_key=HOST_KEY))
        text = str(caught.value)
        assert not isinstance(caught.value, UnreachableError), "trying again will not help"
        assert f"pinned: ssh-ed25519 {fingerprint(HOST_KEY)}" in text
        assert f"shown:  ssh-ed25519 {fingerprint(SHOWN_KEY)}" in text
        assert "pulumi config set --path 'decant:hosts[0].hostKey'" in text
        assert "cat /etc/ssh/ssh_host_ed25519_key.pub" in text
        assert sshd.logins == []


def test_a_host_key_of_another_kind_is_another_key() -> None:
    other = paramiko.ECDSAKey(file_obj=io.StringIO(pem(KEYS["ecdsa"])))
    with Sshd(host_keys=[other]).running() as sshd:
        with pytest.raises(MachineError, match=r"(?s)another host key.*shown:  ecdsa-sha2-nistp256 SHA256:"):
            Session(sshd.access())
        assert sshd.logins == []


def test_the_pinned_key_is_asked_for_where_the_host_has_several() -> None:
    mine = Sshd().host_keys
    other = paramiko.RSAKey(file_obj=io.StringIO(pem(KEYS["rsa"])))
    with Sshd(host_keys=[other, *mine], on_command=echo).running() as sshd, Session(sshd.access()) as one:
        assert one.run("x 0").status == 0


def test_known_hosts_and_keys_of_the_user_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text(PRIVATE)
    monkeypatch.setenv("HOME", str(tmp_path))
    stranger, _ = key_pair()
    with Sshd().running() as sshd:
        (tmp_path / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {SHOWN_KEY}\n")
        with pytest.raises(MachineError, match="another host key"):
            Session(sshd.access(host_key=HOST_KEY))
        with pytest.raises(MachineError, match="refused the login"):
            Session(sshd.access(private_key=stranger))


@pytest.mark.parametrize("change", [{"user": "root"}, {"private_key": key_pair()[0]}])
def test_a_refused_login(change: dict[str, str]) -> None:
    with Sshd().running() as sshd, pytest.raises(MachineError) as caught:
        Session(sshd.access(**change))
    text = str(caught.value)
    assert not isinstance(caught.value, UnreachableError), "trying again will not help"
    user = change.get("user", "carol")
    assert f"this key is not allowed for user {user}" in text
    assert f"~{user}/.ssh/authorized_keys" in text
    assert "pulumi config set --secret decant:sshPrivateKey" in text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_nobody_there_is_worth_another_try() -> None:
    access = Sshd().access(port=free_port())
    with pytest.raises(PortClosedError, match=r"web-1 \(carol@127.0.0.1 port \d+\): Unable to connect"):
        Session(access)


def test_a_server_that_hangs_up_is_worth_another_try() -> None:
    with Sshd(hang_up="at once").running() as sshd, pytest.raises(UnreachableError) as caught:
        Session(sshd.access())
    assert not isinstance(caught.value, PortClosedError), "there is an sshd to be annoyed"


def test_a_name_that_is_not_known() -> None:
    with pytest.raises(UnreachableError, match="the name is not known"):
        Session(Sshd().access(address="nowhere.invalid"))


# paramiko calls that an AuthenticationException; but it may only be sshd that restarts, as it does at a first boot.
def test_a_server_that_hangs_up_during_the_login_is_worth_another_try() -> None:
    with Sshd(hang_up="in login").running() as sshd, pytest.raises(UnreachableError):
        Session(sshd.access())


# paramiko calls that an AuthenticationException, too; a small machine at its first boot may be that slow.
def test_a_login_without_an_answer_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CONNECT_TIMEOUT", 0.5)
    with Sshd(hang_up="never answers").running() as sshd, pytest.raises(UnreachableError):
        Session(sshd.access())


# ------------------------------------------------------------------------------------------------ waiting

READY = "os=debian 13\nroot=yes\nfirst_boot=0\nsystemd=yes\n"


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert self.now < 10_000, "this waits for ever"
        self.slept.append(seconds)
        self.now += seconds


class Door:
    """Stands in for Session: a try takes `takes` seconds and comes to the next of `outcomes`, the last for ever."""

    def __init__(self, clock: Clock, *outcomes: str | Exception, takes: float = 0.0) -> None:
        self.clock = clock
        self.outcomes = list(outcomes)
        self.takes = takes
        self.tried: list[float] = []

    def __call__(self, access: Access) -> Door:
        self.tried.append(self.clock.now)
        self.clock.now += self.takes
        self.outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(self.outcome, Exception) and "running" not in str(self.outcome):
            raise self.outcome
        return self

    def run(self, command: str, *, timeout: float) -> Answer:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return Answer(status=0, stdout=self.outcome, stderr="")

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        pass


ACCESS = Access(**PLAIN, port=2222)
SILENT = UnreachableError(f"{ACCESS}: no answer")
CLOSED = PortClosedError(f"{ACCESS}: Unable to connect to port 2222 on 203.0.113.7")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(session, "time", made)
    return made


def at_the_door(monkeypatch: pytest.MonkeyPatch, clock: Clock, *outcomes: str | Exception, takes: float = 0.0) -> Door:
    door = Door(clock, *outcomes, takes=takes)
    monkeypatch.setattr(session, "Session", door)
    return door


def test_ready_at_once(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    said: list[str] = []
    door = at_the_door(monkeypatch, clock, READY)
    wait_ready(ACCESS, patience=60, say=said.append)
    assert len(door.tried) == 1
    assert clock.slept == []
    assert said == [f"{ACCESS} is ready after 0.0 s"]


def test_one_try_every_two_seconds_and_each_reason_once(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Debian 13's sshd punishes a source that knocks faster."""
    reset = UnreachableError(f"{ACCESS}: reset by peer")
    broken = UnreachableError(f"{ACCESS}: the connection closed while running x")
    said: list[str] = []
    door = at_the_door(monkeypatch, clock, SILENT, SILENT, reset, reset, broken, SILENT, READY)
    wait_ready(ACCESS, patience=60, say=said.append)
    assert [b - a for a, b in itertools.pairwise(door.tried)] == [2.0] * 6
    assert [line.split(": ", 1)[1].split(";")[0] for line in said[:-1]] == [
        "no answer", "reset by peer", "the connection closed while running x", "no answer",
    ]  # fmt: skip
    assert all("trying until 60 s are over" in line for line in said[:-1])
    assert said[-1] == f"{ACCESS} is ready after 12.0 s"


def test_a_closed_port_is_tried_sooner(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """No sshd is there yet to be annoyed."""
    door = at_the_door(monkeypatch, clock, CLOSED, CLOSED, SILENT, CLOSED, READY)
    wait_ready(ACCESS, patience=60, say=lambda text: None)
    assert [b - a for a, b in itertools.pairwise(door.tried)] == [0.5, 0.5, 2.0, 0.5]


@pytest.mark.parametrize(("takes", "tries"), [(0.0, 31), (3.0, 13), (15.0, 4), (100.0, 1)])
def test_patience_is_measured_by_the_clock_and_not_in_tries(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, takes: float, tries: int
) -> None:
    door = at_the_door(monkeypatch, clock, SILENT, takes=takes)
    with pytest.raises(MachineError) as caught:
        wait_ready(ACCESS, patience=60, say=lambda text: None)
    assert len(door.tried) == tries
    assert clock.now - 1000 <= 60 + takes
    text = str(caught.value)
    assert not isinstance(caught.value, UnreachableError)
    assert "did not let us in within 60 s: no answer" in text
    assert "ssh -p 2222 deploy@203.0.113.7" in text
    assert "decant:adminCidrs" in text
    assert "decant:hosts" in text
    assert "pulumi up" in text


def test_what_will_not_get_better_stops_at_once(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    refused = MachineError("refused the login")
    door = at_the_door(monkeypatch, clock, refused, READY)
    with pytest.raises(MachineError) as caught:
        wait_ready(ACCESS, patience=60, say=lambda text: None)
    assert caught.value is refused
    assert len(door.tried) == 1
    assert clock.slept == []


@pytest.mark.parametrize("change", [{"host_key": HOST_KEY}, {"user": "root"}])
def test_so_do_a_wrong_key_and_a_refused_login(clock: Clock, change: dict[str, str]) -> None:
    with Sshd().running() as sshd:
        with pytest.raises(MachineError, match=r"another host key|refused the login"):
            wait_ready(sshd.access(**change), patience=60, say=lambda text: None)
        assert sshd.connections == 1
    assert clock.slept == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ("os=debian 12\nroot=yes\nsystemd=yes\n", ["runs debian 12", "supports debian 13", "config rm decant:image"]),
        ("os=ubuntu 24.04\nroot=yes\nsystemd=yes\n", ["runs ubuntu 24.04", "bring a Debian 13 host"]),
        ("", ["runs an unknown system"]),
        ("os=debian 13\nroot=no\n", ["user deploy cannot use sudo without a password", "/etc/sudoers.d/deploy",
                                     "'decant:hosts[0].user' root"]),
        ("os=debian 13\nroot=yes\nsystemd=no\n", ["is not run by systemd"]),
        ("os=debian 13\nroot=yes\nfirst_boot=1\nsystemd=yes\n", ["first boot (cloud-init) failed",
                                                                "cloud-init-output.log"]),
        ("os=debian 13\nroot=yes\nfirst_boot=124\nsystemd=yes\n", ["first boot (cloud-init) failed"]),
    ],
)  # fmt: skip
def test_a_machine_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, facts: str, words: list[str]
) -> None:
    at_the_door(monkeypatch, clock, facts)
    with pytest.raises(MachineError) as caught:
        wait_ready(ACCESS, patience=60, say=lambda text: None)
    assert str(caught.value).startswith(str(ACCESS))
    for word in words:
        assert word in str(caught.value)
    assert clock.slept == []


@pytest.mark.parametrize("first_boot", ["", "first_boot=0\n", "first_boot=2\n"])
def test_first_boot_done_with_a_warning_is_done(monkeypatch: pytest.MonkeyPatch, clock: Clock, first_boot: str) -> None:
    at_the_door(monkeypatch, clock, f"os=debian 13\nroot=yes\n{first_boot}systemd=yes\n")
    wait_ready(ACCESS, patience=60, say=lambda text: None)


# ------------------------------------------------------------------------------------------------ what is asked


def asked(tmp_path: Path, **programs: str) -> dict[str, str]:
    """The check's own shell line, run here with stand-ins for programs; its facts."""
    for name, body in {"timeout": 'shift; exec "$@"', **programs}.items():
        file = tmp_path / name.replace("_", "-")
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", session._CHECK], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


SUDO = 'shift; exec "$@"'


@pytest.mark.parametrize(
    ("programs", "facts"),
    [
        ({"id": "echo 0"}, {"root": "yes"}),
        ({"id": "echo 1000", "sudo": SUDO, "true": ""}, {"root": "yes"}),
        ({"id": "echo 1000", "sudo": "exit 1"}, {"root": "no"}),
        ({"id": "echo 1000"}, {"root": "no"}),
        ({"id": "echo 0", "cloud_init": "exit 0"}, {"root": "yes", "first_boot": "0"}),
        ({"id": "echo 0", "cloud_init": "echo noise; exit 2"}, {"root": "yes", "first_boot": "2"}),
        ({"id": "echo 1000", "sudo": SUDO, "true": "", "cloud_init": "exit 1"}, {"root": "yes", "first_boot": "1"}),
        ({"id": "echo 0", "timeout": "exit 124", "cloud_init": "exit 0"}, {"root": "yes", "first_boot": "124"}),
    ],
)
def test_what_a_machine_is_asked(tmp_path: Path, programs: dict[str, str], facts: dict[str, str]) -> None:
    found = asked(tmp_path, **programs)
    assert re.fullmatch(r"\w+ .*", found.pop("os"))
    systemd = found.pop("systemd", None)
    assert found == facts
    assert systemd == (None if facts["root"] == "no" else "yes" if Path("/run/systemd/system").is_dir() else "no")


# ------------------------------------------------------------------------------------------------ the step


def step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **given: Any) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**PLAIN, "port": 2222, "id": "7", **given})))
    status = session.main()
    out, err = capsys.readouterr()
    return status, out, err


def test_the_step_says_what_pulumi_keeps(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    at_the_door(monkeypatch, clock, SILENT, READY)
    status, out, err = step(monkeypatch, capsys, patience=60)
    assert status == 0
    assert json.loads(out) == {"machine": "web-1", "ready": True}, (
        "no times: an unchanged machine's step looks the same"
    )
    assert "is ready after 2.0 s" in err


def test_the_step_fails_with_a_reason_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    door = at_the_door(monkeypatch, clock, SILENT)
    status, out, err = step(monkeypatch, capsys, patience=10.0)
    assert (status, out) == (1, "")
    assert "did not let us in within 10 s" in err
    assert "Traceback" not in err
    assert PRIVATE.splitlines()[2] not in err
    assert len(door.tried) == 6
