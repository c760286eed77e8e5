"""Hosts with something amiss: refused by name before anything changes, or served in spite of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from decant.errors import MachineError, RolloutError
from decant.ssh.client import Access
from decant.ssh.ready import wait_ready
from tests.support.site import Site
from tests.support.waiting import PATIENCE, wait_for


@pytest.fixture(autouse=True)
def nothing_else_runs(site: Site) -> Iterator[None]:
    """Stop what a test here has staged: the tests of other files find the live release alone."""
    yield
    for release in set(site.status()["running"]) - {site.live}:
        site.machine.run(["systemctl", "stop", f"app@{release}"])


# ------------------------------------------------------------------------------------------------ before anything


@pytest.fixture(scope="module")
def deployer(site: Site) -> Access:
    """A user of the machine who may use sudo without a password."""
    site.machine.run("useradd --create-home --shell /bin/bash clara && cp -r /root/.ssh ~clara/")
    site.machine.run("chown -R clara: ~clara")
    site.machine.run("echo 'clara ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/clara")
    return replace(site.access, user="clara")


def refusal(access: Access) -> str:
    with pytest.raises(MachineError) as caught:
        wait_ready(access, timeout=PATIENCE, log=print)
    return str(caught.value)


@contextlib.contextmanager
def changed(site: Site, change: str, back: str) -> Iterator[None]:
    site.machine.run(change)
    try:
        yield
    finally:
        site.machine.run(back)


def test_a_sound_host_is_ready(deployer: Access, site: Site) -> None:
    wait_ready(deployer, timeout=PATIENCE, log=print)
    wait_ready(site.access, timeout=PATIENCE, log=print)


def test_sudo_that_wants_a_terminal_is_named(deployer: Access, site: Site) -> None:
    file = "/etc/sudoers.d/00-terminal"
    with changed(site, f"echo 'Defaults requiretty' >{file}", f"rm {file}"):
        said = refusal(deployer)
        assert "sudo wants a terminal (requiretty), and there is none" in said
        (remedy,) = [line.partition(", as root: ")[2] for line in said.splitlines() if ", as root: " in line]
        site.machine.run(remedy)
        wait_ready(deployer, timeout=PATIENCE, log=print)
    site.machine.run("rm /etc/sudoers.d/clara-no-terminal")


def test_a_host_without_sudo_is_told_so(deployer: Access, site: Site) -> None:
    with changed(site, "mv /usr/bin/sudo /usr/bin/sudo.away", "mv /usr/bin/sudo.away /usr/bin/sudo"):
        assert "user clara is not root, and there is no sudo" in refusal(deployer)


def test_a_read_only_disk_is_named(deployer: Access, site: Site) -> None:
    with changed(site, "mount --bind /opt /opt && mount -o remount,bind,ro /opt", "umount /opt"):
        for access in (deployer, site.access):
            said = refusal(access)
            assert "/opt is read-only. Linux does that to a disk after an error" in said


def test_a_full_home_is_named(deployer: Access, site: Site) -> None:
    small = "mount -t tmpfs -o size=2m,mode=755,uid=clara none ~clara && cp -a /root/clara/.ssh ~clara/"
    with changed(site, f"cp -a ~clara /root/clara && {small}", "umount ~clara && rm -r /root/clara"):
        assert "kB are free in the home of user clara, 4096 kB are needed" in refusal(deployer)


def test_a_wrong_clock_is_named(deployer: Access, site: Site) -> None:
    file = "/usr/local/bin/date"  # a throwaway machine has the clock of this computer
    with changed(site, f"printf '#!/bin/sh\\necho 1000000000\\n' >{file} && chmod +x {file}", f"rm {file}"):
        assert "its clock says 2001-09-09 01:46:40 UTC, and this computer's says 20" in refusal(deployer)


# ------------------------------------------------------------------------------------------------ little memory


def scores(site: Site, release: str) -> set[str]:
    """The oom_score_adj of a release's processes."""
    code = f"for p in $(grep -l app@{release} /proc/[0-9]*/cgroup); do cat ${{p%/cgroup}}/oom_score_adj; done"
    return set(site.machine.run(code).stdout.split())


def test_the_kernel_ends_what_has_no_visitors_first(site: Site, tmp_path: Path) -> None:
    before = site.live
    assert scores(site, before) == {"0"}
    staged = site.stage(site.variant(tmp_path / "app", {"more.txt": "oom"}))
    assert staged.status == 0, staged.error
    assert (scores(site, before), scores(site, staged.release)) == ({"0"}, {"300"})
    site.roll_out(staged.release)
    assert scores(site, staged.release) == {"0"}
    site.machine.run(f"systemctl restart app@{staged.release}")
    assert scores(site, staged.release) == {"0"}, "what is confirmed is spared after a restart, too"


def test_little_memory_is_warned_of(site: Site, tmp_path: Path) -> None:
    info = "sed 's/^MemTotal:.*/MemTotal: 480000 kB/; s/^SwapTotal:.*/SwapTotal: 0 kB/' /proc/meminfo >/run/meminfo"
    with changed(site, f"{info} && mount --bind /run/meminfo /proc/meminfo", "umount /proc/meminfo"):
        staged = site.stage(site.variant(tmp_path / "app", {"more.txt": "memory"}))
    assert staged.status == 0, staged.error
    assert "warning: this machine has 468 MB of memory and no swap." in staged.error


def test_a_large_app_is_staged_in_little_memory(site: Site, tmp_path: Path) -> None:
    app = site.variant(tmp_path / "app", {})
    with (app / "film.mp4").open("wb") as film:
        film.truncate(150 << 20)
    measure = "/usr/bin/env python3 -c 'import resource,subprocess,sys; status=subprocess.call(sys.argv[1:])"
    measure += "; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(status)'"
    staged = site.stage(app, within=measure)
    assert staged.status == 0, staged.error
    assert int(staged.error.split()[-1]) < 100_000, "kB of the largest process: the tar has 150 MB"


# ------------------------------------------------------------------------------------------------ confinement


def test_a_profile_that_keeps_nginx_from_the_app_is_named(site: Site, tmp_path: Path) -> None:
    """Stand-ins: nginx may not enter the folders of the sockets, and the kernel names a profile of AppArmor's."""
    staged = site.stage(site.variant(tmp_path / "app", {"more.txt": "confined"}))
    assert staged.status == 0, staged.error
    label = site.machine.run(
        "echo /proc/$(systemctl show nginx --property=MainPID --value)/attr/current"
    ).stdout.strip()
    sockets = f"/run/decant/{site.live}/socket /run/decant/{staged.release}/socket"
    confined = f"chmod 0700 {sockets} && echo 'nginx (enforce)' >/run/label && mount --bind /run/label {label}"
    with (
        changed(site, confined, f"umount {label}; chmod -f 0750 {sockets} || true"),
        pytest.raises(RolloutError, match=r"status 502.* through nginx at /healthz") as caught,
    ):
        site.roll_out(staged.release)
    assert "AppArmor's profile nginx confines nginx" in str(caught.value)
    assert "aa-complain nginx" in str(caught.value)
    assert site.ask("/").status == 200


# ------------------------------------------------------------------------------------------------ two at once


def test_a_second_stage_waits_and_says_for_whom(site: Site, tmp_path: Path) -> None:
    slow = "import time\ntime.sleep(4)\n" + (site.project.app / "wsgi.py").read_text()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(site.stage, site.variant(tmp_path / "one", {"wsgi.py": slow}), health_timeout=60)
        free = "flock --nonblock /run/decant/staging.lock true"
        wait_for(lambda: site.machine.run(free, check=False).returncode, "the first stage")
        second = site.stage(site.variant(tmp_path / "two", {"more.txt": "second"}))
    assert (first.result().status, second.status) == (0, 0), first.result().error + second.error
    assert f"release {first.result().release} is being staged here since" in second.error
