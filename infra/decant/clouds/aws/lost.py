"""What a killed command has made on AWS without Pulumi's knowing.

Only what is inside of the stack's own network, or has a name that Pulumi has made up for that one resource, is surely
the stack's: the tags of a colleague's stack with the same name are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from decant.clouds.aws.inventory import GONE
from decant.clouds.aws.session import Session, connect
from decant.clouds.inventory import Resource, StackInAccount
from decant.clouds.lost import NOTHING, Lost
from decant.errors import CloudApiError

Json = Mapping[str, Any]

# Making these again is no error, and leaves nothing behind: AWS keeps one of them.
AGAIN = (
    "aws:ec2/eipAssociation:EipAssociation",
    "aws:lb/targetGroupAttachment:TargetGroupAttachment",
    "aws:lb/listenerCertificate:ListenerCertificate",
    "aws:acm/certificateValidation:CertificateValidation",
)
ABSENT = ("LoadBalancerNotFound", "TargetGroupNotFound", "InvalidKeyPair.NotFound")


def find(account: StackInAccount, resource: Resource) -> Lost:
    """The resource of a pending operation. Raises CloudApiError."""
    kind, inputs = str(resource["type"]), resource.get("inputs") or {}
    if kind in AGAIN:
        return NOTHING
    if kind not in FINDERS:
        tags = f"Key=decant:project,Values={account.project} Key=decant:stack,Values={account.stack}"
        return Lost(unclear=f"look for it among: aws resourcegroupstaggingapi get-resources --tag-filters {tags}")
    session = connect(account.provider, account.environ)
    try:
        ids = list(FINDERS[kind](session, inputs))
    except CloudApiError as error:
        if error.code not in ABSENT:
            raise
        ids = []
    ids = [one for one in ids if one not in account.ids(kind)]
    if len(ids) > 1:
        return Lost(unclear=f"more than one fits: {', '.join(ids)}")
    return Lost(id=ids[0]) if ids else NOTHING


def _filters(wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [value]} for name, value in wanted.items()]


def _listed(operation: str, key: str, identity: str, **wanted: str) -> Callable[[Session, Json], Iterator[str]]:
    """A finder by filters: `wanted` maps names of filters, with _ for -, to the inputs that hold their values."""

    def found(session: Session, inputs: Json) -> Iterator[str]:
        filters = _filters({name.replace("_", "-"): str(inputs[value]) for name, value in wanted.items()})
        return (str(one[identity]) for one in session.every("ec2", operation, key, Filters=filters))

    return found


def _gateways(session: Session, inputs: Json) -> Iterator[str]:
    of_network = _filters({"attachment.vpc-id": str(inputs["vpcId"])})
    found = session.every("ec2", "describe_internet_gateways", "InternetGateways", Filters=of_network)
    return (str(one["InternetGatewayId"]) for one in found)


def _tables(session: Session, inputs: Json) -> Iterator[str]:
    """A network has a main table of its own, which no stack makes."""
    of_network = _filters({"vpc-id": str(inputs["vpcId"])})
    for table in session.every("ec2", "describe_route_tables", "RouteTables", Filters=of_network):
        if not any(one.get("Main") for one in table.get("Associations") or ()):
            yield str(table["RouteTableId"])


def _associations(session: Session, inputs: Json) -> Iterator[str]:
    of_subnet = _filters({"association.subnet-id": str(inputs["subnetId"])})
    for table in session.every("ec2", "describe_route_tables", "RouteTables", Filters=of_subnet):
        for one in table["Associations"]:
            if one.get("SubnetId") == inputs["subnetId"] and table["RouteTableId"] == inputs["routeTableId"]:
                yield str(one["RouteTableAssociationId"])


def _rules(*, egress: bool) -> Callable[[Session, Json], Iterator[str]]:
    def found(session: Session, inputs: Json) -> Iterator[str]:
        wanted = {
            "IsEgress": egress, "IpProtocol": inputs["ipProtocol"],
            "FromPort": int(inputs.get("fromPort", -1)), "ToPort": int(inputs.get("toPort", -1)),
            "CidrIpv4": inputs.get("cidrIpv4"), "CidrIpv6": inputs.get("cidrIpv6"),
            "ReferencedGroupInfo": inputs.get("referencedSecurityGroupId"),
        }  # fmt: skip
        of_group = _filters({"group-id": str(inputs["securityGroupId"])})
        for rule in session.every("ec2", "describe_security_group_rules", "SecurityGroupRules", Filters=of_group):
            other = (rule.get("ReferencedGroupInfo") or {}).get("GroupId")
            told = {**{name: rule.get(name) for name in wanted}, "ReferencedGroupInfo": other}
            if told == wanted:
                yield str(rule["SecurityGroupRuleId"])

    return found


def _instances(session: Session, inputs: Json) -> Iterator[str]:
    """The stack's key has a name that Pulumi has made up."""
    wanted = _filters({"subnet-id": str(inputs["subnetId"]), "key-name": str(inputs["keyName"])})
    name = (inputs.get("tags") or {}).get("Name")
    for reservation in session.every("ec2", "describe_instances", "Reservations", Filters=wanted):
        for one in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in one.get("Tags") or ()}
            if one["State"]["Name"] not in GONE and tags.get("Name") == name:
                yield str(one["InstanceId"])


def _of_balancers(operation: str, key: str, identity: str) -> Callable[[Session, Json], Iterator[str]]:
    def found(session: Session, inputs: Json) -> Iterator[str]:
        return (str(one[identity]) for one in session.every("elbv2", operation, key, Names=[str(inputs["name"])]))

    return found


def _listeners(session: Session, inputs: Json) -> Iterable[str]:
    found = session.every("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=inputs["loadBalancerArn"])
    return [str(one["ListenerArn"]) for one in found if one["Port"] == int(inputs["port"])]


FINDERS: dict[str, Callable[[Session, Json], Iterable[str]]] = {
    "aws:ec2/subnet:Subnet": _listed("describe_subnets", "Subnets", "SubnetId", vpc_id="vpcId", cidr_block="cidrBlock"),
    "aws:ec2/internetGateway:InternetGateway": _gateways,
    "aws:ec2/routeTable:RouteTable": _tables,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _associations,
    "aws:ec2/securityGroup:SecurityGroup": _listed(
        "describe_security_groups", "SecurityGroups", "GroupId", vpc_id="vpcId", group_name="name"
    ),
    "aws:ec2/keyPair:KeyPair": _listed("describe_key_pairs", "KeyPairs", "KeyName", key_name="keyName"),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _rules(egress=False),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _rules(egress=True),
    "aws:ec2/instance:Instance": _instances,
    "aws:lb/loadBalancer:LoadBalancer": _of_balancers("describe_load_balancers", "LoadBalancers", "LoadBalancerArn"),
    "aws:lb/targetGroup:TargetGroup": _of_balancers("describe_target_groups", "TargetGroups", "TargetGroupArn"),
    "aws:lb/listener:Listener": _listeners,
}
"""For each type of resource: what asks AWS for it. The ids are those that Pulumi's provider gives."""
