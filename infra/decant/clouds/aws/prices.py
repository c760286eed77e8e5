"""AWS's list prices for on-demand Linux instances and what belongs to them, and what a stack costs a month.

Sources: https://aws.amazon.com/ec2/pricing/on-demand/, https://aws.amazon.com/ebs/pricing/,
https://aws.amazon.com/elasticloadbalancing/pricing/ and https://aws.amazon.com/vpc/pricing/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from decant.clouds.costs import HOURS, Cost, CostItem
from decant.settings.model import Settings

DATE = "2026-11-28"
PUBLIC_ADDRESS = 0.005  # an hour, in every region, for an Elastic IP as for an instance's own address
DISK = 10  # GB
BALANCER_ZONES = 2  # a load balancer has a public address in each
# A size costs this many times the family's `micro`.
SIZES = {"nano": 0.5, "micro": 1, "small": 2, "medium": 4, "large": 8, "xlarge": 16, "2xlarge": 32}


class Region(NamedTuple):
    """The prices of a region in USD: `micro` by family, a GB and month of gp3 disk, an hour of a load balancer."""

    micro: Mapping[str, float]
    disk: float
    balancer: float


REGIONS = {
    "eu-central-1": Region({"t3": 0.0120, "t3a": 0.0108, "t4g": 0.0096}, 0.0952, 0.0270),
    "eu-west-1": Region({"t3": 0.0114, "t3a": 0.0102, "t4g": 0.0092}, 0.0880, 0.0252),
    "eu-west-2": Region({"t3": 0.0118, "t3a": 0.0106, "t4g": 0.0094}, 0.0928, 0.02646),
    "eu-west-3": Region({"t3": 0.0118, "t3a": 0.0106, "t4g": 0.0094}, 0.0928, 0.02646),
    "eu-north-1": Region({"t3": 0.0108, "t4g": 0.0086}, 0.0836, 0.02394),
    "us-east-1": Region({"t3": 0.0104, "t3a": 0.0094, "t4g": 0.0084}, 0.0800, 0.0225),
    "us-east-2": Region({"t3": 0.0104, "t3a": 0.0094, "t4g": 0.0084}, 0.0800, 0.0225),
    "us-west-2": Region({"t3": 0.0104, "t3a": 0.0094, "t4g": 0.0084}, 0.0800, 0.0225),
    "us-west-1": Region({"t3": 0.0124, "t3a": 0.01116, "t4g": 0.0100}, 0.0960, 0.0252),
    "ap-southeast-1": Region({"t3": 0.0132, "t3a": 0.0118, "t4g": 0.0106}, 0.0960, 0.0252),
    "ap-southeast-2": Region({"t3": 0.0132, "t3a": 0.0119, "t4g": 0.0106}, 0.0960, 0.0252),
    "ap-northeast-1": Region({"t3": 0.0136, "t3a": 0.01224, "t4g": 0.0108}, 0.0960, 0.0243),
}


def monthly_cost(settings: Settings) -> Cost:
    """The cost of the stack's instances with their disks and addresses, and of its load balancer."""
    region = settings.provider.get("region")  # an output where the stack keeps it as a secret
    prices = REGIONS.get(region) if isinstance(region, str) else None
    family, _, size = settings.size.partition(".")
    hourly = prices.micro.get(family) if prices and size in SIZES else None
    machine = None if hourly is None else HOURS * hourly * SIZES[size]
    addresses = settings.machines + (BALANCER_ZONES if settings.balancer else 0)
    items = [
        CostItem(what=f"instance {settings.size}", count=settings.machines, each=machine),
        CostItem(what=f"disk of {DISK} GB", count=settings.machines, each=DISK * prices.disk if prices else None),
        CostItem(what="public address", count=addresses, each=HOURS * PUBLIC_ADDRESS),
    ]
    extra = "Traffic comes on top: 100 GB a month are free, then about 0.09 a GB."
    if settings.balancer:
        items.append(CostItem(what="load balancer", count=1, each=HOURS * prices.balancer if prices else None))
        extra += " A load balancer also costs about 0.008 an hour for each unit of load."
    if settings.site.dns_zone and not settings.balancer:
        extra += " A million DNS questions to Route 53 cost 0.40."
    return Cost(items=tuple(items), date=DATE, extra=extra)
