"""What is left of a stack in an AWS account, by the tags that everything of a stack has."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from decant.clouds.aws.session import Session, connect
from decant.clouds.inventory import Entry, Kept, Left, Resource, StackInAccount

TAGS_AT_ONCE = 20  # the most balancers and target groups that one call returns the tags of
GONE = ("shutting-down", "terminated")  # AWS lists an instance for about an hour after it was terminated

# For each type of EC2's tagged resources: its name for people, and what follows `aws ec2`. They are in the order in
# which they can be deleted.
# In the order in which AWS lets them go.
COMMANDS = {
    "instance": ("instance", "terminate-instances --instance-ids {id}"),
    "elastic-ip": ("Elastic IP", "release-address --allocation-id {id}"),
    "network-interface": ("network interface", "delete-network-interface --network-interface-id {id}"),
    "volume": ("volume", "delete-volume --volume-id {id}"),
    "key-pair": ("key pair", "delete-key-pair --key-pair-id {id}"),
    "security-group": ("security group", "delete-security-group --group-id {id}"),
    "subnet": ("subnet", "delete-subnet --subnet-id {id}"),  # which takes it off its route table
    "route-table": ("route table", "delete-route-table --route-table-id {id}"),
    "internet-gateway": ("internet gateway", "delete-internet-gateway --internet-gateway-id {id}"),
    "vpc": ("VPC", "delete-vpc --vpc-id {id}"),
}
WITH_ANOTHER = ("security-group-rule",)  # goes with its group


def kept(resources: Sequence[Resource]) -> list[Kept]:
    """Nothing: AWS deletes all that a stack makes."""
    del resources
    return []


def foreign(account: StackInAccount) -> str:
    """The ARNs in the state have the number of the account that the resources are in.

    Raises:
        CloudApiError: the API cannot be asked.
    """
    arns = [str((one.get("outputs") or {}).get("arn", "")).split(":") for one in account.resources]
    numbers = sorted({arn[4] for arn in arns if len(arn) > 5 and arn[4]})
    if not numbers:
        return ""
    caller = connect(account.provider, account.environ).ask("sts", "get_caller_identity")["Account"]
    if caller in numbers:
        return ""
    return f"its resources are in AWS account {', '.join(numbers)}, and the credentials are of account {caller}"


def gone(account: StackInAccount) -> list[Entry]:
    """Nothing: the provider notices by itself what is not there any more, when it refreshes and when it deletes."""
    del account
    return []


def left(account: StackInAccount) -> list[Left]:
    """All that the account still has of the stack in its region.

    The tags are the same for every stack with this name, so a resource is this stack's where the state mentions it.

    Raises:
        CloudApiError: the API cannot be asked.
    """
    session = connect(account.provider, account.environ)
    wanted = {"decant:project": account.project, "decant:stack": account.stack}
    known = json.dumps([[one.get("id"), one.get("outputs")] for one in account.resources])

    def told(found: Iterable[tuple[str, str, str]]) -> Iterator[Left]:
        return (Left(what=what, command=command, ours=f'"{identity}"' in known) for identity, what, command in found)

    return [
        *told(_balancers(session, wanted)),
        *_certificates(session, account, wanted),
        *_records(session, account),
        *told(_of_ec2(session, wanted)),
    ]


def _certificates(session: Session, account: StackInAccount, wanted: dict[str, str]) -> Iterator[Left]:
    """Certificates with the stack's tags. Nothing is asked for a stack that never had one."""
    if not account.ids("aws:acm/certificate:Certificate"):
        return
    for one in session.every("acm", "list_certificates", "CertificateSummaryList"):
        arn = one["CertificateArn"]
        tags = session.ask("acm", "list_tags_for_certificate", CertificateArn=arn)["Tags"]
        if wanted.items() <= {tag["Key"]: tag.get("Value", "") for tag in tags}.items():
            yield Left(
                what=f"certificate for {one['DomainName']}",
                command=f"aws acm delete-certificate --certificate-arn {arn} --region {session.region}",
                ours=arn in account.ids("aws:acm/certificate:Certificate"),
            )


def _records(session: Session, account: StackInAccount) -> Iterator[Left]:
    """Records have no tags: those of the state before that are still in their zones."""
    for one in account.resources:
        if one.get("type") != "aws:route53/record:Record" or not one.get("id"):
            continue
        zone, name, kind = (str(one["outputs"][key]) for key in ("zoneId", "fqdn", "type"))
        found = session.ask(
            "route53", "list_resource_record_sets", HostedZoneId=zone, StartRecordName=name, StartRecordType=kind,
            MaxItems="1",
        )["ResourceRecordSets"]  # fmt: skip
        if [(entry["Name"].rstrip("."), entry["Type"]) for entry in found] == [(name.rstrip("."), kind)]:
            yield Left(
                what=f"DNS record {name} ({kind})",
                command="delete it in the console: https://console.aws.amazon.com/route53/v2/hostedzones"
                f"#ListRecordSets/{zone}",
                ours=True,
            )


def _of_ec2(session: Session, wanted: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    kinds: dict[str, str] = {}
    found: dict[str, dict[str, str]] = {}
    filters = [{"Name": "key", "Values": list(wanted)}, {"Name": "value", "Values": list(wanted.values())}]
    for tag in session.every("ec2", "describe_tags", "Tags", Filters=filters):
        kinds[tag["ResourceId"]] = tag["ResourceType"]
        found.setdefault(tag["ResourceId"], {})[tag["Key"]] = tag["Value"]
    ours = {identity: kinds[identity] for identity, tags in found.items() if tags == wanted}
    instances = {identity for identity, kind in ours.items() if kind == "instance"}
    for identity in instances - alive(session, instances):
        del ours[identity]
    networks = [identity for identity, kind in ours.items() if kind == "vpc"]
    order = list(COMMANDS)
    for identity, kind in sorted(ours.items(), key=lambda item: order.index(item[1]) if item[1] in order else 0):
        if kind not in WITH_ANOTHER:
            name, command = COMMANDS.get(kind, (kind, "describe-tags --filters Name=resource-id,Values={id}"))
            line = f"aws ec2 {command.format(id=identity)} --region {session.region}"
            if kind == "internet-gateway" and len(networks) == 1:
                attached = f"--internet-gateway-id {identity} --vpc-id {networks[0]} --region {session.region}"
                line = f"aws ec2 detach-internet-gateway {attached} && {line}"
            yield identity, f"{name} {identity}", line


def alive(session: Session, instances: set[str]) -> set[str]:
    """Those of the instances that are not terminated."""
    return {one["InstanceId"] for one in described(session, instances) if one["State"]["Name"] not in GONE}


def described(session: Session, instances: set[str]) -> list[dict[str, Any]]:
    """What AWS knows of the instances. The filter by id is no error for one that it has forgotten."""
    if not instances:
        return []
    by_id = [{"Name": "instance-id", "Values": sorted(instances)}]
    reservations = session.every("ec2", "describe_instances", "Reservations", Filters=by_id)
    return list(itertools.chain.from_iterable(reservation["Instances"] for reservation in reservations))


def _balancers(session: Session, wanted: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for operation, key, kind in (
        ("describe_load_balancers", "LoadBalancers", "load-balancer"),
        ("describe_target_groups", "TargetGroups", "target-group"),
    ):
        field = {"load-balancer": "LoadBalancerArn", "target-group": "TargetGroupArn"}[kind]
        arns = [one[field] for one in session.every("elbv2", operation, key)]
        for start in range(0, len(arns), TAGS_AT_ONCE):
            answer = session.ask("elbv2", "describe_tags", ResourceArns=arns[start : start + TAGS_AT_ONCE])
            for described in answer["TagDescriptions"]:
                tags = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
                if wanted.items() <= tags.items():
                    arn = described["ResourceArn"]
                    yield (
                        arn,
                        f"{kind.replace('-', ' ')} {arn.partition('/')[2]}",
                        f"aws elbv2 delete-{kind} --{kind}-arn {arn} --region {session.region}",
                    )
