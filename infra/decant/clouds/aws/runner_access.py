"""SSH for one run on AWS: a rule in the security group of the stack's machines, known by its description.

Each rule of the stack is a resource of its own in Pulumi's state, and the group has none inline. So Pulumi takes no
notice of one more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from decant.clouds.aws.session import Session, connect
from decant.clouds.inventory import Resource, StackInAccount
from decant.clouds.runner_access import Opening, end_of
from decant.errors import CloudApiError

GROUP = "aws:ec2/securityGroup:SecurityGroup"
GROUP_NAME = "machines"  # in the state: decant.clouds.aws.network
PORT = 22
GONE = "InvalidSecurityGroupRuleId.NotFound"
EXISTS = "InvalidPermission.Duplicate"
# What a description may hold:
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpRange.html
_DESCRIPTION = re.compile(r"Decant: SSH for run=(\S+) until=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def is_made(resources: Iterable[Resource]) -> bool:
    """Whether the state has the security group of the machines."""
    return _group(resources) is not None


def openings(account: StackInAccount) -> list[Opening]:
    """The rules that runs have made for this stack. Raises CloudApiError."""
    group = _group(account.resources)
    return _openings(connect(account.provider, account.environ), group) if group else []


def open_to(account: StackInAccount, run: str, network: str, until: datetime) -> bool:
    """Let a network in; False where a rule that no run has made does so already.

    A rule is unique by its network, so one that another run has made from the same address gets this run's text.

    Raises:
        CloudApiError: AWS refuses, or cannot be asked.
    """
    session = connect(account.provider, account.environ)
    group = _group(account.resources)
    if group is None:
        raise CloudApiError(f"stack {account.stack} has no security group yet")
    for one in _openings(session, group):
        if one.network == network:
            _revoke(session, group, one.id)
    text = f"Decant: SSH for run={run} until={until.astimezone(UTC).strftime(_TIME)}"
    permission = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT,
                  "IpRanges": [{"CidrIp": network, "Description": text}]}  # fmt: skip
    try:
        session.ask("ec2", "authorize_security_group_ingress", GroupId=group, IpPermissions=[permission])
    except CloudApiError as error:
        if error.code != EXISTS:
            raise
        return False
    return True


def close(account: StackInAccount, opening: Opening) -> None:
    """Delete a rule. One that is gone already is no error. Raises CloudApiError."""
    group = _group(account.resources)
    if group:
        _revoke(connect(account.provider, account.environ), group, opening.id)


def _group(resources: Iterable[Resource]) -> str | None:
    named = f"::{GROUP_NAME}"
    found = (str(one["id"]) for one in resources if one.get("type") == GROUP and str(one["urn"]).endswith(named))
    return next(found, None)


def _openings(session: Session, group: str) -> list[Opening]:
    of_group = [{"Name": "group-id", "Values": [group]}]
    found = []
    for rule in session.every("ec2", "describe_security_group_rules", "SecurityGroupRules", Filters=of_group):
        told = _DESCRIPTION.fullmatch(rule.get("Description") or "")
        if told and not rule.get("IsEgress") and rule.get("CidrIpv4"):
            until = end_of(told[2], _TIME)
            found.append(Opening(id=rule["SecurityGroupRuleId"], network=rule["CidrIpv4"], run=told[1], until=until))
    return found


def _revoke(session: Session, group: str, rule: str) -> None:
    try:
        session.ask("ec2", "revoke_security_group_ingress", GroupId=group, SecurityGroupRuleIds=[rule])
    except CloudApiError as error:
        if error.code != GONE:
            raise
