"""The stand-in for the AWS provider refuses what the real one, and AWS, would refuse."""

from __future__ import annotations

import pulumi_aws as aws
import pytest

from rehearsal.machines.network import Network
from tests.engine.aws_provider import Account, RefusedError, unknown_names
from tests.support.fake_account import FakeAccount

VPC = "aws:ec2/vpc:Vpc"
SUBNET = "aws:ec2/subnet:Subnet"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"


@pytest.fixture
def account() -> Account:
    return Account(FakeAccount(Network(name="engine")))  # nothing here boots anything


def test_names_that_the_real_provider_lacks_are_found_at_any_depth() -> None:
    group = {"port": 80, "healthCheck": {"path": "/", "intervalSeconds": 10}, "healthChek": {}}
    assert unknown_names(aws.lb.TargetGroupArgs, group) == ["healthChek", "healthCheck.intervalSeconds"]
    listener = {"defaultActions": [{"type": "forward", "target": "x"}]}
    assert unknown_names(aws.lb.ListenerArgs, listener) == ["defaultActions.target"]
    assert unknown_names(aws.ec2.InstanceArgs, {"rootBlockDevice": {"encrypted": True}, "tags": {"Any": "name"}}) == []


def test_what_is_in_use_is_not_deleted(account: Account) -> None:
    network = account.create(VPC, "network", {"cidrBlock": "10.90.0.0/16"}).id
    where = {"vpcId": network, "cidrBlock": "10.90.0.0/24", "availabilityZone": "eu-central-1a"}
    subnet = account.create(SUBNET, "subnet", where).id
    with pytest.raises(RefusedError, match=f"DependencyViolation: {network} .*{subnet}"):
        account.delete(VPC, network)
    one = account.create(GROUP, "one", {"name": "one", "vpcId": network}).id
    other = account.create(GROUP, "other", {"name": "other", "vpcId": network}).id
    account.create(RULE, "own", {"securityGroupId": other, "ipProtocol": "tcp", "cidrIpv4": "0.0.0.0/0"})
    rule = {"securityGroupId": one, "ipProtocol": "tcp", "referencedSecurityGroupId": other}
    names = account.create(RULE, "rule", rule).id
    with pytest.raises(RefusedError, match="DependencyViolation"):
        account.delete(GROUP, other)
    account.delete(RULE, names)
    account.delete(GROUP, other)
    with pytest.raises(RefusedError, match="NotFound"):
        account.delete(GROUP, other)


def test_a_name_is_had_once(account: Account) -> None:
    account.create(GROUP, "one", {"name": "machines", "vpcId": "vpc-1"})
    with pytest.raises(RefusedError, match="Duplicate"):
        account.create(GROUP, "two", {"name": "machines", "vpcId": "vpc-1"})
