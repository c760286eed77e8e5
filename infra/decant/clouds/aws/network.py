"""The network of an AWS stack: a VPC, its public subnets, security groups and their rules."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pulumi

from decant.clouds.base import CloudComponent, when_used

if TYPE_CHECKING:
    import pulumi_aws as aws
else:
    aws = when_used("pulumi_aws")

EVERYWHERE = "0.0.0.0/0"
ZONES = 2  # an Application Load Balancer needs subnets in at least two zones
VPC = "10.90.0.0/16"
MACHINE_SUBNETS = ("10.90.0.0/24", "10.90.1.0/24")


class Subnet(NamedTuple):
    """A subnet, and the association that gives it its route to the internet."""

    subnet: aws.ec2.Subnet
    route: aws.ec2.RouteTableAssociation


class Network:
    """The stack's VPC with the subnets and the security group of its machines. Its resources belong to `cloud`."""

    def __init__(self, cloud: CloudComponent, zones: pulumi.Output[list[str]]) -> None:
        """`zones` are those that a machine of the stack can be in."""
        self.cloud = cloud
        self.label = cloud.label
        self.child = cloud.child
        tags = {"Name": self.label}
        self.vpc = aws.ec2.Vpc(
            "network",
            cidr_block=VPC,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=tags,
            opts=self.child,
        )
        self.gateway = aws.ec2.InternetGateway("gateway", vpc_id=self.vpc.id, tags=tags, opts=self.child)
        self.routes = aws.ec2.RouteTable(
            "routes",
            vpc_id=self.vpc.id,
            routes=[aws.ec2.RouteTableRouteArgs(cidr_block=EVERYWHERE, gateway_id=self.gateway.id)],
            tags=tags,
            opts=self.child,
        )
        self.machine_subnets = self._machine_subnets(zones, ZONES if cloud.settings.balancer else 1)
        self.machines = self.group("machines", "SSH from administrators; HTTP")
        # Instances depend on these: a security group without rules blocks both the step `ready` and apt.
        self.reachability: list[pulumi.Resource] = [
            *(
                self.allow_in(f"ssh-from-{re.sub(r'[:/]', '-', network)}", self.machines, 22, network)
                for network in dict.fromkeys(cloud.settings.admin_cidrs)
            ),
            self.allow_path_mtu("machines", self.machines),
            self.allow_out("machines-out", self.machines),
        ]

    def _machine_subnets(self, zones: pulumi.Output[list[str]], count: int) -> list[Subnet]:
        """Subnets for machines, each in a zone of its own. One that exists already keeps the zone in which it is."""
        made: list[Subnet] = []
        for number, cidr in enumerate(MACHINE_SUBNETS[:count], 1):
            taken = [other.subnet.availability_zone for other in made]
            zone = pulumi.Output.all(zones, *taken).apply(_first_free)
            made.append(self.subnet(f"machines-{number}", zone, cidr))
        return made

    def subnet(self, name: str, zone: pulumi.Input[str], cidr: str) -> Subnet:
        """A public subnet in a zone.

        A change of its zone is ignored. The list of zones may change, and moving the subnet to another zone would
        replace it together with its machines.
        """
        subnet = aws.ec2.Subnet(
            name,
            vpc_id=self.vpc.id,
            cidr_block=cidr,
            availability_zone=zone,
            # Set on the subnet: on an instance, this attribute reads false while the instance is stopped, and the
            # difference would replace it.
            map_public_ip_on_launch=True,
            tags={"Name": f"{self.label}-{name}"},
            opts=pulumi.ResourceOptions(parent=self.cloud, ignore_changes=["availabilityZone"]),
        )
        route = aws.ec2.RouteTableAssociation(name, subnet_id=subnet.id, route_table_id=self.routes.id, opts=self.child)
        return Subnet(subnet, route)

    def group(self, name: str, description: str) -> aws.ec2.SecurityGroup:
        """A security group without rules."""
        return aws.ec2.SecurityGroup(
            name,
            vpc_id=self.vpc.id,
            description=description,
            tags={"Name": f"{self.label}-{name}"},
            opts=self.child,
        )

    def allow_in(
        self, name: str, group: aws.ec2.SecurityGroup, port: int, source: str | aws.ec2.SecurityGroup
    ) -> aws.vpc.SecurityGroupIngressRule:
        """Let a network, or the members of another group, connect to one TCP port."""
        return aws.vpc.SecurityGroupIngressRule(
            name,
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            opts=self.child,
            **_peer(source),
        )

    def allow_out(
        self, name: str, group: aws.ec2.SecurityGroup, to: aws.ec2.SecurityGroup | None = None
    ) -> aws.vpc.SecurityGroupEgressRule:
        """Let a group's members connect to port 80 of another group, or to everything.

        Machines may connect to everything, because only the app's author knows what the app connects to.
        """
        if to is None:
            return aws.vpc.SecurityGroupEgressRule(
                name, security_group_id=group.id, ip_protocol="-1", cidr_ipv4=EVERYWHERE, opts=self.child
            )
        return aws.vpc.SecurityGroupEgressRule(
            name,
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=80,
            to_port=80,
            opts=self.child,
            **_peer(to),
        )

    def allow_path_mtu(self, name: str, group: aws.ec2.SecurityGroup) -> aws.vpc.SecurityGroupIngressRule:
        """Let in ICMP type 3 code 4, "fragmentation needed". Without it, large responses get lost behind some tunnels.

        https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules-reference.html
        """
        return aws.vpc.SecurityGroupIngressRule(
            f"{name}-path-mtu",
            security_group_id=group.id,
            ip_protocol="icmp",
            from_port=3,
            to_port=4,
            cidr_ipv4=EVERYWHERE,
            opts=self.child,
        )


def _first_free(known: list[Any]) -> str:
    """The first of the zones in which no subnet is."""
    zones, *taken = known
    return str(next(zone for zone in zones if zone not in taken))


def _peer(peer: str | aws.ec2.SecurityGroup) -> dict[str, Any]:
    """The argument of a rule that names the other side."""
    if not isinstance(peer, str):
        return {"referenced_security_group_id": peer.id}
    return {f"cidr_ipv{ipaddress.ip_network(peer).version}": peer}
