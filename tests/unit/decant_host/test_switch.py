"""The program on machines, without a machine: its files in a folder, systemd on paper."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import grp
import hashlib
import io
import json
import os
import re
import socketserver
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from decant_host import __main__ as command
from decant_host import causes, environments, files, lease, orders, probe, releases, serving, units, verbs
from decant_host.files import HostError
from decant_host.probe import Reply
from tests.unit.paper import REPOSITORY

PYTHON = REPOSITORY / "infra" / "decant" / "host" / "python"
MODULES = (command, causes, environments, files, lease, orders, probe, releases, serving, units, verbs)
OLD, NEW, OLDER = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
ATTEMPT = "attempt-1"

# ------------------------------------------------------------------------------------------------ a machine on paper


@dataclass
class Systemd:
    """What systemd, its timers and its journal would do; `broken` names releases that do not start."""

    active: set[str] = field(default_factory=set)
    timers: dict[str, list[str]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    migrating: list[str] = field(default_factory=list)
    log: str = ""
    requests: int = 0  # in flight, one less at every look
    fail: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    started: float = 0.0  # when every unit became active, on the machine's monotonic clock

    def armed(self) -> dict[str, list[str]]:
        """The timers that go back by themselves."""
        return {unit: words for unit, words in self.timers.items() if unit.startswith("decant-revert")}

    def run(self, command: tuple[str, ...], **_: Any) -> subprocess.CompletedProcess[str]:
        """One command line; what the program never uses is an error."""
        line = " ".join(command)
        self.done.append(line)
        name, *words = command
        out, status = "", self.fail.get(line.split(" --")[0], 0)
        options = [w for w in words if w.startswith("--")]
        words = [w for w in words if not w.startswith("--")]
        if name == "systemctl" and words[0] == "start":
            if not status:
                self.active.add(words[1])
        elif name == "systemctl" and words[0] == "stop":
            for unit in words[1:]:
                self.active.discard(unit)
                self.timers.pop(unit.removesuffix(".timer"), None)
        elif name == "systemctl" and words[0] == "show":
            release = words[1].removeprefix("app@").removesuffix(".service")
            state = "active" if words[1] in self.active and release not in self.broken else "inactive"
            if release in self.broken and words[1] in self.active:
                state = "failed"
            out = (
                f"ActiveState={state}\nSubState=running\nResult=exit-code\nNRestarts={self.restarts.get(release, 0)}\n"
            )
            out += f"ExecMainStatus=1\nActiveEnterTimestampMonotonic={int(self.started * 1e6)}\n"
        elif name == "systemctl" and words[:2] == ["list-units", "release@*.service"]:
            assert "--state=activating,deactivating" in options
            out = "".join(f"release@{release}.service loaded activating start\n" for release in self.migrating)
        elif name == "systemctl" and words[0] == "list-units":
            units = self.active | {f"{timer}.timer" for timer in self.timers}
            listed = sorted(unit for unit in units if fnmatch.fnmatchcase(unit, words[1]))
            out = "".join(f"  {unit} loaded active running The app\n" for unit in listed)
        elif name == "systemctl" and words[0] in ("reset-failed", "kill"):
            pass
        elif name == "systemd-run":
            (unit,) = [o.partition("=")[2] for o in options if o.startswith("--unit=")]
            assert unit not in self.timers, "systemd refuses a unit that is there already"
            if not status:
                self.timers[unit] = list(command)
        elif name == "journalctl":
            out = self.log
        elif name == "ss" and "established" in words:
            out = "u_str ESTAB 0 0 gunicorn.sock\n" if self.requests else ""
            self.requests = max(0, self.requests - 1)
        elif name == "ss" or words[:2] == ["-m", "compileall"] or "compileall" in line:
            pass
        else:
            raise AssertionError(line)
        return subprocess.CompletedProcess(command, status, out, "")


@dataclass
class Machine:
    """A machine's folders, and what would happen around them."""

    root: Path
    systemd: Systemd
    answers: dict[str, Callable[[], Reply]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def add(self, release: str, *, confirmed: bool = False, age: int = 0, **settings: Any) -> Path:
        """A release that is here, unpacked and installed."""
        folder = files.RELEASES / release
        (folder / "app" / "static").mkdir(parents=True)
        venv = files.VENVS / f"venv-of-{release}"
        venv.mkdir(parents=True)
        (folder / "venv").symlink_to(f"../../venvs/{venv.name}")
        given = {"entry": "wsgi:app", "static": "static", "health_path": "/healthz", "health_timeout": 15, "lock": "l",
                 "release_command": None, "secret_names": ["KEY"], "tar": f"{release}.tar", **settings}  # fmt: skip
        (folder / "release.json").write_text(json.dumps(given))
        (folder / "environment.json").write_text(json.dumps({"KEY": "canary-key"}))
        os.utime(folder / "release.json", (1_000_000 - age, 1_000_000 - age))
        files.INCOMING.mkdir(parents=True, exist_ok=True)
        (files.INCOMING / f"{release}.tar").write_text("tar")
        if confirmed:
            (folder / "confirmed").touch()
        return folder

    def serve(self, release: str, *, persisted: bool = True) -> None:
        """Traffic goes to this release."""
        (files.RUN / release / "socket").mkdir(parents=True, exist_ok=True)
        (files.RUN / release / "socket" / "gunicorn.sock").touch()
        (files.RUN / release / "health").write_text("/healthz")
        self.systemd.active.add(f"app@{release}.service")
        files.link(files.CURRENT, release)
        if persisted:
            files.link(files.PERSISTED, f"releases/{release}")

    def live(self) -> tuple[str | None, str | None, str | None]:
        """What the three links name: current, previous, persisted."""
        return files.linked(files.CURRENT), files.linked(files.PREVIOUS), files.linked(files.PERSISTED)

    def running(self) -> set[str]:
        return {unit[4:16] for unit in self.systemd.active}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """All paths of the program below one folder; nothing of this computer is touched."""
    made = Machine(root=tmp_path, systemd=Systemd())
    for module in MODULES:
        for name, value in list(vars(module).items()):
            if isinstance(value, Path) and value.is_absolute() and name.isupper():
                monkeypatch.setattr(module, name, tmp_path / value.relative_to("/"))
    for folder in (files.RELEASES, files.VENVS, files.RUN, files.SETTINGS.parent, files.INCOMING, files.OPT):
        folder.mkdir(parents=True, exist_ok=True)
    files.SETTINGS.write_text(json.dumps({"name": "www.example.com", "stack": "blue"}))

    def ask(path: str, *, through: Path | None, timeout: float = 5.0) -> Reply:
        release = files.linked(files.CURRENT) if through is None else through.parent.parent.name
        made.asked.append((path, "nginx" if through is None else str(release)))
        answer = made.answers.get("nginx" if through is None else str(release))
        return answer() if answer else Reply(status=200, release=str(release), body="ok")

    for module in (serving, verbs):
        monkeypatch.setattr(module, "ask", ask)
    monkeypatch.setattr(verbs, "install", lambda release: False)
    real_start = made.systemd.run

    def run(command: tuple[str, ...], **more: Any) -> subprocess.CompletedProcess[str]:
        done = real_start(command, **more)
        if command[:2] == ("systemctl", "start") and not done.returncode:
            release = command[-1][4:16]
            if command[-1].startswith("app@") and release not in made.systemd.broken:
                (files.RUN / release / "socket").mkdir(parents=True, exist_ok=True)
                (files.RUN / release / "socket" / "gunicorn.sock").touch()
        return done

    monkeypatch.setattr(units, "subprocess", SimpleNamespace(run=run))
    return made


@pytest.fixture
def held(machine: Machine) -> Iterator[Machine]:
    """The same, with the lease in our attempt's hands."""
    with (files.RUN / "lease").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"attempt": ATTEMPT, "owner": "carol@laptop", "since": 0}, file)
        file.flush()
        yield machine


def module_paths() -> set[str]:
    return {str(v) for m in MODULES for n, v in vars(m).items() if isinstance(v, Path) and n.isupper()}


def test_the_fixture_moves_every_path(machine: Machine) -> None:
    assert len(module_paths()) >= 10
    assert all(path.startswith(str(machine.root)) for path in module_paths())


# ------------------------------------------------------------------------------------------------ files


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    link = tmp_path / "current"
    assert files.linked(link) is None
    for target in ("releases/one", "two"):
        files.link(link, target)
        assert link.readlink() == Path(target)
    assert files.linked(link) == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["current"]
    (tmp_path / "file").touch()
    assert files.linked(tmp_path / "file") is None


def test_a_link_left_over_from_a_kill_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".current.{os.getpid()}").symlink_to("half")
    files.link(tmp_path / "current", "whole")
    assert files.linked(tmp_path / "current") == "whole"


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "environment.json"
    before = os.umask(0)
    try:
        files.write(target, "secret", mode=0o600)
    finally:
        os.umask(before)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("secret", 0o600)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        files.write(target, "half")
    assert target.read_text() == "secret"


def test_read_json(tmp_path: Path) -> None:
    assert files.read_json(tmp_path / "nothing.json") == {}
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert files.read_json(tmp_path / "a.json") == {"a": 1}


def test_locks(machine: Machine) -> None:
    with files.staging_lock() as mine, files.staging_lock(wait=False) as other:
        assert (mine, other) == (True, False)
        with files.switching_lock() as apart:
            assert apart, "a revert never waits for an installation"
    with files.staging_lock(wait=False) as again:
        assert again


# ------------------------------------------------------------------------------------------------ causes


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ("ModuleNotFoundError: No module named 'flask_login'", "the module flask_login is not there. Add it to req"),
        ("Failed to find attribute 'app' in 'wsgi'.", "wsgi:app names app, which its module does not have"),
        ("SyntaxError: invalid syntax", "the code is not valid Python 3.13: invalid syntax"),
        ("KeyError: 'STRIPE_KEY'", "pulumi config set --path 'decant:env.STRIPE_KEY' VALUE"),
        ("OSError: [Errno 28] No space left on device", "the disk is full. See what fills it: df -h"),
        ("Worker (pid:7) was sent signal 9!", "out of memory"),
        ("its health path /up answered status 404", "nothing answers at /up. Set decant:healthPath"),
        ("its health path /up answered status 401", "/up asks for a login"),
        ("not healthy within 15 s at /up: status 503", "answers with an error; the log below says which"),
        ("not healthy within 15 s at /up: status 301", "the health path /up redirects"),
        ("not healthy within 15 s at /up: status 400", "refuses the site's own name, www.example.com"),
        (
            "not healthy within 15 s at /up: no answer within 5 s",
            "does not answer in time (decant:healthTimeout is 15 s)",
        ),
        ("it stopped by itself (exit-code, exit status 1)", "it crashes when it starts"),
        (
            "not healthy within 15 s at /up: it did not start",
            "longer to start than decant:healthTimeout, which is 15 s",
        ),
        ("something else", "the reason is below"),
        ("KeyError: '{braces}'", "the reason is below"),
    ],
)
def test_causes_of_not_serving(machine: Machine, seen: str, told: str) -> None:
    settings = {"entry": "wsgi:app", "health_path": "/up", "health_timeout": 15}
    assert told in serving.explain_start(seen, settings)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ("error: Hash mismatch for flask", "requirements.txt does not match its hashes"),
        ("error sending request for url (https://pypi.org/simple/x/)", "the package index cannot be reached"),
        ("Failed to build psycopg2", "has no wheel for Python 3.13 and cannot be built here"),
        ("No solution found when resolving dependencies", "cannot be met on Python 3.13"),
        ("No space left on device (os error 28)", "the disk is full"),
        ("something else", "could not be installed"),
    ],
)
def test_causes_of_not_installing(seen: str, told: str) -> None:
    assert told in causes.name_cause(causes.NOT_INSTALLED, seen, otherwise="could not be installed")


# ------------------------------------------------------------------------------------------------ secrets in logs


def secretive(machine: Machine, **secrets: str) -> None:
    folder = machine.add(NEW, secret_names=sorted(secrets))
    (folder / "environment.json").write_text(json.dumps({**secrets, "GREETING": "hello"}))


def test_secrets_are_masked_in_every_spelling(machine: Machine) -> None:
    secret = 'canary "7d2e"\\ ü'
    secretive(machine, KEY=secret, PIN="123")
    text = f"hello {secret} {secret!r} {json.dumps(secret)} 123"
    masked = serving.mask(NEW, text)
    assert "7d2e" not in masked
    assert masked.count("[KEY]") == 3
    assert masked.startswith("hello ")
    assert masked.endswith(" 123"), "what is that short would mask everything else"


def test_a_secret_that_begins_like_another_is_masked_whole(machine: Machine) -> None:
    secretive(machine, A_USER="canary", B_PASSWORD="canary-tail-7d2e")
    assert "7d2e" not in serving.mask(NEW, "login with canary-tail-7d2e as canary")


# Such as a PEM key that the app prints: what indents or cuts lines must come after the mask.
def test_a_secret_of_several_lines_is_masked(machine: Machine) -> None:
    secretive(machine, KEY="-----BEGIN KEY-----\ncanary7d2e\n-----END KEY-----")
    machine.systemd.log = "loading\n-----BEGIN KEY-----\ncanary7d2e\n-----END KEY-----\nfailed\n"
    assert "canary7d2e" not in serving.mask(NEW, units.journal("app@x", since=0.0))


def test_a_password_inside_a_secret_is_masked_alone(machine: Machine) -> None:
    secretive(machine, DATABASE_URL="postgres://shop:canary7d2e@db.example.com/shop", TOKEN="a&canary/9f3b")
    shown = (
        "password canary7d2e; ?t=a%26canary%2F9f3b; a&amp;canary/9f3b; postgres://shop:canary7d2e@db.example.com/shop"
    )
    masked = serving.mask(NEW, shown)
    assert "canary" not in masked
    assert masked.count("[DATABASE_URL]") == 2
    assert masked.count("[TOKEN]") == 2


def test_a_start_that_fails_shows_no_secret(machine: Machine) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.add(NEW)
    machine.systemd.broken.add(NEW)
    machine.systemd.log = "KeyError: 'MISSING'\nkey is canary-key\n"
    with pytest.raises(HostError) as caught:
        serving.start(NEW)
    text = str(caught.value)
    assert "canary-key" not in text
    assert "key is [KEY]" in text
    assert "pulumi config set --path 'decant:env.MISSING' VALUE" in text
    assert machine.running() == {OLD}
    assert machine.live() == (OLD, None, OLD)


# ------------------------------------------------------------------------------------------------ the lease


# What an order does here, by its first word.
DO = """
def do(words):
    print(json.dumps({"words": words[1:]}))
    if words[0] == "fail":
        print("web-1: no", file=sys.stderr)
        return 1
    if words[0] == "die":
        os.kill(os.getpid(), 9)
    if words[0] == "raise":
        raise ValueError(words[1])
    if words[0] == "wait":
        while not os.path.exists(words[1]):
            sleep(0.01)
        open(words[1] + ".seen", "x").close()
    return 0
"""


def lease_process(machine: Machine, attempt: str, **more: Any) -> subprocess.Popen[str]:
    """The real verb in a process of its own, which is asked for the lease unless `asks` is false."""
    code = (
        f"import json, os, pathlib, sys; sys.path.insert(0, {str(PYTHON)!r})\n"
        "from decant_host import files, lease, orders\n"
        f"lease.RUN = files.RUN = pathlib.Path({str(files.RUN)!r})\n"
        f"orders.HEARTBEAT, lease.PATIENCE = {more.get('heartbeat', 60)}, {more.get('patience', 0)}\n"
        "sleep = lease.time.sleep\n"
        "lease.time.sleep = lambda seconds: (print('waits', flush=True), sleep(seconds))\n"
        f"{DO}\n"
        "try: orders.take_orders(sys.argv[1], 'carol@laptop', do)\n"
        "except files.HostError as error: sys.exit(str(error))\n"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code, attempt], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    if more.get("asks", True):
        tell(process, "")
    return process


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def order(process: subprocess.Popen[str], number: int, *words: str) -> None:
    tell(process, json.dumps({"order": number, "words": words}))


def test_one_holder_at_a_time_and_no_lease_outlives_it(machine: Machine) -> None:
    assert lease.lease_holder() is None
    first = lease_process(machine, "one")
    assert heard(first) == "held\n"
    holder = lease.lease_holder()
    assert holder
    assert (holder["attempt"], holder["owner"]) == ("one", "carol@laptop")
    lease.need_lease("one")
    with pytest.raises(HostError, match=r"carol@laptop holds it\. Run pulumi up again"):
        lease.need_lease("two")
    second = lease_process(machine, "two")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 1
    assert re.search(r"carol@laptop is rolling out a release here since \d\d:\d\d:\d\d", err)
    lease.need_lease("one")
    first.kill()  # as when the coordinator's connection dies
    first.communicate(timeout=60)
    assert lease.lease_holder() is None
    with pytest.raises(HostError, match="the lease lapsed"):
        lease.need_lease("one")
    third = lease_process(machine, "three")
    assert heard(third) == "held\n"
    third.communicate(timeout=60)  # the end of its input gives it back
    assert third.returncode == 0
    assert lease.lease_holder() is None


def test_a_holder_that_is_about_to_go_is_waited_for(machine: Machine) -> None:
    """sshd may not have noticed yet that the last coordinator was killed."""
    first = lease_process(machine, "one")
    assert heard(first) == "held\n"
    second = lease_process(machine, "two", patience=60)
    assert heard(second) == "waits\n"
    first.kill()
    first.communicate(timeout=60)
    assert second.stdout
    assert "held\n" in iter(second.stdout.readline, "")
    lease.need_lease("two")
    second.communicate(timeout=60)


def test_nobody_holds_a_machine_before_asking(machine: Machine) -> None:
    first = lease_process(machine, "one")
    assert heard(first) == "held\n"
    second = lease_process(machine, "two", asks=False)
    assert second.communicate(timeout=60) == ("", "")
    assert second.returncode == 0, "it has waited to be asked, and nobody did"
    first.communicate(timeout=60)


def test_orders_are_answered_by_their_number(machine: Machine, tmp_path: Path) -> None:
    process = lease_process(machine, "one")
    assert heard(process) == "held\n"
    order(process, 1, "wait", str(tmp_path / "go"))
    order(process, 2, "ensure", "it's \u00e4")
    answer = json.loads(heard(process))
    assert {**answer, "stdout": json.loads(answer["stdout"])} == {
        "order": 2, "status": 0, "stdout": {"words": ["it's \u00e4"]}, "stderr": "",
    }  # fmt: skip
    tell(process, "")
    assert heard(process) == ".\n", "an order that takes its time holds up no sign of life"
    (tmp_path / "go").touch()
    assert json.loads(heard(process))["order"] == 1
    order(process, 3, "fail")
    assert json.loads(heard(process)) == {"order": 3, "status": 1, "stdout": '{"words": []}\n', "stderr": "web-1: no\n"}
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_an_order_that_is_killed_leaves_the_lease_alone(machine: Machine) -> None:
    process = lease_process(machine, "one")
    assert heard(process) == "held\n"
    order(process, 1, "die")
    answer = json.loads(heard(process))
    assert (answer["order"], answer["status"], answer["stdout"]) == (1, 1, "")
    assert re.search(r": decant-host die was killed by signal 9\. .*Run pulumi up again\.", answer["stderr"])
    order(process, 2, "raise", "an error of ours")
    answer = json.loads(heard(process))
    assert answer["status"] == 1
    assert "ValueError: an error of ours" in answer["stderr"]
    lease.need_lease("one")
    process.communicate(timeout=60)


@pytest.mark.parametrize("end", ["input ends", "killed"])
def test_an_order_outlives_its_coordinator_and_the_lease_does_not(machine: Machine, tmp_path: Path, end: str) -> None:
    process = lease_process(machine, "one")
    assert heard(process) == "held\n"
    order(process, 1, "wait", str(tmp_path / "go"))
    tell(process, "")
    assert heard(process) == ".\n", "the order has begun"
    if end == "killed":
        process.kill()
    assert process.communicate(timeout=60) == ("", "")
    assert lease.lease_holder() is None
    (tmp_path / "go").touch()
    deadline = time.monotonic() + 60
    while not (tmp_path / "go.seen").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_locks_are_roots_alone(machine: Machine) -> None:
    """Whoever can open a file can lock it, and so stop a revert."""
    (files.RUN / "lease").touch(mode=0o644)  # of an older version
    before = os.umask(0)
    try:
        with files.staging_lock(), files.switching_lock(), files.open_lock("lease"):
            modes = {p.name: p.stat().st_mode & 0o777 for p in files.RUN.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"staging.lock": 0o600, "switching.lock": 0o600, "lease": 0o600}


def test_silence_gives_the_lease_back(machine: Machine) -> None:
    silent = lease_process(machine, "one", heartbeat=0.05)
    assert silent.wait(timeout=60) == 0
    assert lease.lease_holder() is None
    assert orders.HEARTBEAT > 2 * 4, "rollout.BEAT is 4 s"


@pytest.mark.parametrize(
    "verb",
    [
        lambda: verbs.ensure(NEW, ATTEMPT),
        lambda: verbs.migrate(NEW, ATTEMPT),
        lambda: verbs.switch(NEW, ATTEMPT, 35),
        lambda: verbs.extend(OLD, ATTEMPT, 35),
        lambda: verbs.confirm(NEW, ATTEMPT),
        lambda: verbs.revert(ATTEMPT, "x"),
    ],
    ids=["ensure", "migrate", "switch", "extend", "confirm", "revert"],
)
def test_a_verb_without_its_lease_does_nothing(machine: Machine, verb: Callable[[], Any]) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.add(NEW, release_command="flask db upgrade")
    before = machine.live(), machine.running(), dict(machine.systemd.timers)
    with pytest.raises(HostError, match="this attempt does not hold the machine"):
        verb()
    assert (machine.live(), machine.running(), dict(machine.systemd.timers)) == before
    assert not any("release@" in line for line in machine.systemd.done)
    assert not files.OPEN.exists()


# ------------------------------------------------------------------------------------------------ going live


@pytest.fixture
def staged(held: Machine) -> Machine:
    """OLD is live, NEW is healthy beside it."""
    held.add(OLD, confirmed=True, age=10)
    held.serve(OLD)
    held.add(NEW)
    verbs.ensure(NEW, ATTEMPT)
    return held


def test_stage_beside_the_live_one(machine: Machine) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.add(NEW)
    one, two = verbs.stage(NEW, {"tar": None}), verbs.stage(NEW, {"tar": None})
    assert one["health"] == "/healthz"
    assert one["nonce"] != two["nonce"], "the rollout must run again"
    assert machine.live() == (OLD, None, OLD)
    assert machine.running() == {OLD, NEW}
    (timer,) = machine.systemd.timers.values()
    assert timer[-2:] == ["reap", NEW]
    assert "--on-active=900" in timer
    assert machine.asked == [("/healthz", NEW)] * 6, "three healthy answers each time, through its own socket"
    assert files.linked(files.RUN / NEW / "static") == "static"


def test_stage_of_a_release_that_is_gone(machine: Machine) -> None:
    machine.add(OLD, age=5)
    machine.add(OLDER)
    with pytest.raises(
        HostError, match=rf"release {NEW} is not on this machine; here are: {OLDER}, {OLD}\.\n.*config rm"
    ):
        verbs.stage(NEW, {"tar": None})


def test_what_is_live_is_not_stopped_later(machine: Machine) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    verbs.stage(OLD, {"tar": None})
    assert not machine.systemd.timers


def test_nobody_came(machine: Machine) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    machine.add(NEW)
    verbs.stage(NEW, {"tar": None})
    assert verbs.reap(NEW) == {"release": NEW, "stopped": True}
    assert machine.running() == {OLD}
    assert verbs.reap(OLD) == {"release": OLD, "stopped": False}
    assert machine.running() == {OLD}


def test_nobody_is_stopped_while_somebody_releases(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    def wait(seconds: float) -> None:
        assert machine_runs(staged, NEW)
        waited.append(seconds)
        if len(waited) == 2:
            verbs.switch(NEW, ATTEMPT, 30)
            monkeypatch.setattr(verbs, "lease_holder", lambda: None)

    monkeypatch.setattr(time, "sleep", wait)
    assert verbs.reap(NEW) == {"release": NEW, "stopped": False}
    assert len(waited) == 2
    assert machine_runs(staged, NEW), "it is live"


def test_a_rollout_without_an_end_is_not_waited_for_for_ever(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        assert clock.now < 100_000, "this waits for ever"
        clock.now += seconds

    monkeypatch.setattr(verbs, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    assert verbs.reap(NEW) == {"release": NEW, "stopped": True}
    assert staged.running() == {OLD}
    assert clock.now > 3600, "a release command may take an hour"


def machine_runs(machine: Machine, release: str) -> bool:
    return release in machine.running()


def test_ensure_gives_the_release_new_time(staged: Machine) -> None:
    """This coordinator, too, may die before it switches."""
    assert f"systemctl stop decant-unclaimed-{NEW}.timer decant-unclaimed-{NEW}.service" in staged.systemd.done
    assert f"decant-unclaimed-{NEW}" in staged.systemd.timers
    assert verbs.ensure(NEW, ATTEMPT) == {
        "release": NEW, "health": "/healthz", "current": OLD, "persisted": OLD, "confirmed": False,
        "release_command": False, "open": False,
    }  # fmt: skip
    files.OPEN.touch()
    said = verbs.ensure(OLD, ATTEMPT)
    assert (said["confirmed"], said["open"]) == (True, True)
    with pytest.raises(HostError, match=rf"release {OLDER} is not on this machine; here are: {NEW}, {OLD}"):
        verbs.ensure(OLDER, ATTEMPT)


def test_a_release_has_its_end_before_it_starts(staged: Machine) -> None:
    """Whoever is killed in between would leave one that runs until the next boot."""
    staged.systemd.active.discard(f"app@{NEW}.service")
    staged.systemd.timers.clear()
    staged.systemd.fail["systemctl start"] = 1
    with pytest.raises(HostError):
        verbs.ensure(NEW, ATTEMPT)
    assert f"decant-unclaimed-{NEW}" in staged.systemd.timers
    assert f"decant-unclaimed-{OLD}" not in staged.systemd.timers, "it is live"


@pytest.mark.parametrize(("release", "age", "waits"), [(NEW, 0.0, True), (NEW, 60.0, False), (OLD, 0.0, False)])
def test_a_new_release_survives_its_first_seconds(
    staged: Machine, monkeypatch: pytest.MonkeyPatch, release: str, age: float, waits: bool
) -> None:
    clock = SimpleNamespace(now=1000.0, slept=0.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds
        clock.slept += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock.now)
    staged.systemd.started = 1000.0 - age
    verbs.ensure(release, ATTEMPT)
    assert clock.slept == pytest.approx(serving.FIRST_SECONDS if waits else 0.0)


def test_a_new_release_that_has_crashed_is_not_believed(staged: Machine) -> None:
    staged.systemd.restarts[NEW] = 1
    with pytest.raises(HostError, match="it crashes when it starts"):
        verbs.ensure(NEW, ATTEMPT)
    assert staged.running() == {OLD}
    staged.systemd.restarts[OLD] = 3
    assert verbs.ensure(OLD, ATTEMPT)["release"] == OLD, "it was live: a crash of last week means nothing"


def test_a_new_release_that_crashes_in_its_first_seconds(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    staged.systemd.started = now

    def crash(seconds: float) -> None:
        staged.systemd.restarts[NEW] = 1

    monkeypatch.setattr(time, "sleep", crash)
    with pytest.raises(HostError, match="it starts, answers, and crashes seconds later"):
        verbs.ensure(NEW, ATTEMPT)
    assert staged.running() == {OLD}


def test_a_new_release_one_of_whose_workers_ends_in_its_first_seconds(
    staged: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gunicorn replaces it, and would again and again."""
    staged.systemd.started = time.clock_gettime(time.CLOCK_MONOTONIC)
    marker = files.RUN / NEW / "socket" / "worker-exited"
    monkeypatch.setattr(time, "sleep", lambda seconds: marker.touch())
    with pytest.raises(HostError, match="it starts, answers, and crashes seconds later"):
        verbs.ensure(NEW, ATTEMPT)
    assert staged.running() == {OLD}
    assert verbs.ensure(OLD, ATTEMPT)["release"] == OLD


def test_ensure_settles_what_an_attempt_that_died_left_on_trial(staged: Machine) -> None:
    staged.add(OLDER)
    verbs.switch(NEW, ATTEMPT, 35)
    said = verbs.ensure(OLDER, ATTEMPT)
    assert (said["current"], said["persisted"]) == (NEW, OLD), "so that the coordinator can tell"
    assert staged.live()[0] == OLD
    assert staged.running() == {OLD, OLDER}
    assert not staged.systemd.armed(), "else it would take back what is switched to next"


def test_ensure_of_the_release_on_trial_keeps_it_running(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    verbs.ensure(NEW, ATTEMPT)
    assert staged.live()[0] == OLD
    assert staged.running() == {OLD, NEW}
    assert not [line for line in staged.systemd.done if " stop " in line and line.endswith(f"app@{NEW}.service")]


def test_switch_is_on_trial(staged: Machine) -> None:
    assert verbs.switch(NEW, ATTEMPT, 35) == {"release": NEW, "previous": OLD}
    assert staged.live() == (NEW, OLD, OLD), "the old one is nginx's backup, and what a boot brings back"
    assert staged.running() == {OLD, NEW}
    ((name, timer),) = staged.systemd.armed().items()
    assert re.fullmatch(r"decant-revert-[0-9a-f]{8}", name), (
        "a name of its own, so that the next can be armed beside it"
    )
    assert "--on-active=35" in timer
    assert "--timer-property=AccuracySec=100ms" in timer
    assert timer[timer.index("revert") :] == ["revert", "--because", "no confirm came"]
    assert [a for a in staged.asked if a[1] == "nginx"] == [("/healthz", "nginx")] * 5


def test_the_timer_is_armed_before_anything_is_switched(staged: Machine) -> None:
    staged.systemd.fail["systemd-run"] = 1
    with pytest.raises(HostError, match="systemd-run"):
        verbs.switch(NEW, ATTEMPT, 35)
    assert staged.live() == (OLD, None, OLD)


@pytest.mark.parametrize(
    "bad", [Reply(status=502, release="", body="Bad Gateway"), Reply(status=200, release=OLD, body="")]
)
def test_a_switch_that_misses_goes_back_at_once(staged: Machine, bad: Reply) -> None:
    answers = iter([Reply(status=200, release=NEW, body="ok"), bad])
    staged.answers["nginx"] = lambda: next(answers)
    with pytest.raises(
        HostError, match=rf"release {NEW} answered status \d+.* through nginx at /healthz; went back to {OLD}"
    ):
        verbs.switch(NEW, ATTEMPT, 35)
    assert staged.live() == (OLD, NEW, OLD)
    assert staged.running() == {OLD}
    assert not staged.systemd.armed()
    assert next(answers, None) is None, "aborted at the first miss"


def test_switching_again_changes_nothing_but_the_deadline(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    verbs.switch(NEW, ATTEMPT, 99)
    assert staged.live() == (NEW, OLD, OLD)
    (timer,) = staged.systemd.armed().values()
    assert "--on-active=99" in timer


def test_confirm_keeps_it(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    result = verbs.confirm(NEW, ATTEMPT)
    assert (result["release"], result["previous"]) == (NEW, OLD)
    assert staged.live() == (NEW, OLD, NEW)
    assert staged.running() == {NEW}
    assert not staged.systemd.timers
    assert (files.RELEASES / NEW / "confirmed").exists()
    assert verbs.confirm(NEW, ATTEMPT)["previous"] == NEW


def test_going_back_to_what_does_not_start_leaves_it_to_systemd(staged: Machine) -> None:
    """It is the one to serve whatever is wrong with it, and what was on trial must not stay."""
    verbs.switch(NEW, ATTEMPT, 35)
    staged.systemd.active.discard(f"app@{OLD}.service")
    staged.systemd.broken.add(OLD)
    with pytest.raises(HostError, match=f"release {OLD} does not serve"):
        verbs.revert(None, "no confirm came")
    assert files.linked(files.CURRENT) == OLD
    assert staged.running() == {OLD}
    assert not [timer for timer in staged.systemd.timers if timer.startswith("decant-revert")]


def test_what_is_confirmed_is_confirmed_again_without_a_disk(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "make_keepable", lambda release: pytest.fail("it needs room on the disk"))
    assert verbs.confirm(OLD, ATTEMPT)["release"] == OLD


def test_confirm_of_what_went_back_is_refused(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    verbs.revert(None, "no confirm came")
    with pytest.raises(HostError, match=rf"release {NEW} is not live here any more: {OLD} is\. Run pulumi up again"):
        verbs.confirm(NEW, ATTEMPT)
    assert staged.live()[2] == OLD


@pytest.mark.parametrize("attempt", [None, ATTEMPT], ids=["timer", "rollout"])
def test_revert(staged: Machine, attempt: str | None) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    assert verbs.revert(attempt, "because") == {"release": OLD, "reverted": NEW}
    assert staged.live() == (OLD, NEW, OLD)
    assert staged.running() == {OLD}
    assert not staged.systemd.armed()
    said = files.read_json(files.RUN / "reverted.json")
    assert (said["from"], said["to"], said["because"]) == (NEW, OLD, "because")
    verbs.revert(attempt, "again")
    assert files.read_json(files.RUN / "reverted.json")["because"] == "because", "nothing was taken back this time"


def test_a_revert_gives_the_old_release_its_traffic_even_where_it_starts_badly(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    staged.systemd.active.discard(f"app@{OLD}.service")
    staged.systemd.broken.add(OLD)
    with pytest.raises(HostError):
        verbs.revert(ATTEMPT, "x")
    assert staged.live()[0] == OLD


def test_going_back_happens_whatever_the_start_says(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    staged.systemd.active.discard(f"app@{OLD}.service")

    def impossible(*_: Any) -> None:
        raise RecursionError("what nobody has thought of")

    monkeypatch.setattr(verbs, "start", impossible)
    with pytest.raises(RecursionError):
        verbs.revert(None, "no confirm came")
    assert staged.live()[0] == OLD
    assert staged.running() == {OLD}
    assert f"systemctl kill --signal=KILL app@{NEW}.service" in staged.systemd.done, "it may be what takes all room"


@pytest.mark.parametrize("attempt", [None, ATTEMPT], ids=["timer", "rollout"])
def test_going_back_needs_no_room(staged: Machine, monkeypatch: pytest.MonkeyPatch, attempt: str | None) -> None:
    """An app can fill /run, where its socket is."""
    verbs.switch(NEW, ATTEMPT, 35)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", full)
    monkeypatch.setattr(verbs, "write", full)
    assert verbs.revert(attempt, "because") == {"release": OLD, "reverted": NEW}
    assert staged.live()[0] == OLD
    assert staged.running() == {OLD}
    assert not staged.systemd.armed()


def test_what_an_old_timer_started_does_not_meet_a_new_trial(staged: Machine) -> None:
    """It failed, and systemd starts it again and again."""
    staged.systemd.active.add("decant-revert-0badcafe.service")
    verbs.switch(NEW, ATTEMPT, 35)
    assert "decant-revert-0badcafe.service" not in staged.systemd.active
    assert len(staged.systemd.armed()) == 1


def test_the_first_release_of_all_has_nothing_to_go_back_to(held: Machine) -> None:
    held.add(NEW)
    verbs.ensure(NEW, ATTEMPT)
    assert verbs.switch(NEW, ATTEMPT, 35) == {"release": NEW, "previous": None}
    assert held.live() == (NEW, None, None)
    assert verbs.revert(ATTEMPT, "x") == {"release": None, "reverted": NEW}
    assert held.live() == (None, None, None)
    assert held.running() == set()


def test_boot_brings_back_what_was_confirmed(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    for link in (files.CURRENT, files.PREVIOUS):
        link.unlink()
    staged.systemd.active.clear()
    assert verbs.boot() == {"release": OLD}
    assert staged.live() == (OLD, None, OLD)
    assert staged.running() == {OLD}


def test_boot_of_a_machine_without_a_release(machine: Machine) -> None:
    assert verbs.boot() == {"release": None}
    assert machine.live() == (None, None, None)


# ------------------------------------------------------------------------------------------------ the dead man's switch


def watched(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many timers are armed after each command of systemd's."""
    seen: list[int] = []
    inner = machine.systemd.run

    def run(command: tuple[str, ...], **more: Any) -> subprocess.CompletedProcess[str]:
        done = inner(command, **more)
        seen.append(len(machine.systemd.armed()))
        return done

    monkeypatch.setattr(units, "subprocess", SimpleNamespace(run=run))
    return seen


@pytest.mark.parametrize("again", ["extend", "switch"])
def test_there_is_never_a_moment_without_a_timer(staged: Machine, monkeypatch: pytest.MonkeyPatch, again: str) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    (first,) = staged.systemd.armed()
    seen = watched(staged, monkeypatch)
    getattr(verbs, again)(NEW, ATTEMPT, 60)
    ((second, timer),) = staged.systemd.armed().items()
    assert second != first
    assert "--on-active=60" in timer
    assert min(seen) == 1
    assert max(seen) == 2, "the new one stands before the old one goes"


def test_extend_gives_more_time_and_nothing_else(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    before, asked = staged.live(), len(staged.asked)
    assert verbs.extend(NEW, ATTEMPT, 40) == {"release": NEW}
    assert staged.live() == before
    assert staged.running() == {OLD, NEW}
    assert len(staged.asked) == asked
    (timer,) = staged.systemd.armed().values()
    assert timer[timer.index("revert") :] == ["revert", "--because", "no confirm came"]


def test_extend_of_what_went_back_is_refused_and_arms_nothing(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    verbs.revert(None, "no confirm came")
    with pytest.raises(HostError, match=rf"release {NEW} is not live here any more: {OLD} is\. Run pulumi up again"):
        verbs.extend(NEW, ATTEMPT, 35)
    assert not staged.systemd.armed()


def test_a_timer_that_cannot_be_extended_is_kept(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    before = dict(staged.systemd.armed())
    staged.systemd.fail["systemd-run"] = 1
    with pytest.raises(HostError, match="systemd-run"):
        verbs.extend(NEW, ATTEMPT, 40)
    assert staged.systemd.armed() == before


@pytest.mark.parametrize("end", ["confirm", "revert"])
def test_every_timer_goes_at_the_end(staged: Machine, end: str) -> None:
    """Also one that a killed `extend` left behind."""
    verbs.switch(NEW, ATTEMPT, 35)
    staged.systemd.timers["decant-revert-0badcafe"] = []
    staged.systemd.timers["decant-unclaimed-cccccccccccc"] = []
    if end == "confirm":
        verbs.confirm(NEW, ATTEMPT)
    else:
        verbs.revert(ATTEMPT, "x")
    assert not staged.systemd.armed()
    assert "decant-unclaimed-cccccccccccc" in staged.systemd.timers, "another release's"


# ------------------------------------------------------------------------------------------------ the balancer


@pytest.fixture
def balanced(staged: Machine, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine behind a balancer; `slept` says how long it waited, and whether it was open meanwhile."""
    files.SETTINGS.write_text(json.dumps({"name": "www.example.com", "stack": "blue", "noticed": 25}))
    made = SimpleNamespace(machine=staged, slept=[], now=0.0)
    monkeypatch.setenv("MAINPID", "77")  # as systemd says while a release runs

    def sleep(seconds: float) -> None:
        made.slept.append((seconds, files.OPEN.exists()))
        made.now += seconds

    for module in (verbs, serving):
        monkeypatch.setattr(
            module, "time", SimpleNamespace(monotonic=lambda: made.now, sleep=sleep, time=lambda: 1000.0)
        )
    return made


def test_a_new_machine_is_closed_until_a_release_is_confirmed(held: Machine) -> None:
    held.add(NEW)
    assert verbs.ensure(NEW, ATTEMPT)["open"] is False
    verbs.switch(NEW, ATTEMPT, 35)
    assert not files.OPEN.exists(), "on trial: not for visitors yet"
    assert verbs.status()["open"] is False
    verbs.confirm(NEW, ATTEMPT)
    assert files.OPEN.exists()
    assert verbs.status()["open"] is True


@pytest.mark.parametrize("opened", [True, False])
def test_a_release_on_trial_or_taken_back_leaves_a_machine_as_it_was(staged: Machine, opened: bool) -> None:
    files.OPEN.touch() if opened else None
    verbs.switch(NEW, ATTEMPT, 35)
    assert files.OPEN.exists() == opened, "one that serves goes on serving during a switch"
    verbs.revert(ATTEMPT, "x")
    assert files.OPEN.exists() == opened


def test_confirm_opens_only_what_is_kept(staged: Machine) -> None:
    verbs.switch(NEW, ATTEMPT, 35)
    verbs.revert(None, "no confirm came")
    with pytest.raises(HostError):
        verbs.confirm(NEW, ATTEMPT)
    assert not files.OPEN.exists()


def test_a_boot_opens_what_was_confirmed(staged: Machine) -> None:
    assert verbs.boot() == {"release": OLD}
    assert files.OPEN.exists()


def test_a_boot_without_a_release_stays_closed(machine: Machine) -> None:
    verbs.boot()
    assert not files.OPEN.exists()


def test_close_waits_until_the_balancer_has_noticed(balanced: SimpleNamespace) -> None:
    files.OPEN.touch()
    assert verbs.close(OLD) == {"release": OLD, "waited": 25}
    assert balanced.slept == [(25, False)], "closed meanwhile"
    assert files.OPEN.exists(), "whoever starts the release again finds the machine as it was"
    assert balanced.machine.running() >= {OLD}, "it serves while the balancer has not noticed"


@pytest.mark.parametrize("why", ["not live", "closed already", "no balancer", "older settings", "crashed"])
def test_close_does_not_wait_for_nothing(balanced: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    files.OPEN.touch()
    if why == "crashed":
        monkeypatch.delenv("MAINPID")
    if why == "closed already":
        files.OPEN.unlink()
    if why in ("no balancer", "older settings"):
        given = {"name": "x", "stack": "blue"} | ({"noticed": 0} if why == "no balancer" else {})
        files.SETTINGS.write_text(json.dumps(given))
    release = NEW if why == "not live" else OLD
    before = files.OPEN.exists()
    assert verbs.close(release) == {"release": release, "waited": 0}
    assert not balanced.slept
    assert files.OPEN.exists() == before


def test_leave_closes_for_good(balanced: SimpleNamespace) -> None:
    files.OPEN.touch()
    balanced.machine.systemd.requests = 3
    said = verbs.leave()
    assert said["left"] is True
    assert balanced.slept[0] == (25, False)
    assert not any(opened for _, opened in balanced.slept)
    assert not files.OPEN.exists()
    assert balanced.machine.systemd.requests == 0, "what was sent here is answered first"
    assert 25 < said["seconds"] < 27
    assert balanced.machine.running() >= {OLD}, "requests still come until the balancer has noticed"
    looks = [line for line in balanced.machine.systemd.done if line.startswith("ss ")]
    assert all(f"{files.RUN}/{OLD}/socket/gunicorn.sock" in line for line in looks)
    assert len(looks) == 4


def test_a_close_that_waits_does_not_open_a_machine_that_leaves(
    balanced: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.OPEN.touch()
    began = []

    def sleep(seconds: float) -> None:  # the machine leaves in the middle of the first wait
        if not began:
            began.append(seconds)
            verbs.leave()

    monkeypatch.setattr(verbs.time, "sleep", sleep)
    verbs.close(OLD)
    assert began == [25]
    assert not files.OPEN.exists()


def test_a_full_memory_disk_does_not_keep_a_machine_closed(
    balanced: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.OPEN.touch()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    verbs.close(OLD)
    assert files.OPEN.exists()


def test_leave_does_not_wait_for_ever(balanced: SimpleNamespace) -> None:
    files.OPEN.touch()
    balanced.machine.systemd.requests = 1_000_000
    said = verbs.leave()
    assert 25 + 35 < said["seconds"] < 25 + 60, "longer than nginx waits for an answer"


def test_leave_where_nothing_was_ever_live(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert verbs.leave()["left"] is True
    files.SETTINGS.unlink()
    assert verbs.leave()["left"] is True, "a machine that `base` never finished on"
    assert not files.OPEN.exists()


# ------------------------------------------------------------------------------------------------ the release command


def test_the_release_command_runs_once_and_never_on_the_way_back(held: Machine) -> None:
    held.add(NEW, release_command="flask db upgrade")
    held.add(OLD, release_command="flask db upgrade", confirmed=True)
    held.add(OLDER)
    assert verbs.migrate(NEW, ATTEMPT) == {"release": NEW, "migrated": True, "skipped": False}
    assert verbs.migrate(OLD, ATTEMPT) == {"release": OLD, "migrated": False, "skipped": True}
    assert verbs.migrate(OLDER, ATTEMPT) == {"release": OLDER, "migrated": False, "skipped": False}
    started = [line for line in held.systemd.done if line.startswith("systemctl start release@")]
    assert started == [f"systemctl start release@{NEW}.service"]


def test_two_release_commands_never_run_at_once(held: Machine) -> None:
    """A coordinator that dies leaves one running."""
    held.add(NEW, release_command="flask db upgrade")
    held.systemd.migrating = [OLD]
    with pytest.raises(HostError, match=rf"command of release {OLD} still runs here.*\n.*systemctl stop release@{OLD}"):
        verbs.migrate(NEW, ATTEMPT)
    assert not [line for line in held.systemd.done if line.startswith("systemctl start")]
    held.systemd.migrating = [NEW]
    assert verbs.migrate(NEW, ATTEMPT)["migrated"], "systemd waits for the one that runs, and starts no second"


def test_a_release_command_that_fails_says_what_and_masks(held: Machine) -> None:
    held.add(NEW, release_command="flask db upgrade")
    held.systemd.fail[f"systemctl start release@{NEW}.service"] = 1
    held.systemd.log = "cannot connect with canary-key\n"
    with pytest.raises(HostError) as caught:
        verbs.migrate(NEW, ATTEMPT)
    assert str(caught.value) == "the release command failed: flask db upgrade\n    cannot connect with [KEY]"


# ------------------------------------------------------------------------------------------------ becoming healthy


def replies(machine: Machine, release: str, *given: Reply) -> None:
    left = list(given)
    machine.answers[release] = lambda: left.pop(0) if len(left) > 1 else left[0]


def reply(status: int, release: str = NEW) -> Reply:
    return Reply(status=status, release=release, body="body")


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes only when the program waits."""
    clock = SimpleNamespace(now=0.0)

    def sleep(seconds: float) -> None:
        assert clock.now < 10_000, "this waits for ever"
        clock.now += seconds

    monkeypatch.setattr(serving, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep, time=lambda: 1.0))
    return clock


def test_three_healthy_answers_in_a_row(machine: Machine, no_sleep: Any) -> None:
    machine.add(NEW)
    replies(machine, NEW, reply(503), reply(200), reply(200), reply(500), reply(200, OLD), reply(200))
    assert serving.start(NEW) == "/healthz"
    assert len(machine.asked) == 8
    assert (files.RUN / NEW / "health").read_text() == "/healthz"


def test_without_a_health_path_the_first_page_counts_where_the_usual_one_is_missing(
    machine: Machine, no_sleep: Any
) -> None:
    machine.add(NEW, health_path=None)
    replies(machine, NEW, reply(404), reply(200))
    assert serving.start(NEW) == "/"
    assert [path for path, _ in machine.asked] == ["/healthz", "/", "/", "/"]


@pytest.mark.parametrize("status", [404, 401, 403])
def test_what_will_not_get_better_is_not_waited_for(machine: Machine, no_sleep: Any, status: int) -> None:
    machine.add(NEW)
    replies(machine, NEW, reply(status))
    with pytest.raises(HostError, match=f"its health path /healthz answered status {status}"):
        serving.start(NEW)
    assert len(machine.asked) == 1
    assert machine.running() == set()


@pytest.mark.parametrize(("timeout", "patience"), [(15, 15), (2, 2)])
def test_patience_is_the_settings(machine: Machine, no_sleep: Any, timeout: int, patience: int) -> None:
    machine.add(NEW, health_timeout=timeout)
    replies(machine, NEW, reply(503))
    with pytest.raises(HostError, match=rf"not healthy within {timeout} s at /healthz: status 503, body: 'body'"):
        serving.start(NEW)
    assert patience <= no_sleep.now <= patience + 1


def test_a_release_that_dies_is_not_waited_for(machine: Machine, no_sleep: Any) -> None:
    machine.add(NEW)
    machine.systemd.broken.add(NEW)
    with pytest.raises(HostError, match=r"it stopped by itself \(exit-code, exit status 1\)"):
        serving.start(NEW)
    assert no_sleep.now < 1
    assert not machine.asked


def test_what_serves_is_left_running_when_it_is_ill(machine: Machine, no_sleep: Any) -> None:
    machine.add(OLD)
    machine.serve(OLD)
    replies(machine, OLD, reply(503, OLD))
    with pytest.raises(HostError):
        serving.start(OLD)
    assert machine.running() == {OLD}


# ------------------------------------------------------------------------------------------------ asking


def test_ask_through_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    class Answering(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = iter(lambda: self.rfile.readline().decode().strip(), "")
            heard.extend(lines)
            body = b"x" * 5000
            self.wfile.write(
                b"HTTP/1.1 503 Not yet\r\nX-Release: " + NEW.encode() + b"\r\nContent-Length: 5000\r\n\r\n" + body
            )

    (tmp_path / "settings.json").write_text('{"name": "www.example.com"}')
    monkeypatch.setattr(probe, "SETTINGS", tmp_path / "settings.json")
    path = tmp_path / "s"
    with socketserver.UnixStreamServer(str(path), Answering) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        seen = probe.ask("/up?x=1", through=path)
        thread.join(timeout=30)
    assert (seen.status, seen.release, len(seen.body)) == (503, NEW, 2000)
    assert heard[0] == "GET /up?x=1 HTTP/1.1"
    assert {"Host: www.example.com", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http"} <= set(heard)
    assert heard.count("Host: www.example.com") == 1
    gone = probe.ask("/", through=tmp_path / "nowhere")
    assert (gone.status, str(gone).startswith("no answer: ")) == (0, True)


@pytest.mark.parametrize("size", [b"-1", b"-5", b"-ffffffffffffffffffff", b"7fffffffffffffff", b"no"])
def test_a_chunk_of_an_impossible_size_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: bytes
) -> None:
    monkeypatch.setattr(probe, "SETTINGS", tmp_path / "settings.json")
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Release: " + NEW.encode() + b"\r\n\r\n" + size + b"\r\n"
    taken = 0

    class Flooding(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            nonlocal taken
            self.wfile.write(head)
            with contextlib.suppress(OSError):
                while taken < 100 << 20:
                    taken += self.connection.send(bytes(1 << 16))

    path = tmp_path / "s"
    with socketserver.UnixStreamServer(str(path), Flooding) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        seen = probe.ask("/", through=path, timeout=5)
        thread.join(timeout=30)
    assert len(seen.body) <= 2000
    assert taken < 10 << 20


@pytest.mark.parametrize("part", ["head", "body", "endless"])
def test_an_answer_that_trickles_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(probe, "SETTINGS", tmp_path / "settings.json")
    head = b"HTTP/1.1 200 OK\r\nX-Release: " + NEW.encode() + b"\r\n"
    if part != "head":
        head += b"Content-Length: 500\r\n\r\n" if part == "body" else b"\r\n"
    enough = threading.Event()

    class Trickling(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(head)
            with contextlib.suppress(OSError):
                while not enough.wait(0.05):
                    self.wfile.write(b"x")

    path = tmp_path / "s"
    with socketserver.UnixStreamServer(str(path), Trickling) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        stop = threading.Timer(20, enough.set)  # else a probe that waits for ever would hang the test, too
        stop.start()
        seen = probe.ask("/", through=path, timeout=0.3)
        in_time = not enough.is_set()
        stop.cancel()
        enough.set()
        thread.join(timeout=30)
    assert in_time
    assert (seen.status, str(seen)) == (0, "no answer within 0 s")


def test_a_reply_in_words() -> None:
    assert str(Reply(status=0, release="", body="no answer within 5 s")) == "no answer within 5 s"
    assert str(Reply(status=200, release="", body="")) == "status 200"
    assert len(str(Reply(status=500, release="", body="x" * 2000))) < 2100


# ------------------------------------------------------------------------------------------------ on disk


def test_unpack(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    owners: dict[str, tuple[int, int]] = {}
    if not hasattr(tarfile, "data_filter"):  # this computer's Python may be older than the machines': Debian 12's is
        extract = tarfile.TarFile.extractall
        monkeypatch.setattr(tarfile.TarFile, "extractall", lambda tar, path, filter: extract(tar, path))
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_gid={"decant": 77}[name]))
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, **_: owners.__setitem__(str(path), (uid, gid)))
    monkeypatch.setattr(os, "sync", lambda: None)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (("wsgi.py", 0o644), ("bin/run", 0o755), ("static/a.css", 0o666)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = 4, mode
            tar.addfile(info, io.BytesIO(name[:4].encode()))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "wsgi.py"
        tar.addfile(link)
    data = buffer.getvalue()
    (files.INCOMING / "app.tar").write_bytes(data)
    spec = {"tar": "../../etc/app.tar", "sha256": hashlib.sha256(data).hexdigest(), "environment": {"KEY": "canary"},
            "settings": {"entry": "wsgi:app"}}  # fmt: skip
    releases.unpack(NEW, spec)
    folder = files.RELEASES / NEW
    modes = {
        p.name: p.stat().st_mode & 0o777 for p in (folder / "app").rglob("*") if p.is_file() and not p.is_symlink()
    }
    assert modes == {"wsgi.py": 0o640, "run": 0o750, "a.css": 0o640}
    assert (folder / "environment.json").stat().st_mode & 0o777 == 0o600
    assert "canary" not in (folder / "release.json").read_text()
    assert json.loads((folder / "release.json").read_text())["tar"] == "app.tar"
    assert set(owners.values()) == {(0, 77)}, "root's, readable by the app's group"
    assert not any("environment" in path for path in owners)
    assert [p.name for p in files.RELEASES.iterdir()] == [NEW]
    times = {p.name: p.stat().st_mtime for p in (folder / "app").rglob("*.*")}
    assert times["wsgi.py"] != times["a.css"], "an ETag is made of time and size"
    before = (folder / "release.json").stat().st_mtime_ns
    (files.INCOMING / "app.tar").unlink()
    releases.unpack(NEW, spec)
    assert (folder / "release.json").stat().st_mtime_ns == before, "what is there is not touched"
    with pytest.raises(HostError, match=r"app.tar is not here\. Copy it again: pulumi up --replace"):
        releases.unpack(OLD, spec)
    (files.INCOMING / "app.tar").write_bytes(data[:-1])
    with pytest.raises(HostError, match="did not arrive whole"):
        releases.unpack(OLD, spec)
    assert not releases.is_complete(OLD)


def test_the_last_five_stay_and_what_is_in_use(machine: Machine) -> None:
    names = [f"{i:012x}" for i in range(9)]  # the first is the newest
    for age, name in enumerate(names):
        machine.add(name, age=age)
    machine.serve(names[8], persisted=False)
    files.link(files.PERSISTED, f"releases/{names[7]}")
    files.link(files.PREVIOUS, names[6])
    (files.VENVS / "of-nobody").mkdir()
    (files.INCOMING / "of-nobody.tar").touch()
    (files.INCOMING / "half.tar.part").touch()
    (files.RUN / names[5]).mkdir()
    assert releases.complete_releases() == names
    assert releases.prune() == [names[5]]
    left = [*names[:5], *names[6:]]
    assert releases.complete_releases() == left
    assert {p.name for p in files.VENVS.iterdir()} == {f"venv-of-{n}" for n in left}
    assert {p.name for p in files.INCOMING.iterdir()} == {f"{n}.tar" for n in left} | {"half.tar.part"}
    assert not (files.RUN / names[5]).exists()
    assert releases.prune() == []


def test_a_half_unpacked_release_is_none(machine: Machine) -> None:
    (files.RELEASES / f".{NEW}").mkdir()
    (files.RELEASES / OLD).mkdir()
    assert releases.complete_releases() == []
    assert verbs.status()["releases"] == []


@pytest.mark.parametrize(
    ("free", "inodes", "size", "fits"),
    [(200, 9999, 10, True), (93, 9999, 10, False), (94, 9999, 10, True), (500, 1999, 10, False), (500, 0, 10, False)],
)
def test_room(machine: Machine, monkeypatch: pytest.MonkeyPatch, free: int, inodes: int, size: int, fits: bool) -> None:
    disk = SimpleNamespace(f_bavail=free, f_frsize=1 << 20, f_files=10_000, f_favail=inodes)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    with contextlib.nullcontext() if fits else pytest.raises(HostError, match="the disk is full"):
        assert releases.room(size << 20) == {"room": True}


def test_a_file_system_that_counts_no_files_has_room(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimpleNamespace(f_bavail=999, f_frsize=1 << 20, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    assert releases.room(1) == {"room": True}


def test_an_environment_is_shared_by_what_has_the_same_lock(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (files.OPT / "gunicorn-requirements.txt").write_text("gunicorn==1\n")
    built: list[Path] = []

    def build(venv: Path, app: Path, settings: Any) -> None:
        venv.mkdir(exist_ok=True)
        (venv / ".complete").touch()
        built.append(venv)

    monkeypatch.setattr(environments, "build_environment", build)
    for release, lock in ((OLD, "a"), (NEW, "a"), (OLDER, "b")):
        machine.add(release, lock=lock)
    assert [environments.install(r) for r in (OLD, NEW, OLDER, OLD)] == [True, False, True, False]
    assert files.linked(files.RELEASES / OLD / "venv") == files.linked(files.RELEASES / NEW / "venv") == built[0].name
    assert (files.RELEASES / OLD / "venv").resolve() == built[0]
    (built[0] / ".complete").unlink()
    assert environments.install(NEW) is True, "one that was not finished is made anew"
    (files.OPT / "gunicorn-requirements.txt").write_text("gunicorn==2\n")
    assert environments.install(NEW) is True


# ------------------------------------------------------------------------------------------------ the command line


def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["decant-host", *words])
    status = command.main()
    out, err = capsys.readouterr()
    return status, out, err


def test_a_verb_ends_with_one_line_of_json(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    status, out, err = say(monkeypatch, capsys, "status")
    assert (status, err, out.count("\n")) == (0, "", 1)
    said = json.loads(out)
    assert (said["current"], said["persisted"], said["running"], said["releases"]) == (OLD, OLD, [OLD], [OLD])
    assert (said["lease"], said["reverted"], said["open"]) == (None, None, False)


def test_what_a_user_has_to_know_is_no_traceback(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = say(monkeypatch, capsys, "confirm", NEW, "--attempt", "x")
    assert (status, out) == (1, "")
    assert re.match(r"\S+: this attempt does not hold the machine any more", err)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_told_and_other_mistakes_are_not_hidden(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def boot() -> None:
        raise OSError(number, "x", "/var/lib/decant/x")

    monkeypatch.setattr(verbs, "boot", boot)
    if number == errno.ENOSPC:
        status, _, err = say(monkeypatch, capsys, "boot")
        assert status == 1
        assert "the disk is full (/var/lib/decant/x)" in err
    else:
        with pytest.raises(OSError, match="x"):
            say(monkeypatch, capsys, "boot")


@pytest.mark.parametrize("release", ["latest", "0123456789AB", "../../etc", "0123456789abc"])
def test_only_release_ids_are_taken(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], release: str
) -> None:
    with pytest.raises(SystemExit):
        say(monkeypatch, capsys, "reap", release)


# It would name the folder of all releases, which `unpack` would make room in.
def test_an_empty_release_id_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add(OLD)
    monkeypatch.setattr("sys.stdin", io.StringIO('{"tar": "app.tar", "sha256": "x"}'))
    (files.INCOMING / "app.tar").touch()
    with contextlib.suppress(SystemExit, KeyError):
        say(monkeypatch, capsys, "stage", "")
    assert releases.complete_releases() == [OLD]


def test_the_verbs_that_the_coordinator_calls_exist() -> None:
    """Names and options as rollout.py, fleet.py and the units use them."""
    words = [sys.executable, "-P", "-s", "-m", "decant_host", "--help"]
    done = subprocess.run(words, env={"PYTHONPATH": str(PYTHON)}, capture_output=True, text=True, check=True)
    help_text = done.stdout
    for verb in (
        "stage",
        "room",
        "ensure",
        "migrate",
        "switch",
        "extend",
        "confirm",
        "revert",
        "lease",
        "reap",
        "close",
        "leave",
        "boot",
        "status",
    ):
        assert re.search(rf"^    {verb} ", help_text, re.MULTILINE), verb


def test_modules() -> None:
    assert all(isinstance(module, ModuleType) for module in MODULES)
    assert {p.stem for p in (PYTHON / "decant_host").glob("*.py")} - {"__init__"} == {
        m.__name__.rpartition(".")[2] for m in MODULES
    }
