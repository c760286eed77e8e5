"""What CI needs in an AWS account, as a CloudFormation template: the state's bucket and key, and a role for each job.

Each environment of the forge has one role, and each role trusts one environment of one repository.
docs/ci.md shows the whole as a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from decant.clouds.aws.policy import (
    MANAGED_POLICY_LIMIT,
    Scope,
    Statement,
    deploy_policy,
    no_other_stack,
    preview_policy,
    runner_access_policy,
)
from decant.errors import StackError

AUDIENCE = "sts.amazonaws.com"
GITHUB_ISSUER = "token.actions.githubusercontent.com"
REVIEW = "review"  # the environment of stacks for pull requests, and what stands for their names in the key's context
NIGHTLY = "nightly"
PREVIEW = "-preview"  # ends the name of the environment that shows a stack in pull requests
REVIEW_STACKS = "pr-*"
ROLE_NAME_LIMIT = 64
INLINE_POLICY_LIMIT = 10_240  # characters of a role's own policies, without white space
TEMPLATE_LIMIT = 51_200  # bytes of a template that is sent with the request
DAYS_OF_OLD_VERSIONS = 90
ACCOUNT = "${AWS::AccountId}"  # the template's own word, where the number of the account is not known yet

Kind = Literal["deploy", "preview", "nightly", "review"]


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Where the project's code is. `subject` is what the subject of each of its tokens begins with."""

    issuer: str
    name: str
    subject: str
    main: str = "main"

    @property
    def is_github(self) -> bool:
        """Whether GitHub issues the tokens. Else GitLab does, whose tokens name a branch and no environment."""
        return self.issuer == GITHUB_ISSUER


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What CI is set up for. `on_aws` are those of the stacks whose machines are on AWS, review stacks among them."""

    project: str
    region: str
    bucket: str
    repository: Repository
    stacks: tuple[str, ...]
    on_aws: frozenset[str]
    reviews: bool
    provider: str = ""
    """The ARN of an OIDC provider that the account has already; "" where the template makes one."""

    @property
    def alias(self) -> str:
        """The name of the key that encrypts the state."""
        return f"alias/{self.project}-state"

    def backend_url(self) -> str:
        """The address of the state, for `PULUMI_BACKEND_URL`."""
        return f"s3://{self.bucket}?region={self.region}"

    def secrets_provider(self, stack: str) -> str:
        """What encrypts a stack's secrets: the key, in a context that only the stack's own roles may use."""
        return f"awskms://{self.alias}?region={self.region}&context_stack={stack}"

    def environments(self) -> dict[str, tuple[Kind, tuple[str, ...]]]:
        """Each environment with its kind and the stacks whose secrets it may read."""
        found: dict[str, tuple[Kind, tuple[str, ...]]] = {}
        for stack in self.stacks:
            found[stack + PREVIEW] = ("preview", (stack,))
            found[stack] = ("deploy", (stack,))
        found[NIGHTLY] = ("nightly", self.stacks)
        if self.reviews:
            found[REVIEW] = ("review", (REVIEW,))
        return found

    def role_name(self, environment: str) -> str:
        """The name of an environment's role."""
        return f"{self.project}-ci-{environment}"


def template(plan: Plan) -> dict[str, Any]:
    """The CloudFormation template of a plan.

    Raises:
        StackError: a name is too long or not allowed, or AWS would refuse the size of a policy or of the template.
    """
    _check_names(plan)
    resources = _state(plan)
    if not plan.provider:
        resources["Provider"] = _provider(plan.repository)
    look = preview_policy()
    resources["Look"] = _managed(plan, "Look at what the stacks have made", look)
    for environment, (kind, stacks) in plan.environments().items():
        logical = logical_name(environment)
        policies = [{"Ref": "Look"}]
        scope = Scope(project=plan.project, region=plan.region, stack=REVIEW_STACKS if kind == "review" else stacks[0])
        if kind in ("deploy", "review") and stacks[0] in plan.on_aws:
            text = f"Make, change and delete stack {scope.stack}"
            resources[f"Policy{logical}"] = _managed(plan, text, deploy_policy(scope))
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


def compact(document: Mapping[str, Any]) -> str:
    """A document as JSON without white space, which is how AWS counts."""
    return json.dumps(document, separators=(",", ":"))


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


def _state(plan: Plan) -> dict[str, Any]:
    """The bucket and the key. Both stay when the template is deleted: without them, the state is lost."""
    bucket = {"Fn::GetAtt": ["StateBucket", "Arn"]}
    stays = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
    root = {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}
    key_policy = _document({"Sid": "Account", "Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*",
                            "Resource": "*"})  # fmt: skip
    encryption = {
        "ServerSideEncryptionByDefault": {
            "SSEAlgorithm": "aws:kms",
            "KMSMasterKeyID": {"Fn::GetAtt": ["StateKey", "Arn"]},
        },
        "BucketKeyEnabled": True,
    }
    old = {
        "Id": "old-versions",
        "Status": "Enabled",
        "NoncurrentVersionExpiration": {"NoncurrentDays": DAYS_OF_OLD_VERSIONS},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    only_tls = _document({
        "Sid": "OnlyTls", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
        "Resource": [bucket, {"Fn::Sub": "${StateBucket.Arn}/*"}],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    })  # fmt: skip
    shut = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    tags = [{"Key": "decant:project", "Value": plan.project}, {"Key": "managed-by", "Value": "decant-ci"}]
    return {
        "StateKey": {
            "Type": "AWS::KMS::Key",
            **stays,
            "Properties": {
                "Description": f"Pulumi state of {plan.project}",
                "EnableKeyRotation": True,
                "PendingWindowInDays": 30,
                "KeyPolicy": key_policy,
                "Tags": tags,
            },
        },
        "StateKeyAlias": {
            "Type": "AWS::KMS::Alias",
            "Properties": {"AliasName": plan.alias, "TargetKeyId": {"Ref": "StateKey"}},
        },
        "StateBucket": {
            "Type": "AWS::S3::Bucket",
            **stays,
            "Properties": {
                "BucketName": {"Fn::Sub": plan.bucket} if ACCOUNT in plan.bucket else plan.bucket,
                "BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]},
                "VersioningConfiguration": {"Status": "Enabled"},
                "PublicAccessBlockConfiguration": dict.fromkeys(shut, True),
                "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
                "LifecycleConfiguration": {"Rules": [old]},
                "Tags": tags,
            },
        },
        "StateBucketPolicy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {"Bucket": {"Ref": "StateBucket"}, "PolicyDocument": only_tls},
        },
    }


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
    """Who may have an environment's role: tokens of the forge for that environment of this repository alone."""
    issuer = plan.repository.issuer
    operator, subject = subjects(plan.repository, environment, kind)
    conditions: dict[str, dict[str, str]] = {"StringEquals": {f"{issuer}:aud": AUDIENCE}}
    conditions.setdefault(operator, {})[f"{issuer}:sub"] = subject
    return _document({
        "Effect": "Allow",
        "Principal": {"Federated": plan.provider or {"Ref": "Provider"}},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": conditions,
    })  # fmt: skip


def _role(
    plan: Plan, environment: str, kind: Kind, statements: Sequence[Statement], policies: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    document = _document(*statements)
    size = len(compact(document))
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
            "Policies": [{"PolicyName": "state", "PolicyDocument": document}],
            "Tags": [{"Key": "decant:project", "Value": plan.project}, {"Key": "managed-by", "Value": "decant-ci"}],
        },
    }


def _role_statements(plan: Plan, kind: Kind, stacks: tuple[str, ...]) -> list[Statement]:
    """A role's own policy: the state, the key, the other stacks that it may not touch, and itself."""
    writes = kind in ("deploy", "review")
    pattern = REVIEW_STACKS if kind == "review" else stacks[0]
    scope = Scope(project=plan.project, region=plan.region, stack=pattern)
    statements = [*_read_state(plan.project), *(_write_state(plan.project, pattern) if writes else ())]
    statements += _use_key(plan, stacks, writes=writes)
    statements.append({
        "Sid": "CheckItself", "Effect": "Allow", "Action": ["iam:GetRole", "iam:SimulatePrincipalPolicy"],
        "Resource": {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:role/{plan.project}-ci-*"},
    })  # fmt: skip
    if kind == "nightly":
        statements += runner_access_policy(scope)["Statement"]
    if kind == "preview":
        statements += no_other_stack(scope)
    return statements


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


def _managed(plan: Plan, description: str, document: Mapping[str, Any]) -> dict[str, Any]:
    size = len(compact(document))
    if size > MANAGED_POLICY_LIMIT:
        raise StackError(f"The policy '{description}' would have {size} characters; AWS allows {MANAGED_POLICY_LIMIT}.")
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {"Description": f"{plan.project}: {description}", "PolicyDocument": dict(document)},
    }


def _document(*statements: Statement) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}
