"""What CI needs in an AWS account, as a CloudFormation template: the state's place, and a role for each environment.

Each environment of the forge has one role, and each role trusts one environment of one repository.
docs/ci.md shows the whole as a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from decant.clouds.aws.ci_state import state, tags
from decant.clouds.aws.policy import (
    MANAGED_POLICY_LIMIT,
    Scope,
    Statement,
    compact,
    deploy_policy,
    document,
    no_foreign_user_data,
    no_other_stack,
    own_records,
    preview_policy,
    runner_access_policy,
)
from decant.clouds.ci import ACCOUNT, AUDIENCE, NIGHTLY, PREVIEW, REVIEW, Kind, Plan, Repository
from decant.errors import StackError

REVIEW_STACKS = "pr-*"
ROLE_NAME_LIMIT = 64
INLINE_POLICY_LIMIT = 10_240  # characters of a role's own policies, without white space
TEMPLATE_LIMIT = 51_200  # bytes of a template that is sent with the request


def template(plan: Plan) -> dict[str, Any]:
    """The CloudFormation template of a plan.

    Raises:
        StackError: a name is too long or not allowed, or AWS would refuse the size of a policy or of the template.
    """
    _check_names(plan)
    resources = state(plan)
    if not plan.provider:
        resources["Provider"] = _provider(plan.repository)
    if plan.on_aws:
        resources["Look"] = _managed(plan, "Look at what the stacks have made", preview_policy())
    for environment, (kind, stacks) in plan.environments().items():
        logical = logical_name(environment)
        policies = [{"Ref": "Look"}] if plan.on_aws.intersection(stacks) else []
        if policies and kind in ("deploy", "review"):
            scope = _scope(plan, kind, stacks)
            text = f"Make, change and delete stack {scope.stack}"
            resources[f"Policy{logical}"] = _managed(plan, text, deploy_policy(scope, records=False))
            policies = [{"Ref": f"Policy{logical}"}]
        resources[f"Role{logical}"] = _role(plan, environment, kind, _role_statements(plan, kind, stacks), policies)
    found = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"CI of the Decant project {plan.project}: state, roles for {plan.repository.name} (docs/ci.md)",
        "Resources": resources,
        "Outputs": {
            f"Role{logical_name(name)}": {"Value": {"Fn::GetAtt": [f"Role{logical_name(name)}", "Arn"]}}
            for name in plan.environments()
        },
    }
    if len(compact(found)) > TEMPLATE_LIMIT:
        raise StackError(
            f"The template for {len(plan.stacks)} stacks has {len(compact(found))} characters, and AWS takes"
            f" {TEMPLATE_LIMIT}. Set CI up for fewer: make ci-init STACKS='staging production'"
        )
    return found


def logical_name(environment: str) -> str:
    """The name of an environment in the template, which takes letters and digits alone."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", environment))


def _check_names(plan: Plan) -> None:
    wrong = [
        stack
        for stack in plan.stacks
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", stack)
        or stack in (REVIEW, NIGHTLY)
        or stack.endswith(PREVIEW)
        or re.fullmatch(r"pr-.*", stack)
    ]
    if wrong:
        raise StackError(
            f"STACKS has {', '.join(wrong)}: allowed are letters, digits, dots, dashes and underscores. {REVIEW},"
            f" {NIGHTLY}, pr-... and names that end in {PREVIEW} are CI's own. make ci-init STACKS='staging production'"
        )
    names = {logical_name(environment): environment for environment in plan.environments()}
    if len(names) != len(plan.environments()):
        raise StackError(
            f"STACKS has names that differ in punctuation alone ({', '.join(plan.stacks)}), which CloudFormation cannot"
            " tell apart. Leave one out: make ci-init STACKS='staging production'"
        )
    long = [name for name in map(plan.role_name, plan.environments()) if len(name) > ROLE_NAME_LIMIT]
    if long:
        raise StackError(
            f"The role {long[0]} would have {len(long[0])} characters; AWS allows {ROLE_NAME_LIMIT}. Use a shorter name"
            " for the stack (pulumi stack rename) or in Pulumi.yaml, then: make ci-init"
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", plan.bucket.replace(ACCOUNT, "0" * 12)):
        raise StackError(
            f"The bucket {plan.bucket} is no name that S3 allows: 3 to 63 small letters, digits and dashes."
            " Choose one: make ci-init BUCKET=NAME"
        )


def _provider(repository: Repository) -> dict[str, Any]:
    """The account's trust in the forge's tokens. It stays, because other projects of the account may use it by then."""
    return {
        "Type": "AWS::IAM::OIDCProvider",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {"Url": f"https://{repository.issuer}", "ClientIdList": [AUDIENCE]},
    }


def subjects(repository: Repository, environment: str, kind: Kind) -> tuple[str, str]:
    """The operator and the subject of the tokens that may have an environment's role.

    GitLab's tokens name no environment. There, jobs of the protected main branch deploy, and jobs of any branch of the
    project preview: a fork is a project of its own.
    """
    if repository.is_github:
        return "StringEquals", f"{repository.subject}:environment:{environment}"
    if kind in ("deploy", "nightly"):
        return "StringEquals", f"{repository.subject}:ref_type:branch:ref:{repository.main}"
    return "StringLike", f"{repository.subject}:ref_type:branch:ref:*"


def trust_policy(plan: Plan, environment: str, kind: Kind) -> dict[str, Any]:
    """Who may have an environment's role: tokens of the forge for that environment of this repository alone.

    Where only the main branch may use the environment, GitHub's tokens must be of a run of that branch as well. The
    environment alone does not prove that: a workflow of any branch may name one that has lost, or never had, its rules.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html
    """
    issuer = plan.repository.issuer
    operator, subject = subjects(plan.repository, environment, kind)
    conditions: dict[str, dict[str, str]] = {"StringEquals": {f"{issuer}:aud": AUDIENCE}}
    conditions.setdefault(operator, {})[f"{issuer}:sub"] = subject
    if plan.repository.is_github and kind in ("deploy", "nightly"):
        conditions["StringEquals"][f"{issuer}:ref"] = f"refs/heads/{plan.repository.main}"
    return document({
        "Effect": "Allow",
        "Principal": {"Federated": plan.provider or {"Ref": "Provider"}},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": conditions,
    })  # fmt: skip


def _role(
    plan: Plan, environment: str, kind: Kind, statements: Sequence[Statement], policies: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    policy = document(*statements)
    size = len(compact(policy))
    if size > INLINE_POLICY_LIMIT:
        raise StackError(
            f"The policy of role {plan.role_name(environment)} would have {size} characters; AWS allows"
            f" {INLINE_POLICY_LIMIT}. Set CI up for fewer stacks: make ci-init STACKS='staging production'"
        )
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": plan.role_name(environment),
            "Description": f"CI of {plan.repository.name}, environment {environment}",
            "MaxSessionDuration": 3600,
            "AssumeRolePolicyDocument": trust_policy(plan, environment, kind),
            "ManagedPolicyArns": list(policies),
            "Policies": [{"PolicyName": "state", "PolicyDocument": policy}],
            "Tags": tags(plan),
        },
    }


def _role_statements(plan: Plan, kind: Kind, stacks: tuple[str, ...]) -> list[Statement]:
    """A role's own policy: the state, the key, its names, the other stacks that it may not touch, and itself."""
    writes = kind in ("deploy", "review")
    scope = _scope(plan, kind, stacks)
    statements = [*_read_state(plan.project), *(_write_state(plan.project, scope.stack) if writes else ())]
    statements += _use_key(plan, stacks, writes=writes)
    statements.append({
        "Sid": "CheckItself", "Effect": "Allow", "Action": ["iam:GetRole", "iam:SimulatePrincipalPolicy"],
        "Resource": {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:role/{plan.project}-ci-*"},
    })  # fmt: skip
    if writes and plan.with_zone.get(stacks[0]):
        statements += own_records(plan.with_zone[stacks[0]])
    if kind == "nightly" and plan.on_aws.intersection(stacks):
        statements += runner_access_policy(scope)["Statement"]
    if plan.on_aws.intersection(stacks):
        statements += no_foreign_user_data(plan.project)
    if kind == "preview":
        statements += no_other_stack(scope)
    return statements


def _scope(plan: Plan, kind: Kind, stacks: tuple[str, ...]) -> Scope:
    return Scope(project=plan.project, region=plan.region, stack=REVIEW_STACKS if kind == "review" else stacks[0])


def _read_state(project: str) -> list[Statement]:
    """All states of the project can be read, because `pulumi stack ls` reads them. Their secrets are encrypted."""
    files = (".pulumi/meta.yaml", *(f".pulumi/{kind}/{project}/*" for kind in ("stacks", "history")),
             f".pulumi/locks/organization/{project}/*")  # fmt: skip
    return [
        {"Sid": "ListState", "Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation"],
         "Resource": {"Fn::GetAtt": ["StateBucket", "Arn"]}},
        {"Sid": "ReadState", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": _objects(files)},
    ]  # fmt: skip


def _write_state(project: str, stack: str) -> list[Statement]:
    """One stack's state can be written. Old versions of it cannot be deleted, so whatever happens can be undone."""
    names = [stack] if "*" in stack else [f"{stack}.json*", f"{stack}.pulumi-tags"]
    files = (*(f".pulumi/stacks/{project}/{name}" for name in names),
             *(f".pulumi/{kind}/{project}/{stack}/*" for kind in ("history", "backups")),
             f".pulumi/locks/organization/{project}/{stack}/*")  # fmt: skip
    actions = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"]
    return [{"Sid": "WriteState", "Effect": "Allow", "Action": actions, "Resource": _objects(files)}]


def _objects(files: Sequence[str]) -> list[dict[str, str]]:
    return [{"Fn::Sub": f"${{StateBucket.Arn}}/{file}"} for file in files]


def _use_key(plan: Plan, stacks: tuple[str, ...], *, writes: bool) -> list[Statement]:
    """The key opens the bucket's files through S3, and a stack's secrets in the context of that stack alone."""
    key = {"Fn::GetAtt": ["StateKey", "Arn"]}
    through_s3 = {"kms:ViaService": {"Fn::Sub": f"s3.{plan.region}.${{AWS::URLSuffix}}"}}
    return [
        {"Sid": "KeyOfBucket", "Effect": "Allow", "Resource": key,
         "Action": ["kms:Decrypt", *(["kms:GenerateDataKey"] if writes else [])],
         "Condition": {"StringEquals": through_s3}},
        {"Sid": "KeyOfSecrets", "Effect": "Allow", "Resource": key,
         "Action": ["kms:Decrypt", *(["kms:Encrypt"] if writes else [])],
         "Condition": {"StringEquals": {"kms:EncryptionContext:stack": list(stacks)}}},
    ]  # fmt: skip


def _managed(plan: Plan, description: str, policy: Mapping[str, Any]) -> dict[str, Any]:
    size = len(compact(policy))
    if size > MANAGED_POLICY_LIMIT:
        raise StackError(f"The policy '{description}' would have {size} characters; AWS allows {MANAGED_POLICY_LIMIT}.")
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {"Description": f"{plan.project}: {description}", "PolicyDocument": dict(policy)},
    }
