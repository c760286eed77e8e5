"""An AWS account in memory: what AWS allows, refuses and lists, in its own words.

It is the one description of AWS for the doubles of a rehearsal, for the stand-in of the engine's tests and for the unit
tests. Each method is a call of AWS's API and raises CloudError where AWS would answer with that error.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rehearsal.accounts import aws_catalogue as catalogue
from rehearsal.accounts import base
from rehearsal.accounts.aws_catalogue import Image, InstanceType, Limits
from rehearsal.accounts.aws_names import Acm, Route53
from rehearsal.accounts.base import Clock, CloudError, RateLimit, Store

LISTED = 3600  # seconds for which a terminated instance is still listed
TERMINATED = "terminated"
RUNNING = ("pending", "running")
"""The states in which an instance counts against the quota of vCPUs."""


@dataclass(kw_only=True)
class Instance:
    """A machine. `ended` is the time of its termination."""

    id: str
    kind: InstanceType
    image: Image
    zone: str
    vpc: str
    tags: Mapping[str, str]
    state: str = "pending"
    credits: str = ""
    own_address: str = ""
    """The public address that it got when it was started."""
    elastic_address: str = ""
    private_address: str = ""
    ended: float | None = None

    @property
    def public_address(self) -> str:
        """The address at which it is reached; none while it does not run."""
        return self.elastic_address or (self.own_address if self.state in RUNNING else "")

    def matches(self, filters: Mapping[str, Iterable[str]]) -> bool:
        """Whether DescribeInstances lists it with these filters. A filter that this double lacks is an error."""
        facts = {
            "instance-state-name": self.state,
            "instance-type": self.kind.name,
            "architecture": self.kind.architecture,
            "availability-zone": self.zone,
            "vpc-id": self.vpc,
            **{f"tag:{name}": value for name, value in self.tags.items()},
        }
        for name in filters:
            if not name.startswith("tag:") and name not in facts:
                raise CloudError(400, "InvalidParameterValue", f"The filter '{name}' is invalid")
        return all(facts.get(name, "") in list(values) for name, values in filters.items())


@dataclass(kw_only=True)
class Moods:
    """What an account may be like besides its limits."""

    balancers: bool = True
    """False: load balancers are not available before AWS's support has looked at the account."""
    scarce: set[tuple[str, str]] = field(default_factory=set)
    """Types and zones for which AWS has no computer left."""
    unusable_key: bool = False
    """Disks are encrypted by a key that the caller may not use."""


class Account(base.Account):
    """One account in one region, with its default VPC and nothing else in it at first.

    `delay` is the time in seconds after which a new instance is found by other calls than the one that made it.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        rate: RateLimit | None = None,
        *,
        limits: Limits | None = None,
        moods: Moods | None = None,
        delay: float = 0,
    ) -> None:
        super().__init__(clock, rate)
        self.limits = limits or Limits()
        self.moods = moods or Moods()
        self.types = dict(catalogue.TYPES)
        self.images = dict(catalogue.IMAGES)
        self.instances: Store[Instance] = Store(self.clock, catalogue.NO_INSTANCE, delay)
        self.vpcs: Store[str] = Store(self.clock, catalogue.NO_VPC)
        self.addresses: Store[str] = Store(self.clock, catalogue.NO_ADDRESS)
        self.balancers: Store[str] = Store(self.clock, catalogue.NO_BALANCER)
        self.dns = Route53(self.clock, self.new_id)
        self.acm = Acm(self.clock, self.new_id, self.dns)
        self.stopped: list[str] = []
        """The instances that were ever stopped, in order."""
        self.vpcs.add("vpc-default", "172.31.0.0/16")

    def new_id(self, prefix: str) -> str:
        """Return an id as AWS makes them."""
        return f"{prefix}-0{self.number():016x}"

    # -------------------------------------------------------------------------------------------- what is offered

    def describe_zones(self, *, all_zones: bool) -> list[str]:
        """Return the region's zones, with those that an account must opt in to or without them."""
        self.called()
        return [catalogue.LOCAL_ZONE, *catalogue.ZONES] if all_zones else list(catalogue.ZONES)

    def describe_type(self, name: str) -> InstanceType:
        """Return what AWS tells of an instance type."""
        self.called()
        if name not in self.types:
            raise catalogue.unknown_type(name)
        return self.types[name]

    def describe_offerings(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Return types and the zones that offer them; a type that there is not is no error here."""
        self.called()
        return [(name, zone) for name in names if name in self.types for zone in self.types[name].zones]

    def describe_images(self, pattern: str, architecture: str) -> Image | None:
        """Return the newest image of Debian with such a name, or None."""
        self.called()
        found = [
            image
            for image in self.images.values()
            if image.architecture == architecture and fnmatch.fnmatchcase(image.name, pattern)
        ]
        return max(found, key=lambda image: image.name, default=None)

    def get_quota(self, code: str) -> int:
        """Return a quota of EC2."""
        self.called()
        if code != catalogue.STANDARD_VCPUS:
            raise CloudError(404, "NoSuchResourceException", "The request failed because the specified quota"
                             " does not exist.")  # fmt: skip
        return self.limits.vcpus

    # -------------------------------------------------------------------------------------------- instances

    def run_instance(
        self, *, type_name: str, image: str, zone: str, vpc: str, tags: Mapping[str, str], credits: str = ""
    ) -> Instance:
        """Make a machine, which then boots: `booted` ends that."""
        self.called()
        if type_name not in self.types:
            raise catalogue.wrong_type(type_name)
        kind = self.types[type_name]
        if image not in self.images:
            raise CloudError(400, "InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
        if kind.architecture != self.images[image].architecture:
            raise catalogue.other_architecture(kind, self.images[image].architecture)
        self._check_credits(kind, credits)
        self._check_start(kind, zone)
        made = Instance(
            id=self.new_id("i"), kind=kind, image=self.images[image], zone=zone, vpc=vpc, tags=dict(tags),
            credits=credits,
        )  # fmt: skip
        self.instances.add(made.id, made)
        return made

    def booted(self, identity: str, public_address: str, private_address: str) -> None:
        """Tell that a machine runs, at which addresses. Other calls find it after `delay` seconds."""
        instance = self.instances[identity]
        instance.own_address, instance.private_address = public_address, private_address
        instance.state = "running"
        if self.moods.unusable_key:
            self._end(instance)
        self.instances.add(identity, instance)

    def describe_instance(self, identity: str) -> Instance:
        """Return a machine. One that was terminated is listed for an hour, without its addresses."""
        self.called()
        return self._listed(identity)

    def describe_instances(self, filters: Mapping[str, Iterable[str]]) -> list[Instance]:
        """Return the machines that match all filters."""
        self.called()
        return [one for one in self.instances.visible() if not self._is_forgotten(one) and one.matches(filters)]

    def stop_instance(self, identity: str) -> None:
        """Stop a machine. It keeps its disk and loses its public address."""
        instance = self._changeable(identity, "stopped")
        instance.state = "stopped"
        self.stopped.append(identity)

    def start_instance(self, identity: str) -> None:
        """Start a stopped machine."""
        instance = self._changeable(identity, "started")
        if instance.state == "stopped":
            self._check_start(instance.kind, instance.zone)
            instance.state = "running"

    def modify_type(self, identity: str, type_name: str) -> None:
        """Give a stopped machine another type. Whether there is a place for it shows only when it is started."""
        instance = self._changeable(identity, "modified")
        if instance.state != "stopped":
            message = f"The instance '{identity}' is not in the 'stopped' state."
            raise CloudError(400, "IncorrectInstanceState", message)
        if type_name not in self.types:
            raise catalogue.wrong_type(type_name)
        kind = self.types[type_name]
        if kind.architecture != instance.kind.architecture:
            raise catalogue.other_architecture(kind, instance.kind.architecture)
        instance.kind = kind

    def modify_credits(self, identity: str, credits: str) -> None:
        """Let a machine of a burstable type use CPU time beyond its share ("unlimited"), or not ("standard")."""
        instance = self._changeable(identity, "modified")
        self._check_credits(instance.kind, credits)
        instance.credits = credits

    def terminate_instance(self, identity: str) -> None:
        """Delete a machine with its disk. Doing it twice is no error for an hour."""
        self.called()
        instance = self._listed(identity)
        if instance.ended is None:
            self._end(instance)

    def _listed(self, identity: str) -> Instance:
        found = self.instances.get(identity)
        if self._is_forgotten(found):
            error = catalogue.NO_INSTANCE
            raise CloudError(error.status, error.code, error.message.replace("{}", identity))
        return found

    def _is_forgotten(self, instance: Instance) -> bool:
        return instance.ended is not None and self.clock.now() >= instance.ended + LISTED

    def _end(self, instance: Instance) -> None:
        instance.state, instance.ended, instance.elastic_address = TERMINATED, self.clock.now(), ""

    def _changeable(self, identity: str, change: str) -> Instance:
        self.called()
        instance = self._listed(identity)
        if instance.state == TERMINATED:
            message = f"This instance '{identity}' is not in a state from which it can be {change}."
            raise CloudError(400, "IncorrectInstanceState", message)
        return instance

    def _check_credits(self, kind: InstanceType, credits: str) -> None:
        if credits and not kind.burstable:
            message = f"The {kind.name} instance type does not support T2/T3 Unlimited."
            raise CloudError(400, "InvalidParameterCombination", message)

    def _check_start(self, kind: InstanceType, zone: str) -> None:
        """What AWS checks each time that a machine starts, a new one or one that was stopped."""
        if zone not in kind.zones:
            raise catalogue.not_in_zone(kind, zone)
        used = sum(one.kind.vcpus for one in self.instances.values() if one.state in RUNNING)
        if used + kind.vcpus > self.limits.vcpus:
            raise catalogue.too_many_vcpus(self.limits.vcpus)
        if (kind.name, zone) in self.moods.scarce:
            raise catalogue.no_capacity(kind, zone)

    # -------------------------------------------------------------------------------------------- the rest

    def create_vpc(self, cidr: str) -> str:
        """Make a network and return its id."""
        self.called()
        if len(self.vpcs) >= self.limits.vpcs:
            raise catalogue.TOO_MANY_VPCS
        identity = self.new_id("vpc")
        self.vpcs.add(identity, cidr)
        return identity

    def allocate_address(self) -> str:
        """Reserve an address and return its id."""
        self.called()
        if len(self.addresses) >= self.limits.addresses:
            raise catalogue.TOO_MANY_ADDRESSES
        identity = self.new_id("eipalloc")
        self.addresses.add(identity, identity)
        return identity

    def associate_address(self, identity: str, address: str) -> None:
        """Let an elastic address lead to a machine, and to no other one any more."""
        instance = self._changeable(identity, "associated")
        for other in self.instances.values():
            if other.elastic_address == address:
                other.elastic_address = ""
        instance.elastic_address = address

    def create_balancer(self, arn: str) -> None:
        """Make a load balancer."""
        self.called()
        if not self.moods.balancers:
            raise catalogue.NO_BALANCERS
        if len(self.balancers) >= self.limits.balancers:
            raise catalogue.TOO_MANY_BALANCERS
        self.balancers.add(arn, arn)

    def inventory(self) -> dict[str, list[Any]]:
        """Return what is billed, or counts against a quota, by kind."""
        kinds = {
            "instances": [one.id for one in self.instances.values() if one.state != TERMINATED],
            "vpcs": [identity for identity in self.vpcs if identity != "vpc-default"],
            "addresses": list(self.addresses),
            "balancers": list(self.balancers),
            "certificates": list(self.acm.certificates),
            "records": [" ".join(key) for zone in self.dns.zones.values() for key in zone.records],
        }
        return {kind: found for kind, found in kinds.items() if found}
