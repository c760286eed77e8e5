"""Logging in with a pinned key, and running commands."""

from __future__ import annotations

import io
import socket
from pathlib import Path
from typing import Any

import paramiko
import pytest

from decant.errors import MachineError, PortClosedError, UnreachableError
from decant.ssh import client
from decant.ssh.client import Access, CommandResult, Session
from decant.ssh.keys import fingerprint
from rehearsal.doubles import key_pair
from tests.support.in_memory import HOST_KEY, PRIVATE
from tests.support.in_memory_sshd import SHOWN_KEY, Run, Sshd
from tests.support.ssh_keys import KEYS, pem

PLAIN: dict[str, Any] = {
    "name": "web-1",
    "address": "203.0.113.7",
    "user": "deploy",
    "host_key": HOST_KEY,
    "private_key": PRIVATE,
}


def test_access_is_read_from_what_pulumi_carries() -> None:
    made = Access.from_dict({**PLAIN, "port": 22.0, "id": "more", "timeout": 300})
    assert made == Access(**PLAIN, port=22, setting=None)
    assert Access.from_dict({**PLAIN, "port": 22, "setting": "decant:hosts[1]"}).setting == "decant:hosts[1]"
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
    """Print what came, on both streams, and end with the status at the end of the line."""
    run.say(f"out {run.read()}")
    run.say("err", error=True)
    return int(run.line.split()[-1])


def test_a_command_has_its_input_outputs_and_status() -> None:
    with Sshd(on_command=echo).running() as sshd:
        with Session(sshd.access()) as session:
            assert session.run("first 0", stdin="größe\n") == CommandResult(
                status=0, stdout="out größe\n", stderr="err"
            )
            assert session.run("second 7") == CommandResult(status=7, stdout="out ", stderr="err")
        assert sshd.lines == ["first 0", "second 7"]
        assert sshd.connections == 1


def test_a_session_ends_with_its_block() -> None:
    with Sshd(on_command=echo).running() as sshd:
        with Session(sshd.access()) as session:
            assert session.client.get_transport().is_active()  # type: ignore[union-attr]
        with pytest.raises(UnreachableError):
            session.run("x 0")


def test_output_that_is_no_text_is_not_fatal() -> None:
    def raw(run: Run) -> int:
        run.channel.sendall(b"\xff\xfe ok")
        return 0

    with Sshd(on_command=raw).running() as sshd, Session(sshd.access()) as session:
        assert session.run("x").stdout == "\ufffd\ufffd ok"


def test_a_connection_that_breaks_is_worth_another_try() -> None:
    def hang_up(run: Run) -> int:
        run.read()  # the command has begun
        run.channel.get_transport().close()
        return 0

    broken = pytest.raises(UnreachableError, match="the connection closed while running some command")
    with Sshd(on_command=hang_up).running() as sshd, Session(sshd.access()) as session, broken:
        session.run("some command")


def test_a_command_that_never_ends_times_out() -> None:
    def silent(run: Run) -> int:
        run.read()
        run.channel.makefile("rb").read()
        run.channel.get_transport().join()
        return 0

    given_up = pytest.raises(UnreachableError, match="no answer while running forever")
    with Sshd(on_command=silent).running() as sshd, Session(sshd.access()) as session, given_up:
        session.run("forever", timeout=0.2)


def test_another_host_key_sends_nothing() -> None:
    with Sshd().running() as sshd:
        with pytest.raises(MachineError) as caught:
            Session(sshd.access(host_key=HOST_KEY))
        text = str(caught.value)
        assert not isinstance(caught.value, UnreachableError), "trying again will not help"
        assert f"pinned: ssh-ed25519 {fingerprint(HOST_KEY)}" in text
        assert f"shown:  ssh-ed25519 {fingerprint(SHOWN_KEY)}" in text
        assert sshd.logins == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_fix_of_a_host_key_is_for_the_host_that_failed(place: int) -> None:
    """With three hosts, a fix for another one would overwrite that one's key."""
    with Sshd().running() as sshd, pytest.raises(MachineError) as caught:
        Session(sshd.access(host_key=HOST_KEY, setting=f"decant:hosts[{place}]"))
    text = str(caught.value)
    assert f"pulumi config set --path 'decant:hosts[{place}].hostKey' 'ssh-ed25519 AAAA...'" in text
    assert text.count("decant:hosts") == 1
    assert "cat /etc/ssh/ssh_host_ed25519_key.pub" in text
    assert "make replace" not in text


@pytest.mark.parametrize("change", [{"host_key": HOST_KEY}, {"private_key": key_pair()[0]}])
def test_the_fix_on_a_cloud_names_no_setting_of_a_host(change: dict[str, str]) -> None:
    with Sshd().running() as sshd, pytest.raises(MachineError) as caught:
        Session(sshd.access(**change))
    text = str(caught.value)
    assert "make replace STACK=... MACHINE=web-1" in text
    assert "decant:hosts" not in text
    assert "decant:sshPrivateKey" not in text, "a cloud's stack makes its own key"


def test_a_host_key_of_another_kind_is_another_key() -> None:
    other = paramiko.ECDSAKey(file_obj=io.StringIO(pem(KEYS["ecdsa"])))
    with Sshd(host_keys=[other]).running() as sshd:
        with pytest.raises(MachineError, match=r"(?s)another host key.*shown:  ecdsa-sha2-nistp256 SHA256:"):
            Session(sshd.access())
        assert sshd.logins == []


def test_the_pinned_key_is_asked_for_where_the_host_has_several() -> None:
    mine = Sshd().host_keys
    other = paramiko.RSAKey(file_obj=io.StringIO(pem(KEYS["rsa"])))
    with Sshd(host_keys=[other, *mine], on_command=echo).running() as sshd, Session(sshd.access()) as session:
        assert session.run("x 0").status == 0


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
def test_a_refused_login_names_the_user_and_the_fixes(change: dict[str, str]) -> None:
    with Sshd().running() as sshd, pytest.raises(MachineError) as caught:
        Session(sshd.access(setting="decant:hosts[2]", **change))
    text = str(caught.value)
    assert not isinstance(caught.value, UnreachableError), "trying again will not help"
    user = change.get("user", "carol")
    assert f"this key is not allowed for user {user}" in text
    assert f"~{user}/.ssh/authorized_keys" in text
    assert "pulumi config set --secret decant:sshPrivateKey" in text
    assert "pulumi config set --path 'decant:hosts[2].user'" in text


def test_keys_of_the_users_ssh_agent_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any key that it holds could log in, or use up the server's MaxAuthTries."""

    class Agent:
        def get_keys(self) -> tuple[paramiko.PKey, ...]:
            return (paramiko.Ed25519Key(file_obj=io.StringIO(PRIVATE)),)

        def close(self) -> None:
            pass

    monkeypatch.setattr("paramiko.client.Agent", Agent)
    stranger, _ = key_pair()
    with Sshd().running() as sshd:
        with pytest.raises(MachineError, match="refused the login"):
            Session(sshd.access(private_key=stranger))
        assert sshd.logins == []


def test_a_server_that_accepts_and_says_nothing_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ready` tries again until its own time-out, and a deletion must not hang."""
    assert 10 <= client.CONNECT_TIMEOUT <= 20, "a small machine at its first boot is slow"
    given: dict[str, object] = {}

    def connect(self: paramiko.SSHClient, address: str, **options: object) -> None:
        given.update(options)
        raise TimeoutError

    monkeypatch.setattr(paramiko.SSHClient, "connect", connect)
    with pytest.raises(UnreachableError, match="no answer"):
        Session(Sshd(port=2222).access())
    assert {given[name] for name in ("timeout", "banner_timeout", "auth_timeout")} == {client.CONNECT_TIMEOUT}


def test_a_connection_sends_keepalives(monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.KEEPALIVE_INTERVAL <= 15
    monkeypatch.setattr(client, "KEEPALIVE_INTERVAL", 0.01)
    with Sshd().running() as sshd, Session(sshd.access()):
        assert sshd.keepalives.acquire(timeout=30), "a silent connection is dropped by firewalls"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_closed_port_raises_port_closed_error() -> None:
    access = Sshd().access(port=free_port())
    with pytest.raises(PortClosedError, match=r"web-1 \(carol@127.0.0.1 port \d+\): Unable to connect"):
        Session(access)


def test_a_server_that_hangs_up_is_worth_another_try() -> None:
    with Sshd(hang_up="at once").running() as sshd, pytest.raises(UnreachableError) as caught:
        Session(sshd.access())
    assert not isinstance(caught.value, PortClosedError), "an sshd listens, and would count another try soon against us"


def test_a_name_without_an_address_is_named() -> None:
    with pytest.raises(UnreachableError, match="the name is not known"):
        Session(Sshd().access(address="nowhere.invalid"))


# paramiko raises an AuthenticationException, but sshd may only have restarted, as it does at a first boot.
def test_a_server_that_hangs_up_during_the_login_is_worth_another_try() -> None:
    with Sshd(hang_up="in login").running() as sshd, pytest.raises(UnreachableError):
        Session(sshd.access())


# paramiko raises an AuthenticationException, but a small machine at its first boot may be that slow.
def test_a_login_without_an_answer_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_TIMEOUT", 0.5)
    with Sshd(hang_up="never answers").running() as sshd, pytest.raises(UnreachableError):
        Session(sshd.access())
