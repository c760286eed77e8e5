"""Whether credentials may do on AWS what a stack needs, as far as AWS tells without doing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decant.clouds.aws.session import Session
from decant.clouds.checks import Check, StackFacts
from decant.errors import CloudApiError
from decant.settings.model import Settings

POLICY_PAGE = "docs/aws.md, Permissions"
# What making, changing and deleting a stack calls. `policy.py` makes policies of these lists.
ACTIONS = (
    *(
        f"ec2:{action}"
        for action in (
            "CreateVpc", "DeleteVpc", "ModifyVpcAttribute", "CreateSubnet", "DeleteSubnet", "ModifySubnetAttribute",
            "CreateInternetGateway", "DeleteInternetGateway", "AttachInternetGateway", "DetachInternetGateway",
            "CreateRouteTable", "DeleteRouteTable", "CreateRoute", "DeleteRoute", "AssociateRouteTable",
            "DisassociateRouteTable", "CreateSecurityGroup", "DeleteSecurityGroup", "AuthorizeSecurityGroupIngress",
            "RevokeSecurityGroupIngress", "AuthorizeSecurityGroupEgress", "RevokeSecurityGroupEgress", "CreateTags",
            "RunInstances", "StartInstances", "StopInstances", "TerminateInstances", "ModifyInstanceAttribute",
            "ModifyInstanceMetadataOptions", "ImportKeyPair", "DeleteKeyPair",
        )
    ),
)  # fmt: skip
ADDRESS_ACTIONS = tuple(
    f"ec2:{action}" for action in ("AllocateAddress", "ReleaseAddress", "AssociateAddress", "DisassociateAddress")
)
BALANCER_ACTIONS = tuple(
    f"elasticloadbalancing:{action}"
    for action in (
        "CreateLoadBalancer", "DeleteLoadBalancer", "ModifyLoadBalancerAttributes", "CreateTargetGroup",
        "DeleteTargetGroup", "ModifyTargetGroup", "ModifyTargetGroupAttributes", "RegisterTargets",
        "DeregisterTargets", "CreateListener", "ModifyListener", "DeleteListener", "AddTags",
    )
)  # fmt: skip
DNS_ACTIONS = tuple(
    f"route53:{action}"
    for action in (
        "ListHostedZones", "ListHostedZonesByName", "GetHostedZone", "ListTagsForResource", "ListResourceRecordSets",
        "ChangeResourceRecordSets", "GetChange",
    )
)  # fmt: skip
RECORD_NAMES = "route53:ChangeResourceRecordSetsNormalizedRecordNames"
"""The names of the records that a request changes, in small letters, without a dot at the end:
https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/specifying-conditions-route53.html"""
CERTIFICATE_ACTIONS = (
    *(
        f"acm:{action}"
        for action in (
            "RequestCertificate", "ImportCertificate", "DeleteCertificate", "DescribeCertificate", "GetCertificate",
            "ListCertificates", "AddTagsToCertificate", "RemoveTagsFromCertificate", "ListTagsForCertificate",
        )
    ),
    "elasticloadbalancing:AddListenerCertificates",
    "elasticloadbalancing:RemoveListenerCertificates",
)  # fmt: skip
# What a preview and `make check-account` call besides the reads of DNS and certificates: some of what `LOOK` allows.
READ_ACTIONS = (
    *(
        f"ec2:Describe{what}"
        for what in (
            "AvailabilityZones", "Images", "Instances", "InstanceTypes", "InternetGateways", "KeyPairs", "RouteTables",
            "SecurityGroupRules", "SecurityGroups", "Subnets", "Volumes", "Vpcs",
        )
    ),
)  # fmt: skip
BALANCER_READS = tuple(
    f"elasticloadbalancing:Describe{what}" for what in ("Listeners", "LoadBalancers", "Tags", "TargetGroups")
)
LOOK = ("ec2:Describe*", "ec2:GetSecurityGroupsForVpc", "elasticloadbalancing:Describe*",
        "servicequotas:GetServiceQuota")  # fmt: skip

RESOURCES = (
    *(("ec2", f"{kind}/{short}-0") for kind, short in (
        ("vpc", "vpc"), ("subnet", "subnet"), ("internet-gateway", "igw"), ("route-table", "rtb"),
        ("security-group", "sg"), ("security-group-rule", "sgr"), ("instance", "i"), ("volume", "vol"),
        ("network-interface", "eni"), ("key-pair", "key"), ("elastic-ip", "eipalloc"),
    )),
    ("elasticloadbalancing", "loadbalancer/app/a/0"),
    ("elasticloadbalancing", "targetgroup/a/0"),
    ("elasticloadbalancing", "listener/app/a/0/0"),
    ("acm", "certificate/0"),
)  # fmt: skip


def wanted_actions(settings: Settings, *, reads_only: bool = False) -> list[str]:
    """The actions that a stack with these settings needs; with `reads_only`, those that a preview of it needs."""
    site = settings.site
    names = [
        *(CERTIFICATE_ACTIONS if settings.balancer and site.domain and site.https else ()),
        *(DNS_ACTIONS if site.dns_zone else ()),
    ]
    if reads_only:
        balancer = BALANCER_READS if settings.balancer else ("ec2:DescribeAddresses",)
        return [*READ_ACTIONS, *balancer, *filter(is_read, names)]
    return [*ACTIONS, *(BALANCER_ACTIONS if settings.balancer else ADDRESS_ACTIONS), *names]


def is_read(action: str) -> bool:
    """Whether an action changes nothing, by AWS's own names."""
    return action.partition(":")[2].startswith(("Describe", "Get", "List"))


def check_permissions(stack: StackFacts, session: Session, caller: str) -> Check:
    """Whether the caller, an ARN, is allowed all actions: by IAM's simulation, else by EC2's dry runs.

    A stack's `role` takes the caller's place, and only the simulation can answer for it.
    """
    caller = stack.role or caller
    if caller.endswith(":root"):
        return Check(subject="permissions", answer="yes", detail="the account's root user may do everything")
    try:
        denied, unclear = _simulated(stack, session, _principal(session, caller))
    except CloudApiError as error:
        if stack.role or stack.reads_only:
            fix = f"allow iam:SimulatePrincipalPolicy and iam:GetRole, or compare with {POLICY_PAGE}"
            return Check(subject="permissions", answer="unknown", detail=f"IAM may not be asked: {error}", fix=fix)
        return _by_dry_run(stack, session, error)
    if denied:
        return _denied(denied, caller)
    if unclear:
        detail = f"IAM's simulation does not decide {_listed(unclear)}: they have conditions of their own"
        return Check(subject="permissions", answer="unknown", detail=detail, fix=f"compare with {POLICY_PAGE}")
    allowed = "a preview" if stack.reads_only else "the stack"
    detail = f"all actions that {allowed} needs are allowed{f' to {caller}' if stack.role else ''}"
    return Check(subject="permissions", answer="yes", detail=detail)


def _principal(session: Session, caller: str) -> str:
    """The user or role whose policies decide: a session of a role has another ARN than the role."""
    if ":assumed-role/" not in caller:
        return caller
    role = caller.split("/")[1]
    arn: str = session.ask("iam", "get_role", RoleName=role)["Role"]["Arn"]
    return arn


def _simulated(stack: StackFacts, session: Session, principal: str) -> tuple[list[str], list[str]]:
    """The actions that IAM's simulation denies, and those that it cannot decide without more context.

    The first question is about all resources. A policy that names resources allows nothing for all of them, so what is
    denied is asked again for one resource of each kind.
    """
    wanted = wanted_actions(stack.settings, reads_only=stack.reads_only)
    denied = [result for result in _simulate(stack, session, principal, wanted) if result["EvalDecision"] != "allowed"]
    if denied:
        arns = _arns(session, principal)
        again = _simulate(stack, session, principal, [result["EvalActionName"] for result in denied], arns)
        denied = [result for result in again if not _allowed_somewhere(result)]
    unclear = [result["EvalActionName"] for result in denied if result.get("MissingContextValues")]
    return [name for result in denied if (name := result["EvalActionName"]) not in unclear], unclear


def _simulate(
    stack: StackFacts, session: Session, principal: str, actions: list[str], arns: Sequence[str] = ("*",)
) -> list[dict[str, Any]]:
    context = {
        "aws:RequestedRegion": session.region,
        "aws:ResourceTag/decant:project": stack.project,
        "aws:ResourceTag/decant:stack": stack.settings.stack,
        "aws:RequestTag/decant:project": stack.project,
        "aws:RequestTag/decant:stack": stack.settings.stack,
        "ec2:CreateAction": "RunInstances",
    }
    entries = [
        {"ContextKeyName": name, "ContextKeyValues": [value], "ContextKeyType": "string"}
        for name, value in context.items()
    ]
    records = [record for name in stack.settings.site.names_in_zone for record in (name, f"_0.{name}")]
    if records:
        entries.append({"ContextKeyName": RECORD_NAMES, "ContextKeyValues": records, "ContextKeyType": "stringList"})
    results = session.every(
        "iam",
        "simulate_principal_policy",
        "EvaluationResults",
        PolicySourceArn=principal,
        ActionNames=actions,
        ResourceArns=list(arns),
        ContextEntries=entries,
    )
    return list(results)


def _arns(session: Session, principal: str) -> list[str]:
    """A resource of each kind that the actions are about, in the caller's account."""
    _, partition, _, _, account, _ = principal.split(":", 5)
    regional = [f"arn:{partition}:{service}:{session.region}:{account}:{name}" for service, name in RESOURCES]
    # Route 53 is one for all regions, and zones have no account in their names.
    return [*regional, f"arn:{partition}:route53:::hostedzone/Z0", f"arn:{partition}:route53:::change/C0"]


def _allowed_somewhere(result: Mapping[str, Any]) -> bool:
    specific = [one["EvalResourceDecision"] for one in result.get("ResourceSpecificResults") or ()]
    return "allowed" in (result["EvalDecision"], *specific)


def _by_dry_run(stack: StackFacts, session: Session, reason: CloudApiError) -> Check:
    """What EC2 says to calls that it checks and does not run, where IAM may not be asked."""
    trials: dict[str, Callable[[], Any]] = {
        "ec2:CreateVpc": lambda: session.ask("ec2", "create_vpc", CidrBlock="10.90.0.0/16", DryRun=True),
        "ec2:ImportKeyPair": lambda: session.ask(
            "ec2", "import_key_pair", KeyName="decant-dry-run", PublicKeyMaterial=b"ssh-ed25519 AAAA", DryRun=True
        ),
    }
    if not stack.settings.balancer:
        trials["ec2:AllocateAddress"] = lambda: session.ask("ec2", "allocate_address", Domain="vpc", DryRun=True)
    denied = []
    for action, trial in trials.items():
        try:
            trial()
        except CloudApiError as error:
            if error.code == "UnauthorizedOperation":
                denied.append(action)
    if denied:
        return _denied(denied, "these credentials")
    detail = (
        f"{', '.join(trials)} are allowed; the other actions are not known, because IAM may not be asked ({reason})"
    )
    fix = f"allow iam:SimulatePrincipalPolicy, or compare with {POLICY_PAGE}"
    return Check(subject="permissions", answer="unknown", detail=detail, fix=fix)


def _denied(actions: list[str], caller: str) -> Check:
    fix = (
        f"give it the policy in {POLICY_PAGE}: aws iam put-user-policy --user-name NAME --policy-name decant"
        " --policy-document file://policy.json"
    )
    if "role/" in caller and "-ci-" in caller:
        fix = "make ci-init   (it gives CI's roles what the stacks' files need now: docs/ci.md)"
    return Check(subject="permissions", answer="no", detail=f"{caller} may not call {_listed(actions)}", fix=fix)


def _listed(actions: list[str]) -> str:
    shown = ", ".join(actions[:4])
    return f"{shown} and {len(actions) - 4} more" if len(actions) > 4 else shown
