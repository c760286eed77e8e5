"""IAM policies for a stack: what may make, change and delete it, and what may only look at it.

The lists of actions are those that `make check-account` asks about. docs/aws.md shows `deploy_policy` as an example.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from decant.clouds.aws.permissions import (
    ACTIONS,
    ADDRESS_ACTIONS,
    BALANCER_ACTIONS,
    CERTIFICATE_ACTIONS,
    DNS_ACTIONS,
    LOOK,
    RECORD_NAMES,
    is_read,
)

Statement = dict[str, Any]

MANAGED_POLICY_LIMIT = 6144
"""Characters that a managed policy may have, without white space:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""

# Called only by some changes of a stack, so `make check-account` does not ask for them.
NETWORK_CHANGES = ("ec2:ReplaceRoute", "ec2:ReplaceRouteTableAssociation", "ec2:ModifySecurityGroupRules",
                   "ec2:DeleteTags")  # fmt: skip
NEW_MACHINES = ("ec2:RunInstances", "ec2:ImportKeyPair", "ec2:DeleteKeyPair")
NEW_MACHINE_CHANGES = ("ec2:ModifyNetworkInterfaceAttribute", "ec2:ModifyVolume")
OWN_MACHINES = ("ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances", "ec2:ModifyInstanceAttribute",
                "ec2:ModifyInstanceMetadataOptions")  # fmt: skip
OWN_MACHINE_CHANGES = ("ec2:ModifyInstanceCreditSpecification",)
BALANCER_CHANGES = tuple(
    f"elasticloadbalancing:{name}"
    for name in ("SetSecurityGroups", "SetSubnets", "SetIpAddressType", "ModifyListenerAttributes", "RemoveTags")
)
# Kinds that have a stack's tags from the moment in which they are made: each is made and tagged by one call.
TAGGED_AT_ONCE = (
    *(f"arn:*:ec2:*:*:{kind}/*" for kind in (
        "vpc", "subnet", "internet-gateway", "route-table", "security-group", "elastic-ip", "key-pair")),
    "arn:*:elasticloadbalancing:*:*:*",
)  # fmt: skip
# Everything that changes one of these. None of them makes one, which has no tags while AWS decides about that.
CHANGES_OF_TAGGED = (
    *(f"ec2:{verb}" for verb in (
        "Delete*", "Modify*", "Replace*", "Associate*", "Disassociate*", "Release*", "Attach*", "Detach*",
        "Authorize*", "Revoke*", "CreateRoute")),
    *(f"elasticloadbalancing:{verb}" for verb in (
        "Delete*", "Modify*", "Set*", "Register*", "Deregister*", "Remove*", "AddListenerCertificates")),
)  # fmt: skip
TAGGED = ("ec2:*", "elasticloadbalancing:*", "acm:*")
"""Services whose resources carry a stack's tags."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a policy is about. `stack` may end in `*`: all stacks whose names begin so."""

    project: str
    stack: str
    region: str

    @property
    def like(self) -> bool:
        """Whether the name of the stack is a pattern."""
        return "*" in self.stack


def deploy_policy(scope: Scope, *, records: bool = True) -> dict[str, Any]:
    """The policy of credentials that make, change and delete a stack; with `records`, also all DNS records."""
    here = {"StringEquals": {"aws:RequestedRegion": scope.region}}
    acm = [action for action in CERTIFICATE_ACTIONS if action.startswith("acm:")]
    listener = [action for action in CERTIFICATE_ACTIONS if not action.startswith("acm:")]
    machines = {*NEW_MACHINES, *OWN_MACHINES}
    network = [action for action in (*ACTIONS, *ADDRESS_ACTIONS) if action not in machines]
    return document(
        _allow("Look", LOOK),
        _allow("Network", (*network, *NETWORK_CHANGES), condition=here),
        _allow("NewMachines", (*NEW_MACHINES, *NEW_MACHINE_CHANGES), condition=here),
        _allow("OwnMachines", (*OWN_MACHINES, *OWN_MACHINE_CHANGES), condition=_own(scope)),
        *_nobody_elses_machines(scope),
        _allow("LoadBalancer", (*BALANCER_ACTIONS, *listener, *BALANCER_CHANGES), condition=here),
        _allow(
            "FirstLoadBalancer",
            ("iam:CreateServiceLinkedRole",),
            condition={"StringEquals": {"iam:AWSServiceName": "elasticloadbalancing.amazonaws.com"}},
        ),
        _allow("Certificates", acm, condition=here),
        *(_dns(DNS_ACTIONS) if records else ()),
        *_only_own(scope),
        *no_other_stack(scope),
    )


def preview_policy() -> dict[str, Any]:
    """The policy of credentials that look at stacks and change nothing. One policy serves all stacks of an account."""
    return document(
        _allow("Look", LOOK),
        _allow("Certificates", [action for action in CERTIFICATE_ACTIONS if is_read(action)]),
        *_dns([action for action in DNS_ACTIONS if is_read(action)]),
    )


def runner_access_policy(scope: Scope) -> dict[str, Any]:
    """What `make ssh-open` and `make ssh-close` need beside a preview: rules of the stacks' own security groups."""
    condition = {"StringEquals": {"aws:RequestedRegion": scope.region, "aws:ResourceTag/decant:project": scope.project}}
    actions = ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress")
    return document(_allow("RunnerAccess", actions, condition=condition))


def no_foreign_user_data(project: str) -> list[Statement]:
    """Deny reading first-boot data, which often holds secrets, of machines that are none of the project's."""
    return [
        {"Sid": "NoForeignUserData", "Effect": "Deny", "Action": ["ec2:DescribeInstanceAttribute"],
         "Resource": "arn:*:ec2:*:*:instance/*",
         "Condition": {"StringNotEquals": {"aws:ResourceTag/decant:project": project}}},
        {"Sid": "NoLaunchTemplates", "Effect": "Deny", "Action": ["ec2:DescribeLaunchTemplateVersions"],
         "Resource": "*"},
    ]  # fmt: skip


def no_other_stack(scope: Scope) -> list[Statement]:
    """Deny everything about resources that carry the tags of another stack or project."""
    differs = "StringNotLike" if scope.like else "StringNotEquals"
    return [
        {
            "Sid": sid,
            "Effect": "Deny",
            "Action": list(TAGGED),
            "Resource": "*",
            # A resource without the tag is not another stack's. Without this, a request about it would be denied, too.
            "Condition": {operator: {tag: value}, "Null": {tag: "false"}},
        }
        for sid, operator, tag, value in (
            ("NoOtherProject", "StringNotEquals", "aws:ResourceTag/decant:project", scope.project),
            ("NoOtherStack", differs, "aws:ResourceTag/decant:stack", scope.stack),
        )
    ]


def _own(scope: Scope) -> dict[str, dict[str, str]]:
    stack = {"aws:ResourceTag/decant:stack": scope.stack}
    equal = {"aws:RequestedRegion": scope.region, "aws:ResourceTag/decant:project": scope.project}
    return {"StringEquals": equal, "StringLike": stack} if scope.like else {"StringEquals": {**equal, **stack}}


def _only_own(scope: Scope) -> list[Statement]:
    """Deny changes of networks, groups and load balancers without the stack's tag, and giving it to them.

    What others have made in the account has no tags of Decant, and neither has the group that AWS makes in each
    network. A network interface has none either, so that group could be opened and put on another stack's machine.
    """
    differs = "StringNotLike" if scope.like else "StringNotEquals"
    other = {differs: {"aws:ResourceTag/decant:stack": scope.stack}}
    # What is made just now gets its first tags by a request of one of these two kinds.
    later = {"Null": {"ec2:CreateAction": "true", "elasticloadbalancing:CreateAction": "true"}}
    tags = ("ec2:CreateTags", "elasticloadbalancing:AddTags")
    return [
        {
            "Sid": sid,
            "Effect": "Deny",
            "Action": list(actions),
            "Resource": list(TAGGED_AT_ONCE),
            "Condition": condition,
        }
        for sid, actions, condition in (
            ("OnlyOwn", CHANGES_OF_TAGGED, other),
            ("NoTagsForOthers", tags, {**other, **later}),
        )
    ]


def _nobody_elses_machines(scope: Scope) -> list[Statement]:
    """Deny tags for machines that are not the stack's: with them, they could be stopped and deleted."""
    differs = "StringNotLike" if scope.like else "StringNotEquals"
    return [
        {
            "Sid": sid,
            "Effect": "Deny",
            "Action": ["ec2:CreateTags", "ec2:DeleteTags"],
            "Resource": "arn:*:ec2:*:*:instance/*",
            "Condition": {operator: {tag: value}, "Null": {"ec2:CreateAction": "true"}},
        }
        for sid, operator, tag, value in (
            ("NobodyElsesMachines", "StringNotEquals", "aws:ResourceTag/decant:project", scope.project),
            ("NoOtherStacksMachines", differs, "aws:ResourceTag/decant:stack", scope.stack),
        )
    ]


def own_records(names: Iterable[str]) -> list[Statement]:
    """Allow changes of the DNS records of these names, and of the names below them that AWS has chosen for checks.

    A zone has no tags, and may hold the names of several stacks. AWS's own names begin with an underscore.
    """
    *found, zones = _dns(DNS_ACTIONS)
    reads, changes = ([one for one in zones["Action"] if is_read(one) == wanted] for wanted in (True, False))
    patterns = [pattern for name in names for pattern in (name, f"_*.{name}")]
    # "For all values" holds for a request without any, too.
    own = {"ForAllValues:StringLike": {RECORD_NAMES: patterns}, "Null": {RECORD_NAMES: "false"}}
    return [*found, {**zones, "Action": reads}, _allow("OwnRecords", changes, zones["Resource"], condition=own)]


def _dns(actions: Iterable[str]) -> list[Statement]:
    """Route 53: some actions are about one zone, and the others about no resource."""
    account_wide = ("route53:ListHostedZones", "route53:ListHostedZonesByName", "route53:GetChange")
    of_zones = [action for action in actions if action not in account_wide]
    return [_allow("FindZone", account_wide), _allow("Records", of_zones, "arn:aws:route53:::hostedzone/*")]


def _allow(
    sid: str, actions: Iterable[str], resource: str = "*", *, condition: Mapping[str, Any] | None = None
) -> Statement:
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resource}
    return {**statement, "Condition": dict(condition)} if condition else statement


def document(*statements: Statement) -> dict[str, Any]:
    """A policy of these statements."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def compact(document: Mapping[str, Any]) -> str:
    """A document as JSON without white space, which is how AWS counts."""
    return json.dumps(document, separators=(",", ":"))
