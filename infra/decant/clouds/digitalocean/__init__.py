"""DigitalOcean: droplets with a reserved address, or several behind a load balancer."""

from __future__ import annotations

from decant.clouds.base import Cloud, CloudSpec
from decant.clouds.digitalocean.droplets import DigitalOcean
from decant.settings.model import Settings

SPEC = CloudSpec(
    title="DigitalOcean",
    settings=frozenset({"size", "region", "image", "adminCidrs", "machines", "balancer", "dnsZone", "review"}),
    required=("adminCidrs",),
    # The smallest droplet with enough memory for two releases at once.
    defaults={"size": "s-1vcpu-1gb", "region": "fra1", "image": "debian-13-x64", "harden": True},
    has_account=True,
    longest_balanced_request=590,
    certificates_need_zone=True,
)


def create(settings: Settings) -> Cloud:
    """The stack's droplets."""
    return DigitalOcean(settings)
