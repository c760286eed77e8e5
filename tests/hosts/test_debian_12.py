"""A server with Debian 12: it is served as one with Debian 13, and left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decant.app.model import AppOptions
from decant.host.steps import remove_step
from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from tests.hosts.test_existing_host import differences, take_snapshot
from tests.support.project_copy import Project
from tests.support.site import ENV, SECRETS, Site


@pytest.fixture(scope="module")
def old(hosts: Network, folder: Path) -> Iterator[Site]:
    """A bare host with Debian 12, before Decant has touched it."""
    private, public = key_pair()
    project = Project(folder / "old")
    project.add_probe()
    machine = hosts.boot("old", flavour="bookworm", authorized_key=public.strip(), say=print)
    machine.wait_running()
    yield Site(machine=machine, network=hosts, project=project, private_key=private)
    machine.power_off()


def test_debian_12_is_served_hardened_and_left_as_it_was(old: Site, tmp_path: Path) -> None:
    assert old.machine.run("cut -d. -f1 /etc/debian_version").stdout == "12\n"
    before = take_snapshot(old)
    settings: dict[str, Any] = {
        "env": ENV,
        "secrets": SECRETS,
        "python": "3.11",
    }  # Debian 12's own, which needs no download
    first = old.up(**settings)
    assert first.status == 0, first.error + first.log
    assert old.live == first.release
    assert old.inside("import sys; print(sys.version.split()[0])") == "3.11.2\n"
    again = old.up(**settings)
    assert (again.status, again.release) == (0, first.release), again.error + again.log

    read = AppOptions(python="3.11")
    code = (old.project.app / "wsgi.py").read_text()
    broken = old.stage(old.variant(tmp_path / "broken", {"wsgi.py": f"{code}\nimport nothing_like_it\n"}), options=read)
    assert broken.status == 1
    assert "the module nothing_like_it is not there. Add nothing_like_it to requirements.txt" in broken.error
    assert "ModuleNotFoundError: No module named 'nothing_like_it'" in broken.error
    changed = old.release(old.variant(tmp_path / "changed", {"more.txt": "more"}), options=read)
    assert old.live == changed != first.release
    hardened = old.up(**settings, harden=True)
    assert hardened.status == 0, hardened.error + hardened.log
    assert "permitrootlogin without-password" in old.machine.run("/usr/sbin/sshd -T").stdout
    old.machine.run("systemctl is-active decant-firewall")

    old.machine.run(remove_step(old.name))
    assert differences(before, take_snapshot(old)) == ""
