"""Stacks for pull requests with the real engine and provider: made, updated, removed, and found by their tags alone.

The program makes the cloud and no steps on machines, so nothing boots. In place of the app, a server of the test
answers as the release that the program exports.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from rehearsal.accounts.digitalocean_catalogue import Pace
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.no_machines import NoMachines
from tests.support.pulumi_stack import Stack, missing
from tests.support.review_stacks import Reviews, review_tags, tag_of

RELEASE = "0123456789ab"
PROGRAM = f"""
import os
import pulumi
from decant import clouds
from decant.settings.load import load

checked = load(clouds.specs())
assert checked.settings, "\\n".join(map(str, checked.problems))
cloud = clouds.create(checked.settings)
pulumi.export("url", os.environ["APP_URL"])
pulumi.export("release", "{RELEASE}")
pulumi.export("machines", [{{"name": m.name, "id": m.id, "address": m.address}} for m in cloud.machines])
"""
PACE = Pace(visible=0, pending=1, resize=5, busy_vpc=2)
CANARY = "canary-8d1f4c7a"
LONG_AGO = "20200101T0000Z"


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    lacking = missing("digitalocean", "tls")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))


@pytest.fixture
def api() -> Iterator[DigitalOceanApi]:
    """An account whose region has a default VPC already, so that a stack can delete its own."""
    api = DigitalOceanApi(NoMachines(), "dop_v1_not_a_real_one", pace=PACE, used_regions=("fra1",))
    yield api
    api.server.shutdown()


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    """The URL of something that answers as the release."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Release", RELEASE)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def reviews(api: DigitalOceanApi, app: str, tmp_path: Path) -> Reviews:
    stack = Stack.create(tmp_path, DIGITALOCEAN_API_URL=api.url, DIGITALOCEAN_TOKEN=api.token, APP_URL=app)
    (stack.project / "infra/__main__.py").write_text(PROGRAM)
    reviews = Reviews(stack)
    reviews.template(adminCidrs=["10.0.0.0/8"], review={"atOnce": 2, "days": 7})
    return reviews


def test_the_life_of_a_stack_from_the_label_to_the_close(reviews: Reviews, api: DigitalOceanApi, app: str) -> None:
    said = reviews.run("up", "7")
    assert "Stack pr-7 is live." in said
    assert reviews.comment.startswith("## Review stack `pr-7` is live\n\n")
    assert f"<{app}/>" in reviews.comment
    assert RELEASE in reviews.comment
    (droplet,) = api.account.droplets.values()
    (expires,) = review_tags(api).values()
    unique = tag_of(api, "pr-7")
    assert droplet.tags == {unique, f"decant-review:decant:pr-7:{unique[-7:]}:{expires}"}
    # A push: in a fresh clone, where only the template is.
    (reviews.project / "Pulumi.pr-7.yaml").unlink()
    calls = len(api.calls)
    said = reviews.run("up", "7")
    assert {method for method, _ in api.calls[calls:]} == {"GET"}, "a push changes nothing at the cloud"
    assert review_tags(api) == {"7": expires}
    assert list(api.account.droplets.values()) == [droplet]
    # The pull request is closed, in another fresh clone.
    (reviews.project / "Pulumi.pr-7.yaml").unlink()
    said = reviews.run("down", "7")
    assert "Stack pr-7 is removed." in said
    assert api.inventory() == {}
    assert review_tags(api) == {}
    assert reviews.names() == set()
    assert not (reviews.project / "Pulumi.pr-7.yaml").exists()
    said = reviews.run("down", "7")
    assert "There is no stack pr-7, in this state or at DigitalOcean: nothing to remove." in said
    assert {method for method, _ in api.unknown} <= {"GET"}, (
        "the check of the account asks for more than the double has"
    )


def test_a_later_expiry_changes_tags_in_place_and_no_machine(reviews: Reviews, api: DigitalOceanApi) -> None:
    reviews.run("up", "7")
    (droplet,) = api.account.droplets
    reviews.expire("pr-7")
    assert review_tags(api) == {"7": LONG_AGO}
    assert list(api.account.droplets) == [droplet]
    said = reviews.run("up", "7")
    assert re.search(r"Droplet web-1 updated", said)
    changed = set(re.findall(r"^ *[-+~]+ +digitalocean:\w+:(\w+ \S+) ", said, re.MULTILINE))
    assert changed == {"Tag review-tag", "Droplet web-1"}
    assert list(api.account.droplets) == [droplet]
    assert review_tags(api)["7"] > "2026"
    assert len(api.account.droplets[droplet].tags) == 2


def test_one_more_than_allowed_is_refused_in_words_and_leaves_nothing(reviews: Reviews, api: DigitalOceanApi) -> None:
    reviews.run("up", "7")
    reviews.run("up", "12")
    reviews.lose_state("pr-12")  # it costs as much, so it counts
    before = api.inventory()
    said = reviews.run("up", "13", status=1)
    assert "Stack pr-13 was not made: there are 2 stacks of pull requests already (pr-7, pr-12)" in said
    assert "decant:review.atOnce in Pulumi.review.yaml is 2" in said
    assert "make review-down PR=7" in said
    assert reviews.comment.startswith("## Review stack `pr-13` is not live\n\n```text\nStack pr-13 was not made")
    assert api.inventory() == before
    assert reviews.names() == {"pr-7"}
    reviews.run("up", "7")  # one that exists is updated all the same
    reviews.run("down", "12")
    assert list(review_tags(api)) == ["7"]
    reviews.run("up", "13")


def test_the_reaper_removes_what_has_expired_with_its_state_and_without(reviews: Reviews, api: DigitalOceanApi) -> None:
    reviews.template(review={"atOnce": 5, "days": 7})
    for number in ("7", "8", "9"):
        reviews.run("up", number)
    for number in ("7", "8"):
        reviews.expire(f"pr-{number}")
    reviews.lose_state("pr-8")
    kept = tag_of(api, "pr-9")
    said = reviews.run("reap")
    assert "Stack pr-7 expired at 2020-01-01T00:00Z. Removing it." in said
    assert "Stack pr-7 is removed." in said
    assert "DigitalOcean has a stack pr-8 that is not in the state. Removing it:" in said
    assert re.search(r"  reserved address \S+\n", said)
    assert re.search(r"Stack pr-9 stays until 20\d\d-", said)
    assert reviews.names() == {"pr-9"}
    (droplet,) = api.account.droplets.values()
    assert kept in droplet.tags
    assert sorted(api.account.tags) == sorted(droplet.tags)
    assert len(api.account.reserved) == 1
    assert len(api.account.keys) == 1
    assert len(api.account.firewalls) == 2
    own = [vpc for vpc in api.account.vpcs.values() if not vpc.default]
    assert len(own) == 1
    calls = len(api.calls)
    reviews.run("reap")
    assert {method for method, _ in api.calls[calls:]} == {"GET"}
    assert {method for method, _ in api.unknown} <= {"GET"}, (
        "the check of the account asks for more than the double has"
    )


def test_a_lost_stack_and_a_new_one_of_the_same_pull_request_are_told_apart(
    reviews: Reviews, api: DigitalOceanApi
) -> None:
    reviews.run("up", "7")
    (old,) = api.account.droplets
    reviews.expire("pr-7")
    reviews.lose_state("pr-7")
    reviews.run("up", "7")
    (new,) = set(api.account.droplets) - {old}
    said = reviews.run("reap")
    assert "DigitalOcean has a stack pr-7 that is not in the state. Removing it:" in said
    assert list(api.account.droplets) == [new]
    assert reviews.names() == {"pr-7"}
    assert reviews.stack.pulumi("up", "--yes", "--skip-preview", "--stack", "pr-7").counts.keys() == {"unchanged"}


def test_the_reaper_touches_nothing_else_whatever_tags_say(reviews: Reviews, api: DigitalOceanApi) -> None:
    """A production stack, one of another project, and tags that a person gave to machines by hand."""
    stack = reviews.stack
    stack.set({"cloud": "digitalocean", "adminCidrs[0]": "10.0.0.0/8", "machines": "1"})
    stack.up()  # the ordinary stack
    (droplet,) = api.account.droplets
    assert [tag for tag in api.account.tags if "review" in tag] == []
    forged = [
        f"decant-review:decant:engine:1234567:{LONG_AGO}",
        f"decant-review:decant:production:1234567:{LONG_AGO}",
        f"decant-review:other:pr-7:1234567:{LONG_AGO}",
        f"decant-review:decant:pr-7:1234567:{LONG_AGO}",
        f"decant-review:decant:pr-7:7654321:{LONG_AGO}",
        "decant-review:decant:pr-8:1234567:20201345T9999Z",
        "decant-pr-7-7654321",
    ]
    with api.account.lock:
        for name in forged:
            api.account.add_tag(name)
            api.account.tag_droplets(name, [str(droplet)], tagged=True)
    before = api.inventory()
    said = reviews.run("reap", status=1)
    assert "has a tag of review stack pr-7, and does not have the stack's tag decant-pr-7-1234567" in said
    assert "has a tag of review stack pr-7, and has the tag of another stack, decant-engine-" in said
    assert api.inventory() == before
    assert list(api.account.droplets) == [droplet]
    # Even without the ordinary stack's own tag, the droplet is in its state.
    with api.account.lock:
        own = tag_of(api, "engine")
        api.account.tag_droplets(own, [str(droplet)], tagged=False)
    said = reviews.run("reap", status=1)
    assert "has a tag of review stack pr-7, and is in the state of another stack" in said
    assert list(api.account.droplets) == [droplet]


def test_a_stack_that_failed_before_anything_was_made_is_reaped(reviews: Reviews, api: DigitalOceanApi) -> None:
    reviews.template(machines=2, domain="example.com")
    said = reviews.run("up", "7", status=255)
    assert "decant:machines is 2: must be 1, or left out, in a stack of a pull request" in said
    assert "decant:domain" in said
    assert "The job's log says why" in reviews.comment
    assert reviews.names() == {"pr-7"}
    reviews.run("reap")
    assert reviews.names() == set()
    assert api.inventory() == {}


def test_secrets_of_the_template_reach_the_stack_and_those_of_others_are_refused(
    reviews: Reviews, api: DigitalOceanApi
) -> None:
    stack = reviews.stack
    stack.pulumi("stack", "init", "production")
    stack.pulumi("stack", "init", "review")

    def give(name: str, path: str, value: str) -> None:
        words = ["config", "set", "--secret", "--path", f"decant:secrets.{path}", "--stack", name]
        stack.pulumi(*words, stdin=None, input=value)

    give("production", "STRIPE_KEY", CANARY)
    give("review", "SECRET_KEY", "of-its-own-123456")
    said = reviews.run("up", "7")
    assert "Warning: the key of this job also decrypts the secrets of production" in said
    shown = stack._read("config", "get", "--path", "decant:secrets.SECRET_KEY", "--stack", "pr-7")
    assert shown.strip() == "of-its-own-123456"
    reviews.run("down", "7")
    give("review", "PAYMENTS", CANARY)  # under another name, and encrypted anew
    said = reviews.run("up", "7", status=1)
    assert (
        "decant:secrets.PAYMENTS in Pulumi.review.yaml is the same secret as decant:secrets.STRIPE_KEY of stack"
        " production." in said
    )
    assert "Set another value, by standard input:" in said
    assert CANARY not in said + reviews.comment
    assert reviews.names() == set()
    assert api.inventory() == {}
    # Copied as encrypted text from a stack whose state and key are not here.
    stack.pulumi("stack", "rm", "production", "--yes", "--preserve-config")
    path = stack.project / "Pulumi.review.yaml"
    content = yaml.safe_load(path.read_text())
    other = yaml.safe_load((stack.project / "Pulumi.production.yaml").read_text())
    content["config"]["decant:secrets"] = {"KEY": other["config"]["decant:secrets"]["STRIPE_KEY"]}
    path.write_text(yaml.safe_dump(content))
    said = reviews.run("up", "7", status=1)
    assert "decant:secrets.KEY in Pulumi.review.yaml is the same secret as decant:secrets.STRIPE_KEY of stack" in said
    assert reviews.names() == set()
