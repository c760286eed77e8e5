"""What the program creates on AWS, with and without a balancer."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest

from decant.host import render
from rehearsal.accounts.aws import Account
from rehearsal.doubles import aws, is_wrapped
from rehearsal.doubles.aws import resources as aws_resources
from rehearsal.errors import UnknownResourceError
from tests.support import in_memory
from tests.support.host_files import LIMITS
from tests.support.in_memory import INSTANCE, InMemoryBackend, Registered, Run, in_clear, project, reveal

# Importing the provider's package warns about what it deprecates; nothing of it is used here.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Start = Callable[..., Run]
WORLD = {"0.0.0.0/0", "::/0"}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run the program once on AWS: `start(machines=2)`, with `preview=True` for a forecast."""
    monkeypatch.delenv("AWS_REGION", raising=False)
    count = iter(range(100))

    def run(*, preview: bool = False, stack: str = "paper", **settings: Any) -> Run:
        folder = project(tmp_path / str(next(count)))
        config = {k.replace("__", ":"): v for k, v in {**INSTANCE, **settings}.items()}
        return in_memory.run_program(folder, config, monkeypatch, preview=preview, stack=stack)

    return run


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    """One machine that stands alone, and three behind a balancer; only ever read."""
    with pytest.MonkeyPatch.context() as patch:
        return {
            number: in_memory.run_program(
                project(tmp_path_factory.mktemp("aws") / "project"), {**INSTANCE, "machines": number}, patch
            )
            for number in (1, 3)
        }


@pytest.fixture(params=[1, 3], ids=["alone", "balanced"])
def fleet(request: pytest.FixtureRequest, fleets: dict[int, Run]) -> Run:
    return fleets[request.param]


@pytest.fixture
def alone(fleets: dict[int, Run]) -> Run:
    return fleets[1]


@pytest.fixture
def balanced(fleets: dict[int, Run]) -> Run:
    return fleets[3]


def resources(run: Run) -> list[Registered]:
    return [one for one in run.resources.values() if one.type.startswith("aws:")]


def instances(run: Run) -> list[Registered]:
    found = sorted(run.of_type(":Instance"), key=lambda one: one.name)
    assert found, "a test that looks at each instance must find one"
    return found


def id_of(run: Run, short: str) -> str:
    return run.ids[run.one(short).urn]


def inward(run: Run, group: str) -> list[dict[str, Any]]:
    """The inputs of every rule that lets something into a group."""
    rules = [dict(one.inputs) for one in run.of_type(":SecurityGroupIngressRule")]
    return [rule for rule in rules if rule["securityGroupId"] == id_of(run, f"SecurityGroup {group}")]


def comes_from(rule: dict[str, Any]) -> str:
    return str(rule.get("cidrIpv4") or rule.get("cidrIpv6") or rule["referencedSecurityGroupId"])


def before(run: Run, one: Registered) -> set[str]:
    """Everything that must exist before a resource, over all steps: it is deleted after it."""
    found: set[str] = set()
    ahead = [one.urn]
    while ahead:
        for urn in run.resources[ahead.pop()].dependencies:
            if urn not in found:
                found.add(urn)
                ahead.append(urn)
    return {run.resources[urn].short for urn in found}


# ------------------------------------------------------------------------------------------------ machines


def test_metadata_needs_a_token_and_stays_within_one_hop(fleet: Run) -> None:
    """AWS, "Use IMDSv2": https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html"""
    for one in instances(fleet):
        assert one.inputs["metadataOptions"] == {
            "httpEndpoint": "enabled",
            "httpTokens": "required",
            "httpPutResponseHopLimit": 1,
        }


def test_disks_are_encrypted(fleet: Run) -> None:
    """AWS Security Hub, control EC2.3: https://docs.aws.amazon.com/securityhub/latest/userguide/ec2-controls.html"""
    for one in instances(fleet):
        disk = one.inputs["rootBlockDevice"]
        assert disk["encrypted"] is True
        assert (disk["volumeType"], disk["volumeSize"], disk["deleteOnTermination"]) == ("gp3", 10, True)
        assert "ebsBlockDevices" not in one.inputs


def test_only_administrators_can_connect_to_ssh(fleet: Run) -> None:
    """AWS Security Hub, control EC2.13: https://docs.aws.amazon.com/securityhub/latest/userguide/ec2-controls.html"""
    ssh = [rule for rule in inward(fleet, "machines") if rule["fromPort"] == 22]
    assert sorted(map(comes_from, ssh)) == sorted(INSTANCE["adminCidrs"])
    assert {("cidrIpv6" in rule, ":" in comes_from(rule)) for rule in ssh} == {(False, False), (True, True)}
    everything = [dict(one.inputs) for one in fleet.of_type(":SecurityGroupIngressRule")]
    others = [rule for rule in everything if rule["fromPort"] <= 22 <= rule["toPort"] and rule not in ssh]
    assert not others, "neither by another rule nor for another group"


def test_nothing_is_open_to_the_world_but_the_web_ports(fleet: Run) -> None:
    """Over all rules of all groups, whatever makes them. ICMP "must not be split" (3, 4) is no port."""
    assert not any({"ingress", "egress"} & group.inputs.keys() for group in fleet.of_type(":SecurityGroup"))
    opened = {
        (rule.inputs["ipProtocol"], rule.inputs["fromPort"], rule.inputs["toPort"])
        for rule in fleet.of_type(":SecurityGroupIngressRule")
        if comes_from(dict(rule.inputs)) in WORLD
    }
    alone = not fleet.of_type(":LoadBalancer")
    assert opened == {("tcp", 80, 80), ("icmp", 3, 4)} | ({("tcp", 443, 443)} if alone else set())


def test_a_machine_alone_is_open_to_everybody_at_port_80(alone: Run) -> None:
    assert [comes_from(rule) for rule in inward(alone, "machines") if rule["fromPort"] == 80] == ["0.0.0.0/0"]
    assert not alone.of_type(":LoadBalancer")
    assert len(alone.of_type(":Subnet")) == 1


def test_behind_a_balancer_only_its_group_can_connect_to_port_80(balanced: Run) -> None:
    (web,) = [rule for rule in inward(balanced, "machines") if rule["fromPort"] <= 80 <= rule["toPort"]]
    assert comes_from(web) == id_of(balanced, "SecurityGroup balancer")
    assert (web["ipProtocol"], web["fromPort"], web["toPort"]) == ("tcp", 80, 80)
    assert balanced.one("LoadBalancer balancer").inputs["securityGroups"] == [id_of(balanced, "SecurityGroup balancer")]
    for one in instances(balanced):
        assert one.inputs["vpcSecurityGroupIds"] == [id_of(balanced, "SecurityGroup machines")]


def test_the_balancer_reaches_machines_and_nothing_else(balanced: Run) -> None:
    group = id_of(balanced, "SecurityGroup balancer")
    rules = [one.inputs for one in balanced.of_type(":SecurityGroupEgressRule")]
    (out,) = [rule for rule in rules if rule["securityGroupId"] == group]
    assert out["referencedSecurityGroupId"] == id_of(balanced, "SecurityGroup machines")
    assert (out["ipProtocol"], out["fromPort"], out["toPort"]) == ("tcp", 80, 80)


def test_machines_reach_everything(fleet: Run) -> None:
    group = id_of(fleet, "SecurityGroup machines")
    rules = [one.inputs for one in fleet.of_type(":SecurityGroupEgressRule")]
    (out,) = [rule for rule in rules if rule["securityGroupId"] == group]
    assert (out["ipProtocol"], out["cidrIpv4"]) == ("-1", "0.0.0.0/0")


def test_no_machine_is_replaced_for_another_image_or_key(fleet: Run) -> None:
    for one in instances(fleet):
        assert {"ami", "userData", "keyName"} <= set(one.ignore_changes)
        assert "userDataReplaceOnChange" not in one.inputs
        # It reads false while an instance is stopped, and the difference would replace it.
        assert "associatePublicIpAddress" not in one.inputs
    for subnet in fleet.of_type(":Subnet"):
        assert subnet.ignore_changes == ("availabilityZone",), "a new zone must not move what is there"


def test_another_size_replaces_instances_only_behind_a_balancer(alone: Run, balanced: Run) -> None:
    assert {one.replace_on_changes for one in instances(alone)} == {()}
    assert {one.replace_on_changes for one in instances(balanced)} == {("instanceType",)}
    assert not any(one.delete_before_replace for run in (alone, balanced) for one in resources(run))


def test_an_instance(start: Start) -> None:
    run = start(size="t3.small", image="debian-13-amd64")
    given = run.one("Instance web-1").inputs
    assert given["instanceType"] == "t3.small"
    assert given["keyName"] == id_of(run, "KeyPair login-key")
    assert given["subnetId"] == id_of(run, "Subnet machines-1")
    assert given["tags"] == {"Name": "decant-paper-web-1"}
    assert is_wrapped(given["userData"])
    assert len(run.world.booted["web-1"].encode()) < 16 * 1024, "AWS takes 16 KiB"
    assert is_wrapped(start(preview=True).one("Instance web-1").inputs["userData"]), "by the program's own word"
    login = run.states[run.one("PrivateKey login-key").urn]["publicKeyOpenssh"]
    assert run.one("KeyPair login-key").inputs["publicKey"] == login.strip()


def test_machines_alternate_between_two_zones(balanced: Run) -> None:
    zones = {id_of(balanced, s.short): s.inputs["availabilityZone"] for s in balanced.of_type(":Subnet")}
    assert [zones[one.inputs["subnetId"]] for one in instances(balanced)] == [
        "eu-central-1a", "eu-central-1b", "eu-central-1a",
    ]  # fmt: skip


def test_a_machine_is_reachable_as_long_as_it_exists(fleet: Run) -> None:
    """Route and rules are created before the machine and deleted after it, so that it can be drained."""
    needed = {
        "RouteTable routes",
        "InternetGateway gateway",
        "SecurityGroupEgressRule machines-out",
        "SecurityGroupIngressRule ssh-from-100.64.7.0-24",
        "SecurityGroupIngressRule ssh-from-fd00-7---64",
    }
    for one in instances(fleet):
        assert needed <= before(fleet, one)
        assert any(short.startswith("RouteTableAssociation machines-") for short in before(fleet, one))


def test_the_network(fleet: Run) -> None:
    given = fleet.one("Vpc network").inputs
    assert (given["enableDnsSupport"], given["enableDnsHostnames"]) == (True, True)
    (route,) = fleet.one("RouteTable routes").inputs["routes"]
    assert route == {"cidrBlock": "0.0.0.0/0", "gatewayId": id_of(fleet, "InternetGateway gateway")}
    for subnet in fleet.of_type(":Subnet"):
        association = fleet.one(f"RouteTableAssociation {subnet.name}").inputs
        assert association["subnetId"] == fleet.ids[subnet.urn]
        assert association["routeTableId"] == id_of(fleet, "RouteTable routes")
        assert subnet.inputs["mapPublicIpOnLaunch"] is True


# ------------------------------------------------------------------------------------------------ one alone


def test_a_single_machine_keeps_its_address(alone: Run) -> None:
    address = alone.one("Eip web-1-address")
    association = alone.one("EipAssociation web-1-address")
    assert address.inputs["domain"] == "vpc"
    assert "InternetGateway gateway" in before(alone, address), "the gateway cannot go while there is an address"
    assert association.inputs["allocationId"] == alone.ids[address.urn]
    assert association.inputs["instanceId"] == id_of(alone, "Instance web-1")
    assert association.inputs["allowReassociation"] is True
    assert association.deleted_with == alone.one("Instance web-1").urn
    ready = alone.one("Command web-1-ready")
    assert {"EipAssociation web-1-address", "SecurityGroupIngressRule http"} <= before(alone, ready)
    assert alone.exports["url"].value == "http://203.0.113.77"
    assert alone.exports["machines"].value[0]["address"] == "203.0.113.77"
    (asked,) = [one for one in alone.asked if one.token.endswith(":getInstance")]
    assert asked.arguments["instanceId"] == id_of(alone, "Instance web-1"), "is it running?"


# ------------------------------------------------------------------------------------------------ the balancer


def test_the_balancer_drops_invalid_headers_and_desync_attacks(balanced: Run) -> None:
    """AWS Security Hub, controls ELB.4 and ELB.12: https://docs.aws.amazon.com/securityhub/latest/userguide/elb-controls.html"""
    given = balanced.one("LoadBalancer balancer").inputs
    assert given["dropInvalidHeaderFields"] is True
    assert given["desyncMitigationMode"] in ("defensive", "strictest")


def test_the_target_groups_health_check(balanced: Run, start: Start) -> None:
    expected = {
        "enabled": True, "protocol": "HTTP", "port": "traffic-port", "path": "/healthz", "matcher": "200",
        "interval": 10, "timeout": 5, "healthyThreshold": 2, "unhealthyThreshold": 2,
    }  # fmt: skip
    given = balanced.one("TargetGroup targets").inputs
    assert given["healthCheck"] == expected
    assert (given["port"], given["protocol"], given["targetType"]) == (80, "HTTP", "instance")
    other = start(machines=2, healthPath="/up?deep=1").one("TargetGroup targets").inputs
    assert other["healthCheck"] == {**expected, "path": "/up?deep=1"}


def test_the_target_group_waits_for_requests_in_flight(balanced: Run) -> None:
    assert 30 <= balanced.one("TargetGroup targets").inputs["deregistrationDelay"] <= 60


def test_the_balancers_attributes_are_set_and_it_is_in_two_zones(balanced: Run) -> None:
    given = balanced.one("LoadBalancer balancer").inputs
    expected = {
        "xffHeaderProcessingMode": "append",
        "enableXffClientPort": False,  # nginx would not accept an address with a port
        "preserveHostHeader": True,
        "internal": False,
        "loadBalancerType": "application",
        "ipAddressType": "ipv4",
        "enableHttp2": True,
        "enableDeletionProtection": False,
        "idleTimeout": 4000,
    }
    assert {name: given[name] for name in expected} == expected
    zones = {balanced.ids[s.urn]: s.inputs["availabilityZone"] for s in balanced.of_type(":Subnet")}
    assert len({zones[one] for one in given["subnets"]}) == 2


def test_forwarded_addresses_are_trusted_from_the_balancers_subnets_only(balanced: Run) -> None:
    given = balanced.one("LoadBalancer balancer").inputs
    networks = {balanced.ids[s.urn]: ipaddress.ip_network(s.inputs["cidrBlock"]) for s in balanced.of_type(":Subnet")}
    its_own = {networks[one] for one in given["subnets"]}
    machines = {networks[one.inputs["subnetId"]] for one in instances(balanced)}
    assert not any(mine.overlaps(other) for mine in its_own for other in machines)
    assert all(network.prefixlen <= 27 for network in its_own), "AWS takes no smaller one"
    script = balanced.text("Command web-1-provision", "stdin")
    assert sorted(re.findall(r"set_real_ip_from (\S+);", nginx_of(script))) == sorted(map(str, its_own))
    assert "keepalive_timeout 4015s;" in nginx_of(script), "longer than the balancer keeps an idle connection"


def nginx_of(script: str) -> str:
    """nginx's configuration in what the base step reads."""
    return in_memory.carried(script)["nginx.conf"].decode()


def test_machines_are_targets_from_the_start_and_drain_before_they_are_deleted(balanced: Run) -> None:
    rollout = before(balanced, balanced.one("Command rollout"))
    for one in instances(balanced):
        attachment = balanced.one(f"TargetGroupAttachment {one.name}")
        assert attachment.inputs["targetId"] == balanced.ids[one.urn]
        assert attachment.inputs["targetGroupArn"] == id_of(balanced, "TargetGroup targets")
        assert attachment.deleted_with == "", "left out, the machine would be cut off by its deletion"
        assert {f"Instance {one.name}"} == {s for s in before(balanced, attachment) if s.startswith("Instance ")}
        drain = before(balanced, balanced.one(f"Command {one.name}-drain"))
        assert {attachment.short, one.short} <= drain
        assert {attachment.short, "Listener http", "SecurityGroupIngressRule http-from-balancer"} <= rollout
        assert not any("Command" in short for short in before(balanced, attachment)), "registered at once"


def test_the_gateway_outlives_the_balancer(balanced: Run) -> None:
    assert "InternetGateway gateway" in before(balanced, balanced.one("LoadBalancer balancer"))


def test_resources_have_no_fixed_names_so_a_replacement_can_exist_beside_them(fleet: Run) -> None:
    for one in resources(fleet):
        ours = {"name", "namePrefix", "keyNamePrefix"} | ({"keyName"} if one.type.endswith(":KeyPair") else set())
        assert not ours & one.inputs.keys()


def test_the_listener_passes_everything_on(balanced: Run) -> None:
    given = balanced.one("Listener http").inputs
    assert (given["port"], given["protocol"]) == (80, "HTTP")
    assert given["defaultActions"] == [{"type": "forward", "targetGroupArn": id_of(balanced, "TargetGroup targets")}]


def test_addresses_behind_a_balancer_are_looked_up_at_every_run(balanced: Run) -> None:
    assert not balanced.of_type(":Eip")
    asked = [one.arguments["instanceId"] for one in balanced.asked if one.token.endswith(":getInstance")]
    assert sorted(asked) == sorted(balanced.ids[one.urn] for one in instances(balanced))
    shown = {m["name"]: m for m in balanced.exports["machines"].value}
    for one in instances(balanced):
        assert shown[one.name]["id"] == balanced.ids[one.urn]
        assert shown[one.name]["address"] == balanced.states[one.urn]["publicIp"]
        assert json.loads(balanced.text(f"Command {one.name}-ready", "stdin"))["address"] == shown[one.name]["address"]


def test_the_rehearsals_balancer_has_the_stacks_settings(balanced: Run) -> None:
    world = balanced.world
    ((address, (network, check)),) = world.balancers.items()
    assert network == balanced.one("Subnet balancer-1").inputs["cidrBlock"]
    assert (check.path, check.interval, check.timeout, check.rise, check.fall) == ("/healthz", 10, 5, 2, 2)
    assert (check.idle, check.keepalive) == (4000, True)
    inside = {balanced.states[one.urn]["privateIp"] for one in instances(balanced)}
    assert set(world.targeted[address]) == inside
    assert len(inside) == 3
    assert world.assigned == {balanced.exports["url"].value.removeprefix("http://"): address}


def test_nginx_takes_a_balancers_long_name() -> None:
    """An element of nginx's table of names is a pointer, a length and the name; one more pointer ends the bucket."""
    name = "balancer-1a2b3c4-1234567890.ap-southeast-4.elb.amazonaws.com"
    proxy = render.Proxy(networks=("10.90.128.0/26",), trusts_forwarded_proto=False, drain_seconds=25, idle_timeout=60)
    for longest in (name, "a" * 253):
        text = render.nginx_conf(
            machine="web-1",
            site=render.HostSite(names=(longest,)),
            proxy=proxy,
            health_path=None,
            limits=LIMITS,
        )
        (size,) = re.findall(r"^ *server_names_hash_bucket_size (\d+);", text, re.MULTILINE)
        assert int(size) >= 8 + -(-(len(longest) + 2) // 8) * 8 + 8


# ------------------------------------------------------------------------------------------------ the account


def test_everything_is_created_and_looked_up_through_one_provider(fleet: Run) -> None:
    (provider,) = fleet.of_type("pulumi:providers:aws")
    reference = f"{provider.urn}::{fleet.ids[provider.urn]}"
    made = resources(fleet)
    assert len(made) > 10
    assert {one.provider for one in made} == {reference}
    # Pulumi itself is asked for the stack's last outputs.
    assert {one.provider for one in fleet.asked if not one.token.startswith("pulumi:")} == {reference}
    assert provider.inputs["region"] == "eu-central-1"


def test_everything_is_tagged_and_the_users_tags_are_added(start: Start) -> None:
    def tags(run: Run) -> dict[str, str]:
        (provider,) = run.of_type("pulumi:providers:aws")
        return dict(json.loads(reveal(provider.inputs["defaultTags"]))["tags"])

    ours = {"managed-by": "pulumi", "decant:project": "decant", "decant:stack": "shop"}
    assert tags(start(stack="shop")) == ours
    theirs = {"tags": {"Owner": "ann", "managed-by": "ann"}}
    assert tags(start(stack="shop", aws__defaultTags=theirs)) == {**ours, **theirs["tags"]}
    # The policy in docs/aws.md knows the stack's machines by these two.
    wrong = {"tags": {"decant:project": "other", "decant:stack": "other"}}
    assert tags(start(stack="shop", aws__defaultTags=wrong)) == ours
    review = {"review": {"expires": "2026-12-05T18:30Z"}, "machines": 1}
    assert tags(start(stack="pr-7", **review)) == {
        **ours, "decant:stack": "pr-7", "decant:expires": "2026-12-05T18:30Z",
    }  # fmt: skip
    assert "decant:expires" not in tags(start(stack="pr-7", machines=1))


def test_settings_of_the_provider_reach_it(start: Start) -> None:
    role = [{"roleArn": "arn:aws:iam::123456789012:role/deploy", "externalId": "7"}]
    more = {"aws__profile": "123456789012", "aws__maxRetries": "7", "aws__skipMetadataApiCheck": "false",
            "aws__assumeRoles": role, "aws__s3UsEast1RegionalEndpoint": "regional"}  # fmt: skip
    (provider,) = start(**more).of_type("pulumi:providers:aws")
    assert provider.inputs["profile"] == "123456789012", "text, although it looks like a number"
    assert provider.inputs["maxRetries"] == "7"
    assert provider.inputs["skipMetadataApiCheck"] == "false"
    assert json.loads(provider.inputs["assumeRoles"]) == role
    assert provider.inputs["s3UsEast1RegionalEndpoint"] == "regional"


def test_a_secret_setting_of_the_provider_stays_secret(start: Start) -> None:
    (provider,) = start(aws__accessKey="AKIACANARY", aws__secretKey="canary-4e1d").of_type("pulumi:providers:aws")
    assert is_wrapped(provider.inputs["secretKey"])
    assert reveal(provider.inputs["secretKey"]) == "canary-4e1d"
    assert not any("canary" in text.lower() for text in in_clear(dict(provider.inputs)))


def test_a_secret_setting_of_the_provider_is_not_in_an_error(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", '["aws:assumeRoles"]')
    with pytest.raises(pulumi.RunError) as caught:
        start(aws__assumeRoles="[{canary-4e1d")
    assert "aws:assumeRoles is [secret]: it must be" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_an_unknown_setting_of_the_provider_is_named(start: Start) -> None:
    with pytest.raises(pulumi.RunError) as caught:
        start(aws__regoin="eu-central-1", aws__max_retries="3")
    text = str(caught.value)
    assert "aws:regoin is not a setting of the AWS provider; did you mean aws:region?" in text
    assert "did you mean aws:maxRetries?" in text
    assert "pulumi config rm aws:regoin" in text


def test_a_wrong_value_of_a_provider_setting_is_named(start: Start) -> None:
    with pytest.raises(pulumi.RunError, match=r"aws:maxRetries is \"many\": it must be"):
        start(aws__maxRetries="many")


def test_administrators_need_an_ipv4_address(start: Start) -> None:
    with pytest.raises(pulumi.RunError, match="must hold an IPv4 network"):
        start(adminCidrs=["fd00:7::/64"])


def test_a_repeated_admin_network_makes_one_rule(start: Start) -> None:
    run = start(adminCidrs=["100.64.7.0/24", "100.64.7.0/24"])
    assert len([rule for rule in inward(run, "machines") if rule["fromPort"] == 22]) == 1


# ------------------------------------------------------------------------------------------------ look-ups


def test_the_image_is_debians_own_newest(fleet: Run) -> None:
    (asked,) = [one.arguments for one in fleet.asked if one.token.endswith(":getAmi")]
    assert asked["owners"] == ["136693071363"]
    assert asked["mostRecent"] is True
    assert {one["name"]: one["values"] for one in asked["filters"]} == {
        "name": ["debian-13-amd64-*"],
        "architecture": ["x86_64"],
        "virtualization-type": ["hvm"],
        "root-device-type": ["ebs"],
    }


def test_an_image_id_is_used_as_it_is(start: Start) -> None:
    run = start(image="ami-0123456789abcdef0")
    assert run.one("Instance web-1").inputs["ami"] == "ami-0123456789abcdef0"
    (asked,) = [one.arguments for one in run.asked if one.token.endswith(":getAmi")]
    assert asked == {"filters": [{"name": "image-id", "values": ["ami-0123456789abcdef0"]}], "includeDeprecated": True}


def test_zones_that_need_an_opt_in_are_left_out(fleet: Run) -> None:
    (asked,) = [one.arguments for one in fleet.asked if "Zones" in one.token]
    assert asked["state"] == "available"
    assert {one["name"]: one["values"] for one in asked["filters"]} == {"opt-in-status": ["opt-in-not-required"]}


@pytest.mark.parametrize("machines", [1, 3])
def test_a_preview_plans_every_resource_but_no_values(start: Start, fleets: dict[int, Run], machines: int) -> None:
    planned = start(machines=machines, preview=True)
    assert {one.short for one in planned.resources.values()} == {
        one.short for one in fleets[machines].resources.values()
    }
    assert {name for name, one in planned.exports.items() if one.known} == {"cost"}


# ------------------------------------------------------------------------------------------------ the doubles


def ask(world: InMemoryBackend, kind: str, name: str = "one", **inputs: Any) -> tuple[str, dict[str, Any]]:
    numbers = iter(range(400000001, 400001000))
    return aws.doubles(world, lambda: str(next(numbers)))[f"aws:{kind}"](name, inputs)


def test_a_double_knows_the_providers_inputs_and_no_others() -> None:
    assert ask(InMemoryBackend(), "ec2/vpc:Vpc", cidrBlock="10.0.0.0/16")[0].startswith("vpc-0")
    with pytest.raises(UnknownResourceError, match="aws:ec2/vpc:Vpc has no input cidr"):
        ask(InMemoryBackend(), "ec2/vpc:Vpc", cidr="10.0.0.0/16")


def test_every_double_stands_for_a_resource_of_the_provider() -> None:
    for kind in aws.doubles(InMemoryBackend(), lambda: "1"):
        assert len(aws_resources.inputs_of(kind.removeprefix("aws:"))) > 2


def test_names_and_ids_look_like_those_of_the_provider(balanced: Run) -> None:
    elb = r"arn:aws:elasticloadbalancing:[a-z0-9-]+:\d{12}:"
    patterns = {
        "Vpc network": r"vpc-0[0-9a-f]{16}",
        "Subnet machines-1": r"subnet-0[0-9a-f]{16}",
        "InternetGateway gateway": r"igw-0[0-9a-f]{16}",
        "RouteTable routes": r"rtb-0[0-9a-f]{16}",
        "SecurityGroup machines": r"sg-0[0-9a-f]{16}",
        "SecurityGroupIngressRule http-from-balancer": r"sgr-0[0-9a-f]{16}",
        "KeyPair login-key": r"login-key-[0-9a-f]{7}",
        "Instance web-1": r"i-0[0-9a-f]{16}",
        "LoadBalancer balancer": elb + r"loadbalancer/app/balancer-[0-9a-f]{7}/[0-9a-f]{16}",
        "TargetGroup targets": elb + r"targetgroup/targets-[0-9a-f]{7}/[0-9a-f]{16}",
        "Listener http": elb + r"listener/app/balancer-[0-9a-f]{7}/[0-9a-f]{16}/[0-9a-f]{16}",
    }
    for short, pattern in patterns.items():
        assert re.fullmatch(pattern, id_of(balanced, short)), short


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("ec2/instance:Instance", {"ami": "ami-0123456789abcdef0", "userData": "x" * 16385}, "16384 are allowed"),
        ("lb/targetGroup:TargetGroup", {"targetType": "ip"}, "has targetType instance, not ip"),
        ("vpc/securityGroupIngressRule:SecurityGroupIngressRule", {"securityGroupId": "sg-0"}, "one peer, not 0"),
    ],
)
def test_a_double_refuses_what_aws_would(kind: str, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownResourceError, match=message):
        ask(InMemoryBackend(), kind, **inputs)


def account() -> aws_resources.Aws:
    numbers = iter(range(400000001, 400001000))
    return aws_resources.Aws(InMemoryBackend(), lambda: str(next(numbers)), Account())


def test_the_doubles_balancer_checks_as_the_target_group_says() -> None:
    cloud, arn = account(), "arn:aws:elasticloadbalancing:eu-central-1:1:loadbalancer/app/b/1"
    cloud.balancers[arn] = aws_resources.LoadBalancer("203.0.113.9", "10.0.0.0/26", 61)
    cloud.groups["group"] = aws_resources.TargetGroup(
        check={"path": "/up", "interval": 11.0, "timeout": 4.0, "healthyThreshold": 2.0, "unhealthyThreshold": 3.0,
               "matcher": "200"}
    )  # fmt: skip
    actions = [{"type": "forward", "targetGroupArn": "group"}]
    cloud.listener("http", {"defaultActions": actions, "port": 80, "protocol": "HTTP", "loadBalancerArn": arn})
    assert isinstance(cloud.backend, InMemoryBackend)
    ((network, check),) = cloud.backend.balancers.values()
    assert network == "10.0.0.0/26"
    assert (check.path, check.interval, check.timeout, check.rise, check.fall) == ("/up", 11, 4, 2, 3)
    assert (check.idle, check.keepalive, check.expect) == (61, True, "200")


@pytest.mark.parametrize(
    ("second", "message"),
    [(("10.0.1.0/28", "b"), "needs /27 or more of each subnet"), (("10.0.1.0/27", "a"), "needs subnets in two zones")],
)
def test_a_doubles_balancer_needs_two_subnets_that_are_large_enough(second: tuple[str, str], message: str) -> None:
    cloud = account()
    cloud.subnets = {"one": ("vpc", "10.0.0.0/27", "a"), "two": ("vpc", *second)}
    with pytest.raises(UnknownResourceError, match=message):
        cloud.load_balancer("balancer", {"subnets": ["one", "two"]})


# ------------------------------------------------------------------------------------------------ the documented policy


OWN_TAGS = {"aws:ResourceTag/decant:project": "decant", "aws:ResourceTag/decant:stack": "production"}


@pytest.fixture
def policy() -> dict[str, dict[str, Any]]:
    """The statements of the policy in docs/aws.md by their names."""
    page = (in_memory.REPOSITORY / "docs" / "aws.md").read_text(encoding="utf-8")
    text = page.partition("```json\n")[2].partition("```")[0]
    return {one["Sid"]: one for one in json.loads(text)["Statement"]}


def test_the_policy_is_for_the_machines_of_one_stack(policy: dict[str, dict[str, Any]]) -> None:
    """Otherwise the credentials for `dev` could delete the machines of `production`."""
    own = policy["OwnMachines"]
    assert own["Condition"]["StringEquals"] == {"aws:RequestedRegion": "eu-central-1", **OWN_TAGS}
    assert {"ec2:TerminateInstances", "ec2:StopInstances", "ec2:ModifyInstanceCreditSpecification"} < set(own["Action"])


@pytest.mark.parametrize(
    ("statement", "tag"),
    [
        ("NobodyElsesMachines", "aws:ResourceTag/decant:project"),
        ("NoOtherStacksMachines", "aws:ResourceTag/decant:stack"),
    ],
)
def test_the_policy_does_not_allow_tagging_other_machines(
    policy: dict[str, dict[str, Any]], statement: str, tag: str
) -> None:
    """Stopping and deleting need the tags: a right to set one would allow deleting any machine of the account.

    In one statement, two tags that differ would both have to be others: IAM joins the names of a condition by AND.
    """
    denied = policy[statement]
    assert denied["Effect"] == "Deny"
    assert {"ec2:CreateTags", "ec2:DeleteTags"} == set(denied["Action"])
    assert denied["Resource"].endswith(":instance/*")
    # A new machine has no tag yet when it gets its first ones.
    assert denied["Condition"] == {"StringNotEquals": {tag: OWN_TAGS[tag]}, "Null": {"ec2:CreateAction": "true"}}


@pytest.mark.parametrize(
    "action",
    ["ec2:ModifyNetworkInterfaceAttribute", "ec2:ModifyVolume", "ec2:ModifyInstanceCreditSpecification",
     "servicequotas:GetServiceQuota"],
)  # fmt: skip
def test_the_policy_allows_what_changes_of_machines_need(policy: dict[str, dict[str, Any]], action: str) -> None:
    """Another group goes to the network interface, another disk size to the volume."""
    assert [one["Effect"] for one in policy.values() if action in one["Action"]] == ["Allow"]


def test_the_policy_allows_what_a_load_balancer_looks_up_itself() -> None:
    """CreateLoadBalancer may fail without it: kubernetes-sigs/aws-load-balancer-controller, issue 3917."""
    page = (in_memory.REPOSITORY / "docs" / "aws.md").read_text(encoding="utf-8")
    assert '"ec2:GetSecurityGroupsForVpc"' in page
