"""What AWS offers for a stack: its instance type, the zones for it, and its image, or why it cannot be had."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from decant.clouds.aws.look_ups import STANDARD_FAMILIES, USUAL_SIZE, LookUps, matching
from decant.errors import LookUpError

DEBIAN = "136693071363"  # the account that publishes Debian's images: https://wiki.debian.org/Cloud/AmazonEC2Image
DEBIAN_NAMES = {"x86_64": "amd64", "arm64": "arm64"}
"""Debian's names of architectures, by AWS's."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """An instance type of AWS. `zones` are those of the region that offer it."""

    name: str
    architecture: str
    vcpus: int
    burstable: bool
    zones: tuple[str, ...]


class Offers(LookUps):
    """What the stack's settings ask for, looked up at AWS. What cannot be had is an error, in previews, too."""

    async def size(self, name: str) -> Size:
        """The setting's instance type. Raises pulumi.RunError where AWS has none of that name, or no room for it."""
        try:
            offered = await self.ask(
                "ec2/getInstanceTypeOfferings", filters=matching(instance_type=name), locationType="availability-zone"
            )
            if not offered["locations"]:
                raise pulumi.RunError(
                    f"decant:size is {name}: AWS has no such instance type in {self.place}\n      {self._usual_size()}"
                )
            found = await self.ask("ec2/getInstanceType", instanceType=name)
        except LookUpError as error:
            raise self._unanswered("decant:size", name, error) from None
        offers = found["supportedArchitectures"]
        architectures = [one for one in offers if one in DEBIAN_NAMES]
        if not architectures:
            raise pulumi.RunError(
                f"decant:size is {name}: Debian does not run on its architecture"
                f" ({', '.join(offers)})\n      {self._usual_size()}"
            )
        size = Size(
            name=name,
            architecture=architectures[-1],
            vcpus=int(found["defaultVcpus"]),
            burstable=found["burstablePerformanceSupported"],
            zones=tuple(sorted(offered["locations"])),
        )
        self._check_credits(size)
        await self._check_fleet(size)
        return size

    def _check_credits(self, size: Size) -> None:
        credits = self.settings.cpu_credits
        if credits and not size.burstable:
            raise pulumi.RunError(
                f"decant:cpuCredits is {credits}: {size.name} always has its whole CPUs, only burstable sizes such as"
                f" {USUAL_SIZE} have credits\n      {self._remove('cpuCredits')}"
            )

    async def zones(self, size: Size, needed: int) -> list[str]:
        """The zones for the stack's subnets: those that offer the size, in the order of their names.

        Zones that an account must opt in to are left out: local zones support no load balancer.
        """
        filters = matching(opt_in_status="opt-in-not-required")
        try:
            found = await self.ask("index/getAvailabilityZones", state="available", filters=filters)
        except LookUpError as error:
            raise self._unanswered("aws:region", self.place, error) from None
        zones = sorted(set(found["names"]) & set(size.zones))
        if len(zones) >= needed:
            return zones
        where = f"in one zone of {self.place} only ({zones[0]})" if zones else f"in no zone of {self.place}"
        rest = ", and a load balancer needs machines in two" if needed > 1 else " that this account can use"
        raise pulumi.RunError(f"decant:size is {size.name}: AWS offers it {where}{rest}\n      {self._usual_size()}")

    def check_zone(self, size: Size, machine: str, zone: str) -> None:
        """Refuse a size that the zone of a machine's subnet does not offer: subnets stay in their zones."""
        if zone in size.zones:
            return
        list_sizes = self.command(
            "ec2 describe-instance-type-offerings --location-type availability-zone"
            f" --filters Name=location,Values={zone} --query 'InstanceTypeOfferings[].InstanceType'"
        )
        raise pulumi.RunError(
            f"decant:size is {size.name}: AWS does not offer it in {zone}, where {machine} is, but in"
            f" {', '.join(size.zones)}\n      {self._set('size', 'SIZE')}     (those of the zone: {list_sizes})"
        )

    async def _check_fleet(self, size: Size) -> None:
        """Refuse a fleet that alone needs more vCPUs than the account may use."""
        if not STANDARD_FAMILIES.match(size.name):
            return
        needed = self.settings.machines * size.vcpus
        try:
            quota = await self._quota()
        except LookUpError as error:
            pulumi.log.debug(f"the quota of vCPUs is not known: {error}")
            return
        if needed > quota:
            fitting = max(quota // size.vcpus, 1)
            less = self._set("machines", str(fitting)) if self.settings.machines > 1 else self._usual_size()
            raise pulumi.RunError(
                f"decant:machines is {self.settings.machines} of decant:size {size.name}: they need {needed} vCPUs, and"
                f" the account's quota in {self.place} is {quota}\n      {less}, or ask for a larger quota:\n"
                f"      {self._more_vcpus(needed + size.vcpus)}"  # one more machine, to replace one
            )

    async def image(self, size: Size) -> str:
        """The id of the setting's image: the setting itself, or Debian's newest image of that name.

        Raises:
            pulumi.RunError: there is none, or it is for another architecture than the size.
        """
        setting = self.settings.image
        if setting.startswith("ami-"):
            return await self._own_image(setting, size)
        suffix = DEBIAN_NAMES[size.architecture]
        name = setting
        named = {short: long for long, short in DEBIAN_NAMES.items()}.get(setting.rpartition("-")[2])
        if named is None:
            name = f"{setting}-{suffix}"
        elif named != size.architecture:
            raise self._other_architecture(named, size)
        filters = matching(
            name=f"{name}-*", architecture=size.architecture, virtualization_type="hvm", root_device_type="ebs"
        )
        try:
            found = await self.ask("ec2/getAmi", owners=[DEBIAN], mostRecent=True, filters=filters)
        except LookUpError as error:
            if "returned no results" not in str(error):
                raise self._unanswered("decant:image", setting, error) from None
            raise pulumi.RunError(
                f"decant:image is {setting}: Debian has no image {name}-* in {self.place}\n"
                f"      {self._remove('image')}"
            ) from None
        return str(found["id"])

    async def _own_image(self, identity: str, size: Size) -> str:
        """An image that the user names by its id. One that is gone is no error: machines that run do not need it."""
        try:
            found = await self.ask("ec2/getAmi", filters=matching(image_id=identity), includeDeprecated=True)
        except LookUpError:
            pulumi.log.warn(
                f"decant:image is {identity}: AWS does not have this image in {self.place} any more, or it is private."
                f" Machines that run keep going; no new one can start: {self._remove('image')}"
            )
            return identity
        if found["architecture"] != size.architecture:
            raise self._other_architecture(found["architecture"], size)
        return identity

    def _other_architecture(self, architecture: str, size: Size) -> pulumi.RunError:
        return pulumi.RunError(
            f"decant:image is {self.settings.image}: an image for {architecture}, and decant:size {size.name} is"
            f" {size.architecture}\n      {self._remove('image')}"
        )
