"""The stacks of pull requests in an AWS account: found by their tags, and deleted where their state is lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from decant.clouds.aws.inventory import alive, described
from decant.clouds.aws.session import Session, connect
from decant.clouds.inventory import StackInAccount
from decant.clouds.reviews import ReviewStack, in_use, when_free
from decant.errors import CloudApiError
from decant.settings.model import EXPIRES_FORMAT, is_review_stack

PROJECT_TAG, STACK_TAG, EXPIRES_TAG = "decant:project", "decant:stack", "decant:expires"

BUSY = ("DependencyViolation", "InvalidIPAddress.InUse", "VolumeInUse", "InvalidNetworkInterface.InUse")

# For each kind of resource that a review stack has, by the beginning of its id: its name for people, and the call that
# deletes it. They are in the order in which they can be deleted. Rules and associations go with what they belong to.
CALLS = {
    "i": ("instance", "terminate_instances", "InstanceIds"),
    "eipalloc": ("Elastic IP", "release_address", "AllocationId"),
    "key": ("key pair", "delete_key_pair", "KeyPairId"),
    "eni": ("network interface", "delete_network_interface", "NetworkInterfaceId"),
    "vol": ("volume", "delete_volume", "VolumeId"),
    "sg": ("security group", "delete_security_group", "GroupId"),
    "subnet": ("subnet", "delete_subnet", "SubnetId"),
    "rtb": ("route table", "delete_route_table", "RouteTableId"),
    "igw": ("internet gateway", "delete_internet_gateway", "InternetGatewayId"),
    "vpc": ("VPC", "delete_vpc", "VpcId"),
}


def find(account: StackInAccount) -> list[ReviewStack]:
    """The review stacks of the project in the region of the account.

    Raises:
        CloudApiError: the API cannot be asked.
    """
    session = connect(account.provider, account.environ)
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    keys = [{"Name": "key", "Values": [PROJECT_TAG, STACK_TAG, EXPIRES_TAG]}]
    for tag in session.every("ec2", "describe_tags", "Tags", Filters=keys):
        tags[tag["ResourceId"]][tag["Key"]] = tag["Value"]
    stacks: dict[tuple[str, datetime], set[str]] = defaultdict(set)
    instances = set()
    for identity, values in tags.items():
        expires = _expires(values.get(EXPIRES_TAG, ""))
        stack = values.get(STACK_TAG, "")
        if expires and values.get(PROJECT_TAG) == account.project and is_review_stack(stack) and _kind(identity):
            stacks[stack, expires].add(identity)
            if _kind(identity) == "i":
                instances.add(identity)
    gone = instances - alive(session, instances)
    return [
        ReviewStack(stack=stack, expires=expires, ids=frozenset(ids - gone))
        for (stack, expires), ids in sorted(stacks.items())
        if ids - gone
    ]


def _expires(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, EXPIRES_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def _kind(identity: str) -> str:
    """The beginning of an id, where a review stack may have such a resource; else empty."""
    kind = identity.partition("-")[0]
    return kind if kind in CALLS else ""


def remove(account: StackInAccount, review: ReviewStack, others: Collection[str]) -> list[str]:
    """Delete what `find` has found of a review stack.

    Raises:
        StackError: some of it is another stack's, or an instance is in a network that is not this stack's.
        CloudApiError: the API refused, or cannot be asked.
    """
    session = connect(account.provider, account.environ)
    for identity in sorted(review.ids.intersection(others)):
        raise in_use(review.stack, f"{CALLS[_kind(identity)][0]} {identity}", "is in the state of another stack")
    _check_networks(session, account.project, review)
    order = list(CALLS)
    deleted = []
    for identity in sorted(review.ids, key=lambda one: (order.index(_kind(one)), one)):
        when_free(_deletion(session, identity), lambda error: error.code in BUSY)
        deleted.append(f"{CALLS[_kind(identity)][0]} {identity}")
    return deleted


def _check_networks(session: Session, project: str, review: ReviewStack) -> None:
    """Instances of the stack are in a VPC of the stack: who may tag another one could have it terminated else.

    Raises:
        StackError: an instance is in another VPC.
        CloudApiError: the API cannot be asked.
    """
    instances = {identity for identity in review.ids if _kind(identity) == "i"}
    networks = {one["InstanceId"]: one["VpcId"] for one in described(session, instances) if one.get("VpcId")}
    if not networks:
        return
    tags = {"vpc-id": sorted(set(networks.values())),
            f"tag:{PROJECT_TAG}": [project], f"tag:{STACK_TAG}": [review.stack]}  # fmt: skip
    filters = [{"Name": name, "Values": values} for name, values in tags.items()]
    own = {one["VpcId"] for one in session.every("ec2", "describe_vpcs", "Vpcs", Filters=filters)}
    for identity, network in sorted(networks.items()):
        if network not in own:
            raise in_use(review.stack, f"instance {identity}", f"is in VPC {network}, which does not have it")


def _deletion(session: Session, identity: str) -> Callable[[], None]:
    _, operation, argument = CALLS[_kind(identity)]
    value = [identity] if argument.endswith("Ids") else identity

    def delete() -> None:
        try:
            _detach(session, identity)
            session.ask("ec2", operation, **{argument: value})
        except CloudApiError as error:
            if not error.code.endswith(".NotFound"):
                raise

    return delete


def _detach(session: Session, identity: str) -> None:
    """Take an internet gateway off its VPC, and a route table off its subnets: AWS does not delete them before."""
    if _kind(identity) == "igw":
        described = session.ask("ec2", "describe_internet_gateways", InternetGatewayIds=[identity])
        for attachment in described["InternetGateways"][0].get("Attachments") or ():
            session.ask("ec2", "detach_internet_gateway", InternetGatewayId=identity, VpcId=attachment["VpcId"])
    if _kind(identity) == "rtb":
        described = session.ask("ec2", "describe_route_tables", RouteTableIds=[identity])
        for association in described["RouteTables"][0].get("Associations") or ():
            session.ask("ec2", "disassociate_route_table", AssociationId=association["RouteTableAssociationId"])
