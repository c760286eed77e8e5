"""Putting releases live one after another, as a user's days go: nothing changed, a change, another setting, back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from decant.errors import RolloutError
from decant.host import steps
from tests.support.site import CANARY, ENV, GREETING, SECRETS, Site
from tests.support.visitors import Visitors


@pytest.fixture
def app(site: Site, tmp_path: Path) -> Iterator[Path]:
    """The app folder that the program serves, as it was again after the test."""
    kept = shutil.copytree(site.project.app, tmp_path / "kept")
    yield site.project.app
    shutil.rmtree(site.project.app)
    shutil.copytree(kept, site.project.app)


def test_a_run_without_a_change_changes_nothing(site: Site) -> None:
    run, changed = site.again
    assert run.release == site.first.release
    assert run.outputs["receipt"]["failed"] == 0
    assert "switch" not in run.outputs["receipt"]["seconds"]
    # Tars are copied again, as the program is run without a memory of its last run: Pulumi would not.
    copied = ("/var/lib/decant/incoming/", "/root/.decant/")
    assert [what for what in changed if not what.startswith(copied)] == []


def test_a_changed_app_is_served_and_nobody_notices_the_change(site: Site, app: Path, tmp_path: Path) -> None:
    old, styles = site.live, site.ask("/static/style.css")
    visits = site.ask("/request").json()["visits"]
    icon = site.ask("/static/icon.svg").body
    with Visitors(site.address) as visitors:
        page, style = app / "hello/templates/index.html", app / "static/style.css"
        page.write_text(page.read_text().replace("It is live.", "It is changed."))
        style.write_text(style.read_text().replace("a", "b", 1))
        (app / "static/icon.svg").unlink()
        run = site.up(env=ENV, secrets=SECRETS)
        releases = [old, run.release]
        assert b"It is changed." in site.ask("/").body
        changed = site.ask("/static/style.css", headers={"If-None-Match": styles.headers["ETag"]})
        assert (changed.status, len(changed.body)) == (200, len(styles.body)), "another file of the same size"
        assert changed.headers["ETag"] != styles.headers["ETag"]
        assert site.ask("/static/icon.svg").body == icon, "pages of the old release may still ask for it"
        for number in (2, 3):
            files = {"hello/templates/index.html": f"release number {number}"}
            releases.append(site.release(site.variant(tmp_path / str(number), files)))
            assert site.ask("/").body == f"release number {number}".encode()
        visitors.more()
    assert visitors.failures == []
    assert set(visitors.releases) == set(releases)
    assert visitors.releases[-1] == releases[-1]
    assert len(set(releases)) == 4
    assert site.ask("/request").json()["visits"] > visits, "what the app keeps in $DATA_DIR stays"
    receipt = run.outputs["receipt"]
    assert (receipt["from"], receipt["to"], receipt["failed"]) == (old, run.release, 0)
    assert receipt["requests"] > 0


def test_another_value_is_another_release_and_going_back_restores_the_first(site: Site) -> None:
    code = "import json, os; print(json.dumps([os.environ[n] for n in ('GREETING', 'API_TOKEN')]))"
    old = site.live
    assert json.loads(site.inside(code)) == [GREETING, CANARY]
    other = site.up(env={"GREETING": "other"}, secrets=SECRETS)
    assert other.release == site.live != old
    assert json.loads(site.inside(code)) == ["other", CANARY]

    back = site.up(env={"GREETING": "third"}, release=old)
    assert back.release == site.live == old
    assert json.loads(site.inside(code)) == [GREETING, CANARY]


def test_a_release_that_is_not_there_is_refused_with_those_that_are(site: Site) -> None:
    """By the step that the program uses when `decant:release` is set."""
    live, there = site.live, site.status()["releases"]
    done = site.machine.run(steps.stage_step("0123456789ab"), input=steps.reuse_staged_input(), check=False)
    assert done.returncode == 1
    assert f"release 0123456789ab is not on this machine; here are: {', '.join(there)}" in done.stderr
    assert "pulumi config rm decant:release" in done.stderr
    assert site.live == live


def tars(site: Site) -> set[str]:
    """Those that are on the machine."""
    return set(site.machine.run("ls /var/lib/decant/incoming").stdout.split())


def tars_of_releases(site: Site) -> set[str]:
    """Those that the releases on the machine were unpacked from."""
    files = site.machine.run("for f in /var/lib/decant/releases/*/release.json; do cat $f; echo; done").stdout
    return {json.loads(line)["tar"] for line in files.splitlines()}


def test_code_alone_installs_nothing_and_five_releases_are_kept(site: Site, tmp_path: Path) -> None:
    live, new = site.live, []
    sent = tars(site) - tars_of_releases(site)  # for releases that other tests have not staged; these stay for a while
    with site.offline():  # what would be installed could not be had
        for number in range(6):
            app = site.variant(tmp_path / str(number), {"static/number.txt": str(number)})
            staged = site.stage(app)
            assert (staged.status, staged.installed) == (0, False), staged.error
            new.append(staged.release)
        site.roll_out(new[-1])
    status = site.status()
    assert status["releases"] == [*new[:0:-1], live], "and the one that was live before"
    assert status["running"] == [new[-1]]
    assert site.ask("/static/number.txt").body == b"5"
    assert len(site.machine.run("ls /var/lib/decant/venvs").stdout.split()) == 1
    assert len(tars_of_releases(site)) == 6
    assert tars(site) - sent == tars_of_releases(site)
    with pytest.raises(RolloutError, match=f"{new[0]} is not on this machine; here are: {new[5]}, {new[4]}"):
        site.roll_out(new[0])
    site.roll_out(new[1])
    assert site.ask("/static/number.txt").body == b"1"


def test_a_second_rollout_is_told_who_is_at_it(site: Site, tmp_path: Path) -> None:
    live = site.live
    staged = site.stage(site.variant(tmp_path, {"static/second.txt": ""}))
    with site.held("ann@laptop"):
        with pytest.raises(RolloutError, match=r"ann@laptop is rolling out a release here since \d\d:\d\d:\d\d"):
            site.roll_out(staged.release)
        lease = site.status()["lease"]
    assert lease["owner"] == "ann@laptop"
    assert site.live == live
    site.roll_out(staged.release)
    assert site.live == staged.release
