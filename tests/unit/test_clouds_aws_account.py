"""The check of an AWS account, and the session that asks, against an account in memory."""

from __future__ import annotations

import fnmatch
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from decant.clouds.aws import account as checks
from decant.clouds.aws import permissions, quotas
from decant.clouds.aws.policy import Scope, deploy_policy, preview_policy
from decant.clouds.aws.session import connect
from decant.clouds.checks import Check
from decant.errors import CloudApiError
from tests.support.account_facts import facts, row, settings
from tests.support.aws_reads import USER, Account, RefusedError, install, instance
from tests.support.dns_server import DnsServer

PROJECT = Path(__file__).resolve().parents[2]
ROLE = "arn:aws:iam::123456789012:role/deployer"
INCREASE = "aws service-quotas request-service-quota-increase --service-code"


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file, no variable and no metadata service gives credentials, whoever runs the tests."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def account(no_credentials: None, monkeypatch: pytest.MonkeyPatch) -> Account:
    made = Account()
    install(made, monkeypatch)
    return made


def check(*, provider: dict[str, str] | None = None, **more: Any) -> list[Check]:
    return checks.check(facts("aws", provider=provider, **more))


def parts(check: Check) -> tuple[str, str, str]:
    return check.answer, check.detail, check.fix


# ------------------------------------------------------------------------------------------------ the session


def test_credentials_lose_what_surrounds_them(
    endpoint: tuple[str, list[str]], no_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pulumi config set --secret` from a file keeps its last line end, and no header may have one."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint[0])
    keys = {"accessKey": "AKIDEXAMPLE\n", "secretKey": " s\r\n", "token": "session-canary\r\n"}
    assert connect({"region": "eu-west-3", **keys}, {}).ask("sts", "get_caller_identity")["Arn"] == USER
    assert endpoint[1][0].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")


def test_a_token_that_is_no_header_is_not_shown(
    endpoint: tuple[str, list[str]], no_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ENDPOINT_URL", endpoint[0]), ("ACCESS_KEY_ID", "A"), ("SECRET_ACCESS_KEY", "s")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-canary\r\n")
    with pytest.raises(CloudApiError) as caught:
        connect({"region": "eu-west-3"}, {}).ask("sts", "get_caller_identity")
    assert str(caught.value) == "the request could not be sent (HTTPClientError): is there a line end in a credential?"


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[str]]]:
    """AWS's security token service at a local address, with the Authorization headers that came."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers["Authorization"])
            body = (
                '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
                f"<Arn>{USER}</Arn><UserId>A</UserId><Account>1</Account></GetCallerIdentityResult>"
                "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("no_credentials")
def test_the_stacks_keys_and_region_sign_the_calls(
    endpoint: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = endpoint
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    session = connect({"region": "eu-west-3", "accessKey": "AKIDEXAMPLE", "secretKey": "s"}, {})
    assert session.ask("sts", "get_caller_identity")["Arn"] == USER
    assert re.search(r"Credential=AKIDEXAMPLE/\d{8}/eu-west-3/sts/", seen[0])


@pytest.mark.usefixtures("no_credentials")
def test_the_stacks_endpoints_and_files_are_used(endpoint: tuple[str, list[str]], tmp_path: Path) -> None:
    url, seen = endpoint
    keys = tmp_path / "keys"
    keys.write_text("[work]\naws_access_key_id = AKIDFILE\naws_secret_access_key = s\n")
    provider = {"region": "eu-west-3", "profile": "work", "sharedCredentialsFiles": json.dumps([str(keys)]),
                "endpoints": json.dumps([{"sts": url}])}  # fmt: skip
    assert connect(provider, {}).ask("sts", "get_caller_identity")["Arn"] == USER
    assert "Credential=AKIDFILE/" in seen[0]


def test_a_role_of_the_stack_is_assumed(account: Account) -> None:
    found = check(provider={"assumeRoles": json.dumps([{"roleArn": ROLE, "externalId": "team-7"}])})
    assert row(found, "credentials").detail == "arn:aws:sts::123456789012:assumed-role/deployer/decant"
    assert account.simulated["PolicySourceArn"] == "arn:aws:iam::123456789012:role/team/deployer"


@pytest.mark.parametrize(
    ("provider", "environ", "region"),
    [
        ({"region": "a-b-1"}, {"AWS_REGION": "c-d-1"}, "a-b-1"),
        ({}, {"AWS_REGION": "c-d-1", "AWS_DEFAULT_REGION": "e-f-1"}, "c-d-1"),
        ({}, {"AWS_DEFAULT_REGION": "e-f-1"}, "e-f-1"),
    ],
)
def test_where_the_region_comes_from(provider: dict[str, str], environ: dict[str, str], region: str) -> None:
    assert connect(provider, environ).region == region


def test_a_setting_that_is_no_json_is_named() -> None:
    with pytest.raises(CloudApiError, match="aws:assumeRoles must be a list or an object in JSON"):
        connect({"region": "eu-west-3", "assumeRoles": "{"}, {})


# ------------------------------------------------------------------------------------------------ credentials


@pytest.mark.usefixtures("no_credentials")
def test_no_credentials() -> None:
    (only,) = check()
    assert only.answer == "no"
    assert only.detail == "Unable to locate credentials"
    assert only.fix.startswith("aws configure ")


@pytest.mark.usefixtures("no_credentials")
def test_a_profile_that_does_not_exist() -> None:
    (only,) = check(provider={"profile": "nobody"})
    assert parts(only) == (
        "no",
        "The config profile (nobody) could not be found",
        "aws configure list-profiles, then: pulumi config set aws:profile NAME",
    )


@pytest.mark.usefixtures("no_credentials")
def test_an_aws_that_does_not_answer_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (only,) = check(provider={"accessKey": "a", "secretKey": "b"})
    assert (only.answer, only.blocks) == ("unknown", False)


@pytest.mark.parametrize(
    ("code", "status", "fix"),
    [
        (
            "InvalidClientTokenId",
            403,
            "aws configure   (AWS does not know the access key, or the region is closed to it)",
        ),
        ("ExpiredToken", 400, "aws sso login   (or new keys: docs/aws.md, step 3)"),
        ("SomethingNew", 403, "aws configure"),
    ],
)
def test_bad_credentials(account: Account, code: str, status: int, fix: str) -> None:
    account.refused["GetCallerIdentity"] = RefusedError(code, "The security token is invalid", status)
    (only,) = check()
    assert parts(only) == ("no", "The security token is invalid", fix)
    assert account.asked == ["GetCallerIdentity"]


@pytest.mark.parametrize(
    ("region", "detail"),
    [
        ("", "aws:region is not set"),
        ("eu-centrl-1", "AWS has no region eu-centrl-1"),
        ("not a region", "Provided region_name 'not a region' doesn't match a supported format."),
    ],
)
@pytest.mark.usefixtures("no_credentials")
def test_a_region_that_does_not_exist(region: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    (only,) = check(provider={"accessKey": "a", "secretKey": "b", "region": region})
    assert parts(only) == ("no", detail, "pulumi config set aws:region eu-central-1 --stack dev")


# ------------------------------------------------------------------------------------------------ the account


def test_an_account_with_everything(account: Account) -> None:
    found = check()
    assert [(c.subject, c.answer) for c in found] == [
        ("credentials", "yes"), ("region eu-central-1", "yes"), ("permissions", "yes"), ("size t3.micro", "yes"),
        ("zones", "yes"), ("image debian-13", "yes"), ("vCPUs", "yes"), ("a replacement", "yes"),
        ("VPCs", "yes"), ("Elastic IPs", "yes"), ("names", "yes"),
    ]  # fmt: skip
    assert row(found, "size t3.micro").detail == "2 vCPUs (x86_64), 1024 MiB of memory"
    assert row(found, "image debian-13").detail == "ami-2 (x86_64)"
    assert row(found, "vCPUs").detail == "0 of 5 vCPUs in use, 2 more needed"
    assert row(found, "a replacement").detail == "0 of 5 vCPUs in use, 4 more needed"
    assert not any(c.fix for c in found)
    assert not [call for call in account.asked if not call.startswith(("Describe", "Get", "Simulate"))]


def test_a_region_that_is_not_open(account: Account) -> None:
    found = check(aws_region="ap-east-1")
    assert len(found) == 2, "nothing else can be asked there"
    assert parts(found[1]) == (
        "no",
        "not open to the account; open are eu-central-1, us-east-1",
        "aws account enable-region --region-name ap-east-1, or pulumi config set aws:region eu-central-1 --stack dev",
    )


@pytest.mark.parametrize(
    ("size", "detail"),
    [
        ("t3.mikro", "no instance type of eu-central-1"),
        ("t3.nano", "2 vCPUs (x86_64), 512 MiB of memory; two releases side by side need 1024"),
    ],
)
def test_a_size_that_cannot_be_used(account: Account, size: str, detail: str) -> None:
    fix = "pulumi config set decant:size t3.micro --stack dev"
    assert parts(row(check(size=size), f"size {size}")) == ("no", detail, fix)


def test_a_size_that_not_enough_zones_offer(account: Account) -> None:
    account.offered["t3.micro"] = ("eu-central-1b",)
    assert row(check(), "zones").answer == "yes"
    zones = row(check(machines=2), "zones")
    assert zones.answer == "no"
    assert zones.detail == "t3.micro is offered in eu-central-1b; the stack needs 2"
    assert zones.blocks


def test_an_image_for_other_processors(account: Account) -> None:
    image = row(check(size="t4g.small", image="debian-13-amd64"), "image debian-13-amd64")
    assert parts(image) == (
        "no",
        "it is for x86_64, and t4g.small is arm64",
        "pulumi config set decant:image debian-13-arm64 --stack dev",
    )
    assert row(check(size="t4g.small", image="debian-13-arm64"), "image debian-13-arm64").answer == "yes"


@pytest.mark.parametrize("image", ["ami-9", "debian-14-amd64"])
def test_an_image_that_the_region_has_not(account: Account, image: str) -> None:
    fix = "pulumi config set decant:image debian-13-amd64 --stack dev"
    assert parts(row(check(image=image), f"image {image}")) == ("no", "there is none in eu-central-1", fix)


# ------------------------------------------------------------------------------------------------ permissions


def test_actions_that_are_denied_are_named(account: Account) -> None:
    account.denied = {"ec2:CreateVpc", "elasticloadbalancing:CreateLoadBalancer"}
    found = row(check(), "permissions")
    assert (found.answer, found.detail) == ("no", f"{USER} may not call ec2:CreateVpc")
    assert "docs/aws.md, Permissions" in found.fix
    found = row(check(machines=2), "permissions")
    assert found.detail == f"{USER} may not call ec2:CreateVpc, elasticloadbalancing:CreateLoadBalancer"


def test_a_policy_that_names_resources_is_enough(account: Account) -> None:
    account.only = {"ec2:StopInstances": "arn:aws:ec2:eu-central-1:123456789012:instance/"}
    assert row(check(), "permissions").answer == "yes"
    account.only["ec2:StopInstances"] = "arn:aws:ec2:us-east-1:123456789012:instance/"
    assert row(check(), "permissions").detail == f"{USER} may not call ec2:StopInstances"


def test_many_denied_actions_are_counted(account: Account) -> None:
    account.denied = set(permissions.ACTIONS)
    assert row(check(), "permissions").detail == (
        f"{USER} may not call ec2:CreateVpc, ec2:DeleteVpc, ec2:ModifyVpcAttribute, ec2:CreateSubnet and"
        f" {len(permissions.ACTIONS) - 4} more"
    )


def test_the_simulation_knows_the_region_and_the_tags(account: Account) -> None:
    check()
    context = {entry["ContextKeyName"]: entry["ContextKeyValues"] for entry in account.simulated["ContextEntries"]}
    assert context["aws:RequestedRegion"] == ["eu-central-1"]
    assert context["aws:ResourceTag/decant:project"] == ["decant"]


def test_the_simulation_knows_the_names_of_the_records(account: Account) -> None:
    """The roles of CI may change the records of the names that they were made for: others are told by the check."""
    check(domain="shop.example.com", redirects='["example.org"]', dnsZone="example.com")
    entries = {entry["ContextKeyName"]: entry for entry in account.simulated["ContextEntries"]}
    found = entries[permissions.RECORD_NAMES]
    assert found["ContextKeyValues"] == ["shop.example.com", "_0.shop.example.com"]
    assert found["ContextKeyType"] == "stringList"
    check()
    assert permissions.RECORD_NAMES not in json.dumps(account.simulated["ContextEntries"])


def test_a_decision_that_lacks_context_is_unknown(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    def simulate(asked: dict[str, Any]) -> dict[str, Any]:
        return {"EvaluationResults": [{"EvalActionName": "ec2:RunInstances", "EvalDecision": "implicitDeny",
                                       "MissingContextValues": ["aws:PrincipalTag/team"]}]}  # fmt: skip

    monkeypatch.setattr(account, "SimulatePrincipalPolicy", simulate)
    found = row(check(), "permissions")
    assert (found.answer, found.blocks) == ("unknown", False)
    assert "ec2:RunInstances" in found.detail


def test_without_the_simulation_ec2s_dry_runs_are_asked(account: Account) -> None:
    account.refused["SimulatePrincipalPolicy"] = RefusedError("AccessDenied", "not authorized", 403)
    found = row(check(), "permissions")
    assert found.answer == "unknown"
    assert found.detail.startswith("ec2:CreateVpc, ec2:ImportKeyPair, ec2:AllocateAddress are allowed; ")
    account.denied = {"ec2:ImportKeyPair"}
    found = row(check(machines=2), "permissions")
    assert (found.answer, found.detail) == ("no", "these credentials may not call ec2:ImportKeyPair")


def test_the_root_user_may_do_everything(account: Account) -> None:
    account.caller = "arn:aws:iam::123456789012:root"
    assert row(check(), "permissions").answer == "yes"
    assert "SimulatePrincipalPolicy" not in account.asked


def test_credentials_for_previews_need_the_reads_alone(account: Account) -> None:
    account.denied = {*permissions.ACTIONS, *permissions.ADDRESS_ACTIONS, *permissions.BALANCER_ACTIONS}
    account.denied |= {action for action in permissions.DNS_ACTIONS if not permissions.is_read(action)}
    found = row(check(machines=2, reads_only=True), "permissions")
    assert (found.answer, found.detail) == ("yes", "all actions that a preview needs are allowed")
    asked = account.simulated["ActionNames"]
    assert "elasticloadbalancing:DescribeTargetGroups" in asked
    assert all(permissions.is_read(action) for action in asked)
    account.denied = {"ec2:DescribeSubnets"}
    assert row(check(reads_only=True), "permissions").detail == f"{USER} may not call ec2:DescribeSubnets"


def test_credentials_for_previews_are_asked_for_names_as_well(account: Account) -> None:
    wanted = permissions.wanted_actions(
        settings("aws", machines=2, domain="www.example.com", dnsZone="example.com"), reads_only=True
    )
    assert {"acm:DescribeCertificate", "route53:ListResourceRecordSets"} <= set(wanted)
    assert all(permissions.is_read(action) for action in wanted)
    assert "ec2:DescribeAddresses" in permissions.wanted_actions(settings("aws"), reads_only=True)


def test_credentials_for_previews_make_no_trial_calls(account: Account) -> None:
    account.refused["SimulatePrincipalPolicy"] = RefusedError("AccessDenied", "not authorized", 403)
    found = row(check(machines=2, reads_only=True), "permissions")
    assert (found.answer, found.detail) == ("unknown", "IAM may not be asked: not authorized")
    assert not {"CreateVpc", "ImportKeyPair", "CreateLoadBalancer"} & set(account.asked)


def test_a_role_is_asked_about_in_place_of_the_caller(account: Account) -> None:
    account.denied = {"ec2:RunInstances"}
    found = row(check(role=ROLE), "permissions")
    assert account.simulated["PolicySourceArn"] == ROLE
    assert (found.answer, found.detail) == ("no", f"{ROLE} may not call ec2:RunInstances")
    assert "put-user-policy" in found.fix
    ci_role = "arn:aws:iam::123456789012:role/decant-ci-staging"
    assert row(check(role=ci_role), "permissions").fix.startswith("make ci-init ")
    account.denied = set()
    assert row(check(role=ROLE), "permissions").detail == f"all actions that the stack needs are allowed to {ROLE}"
    account.caller = "arn:aws:iam::123456789012:root"
    account.denied = {"ec2:RunInstances"}
    assert row(check(role=ROLE), "permissions").answer == "no"


# ------------------------------------------------------------------------------------------------ policies


def test_the_policy_of_the_docs_is_what_the_program_makes() -> None:
    """There is one list of actions: of what the check asks about, of what the docs show, and of what CI's roles get."""
    text = (PROJECT / "docs/aws.md").read_text(encoding="utf-8")
    shown = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])  # type: ignore[index]
    made = deploy_policy(Scope(project="decant", stack="production", region="eu-central-1"))
    assert shown == made


def test_the_policy_allows_what_is_asked_for() -> None:
    made = deploy_policy(Scope(project="decant", stack="production", region="eu-central-1"))
    granted = [action for one in made["Statement"] if one["Effect"] == "Allow" for action in one["Action"]]
    wanted = {*permissions.ACTIONS, *permissions.ADDRESS_ACTIONS, *permissions.BALANCER_ACTIONS}
    wanted |= {*permissions.CERTIFICATE_ACTIONS, *permissions.DNS_ACTIONS}
    assert wanted <= set(granted)
    looks = {*permissions.READ_ACTIONS, *permissions.BALANCER_READS, "ec2:DescribeAddresses"}
    assert all(any(fnmatch.fnmatchcase(action, one) for one in granted) for action in looks)
    assert len(granted) == len(set(granted)), "an action stands in one statement"


def test_a_preview_is_allowed_to_read_alone() -> None:
    made = preview_policy()
    granted = {one["Sid"]: one["Action"] for one in made["Statement"]}
    assert granted == {
        "Look": list(permissions.LOOK),
        "Certificates": ["acm:DescribeCertificate", "acm:GetCertificate", "acm:ListCertificates",
                         "acm:ListTagsForCertificate"],
        "FindZone": ["route53:ListHostedZones", "route53:ListHostedZonesByName", "route53:GetChange"],
        "Records": ["route53:GetHostedZone", "route53:ListTagsForResource", "route53:ListResourceRecordSets"],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ names

ZONE: dict[str, Any] = {"domain": "example.com", "dnsZone": "example.com"}
SERVERS = ["ns-1.awsdns-01.com", "ns-2.awsdns-02.net"]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    server = DnsServer()
    monkeypatch.setenv("DECANT_RESOLVERS", server.address)
    yield server
    server.close()


def test_what_names_need_is_asked_for_where_a_stack_has_them(account: Account) -> None:
    account.denied = {"acm:RequestCertificate", "route53:ChangeResourceRecordSets"}
    assert row(check(), "permissions").answer == "yes"
    zone = row(check(domain="example.com", dnsZone="example.com"), "permissions")
    assert zone.detail == f"{USER} may not call route53:ChangeResourceRecordSets"
    balanced = row(check(domain="www.example.com", machines=2), "permissions")
    assert balanced.detail == f"{USER} may not call acm:RequestCertificate"
    assert row(check(domain="www.example.com", machines=2, https="off"), "permissions").answer == "yes"


def test_a_right_for_one_zone_is_enough(account: Account) -> None:
    account.only = {"route53:ChangeResourceRecordSets": "arn:aws:route53:::hostedzone/"}
    assert row(check(**ZONE), "permissions").answer == "yes"


def test_a_zone_is_looked_for_and_its_delegation_too(account: Account, resolver: DnsServer) -> None:
    found = row(check(**ZONE), "zone example.com")
    assert (found.answer, found.fix) == (
        "no", "aws route53 create-hosted-zone --name example.com --caller-reference example.com",
    )  # fmt: skip
    private = {"Id": "/hostedzone/Z0", "Name": "example.com.", "Config": {"PrivateZone": True}, "NameServers": []}
    account.zones = [private, {**private, "Id": "/hostedzone/Z1", "Config": {"PrivateZone": False}}]
    account.zones[1]["NameServers"] = SERVERS
    resolver.zones["example.com"] = ["a.registrar.test"]
    found = row(check(**ZONE), "zone example.com")
    assert (found.answer, found.detail, found.fix) == (
        "no",
        "the world does not ask the zone in your account, because its name servers are a.registrar.test",
        f"Where example.com is registered, set these name servers: {', '.join(SERVERS)}",
    )
    resolver.zones["example.com"] = SERVERS
    assert row(check(**ZONE), "zone example.com").answer == "yes"
    account.zones = [private]
    assert "no public hosted zone" in row(check(**ZONE), "zone example.com").detail


# ------------------------------------------------------------------------------------------------ quotas


def test_a_quota_of_vcpus_that_the_first_replacement_would_meet(account: Account) -> None:
    found = check(machines=2)
    assert row(found, "vCPUs").answer == "yes"
    replacement = row(found, "a replacement")
    assert parts(replacement) == (
        "no",
        "0 of 5 vCPUs in use, 6 more needed",
        f"{INCREASE} ec2 --quota-code L-1216C47A --desired-value 6 --region eu-central-1",
    )
    assert not replacement.blocks


def test_a_quota_of_vcpus_that_is_reached(account: Account) -> None:
    account.instances = [
        instance("i-1", cores=2),
        instance("i-2", "g5.xlarge", cores=8),
        instance("i-3", cores=8, InstanceLifecycle="spot"),
        instance("i-4", cores=8, State={"Name": "stopped"}),
    ]
    found = row(check(), "vCPUs")
    assert (found.answer, found.detail) == ("no", "4 of 5 vCPUs in use, 2 more needed")
    assert found.blocks
    owned = {checks.INSTANCE: frozenset({"i-1"})}
    assert row(check(owned=owned), "vCPUs").detail == "4 of 5 vCPUs in use, 0 more needed"


def test_an_answer_in_another_form_is_unknown(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "DescribeAddresses", lambda asked: {})
    addresses = row(check(), "Elastic IPs")
    assert (addresses.answer, addresses.blocks) == ("unknown", False)
    assert addresses.detail == "the cloud's answer has a form that Decant does not know (KeyError: 'Addresses')"


def test_a_size_with_a_quota_of_its_own(account: Account) -> None:
    assert row(check(size="g5.xlarge"), "vCPUs").answer == "unknown"


def test_quotas_of_networks_and_addresses_that_are_reached(account: Account) -> None:
    account.vpcs = [{"VpcId": f"vpc-{n}", "Tags": []} for n in range(5)]
    account.addresses = [{"PublicIp": f"192.0.2.{n}"} for n in range(5)]
    found = check()
    assert parts(row(found, "VPCs")) == (
        "no",
        "5 of 5 VPCs in use, 1 more needed",
        f"{INCREASE} vpc --quota-code L-F678F1CE --desired-value 6 --region eu-central-1",
    )
    assert parts(row(found, "Elastic IPs")) == (
        "no",
        "5 of 5 Elastic IPs in use, 1 more needed",
        f"{INCREASE} ec2 --quota-code L-0263D0A3 --desired-value 6 --region eu-central-1",
    )
    owned = {checks.VPC: frozenset({"vpc-1"}), quotas.ADDRESS: frozenset({"eipalloc-1"})}
    assert {row(check(owned=owned), subject).answer for subject in ("VPCs", "Elastic IPs")} == {"yes"}


def test_a_quota_that_was_never_changed_is_awss_default(account: Account) -> None:
    text = "The request failed because the specified quota does not exist"
    account.refused["GetServiceQuota"] = RefusedError("NoSuchResourceException", text)
    assert row(check(), "VPCs").detail == "1 of 5 VPCs in use, 1 more needed"


def test_quotas_that_the_credentials_may_not_ask_are_unknown(account: Account) -> None:
    account.refused["GetServiceQuota"] = RefusedError("AccessDeniedException", "not authorized", 403)
    found = row(check(), "VPCs")
    fix = "allow servicequotas:GetServiceQuota (docs/aws.md, Permissions)"
    assert parts(found) == ("unknown", "not authorized", fix)


def test_an_account_that_may_have_no_load_balancer(account: Account) -> None:
    text = "This AWS account currently does not support creating load balancers."
    account.refused["CreateLoadBalancer"] = RefusedError("OperationNotPermitted", text, 403)
    found = row(check(machines=2), "load balancer")
    assert (found.answer, found.detail) == ("no", text)
    assert "support/home#/case/create" in found.fix
    assert found.blocks


def test_a_first_load_balancer_that_aws_does_not_refuse(account: Account) -> None:
    found = row(check(machines=2), "load balancer")
    assert parts(found) == ("yes", "0 of 50 load balancers in use, 1 more needed", "")


def test_an_account_with_load_balancers_is_not_tried(account: Account) -> None:
    account.balancers = [{"Type": "application", "LoadBalancerArn": "arn"}, {"Type": "network"}]
    found = row(check(machines=2), "load balancer")
    assert parts(found) == ("yes", "1 of 50 load balancers in use, 1 more needed", "")
    account.quotas["L-53DA6B97"] = 1
    found = row(check(machines=2), "load balancer")
    assert parts(found) == (
        "no",
        "1 of 1 load balancers in use, 1 more needed",
        f"{INCREASE} elasticloadbalancing --quota-code L-53DA6B97 --desired-value 2 --region eu-central-1",
    )
    assert "CreateLoadBalancer" not in account.asked


# ------------------------------------------------------------------------------------------------ names


def test_machines_and_networks_with_the_stacks_tags_are_named(account: Account) -> None:
    def tags(stack: str) -> list[dict[str, str]]:
        return [{"Key": "decant:project", "Value": "decant"}, {"Key": "decant:stack", "Value": stack}]

    account.instances = [
        instance("i-1", Tags=tags("dev")),
        instance("i-2", Tags=tags("production")),
        instance("i-3", Tags=tags("dev"), State={"Name": "terminated"}),
        instance("i-4", Tags=tags("dev")),
    ]
    account.vpcs.append({"VpcId": "vpc-1", "Tags": tags("dev")})
    names = row(check(owned={checks.INSTANCE: frozenset({"i-4"})}), "names")
    assert names.answer == "no"
    assert names.detail == "instance i-1, VPC vpc-1: tagged as this stack's, and not in its state"
    assert not names.blocks
