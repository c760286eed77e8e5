"""Whether an AWS account can make a stack: credentials, permissions, region, size, image, quotas and tags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from decant.clouds.aws.network import ZONES
from decant.clouds.aws.offers import DEBIAN
from decant.clouds.aws.permissions import POLICY_PAGE, check_permissions
from decant.clouds.aws.quotas import Quotas
from decant.clouds.aws.session import Session, connect
from decant.clouds.checks import FOREIGN_FIX, Check, StackFacts, answered
from decant.clouds.dns import zone_check
from decant.errors import CloudApiError

MEMORY = 1024  # MiB, the least that two releases side by side need
INSTANCE = "aws:ec2/instance:Instance"
VPC = "aws:ec2/vpc:Vpc"

# What helps where the credentials are refused, by AWS's or botocore's name of the error.
CREDENTIAL_FIXES = {
    "NoCredentials": "aws configure   (or: pulumi config set aws:profile NAME; docs/aws.md, step 3)",
    "ProfileNotFound": "aws configure list-profiles, then: pulumi config set aws:profile NAME",
    "ExpiredToken": "aws sso login   (or new keys: docs/aws.md, step 3)",
    "ExpiredTokenException": "aws sso login   (or new keys: docs/aws.md, step 3)",
    "UnauthorizedSSOToken": "aws sso login",
    "SSOTokenLoad": "aws sso login",
    "TokenRetrieval": "aws sso login",
    "InvalidClientTokenId": "aws configure   (AWS does not know the access key, or the region is closed to it)",
    "SignatureDoesNotMatch": "aws configure   (the secret key is another one's, or this computer's clock is wrong)",
    "AccessDenied": "allow these credentials to assume the role of aws:assumeRoles",
    "PartialCredentials": "aws configure",
    "CredentialRetrieval": "aws sts get-caller-identity   (says more of what gets the credentials)",
}


def check(stack: StackFacts) -> list[Check]:
    """All answers about the account; only the first where the credentials do not let anything else be asked."""
    session = None
    try:
        session = connect(stack.provider, stack.environ)
        caller: str = session.ask("sts", "get_caller_identity")["Arn"]
    except CloudApiError as error:
        if session and error.code == "EndpointConnection" and session.region not in session.known_regions():
            return [_no_region(stack, f"AWS has no region {session.region}")]
        return [_no_credentials(stack, error)]
    found = Check(subject="credentials", answer="yes", detail=f"{caller}")
    return [found, *Account(stack, session, caller).checks()]


def _no_credentials(stack: StackFacts, error: CloudApiError) -> Check:
    if error.code in ("NoRegion", "InvalidRegion"):
        return _no_region(stack, str(error))
    fix = CREDENTIAL_FIXES.get(error.code, "")
    if not fix and error.status not in (401, 403):
        return Check(subject="credentials", answer="unknown", detail=str(error))
    return Check(subject="credentials", answer="no", detail=str(error), fix=fix or "aws configure")


def _no_region(stack: StackFacts, detail: str) -> Check:
    return Check(subject="region", answer="no", detail=detail, fix=stack.set_command("aws:region", "eu-central-1"))


class Account:
    """What the credentials can read of an account in the stack's region."""

    def __init__(self, stack: StackFacts, session: Session, caller: str) -> None:
        self.stack = stack
        self.settings = stack.settings
        self.session = session
        self.caller = caller
        self.type: dict[str, Any] | None = None
        """The instance type of the setting `size`, once it was found."""

    def checks(self) -> Iterator[Check]:
        """Every answer, in the order of the table. Nothing else can be asked in a region that is not open."""
        region = answered(f"region {self.session.region}", self._region, denied=POLICY_PAGE)
        yield region
        if region.answer == "no":
            return
        yield answered(
            "permissions", lambda: check_permissions(self.stack, self.session, self.caller), denied=POLICY_PAGE
        )
        yield answered(f"size {self.settings.size}", self._size, denied=POLICY_PAGE)
        if self.type:
            yield answered("zones", self._zones, denied=POLICY_PAGE)
        yield answered(f"image {self.settings.image}", self._image, denied=POLICY_PAGE)
        yield from Quotas(self.stack, self.session, self.type).checks()
        yield answered("names", self._names, denied=POLICY_PAGE)
        if self.settings.site.dns_zone:
            yield answered(f"zone {self.settings.site.dns_zone}", self._zone, denied=POLICY_PAGE)

    def _zone(self) -> Check:
        """Whether the account has the zone, and the world asks it there."""
        zone = self.settings.site.dns_zone or ""
        found = self.session.ask("route53", "list_hosted_zones_by_name", DNSName=zone, MaxItems="10")["HostedZones"]
        ids = [one["Id"] for one in found if one["Name"] == f"{zone}." and not one["Config"]["PrivateZone"]]
        if not ids:
            return Check(
                subject=f"zone {zone}",
                answer="no",
                detail="the account has no public hosted zone of that name in Route 53",
                fix=f"aws route53 create-hosted-zone --name {zone} --caller-reference {zone}",
            )
        servers = self.session.ask("route53", "get_hosted_zone", Id=ids[0])["DelegationSet"]["NameServers"]
        return zone_check(zone, servers, self.settings.site.resolvers)

    def _region(self) -> Check:
        region = self.session.region
        subject = f"region {region}"
        try:
            regions = self.session.ask("ec2", "describe_regions", AllRegions=False)["Regions"]
        except CloudApiError as error:
            if error.code in ("UnauthorizedOperation", "AuthFailure", "OptInRequired"):
                fix = f"aws account enable-region --region-name {region}, or {POLICY_PAGE}"
                return Check(subject=subject, answer="unknown", detail=str(error), fix=fix)
            raise
        names = sorted(entry["RegionName"] for entry in regions)
        if region in names:
            return Check(subject=subject, answer="yes", detail="open to the account")
        detail = f"not open to the account; open are {', '.join(names)}"
        fix = f"aws account enable-region --region-name {region}, or {self.stack.set_command('aws:region', names[0])}"
        return Check(subject=subject, answer="no", detail=detail, fix=fix)

    def _size(self) -> Check:
        size, region = self.settings.size, self.session.region
        subject, fix = f"size {size}", self.stack.set_command("decant:size", "t3.micro")
        try:
            (found,) = self.session.ask("ec2", "describe_instance_types", InstanceTypes=[size])["InstanceTypes"]
        except (CloudApiError, ValueError) as error:
            if isinstance(error, CloudApiError) and error.code != "InvalidInstanceType":
                raise
            return Check(subject=subject, answer="no", detail=f"no instance type of {region}", fix=fix)
        self.type = found
        memory = found["MemoryInfo"]["SizeInMiB"]
        architecture = ", ".join(found["ProcessorInfo"]["SupportedArchitectures"])
        vcpus = found["VCpuInfo"]["DefaultVCpus"]
        detail = f"{vcpus} vCPUs ({architecture}), {memory} MiB of memory"
        if memory < MEMORY:
            detail += f"; two releases side by side need {MEMORY}"
            return Check(subject=subject, answer="no", detail=detail, fix=fix)
        return Check(subject=subject, answer="yes", detail=detail)

    def _zones(self) -> Check:
        """Whether the size is offered in as many zones as the stack uses."""
        needed = ZONES if self.settings.balancer else 1
        offers = self.session.every(
            "ec2",
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [self.settings.size]}],
        )
        zones = sorted(offer["Location"] for offer in offers)
        usable = {
            zone["ZoneName"]
            for zone in self.session.ask(
                "ec2", "describe_availability_zones", Filters=[{"Name": "state", "Values": ["available"]}]
            )["AvailabilityZones"]
        }
        found = [zone for zone in zones if zone in usable]
        detail = f"{self.settings.size} is offered in {', '.join(found) or 'no zone'}; the stack needs {needed}"
        if len(found) >= needed:
            return Check(subject="zones", answer="yes", detail=detail)
        fix = self.stack.set_command("decant:size", "t3.micro")
        return Check(subject="zones", answer="no", detail=detail, fix=fix)

    def _image(self) -> Check:
        """Whether the image exists in the region, and is for the size's processors."""
        image = self.settings.image
        subject = f"image {image}"
        if image.startswith("ami-"):
            search: dict[str, Any] = {"ImageIds": [image]}
        else:
            search = {"Owners": [DEBIAN], "Filters": [{"Name": "name", "Values": [f"{image}-*"]}]}
        try:
            found = list(self.session.every("ec2", "describe_images", "Images", **search))
        except CloudApiError as error:
            if not error.code.startswith("InvalidAMIID"):
                raise
            found = []
        fitting = self.type["ProcessorInfo"]["SupportedArchitectures"] if self.type else ["x86_64"]
        default = "debian-13-arm64" if "arm64" in fitting else "debian-13-amd64"
        fix = self.stack.set_command("decant:image", default)
        if not found:
            detail = f"there is none in {self.session.region}"
            return Check(subject=subject, answer="no", detail=detail, fix=fix)
        # A name such as debian-13 fits images for several architectures.
        suitable = [entry for entry in found if entry["Architecture"] in fitting]
        newest = max(suitable or found, key=lambda entry: str(entry.get("CreationDate", "")))
        if newest["Architecture"] not in fitting:
            detail = f"it is for {newest['Architecture']}, and {self.settings.size} is {', '.join(fitting)}"
            return Check(subject=subject, answer="no", detail=detail, fix=fix)
        return Check(subject=subject, answer="yes", detail=f"{newest['ImageId']} ({newest['Architecture']})")

    def _names(self) -> Check:
        """Whether another state has machines or networks with this stack's tags."""
        tags = [
            {"Name": "tag:decant:project", "Values": [self.stack.project]},
            {"Name": "tag:decant:stack", "Values": [self.settings.stack]},
        ]
        states = {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}
        foreign = [
            f"instance {instance['InstanceId']}"
            for group in self.session.every("ec2", "describe_instances", "Reservations", Filters=[*tags, states])
            for instance in group["Instances"]
            if instance["InstanceId"] not in self.stack.ids(INSTANCE)
        ]
        foreign += [
            f"VPC {vpc['VpcId']}"
            for vpc in self.session.every("ec2", "describe_vpcs", "Vpcs", Filters=tags)
            if vpc["VpcId"] not in self.stack.ids(VPC)
        ]
        if not foreign:
            return Check(subject="names", answer="yes", detail=f"nothing else is tagged as {self.stack.label}")
        return Check(
            subject="names",
            answer="no",
            detail=f"{', '.join(foreign)}: tagged as this stack's, and not in its state",
            fix=FOREIGN_FIX,
            later=True,  # names end in what is the stack's own, so that both can exist
        )
