"""Logging in with a pinned key, and running commands."""

from __future__ import annotations

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
