"""A release on three machines that is cut short: all of them serve the old one, or the next attempt settles it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from decant import errors
from decant.rollout import Attempt, Plan
from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from tests.support.project_copy import Project
from tests.support.site import ENV, SECRETS, Site, settled
from tests.support.visitors import Visitors
from tests.support.waiting import PATIENCE, wait_for

# The real coordinator with shorter trials. When it comes to one call, it first runs a shell line.
COORDINATOR = """
import subprocess, sys
from decant import rollout
rollout.TRIAL, rollout.TRIAL_PER_MACHINE, rollout.REARM_AFTER = 4, 0, 1.0
rollout.BEAT, rollout.SILENCE = 0.3, 2.0
line, when, verb, name = (sys.argv.pop() for _ in range(4))
call = rollout.Target.call

def with_fault(self, did, *words, timeout=60.0):
    here = (self.access.name, did) == (name, verb)
    if here and when == "before":
        subprocess.run(["sh", "-c", line], check=True)
    result = call(self, did, *words, timeout=timeout)
    if here and when == "after":
        subprocess.run(["sh", "-c", line], check=True)
    return result

rollout.Target.call = with_fault
sys.exit(rollout.main())
"""
KILL = "kill -9 $PPID"
NAMES = ("web-1", "web-2", "web-3")
# A few points by default; all of them with `pytest -m thorough`, which takes minutes more.
THOROUGH = pytest.mark.thorough
MORE = [
    (name, verb, when)
    for verb in ("ensure", "migrate", "switch", "confirm")
    for name in (NAMES if verb != "migrate" else NAMES[:1])
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

    def plan(self, release: str) -> dict[str, object]:
        machines = [site.plan(release)["machines"][0] for site in self.sites.values()]
        return self.sites["web-1"].plan(release, machines=machines)

    def roll_out(self, release: str) -> None:
        assert Attempt(Plan.read(release, self.plan(release))).run()["release"] == release
        assert self.live == {release}

    def interrupted(self, release: str, name: str, verb: str, when: str, line: str) -> tuple[int, str]:
        """An attempt with a fault; its exit status and what it said."""
        coordinator = subprocess.run(
            [sys.executable, "-c", COORDINATOR, release, name, verb, when, line],
            cwd=self.sites["web-1"].project.folder / "infra", input=json.dumps(self.plan(release)),
            capture_output=True, text=True, timeout=PATIENCE * 3, check=False,
        )  # fmt: skip
        assert "Traceback" not in coordinator.stderr, coordinator.stderr
        return coordinator.returncode, coordinator.stderr

    def settle(self) -> None:
        for site in self.sites.values():
            wait_for(lambda site=site: settled(site), f"the end of the trial on {site.name}")  # type: ignore[misc]


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
    releases = []
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
    ("name", "verb", "when"),
    [
        ("web-3", "switch", "after"),
        ("web-2", "confirm", "before"),
        *(pytest.param(*point, marks=THOROUGH) for point in MORE),
    ],
)
def test_a_killed_coordinator_leaves_no_mixture(fleet: Fleet, name: str, verb: str, when: str) -> None:
    (before,), wanted = fleet.live, fleet.other
    with visitors(list(fleet.sites.values())):
        status, _ = fleet.interrupted(wanted, name, verb, when, KILL)
        assert status == -9
        fleet.settle()
        if verb == "confirm":
            # The window that no protocol closes: what one machine keeps, another cannot take back.
            assert fleet.live <= {before, wanted}
        else:
            assert fleet.live == {before}
        fleet.roll_out(wanted)


@THOROUGH
def test_a_fleet_that_was_left_mixed_is_told_and_healed(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    (before,), wanted = fleet.live, fleet.other
    with visitors(list(fleet.sites.values())):
        fleet.sites["web-2"].roll_out(wanted)
        assert fleet.live == {before, wanted}
        fleet.roll_out(wanted)
    said = capsys.readouterr().err
    assert f"the machines differ (web-1 {before}, web-2 {wanted}, web-3 {before}); this one settles it" in said


def cut(site: Site, state: str) -> str:
    """A shell line for this computer's end of the machine's network cable."""
    return f"ip link set vb-decant-{site.address.rpartition('.')[2]} {state}"


@pytest.mark.parametrize(("name", "verb"), [("web-2", "switch"), pytest.param("web-2", "ensure", marks=THOROUGH)])
def test_a_machine_that_is_cut_off_takes_the_release_back_everywhere(fleet: Fleet, name: str, verb: str) -> None:
    (before,), wanted = fleet.live, fleet.other
    lost = fleet.sites[name]
    with visitors([site for site in fleet.sites.values() if site is not lost]):
        status, said = fleet.interrupted(wanted, name, verb, "before", cut(lost, "down"))
        assert status == 1
        assert f"{lost.access}, during {verb}: no sign of life any more" in said
        assert {site.live for site in fleet.sites.values() if site is not lost} == {before}
        subprocess.run(["sh", "-c", cut(lost, "up")], check=True)
        fleet.settle()
        assert fleet.live == {before}
        fleet.roll_out(wanted)


@THOROUGH
def test_a_machine_that_is_cut_off_while_it_confirms_is_healed_by_the_next_attempt(fleet: Fleet) -> None:
    (before,), wanted = fleet.live, fleet.other
    lost = fleet.sites["web-3"]
    with visitors([site for site in fleet.sites.values() if site is not lost]):
        status, said = fleet.interrupted(wanted, "web-3", "confirm", "before", cut(lost, "down"))
        assert status == 1
        assert "is live, but not confirmed everywhere" in said
        assert "Run pulumi up again to settle it." in said
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


@pytest.mark.parametrize("verb", ["switch", "confirm"])
def test_a_disk_that_fills_up_in_the_middle(fleet: Fleet, verb: str) -> None:
    (before,), wanted = fleet.live, fleet.other
    with small_disk(fleet.sites["web-2"]) as (fill, free), visitors(list(fleet.sites.values())):
        status, said = fleet.interrupted(wanted, "web-2", verb, "before", fill)
        if verb == "switch":
            assert status == 1
            assert "the disk is full" in said
            assert fleet.live == {before}
        else:
            assert status == 0, said
            assert fleet.live == {wanted}, "what a confirm needs was made ready while the release was on trial"
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
            Attempt(Plan.read(wanted, fleet.plan(wanted))).run()
        lost.machine.boot_again()
        lost.machine.wait_running()
        fleet.settle()
        assert fleet.live == {before}
        fleet.roll_out(wanted)
