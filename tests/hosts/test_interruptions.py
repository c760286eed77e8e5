"""A release that is interrupted, at any point and by anything: the old one is served, or the new one is confirmed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from decant.errors import RolloutError
from decant.host import steps
from decant.rollout.plan import PlanData
from tests.support.project_copy import REPOSITORY
from tests.support.site import GREETING, Site, settled
from tests.support.visitors import Visitors
from tests.support.waiting import PATIENCE, wait_for

# The real coordinator, but its machines wait 3 s for its confirm, where they usually wait 35.
COORDINATOR = """
import sys
from decant.rollout.__main__ import main
from decant_host import protocol

protocol.CONFIRM_TIMEOUT, protocol.CONFIRM_TIMEOUT_PER_MACHINE = 3, 0
sys.exit(main())
"""


@pytest.fixture(scope="module")
def pair(site: Site, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two releases on the machine, the first one live."""
    folder = tmp_path_factory.mktemp("pair")
    apps = [site.variant(folder / name, {"static/name.txt": name}) for name in ("one", "two")]
    staged = [site.stage(app).release for app in reversed(apps)]
    site.roll_out(staged[1])
    return staged[::-1]


@pytest.fixture
def other(site: Site, pair: list[str]) -> str:
    """The one of the two that is not live."""
    (found,) = set(pair) - {site.live}
    return found


@pytest.fixture
def visitors(site: Site) -> Iterator[Visitors]:
    with Visitors(site.address) as visitors:
        yield visitors
        visitors.more()
    assert visitors.failures == []


def begun(plan: PlanData, release: str, word: str) -> subprocess.Popen[str]:
    """A coordinator that has come to this step."""
    coordinator = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, release], cwd=REPOSITORY / "infra",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert coordinator.stdin is not None
    assert coordinator.stderr is not None
    coordinator.stdin.write(json.dumps(plan))
    coordinator.stdin.close()
    said: list[str] = []
    while not (line := coordinator.stderr.readline()).startswith(word):
        assert line, said
        said.append(line)
    return coordinator


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("make sure it is staged", signal.SIGKILL),
        ("switch", signal.SIGKILL),
        ("ask the public URL", signal.SIGKILL),
        ("confirm", signal.SIGKILL),
        ("ask the public URL", signal.SIGINT),
    ],
)
def test_a_coordinator_that_ends_in_the_middle_does_no_harm(
    site: Site, other: str, visitors: Visitors, word: str, number: signal.Signals
) -> None:
    live = site.live
    # Nobody listens there: the coordinator asks until its time is up, which is when the test has ended it.
    plan = site.plan(other, url=f"http://{site.address}:81") if word == "ask the public URL" else site.plan(other)
    coordinator = begun(plan, other, word)
    coordinator.send_signal(number)
    rest = coordinator.stderr.read() if coordinator.stderr else ""
    status = coordinator.wait(PATIENCE)

    wait_for(lambda: settled(site), "the end of the trial")
    assert site.live == live or (word == "confirm" and site.live == other)
    if number != signal.SIGKILL:
        assert status == 130
        assert "what was served before is served still" in rest
        assert site.status()["reverted"]["because"] == "the attempt failed", "at once, not by the timer"
    elif word == "ask the public URL":
        reverted = site.status()["reverted"]
        assert (reverted["from"], reverted["to"], reverted["because"]) == (other, live, "no confirm came")
    assert site.roll_out(other)["release"] == other, "the next run converges"
    assert site.live == other
    assert settled(site) or wait_for(lambda: settled(site), "the end of the old release")


def test_a_coordinator_that_dies_during_the_release_command(site: Site, visitors: Visitors, tmp_path: Path) -> None:
    """The command runs to its end: the next attempt waits for it, and another release's does not run beside it."""
    data = "/var/lib/decant/data"
    commands = {"slow": "while [ -e $DATA_DIR/wait ]; do sleep 0.1; done", "quick": "true"}
    slow, quick = (
        site.stage(
            site.variant(
                tmp_path / name, {"Procfile": f"web: gunicorn wsgi:app\nrelease: echo x >>$DATA_DIR/ran; {what}\n"}
            )
        ).release
        for name, what in commands.items()
    )
    live = site.live

    def waiting() -> set[str]:
        return set(site.machine.run(f"pgrep -f '[s]ystemctl start release@{slow}'", check=False).stdout.split())

    site.machine.run(f"touch {data}/wait")
    coordinator = begun(site.plan(slow), slow, "release command")
    wait_for(lambda: site.machine.run(f"ls {data}/ran", check=False).stdout, "the command's start")
    coordinator.kill()
    coordinator.wait(PATIENCE)
    with pytest.raises(RolloutError, match=f"the release command of release {slow} still runs here"):
        site.roll_out(quick)
    assert site.live == live
    before = waiting()
    again = begun(site.plan(slow), slow, "release command")
    wait_for(lambda: waiting() - before, "the next attempt to wait for it")
    site.machine.run(f"rm {data}/wait")
    assert again.wait(PATIENCE) == 0
    assert site.live == slow
    assert site.machine.run(f"cat {data}/ran").stdout == "x\n"
    assert site.roll_out(quick)["release"] == site.live == quick
    assert site.roll_out(live)["release"] == site.live == live
    assert site.machine.run(f"cat {data}/ran; rm {data}/ran").stdout == "x\nx\n"


def test_a_coordinator_that_falls_silent_lets_the_machine_go(site: Site, other: str) -> None:
    """Its connection stays open, but nothing comes: the lease lapses (after 15 s, here 1), a switch is refused."""
    live = site.live
    serve = "agent.LEASE_TIMEOUT = 1; agent.serve_requests('0123456789abcdef', 'ann@laptop', print)"
    hold = f'PYTHONPATH=/opt/decant/python python3 -c "from decant_host import agent; {serve}"'
    silence = f"mkfifo /run/silence && (echo '{{\"clock\": 0}}' >&0; {hold}) <>/run/silence"
    first, *_ = site.machine.run(silence, timeout=PATIENCE).stdout.splitlines()
    assert json.loads(first)["held"] is True
    switch = [steps.PROGRAM, "switch", other, "--attempt", "0123456789abcdef", "--deadline", "30"]
    done = site.machine.run(switch, check=False)
    assert done.returncode == 1
    assert "this attempt does not hold the machine any more: the lease lapsed" in done.stderr
    assert site.live == live


def test_an_app_that_fills_run_cannot_keep_a_machine_from_going_back(
    site: Site, other: str, visitors: Visitors
) -> None:
    live = site.live
    folder = f"/run/decant/{other}/socket/filled"
    fill = f"""
import itertools, os, time
os.makedirs("{folder}")
for number in itertools.count():
    try:
        open(f"{folder}/{{number}}", "x").close()
    except OSError:
        open("/dev/shm/full", "w").close()
        time.sleep(0.001)
"""
    try:
        with site.held() as agent:
            agent.prepare(other)
            agent.switch(other, 3)
            assert site.live == other
            # Some of what is free, or filling it would take long.
            site.machine.run("mount -o remount,nr_inodes=$(($(df --output=iused /run | tail -n 1) + 500)) /run")
            site.machine.run(["systemd-run", "--quiet", "--unit=fill", "python3", "-c", fill])
            site.machine.run("while ! [ -e /dev/shm/full ]; do sleep 0.1; done")
        wait_for(lambda: site.live == live, "the end of the trial")
    finally:
        site.machine.run(f"systemctl stop fill; mount -o remount,nr_inodes=800k /run; rm -rf {folder} /dev/shm/full")
    wait_for(lambda: settled(site), "the end of what was on trial")


@pytest.mark.parametrize("again", [True, False], ids=["power-again", "reboot-back"])
def test_a_machine_that_goes_down_on_trial_boots_what_was_confirmed(site: Site, other: str, *, again: bool) -> None:
    live = site.live
    with site.held() as agent:
        agent.prepare(other)
        agent.switch(other, 600)
        assert site.live == other
        if again:
            site.machine.power_off()
        else:
            site.machine.reboot()
    if again:
        site.machine.boot_again()
    assert site.machine.wait_running() == "running"
    wait_for(lambda: answers(site), "an answer")
    assert site.live == live
    assert site.status()["persisted"] == site.status()["current"] == live
    assert site.inside("import os; print(os.environ['GREETING'])") == f"{GREETING}\n"
    wanted = other if again else live
    assert site.roll_out(wanted)["release"] == site.live == wanted
    wait_for(lambda: settled(site), "the end of the old release")


def test_a_reboot_brings_the_site_back(site: Site) -> None:
    live = site.live
    static = site.ask("/static/style.css").body
    site.machine.reboot()
    assert site.machine.wait_running() == "running"
    wait_for(lambda: answers(site), "an answer")
    assert site.live == live
    assert site.ask("/static/style.css").body == static


def answers(site: Site) -> bool:
    try:
        return site.ask("/healthz").status == 200
    except OSError:
        return False
