"""The machines that the tests in this folder share: made when the first test asks for one, gone after the last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal.doubles import key_pair
from rehearsal.machines.image import missing_needs
from rehearsal.machines.network import Network
from rehearsal.machines.reaper import owned_network
from tests.support.project_copy import Project
from tests.support.site import ENV, SECRETS, Site
from tests.support.watching import command_lines

MISSING = missing_needs()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all tests of this folder where the computer cannot run throwaway machines."""
    reason = "needs " + ", ".join(f"{need.what} ({need.command})" for need in MISSING)
    for item in items:
        if MISSING and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def hosts() -> Iterator[Network]:
    """The network of the machines; each process of `pytest -n` has its own."""
    with owned_network("-".join(["hosts", *filter(None, [os.environ.get("PYTEST_XDIST_WORKER")])])) as network:
        yield network


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for copies of the project."""
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="session")
def site(hosts: Network, folder: Path) -> Site:
    """A bare Debian host that the program has put the app on, with app_probe.py in front of the app."""
    private, public = key_pair()
    project = Project(folder / "site")
    project.add_probe()
    machine = hosts.boot("site", flavour="bare", authorized_key=public.strip(), say=print)
    site = Site(machine=machine, network=hosts, project=project, private_key=private)
    with command_lines() as site.command_lines:
        site.first = site.up(env=ENV, secrets=SECRETS)
    assert site.first.status == 0, site.first.error + site.first.log
    # The second run comes at once, while its app is live; a test that wanted it later would need one run more.
    before = {**site.on_disk(), **site.processes()}
    again = site.up(env=ENV, secrets=SECRETS)
    after = {**site.on_disk(), **site.processes()}
    site.again = again, sorted(what for what in before | after if before.get(what) != after.get(what))
    return site
