"""The `ready` step: it waits for a login, and refuses machines that Decant cannot use."""

from __future__ import annotations

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
