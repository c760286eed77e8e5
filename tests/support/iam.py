"""Whether IAM allows a request, by the rules of its documentation, for the policies of a CloudFormation template.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

Context = Mapping[str, str | Sequence[str]]
"""A request's condition keys. Those that may have several values have a sequence."""
ACCOUNT = "123456789012"
VALUES = {"AWS::Partition": "aws", "AWS::AccountId": ACCOUNT, "AWS::URLSuffix": "amazonaws.com"}


def resolved(template: Mapping[str, Any], value: Any) -> Any:
    """A value of a template with its functions carried out."""
    if isinstance(value, list):
        return [resolved(template, one) for one in value]
    if not isinstance(value, dict):
        return value
    if "Fn::GetAtt" in value:
        return _attribute(template, ".".join(value["Fn::GetAtt"]))
    if "Fn::Sub" in value:
        return re.sub(
            r"\$\{([^}]+)\}", lambda found: VALUES.get(found[1]) or _attribute(template, found[1]), value["Fn::Sub"]
        )
    if "Ref" in value:
        return f"ref:{value['Ref']}"
    return {key: resolved(template, one) for key, one in value.items()}


def _attribute(template: Mapping[str, Any], path: str) -> str:
    name = path.partition(".")[0]
    made = template["Resources"][name]
    if made["Type"] == "AWS::S3::Bucket":
        bucket: str = resolved(template, made["Properties"]["BucketName"])
        return f"arn:aws:s3:::{bucket}"
    if made["Type"] == "AWS::IAM::Role":
        return f"arn:aws:iam::{ACCOUNT}:role/{made['Properties']['RoleName']}"
    return f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/{name}"


class Role:
    """A role of a template."""

    def __init__(self, template: Mapping[str, Any], logical: str) -> None:
        made = resolved(template, template["Resources"][logical]["Properties"])
        self.trust: dict[str, Any] = made["AssumeRolePolicyDocument"]
        self.name: str = made["RoleName"]
        documents = [one["PolicyDocument"] for one in made["Policies"]]
        for reference in made["ManagedPolicyArns"]:
            policy = template["Resources"][reference.removeprefix("ref:")]["Properties"]["PolicyDocument"]
            documents.append(resolved(template, policy))
        self.statements: list[dict[str, Any]] = [one for document in documents for one in document["Statement"]]

    def may_with(self, action: str, resource: str, context: Context) -> bool:
        """Whether the role's policies allow an action; `context` has the request's condition keys."""
        return allowed(self.statements, action, resource, context)

    def trusts(
        self,
        subject: str,
        audience: str = "sts.amazonaws.com",
        issuer: str = "token.actions.githubusercontent.com",
        ref: str = "refs/heads/main",
    ) -> bool:
        """Whether a token with this subject, of a run for this ref, may have the role."""
        context = {f"{issuer}:sub": subject, f"{issuer}:aud": audience, f"{issuer}:ref": ref}
        return allowed(
            [{**one, "Resource": "*"} for one in self.trust["Statement"]], "sts:AssumeRoleWithWebIdentity", "*", context
        )


def allowed(statements: Sequence[Mapping[str, Any]], action: str, resource: str, context: Context) -> bool:
    """Whether some statement allows a request, and none denies it."""
    fitting = {one["Effect"] for one in statements if _fits(one, action, resource, context)}
    return fitting == {"Allow"}


def _fits(statement: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement), "this evaluator does not know them"
    actions = [one.lower() for one in _many(statement["Action"])]
    return (
        any(fnmatch.fnmatchcase(action.lower(), one) for one in actions)
        and any(fnmatch.fnmatchcase(resource, one) for one in _many(statement["Resource"]))
        and all(_holds(operator, keys, context) for operator, keys in statement.get("Condition", {}).items())
    )


def _holds(operator: str, keys: Mapping[str, Any], context: Context) -> bool:
    return all(_one_holds(operator, context.get(key), _many(values)) for key, values in keys.items())


def _one_holds(operator: str, found: str | Sequence[str] | None, wanted: list[str]) -> bool:
    if operator == "Null":
        return (not found) == (wanted == ["true"])
    if operator.startswith("ForAllValues:"):  # it holds where there is no value
        return all(_one_holds(operator.partition(":")[2], one, wanted) for one in found or ())
    assert found is None or isinstance(found, str), "a key with several values needs an operator for all of them"
    equal = found in wanted
    like = found is not None and any(fnmatch.fnmatchcase(found, one) for one in wanted)
    # A key that the request has not: the positive operators fail, and the negated ones hold.
    return {"StringEquals": equal, "StringLike": like, "StringNotEquals": not equal, "StringNotLike": not like}[
        operator
    ]


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]
