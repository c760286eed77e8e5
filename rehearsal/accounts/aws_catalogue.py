"""What AWS offers in the one region of the account in memory: zones, instance types and images, and the limits.

The numbers of instance types are AWS's own (https://aws.amazon.com/ec2/instance-types/). Which zones offer which type
differs between accounts; here it is fixed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from rehearsal.accounts.base import CloudError

REGION = "eu-central-1"
ACCOUNT = "123456789012"
DEBIAN = "136693071363"
ZONES = tuple(f"{REGION}{letter}" for letter in "abc")
LOCAL_ZONE = f"{REGION}-ber-1a"  # an account must opt in to it, and load balancers are not available there


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """A kind of machine."""

    name: str
    vcpus: int
    memory: int
    """In MiB."""
    architecture: str = "x86_64"
    burstable: bool = False
    zones: tuple[str, ...] = ZONES


TYPES = {
    kind.name: kind
    for kind in (
        InstanceType(name="t3.nano", vcpus=2, memory=512, burstable=True),
        InstanceType(name="t3.micro", vcpus=2, memory=1024, burstable=True),
        InstanceType(name="t3.small", vcpus=2, memory=2048, burstable=True),
        InstanceType(name="t3.medium", vcpus=2, memory=4096, burstable=True),
        InstanceType(name="t3.xlarge", vcpus=4, memory=16384, burstable=True),
        InstanceType(name="t4g.micro", vcpus=2, memory=1024, burstable=True, architecture="arm64"),
        InstanceType(name="t4g.small", vcpus=2, memory=2048, burstable=True, architecture="arm64"),
        InstanceType(name="m5.large", vcpus=2, memory=8192),
        InstanceType(name="m5.2xlarge", vcpus=8, memory=32768),
        InstanceType(name="c7i.large", vcpus=2, memory=4096, zones=ZONES[1:]),
        InstanceType(name="m7i-flex.large", vcpus=2, memory=8192, zones=ZONES[2:]),
    )
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """A system that a machine boots."""

    id: str
    name: str
    architecture: str


OWN_IMAGE = Image(id="ami-0123456789abcdef0", name="of-our-own", architecture="x86_64")
IMAGES = {OWN_IMAGE.id: OWN_IMAGE} | {
    image.id: image
    for image in (
        Image(
            id=f"ami-0{hashlib.sha256(name.encode()).hexdigest()[:16]}",
            name=name,
            architecture="arm64" if "-arm64-" in name else "x86_64",
        )
        for name in (
            "debian-12-amd64-20261103-2286",
            "debian-13-amd64-20261020-2271",
            "debian-13-amd64-20261103-2286",
            "debian-13-arm64-20261103-2286",
        )
    )
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The quotas of the account, each for one region. Those of an account that is a few months old."""

    vcpus: int = 64
    """Of running on-demand instances of the standard families, together. A new account has 5."""
    addresses: int = 5
    vpcs: int = 5
    """One of them is the region's default VPC, which every account has."""
    balancers: int = 50


STANDARD_VCPUS = "L-1216C47A"
"""The code of the quota for running on-demand instances of the standard families."""


def unknown_type(name: str) -> CloudError:
    """Return the answer of DescribeInstanceTypes for a type that there is not."""
    return CloudError(400, "InvalidInstanceType", f"The following supplied instance types do not exist: [{name}]")


def wrong_type(name: str) -> CloudError:
    """Return the answer of RunInstances and ModifyInstanceAttribute for a type that there is not."""
    return CloudError(400, "InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")


def not_in_zone(kind: InstanceType, zone: str) -> CloudError:
    """Return the answer for a type that a zone does not offer."""
    return CloudError(
        400,
        "Unsupported",
        f"Your requested instance type ({kind.name}) is not supported in your requested Availability Zone ({zone})."
        " Please retry your request by not specifying an Availability Zone or choosing"
        f" {', '.join(kind.zones)}.",
    )


def other_architecture(kind: InstanceType, architecture: str) -> CloudError:
    """Return the answer for an image, or an instance, with another architecture than the type's."""
    return CloudError(
        400,
        "InvalidParameterValue",
        f"The architecture '{kind.architecture}' of the specified instance type does not match the architecture"
        f" '{architecture}' of the specified AMI. Specify an instance type and an AMI that have matching"
        " architectures, and try again. You can use 'describe-instance-types' or 'describe-images' to discover the"
        " architecture of the instance type or AMI.",
    )


def too_many_vcpus(limit: int) -> CloudError:
    """Return the answer when the quota of vCPUs is reached."""
    return CloudError(
        400,
        "VcpuLimitExceeded",
        f"You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance"
        " bucket that the specified instance type belongs to. Please visit"
        " http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
    )


def no_capacity(kind: InstanceType, zone: str) -> CloudError:
    """Return the answer when AWS has no computer left for a type in a zone."""
    return CloudError(
        500,
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {kind.name} capacity in the Availability Zone you requested ({zone})."
        " Our system will be working on provisioning additional capacity.",
    )


NO_BALANCERS = CloudError(
    400,
    "OperationNotPermitted",
    "This AWS account currently does not support creating load balancers. For more information, please contact AWS"
    " Support.",
)
TOO_MANY_BALANCERS = CloudError(400, "TooManyLoadBalancers", "The maximum number of load balancers has been reached")
TOO_MANY_VPCS = CloudError(400, "VpcLimitExceeded", "The maximum number of VPCs has been reached.")
TOO_MANY_ADDRESSES = CloudError(400, "AddressLimitExceeded", "The maximum number of addresses has been reached.")
TOO_MANY_CALLS = CloudError(503, "RequestLimitExceeded", "Request limit exceeded.")
NO_INSTANCE = CloudError(400, "InvalidInstanceID.NotFound", "The instance ID '{}' does not exist")
NO_VPC = CloudError(400, "InvalidVpcID.NotFound", "The vpc ID '{}' does not exist")
NO_ADDRESS = CloudError(400, "InvalidAllocationID.NotFound", "The allocation ID '{}' does not exist")
NO_BALANCER = CloudError(400, "LoadBalancerNotFound", "One or more load balancers not found")
