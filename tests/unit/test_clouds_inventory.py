"""What is left of a stack in an account: which of it belongs to the stack, and the commands that delete it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.stub import Stubber

from decant import clouds
from decant.clouds.aws import inventory as aws_inventory
from decant.clouds.aws import session as aws_session
from decant.clouds.digitalocean import names
from decant.clouds.inventory import Left, StackInAccount
from decant.errors import CloudApiError
from rehearsal.accounts.digitalocean_catalogue import Pace
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.aws_reads import USER
from tests.support.no_machines import NoMachines

DO = "digitalocean:index/"


# ------------------------------------------------------------------------------------------------ DigitalOcean


@pytest.fixture
def api() -> Iterator[DigitalOceanApi]:
    api = DigitalOceanApi(NoMachines(), "token", pace=Pace(visible=0, pending=0))
    yield api
    api.server.shutdown()


def of_do(api: DigitalOceanApi, *resources: dict[str, Any], stack: str = "dev") -> StackInAccount:
    return StackInAccount(
        project="decant",
        stack=stack,
        provider={"token": api.token},
        environ={"DIGITALOCEAN_API_URL": api.url},
        resources=resources,
    )


def resource(kind: str, identity: str, **outputs: Any) -> dict[str, Any]:
    """A resource in Pulumi's state."""
    return {"urn": f"urn::{kind}::{identity}", "type": DO + kind, "id": identity, "outputs": outputs}


def assignment(droplet: str, address: str) -> dict[str, Any]:
    """The provider gives each assignment an id of its own."""
    made = resource("reservedIpAssignment:ReservedIpAssignment", f"{droplet}-{address}-20261128103000000000000001")
    return {**made, "outputs": {"dropletId": float(droplet), "ipAddress": address}}


def make(api: DigitalOceanApi, name: str, description: str) -> dict[str, str]:
    """A VPC with a tag, a firewall, a droplet and an address; their ids."""
    account = api.account
    vpc = str(account.add_vpc({"name": f"network-{name}", "region": "fra1", "description": description}).shown()["id"])
    account.add_tag(name)
    account.add_firewall({"name": name, "tags": [name], "inbound_rules": [], "outbound_rules": []})
    api.add_droplet(
        {"name": f"web-1-{name}", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64", "ssh_keys": [],
         "tags": [name], "vpc_uuid": vpc}
    )  # fmt: skip
    (droplet,) = (id for id in account.droplets if name in account.droplets[id].tags)
    (firewall,) = (id for id in account.firewalls if account.firewalls[id]["name"] == name)
    return {"vpc": vpc, "droplet": str(droplet), "firewall": str(firewall)}


def test_what_is_left_at_digitalocean_has_the_stacks_names_and_tags(api: DigitalOceanApi) -> None:
    make(api, "decant-dev-2", "decant-dev-2, made by Decant")  # another stack, whose VPC is the default one
    ours = make(api, "decant-dev-0a1b2c3", "decant-dev, made by Decant")
    known = (resource("tag:Tag", "decant-dev-0a1b2c3", name="decant-dev-0a1b2c3"), resource("vpc:Vpc", ours["vpc"]))
    assert clouds.left("digitalocean", of_do(api, *known)) == [
        Left(
            what=f"droplet web-1-decant-dev-0a1b2c3 ({ours['droplet']})",
            command=f"doctl compute droplet delete {ours['droplet']}",
            ours=True,
            type=DO + "droplet:Droplet",
            id=ours["droplet"],
        ),
        Left(
            what=f"firewall decant-dev-0a1b2c3 ({ours['firewall']})",
            command=f"doctl compute firewall delete {ours['firewall']}",
            ours=True,
        ),
        Left(what="tag decant-dev-0a1b2c3", command="doctl compute tag delete decant-dev-0a1b2c3", ours=True),
        Left(
            what=f"VPC network-decant-dev-0a1b2c3 ({ours['vpc']})",
            command=f"doctl vpcs delete {ours['vpc']}",
            ours=True,
        ),
    ]
    assert {one.ours for one in clouds.left("digitalocean", of_do(api))} == {False}
    assert clouds.left("digitalocean", of_do(api, stack="other")) == []


def test_a_stack_of_the_same_name_in_another_state_is_not_this_one(api: DigitalOceanApi) -> None:
    account = api.account
    account.add_vpc({"name": "first", "region": "fra1"})
    login = {"urn": "urn::login-key", "type": "tls:index/privateKey:PrivateKey", "id": "a",
             "outputs": {"publicKeyOpenssh": "ssh-ed25519 AAAA\n"}}  # fmt: skip
    unique = names.unique("decant-dev", "ssh-ed25519 AAAA")
    colleague = make(api, "decant-dev-0a1b2c3", "decant-dev, made by Decant")
    account.add_reserved("198.51.100.9", "fra1")
    account.act_on_reserved("198.51.100.9", {"type": "assign", "droplet_id": int(colleague["droplet"])})
    ours = make(api, unique, "decant-dev, made by Decant")
    found = clouds.left("digitalocean", of_do(api, login, resource("vpc:Vpc", ours["vpc"])))
    assert {one.what: one.ours for one in found} == {
        f"droplet web-1-{unique} ({ours['droplet']})": True,
        f"firewall {unique} ({ours['firewall']})": True,
        f"tag {unique}": True,
        f"VPC network-{unique} ({ours['vpc']})": True,
        f"droplet web-1-decant-dev-0a1b2c3 ({colleague['droplet']})": False,
        "reserved address 198.51.100.9": False,
        f"firewall decant-dev-0a1b2c3 ({colleague['firewall']})": False,
        "tag decant-dev-0a1b2c3": False,
        f"VPC network-decant-dev-0a1b2c3 ({colleague['vpc']})": False,
    }


def test_an_account_without_any_of_the_resources_is_a_foreign_one(api: DigitalOceanApi) -> None:
    api.account.add_vpc({"name": "first", "region": "fra1"})
    ours = make(api, "decant-dev", "")
    there, tag = resource("vpc:Vpc", ours["vpc"]), resource("tag:Tag", "decant-dev")
    missing = (resource("droplet:Droplet", "1"), resource("sshKey:SshKey", "2"))
    assert clouds.foreign("digitalocean", of_do(api, tag, there, *missing)) == ""
    assert clouds.foreign("digitalocean", of_do(api)) == ""
    # A tag has no id, and another account may have one with the same name.
    assert clouds.foreign("digitalocean", of_do(api, tag, *missing)) == "the account has none of its resources"
    assert clouds.foreign("digitalocean", of_do(api, tag)) == ""


def test_the_account_does_not_show_its_credentials(api: DigitalOceanApi) -> None:
    stack = StackInAccount(project="decant", stack="dev", provider={"token": "canary"}, environ={"T": "canary"})
    assert "canary" not in repr(stack)


def test_what_has_neither_name_nor_tag_is_found_by_the_state(api: DigitalOceanApi) -> None:
    account = api.account
    account.add_vpc({"name": "first", "region": "fra1"})
    vpc = str(account.add_vpc({"name": "network-1a2b3c4", "region": "fra1"}).shown()["id"])
    account.add_reserved("198.51.100.9", "fra1")
    account.add_reserved("198.51.100.8", "fra1")
    known = (resource("vpc:Vpc", vpc), resource("reservedIp:ReservedIp", "198.51.100.9"))
    assert [one.what for one in clouds.left("digitalocean", of_do(api, *known))] == [
        "reserved address 198.51.100.9",
        f"VPC network-1a2b3c4 ({vpc})",
    ]
    assert clouds.left("digitalocean", of_do(api)) == []


def test_a_default_vpc_is_not_left_because_nobody_can_delete_it(api: DigitalOceanApi) -> None:
    vpc = api.account.add_vpc({"name": "network", "region": "fra1", "description": "decant-dev, made by Decant"})
    assert vpc.default
    assert clouds.left("digitalocean", of_do(api)) == []


def test_only_a_default_vpc_is_kept(api: DigitalOceanApi) -> None:
    first, second = (
        resource("vpc:Vpc", identity, default=default, name=f"network-{identity}", region="fra1")
        for identity, default in (("a", True), ("b", False))
    )
    (kept,) = clouds.kept("digitalocean", [resource("tag:Tag", "t"), first, second])
    assert kept.entry == (first["urn"], "a")
    assert kept.why.startswith("VPC network-a (a) is the default one of region fra1, because it was the first there.")
    assert kept.why.endswith("doctl vpcs delete a")


def test_what_was_deleted_by_hand_is_gone(api: DigitalOceanApi) -> None:
    account = api.account
    ours = make(api, "decant-dev", "")
    for address in ("198.51.100.9", "198.51.100.8"):
        account.add_reserved(address, "fra1")
    account.act_on_reserved("198.51.100.9", {"type": "assign", "droplet_id": int(ours["droplet"])})
    there = (
        resource("droplet:Droplet", ours["droplet"]),
        resource("vpc:Vpc", ours["vpc"]),
        resource("tag:Tag", "decant-dev"),
        resource("firewall:Firewall", ours["firewall"]),
        resource("reservedIp:ReservedIp", "198.51.100.9"),
        assignment(ours["droplet"], "198.51.100.9"),
    )
    gone = (
        resource("droplet:Droplet", "1"),
        resource("sshKey:SshKey", "2"),
        resource("tag:Tag", "decant-prod"),
        resource("reservedIp:ReservedIp", "198.51.100.7"),
        assignment(ours["droplet"], "198.51.100.7"),
        assignment(ours["droplet"], "198.51.100.8"),
        resource("loadBalancer:LoadBalancer", "3"),
    )
    others = ({"urn": "urn::step", "type": "command:local:Command", "id": "4"}, {"urn": "urn::c", "type": "decant:x:Y"})
    found = clouds.gone("digitalocean", of_do(api, *there, *gone, *others))
    assert sorted(found) == sorted((one["urn"], one["id"]) for one in gone)


def test_an_account_that_cannot_be_asked_is_an_error(api: DigitalOceanApi) -> None:
    account = StackInAccount(
        project="decant", stack="dev", provider={"token": "wrong"}, environ={"DIGITALOCEAN_API_URL": api.url}
    )
    with pytest.raises(CloudApiError, match="Unable to authenticate you"):
        clouds.left("digitalocean", account)


# ------------------------------------------------------------------------------------------------ AWS


def tag(identity: str, kind: str, key: str, value: str) -> dict[str, str]:
    return {"ResourceId": identity, "ResourceType": kind, "Key": f"decant:{key}", "Value": value}


def tagged(identity: str, kind: str, stack: str = "dev", project: str = "decant") -> list[dict[str, str]]:
    return [tag(identity, kind, "stack", stack), tag(identity, kind, "project", project)]


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Stubber]:
    """The services, which give the answers that a test adds, and accept no other call."""
    import boto3

    boto = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="eu-central-1")
    session = aws_session.Session(boto, "eu-central-1", {})
    stubbed = {}
    for service in ("ec2", "elbv2", "sts", "acm", "route53"):
        stubbed[service] = Stubber(session._client(service))
        stubbed[service].activate()
    monkeypatch.setattr(aws_inventory, "connect", lambda provider, environ: session)
    return stubbed


OF_AWS = StackInAccount(project="decant", stack="dev", provider={}, environ={})
ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012"


def test_what_is_left_at_aws_has_both_tags_and_is_deleted_in_order(stubs: dict[str, Stubber]) -> None:
    balancer, foreign, group = (
        f"{ARN}:{rest}" for rest in ("loadbalancer/app/b/1", "loadbalancer/app/x/2", "targetgroup/t/3")
    )
    ours = [{"Key": "decant:project", "Value": "decant"}, {"Key": "decant:stack", "Value": "dev"}]
    elb = stubs["elbv2"]
    elb.add_response(
        "describe_load_balancers", {"LoadBalancers": [{"LoadBalancerArn": arn} for arn in (balancer, foreign)]}
    )
    elb.add_response(
        "describe_tags",
        {"TagDescriptions": [{"ResourceArn": balancer, "Tags": ours}, {"ResourceArn": foreign, "Tags": ours[:1]}]},
        {"ResourceArns": [balancer, foreign]},
    )
    elb.add_response("describe_target_groups", {"TargetGroups": [{"TargetGroupArn": group}]})
    elb.add_response("describe_tags", {"TagDescriptions": [{"ResourceArn": group, "Tags": ours}]})
    tags = [
        *tagged("vpc-1", "vpc"), *tagged("i-gone", "instance"), *tagged("i-1", "instance"),
        *tagged("eipalloc-1", "elastic-ip"), *tagged("sgr-1", "security-group-rule"),
        *tagged("vpc-2", "vpc", stack="production"), *tagged("vpc-3", "vpc", project="shop"),
        *tagged("vpc-4", "vpc", stack="decant", project="dev"), tag("subnet-9", "subnet", "stack", "dev"),
    ]  # fmt: skip
    stubs["ec2"].add_response(
        "describe_tags",
        {"Tags": tags},
        {"Filters": [{"Name": "key", "Values": ["decant:project", "decant:stack"]},
                     {"Name": "value", "Values": ["decant", "dev"]}]},
    )  # fmt: skip
    stubs["ec2"].add_response(
        "describe_instances",
        {"Reservations": [{"Instances": [{"InstanceId": "i-gone", "State": {"Name": "terminated"}},
                                         {"InstanceId": "i-1", "State": {"Name": "stopped"}}]}]},
        {"Filters": [{"Name": "instance-id", "Values": ["i-1", "i-gone"]}]},
    )  # fmt: skip
    known = (
        {"type": "aws:lb/loadBalancer:LoadBalancer", "id": balancer},
        {"type": "aws:ec2/instance:Instance", "id": "i-1", "outputs": {"vpcs": ["vpc-1"]}},
    )
    found = clouds.left("aws", replace(OF_AWS, resources=known))
    assert [one.ours for one in found] == [True, False, True, False, True], "a colleague's stack has the same tags"
    assert [(one.what, one.command) for one in found] == [
        ("load balancer app/b/1",
         f"aws elbv2 delete-load-balancer --load-balancer-arn {balancer} --region eu-central-1"),
        ("target group t/3", f"aws elbv2 delete-target-group --target-group-arn {group} --region eu-central-1"),
        ("instance i-1", "aws ec2 terminate-instances --instance-ids i-1 --region eu-central-1"),
        ("Elastic IP eipalloc-1", "aws ec2 release-address --allocation-id eipalloc-1 --region eu-central-1"),
        ("VPC vpc-1", "aws ec2 delete-vpc --vpc-id vpc-1 --region eu-central-1"),
    ]  # fmt: skip
    for stub in stubs.values():
        stub.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("caller", "why"),
    [
        ("123456789012", ""),
        (
            "999999999999",
            "its resources are in AWS account 123456789012, and the credentials are of account 999999999999",
        ),
    ],
)
def test_arns_tell_the_account(stubs: dict[str, Stubber], caller: str, why: str) -> None:
    stubs["sts"].add_response("get_caller_identity", {"Account": caller, "Arn": USER, "UserId": "A"})
    images = {"urn": "a", "id": "b", "outputs": {"arn": "arn:aws:s3:::bucket"}}
    balancer = {"urn": "c", "id": "d", "outputs": {"arn": f"{ARN}:loadbalancer/app/b/1"}}
    assert clouds.foreign("aws", replace(OF_AWS, resources=(images, balancer, {"urn": "step"}))) == why
    stubs["sts"].assert_no_pending_responses()
    assert clouds.foreign("aws", replace(OF_AWS, resources=(images,))) == "", "without a question"


def test_the_commands_for_a_network_come_in_the_order_that_aws_takes(stubs: dict[str, Stubber]) -> None:
    """A subnet is on a route table, and a gateway is attached to the network, until somebody takes it off."""
    stubs["elbv2"].add_response("describe_load_balancers", {"LoadBalancers": []})
    stubs["elbv2"].add_response("describe_target_groups", {"TargetGroups": []})
    tags = [
        *tagged("vpc-1", "vpc"), *tagged("rtb-1", "route-table"), *tagged("igw-1", "internet-gateway"),
        *tagged("subnet-1", "subnet"), *tagged("sg-1", "security-group"),
    ]  # fmt: skip
    stubs["ec2"].add_response("describe_tags", {"Tags": tags})
    region = "--region eu-central-1"
    assert [one.command for one in clouds.left("aws", OF_AWS)] == [
        f"aws ec2 delete-security-group --group-id sg-1 {region}",
        f"aws ec2 delete-subnet --subnet-id subnet-1 {region}",
        f"aws ec2 delete-route-table --route-table-id rtb-1 {region}",
        f"aws ec2 detach-internet-gateway --internet-gateway-id igw-1 --vpc-id vpc-1 {region}"
        f" && aws ec2 delete-internet-gateway --internet-gateway-id igw-1 {region}",
        f"aws ec2 delete-vpc --vpc-id vpc-1 {region}",
    ]


def test_nothing_is_left_at_aws(stubs: dict[str, Stubber]) -> None:
    stubs["elbv2"].add_response("describe_load_balancers", {"LoadBalancers": []})
    stubs["elbv2"].add_response("describe_target_groups", {"TargetGroups": []})
    stubs["ec2"].add_response("describe_tags", {"Tags": []})
    assert clouds.left("aws", OF_AWS) == []


def test_aws_says_what_it_does_not_allow(stubs: dict[str, Stubber]) -> None:
    stubs["elbv2"].add_client_error("describe_load_balancers", "AccessDenied", "not authorized to perform", 403)
    with pytest.raises(CloudApiError, match="not authorized to perform"):
        clouds.left("aws", OF_AWS)


NAMED = StackInAccount(
    project="decant",
    stack="dev",
    provider={},
    environ={},
    resources=[
        {"urn": "c", "type": "aws:acm/certificate:Certificate", "id": "arn:aws:acm:eu-central-1:1:certificate/1"},
        *(
            {"urn": name, "type": "aws:route53/record:Record", "id": f"Z1_{name}_A",
             "outputs": {"zoneId": "Z1", "fqdn": name, "type": "A"}}
            for name in ("example.com", "www.example.com")
        ),
    ],
)  # fmt: skip


def test_certificates_and_records_that_are_left_at_aws_are_named(stubs: dict[str, Stubber]) -> None:
    ours = [{"Key": "decant:project", "Value": "decant"}, {"Key": "decant:stack", "Value": "dev"}]
    stubs["elbv2"].add_response("describe_load_balancers", {"LoadBalancers": []})
    stubs["elbv2"].add_response("describe_target_groups", {"TargetGroups": []})
    stubs["ec2"].add_response("describe_tags", {"Tags": []})
    arns = [f"arn:aws:acm:eu-central-1:123456789012:certificate/{number}" for number in (1, 2)]
    summaries = [{"CertificateArn": arn, "DomainName": "example.com"} for arn in arns]
    stubs["acm"].add_response("list_certificates", {"CertificateSummaryList": summaries})
    for arn, tags in zip(arns, (ours[:1], ours), strict=True):
        stubs["acm"].add_response("list_tags_for_certificate", {"Tags": tags}, {"CertificateArn": arn})
    for wanted, found in (("example.com", "example.com."), ("www.example.com", "zzz.example.com.")):
        stubs["route53"].add_response(
            "list_resource_record_sets",
            {
                "ResourceRecordSets": [{"Name": found, "Type": "A"}], "IsTruncated": False, "MaxItems": "1",
            },
            {"HostedZoneId": "Z1", "StartRecordName": wanted, "StartRecordType": "A", "MaxItems": "1"},
        )  # fmt: skip
    console = "https://console.aws.amazon.com/route53/v2/hostedzones#ListRecordSets/Z1"
    assert clouds.left("aws", NAMED) == [
        Left(
            what="certificate for example.com",
            command=f"aws acm delete-certificate --certificate-arn {arns[1]} --region eu-central-1",
            ours=False,
        ),
        Left(what="DNS record example.com (A)", command=f"delete it in the console: {console}", ours=True),
    ]


def test_certificates_and_records_that_are_left_at_digitalocean_are_named(api: DigitalOceanApi) -> None:
    names = api.account.names
    names.add_domain("example.com")
    record = names.add_record("example.com", {"type": "A", "name": "www", "data": "198.51.100.7"})
    custom = {"type": "custom", "leaf_certificate": "x", "private_key": "y"}
    ours = names.add_certificate({"name": "decant-dev-0a1b2c3-4d5e6f7", **custom})
    names.add_certificate({"name": "decant-other-0a1b2c3-4d5e6f7", **custom})
    gone = resource("dnsRecord:DnsRecord", "1", domain="example.com", fqdn="example.com")
    here = resource("dnsRecord:DnsRecord", str(record["id"]), domain="example.com", fqdn="www.example.com")
    certificate = resource("certificate:Certificate", "decant-dev-0a1b2c3-4d5e6f7")
    assert clouds.left("digitalocean", of_do(api, gone, here, certificate)) == [
        Left(
            what=f"certificate decant-dev-0a1b2c3-4d5e6f7 ({ours['id']})",
            command=f"doctl compute certificate delete {ours['id']}",
            ours=True,
        ),
        Left(
            what=f"DNS record www.example.com ({record['id']})",
            command=f"doctl compute domain records delete example.com {record['id']}",
            ours=True,
        ),
    ]
    assert ("GET", "/v2/certificates") in api.calls
    api.calls.clear()
    clouds.left("digitalocean", of_do(api))
    assert ("GET", "/v2/certificates") not in api.calls, "a token for a stack without a domain may not read them"


def test_a_certificate_that_was_deleted_by_hand_stops_the_provider(api: DigitalOceanApi) -> None:
    """It reads "certificate not found" as an error when it deletes one."""
    kept = api.account.names.add_certificate({"name": "decant-dev-1", "type": "custom"})
    resources = [resource("certificate:Certificate", name) for name in (kept["name"], "decant-dev-2")]
    assert clouds.gone("digitalocean", of_do(api, *resources)) == [(resources[1]["urn"], "decant-dev-2")]
