"""DigitalOcean's list prices, and what a stack costs there a month.

Sources: https://www.digitalocean.com/pricing/droplets and https://www.digitalocean.com/pricing/load-balancers
"""

from __future__ import annotations

from decant.clouds.costs import Cost, CostItem
from decant.settings.model import Settings

DATE = "2026-11-28"
BALANCER_NODE = 12.0
RESERVED_ADDRESS = 0.0  # while it is assigned to a droplet
# USD a month of a droplet, the same in every region.
DROPLETS = {
    "s-1vcpu-512mb-10gb": 4.0,
    "s-1vcpu-1gb": 6.0,
    "s-1vcpu-2gb": 12.0,
    "s-2vcpu-2gb": 18.0,
    "s-2vcpu-4gb": 24.0,
    "s-4vcpu-8gb": 48.0,
    "s-8vcpu-16gb": 96.0,
    "s-1vcpu-1gb-amd": 7.0,
    "s-1vcpu-1gb-intel": 7.0,
    "s-1vcpu-2gb-amd": 14.0,
    "s-1vcpu-2gb-intel": 14.0,
    "s-2vcpu-2gb-amd": 21.0,
    "s-2vcpu-2gb-intel": 21.0,
    "s-2vcpu-4gb-amd": 28.0,
    "s-2vcpu-4gb-intel": 28.0,
    "s-4vcpu-8gb-amd": 56.0,
    "s-4vcpu-8gb-intel": 56.0,
    "s-8vcpu-16gb-amd": 112.0,
    "s-8vcpu-16gb-intel": 112.0,
    "c-2": 42.0,
    "c-4": 84.0,
    "c-8": 168.0,
    "g-2vcpu-8gb": 63.0,
    "g-4vcpu-16gb": 126.0,
    "m-2vcpu-16gb": 84.0,
    "m-4vcpu-32gb": 168.0,
}


def monthly_cost(settings: Settings) -> Cost:
    """The cost of the stack's droplets and of its load balancer or reserved address."""
    size = settings.size
    items = [CostItem(what=f"droplet {size}", count=settings.machines, each=DROPLETS.get(size))]
    if settings.balancer:
        items.append(CostItem(what="load balancer, one node", count=1, each=BALANCER_NODE))
    else:
        items.append(CostItem(what="reserved address", count=1, each=RESERVED_ADDRESS))
    return Cost(items=tuple(items), date=DATE, extra="Traffic beyond the droplets' allowance comes on top: 0.01 a GiB.")
