"""Machines that the tests in this folder share: made when the first test asks for one, gone after the last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal.computer import locked
from rehearsal.doubles import key_pair
from rehearsal.image import missing_needs
from rehearsal.machines import Network
from tests.hosts.harness import ENV, HERE, SECRETS, Project, Site, command_lines

MISSING = missing_needs()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "needs " + ", ".join(f"{need.what} ({need.command})" for need in MISSING)
    for item in items:
        if MISSING and item.path.parent == HERE:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def hosts() -> Iterator[Network]:
    """The network of all machines here; each of several processes that run the tests has its own."""
    name = "-".join(["hosts", *filter(None, [os.environ.get("PYTEST_XDIST_WORKER")])])
    with locked(f"tests-{name}"):  # one run of these tests at a time on this computer
        network = Network(name=name)
        network.down()  # of a run that was killed
        network.up()
        yield network
        network.down()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="session")
def site(hosts: Network, folder: Path) -> Site:
    """A bare Debian host that the program has put the app on, with a probe in front of the app (see probe.py)."""
    private, public = key_pair()
    project = Project(folder / "site")
    shutil.copy(HERE / "probe.py", project.app)
    with (project.app / "wsgi.py").open("a") as code:
        code.write("\nfrom probe import Probe\n\napp.wsgi_app = Probe(app.wsgi_app)\n")
    machine = hosts.boot("site", flavour="bare", authorized_key=public.strip(), say=print)
    site = Site(machine=machine, network=hosts, project=project, private_key=private)
    with command_lines() as site.command_lines:
        site.first = site.up(env=ENV, secrets=SECRETS)
    assert site.first.status == 0, site.first.error + site.first.log
    # At once, while this is what is live: later, bringing it back would take one more run.
    before = {**site.on_disk(), **site.processes()}
    again = site.up(env=ENV, secrets=SECRETS)
    after = {**site.on_disk(), **site.processes()}
    site.again = again, sorted(what for what in before | after if before.get(what) != after.get(what))
    return site
