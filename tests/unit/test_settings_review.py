"""The settings of a stack for a pull request: what they are, on which stacks, and what does not go with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from decant.errors import SettingsError
from decant.settings.model import Review
from tests.support.stack_settings import droplet, read, ssh

EXPIRES = {"expires": "2026-12-05T18:30Z"}


def problems(config: dict[str, Any], stack: str = "pr-7") -> list[str]:
    with pytest.raises(SettingsError) as told:
        read(config, stack=stack)
    return [str(problem) for problem in told.value.problems]


def test_a_stack_of_a_pull_request_knows_when_it_expires() -> None:
    assert read(droplet(review={"atOnce": 5, "days": 2, **EXPIRES}), stack="pr-7").review == Review(
        at_once=5, days=2, expires=datetime(2026, 12, 5, 18, 30, tzinfo=UTC)
    )


def test_the_template_has_no_expiry_and_defaults() -> None:
    assert read(droplet(review={}), stack="review").review == Review(at_once=3, days=7, expires=None)


@pytest.mark.parametrize("stack", ["production", "pr-0", "pr-07", "pr-7x", "xpr-7", "pr-7\n"])
def test_no_other_stack_is_a_pull_requests(stack: str) -> None:
    (problem,) = problems(droplet(review=EXPIRES), stack)
    assert problem == (
        f"decant:review: is for stack review and the stacks of pull requests, pr-N; this one is {stack}\n"
        f"      pulumi config rm decant:review --stack {stack}"
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"machines": 2}, "decant:machines is 2: must be 1, or left out, in"),
        ({"balancer": True}, "decant:balancer is true: must be false, or left out, in"),
        ({"domain": "example.com"}, 'decant:domain is "example.com": must be left out in'),
        ({"dnsZone": "example.com", "domain": "example.com"}, 'decant:dnsZone is "example.com": must be left out in'),
        ({"release": "0123456789ab"}, 'decant:release is "0123456789ab": must be left out in'),
    ],
)
def test_it_is_small_and_has_no_name_in_dns(changes: dict[str, Any], told: str) -> None:
    found = problems(droplet(review=EXPIRES, **changes))
    name = told.split()[0].removeprefix("decant:")
    assert any(
        problem
        == f"{told} a stack of a pull request (docs/review.md)\n      remove decant:{name} from Pulumi.review.yaml"
        for problem in found
    ), found
    read(droplet(**changes), stack="pr-7")  # an ordinary stack that happens to have such a name


def test_hosts_that_exist_have_no_stacks_for_pull_requests() -> None:
    (problem,) = problems(ssh(review=EXPIRES))
    assert problem.startswith("decant:review: does not go with cloud ssh, only with aws and digitalocean")
