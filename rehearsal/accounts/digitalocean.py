"""A DigitalOcean account in memory: what the API (version 2) accepts and refuses, in its own words, and when.

It boots nothing. Its caller starts machines and balancers, and says so by `booted` and `balancer_started`.
Bodies and results have the shapes of https://docs.digitalocean.com/reference/api/digitalocean/.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import uuid
from collections.abc import Callable
from typing import Any

from rehearsal.accounts.base import Account, Clock, CloudError, RateLimit, Store
from rehearsal.accounts.digitalocean_catalogue import IMMEDIATE, Json, Offer, Pace
from rehearsal.accounts.digitalocean_names import NOT_FOUND, Names, refused
from rehearsal.accounts.digitalocean_resources import CREATED_AT, Action, Droplet, LoadBalancer, ReservedIp, Vpc

TOO_MANY_CALLS = CloudError(429, "too_many_requests", "API Rate limit exceeded.")
UNAUTHORIZED = CloudError(401, "unauthorized", "Unable to authenticate you")
FORBIDDEN = CloudError(403, "forbidden", "You are not authorized to perform this operation")
FIREWALL_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]*")
TAG_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,255}")


def calls_a_minute(calls: int = 250) -> RateLimit:
    """Return the API's limit of calls: https://docs.digitalocean.com/reference/api/#rate-limit."""
    return RateLimit(calls=calls, seconds=60, error=TOO_MANY_CALLS)


class DigitalOcean(Account):
    """One account. A region of `used_regions` has a default VPC already; in another one, the first VPC becomes it."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        offer: Offer | None = None,
        pace: Pace = IMMEDIATE,
        used_regions: tuple[str, ...] = (),
        rate: RateLimit | None = None,
        scopes: frozenset[str] | None = None,
    ) -> None:
        super().__init__(clock, rate)
        self.offer = offer or Offer()
        self.pace = pace
        self.scopes = scopes
        """What the token may do, such as "droplet:create". None: everything."""
        self.keys: Store[Json] = Store(self.clock, NOT_FOUND, pace.visible)
        self.vpcs: Store[Vpc] = Store(self.clock, NOT_FOUND)
        self.tags: Store[str] = Store(self.clock, NOT_FOUND)
        self.firewalls: Store[Json] = Store(self.clock, NOT_FOUND)
        self.balancers: Store[LoadBalancer] = Store(self.clock, NOT_FOUND)
        self.droplets: Store[Droplet] = Store(self.clock, NOT_FOUND, pace.visible)
        self.reserved: Store[ReservedIp] = Store(self.clock, NOT_FOUND)
        self.names = Names(self.clock, self.number)
        self.actions: Store[Action] = Store(self.clock, NOT_FOUND)
        for region in used_regions:
            self.add_vpc({"region": region, "name": f"default-{region}"})

    def authorize(self, scope: str) -> None:
        """Raise CloudError unless the token may do this."""
        if self.scopes is not None and scope not in self.scopes:
            raise FORBIDDEN

    def inventory(self) -> dict[str, list[Any]]:
        """Return what is left. A default VPC costs nothing and cannot be deleted, so it is not part of it."""
        found: dict[str, list[Any]] = {
            "keys": list(self.keys),
            "vpcs": [vpc.id for vpc in self.vpcs.values() if not vpc.default],
            "tags": list(self.tags),
            "firewalls": list(self.firewalls),
            "balancers": list(self.balancers),
            "droplets": list(self.droplets),
            "reserved": list(self.reserved),
            "certificates": [one["name"] for one in self.names.certificates.values()],
            "records": [one["name"] for domain in self.names.domains.values() for one in domain.records.values()],
        }
        return {kind: those for kind, those in found.items() if those}

    # ------------------------------------------------------------------------------------------------ SSH keys

    def add_key(self, body: Json) -> Json:
        """Register a public key, which an account can have once."""
        digest = hashlib.md5(base64.b64decode(body["public_key"].split()[1])).hexdigest()  # noqa: S324 - DO's way
        fingerprint = ":".join(digest[i : i + 2] for i in range(0, 32, 2))
        if any(key["fingerprint"] == fingerprint for key in self.keys.values()):
            raise refused("SSH Key is already in use on your account")
        number = self.number()
        shown = {"id": number, "fingerprint": fingerprint, "name": body["name"]}
        # The real one gives the key back without the newline that it may come with.
        return self.keys.add(str(number), {**shown, "public_key": body["public_key"].strip()})

    # ------------------------------------------------------------------------------------------------ networks

    def add_vpc(self, body: Json) -> Vpc:
        """Make a VPC. The first one of a region becomes the region's default."""
        if body["region"] not in self.offer.regions:
            raise refused("region is not available")
        ranges = [ipaddress.ip_network(vpc.ip_range) for vpc in self.vpcs.values()]
        if body.get("ip_range"):
            wanted = ipaddress.ip_network(body["ip_range"])
            if any(wanted.overlaps(other) for other in ranges):
                raise refused("This range/size overlaps with another VPC network in your account")
        else:
            space = ipaddress.ip_network("10.110.0.0/15").subnets(new_prefix=20)
            wanted = next(network for network in space if not any(network.overlaps(other) for other in ranges))
        first = not any(vpc.asked["region"] == body["region"] for vpc in self.vpcs.values())
        identity = str(uuid.uuid4())
        return self.vpcs.add(identity, Vpc(id=identity, asked=body, ip_range=str(wanted), default=first))

    def change_vpc(self, identity: str, body: Json) -> Vpc:
        """Change name or description, or make it the default of its region."""
        vpc = self.vpcs.get(identity)
        vpc.asked = {**vpc.asked, **{key: body[key] for key in ("name", "description") if key in body}}
        if body.get("default"):
            for other in self.vpcs.values():
                if other.asked["region"] == vpc.asked["region"]:
                    other.default = other is vpc
        return vpc

    def delete_vpc(self, identity: str) -> None:
        """Delete a VPC. A default one cannot be deleted, nor one with members."""
        vpc = self.vpcs.get(identity)
        if vpc.default:
            raise CloudError(403, "forbidden", "Can not delete default VPCs")
        members = [droplet.vpc for droplet in self.droplets.values()]
        members += [balancer.asked["vpc_uuid"] for balancer in self.balancers.values()]
        if identity in members or self.clock.now() < vpc.busy_until:
            raise CloudError(409, "conflict", "Can not delete VPC with members")
        self.vpcs.remove(identity)

    # ------------------------------------------------------------------------------------------------ tags

    def add_tag(self, name: str) -> str:
        """Make a tag. One that exists already is returned, as if it had been made: the two callers share it."""
        if not TAG_NAME.fullmatch(name):
            raise refused("Tags may contain letters, numbers, colons, dashes, and underscores.")
        return self.tags[name] if name in self.tags else self.tags.add(name, name)

    def delete_tag(self, name: str) -> None:
        """Delete a tag, and take it off everything that has it: droplets lose their firewalls and balancers."""
        self.tags.remove(name)
        for droplet in self.droplets.values():
            droplet.tags.discard(name)
        for firewall in self.firewalls.values():
            firewall["tags"] = [tag for tag in firewall["tags"] if tag != name]

    def tag_droplets(self, name: str, identities: list[str], *, tagged: bool) -> None:
        """Put a tag on droplets, or take it off them."""
        self.tags.get(name)
        for identity in identities:
            tags = self.droplets.get(identity).tags
            (tags.add if tagged else tags.discard)(name)

    # ------------------------------------------------------------------------------------------------ firewalls

    def add_firewall(self, body: Json) -> Json:
        """Make a firewall. Its name is unique in the account."""
        return self._keep_firewall(str(uuid.uuid4()), body)

    def change_firewall(self, identity: str, body: Json) -> Json:
        """Replace all that was said of a firewall."""
        self.firewalls.get(identity)
        return self._keep_firewall(identity, body)

    def _keep_firewall(self, identity: str, body: Json) -> Json:
        if not FIREWALL_NAME.fullmatch(body["name"]):
            raise refused("invalid character in name: names may contain letters, numbers, periods and dashes")
        if any(other["name"] == body["name"] and other["id"] != identity for other in self.firewalls.values()):
            raise CloudError(409, "conflict", "duplicate name")
        for tag in body.get("tags") or ():
            if tag not in self.tags:
                raise refused(f"tag {tag} does not exist")
        for rule in body.get("inbound_rules") or ():
            for balancer in rule["sources"].get("load_balancer_uids") or ():
                if balancer not in self.balancers:
                    raise refused(f"load balancer {balancer} does not exist")
        lists = {key: list(body.get(key) or ()) for key in ("tags", "droplet_ids", "inbound_rules", "outbound_rules")}
        kept = {"id": identity, "name": body["name"], **lists, "status": "succeeded", "created_at": CREATED_AT}
        return self.firewalls.add(identity, {**kept, "pending_changes": []})

    def firewalls_of(self, droplet: Droplet) -> list[Json]:
        """Return the firewalls that hold for a droplet."""
        return [firewall for firewall in self.firewalls.values() if droplet.tags & set(firewall["tags"])]

    # ------------------------------------------------------------------------------------------------ load balancers

    def add_balancer(self, body: Json) -> LoadBalancer:
        """Make a load balancer. It is new until `balancer_started`."""
        network = self._network(body)
        if body.get("tag") and body.get("droplet_ids"):
            raise refused("Only one of tag and droplet_ids can be set")
        if len(self.balancers) >= self.offer.limits.load_balancers:
            raise CloudError(403, "forbidden", "load balancer limit reached")
        if any(other.asked["name"] == body["name"] for other in self.balancers.values()):
            raise refused("Name is already in use")
        self._check_certificates(body)
        identity = str(uuid.uuid4())
        return self.balancers.add(identity, LoadBalancer(id=identity, asked={**body, "vpc_uuid": network.id}))

    def balancer_started(self, balancer: LoadBalancer, address: str) -> None:
        """Say that a load balancer runs."""
        balancer.address = address

    def change_balancer(self, identity: str, body: Json) -> LoadBalancer:
        """Replace all that was said of a load balancer. Its network stays."""
        balancer = self.balancers.get(identity)
        self._check_certificates(body)
        balancer.asked = {**body, "vpc_uuid": balancer.asked["vpc_uuid"]}
        return balancer

    def _check_certificates(self, body: Json) -> None:
        """A rule that ends HTTPS has a certificate that is there and verified, and a redirect needs such a rule."""
        ends = [rule for rule in body.get("forwarding_rules") or () if rule["entry_protocol"] == "https"]
        for rule in ends:
            identity = rule.get("certificate_id") or ""
            if identity not in self.names.certificates or self.names.certificate(identity)["state"] != "verified":
                raise refused(f"certificate {identity} was not found")
        if body.get("redirect_http_to_https") and not ends:
            raise refused("redirect_http_to_https requires a forwarding rule for https")

    def certificates_in_use(self) -> set[str]:
        """Return the ids of the certificates that load balancers have."""
        rules = [rule for balancer in self.balancers.values() for rule in balancer.asked.get("forwarding_rules") or ()]
        return {str(rule["certificate_id"]) for rule in rules if rule.get("certificate_id")}

    def delete_balancer(self, identity: str) -> LoadBalancer:
        """Delete a load balancer. Its VPC remembers it for some minutes."""
        balancer = self.balancers.remove(identity)
        vpc = balancer.asked["vpc_uuid"]
        if vpc in self.vpcs:
            self.vpcs[vpc].busy_until = self.clock.now() + self.pace.busy_vpc
        return balancer

    def targets(self, balancer: LoadBalancer) -> list[Droplet]:
        """Return the droplets that a load balancer sends requests to: those with its tag, while that exists."""
        tag = balancer.asked.get("tag") or ""
        return [droplet for droplet in self.droplets.values() if tag in droplet.tags and droplet.status != "new"]

    # ------------------------------------------------------------------------------------------------ droplets

    def add_droplet(self, body: Json) -> Droplet:
        """Make a droplet, and tags that it names and that do not exist. It is new until `booted`."""
        for kind, offered in (("region", self.offer.regions), ("size", self.offer.sizes), ("image", self.offer.images)):
            if body[kind] not in offered:
                raise refused(f"You specified an invalid {kind} for Droplet creation.")
        if (body["size"], body["region"]) in self.offer.not_in_region:
            raise refused("Size is not available in this region.")
        if len(self.droplets) >= self.offer.limits.droplets:
            raise refused("creating this/these droplet(s) will exceed your droplet limit")
        for key in body.get("ssh_keys") or ():
            if str(key) not in self.keys:
                raise refused(f"{key} are invalid key identifiers for Droplet creation.")
        vpc = self._network(body)
        number = self.number()
        droplet = Droplet(
            id=number,
            asked=body,
            tags={self.add_tag(tag) for tag in body.get("tags") or ()},
            size=body["size"],
            disk=self.offer.sizes[body["size"]][2],
            vpc=vpc.id,
        )
        return self.droplets.add(str(number), droplet)

    def _network(self, body: Json) -> Vpc:
        """Return the VPC that a resource names, else the default one of its region, which is made if there is none."""
        if body.get("vpc_uuid"):
            vpc = self.vpcs.get(body["vpc_uuid"])
            if vpc.asked["region"] != body["region"]:
                raise refused("VPC is not in the region")
            return vpc
        here = [vpc for vpc in self.vpcs.values() if vpc.asked["region"] == body["region"] and vpc.default]
        return here[0] if here else self.add_vpc({"region": body["region"], "name": f"default-{body['region']}"})

    def booted(
        self, droplet: Droplet, address: str, private_address: str, is_on: Callable[[], bool] | None = None
    ) -> None:
        """Say that a droplet's machine runs. `is_on` tells from then on whether it still does."""
        droplet.status, droplet.address, droplet.private_address = "active", address, private_address
        droplet.is_on = is_on
        droplet.busy_until = self.clock.now() + self.pace.pending

    def status(self, droplet: Droplet) -> str:
        """Return "new", "active" or "off"."""
        if droplet.status == "active":
            over = droplet.off_at is not None and self.clock.now() >= droplet.off_at
            if over if droplet.is_on is None else not droplet.is_on():
                droplet.status, droplet.off_at = "off", None
        return droplet.status

    def act_on_droplet(self, identity: str, body: Json) -> tuple[Droplet, Action]:
        """Begin an action: shutdown, power_off, power_on or resize. The caller carries it out on the machine."""
        droplet, kind = self.droplets.get(identity), body["type"]
        status, now = self.status(droplet), self.clock.now()
        if kind == "shutdown":
            if status == "active" and not droplet.hung:
                droplet.off_at = now + self.pace.shutdown
        elif kind == "power_off":
            if status == "off":
                raise refused("Droplet is already powered off.")
            droplet.status = "off"
        elif kind == "power_on":
            droplet.status, droplet.off_at = "active", None
        elif kind == "resize":
            self._resize(droplet, body, status)
        else:
            raise refused(f"{kind} is not an action that this account knows")
        return droplet, self._begin(kind, identity, self.pace.resize if kind == "resize" else 0)

    def _resize(self, droplet: Droplet, body: Json, status: str) -> None:
        """Change the size of a droplet that is off. A disk never becomes smaller."""
        size = body["size"]
        if size not in self.offer.sizes or (size, droplet.asked["region"]) in self.offer.not_in_region:
            raise refused("Size is not available in this region.")
        if status != "off":
            raise refused("Droplet is currently on. Please power it off to run this event.")
        disk = self.offer.sizes[size][2]
        if disk < droplet.disk:
            raise refused("Size can not decrease size of Droplet's disk image")
        droplet.size = size
        if body.get("disk"):
            droplet.disk = disk

    def delete_droplet(self, identity: str) -> Droplet:
        """Delete a droplet, whatever its machine does. A reserved address of it is free again."""
        droplet = self.droplets.remove(identity)
        for address in self.reserved.values():
            if address.droplet == droplet.id:
                address.droplet = None
        return droplet

    # ------------------------------------------------------------------------------------------------ addresses

    def add_reserved(self, address: str, region: str) -> ReservedIp:
        """Reserve an address, which the caller has chosen."""
        if len(self.reserved) >= self.offer.limits.reserved_ips:
            raise refused("You have reached the limit of reserved IPs for your account")
        return self.reserved.add(address, ReservedIp(ip=address, region=region))

    def act_on_reserved(self, address: str, body: Json) -> tuple[int | None, ReservedIp, Action]:
        """Assign an address to a droplet, or take it away. Returns the droplet that had it before as well."""
        reserved, now = self.reserved.get(address), self.clock.now()
        if now < reserved.busy_until:
            raise refused("The reserved IP already has a pending event.")
        before = reserved.droplet
        if body["type"] == "assign":
            droplet = self.droplets.get(str(body["droplet_id"]))
            if self.status(droplet) == "new" or now < droplet.busy_until:
                raise refused("Droplet already has a pending event.")
            reserved.droplet = droplet.id
        else:
            reserved.droplet = None
        reserved.busy_until = now + self.pace.pending
        return before, reserved, self._begin(f"{body['type']}_ip", address, self.pace.pending)

    def delete_reserved(self, address: str) -> None:
        """Give an address back."""
        if self.clock.now() < self.reserved.get(address).busy_until:
            raise refused("The reserved IP already has a pending event.")
        self.reserved.remove(address)

    # ------------------------------------------------------------------------------------------------ actions

    def _begin(self, kind: str, resource: str, seconds: float) -> Action:
        number = self.number()
        done_at = self.clock.now() + seconds
        return self.actions.add(str(number), Action(id=number, type=kind, resource=resource, done_at=done_at))

    def is_done(self, action: Action) -> bool:
        """Whether an action has been carried out."""
        return self.clock.now() >= action.done_at
