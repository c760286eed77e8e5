"""What stacks cost a month, and that the price tables say the same as the pages."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from decant import clouds
from decant.clouds.aws import prices as aws
from decant.clouds.digitalocean import prices as digitalocean
from tests.support.account_facts import settings

DOCS = Path(__file__).resolve().parents[2] / "docs"


def cost(cloud: str, **more: Any) -> Any:
    return clouds.monthly_cost(settings(cloud, **more))


@pytest.mark.parametrize(
    ("cloud", "more", "sum_"),
    [
        ("digitalocean", {}, 6.0),
        ("digitalocean", {"machines": 2}, 24.0),
        ("digitalocean", {"machines": 3}, 30.0),
        ("digitalocean", {"machines": 3, "size": "s-1vcpu-2gb"}, 48.0),
        ("digitalocean", {"balancer": "true"}, 18.0),
        ("aws", {}, 13.36),
        ("aws", {"machines": 2}, 53.73),
        ("aws", {"machines": 2, "size": "t3.small"}, 71.25),
        ("aws", {"size": "t4g.2xlarge", "aws_region": "us-east-1"}, 200.67),
    ],
)
def test_a_stacks_cost(cloud: str, more: dict[str, Any], sum_: float) -> None:
    assert cost(cloud, **more).per_month == sum_


@pytest.mark.parametrize(
    ("cloud", "more", "unknown"),
    [
        ("digitalocean", {"size": "s-9vcpu"}, ["1 x droplet s-9vcpu, price unknown"]),
        ("aws", {"size": "m9.large"}, ["1 x instance m9.large, price unknown"]),
        ("aws", {"size": "t3.huge"}, ["1 x instance t3.huge, price unknown"]),
        ("aws", {"aws_region": "mars-1"}, ["1 x instance t3.micro, price unknown", "1 x disk of 10 GB, price unknown"]),
    ],
)
def test_a_price_that_the_table_has_not_makes_the_sum_unknown(
    cloud: str, more: dict[str, Any], unknown: list[str]
) -> None:
    found = cost(cloud, **more)
    assert found.per_month is None
    assert [str(item) for item in found.items if item.each is None] == unknown
    assert str(found).startswith("an unknown sum a month (")


def test_the_output_of_a_stack() -> None:
    assert cost("digitalocean", machines=2).output() == {
        "usdPerMonth": 24.0,
        "items": ["2 x droplet s-1vcpu-1gb, 6.00 each", "1 x load balancer, one node, 12.00 each"],
        "pricesOf": "2026-11-28",
    }


def test_hosts_of_ones_own_cost_nothing() -> None:
    from tests.support.stack_settings import read, ssh

    assert clouds.monthly_cost(read(ssh())) is None


@pytest.mark.parametrize("table", [aws, digitalocean])
def test_the_tables_have_a_date_and_prices(table: Any) -> None:
    assert date.fromisoformat(table.DATE) >= date(2026, 11, 28)
    prices = list(digitalocean.DROPLETS.values()) + [m for r in aws.REGIONS.values() for m in r.micro.values()]
    assert all(price > 0 for price in prices)


def test_the_pages_say_what_the_tables_say() -> None:
    page = (DOCS / "aws.md").read_text(encoding="utf-8")
    region = aws.REGIONS["eu-central-1"]
    assert re.search(rf"`t3\.micro` \| {region.micro['t3']:.3f} an hour", page)
    assert f"| {region.disk} a GB and month |" in page
    assert f"| {region.balancer:.3f} an hour," in page
    assert f"| {aws.PUBLIC_ADDRESS} an hour |" in page
    page = (DOCS / "go-live.md").read_text(encoding="utf-8")
    assert f"`s-1vcpu-1gb`, {digitalocean.DROPLETS['s-1vcpu-1gb']:.0f} each" in page
    assert f"| load balancer, one node | | {digitalocean.BALANCER_NODE:.0f} | 12 |" in page
