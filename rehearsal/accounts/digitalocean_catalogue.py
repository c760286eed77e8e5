"""What DigitalOcean offers an account: sizes, regions, images and limits, and how long its operations take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

# memory in MiB, virtual CPUs, disk in GiB, USD a month. Extract of https://slugs.do-api.dev/
SIZES: dict[str, tuple[int, int, int, float]] = {
    "s-1vcpu-512mb-10gb": (512, 1, 10, 4.0),
    "s-1vcpu-1gb": (1024, 1, 25, 6.0),
    "s-1vcpu-2gb": (2048, 1, 50, 12.0),
    "s-2vcpu-2gb": (2048, 2, 60, 18.0),
    "s-2vcpu-4gb": (4096, 2, 80, 24.0),
}
REGIONS = ("ams3", "fra1", "lon1", "nyc3", "sfo3")
IMAGES = ("debian-12-x64", "debian-13-x64", "ubuntu-24-04-x64")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of each kind an account may have: by default, those of a new account."""

    droplets: int = 10
    reserved_ips: int = 3
    load_balancers: int = 10


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many seconds the cloud takes for what is not done at once."""

    visible: float = 2
    """Until a new droplet or SSH key is found by its id, and anything new is in a list."""
    pending: float = 3
    """From a droplet's or an address's new event until the next one is accepted."""
    shutdown: float = 45
    """From the request to shut a droplet down until it is off, if the caller of `booted` does not say otherwise."""
    resize: float = 30
    busy_vpc: float = 180
    """For how long a VPC still counts a deleted load balancer as a member."""


IMMEDIATE = Pace(visible=0, pending=0, shutdown=0, resize=0, busy_vpc=0)


@dataclass(kw_only=True)
class Offer:
    """What can be ordered, and how much of it."""

    sizes: dict[str, tuple[int, int, int, float]] = field(default_factory=lambda: dict(SIZES))
    regions: list[str] = field(default_factory=lambda: list(REGIONS))
    images: list[str] = field(default_factory=lambda: list(IMAGES))
    not_in_region: frozenset[tuple[str, str]] = frozenset()
    """Pairs of a size and a region that does not have it."""
    limits: Limits = field(default_factory=Limits)

    def include(self, *, size: str, region: str, image: str) -> None:
        """Offer these as well: a rehearsal takes what the real cloud may have, and this extract does not."""
        self.sizes.setdefault(size, SIZES["s-1vcpu-1gb"])
        self.regions += [region] if region not in self.regions else []
        self.images += [image] if image not in self.images else []

    def size_shown(self, slug: str) -> Json:
        """Return a size as the API shows it."""
        memory, vcpus, disk, price = self.sizes[slug]
        return {
            "slug": slug,
            "memory": memory,
            "vcpus": vcpus,
            "disk": disk,
            "transfer": 1.0,
            "price_monthly": price,
            "price_hourly": round(price / 672, 5),
            "regions": [name for name in self.regions if (slug, name) not in self.not_in_region],
            "available": True,
            "description": "Basic",
        }

    def region_shown(self, slug: str) -> Json:
        """Return a region as the API shows it."""
        sizes = [size for size in self.sizes if (size, slug) not in self.not_in_region]
        return {"slug": slug, "name": slug.upper(), "available": True, "features": ["backups", "ipv6"], "sizes": sizes}

    def image_shown(self, slug: str) -> Json:
        """Return an image of a distribution as the API shows it."""
        name, _, version = slug.partition("-")
        number = 100 + self.images.index(slug)
        return {
            "id": number,
            "slug": slug,
            "name": version,
            "distribution": name.title(),
            "type": "base",
            "public": True,
            "status": "available",
            "regions": list(self.regions),
            "min_disk_size": 7,
            "created_at": "2026-01-01T00:00:00Z",
        }
