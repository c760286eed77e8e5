"""The resources of a DigitalOcean account, and how the API shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rehearsal.accounts.digitalocean_catalogue import Json, Offer

CREATED_AT = "2026-01-01T00:00:00Z"


@dataclass(kw_only=True)
class Droplet:
    """A droplet, as it was asked for and as it is now. Its disk only ever grows."""

    id: int
    asked: Json
    tags: set[str]
    size: str
    disk: int
    vpc: str
    status: str = "new"
    address: str = ""
    private_address: str = ""
    busy_until: float = 0
    off_at: float | None = None
    """When the shutdown that was asked for ends."""
    is_on: Callable[[], bool] | None = None
    """Whether the machine runs, if the caller of `booted` can tell."""
    hung: bool = False
    """Whether the guest ignores a request to shut down."""

    def shown(self, offer: Offer) -> Json:
        """Return the droplet as the API shows it. Addresses come with the machine."""
        addresses = [("private", self.private_address), ("public", self.address)] if self.address else []
        memory, vcpus, *_ = offer.sizes[self.size]
        return {
            "id": self.id,
            "name": self.asked["name"],
            "memory": memory,
            "vcpus": vcpus,
            "disk": self.disk,
            "locked": False,
            "status": self.status,
            "created_at": CREATED_AT,
            "features": [name for name in ("ipv6", "monitoring", "backups") if self.asked.get(name)]
            + ["private_networking"],
            "image": offer.image_shown(self.asked["image"]),
            "size": offer.size_shown(self.size),
            "size_slug": self.size,
            "networks": {"v4": [_network(kind, address) for kind, address in addresses], "v6": []},
            "region": offer.region_shown(self.asked["region"]),
            "tags": sorted(self.tags),
            "vpc_uuid": self.vpc,
            "volume_ids": [],
        }


@dataclass(kw_only=True)
class LoadBalancer:
    """A load balancer, as it was asked for last. It has no address while it starts."""

    id: str
    asked: Json
    address: str = ""

    def shown(self, droplets: list[int]) -> Json:
        """Return the load balancer as the API shows it, with the ids of the droplets that it sends requests to."""
        region = self.asked["region"]
        return {
            **self.asked,
            "id": self.id,
            "ip": self.address,
            "status": "active" if self.address else "new",
            "type": "REGIONAL",
            "algorithm": "round_robin",
            "size": "",
            "created_at": CREATED_AT,
            "region": {"slug": region, "name": region},
            "sticky_sessions": {"type": "none"},
            "droplet_ids": droplets,
            "network": "EXTERNAL",
            "network_stack": "IPV4",
        }


@dataclass(kw_only=True)
class Vpc:
    """A private network. `busy_until` is when it has forgotten its last load balancer."""

    id: str
    asked: Json
    ip_range: str
    default: bool
    busy_until: float = 0

    def shown(self) -> Json:
        """Return the VPC as the API shows it."""
        return {
            "id": self.id,
            "urn": f"do:vpc:{self.id}",
            "name": self.asked["name"],
            "description": self.asked.get("description", ""),
            "region": self.asked["region"],
            "ip_range": self.ip_range,
            "default": self.default,
            "created_at": CREATED_AT,
        }


@dataclass(kw_only=True)
class ReservedIp:
    """A reserved address and its droplet."""

    ip: str
    region: str
    droplet: int | None = None
    busy_until: float = 0


@dataclass(kw_only=True)
class Action:
    """Something that takes its time."""

    id: int
    type: str
    resource: str
    done_at: float

    def shown(self, now: float) -> Json:
        """Return the action as the API shows it."""
        done = {"status": "completed", "completed_at": CREATED_AT} if now >= self.done_at else {"status": "in-progress"}
        return {"id": self.id, "type": self.type, "started_at": CREATED_AT, **done}


def _network(kind: str, address: str) -> Json:
    mask = "255.255.240.0" if kind == "private" else "255.255.255.224"
    return {"ip_address": address, "netmask": mask, "gateway": "", "type": kind}
