"""A release on three machines that is cut short: all of them serve the old one, or the next attempt settles it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from decant import errors
from decant.rollout.attempt import Attempt
from decant.rollout.http_probe import probe
from decant.rollout.plan import Plan, PlanData
from decant_host.protocol import ECHO_TIMEOUT
from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from tests.support.project_copy import Project
from tests.support.site import ENV, SECRETS, Site, settled
from tests.support.visitors import Visitors
from tests.support.waiting import PATIENCE, wait_for

# The real coordinator. When it comes to one call, it first runs a shell line.
COORDINATOR = """
import subprocess, sys
from decant.rollout.__main__ import main
from decant.rollout.agent_client import MachineAgent
from decant_host import protocol

line, when, command, name, times = (sys.argv.pop() for _ in range(5))
if times != "real":
    protocol.CONFIRM_TIMEOUT, protocol.CONFIRM_TIMEOUT_PER_MACHINE, protocol.EXTEND_AFTER = 4, 0, 1.0
if times == "quick":
    protocol.HEARTBEAT_INTERVAL, protocol.REPLY_TIMEOUT = 0.3, 2.0
call = MachineAgent.call

def with_fault(self, called, *arguments, **options):
    here = (self.access.name, called) == (name, command)
    if here and when == "before":
        subprocess.run(["sh", "-c", line], check=True)
    result = call(self, called, *arguments, **options)
    if here and when == "after":
        subprocess.run(["sh", "-c", line], check=True)
    return result

MachineAgent.call = with_fault
sys.exit(main())
"""
KILL = "kill -9 $PPID"
NAMES = ("web-1", "web-2", "web-3")
# A few points by default; all of them with `make thorough`.
THOROUGH = pytest.mark.thorough
MORE = [
    (name, command, when)
    for command in ("prepare", "migrate", "switch", "confirm")
    for name in (NAMES if command != "migrate" else NAMES[:1])
    for when in ("before", "after")
]


@dataclass(kw_only=True)
class Fleet:
    """Three machines, on which the same two releases are staged."""

    sites: dict[str, Site]
    releases: list[str]

    @property
    def live(self) -> set[str]:
        return {site.live for site in self.sites.values()}

    @property
    def other(self) -> str:
        """The release that is not live; all machines serve the same."""
        (live,) = self.live
        (other,) = set(self.releases) - {live}
        return other

    def plan(self, release: str) -> PlanData:
        machines = [site.plan(release)["machines"][0] for site in self.sites.values()]
        return self.sites["web-1"].plan(release, machines=machines)

    def roll_out(self, release: str) -> None:
        assert Attempt(Plan.from_dict(release, self.plan(release))).run()["release"] == release
        assert self.live == {release}

    def interrupted(
        self, release: str, name: str, command: str, when: str, line: str, times: str = "short"
    ) -> tuple[int, str]:
        """An attempt with a fault; its exit status and what it printed.

        `times` "short" has machines revert after 4 s instead of 45. "quick" also has the coordinator give a machine up
        after 2 s, so it goes with `quick_echo`. "real" changes nothing.
        """
        coordinator = subprocess.run(
            [sys.executable, "-c", COORDINATOR, release, times, name, command, when, line],
            cwd=self.sites["web-1"].project.folder / "infra", input=json.dumps(self.plan(release)),
            capture_output=True, text=True, timeout=PATIENCE * 3, check=False,
        )  # fmt: skip
        assert "Traceback" not in coordinator.stderr, coordinator.stderr
        return coordinator.returncode, coordinator.stderr

    def settle(self) -> None:
        for site in self.sites.values():
            wait_for(lambda site=site: settled(site), f"the end of the attempt on {site.name}")  # type: ignore[misc]


@pytest.fixture(scope="module")
def fleet(hosts: Network, folder: Path) -> Iterator[Fleet]:
    private, public = key_pair()
    project = Project(folder / "fleet")
    sites = {
        name: Site(
            name=name, network=hosts, project=project, private_key=private,
            machine=hosts.boot(f"fleet-{name}", flavour="bare", authorized_key=public.strip(), say=print),
        )
        for name in NAMES
    }  # fmt: skip
    first = sites["web-1"]
    listed = [site.config()["decant:hosts"][0] for site in sites.values()]
    ran = project.run(hosts, first.config(hosts=listed, env=ENV, secrets=SECRETS))
    assert ran.status == 0, ran.error + ran.log
    assert [m["name"] for m in ran.outputs["machines"]] == list(NAMES)
    releases: list[str] = []
    for word in ("one", "two"):
        shutil.rmtree(folder / word, ignore_errors=True)
        # With a release command, so that there is a call to be killed at.
        files = {"static/name.txt": word, "Procfile": "web: gunicorn wsgi:app\nrelease: true\n"}
        app = first.variant(folder / word, files)
        staged = {site.stage(app).release for site in sites.values()}
        assert len(staged) == 1, "one release has the same id everywhere"
        releases += staged
    made = Fleet(sites=sites, releases=releases)
    made.roll_out(releases[0])
    yield made
    for site in sites.values():
        site.machine.power_off()


@contextlib.contextmanager
def visitors(sites: Sequence[Site]) -> Iterator[None]:
    """People at all these machines, none of whom may notice anything."""
    with contextlib.ExitStack() as stack:
        people = [stack.enter_context(Visitors(site.address)) for site in sites]
        yield
        for group in people:
            group.more(10)
    for group in people:
        assert group.failures == []


@pytest.mark.parametrize(
    ("name", "command", "when"),
    [
        ("web-3", "switch", "after"),
        ("web-2", "confirm", "before"),
        *(pytest.param(*point, marks=THOROUGH) for point in MORE),
    ],
)
def test_a_killed_coordinator_leaves_no_mixture(fleet: Fleet, name: str, command: str, when: str) -> None:
    (before,), wanted = fleet.live, fleet.other
    with visitors(list(fleet.sites.values())):
        status, _ = fleet.interrupted(wanted, name, command, when, KILL)
        assert status == -9
        fleet.settle()
        if command == "confirm":
            # The window that no protocol closes: what one machine keeps, another cannot take back.
            assert fleet.live <= {before, wanted}
        else:
            assert fleet.live == {before}
        fleet.roll_out(wanted)


@THOROUGH
def test_a_fleet_that_was_left_mixed_is_reported_and_healed(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    (before,), wanted = fleet.live, fleet.other
    with visitors(list(fleet.sites.values())):
        fleet.sites["web-2"].roll_out(wanted)
        assert fleet.live == {before, wanted}
        fleet.roll_out(wanted)
    printed = capsys.readouterr().err
    assert f"the machines differ (web-1 {before}, web-2 {wanted}, web-3 {before}); this one settles it" in printed


def cut(site: Site, state: str) -> str:
    """A shell line for this computer's end of the machine's network cable."""
    return f"ip link set vb-decant-{site.address.rpartition('.')[2]} {state}"


def releases_within(site: Site, seconds: float) -> set[str]:
    """All releases that a machine serves from now on for this time. While its cable is down it serves none."""
    found, deadline = set(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        found.add(probe(f"http://{site.address}/healthz", timeout=1).release)
        time.sleep(0.05)
    return found - {""}


@contextlib.contextmanager
def quick_echo(site: Site) -> Iterator[None]:
    """While the block runs, the machine's ECHO_TIMEOUT is below the REPLY_TIMEOUT of a "quick" coordinator.

    With the real times, TCP tries again so late that the lease has mostly lapsed by then; with these, the request
    arrives while the lease is still held, and only its age is against it.
    """
    file = "/opt/decant/python/decant_host/protocol.py"
    site.machine.run(f"grep -q '^ECHO_TIMEOUT = {ECHO_TIMEOUT}$' {file}")
    site.machine.run(f"cp -p {file} /run/protocol.py && sed -i 's/^ECHO_TIMEOUT = .*/ECHO_TIMEOUT = 1.0/' {file}")
    try:
        yield
    finally:
        site.machine.run(f"mv /run/protocol.py {file}")


@pytest.mark.parametrize(("name", "command"), [("web-2", "switch"), pytest.param("web-2", "prepare", marks=THOROUGH)])
def test_a_machine_that_is_cut_off_takes_the_release_back_everywhere(fleet: Fleet, name: str, command: str) -> None:
    """TCP delivers the request once the cable is back, seconds after the coordinator has given the machine up."""
    (before,), wanted = fleet.live, fleet.other
    lost = fleet.sites[name]
    with visitors([site for site in fleet.sites.values() if site is not lost]):
        with quick_echo(lost):
            status, printed = fleet.interrupted(wanted, name, command, "before", cut(lost, "down"), "quick")
            assert status == 1
            assert f"{lost.access}, during {command}: no sign of life any more" in printed
            assert {site.live for site in fleet.sites.values() if site is not lost} == {before}
            subprocess.run(["sh", "-c", cut(lost, "up")], check=True)
            assert releases_within(lost, 20) == {before}, "the machine obeyed a request that came too late"
            fleet.settle()
            assert fleet.live == {before}
        fleet.roll_out(wanted)


# Before the request is too old, when the machine refuses it, and about when the coordinator gives up.
@THOROUGH
@pytest.mark.parametrize("seconds", [3, 7, 9, 11])
@pytest.mark.parametrize("command", ["prepare", "migrate", "switch"])
def test_a_cable_that_comes_back_during_the_attempt_leaves_one_release(
    fleet: Fleet, command: str, seconds: int
) -> None:
    (before,), wanted = fleet.live, fleet.other
    lost = fleet.sites["web-1"]
    back = f"{cut(lost, 'down')}; (sleep {seconds}; {cut(lost, 'up')}) >/dev/null 2>&1 &"
    with visitors([site for site in fleet.sites.values() if site is not lost]):
        status, _ = fleet.interrupted(wanted, "web-1", command, "before", back, "real")
        served = wanted if status == 0 else before
        subprocess.run(["sh", "-c", cut(lost, "up")], check=True)
        assert releases_within(lost, 20) == {served}
        fleet.settle()
        assert fleet.live == {served}
        fleet.roll_out(wanted)


@THOROUGH
def test_a_machine_that_is_cut_off_while_it_confirms_is_healed_by_the_next_attempt(fleet: Fleet) -> None:
    (before,), wanted = fleet.live, fleet.other
    lost = fleet.sites["web-3"]
    with visitors([site for site in fleet.sites.values() if site is not lost]):
        with quick_echo(lost):
            status, printed = fleet.interrupted(wanted, "web-3", "confirm", "before", cut(lost, "down"), "quick")
            assert status == 1
            assert "is live, but not confirmed everywhere" in printed
            assert "Run pulumi up again to settle it." in printed
            subprocess.run(["sh", "-c", cut(lost, "up")], check=True)
            fleet.settle()
            assert (lost.live, fleet.sites["web-1"].live) == (before, wanted)
        fleet.roll_out(wanted)


@contextlib.contextmanager
def small_disk(site: Site) -> Iterator[tuple[str, str]]:
    """The machine's releases on a disk of their own; shell lines that fill it to the last inode and free it again."""
    state = "/var/lib/decant"
    site.machine.run(
        f"mount -t tmpfs -o mode=0755,size=400m,nr_inodes=30000 none /mnt && cp -a {state}/. /mnt"
        f" && mount --bind /mnt {state} && umount /mnt"
    )
    inside = f"nsenter --target {site.machine.pid} --all"
    # Names alone take an inode each.
    fill = f"{inside} sh -c 'mkdir {state}/full && cd {state}/full && seq 1 40000 | xargs touch 2>/dev/null || true'"
    try:
        yield fill, f"{inside} rm -rf {state}/full"
    finally:
        site.machine.run(
            f"rm -rf {state}/full; mkdir -p /mnt && mount --bind {state} /mnt && umount {state}"
            f" && cp -a /mnt/. {state} && umount /mnt"
        )


@pytest.mark.parametrize("command", ["switch", "confirm"])
def test_a_disk_that_fills_up_in_the_middle(fleet: Fleet, command: str) -> None:
    (before,), wanted = fleet.live, fleet.other
    with small_disk(fleet.sites["web-2"]) as (fill, free), visitors(list(fleet.sites.values())):
        status, printed = fleet.interrupted(wanted, "web-2", command, "before", fill)
        if command == "switch":
            assert status == 1
            assert "the disk is full" in printed
            assert fleet.live == {before}
        else:
            assert status == 0, printed
            assert fleet.live == {wanted}, "what a confirm needs was made ready by the switch"
        subprocess.run(["sh", "-c", free], check=True)
        fleet.settle()
        fleet.roll_out(wanted)


@THOROUGH
def test_a_dead_machine_stops_a_release_before_it_begins(fleet: Fleet) -> None:
    (before,), wanted = fleet.live, fleet.other
    lost = fleet.sites["web-3"]
    with visitors([fleet.sites["web-1"], fleet.sites["web-2"]]):
        lost.machine.power_off()
        with pytest.raises(errors.RolloutError, match="Nothing was switched"):
            Attempt(Plan.from_dict(wanted, fleet.plan(wanted))).run()
        lost.machine.boot_again()
        lost.machine.wait_running()
        fleet.settle()
        assert fleet.live == {before}
        fleet.roll_out(wanted)
