"""The workflows with the real commands and the real engine: pull requests, deploys, killed deploys, drift.

Each job runs in a fresh clone on a computer of its own, with a GitHub and a DigitalOcean of the tests' own, and
throwaway machines for droplets. Each test goes on where the one before ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rehearsal.machines.network import Network
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.ci_site import PASSPHRASE, CiSite
from tests.support.fake_account import FakeAccount
from tests.support.github_api import GitHubApi
from tests.support.pulumi_stack import Stack, get, missing
from tests.support.workflow_runner import JobResult

TOKEN = "dop_v1_canary_of_the_cloud_0123456789"
SECRET, NEXT_SECRET = "canary-of-the-app-7a90d3c2", "canary-of-the-app-after-11f0"
HUMANIZE = """humanize==4.14.0 \\
    --hash=sha256:d57701248d040ad456092820e6fde56c930f17749956ac47f4f655c0c547bfff
"""


@pytest.fixture(scope="module")
def api(network: Network) -> Iterator[DigitalOceanApi]:
    lacking = missing("digitalocean", "tls")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    api = DigitalOceanApi(FakeAccount(network), TOKEN, used_regions=("fra1",))
    yield api
    api.server.shutdown()


@pytest.fixture(scope="module")
def site(api: DigitalOceanApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CiSite]:
    with GitHubApi() as github:
        site = CiSite(
            folder=tmp_path_factory.mktemp("ci"), github=github, secrets={"DIGITALOCEAN_TOKEN": TOKEN},
            environment={"DIGITALOCEAN_API_URL": api.url, "ADDRESS": "8.8.4.4"},
        )  # fmt: skip
        site.laptop.set({"cloud": "digitalocean", "adminCidrs[0]": "10.0.0.0/8"})
        site.laptop.set_secret("secrets.API_KEY", SECRET)
        site.push_main("First")
        yield site
        site.laptop.environment = {**site.laptop.environment, "DIGITALOCEAN_TOKEN": TOKEN}
        site.laptop.destroy()


def preview(site: CiSite, number: int, *, fails: bool = False) -> str:
    """Run the workflow for a pull request, and return its one comment."""
    jobs = site.run("preview", "pull_request", number=number)
    job = jobs[0]
    assert (job.name, job.result) == ("preview", "failure" if fails else "success"), job.log
    (comment,) = site.comments(number)
    return comment


def deploy(site: CiSite) -> JobResult:
    """Run the workflow for main, and return the job for staging, which must succeed."""
    staging, production = site.run("deploy", "push")
    assert (staging.result, production.result) == ("success", "skipped"), staging.log
    return staging


def edited(word: str) -> Callable[[Stack], None]:
    """A change of the app's front page."""
    return lambda laptop: laptop.edit("app/hello/templates/index.html", "<main>", f"<main><!-- {word} -->")


def url(site: CiSite) -> str:
    return str(site.laptop.outputs()["url"])


def firewalls(api: DigitalOceanApi) -> int:
    return len(api.account.firewalls)


def test_main_is_deployed_from_a_runner_with_an_address_that_is_allowed_nowhere(
    site: CiSite, api: DigitalOceanApi
) -> None:
    deploy(site)
    outputs = site.laptop.outputs()
    answer = get(str(outputs["url"]))
    assert (answer.status, answer.release) == (200, outputs["release"])
    assert firewalls(api) == 2, "the stack's own; the run's has been closed"
    changes = [method for method, path in api.calls if "firewalls" in path and method in ("POST", "DELETE")]
    assert (changes.count("POST"), changes.count("DELETE")) == (3, 1)
    assert {method for method, _ in api.unknown} <= {"GET"}, "check-account asks for more than the double has"


def test_a_change_of_code_is_told_with_its_file_in_one_comment(site: CiSite) -> None:
    live = str(site.laptop.outputs()["release"])
    for word in ("one", "two"):
        site.open_pull(1, edited(word))
        comment = preview(site, 1)
    assert live in comment
    assert "hello/templates/index.html" in comment
    assert site.github.pulls[1]["head"]["sha"] in comment


def test_another_package_is_told_with_its_version(site: CiSite) -> None:
    def add(laptop: Stack) -> None:
        path = laptop.project / "app/requirements.txt"
        path.write_text(path.read_text() + HUMANIZE)

    site.open_pull(2, add)
    assert re.search(r"humanize.*4\.14\.0", preview(site, 2))


def test_another_secret_is_told_by_its_name_alone(site: CiSite) -> None:
    site.open_pull(3, lambda laptop: laptop.set_secret("secrets.API_KEY", NEXT_SECRET))
    assert "API_KEY" in preview(site, 3)


def test_more_machines_are_told_with_what_they_cost(site: CiSite) -> None:
    site.open_pull(4, lambda laptop: laptop.set({"machines": "2"}))
    comment = preview(site, 4)
    assert "web-2" in comment
    assert re.search(r"6(\.00)?\b.*24(\.00)?\b", comment)


def test_a_machine_that_is_replaced_puts_data_at_risk(site: CiSite) -> None:
    site.open_pull(5, lambda laptop: laptop.set({"region": "nyc3"}))
    comment = preview(site, 5)
    assert re.search(r"web-1.*replaced|replaced.*web-1|replaces.*web-1", comment)
    first = comment.index("**")
    assert "data" in comment[first : first + 300].lower()


def test_wrong_settings_are_told_and_the_job_fails(site: CiSite) -> None:
    site.open_pull(6, lambda laptop: laptop.set({"machines": "many"}))
    comment = preview(site, 6, fails=True)
    assert "decant:machines" in comment
    assert "many" in comment


def test_a_fork_gets_a_comment_and_no_preview(site: CiSite, api: DigitalOceanApi) -> None:
    before = len(api.calls)
    site.open_pull(7, lambda laptop: laptop.edit("Makefile", "help:\n", "help:\n\t@env\n"), fork="mallory/site")
    jobs = site.run("preview", "pull_request", number=7)
    assert {job.result for job in jobs} == {"skipped"}
    assert site.comments(7) == []
    after = {"conclusion": "success"}  # what GitHub says of the run
    event = site.github.environment("workflow_run", site.folder / "events", number=7)
    content = json.loads(Path(event["GITHUB_EVENT_PATH"]).read_text())["workflow_run"]
    (job,) = site.run(
        "forks", "workflow_run", number=7, payload={"action": "completed", "workflow_run": {**content, **after}}
    )
    assert job.result == "success", job.log
    (comment,) = site.comments(7)
    assert "a fork gets none" in comment
    assert len(api.calls) == before


def test_merging_deploys_what_was_previewed_and_marks_the_others_as_stale(site: CiSite) -> None:
    site.merge(1)
    _, stale = site.run("preview", "push")
    assert (stale.name, stale.result) == ("stale", "success"), stale.log
    assert "**Stale**" in site.comments(4)[0]
    deploy(site)
    answer = get(url(site))
    assert "<!-- two -->" in answer.body
    assert answer.release == site.laptop.outputs()["release"]
    assert len(site.comments(4)) == 1


def an_hour_passes(api: DigitalOceanApi) -> None:
    """Let the time of what a killed run has opened be over; it must not be longer than an hour."""
    now = datetime.now(UTC)
    for firewall in api.account.firewalls.values():
        if until := re.search(r"\d{8}T\d{6}Z", firewall["name"]):
            assert datetime.strptime(until[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) <= now + timedelta(hours=1)
            firewall["name"] = firewall["name"].replace(until[0], "20260101T000000Z")


def release(site: CiSite, word: str) -> None:
    """Push another front page to main."""
    path = site.laptop.project / "app/hello/templates/index.html"
    path.write_text(re.sub(r"<main>(<!-- .*? -->)?", f"<main><!-- {word} -->", path.read_text()))
    site.push_main(word)


POINTS = [
    ("Install", ""),
    ("Log in to the cloud", ""),
    ("Open SSH for this run", ""),
    ("Deploy", ""),
    ("Deploy", "previewing update"),
    ("Deploy", "web-1-check-space updating"),
    ("Deploy", "web-1-stage updating"),
    ("Deploy", "rollout updating"),
    ("Deploy", "rollout updated"),
    ("Close SSH", ""),
]
BY_DEFAULT = (2, 6, 7)  # the others are as fast, but there are seven of them
MARKED = [
    pytest.param(number, marks=() if number in BY_DEFAULT else pytest.mark.thorough) for number in range(len(POINTS))
]


@pytest.mark.parametrize("number", MARKED)
def test_after_a_deploy_that_was_killed_the_next_one_goes_on(site: CiSite, api: DigitalOceanApi, number: int) -> None:
    release(site, f"point {number}")
    step, text = POINTS[number]
    lost, _ = site.run("deploy", "push", dies=lambda name, log: name == step and text in log)
    assert lost.result == "lost", lost.log
    answer = get(url(site))
    assert (answer.status, bool(answer.release)) == (200, True), "visitors notice nothing"
    an_hour_passes(api)
    done = deploy(site)
    assert f"<!-- point {number} -->" in get(url(site)).body, done.log
    assert firewalls(api) == 2, "what the killed run has opened is closed by the next one, when its time is over"


def test_a_deploy_that_holds_the_stack_is_named_and_left_alone(site: CiSite) -> None:
    """A run that is lost to us, but of which GitHub says that it goes on."""
    release(site, "held")
    lost, _ = site.run("deploy", "push", dies=lambda step, log: step == "Deploy" and _locked(site))
    assert lost.result == "lost"
    site.ended.discard(site.runs)
    held = site.runs
    refused, _ = site.run("deploy", "push")
    assert refused.result == "failure"
    assert refused.outcomes["Close SSH"] == "success"
    assert re.search(rf"run {held} \(attempt 1\) on GitHub, since 20\d\d-", refused.step("Deploy").log)
    site.ended.add(held)
    deploy(site)


def _locked(site: CiSite) -> bool:
    return any(path.is_file() for path in site.laptop.backend.rglob("locks/**/*.json"))


def test_the_nightly_job_opens_an_issue_for_what_somebody_changed_by_hand_and_closes_it_again(
    site: CiSite, api: DigitalOceanApi
) -> None:
    (job, *_) = site.run("drift", "schedule")
    assert (job.name, job.result) == ("drift", "success"), job.log
    assert site.github.issues == {}
    opened = next(firewall for firewall in api.account.firewalls.values() if firewall["name"].endswith("-web"))
    kept = opened["inbound_rules"]
    opened["inbound_rules"] = [*kept, {"protocol": "tcp", "ports": "5432", "sources": {"addresses": ["0.0.0.0/0"]}}]
    for _ in range(2):
        (job, *_) = site.run("drift", "schedule")
        assert job.result == "failure", job.log
        (issue,) = site.github.issues.values()
        assert issue["state"] == "open"
        assert issue["title"] == "Stack staging is not as its state says, or cannot be deployed"
        assert "see resources." in issue["body"]
        assert "5432" in issue["body"]
    opened["inbound_rules"] = kept
    (job, *_) = site.run("drift", "schedule")
    assert job.result == "success", job.log
    (issue,) = site.github.issues.values()
    assert issue["state"] == "closed"


def test_nothing_secret_was_shown_anywhere(site: CiSite) -> None:
    shown = site.shown
    assert len(shown) > 10_000
    for canary in (TOKEN, SECRET, NEXT_SECRET, PASSPHRASE, *site.github.tokens):
        assert canary not in shown
    assert "BEGIN OPENSSH PRIVATE KEY" not in shown
