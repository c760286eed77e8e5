"""Stacks of pull requests in an AWS account: found by tags, and deleted in an order that AWS takes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from decant import clouds
from decant.clouds import reviews
from decant.clouds.inventory import StackInAccount
from decant.clouds.reviews import ReviewStack
from decant.errors import CloudApiError, StackError
from tests.support import aws_reads
from tests.support.aws_reads import Json, RefusedError

PAST, FUTURE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2126, 1, 1, tzinfo=UTC)
OURS = StackInAccount(project="decant", stack="review", provider={"region": "eu-central-1"}, environ={})
IDS = ("vpc-1", "igw-1", "subnet-1", "rtb-1", "sg-1", "sgr-1", "key-1", "i-1", "eipalloc-1", "vol-1")
# What stands in the way of a deletion, by the kind of what is deleted.
NEEDED_BY = {
    "vpc": ("subnet", "rtb", "sg", "igw"),
    "igw": ("attached",),
    "subnet": ("i",),
    "rtb": ("rtbassoc",),
    "sg": ("i",),
    "vol": ("i",),
    "eipalloc": ("i",),
}


class Account(aws_reads.Account):
    """An account that deletes nothing that is in use. An instance goes some calls after it was terminated."""

    def __init__(self, tags: dict[str, dict[str, str]]) -> None:
        super().__init__()
        self.tags = tags
        self.there = {*tags, *(["attached-1", "rtbassoc-1"] if "igw-1" in tags else [])}
        self.terminated: set[str] = set()
        self.vpc = "vpc-1"
        """Where the instances are."""
        self.deleted: list[str] = []
        self.calls = 0

    def answer(self, operation: str, asked: Json) -> Json:
        self.calls += 1
        if self.calls % 4 == 0:
            self.there -= self.terminated
        return super().answer(operation, asked)

    def DescribeTags(self, asked: Json) -> Json:
        (keys,) = asked["Filters"]
        assert keys["Name"] == "key"
        found = [(one, key, value) for one, tags in self.tags.items() for key, value in tags.items()]
        return {"Tags": [{"ResourceId": one, "Key": key, "Value": value, "ResourceType": "vpc"}
                         for one, key, value in found if key in keys["Values"] and one in self.there]}  # fmt: skip

    def DescribeInstances(self, asked: Json) -> Json:
        names = {one: "shutting-down" if one in self.terminated else "running" for one in asked["Filters"][0]["Values"]}
        listed = [{"InstanceId": one, "State": {"Name": name}, **({"VpcId": self.vpc} if name == "running" else {})}
                  for one, name in names.items() if one in self.there]  # fmt: skip
        return {"Reservations": [{"Instances": listed}]}

    def DescribeVpcs(self, asked: Json) -> Json:
        wanted = {one["Name"].removeprefix("tag:"): one["Values"] for one in asked["Filters"]}
        assert list(wanted) == ["vpc-id", "decant:project", "decant:stack"]
        found = {one: {"vpc-id": one, **tags} for one, tags in self.tags.items() if one in self.there}
        return {"Vpcs": [{"VpcId": one} for one, facts in found.items()
                         if all(facts.get(name) in values for name, values in wanted.items())]}  # fmt: skip

    def DescribeInternetGateways(self, asked: Json) -> Json:
        self._exists(asked["InternetGatewayIds"][0])
        attached = [{"VpcId": "vpc-1"}] if "attached-1" in self.there else []
        return {"InternetGateways": [{"InternetGatewayId": "igw-1", "Attachments": attached}]}

    def DescribeRouteTables(self, asked: Json) -> Json:
        self._exists(asked["RouteTableIds"][0])
        found = [{"RouteTableAssociationId": "rtbassoc-1"}] if "rtbassoc-1" in self.there else []
        return {"RouteTables": [{"RouteTableId": "rtb-1", "Associations": found}]}

    def DisassociateRouteTable(self, asked: Json) -> Json:
        self.there.remove(asked["AssociationId"])
        return {}

    def DetachInternetGateway(self, asked: Json) -> Json:
        assert asked == {"InternetGatewayId": "igw-1", "VpcId": "vpc-1"}
        if "eipalloc-1" in self.there:
            raise RefusedError("DependencyViolation", "has some mapped public address(es)")
        self.there.discard("attached-1")
        return {}

    def TerminateInstances(self, asked: Json) -> Json:
        for one in asked["InstanceIds"]:
            self._exists(one)
            self.terminated.add(one)
            self.deleted.append(one)
        return {}

    def _exists(self, identity: str) -> None:
        if identity not in self.there:
            raise RefusedError("InvalidThing.NotFound", f"{identity} does not exist")

    def _delete(self, identity: str) -> Json:
        self._exists(identity)
        needed = NEEDED_BY.get(identity.partition("-")[0], ())
        if any(one.partition("-")[0] in needed for one in self.there):
            raise RefusedError("DependencyViolation", f"{identity} has dependencies")
        self.there.discard(identity)
        self.deleted.append(identity)
        return {}

    def ReleaseAddress(self, asked: Json) -> Json:
        if any(one.startswith("i-") for one in self.there):
            raise RefusedError("InvalidIPAddress.InUse", "is in use")
        return self._delete(asked["AllocationId"])

    def DeleteKeyPair(self, asked: Json) -> Json:
        return self._delete(asked["KeyPairId"])

    def DeleteVolume(self, asked: Json) -> Json:
        return self._delete(asked["VolumeId"])

    def DeleteSecurityGroup(self, asked: Json) -> Json:
        return self._delete(asked["GroupId"])

    def DeleteSubnet(self, asked: Json) -> Json:
        return self._delete(asked["SubnetId"])

    def DeleteRouteTable(self, asked: Json) -> Json:
        return self._delete(asked["RouteTableId"])

    def DeleteInternetGateway(self, asked: Json) -> Json:
        return self._delete(asked["InternetGatewayId"])

    def DeleteVpc(self, asked: Json) -> Json:
        return self._delete(asked["VpcId"])


def tagged(stack: str = "pr-7", expires: str = "2026-01-01T00:00Z", project: str = "decant") -> dict[str, str]:
    return {"decant:project": project, "decant:stack": stack, "decant:expires": expires, "Name": "x"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "INTERVAL", 0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")


def account(monkeypatch: pytest.MonkeyPatch, tags: dict[str, dict[str, str]]) -> Account:
    made = Account(tags)
    aws_reads.install(made, monkeypatch)
    return made


def test_only_stacks_of_pull_requests_of_the_project_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    account(
        monkeypatch,
        {
            "vpc-1": tagged(), "i-1": tagged(), "sgr-1": tagged(),
            "vpc-2": tagged(expires="2126-01-01T00:00Z"),
            "vpc-3": tagged("pr-8"),
            "vpc-4": tagged("production"),
            "vpc-5": tagged(project="shop"),
            "vpc-6": tagged(expires="some day"),
            "vpc-7": {"decant:stack": "pr-7", "decant:project": "decant"},
            "vpc-8": {"decant:expires": "2026-01-01T00:00Z", "decant:project": "decant"},
            "vpc-9": tagged("pr-07"),
            "fs-1": tagged(),
        },
    )  # fmt: skip
    assert clouds.find_reviews("aws", OURS) == [
        ReviewStack(stack="pr-7", expires=PAST, ids=frozenset({"vpc-1", "i-1"})),
        ReviewStack(stack="pr-7", expires=FUTURE, ids=frozenset({"vpc-2"})),
        ReviewStack(stack="pr-8", expires=PAST, ids=frozenset({"vpc-3"})),
    ]


def test_all_of_a_stack_is_deleted_although_aws_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = account(monkeypatch, {**dict.fromkeys(IDS, tagged()), "vpc-2": tagged("production")})
    (review,) = clouds.find_reviews("aws", OURS)
    told = clouds.remove_review("aws", OURS, review, ())
    assert made.there == {"sgr-1", "vpc-2"}, "a rule goes with its group"
    assert made.deleted == [
        "i-1", "eipalloc-1", "key-1", "vol-1", "sg-1", "subnet-1", "rtb-1", "igw-1", "vpc-1",
    ]  # fmt: skip
    assert told[:2] == ["instance i-1", "Elastic IP eipalloc-1"]


def test_a_removal_that_was_cut_short_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = account(monkeypatch, dict.fromkeys(IDS, tagged()))
    (review,) = clouds.find_reviews("aws", OURS)
    made.there -= {"i-1", "eipalloc-1", "attached-1", "igw-1", "key-1", "vol-1"}  # and tags are listed for a while
    clouds.remove_review("aws", OURS, review, ())
    assert made.there == {"sgr-1"}
    assert clouds.find_reviews("aws", OURS) == []


def test_an_instance_that_is_terminated_is_found_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made = account(monkeypatch, {"i-1": tagged()})
    made.terminated.add("i-1")
    assert clouds.find_reviews("aws", OURS) == []


def test_nothing_is_deleted_when_a_part_is_another_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = account(monkeypatch, dict.fromkeys(IDS, tagged()))
    (review,) = clouds.find_reviews("aws", OURS)
    with pytest.raises(StackError) as told:
        clouds.remove_review("aws", OURS, review, {"i-1", "other"})
    assert str(told.value).startswith(
        "instance i-1 has a tag of review stack pr-7, and is in the state of another stack. So nothing of pr-7 was"
        " deleted.\n"
    )
    assert made.deleted == []


@pytest.mark.parametrize("tags", [{}, tagged("production"), tagged("pr-70"), tagged(project="shop")])
def test_tags_of_an_instance_alone_do_not_terminate_it(monkeypatch: pytest.MonkeyPatch, tags: dict[str, str]) -> None:
    """Somebody who may tag instances, and nothing else, could have the reaper terminate any of them."""
    made = account(monkeypatch, {"i-1": tagged(), "key-1": tagged(), "vpc-1": tagged(), "vpc-2": tags})
    made.vpc = "vpc-2"
    review = next(one for one in clouds.find_reviews("aws", OURS) if "i-1" in one.ids)
    with pytest.raises(StackError) as told:
        clouds.remove_review("aws", OURS, review, ())
    assert str(told.value).startswith(
        "instance i-1 has a tag of review stack pr-7, and is in VPC vpc-2, which does not have it. So nothing of pr-7"
        " was deleted.\n"
    )
    assert made.deleted == []


def test_an_instance_in_a_network_that_a_state_still_has_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = account(monkeypatch, {"i-1": tagged(), "vpc-1": tagged(expires="2126-01-01T00:00Z")})
    old, _ = clouds.find_reviews("aws", OURS)
    clouds.remove_review("aws", OURS, old, {"vpc-1"})
    assert made.deleted == ["i-1"]


def test_what_stays_in_use_ends_with_awss_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    made = account(monkeypatch, {"vpc-1": tagged(), "subnet-9": {}})
    monkeypatch.setattr(reviews, "PATIENCE", 0)
    (review,) = clouds.find_reviews("aws", OURS)
    with pytest.raises(CloudApiError, match="vpc-1 has dependencies"):
        clouds.remove_review("aws", OURS, review, ())
    assert "vpc-1" in made.there


def test_a_refusal_that_will_not_pass_is_not_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = account(monkeypatch, {"vpc-1": tagged()})
    (review,) = clouds.find_reviews("aws", OURS)
    made.refused["DeleteVpc"] = RefusedError("UnauthorizedOperation", "You are not authorized")
    with pytest.raises(CloudApiError, match="You are not authorized"):
        clouds.remove_review("aws", OURS, review, ())
    assert made.asked.count("DeleteVpc") == 1
