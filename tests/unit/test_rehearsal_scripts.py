"""The shell scripts of the rehearsal: the balancer's targets, and the supervisor of a throwaway machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import throwaway_root
from tests.support.in_memory import REPOSITORY
from tests.support.throwaway_root import ThrowawayRoot

root, template = throwaway_root.root, throwaway_root.template

# ------------------------------------------------------------------------------------------------ balancer.sh

# Columns 4 and 7 of `show servers state` are the server's name and its administrative state: 0 is ready.
SERVERS = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state\n"
SOCAT = """
read -r question
echo "$question" >>/stub/asked
case $question in
    'show servers state machines') cat /stub/servers ;;
    'add server'*) cat /stub/answer; echo ;;
    *) echo ;;
esac
"""
CHECK = "check inter 1s rise 2 fall 3"


@pytest.fixture
def balancer(root: ThrowawayRoot) -> ThrowawayRoot:
    """A balancer that has the target 10.0.0.1, and 10.0.0.2, which is none any more."""
    root.stand_in("socat", SOCAT)
    root.write("stub/servers", f"{SERVERS}3 machines 1 10.0.0.1 10.0.0.1 2 0\n3 machines 2 10.0.0.2 10.0.0.2 0 1\n")
    root.write("stub/answer", "New server registered.")
    root.write("etc/haproxy/server", f"{CHECK}\n")
    root.write("etc/haproxy/targets", "10.0.0.1\n")
    root.write("root/balancer.sh", (REPOSITORY / "rehearsal" / "balancer.sh").read_text())
    return root


def set_targets(balancer: ThrowawayRoot, *words: str) -> list[str]:
    """What HAProxy is asked to do."""
    balancer.write("stub/asked", "")
    done = balancer.run("sh", "/root/balancer.sh", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return [line for line in balancer.read("stub/asked").splitlines() if not line.startswith("show")]


def joins(address: str) -> list[str]:
    """It is unhealthy until its checks say otherwise: HAProxy takes one that becomes ready for healthy."""
    steps = ("state drain", "health down", "state ready")
    return [f"set server machines/{address} {step}" for step in steps]


def test_a_new_target_gets_no_request_before_its_checks_pass(balancer: ThrowawayRoot) -> None:
    assert set_targets(balancer, "set", "10.0.0.1", "10.0.0.3") == [
        f"add server machines/10.0.0.3 10.0.0.3:80 {CHECK}",
        "enable health machines/10.0.0.3",
        *joins("10.0.0.3"),
    ]
    assert balancer.read("etc/haproxy/targets") == "10.0.0.1\n10.0.0.3\n"


def test_a_target_that_comes_back_is_checked_anew_and_one_that_leaves_gets_no_more(balancer: ThrowawayRoot) -> None:
    maintenance = "set server machines/10.0.0.1 state maint"
    assert set_targets(balancer, "set", "10.0.0.2") == [*joins("10.0.0.2"), maintenance]


def test_the_same_targets_again_change_nothing(balancer: ThrowawayRoot) -> None:
    assert set_targets(balancer, "set", "10.0.0.1") == []
    assert set_targets(balancer, "again") == []


def test_a_command_that_haproxy_refuses_is_an_error(balancer: ThrowawayRoot) -> None:
    balancer.write("stub/answer", "Unknown keyword")
    done = balancer.run("sh", "/root/balancer.sh", "set", "10.0.0.3")
    assert done.returncode == 1
    assert "machines/10.0.0.3 10.0.0.3:80" in done.stderr
    assert "Unknown keyword" in done.stderr


def test_two_changes_of_the_targets_wait_for_each_other(balancer: ThrowawayRoot) -> None:
    lock = "exec 9>/run/haproxy-targets.lock; flock 9; (/usr/bin/sleep 0.5; echo released >>/stub/asked) & exec 9>&-; "
    assert balancer.run("sh", "-c", f"{lock}sh /root/balancer.sh set 10.0.0.1").returncode == 0
    assert balancer.read("stub/asked").splitlines()[0] == "released"


# ------------------------------------------------------------------------------------------------ supervisor.sh

MOUNT = 'echo "mount $*, input $(readlink /proc/self/fd/0)" >>"$CALLS"'
# It reboots once, and then it is powered off with another status.
SETPRIV = """
echo "$*, lock $SYSTEMD_NSPAWN_LOCK, version 2 $SYSTEMD_NSPAWN_UNIFIED_HIERARCHY" >>"$CALLS"
[ -e "$CALLS.again" ] && exit 3
touch "$CALLS.again"
exit 133
"""


def test_a_machine_runs_in_its_control_group_until_it_is_off(tmp_path: Path) -> None:
    machine, group, calls = tmp_path / "machine", tmp_path / "group", tmp_path / "calls"
    for folder in (machine, group, tmp_path / "bin"):
        folder.mkdir()
    (group / "cgroup.controllers").write_text("memory\n")
    for name, text in {"mount": MOUNT, "setpriv": SETPRIV}.items():
        stand_in = tmp_path / "bin" / name
        stand_in.write_text(f"#!/bin/sh\n{text}\n")
        stand_in.chmod(0o755)
    script = REPOSITORY / "rehearsal/machines/supervisor.sh"
    argv = ["sh", *map(str, (script, machine, "image", group)), "systemd-nspawn", "--boot"]
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
    with (tmp_path / "lock").open("w") as lock:
        done = subprocess.run(argv, stdin=lock, env=environment, check=False)
    console = (machine / "console.log").read_text()
    assert (done.returncode, console) == (3, "")
    assert (machine / "ended").exists(), "whoever waits for the start sees that there will be none"
    overlay = f"lowerdir=image,upperdir={machine}/upper,workdir={machine}/work"
    nspawn = "--pdeathsig KILL systemd-nspawn --boot, lock 0, version 2 1"
    assert calls.read_text().splitlines() == [
        f"mount -t overlay -o {overlay} decant-rehearsal {machine}/root, input /dev/null",
        nspawn,
        nspawn,
    ]
    for part in ("supervisor", "machine"):
        assert (group / part / "cgroup.procs").read_text() == "0\n"
    assert (group / "cgroup.subtree_control").read_text() == "+memory\n"
