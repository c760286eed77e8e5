"""What a killed command has made without Pulumi's knowing: found by what nothing else can have, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.stub import ANY, Stubber

from decant import clouds
from decant.clouds.aws import lost as aws_lost
from decant.clouds.aws import session as aws_session
from decant.clouds.digitalocean import names
from decant.clouds.inventory import StackInAccount
from decant.clouds.lost import NOTHING, Lost
from rehearsal.accounts.digitalocean_catalogue import Pace
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.no_machines import NoMachines

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
OWN = names.unique("decant-dev", KEY)
LOGIN_KEY = {"urn": "urn::tls::login-key", "type": "tls:index/privateKey:PrivateKey", "id": "k",
             "outputs": {"publicKeyOpenssh": KEY}}  # fmt: skip

# ------------------------------------------------------------------------------------------------ DigitalOcean


@pytest.fixture
def api() -> Iterator[DigitalOceanApi]:
    api = DigitalOceanApi(NoMachines(), "token", pace=Pace(visible=0, pending=0))
    yield api
    api.server.shutdown()


def of_do(api: DigitalOceanApi, kind: str, *resources: dict[str, Any], **inputs: Any) -> Lost:
    account = StackInAccount(
        project="decant", stack="dev", provider={"token": api.token}, environ={"DIGITALOCEAN_API_URL": api.url},
        resources=[LOGIN_KEY, *resources],
    )  # fmt: skip
    resource = {"urn": f"urn::{kind}::x", "type": f"digitalocean:index/{kind}", "inputs": inputs}
    return clouds.find_lost("digitalocean", account, resource)


def test_a_droplet_and_a_network_are_found_by_the_name_that_pulumi_made_up(api: DigitalOceanApi) -> None:
    vpc = str(api.account.add_vpc({"name": "network-0a1b2c3", "region": "fra1"}).shown()["id"])
    for name in ("web-1-1111111", "web-1-2222222"):
        api.add_droplet({"name": name, "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64",
                         "ssh_keys": [], "tags": [], "vpc_uuid": vpc})  # fmt: skip
    (second,) = [one.id for one in api.account.droplets.values() if one.asked["name"] == "web-1-2222222"]
    assert of_do(api, "droplet:Droplet", name="web-1-2222222") == Lost(id=str(second))
    assert of_do(api, "droplet:Droplet", name="web-1-3333333") == NOTHING
    assert of_do(api, "vpc:Vpc", name="network-0a1b2c3") == Lost(id=vpc)
    assert of_do(api, "vpc:Vpc", name="network-0a1b2c4") == NOTHING


def test_two_of_one_name_are_unclear(api: DigitalOceanApi) -> None:
    for _ in range(2):
        api.add_droplet({"name": "web-1-1111111", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64",
                         "ssh_keys": [], "tags": []})  # fmt: skip
    ids = ", ".join(str(one.id) for one in api.account.droplets.values())
    assert of_do(api, "droplet:Droplet", name="web-1-1111111") == Lost(unclear=f"more than one fits: {ids}")


@pytest.mark.parametrize("ending", ["", "-web"])
def test_a_firewall_is_found_by_the_hash_of_the_stacks_key(api: DigitalOceanApi, ending: str) -> None:
    api.account.add_tag(OWN)
    firewall = api.account.add_firewall(
        {"name": f"{OWN}{ending}", "tags": [OWN], "inbound_rules": [], "outbound_rules": []}
    )
    assert of_do(api, "firewall:Firewall", name=f"{OWN}{ending}") == Lost(id=firewall["id"])
    assert of_do(api, "firewall:Firewall", name=f"{OWN}-other") == NOTHING


@pytest.mark.parametrize("name", ["decant-dev", f"{OWN}9"])
def test_a_name_that_others_may_have_proves_nothing(api: DigitalOceanApi, name: str) -> None:
    """Stacks that were made before the hash have none."""
    api.account.add_firewall({"name": name, "tags": [], "inbound_rules": [], "outbound_rules": []})
    assert of_do(api, "firewall:Firewall", name=name) == Lost(unclear=f"others may have the name {name}, too")


def test_a_login_key_is_found_by_its_name(api: DigitalOceanApi) -> None:
    key = api.account.add_key({"name": OWN, "public_key": KEY})
    assert of_do(api, "sshKey:SshKey", name=OWN) == Lost(id=str(key["id"]))


def test_a_tag_is_made_again(api: DigitalOceanApi) -> None:
    api.account.add_tag(OWN)
    assert of_do(api, "tag:Tag", name=OWN) == NOTHING


def test_a_reserved_address_that_nobody_uses_may_be_anybodys(api: DigitalOceanApi) -> None:
    kind = "reservedIp:ReservedIp"
    api.account.add_reserved("203.0.113.8", "nyc3")
    assert of_do(api, kind, region="fra1") == NOTHING
    api.account.add_reserved("203.0.113.9", "fra1")
    known = {"urn": "u", "type": f"digitalocean:index/{kind}", "id": "203.0.113.9"}
    assert of_do(api, kind, known, region="fra1") == NOTHING
    assert of_do(api, kind, region="fra1").unclear.endswith("\n      doctl compute reserved-ip delete 203.0.113.9")


def test_an_assignment_is_found_by_both_of_its_ends(api: DigitalOceanApi) -> None:
    api.add_droplet({"name": "a", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64", "ssh_keys": [],
                     "tags": []})  # fmt: skip
    (droplet,) = api.account.droplets.values()
    api.account.add_reserved("203.0.113.9", "fra1").droplet = droplet.id
    kind = "reservedIpAssignment:ReservedIpAssignment"
    found = of_do(api, kind, ipAddress="203.0.113.9", dropletId=float(droplet.id))
    assert found == Lost(id=f"{droplet.id}-203.0.113.9-found")
    assert of_do(api, kind, ipAddress="203.0.113.9", dropletId=float(droplet.id + 1)) == NOTHING


def test_what_is_not_known_is_unclear(api: DigitalOceanApi) -> None:
    assert of_do(api, "volume:Volume").unclear == "look for it at https://cloud.digitalocean.com"


# ------------------------------------------------------------------------------------------------ AWS


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """EC2 with the answers that a test gives it. botocore checks both ends against its model of AWS."""
    import boto3

    client = boto3.client("ec2", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="s")
    with Stubber(client) as stubber:
        monkeypatch.setattr(aws_session.Session, "_client", lambda self, service: client)
        yield stubber


def of_aws(kind: str, *ids: str, **inputs: Any) -> Lost:
    known = [{"urn": f"urn::{kind}::{one}", "type": kind, "id": one} for one in ids]
    account = StackInAccount(
        project="decant", stack="dev", provider={"region": "eu-central-1", "accessKey": "a", "secretKey": "s"},
        environ={}, resources=known,
    )  # fmt: skip
    return clouds.find_lost("aws", account, {"urn": f"urn::{kind}::x", "type": kind, "inputs": inputs})


def wants(stub: Stubber, operation: str, answer: dict[str, Any], **filters: str) -> None:
    stub.add_response(
        operation, answer, {"Filters": [{"Name": name.replace("_", "-"), "Values": [v]} for name, v in filters.items()]}
    )


def test_a_subnet_is_found_in_the_stacks_own_network(stub: Stubber) -> None:
    for _ in range(2):
        wants(
            stub, "describe_subnets", {"Subnets": [{"SubnetId": "subnet-1"}]}, vpc_id="vpc-1", cidr_block="10.90.0.0/24"
        )
    kind, inputs = "aws:ec2/subnet:Subnet", {"vpcId": "vpc-1", "cidrBlock": "10.90.0.0/24"}
    assert of_aws(kind, **inputs) == Lost(id="subnet-1")
    assert of_aws(kind, "subnet-1", **inputs) == NOTHING, "the state has it"


def test_the_main_table_of_a_network_is_not_the_stacks(stub: Stubber) -> None:
    main = {"RouteTableId": "rtb-0", "Associations": [{"Main": True}]}
    answer = {"RouteTables": [main, {"RouteTableId": "rtb-1", "Associations": []}]}
    stub.add_response("describe_route_tables", answer, {"Filters": [{"Name": "vpc-id", "Values": ["vpc-1"]}]})
    assert of_aws("aws:ec2/routeTable:RouteTable", vpcId="vpc-1") == Lost(id="rtb-1")


RULE = {
    "GroupId": "sg-1", "IsEgress": False, "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIpv4": "10.0.0.0/8",
    "SecurityGroupRuleId": "sgr-1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "found"),
    [({}, "sgr-1"), ({"FromPort": 80}, ""), ({"CidrIpv4": "10.0.0.0/9"}, ""), ({"IsEgress": True}, ""),
     ({"ReferencedGroupInfo": {"GroupId": "sg-2"}}, "")],
)  # fmt: skip
def test_a_rule_is_found_by_all_that_it_says(stub: Stubber, changes: dict[str, Any], found: str) -> None:
    """AWS takes no second one, so the next `up` would fail."""
    wants(stub, "describe_security_group_rules", {"SecurityGroupRules": [{**RULE, **changes}]}, group_id="sg-1")
    kind = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    inputs = {
        "securityGroupId": "sg-1",
        "ipProtocol": "tcp",
        "fromPort": 22.0,
        "toPort": 22.0,
        "cidrIpv4": "10.0.0.0/8",
    }
    assert of_aws(kind, **inputs) == Lost(id=found)


def test_a_rule_for_everything_has_no_ports(stub: Stubber) -> None:
    rule = {**RULE, "IsEgress": True, "IpProtocol": "-1", "FromPort": -1, "ToPort": -1, "CidrIpv4": "0.0.0.0/0"}
    wants(stub, "describe_security_group_rules", {"SecurityGroupRules": [rule]}, group_id="sg-1")
    kind = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
    assert of_aws(kind, securityGroupId="sg-1", ipProtocol="-1", cidrIpv4="0.0.0.0/0") == Lost(id="sgr-1")


def machine(identity: str, name: str, state: str = "running") -> dict[str, Any]:
    return {"InstanceId": identity, "State": {"Name": state}, "Tags": [{"Key": "Name", "Value": name}]}


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ([machine("i-1", "decant-dev-web-1"), machine("i-2", "decant-dev-web-2")], Lost(id="i-1")),
        ([machine("i-1", "decant-dev-web-1", "terminated")], NOTHING),
        ([machine("i-1", "decant-dev-web-1"), machine("i-3", "decant-dev-web-1")],
         Lost(unclear="more than one fits: i-1, i-3")),
        ([machine("i-1", "decant-dev-web-1"), machine("i-known", "decant-dev-web-1")], Lost(id="i-1")),
    ],
)  # fmt: skip
def test_an_instance_is_found_by_its_key_and_its_name(stub: Stubber, there: list[Any], found: Lost) -> None:
    answer = {"Reservations": [{"Instances": there}]}
    wants(stub, "describe_instances", answer, subnet_id="subnet-1", key_name="login-key-0a1b2c3")
    inputs = {"subnetId": "subnet-1", "keyName": "login-key-0a1b2c3", "tags": {"Name": "decant-dev-web-1"}}
    assert of_aws("aws:ec2/instance:Instance", "i-known", **inputs) == found


def test_a_key_is_found_by_the_name_that_is_its_id(stub: Stubber) -> None:
    wants(
        stub, "describe_key_pairs", {"KeyPairs": [{"KeyName": "k-0a1b2c3", "KeyPairId": "key-1"}]}, key_name="k-0a1b2c3"
    )
    assert of_aws("aws:ec2/keyPair:KeyPair", keyName="k-0a1b2c3") == Lost(id="k-0a1b2c3")


def test_aws_says_that_there_is_none_by_an_error(stub: Stubber) -> None:
    stub.add_client_error("describe_key_pairs", "InvalidKeyPair.NotFound")
    assert of_aws("aws:ec2/keyPair:KeyPair", keyName="k-0a1b2c3") == NOTHING


def test_an_association_is_found_by_both_of_its_ends(stub: Stubber) -> None:
    tables = [{"RouteTableId": "rtb-1", "Associations": [
        {"SubnetId": "subnet-2", "RouteTableAssociationId": "rtbassoc-2"},
        {"SubnetId": "subnet-1", "RouteTableAssociationId": "rtbassoc-1"},
    ]}]  # fmt: skip
    stub.add_response("describe_route_tables", {"RouteTables": tables}, {"Filters": ANY})
    kind = "aws:ec2/routeTableAssociation:RouteTableAssociation"
    assert of_aws(kind, subnetId="subnet-1", routeTableId="rtb-1") == Lost(id="rtbassoc-1")


@pytest.mark.parametrize("kind", ["aws:ec2/vpc:Vpc", "aws:ec2/eip:Eip"])
def test_a_network_and_an_address_may_be_a_colleagues(stub: Stubber, kind: str) -> None:
    """Their tags are the same for every stack with this name, and nothing else tells them apart."""
    found = of_aws(kind)
    assert found.unclear == (
        "look for it among: aws resourcegroupstaggingapi get-resources"
        " --tag-filters Key=decant:project,Values=decant Key=decant:stack,Values=dev"
    )


@pytest.mark.parametrize("kind", aws_lost.AGAIN)
def test_what_can_be_made_again_is(stub: Stubber, kind: str) -> None:
    assert of_aws(kind) == NOTHING
