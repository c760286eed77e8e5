"""Doubles of what the AWS provider looks up: each takes a look-up's arguments and returns what the real one returns."""

from __future__ import annotations

from typing import Any

from rehearsal.accounts.aws import Account, Instance
from rehearsal.accounts.aws_catalogue import DEBIAN, REGION, Image
from rehearsal.accounts.base import CloudError
from rehearsal.doubles.aws.provider import ask, refused
from rehearsal.errors import UnknownResourceError


def _filters(arguments: dict[str, Any]) -> dict[str, list[str]]:
    return {item["name"]: item["values"] for item in arguments.get("filters", [])}


class LookUps:
    """The look-ups in one account."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def zones(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the region's zones."""
        every = _filters(arguments).get("opt-in-status") != ["opt-in-not-required"]
        zones = ask(
            "reading EC2 Availability Zones",
            "EC2: DescribeAvailabilityZones",
            lambda: self.account.describe_zones(all_zones=every),
        )
        ids = [f"id-of-{zone}" for zone in zones]
        return {"id": REGION, "names": zones, "zoneIds": ids, "state": arguments["state"]}

    def image(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the newest image of Debian with a name, or the one with an id.

        Everybody may publish an image under any name, so a name requires an owner.
        """
        filters = _filters(arguments)
        found: Image | None
        if "image-id" in filters:
            found = self.account.images.get(filters["image-id"][0])
        else:
            if arguments.get("owners") != [DEBIAN] or not arguments.get("mostRecent"):
                raise UnknownResourceError("getAmi: its double returns an image only for Debian and with mostRecent")
            (pattern,), (architecture,) = filters["name"], filters["architecture"]
            found = ask(
                "reading EC2 AMIs", "EC2: DescribeImages", lambda: self.account.describe_images(pattern, architecture)
            )
        if found is None:
            raise refused("Your query returned no results. Please change your search criteria and try again.")
        return {"id": found.id, "imageId": found.id, "name": found.name, "architecture": found.architecture}

    def instance(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return one machine, by its id. The provider itself looks for no state."""
        try:
            found: Instance = self.account.describe_instance(arguments["instanceId"])
        except CloudError as error:
            if error.code != "InvalidInstanceID.NotFound":
                raise
            raise refused("no matching EC2 Instance found") from None
        return {
            "id": found.id,
            "ami": found.image.id,
            "availabilityZone": found.zone,
            "instanceState": found.state,
            "instanceType": found.kind.name,
            "privateIp": found.private_address,
            "publicIp": found.public_address,
        }

    def instances(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the ids of the machines that match; without a state, only those that run."""
        filters = _filters(arguments)
        if "instance-state-name" not in filters:
            filters["instance-state-name"] = arguments.get("instanceStateNames") or ["running"]
        filters |= {f"tag:{name}": [value] for name, value in arguments.get("instanceTags", {}).items()}
        found = ask("reading EC2 Instances", "EC2: DescribeInstances", lambda: self.account.describe_instances(filters))
        return {"id": REGION, "ids": [one.id for one in found]}

    def instance_type(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what an instance type has."""
        name = arguments["instanceType"]
        kind = ask(
            f"reading EC2 Instance Type ({name})",
            "EC2: DescribeInstanceTypes",
            lambda: self.account.describe_type(name),
        )
        return {
            "id": kind.name,
            "instanceType": kind.name,
            "supportedArchitectures": [kind.architecture],
            "defaultVcpus": kind.vcpus,
            "memorySize": kind.memory,
            "burstablePerformanceSupported": kind.burstable,
        }

    def offerings(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return which zones offer which of the types; none at all is no error."""
        if arguments.get("locationType") != "availability-zone":
            raise UnknownResourceError("getInstanceTypeOfferings: its double knows availability zones alone")
        found = ask(
            "reading EC2 Instance Type Offerings",
            "EC2: DescribeInstanceTypeOfferings",
            lambda: self.account.describe_offerings(_filters(arguments)["instance-type"]),
        )
        return {
            "id": REGION,
            "instanceTypes": [name for name, _ in found],
            "locations": [zone for _, zone in found],
            "locationTypes": ["availability-zone" for _ in found],
        }

    def quota(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return a quota of EC2."""
        code = arguments["quotaCode"]
        if arguments["serviceCode"] != "ec2":
            raise UnknownResourceError("getServiceQuota: its double knows quotas of EC2 alone")
        value = ask(
            "reading Service Quotas Service Quota",
            "Service Quotas: GetServiceQuota",
            lambda: self.account.get_quota(code),
        )
        return {"id": code, "quotaCode": code, "serviceCode": "ec2", "value": value}

    def zone(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return a public zone of Route 53 by its name."""
        if arguments.get("privateZone"):
            raise UnknownResourceError("getZone: its double knows public zones alone")
        found = self.account.dns.find_zone(arguments["name"])
        if found is None:
            raise refused("no matching Route 53 Hosted Zone found")
        return {"id": found.id, "zoneId": found.id, "name": found.name, "nameServers": found.name_servers}

    def certificate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the newest certificate that AWS has issued for a name.

        The provider finds nothing by tags and types together, and mixes no statuses.
        """
        (status,) = arguments["statuses"]
        if arguments.get("types") != ["AMAZON_ISSUED"] or not arguments.get("mostRecent") or arguments.get("tags"):
            raise UnknownResourceError("getCertificate: its double wants types AMAZON_ISSUED, mostRecent and no tags")
        found = self.account.acm.find(arguments["domain"], status)
        if not found:
            raise refused(f"no ACM Certificate matching domain ({arguments['domain']})")
        return {"id": found[-1].arn, "arn": found[-1].arn, "domain": found[-1].name, "status": status}
