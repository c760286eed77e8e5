"""The calls that a check of an AWS account makes, answered in memory by way of botocore's own events.

botocore checks what goes in against its model of AWS, and the account's answers are checked against the same model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.loaders import create_loader
from botocore.validate import ParamValidator

from decant.clouds.aws import session as aws_session

Json = dict[str, Any]
LOADER = create_loader()  # reads AWS's models once for all tests
USER = "arn:aws:iam::123456789012:user/carol"
ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")


class RefusedError(Exception):
    """An error that AWS gives: its code, its text and its status."""

    def __init__(self, code: str, text: str = "no", status: int = 400) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.status = status


def instance_type(name: str, vcpus: int, memory: int, architecture: str = "x86_64") -> Json:
    return {
        "InstanceType": name,
        "VCpuInfo": {"DefaultVCpus": vcpus},
        "MemoryInfo": {"SizeInMiB": memory},
        "ProcessorInfo": {"SupportedArchitectures": [architecture]},
    }


def instance(number: str, kind: str = "t3.micro", cores: int = 1, **more: Any) -> Json:
    return {"InstanceId": number, "InstanceType": kind, "State": {"Name": "running"}, "Tags": [],
            "CpuOptions": {"CoreCount": cores, "ThreadsPerCore": 2}, **more}  # fmt: skip


@dataclass
class Account:
    """What the account has and allows. `refused` maps operations to the errors that they give."""

    caller: str = USER
    regions: list[str] = field(default_factory=lambda: ["eu-central-1", "us-east-1"])
    types: list[Json] = field(
        default_factory=lambda: [
            instance_type("t3.micro", 2, 1024), instance_type("t3.nano", 2, 512),
            instance_type("t4g.small", 2, 2048, "arm64"), instance_type("g5.xlarge", 4, 16384),
        ]
    )  # fmt: skip
    offered: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The zones of types that not all zones have."""
    images: list[Json] = field(
        default_factory=lambda: [
            {"ImageId": "ami-1", "Name": "debian-13-amd64-1", "Architecture": "x86_64", "CreationDate": "2026-01-01"},
            {"ImageId": "ami-2", "Name": "debian-13-amd64-2", "Architecture": "x86_64", "CreationDate": "2026-09-01"},
            {"ImageId": "ami-3", "Name": "debian-13-arm64-2", "Architecture": "arm64", "CreationDate": "2026-09-01"},
        ]
    )
    instances: list[Json] = field(default_factory=list)
    vpcs: list[Json] = field(default_factory=lambda: [{"VpcId": "vpc-default", "Tags": []}])
    addresses: list[Json] = field(default_factory=list)
    balancers: list[Json] = field(default_factory=list)
    quotas: dict[str, float] = field(
        default_factory=lambda: {"L-1216C47A": 5.0, "L-F678F1CE": 5.0, "L-0263D0A3": 5.0, "L-53DA6B97": 50.0}
    )
    rules: list[Json] = field(default_factory=list)
    """Rules of security groups, as DescribeSecurityGroupRules lists them."""
    zones: list[Json] = field(default_factory=list)
    """Hosted zones of Route 53, each with its Name, Id, Config and NameServers."""
    denied: set[str] = field(default_factory=set)
    """Actions that the caller's policies do not allow."""
    only: dict[str, str] = field(default_factory=dict)
    """Actions that are allowed for resources alone whose ARN begins like this."""
    refused: dict[str, RefusedError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, operation: str, asked: Json) -> Json:
        self.asked.append(operation)
        if operation in self.refused:
            raise self.refused[operation]
        result: Json = getattr(self, operation)(asked)
        return result

    def GetCallerIdentity(self, asked: Json) -> Json:
        return {"Arn": self.caller, "Account": "123456789012", "UserId": "AIDA"}

    def AssumeRole(self, asked: Json) -> Json:
        self.caller = asked["RoleArn"].replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/decant"
        keys = {"AccessKeyId": "A" * 16, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": 0}
        return {"Credentials": keys}

    def GetRole(self, asked: Json) -> Json:
        name = asked["RoleName"]
        return {"Role": {"Arn": f"arn:aws:iam::123456789012:role/team/{name}", "RoleName": name, "Path": "/team/",
                         "RoleId": "A" * 16, "CreateDate": 0}}  # fmt: skip

    def SimulatePrincipalPolicy(self, asked: Json) -> Json:
        self.simulated = asked

        def decision(action: str, arn: str) -> str:
            allowed = action not in self.denied and arn.startswith(self.only.get(action, ""))
            return "allowed" if allowed else "implicitDeny"

        def result(action: str) -> Json:
            specific = [
                {"EvalResourceName": arn, "EvalResourceDecision": decision(action, arn)}
                for arn in asked["ResourceArns"]
            ]
            together = {one["EvalResourceDecision"] for one in specific} == {"allowed"}
            return {"EvalActionName": action, "EvalDecision": "allowed" if together else "implicitDeny",
                    "ResourceSpecificResults": specific}  # fmt: skip

        return {"EvaluationResults": [result(action) for action in asked["ActionNames"]]}

    def _dry(self, action: str, asked: Json) -> Json:
        assert asked["DryRun"] is True, "a check must not make anything"
        raise RefusedError("UnauthorizedOperation" if action in self.denied else "DryRunOperation", status=412)

    def CreateVpc(self, asked: Json) -> Json:
        return self._dry("ec2:CreateVpc", asked)

    def ImportKeyPair(self, asked: Json) -> Json:
        return self._dry("ec2:ImportKeyPair", asked)

    def AllocateAddress(self, asked: Json) -> Json:
        return self._dry("ec2:AllocateAddress", asked)

    def DescribeRegions(self, asked: Json) -> Json:
        return {"Regions": [{"RegionName": name} for name in self.regions]}

    def DescribeAvailabilityZones(self, asked: Json) -> Json:
        return {"AvailabilityZones": [{"ZoneName": name} for name in ZONES]}

    def DescribeInstanceTypes(self, asked: Json) -> Json:
        found = [entry for entry in self.types if entry["InstanceType"] in asked["InstanceTypes"]]
        if not found:
            text = f"The following supplied instance types do not exist: [{asked['InstanceTypes'][0]}]"
            raise RefusedError("InvalidInstanceType", text)
        return {"InstanceTypes": found}

    def DescribeInstanceTypeOfferings(self, asked: Json) -> Json:
        (name,) = asked["Filters"][0]["Values"]
        zones = self.offered.get(name, ZONES)
        return {"InstanceTypeOfferings": [{"InstanceType": name, "Location": zone} for zone in zones]}

    def DescribeImages(self, asked: Json) -> Json:
        if "ImageIds" in asked:
            found = [image for image in self.images if image["ImageId"] in asked["ImageIds"]]
            if not found:
                raise RefusedError("InvalidAMIID.NotFound", f"The image id '[{asked['ImageIds'][0]}]' does not exist")
            return {"Images": found}
        assert asked["Owners"] == ["136693071363"]
        prefix = asked["Filters"][0]["Values"][0].removesuffix("*")
        return {"Images": [image for image in self.images if image["Name"].startswith(prefix)]}

    def DescribeInstances(self, asked: Json) -> Json:
        return {"Reservations": [{"Instances": [one]} for one in self.instances if _fits(one, asked["Filters"])]}

    def DescribeVpcs(self, asked: Json) -> Json:
        return {"Vpcs": [vpc for vpc in self.vpcs if _fits(vpc, asked.get("Filters", []))]}

    def DescribeAddresses(self, asked: Json) -> Json:
        return {"Addresses": self.addresses}

    def DescribeSecurityGroupRules(self, asked: Json) -> Json:
        (wanted,) = asked["Filters"]
        assert wanted["Name"] == "group-id"
        return {"SecurityGroupRules": [rule for rule in self.rules if rule["GroupId"] in wanted["Values"]]}

    def AuthorizeSecurityGroupIngress(self, asked: Json) -> Json:
        """A rule's description does not make it another rule."""
        (permission,) = asked["IpPermissions"]
        (source,) = permission["IpRanges"]
        made = {
            "GroupId": asked["GroupId"], "IsEgress": False, "IpProtocol": permission["IpProtocol"],
            "FromPort": permission["FromPort"], "ToPort": permission["ToPort"], "CidrIpv4": source["CidrIp"],
        }  # fmt: skip
        if any(made.items() <= rule.items() for rule in self.rules):
            raise RefusedError("InvalidPermission.Duplicate", "the specified rule already exists")
        made |= {"SecurityGroupRuleId": f"sgr-{len(self.asked)}", "Description": source["Description"]}
        self.rules.append(made)
        return {"Return": True, "SecurityGroupRules": [made]}

    def RevokeSecurityGroupIngress(self, asked: Json) -> Json:
        (identity,) = asked["SecurityGroupRuleIds"]
        found = [
            rule
            for rule in self.rules
            if (rule["GroupId"], rule["SecurityGroupRuleId"]) == (asked["GroupId"], identity)
        ]
        if not found:
            text = f"The security group rule ID '{identity}' does not exist"
            raise RefusedError("InvalidSecurityGroupRuleId.NotFound", text)
        self.rules.remove(found[0])
        return {"Return": True}

    def GetServiceQuota(self, asked: Json) -> Json:
        return {"Quota": {"Value": self.quotas[asked["QuotaCode"]]}}

    def GetAWSDefaultServiceQuota(self, asked: Json) -> Json:
        return {"Quota": {"Value": 5.0}}

    def ListHostedZonesByName(self, asked: Json) -> Json:
        """Those from a name on, in order: the one that is asked for may not be among them."""
        shown = [{key: zone[key] for key in ("Id", "Name", "Config")} for zone in self.zones]
        return {
            "HostedZones": [{**zone, "CallerReference": "x"} for zone in shown],
            "IsTruncated": False,
            "MaxItems": "10",
        }

    def GetHostedZone(self, asked: Json) -> Json:
        (zone,) = [zone for zone in self.zones if zone["Id"].endswith(f"/{asked['Id']}")]
        shown = {"Id": zone["Id"], "Name": zone["Name"], "CallerReference": "x"}
        return {"HostedZone": shown, "DelegationSet": {"NameServers": zone["NameServers"]}}

    def DescribeAccountLimits(self, asked: Json) -> Json:
        return {"Limits": [{"Name": "application-load-balancers", "Max": str(int(self.quotas["L-53DA6B97"]))}]}

    def DescribeLoadBalancers(self, asked: Json) -> Json:
        return {"LoadBalancers": self.balancers}

    def CreateLoadBalancer(self, asked: Json) -> Json:
        assert all(set(subnet.removeprefix("subnet-")) <= {"0", "1"} for subnet in asked["Subnets"])
        raise RefusedError("SubnetNotFound", f"The subnet ID '{asked['Subnets'][0]}' does not exist")


def _fits(thing: Json, filters: list[Json]) -> bool:
    tags = {f"tag:{tag['Key']}": tag["Value"] for tag in thing["Tags"]}
    facts = {**tags, "instance-state-name": thing.get("State", {}).get("Name")}
    return all(facts.get(wanted["Name"]) in wanted["Values"] for wanted in filters)


def install(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every session from now on ask this account."""

    def new(profile: str | None = None) -> Any:
        session = botocore.session.Session(profile=profile)
        session.register_component("data_loader", LOADER)
        session.register("provide-client-params", _keep)
        session.register("before-call", lambda **given: _answered(account.answer, **given))
        return session

    monkeypatch.setattr(aws_session, "botocore_session", SimpleNamespace(Session=new))


def _keep(params: Json, context: Json, **more: Any) -> None:
    context["asked"] = params


def _answered(answer: Callable[[str, Json], Json], model: Any, context: Json, **more: Any) -> tuple[AWSResponse, Json]:
    try:
        found = answer(model.name, context["asked"])
    except RefusedError as error:
        told = {
            "Error": {"Code": error.code, "Message": error.text},
            "ResponseMetadata": {"HTTPStatusCode": error.status},
        }
        return AWSResponse("https://aws", error.status, {}, None), told
    if model.output_shape is not None:
        report = ParamValidator().validate(found, model.output_shape)
        assert not report.has_errors(), report.generate_report()
    return AWSResponse("https://aws", 200, {}, None), found
