"""AWS: instances with an Elastic IP, or several in two zones behind a load balancer."""

from __future__ import annotations

import ipaddress

import pulumi

from decant.clouds.aws.instances import Aws
from decant.clouds.aws.provider import create_provider
from decant.clouds.aws.reviews import EXPIRES_TAG, PROJECT_TAG, STACK_TAG
from decant.clouds.base import Cloud, CloudSpec
from decant.settings.model import EXPIRES_FORMAT, Settings

SPEC = CloudSpec(
    title="AWS",
    settings=frozenset({"size", "image", "cpuCredits", "adminCidrs", "machines", "balancer", "dnsZone", "review"}),
    required=("adminCidrs",),
    # The smallest instance with enough memory for two releases at once.
    defaults={"size": "t3.micro", "image": "debian-13", "harden": True},
    has_account=True,
    balancer_has_no_address=True,
    # AWS's own programs read these variables, and the messages of errors name such programs.
    provider={"aws:region": (("AWS_REGION", "AWS_DEFAULT_REGION"), "eu-central-1")},
)


def create(settings: Settings) -> Cloud:
    """The stack's instances.

    Raises:
        pulumi.RunError: no administrator has an IPv4 address, or a setting of the AWS provider is wrong.
    """
    if all(ipaddress.ip_network(network).version == 6 for network in settings.admin_cidrs):
        raise pulumi.RunError(
            f"decant:adminCidrs is {', '.join(settings.admin_cidrs)}: it must hold an IPv4 network, because machines on"
            " AWS are reached by IPv4 alone\n"
            "      pulumi config set --path 'decant:adminCidrs[0]' \"$(curl -fsS4 https://checkip.amazonaws.com)/32\""
        )
    tags = {PROJECT_TAG: pulumi.get_project(), STACK_TAG: settings.stack}
    if settings.review and settings.review.expires:
        tags[EXPIRES_TAG] = settings.review.expires.strftime(EXPIRES_FORMAT)
    provider = create_provider(settings.provider, tags)
    return Aws(settings, pulumi.ResourceOptions(providers=[provider]))
