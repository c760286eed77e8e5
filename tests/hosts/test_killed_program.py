"""The machine's own program, or its connection, is killed before any of its changes: nobody notices, both ways go on.

Before a point means after the one before it, so that killing before each of them, and at the end, is killing anywhere.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.site import Site, settled
from tests.support.visitors import Visitors
from tests.support.waiting import PATIENCE, wait_for

# What Python runs first when the machine's program starts. In the first process that does an order's verb, it notes all
# that is about to change anything, by the program's functions that are at work, and kills before the n-th of a kind. An
# attempt's verbs are done by children of the process that holds the lease.
WATCH = """
import atexit, json, os, signal, sys

ORDER, SEEN = "/opt/decant/kill/order", "/opt/decant/kill/seen"
CHANGES = "rename symlink link mkdir remove rmdir truncate utime chmod chown".split()

def about(process, what):
    with open(f"/proc/{process}/{what}") as file:
        return file.read()

def connection():
    process = os.getpid()
    while about(process, "comm").strip() != "sshd-session":
        process = int(about(process, "stat").rpartition(")")[2].split()[1])
    return process

def watch(order):
    left, notes, busy, noting = order["nth"], None, False, 0

    def step(what):
        nonlocal left, notes, busy, noting
        busy = True
        if notes is None:
            try:
                notes = os.open(SEEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            except FileExistsError:
                return  # not the first one; busy for good
            noting = os.getpid()
        os.write(notes, (what + "\\n").encode())
        left -= what == order["at"]
        if left == 0:
            os.write(notes, b"killed\\n")
            os.kill(connection() if order["victim"] == "connection" else os.getpid(), signal.SIGKILL)
        busy = False

    def hook(event, arguments):
        if busy:
            return
        opened = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        change = event.startswith("os.") and event[3:] in CHANGES
        if not (opened or change or event == "subprocess.Popen" or event.startswith("shutil.")):
            return
        names, frame = [], sys._getframe(1)
        while frame:
            if "/decant_host/" in frame.f_code.co_filename:
                names.insert(0, frame.f_code.co_name)
            frame = frame.f_back
        # The command's function and those that it calls. The agent's commands run in children of `decant-host lease`.
        while "_dispatch" in names:
            names = [name for name in names[names.index("_dispatch") + 1 :] if name != "<lambda>"]
        if "hold_lease" in names:
            names = ["lease", *names[names.index("hold_lease") :]]
        if names[:1] == [order["verb"]]:
            step(" ".join([*names, event]))

    def end():
        if noting == os.getpid():
            step("exit")

    def answering(*arguments, **more):
        if sys._getframe(1).f_code.co_name == "report_outcome":
            end()
        return fdopen(*arguments, **more)

    sys.addaudithook(hook)
    # All is done, and nobody knows: where a process ends by itself, and where an attempt's order is to be answered.
    atexit.register(end)
    fdopen, os.fdopen = os.fdopen, answering

if sys.orig_argv[4:5] == ["decant_host"]:
    with open(ORDER) as file:
        order = json.load(file)
    if sys.orig_argv[5] in ("lease", order["verb"]):
        watch(order)
"""
# The real coordinator, but its machines wait 3 s for its confirm, where they usually wait 35.
COORDINATOR = """
import sys
from decant.rollout import timeouts
from decant.rollout.__main__ import main
from decant_host import protocol

protocol.CONFIRM_TIMEOUT, protocol.CONFIRM_TIMEOUT_PER_MACHINE, protocol.HEARTBEAT_INTERVAL = 3, 0, 0.5
timeouts.URL_TIMEOUT = 0.5
sys.exit(main())
"""
WAY_OUT = ("Run pulumi up again", "run pulumi up again", "goes back by itself", "Is port 81 open")


@dataclass(kw_only=True)
class Killer:
    """A site with two releases, and who kills its program. `spare` is an app that needs an environment of its own."""

    site: Site
    releases: tuple[str, str]
    spare: Path
    visitors: Visitors
    spare_release: str = ""
    spare_venv: str = ""

    @property
    def other(self) -> str:
        (found,) = set(self.releases) - {self.site.live}
        return found

    @contextlib.contextmanager
    def order(self, verb: str, at: str = "", nth: int = 1, victim: str = "program") -> Iterator[None]:
        """While the block runs, the first process that does this verb is killed there, or only watched."""
        order = json.dumps({"verb": verb.removesuffix(" by timer"), "at": at, "nth": nth, "victim": victim})
        self.site.machine.run("cat >/opt/decant/kill/order.new", input=order)
        self.site.machine.run("cd /opt/decant/kill && rm -f seen && mv order.new order")
        yield
        self.site.machine.run('echo \'{"verb": ""}\' >/opt/decant/kill/order')

    def seen(self) -> list[str]:
        return self.site.machine.run("cat /opt/decant/kill/seen").stdout.splitlines()

    # ---------------------------------------------------------------- what makes a verb run

    def attempt(self, verb: str, wanted: str) -> tuple[int, str]:
        """Do what runs this verb; its exit status and what it said."""
        special = {"stage": self._stage, "expire": self._expire, "boot": self._boot, "revert by timer": self._lapse}
        return special[verb](wanted) if verb in special else self._roll_out(wanted, fails=verb == "revert")

    def _roll_out(self, wanted: str, *, fails: bool) -> tuple[int, str]:
        changes = {"url": f"http://{self.site.address}:81"} if fails else {}
        done = subprocess.run(
            [sys.executable, "-c", COORDINATOR, wanted], input=json.dumps(self.site.plan(wanted, **changes)),
            cwd=self.site.project.folder / "infra", capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    def _stage(self, _wanted: str) -> tuple[int, str]:
        staged = self.site.stage(self.spare)
        return staged.status, staged.error

    def _lapse(self, wanted: str) -> tuple[int, str]:
        with self.site.held() as agent:
            agent.prepare(wanted)
            agent.switch(wanted, 1)
        wait_for(lambda: settled(self.site), "the end of the trial")
        return 1, ""

    def _expire(self, wanted: str) -> tuple[int, str]:
        with self.site.held() as agent:
            agent.prepare(wanted)
        self.site.machine.run(f"systemctl start --no-block decant-unclaimed-{wanted}.service")
        wait_for(lambda: wanted not in self.site.status()["running"], "the end of what nobody switched to")
        return 1, ""

    def _boot(self, _wanted: str) -> tuple[int, str]:
        self.site.machine.run("systemctl restart decant-boot", check=False)
        active = ["systemctl", "is-active", "decant-boot"]
        wait_for(lambda: self.site.machine.run(active, check=False).stdout == "active\n", "the boot")
        return 1, ""

    # ---------------------------------------------------------------- one kill

    def kill(self, verb: str, at: str, nth: int, *, again: bool, victim: str = "program", new: bool = False) -> bool:
        """Kill the program there, then do the same again or go back. Whether it came to that point at all.

        `new` is a release that never was live: it has to outlast its first seconds.
        """
        before, wanted = self.site.live, self.other
        if verb == "stage":
            wanted = self.forget_spare()
        elif verb == "migrate" or new:
            self.site.machine.run(f"rm -f /var/lib/decant/releases/{wanted}/confirmed")
        with self.order(verb, at, nth, victim):
            status, said = self.attempt(verb, wanted)
        where = f"{verb}: {at} {nth}\n{said}"
        if "killed" not in self.seen():
            assert verb in ("revert", "revert by timer", "expire", "boot") or status == 0, where
            return False
        assert status != 0, where
        assert "Traceback" not in said, where
        if verb in ("stage", "revert", "lease", "prepare", "migrate", "switch", "confirm"):
            assert any(way in said for way in WAY_OUT), where
        # What could not be taken back at once goes back by itself, as was said.
        if verb == "revert" or victim == "connection":
            wait_for(
                lambda: self.site.live == self.site.status()["persisted"], f"the end of the trial after {where}", 20
            )
        assert self.site.live in ({before, wanted} if verb == "confirm" else {before}), where
        if again and verb == "stage":
            staged = self.site.stage(self.spare)
            assert (staged.status, staged.release) == (0, wanted), where + staged.error
        target = wanted if again else before
        assert self.site.roll_out(target)["release"] == self.site.live == target, where
        wait_for(lambda: settled(self.site), f"what is settled after {where}")
        assert self.visitors.failures == [], where
        if target != before:
            assert self.site.machine.run("ls -A /var/lib/decant/releases | grep '^[.]'", check=False).stdout == ""
        if verb == "stage":
            self.site.roll_out(before)
        return True

    def forget_spare(self) -> str:
        """The spare app's release and its environment are not on the machine any more; the release's id."""
        if not self.spare_release:
            with self.order("nothing"):
                self.spare_release = self.site.stage(self.spare).release
            folder = f"/var/lib/decant/releases/{self.spare_release}"
            self.spare_venv = self.site.machine.run(["readlink", "-f", f"{folder}/venv"]).stdout.strip()
        release, base = self.spare_release, "/var/lib/decant/releases"
        self.site.machine.run(f"systemctl stop app@{release} decant-unclaimed-{release}.timer", check=False)
        self.site.machine.run(["rm", "-rf", self.spare_venv, f"{base}/{release}", f"/run/decant/{release}"])
        return release


@pytest.fixture(scope="module")
def killer(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    folder = tmp_path_factory.mktemp("killed")
    command = {"Procfile": "web: gunicorn wsgi:app\nrelease: true\n"}
    one, two = (site.variant(folder / name, {"static/name.txt": name, **command}) for name in ("killed", "alive"))
    requirements = (site.project.app / "requirements.txt").read_text() + "# its own\n"
    spare = site.variant(folder / "spare", {"requirements.txt": requirements})
    site.machine.run('mkdir /opt/decant/kill && echo \'{"verb": ""}\' >/opt/decant/kill/order')
    site.machine.run("cat >/opt/decant/python/sitecustomize.py", input=WATCH)
    releases = site.release(one), site.release(two)
    with Visitors(site.address) as visitors:
        yield Killer(site=site, releases=releases, spare=spare, visitors=visitors)
        visitors.more()
    assert visitors.failures == []
    print(f"visitors: {visitors.answers} answers, {len(visitors.failures)} failures")
    site.machine.run("rm -rf /opt/decant/kill /opt/decant/python/sitecustomize.py")


ONCE = [
    ("program", "stage", "stage unpack os.rename", 1),
    ("program", "prepare", "prepare start write open", 1),
    ("program", "switch", "switch link rename_durably os.rename", 1),
    ("program", "confirm", "confirm persist rename_durably os.rename", 2),
    ("program", "revert", "revert go_back link rename_durably os.rename", 1),
    ("program", "revert by timer", "revert go_back link rename_durably os.rename", 1),
    ("connection", "switch", "exit", 1),
    ("connection", "confirm", "confirm persist rename_durably os.rename", 1),
]


@pytest.mark.parametrize(
    ("number", "victim", "verb", "at", "nth"), [(number, *point) for number, point in enumerate(ONCE)]
)
def test_killed_once(killer: Killer, number: int, victim: str, verb: str, at: str, nth: int) -> None:
    assert killer.kill(verb, at, nth, again=number % 2 == 0, victim=victim, new=True), killer.seen()


PROGRAMS = ("lease", "prepare", "migrate", "switch", "confirm", "revert", "revert by timer", "expire", "boot", "stage")
CONNECTIONS = ("prepare", "migrate", "switch", "confirm", "revert")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("victim", "verb"), [*(("program", verb) for verb in PROGRAMS), *(("connection", verb) for verb in CONNECTIONS)]
)
def test_killed_anywhere(killer: Killer, victim: str, verb: str) -> None:
    wanted = killer.forget_spare() if verb == "stage" else killer.other
    if verb == "migrate":
        killer.site.machine.run(f"rm -f /var/lib/decant/releases/{wanted}/confirmed")
    with killer.order(verb):
        killer.attempt(verb, wanted)
    counts = Counter(killer.seen())
    # Of what is done over and over, the first ones and the last. Staging says by its functions what it is at.
    first = {1} if verb == "stage" else {1, 2, 3}
    points = [(at, nth) for at, count in counts.items() for nth in sorted(first | {count}) if nth <= count]
    if verb == "lease":
        points.remove(("exit", 1))  # that is after the attempt
    begun = killer.visitors.answers
    reached = [killer.kill(verb, *point, again=n % 2 == 0, victim=victim) for n, point in enumerate(points)]
    asked = killer.visitors.answers - begun
    print(f"{victim}, {verb}: {counts.total()} changes, killed at {sum(reached)} of {len(points)}, {asked} requests")
    missed = [point for point, hit in zip(points, reached, strict=True) if not hit]
    assert len(missed) < 0.2 * len(points), missed
