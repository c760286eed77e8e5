"""A stack for a pull request on a machine that boots: made, updated at a push, and kept longer, with the whole program.

Each test goes on where the one before ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from rehearsal.machines.network import Network
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.fake_account import FakeAccount
from tests.support.pulumi_stack import Stack, get, missing
from tests.support.review_stacks import Reviews, review_tags


@pytest.fixture(scope="module")
def api(network: Network) -> Iterator[DigitalOceanApi]:
    lacking = missing("digitalocean", "tls")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    api = DigitalOceanApi(FakeAccount(network), "dop_v1_not_a_real_one", used_regions=("fra1",))
    yield api
    api.server.shutdown()


@pytest.fixture(scope="module")
def reviews(api: DigitalOceanApi, tmp_path_factory: pytest.TempPathFactory) -> Reviews:
    stack = Stack.create(tmp_path_factory.mktemp("review"), DIGITALOCEAN_API_URL=api.url, DIGITALOCEAN_TOKEN=api.token)
    reviews = Reviews(stack)
    reviews.template(adminCidrs=["10.0.0.0/8"])
    return reviews


def operations(said: str) -> dict[str, str]:
    """What was done to what, of all that is no component."""
    lines = re.findall(r"^ *[-+~]+ +(\w+:\S+:)(\w+) (\S+) (\w+)", said, re.MULTILINE)
    return {f"{kind} {name}": done for where, kind, name, done in lines if not where.startswith(("decant:", "pulumi:"))}


def test_the_comment_has_a_url_that_answers(reviews: Reviews, api: DigitalOceanApi) -> None:
    reviews.run("up", "7")
    (reserved,) = api.account.reserved.values()
    assert f"<http://{reserved.ip}/>" in reviews.comment
    (release,) = re.findall(r"serves release `([0-9a-f]{12})`", reviews.comment)
    answer = get(f"http://{reserved.ip}/")
    assert (answer.status, answer.release) == (200, release)


def test_a_push_releases_the_code_and_nothing_more(reviews: Reviews, api: DigitalOceanApi) -> None:
    before = list(api.account.tags)
    (reserved,) = api.account.reserved.values()
    first = get(f"http://{reserved.ip}/").release
    (reviews.project / "Pulumi.pr-7.yaml").unlink()  # a fresh clone
    with (reviews.project / "app/hello/__init__.py").open("a") as code:
        code.write("\n# changed by a push\n")
    done = operations(reviews.run("up", "7"))
    assert set(done) == {"Command web-1-stage", "CopyToRemote web-1-upload", "Command rollout"} | {
        name for name in done if name == "Command web-1-check-space"
    }
    answer = get(f"http://{reserved.ip}/")
    assert answer.status == 200
    assert answer.release != first
    assert list(api.account.tags) == before


def test_a_later_expiry_runs_no_step_and_keeps_the_machine(reviews: Reviews, api: DigitalOceanApi) -> None:
    (reserved,) = api.account.reserved.values()
    (droplet,) = api.account.droplets
    release = get(f"http://{reserved.ip}/").release
    reviews.expire("pr-7")
    done = operations(reviews.run("up", "7"))
    assert set(done) == {"Tag review-tag", "Droplet web-1"}
    assert done["Droplet web-1"] == "updated"
    assert list(api.account.droplets) == [droplet]
    assert review_tags(api)["7"] > "2026"
    assert get(f"http://{reserved.ip}/").release == release


def test_it_ends_with_nothing_left(reviews: Reviews, api: DigitalOceanApi) -> None:
    reviews.run("down", "7")
    assert api.inventory() == {}
    assert reviews.names() == set()
    assert reviews.comment == "## Review stack `pr-7` is removed\n"
