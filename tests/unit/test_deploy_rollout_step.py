"""The plan that the rollout gets on its standard input."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from decant.rollout.certificate import OWN_HELP
from rehearsal.doubles import is_wrapped
from tests.support.certificates import Authority
from tests.support.in_memory import DROPLET, HOST, INSTANCE, Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Start = Callable[..., Run]
ZONE = {"domain": "example.com", "dnsZone": "example.com"}


def plan_of(run: Run) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(run.text("Command rollout", "stdin"))
    return plan


@pytest.mark.parametrize(
    ("config", "more", "balancer"),
    [
        (DROPLET, {"machines": 2}, "managed"),
        (DROPLET, {"balancer": True}, "managed"),
        (INSTANCE, {"machines": 2}, "managed"),
        (HOST, {"trustedProxies": ["10.0.0.9/32"]}, "external"),
        (DROPLET, {}, None),
        (INSTANCE, {}, None),
        (HOST, {}, None),
    ],
    ids=lambda value: json.dumps(value.get("cloud", value)) if isinstance(value, dict) else str(value),
)
def test_the_plan_says_whether_the_balancer_is_the_stacks(
    start: Start, config: dict[str, Any], more: dict[str, Any], balancer: str | None
) -> None:
    """Behind a balancer of the stack, the rollout waits until each machine is in rotation."""
    assert plan_of(start(config, **more))["balancer"] == balancer


@pytest.mark.parametrize(
    ("config", "more", "expected"),
    [
        (DROPLET, {"machines": 2, **ZONE}, (None, "doctl compute certificate list")),
        (INSTANCE, {"machines": 2, **ZONE}, (40, "aws acm describe-certificate")),
        (DROPLET, {"machines": 2}, None),
        (INSTANCE, {"machines": 2, **ZONE, "https": "off"}, None),
        (HOST, {"trustedProxies": ["10.0.0.9/32"], "url": "https://example.com"}, None),
        (DROPLET, {"domain": "example.com"}, None),
    ],
)
def test_the_plan_says_who_renews_a_load_balancers_certificates(
    start: Start, config: dict[str, Any], more: dict[str, Any], expected: tuple[float | None, str] | None
) -> None:
    run = start(config, **more)
    renewal = plan_of(run).get("renewal")
    if expected is None or renewal is None:
        assert renewal is expected
        return
    assert renewal["names"] == ["example.com", "www.example.com"]
    assert renewal["days_left"] == expected[0]
    assert expected[1] in renewal["help"]
    assert "certificate" in run.exports
    assert "savedCertificate" not in run.exports


@pytest.mark.parametrize("config", [DROPLET, INSTANCE])
def test_a_certificate_of_the_users_own_is_theirs_to_renew(start: Start, config: dict[str, Any]) -> None:
    own = Authority().issue("example.com", "www.example.com", days=80)
    run = start(config, machines=2, domain="example.com", certificate=own.fullchain, certificateKey=own.key)
    assert plan_of(run)["renewal"] == {"names": ["example.com", "www.example.com"], "days_left": None, "help": OWN_HELP}


def test_the_saved_certificate_is_neither_shown_nor_stored_in_clear(start: Start) -> None:
    """Pulumi shows what a command prints, and stores its output in clear unless it is told otherwise."""
    command = start(DROPLET, domain="example.com").one("Command rollout")
    assert command.inputs["logging"] == "stderr"
    assert command.secret_outputs == ("stdout",)


def test_the_plan_has_each_machine_with_its_login_and_tag(start: Start) -> None:
    run = start(DROPLET, machines=2, rollout="parallel")
    plan = plan_of(run)
    assert is_wrapped(run.one("Command rollout").inputs["stdin"])
    assert (plan["batch"], plan["url"]) == (2, run.exports["url"].value)
    assert [machine["name"] for machine in plan["machines"]] == ["web-1", "web-2"]
    accesses = run.exports["ssh"].value
    for machine, access in zip(plan["machines"], accesses, strict=True):
        assert {**access, "tag": machine["tag"]} == machine
    assert len({machine["tag"] for machine in plan["machines"]}) == 2
    assert len(plan["done"]) == 2
