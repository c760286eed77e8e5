"""The site's records in Route 53, where `decant:dnsZone` names a hosted zone of the account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pulumi

from decant.clouds.aws.look_ups import LookUps
from decant.clouds.base import CloudComponent, when_used
from decant.clouds.dns import TTL, Delegation
from decant.clouds.look_up import Answer
from decant.errors import LookUpError

if TYPE_CHECKING:
    import pulumi_aws as aws
else:
    aws = when_used("pulumi_aws")


class Zones(LookUps):
    """The hosted zones of an account."""

    async def find(self, name: str) -> Answer:
        """The public zone with this name. Raises pulumi.RunError where the account has none."""
        try:
            return await self.ask("route53/getZone", name=name, privateZone=False)
        except LookUpError as error:
            if "no matching" not in str(error):
                raise self._unanswered("decant:dnsZone", name, error) from None
        make = f"aws route53 create-hosted-zone --name {name} --caller-reference {name}"
        raise pulumi.RunError(
            f"decant:dnsZone is {name}: the account has no public hosted zone of that name in Route 53\n"
            f"      {make}\n"
            f"      then set its name servers where {name} is registered; or, if the zone is elsewhere:"
            f" {self._remove('dnsZone')}"
        )


class Zone:
    """A hosted zone, which the user has made. Records in it belong to `cloud`."""

    def __init__(self, cloud: CloudComponent, name: str) -> None:
        self.cloud = cloud
        found: pulumi.Output[Answer] = pulumi.Output.from_input(name).apply(Zones(cloud.settings, cloud).find)
        self.id: pulumi.Output[str] = found.apply(_id)
        self.delegation = Delegation(name, found.apply(_name_servers), cloud.settings.site.resolvers)

    def lead_to_address(self, name: str, address: pulumi.Input[str]) -> aws.route53.Record:
        """Let a name lead to an address."""
        return aws.route53.Record(
            f"record-{name}", zone_id=self.id, name=name, type="A", ttl=TTL, records=[address], opts=self._options()
        )

    def lead_to_balancer(self, name: str, balancer: aws.lb.LoadBalancer) -> aws.route53.Record:
        """Let a name lead to a load balancer, whose addresses change. Route 53 charges nothing for such answers."""
        alias = aws.route53.RecordAliasArgs(
            name=balancer.dns_name, zone_id=balancer.zone_id, evaluate_target_health=False
        )
        return aws.route53.Record(
            f"record-{name}", zone_id=self.id, name=name, type="A", aliases=[alias], opts=self._options()
        )

    def _options(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=self.cloud, hooks=pulumi.ResourceHookBinding(before_create=[self.delegation.warning])
        )


def _id(zone: Answer) -> str:
    return str(zone["zoneId"])


def _name_servers(zone: Answer) -> Sequence[str]:
    return list(zone["nameServers"])
