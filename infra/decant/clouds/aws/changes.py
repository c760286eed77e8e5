"""What a preview's steps mean on AWS: docs/aws.md says how long visitors notice each."""

from __future__ import annotations

from decant.clouds.changes import BALANCER, MACHINES, Certificate, CloudChanges, Inputs, Opening, Record, known, peer

INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
RECORD = "aws:route53/record:Record"
CERTIFICATE = "aws:acm/certificate:Certificate"
# Seconds that resolvers keep an alias to a load balancer:
# https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resource-record-sets-choosing-alias-non-alias.html
ALIAS_TTL = 60


def _openings(kind: str, name: str, inputs: Inputs) -> tuple[Opening, ...]:
    """Whom a rule of a security group lets in. Each rule of the load balancer's group has a name that says so."""
    if kind != INGRESS:
        return ()
    other_group = BALANCER if name.endswith("-from-balancer") else "the members of another security group"
    networks = [inputs[source] for source in ("cidrIpv4", "cidrIpv6", "prefixListId") if inputs.get(source)]
    protocol = known(inputs.get("ipProtocol"))
    return (
        Opening(
            port=_ports(inputs, protocol),
            protocol="" if protocol == "-1" else protocol,
            of=BALANCER if name.startswith("balancer-") else MACHINES,
            peer=peer(networks[0]) if networks else other_group,
        ),
    )


def _ports(inputs: Inputs, protocol: str) -> str:
    """The ports of a rule. For ICMP the fields hold type and code."""
    if protocol not in ("tcp", "udp"):
        return ""
    first, last = known(inputs.get("fromPort")), known(inputs.get("toPort"))
    return first if first == last else f"{first}-{last}"


def _record(kind: str, name: str, inputs: Inputs) -> Record | None:
    if kind != RECORD:
        return None
    values = inputs.get("records")
    return Record(
        name=known(inputs.get("name")) or name.partition("-")[2],
        type=known(inputs.get("type")),
        value=", ".join(map(known, values)) if isinstance(values, list) else "",
        ttl=int(inputs.get("ttl") or ALIAS_TTL),
        validates=name.startswith("validation-"),
    )


def _certificate(kind: str, name: str, inputs: Inputs) -> Certificate | None:
    if kind != CERTIFICATE:
        return None
    domain = known(inputs.get("domainName"))
    return Certificate(names=(domain,) if domain else (), own="certificateBody" in inputs)


CHANGES = CloudChanges(
    title="AWS",
    machine="aws:ec2/instance:Instance",
    size="instanceType",
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-resize.html
    stopping=frozenset({"instanceType", "userData", "userDataBase64", "ebsOptimized"}),
    running=frozenset(
        {"creditSpecification", "metadataOptions", "monitoring", "tags", "tagsAll", "vpcSecurityGroupIds"}
    ),
    stop="AWS stops it for that, and the site is away for a minute or two",
    of_one_machine=(
        "aws:ec2/eipAssociation:EipAssociation",
        "aws:lb/targetGroupAttachment:TargetGroupAttachment",
    ),
    address="aws:ec2/eip:Eip",
    address_output="publicIp",
    balancer="aws:lb/loadBalancer:LoadBalancer",
    balancer_output="dnsName",
    openings=_openings,
    opening_inputs=frozenset(
        {"ipProtocol", "fromPort", "toPort", "cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId"}
    ),
    record=_record,
    certificate=_certificate,
    validation="aws:acm/certificateValidation:CertificateValidation",
)
