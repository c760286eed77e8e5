"""The template of CI's AWS account: what each role may and may not do, and what of AWS's limits it keeps."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any

import pytest

from decant.clouds.aws.ci_roles import INLINE_POLICY_LIMIT, TEMPLATE_LIMIT, template, trust_policy
from decant.clouds.aws.permissions import RECORD_NAMES
from decant.clouds.aws.policy import MANAGED_POLICY_LIMIT, compact
from decant.clouds.ci import ACCOUNT, GITHUB_ISSUER, Plan, Repository
from decant.errors import StackError
from tests.support.iam import Role

PREFIX = "repo:octo@11/shop@22"
GITHUB = Repository(issuer=GITHUB_ISSUER, name="octo/shop", subject=PREFIX)
GITLAB = Repository(issuer="gitlab.com", name="octo/shop", subject="project_path:octo/shop")
PLAN = Plan(
    project="decant",
    region="eu-central-1",
    bucket="decant-state-123456789012-eu-central-1",
    repository=GITHUB,
    stacks=("staging", "production"),
    on_aws=frozenset({"staging", "production", "review"}),
    with_zone={"production": ("example.com", "www.example.com"), "staging": ("staging.example.com",)},
    reviews=True,
)
INSTANCE = "arn:aws:ec2:eu-central-1:123456789012:instance/i-0"
GROUP = "arn:aws:ec2:eu-central-1:123456789012:security-group/sg-0"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/StateKey"
ZONE = "arn:aws:route53:::hostedzone/Z0"
BUCKET = "arn:aws:s3:::decant-state-123456789012-eu-central-1"
ROLES = {
    "staging-preview": "RoleStagingPreview",
    "staging": "RoleStaging",
    "production-preview": "RoleProductionPreview",
    "production": "RoleProduction",
    "nightly": "RoleNightly",
    "review": "RoleReview",
}


@cache
def role(environment: str, plan: Plan = PLAN) -> Role:
    return Role(template(plan), ROLES[environment])


def of(stack: str, project: str = "decant", region: str = "eu-central-1") -> dict[str, str]:
    """The context of a request about a resource of a stack."""
    return {
        "aws:RequestedRegion": region,
        "aws:ResourceTag/decant:project": project,
        "aws:ResourceTag/decant:stack": stack,
    }


def file(path: str) -> str:
    return f"{BUCKET}/.pulumi/{path}"


# ------------------------------------------------------------------------------------------------ whom a role trusts


@pytest.mark.parametrize("environment", ROLES)
def test_a_role_trusts_its_own_environment_of_this_repository_alone(environment: str) -> None:
    trusting = role(environment)
    assert trusting.trusts(f"{PREFIX}:environment:{environment}")
    others = [f"{PREFIX}:environment:{name}" for name in ROLES if name != environment]
    for subject in (
        *others,
        f"{PREFIX}:pull_request",
        f"{PREFIX}:ref:refs/heads/main",
        f"repo:octo/shop:environment:{environment}",  # the name alone, which somebody else may take over
        f"repo:octo@11/shop2@33:environment:{environment}",
        f"repo:fork@99/shop@44:environment:{environment}",
        f"{PREFIX}:environment:{environment}2",
        f"{PREFIX}:environment:*",
    ):
        assert not trusting.trusts(subject), subject
    assert not trusting.trusts(f"{PREFIX}:environment:{environment}", audience="https://github.com/octo")


def test_no_subject_of_github_has_a_wildcard() -> None:
    for environment, (kind, _) in PLAN.environments().items():
        (statement,) = trust_policy(PLAN, environment, kind)["Statement"]
        of_main = {f"{GITHUB_ISSUER}:ref": "refs/heads/main"} if kind in ("deploy", "nightly") else {}
        assert statement["Condition"] == {
            "StringEquals": {
                f"{GITHUB_ISSUER}:aud": "sts.amazonaws.com",
                f"{GITHUB_ISSUER}:sub": f"{PREFIX}:environment:{environment}",
                **of_main,
            }
        }
        assert statement["Principal"] == {"Federated": {"Ref": "Provider"}}


def test_a_branch_that_names_an_environment_without_rules_does_not_deploy() -> None:
    """GitHub makes an environment that a workflow names, and one that was there before keeps its rules, or none."""
    plan = dataclasses.replace(PLAN, repository=dataclasses.replace(GITHUB, main="trunk"))
    for environment in ("staging", "production", "nightly"):
        subject = f"{PREFIX}:environment:{environment}"
        assert role(environment, plan).trusts(subject, ref="refs/heads/trunk")
        for ref in ("refs/heads/fix-7", "refs/pull/7/merge", "refs/tags/trunk", "refs/heads/trunk2"):
            assert not role(environment, plan).trusts(subject, ref=ref), (environment, ref)
    for environment in ("staging-preview", "production-preview", "review"):
        assert role(environment, plan).trusts(f"{PREFIX}:environment:{environment}", ref="refs/pull/7/merge")


def test_on_gitlab_the_main_branch_deploys_and_branches_of_the_project_preview() -> None:
    plan = dataclasses.replace(PLAN, repository=GITLAB)
    deploys, previews = role("production", plan), role("production-preview", plan)
    main, branch = (f"project_path:octo/shop:ref_type:branch:ref:{name}" for name in ("main", "fix-7"))
    assert deploys.trusts(main, issuer="gitlab.com")
    assert not deploys.trusts(branch, issuer="gitlab.com")
    assert previews.trusts(branch, issuer="gitlab.com")
    assert not previews.trusts("project_path:fork/shop:ref_type:branch:ref:main", issuer="gitlab.com")
    assert not previews.trusts(branch, audience="https://gitlab.com", issuer="gitlab.com")


def test_a_provider_that_the_account_has_is_used() -> None:
    arn = f"arn:aws:iam::123456789012:oidc-provider/{GITHUB_ISSUER}"
    made = template(dataclasses.replace(PLAN, provider=arn))
    assert "Provider" not in made["Resources"]
    trust = made["Resources"]["RoleNightly"]["Properties"]["AssumeRolePolicyDocument"]
    assert trust["Statement"][0]["Principal"] == {"Federated": arn}


# ------------------------------------------------------------------------------------------------ machines


CHANGES = ("ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateVpc", "ec2:DeleteVpc", "ec2:CreateTags",
           "ec2:AuthorizeSecurityGroupIngress", "elasticloadbalancing:DeleteLoadBalancer", "acm:RequestCertificate",
           "route53:ChangeResourceRecordSets", "iam:CreateRole", "iam:PassRole", "sts:AssumeRole", "s3:PutBucketPolicy",
           "ec2:GetPasswordData", "s3:DeleteObjectVersion", "kms:ScheduleKeyDeletion")  # fmt: skip


@pytest.mark.parametrize("action", CHANGES)
@pytest.mark.parametrize("environment", ["staging-preview", "production-preview"])
def test_a_preview_changes_nothing(environment: str, action: str) -> None:
    for resource in ("*", INSTANCE, GROUP, BUCKET, KEY, "arn:aws:route53:::hostedzone/Z0"):
        assert not role(environment).may_with(action, resource, of("staging"))


def test_a_preview_reads_what_the_provider_reads() -> None:
    previews = role("staging-preview")
    for action in ("ec2:DescribeInstances", "ec2:DescribeSecurityGroupRules", "acm:DescribeCertificate",
                   "elasticloadbalancing:DescribeTargetHealth", "route53:ListHostedZonesByName"):  # fmt: skip
        assert previews.may_with(action, "*", {}), action
    assert previews.may_with("route53:ListResourceRecordSets", "arn:aws:route53:::hostedzone/Z0", {})


def test_a_preview_does_not_read_another_stacks_first_boot_data() -> None:
    previews = role("staging-preview")
    assert previews.may_with("ec2:DescribeInstanceAttribute", INSTANCE, of("staging"))
    assert not previews.may_with("ec2:DescribeInstanceAttribute", INSTANCE, of("production"))


@pytest.mark.parametrize("environment", ROLES)
def test_no_role_reads_first_boot_data_of_what_is_not_decants(environment: str) -> None:
    own = {"production-preview": "production", "production": "production", "review": "pr-7"}.get(environment, "staging")
    may = role(environment).may_with
    assert may("ec2:DescribeInstanceAttribute", INSTANCE, of(own))
    assert not may("ec2:DescribeInstanceAttribute", INSTANCE, {"aws:RequestedRegion": "eu-central-1"})
    assert not may("ec2:DescribeInstanceAttribute", INSTANCE, of(own, project="blog"))
    assert not may("ec2:DescribeLaunchTemplateVersions", "*", {"aws:RequestedRegion": "eu-central-1"})
    assert may("ec2:DescribeInstances", "*", {})


@pytest.mark.parametrize("action", ["ec2:TerminateInstances", "ec2:DeleteVpc", "ec2:RevokeSecurityGroupIngress",
                                    "ec2:AuthorizeSecurityGroupIngress", "elasticloadbalancing:DeleteLoadBalancer",
                                    "acm:DeleteCertificate", "ec2:DeleteTags"])  # fmt: skip
def test_a_deploy_changes_its_own_stack_alone(action: str) -> None:
    deploys = role("staging")
    assert deploys.may_with(action, INSTANCE, of("staging"))
    assert not deploys.may_with(action, INSTANCE, of("production"))
    assert not deploys.may_with(action, INSTANCE, of("staging", project="blog"))
    assert not deploys.may_with(action, INSTANCE, of("staging", region="us-east-1"))


OTHERS = {
    "security-group": ("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress", "DeleteSecurityGroup",
                       "ModifySecurityGroupRules", "ModifyNetworkInterfaceAttribute", "CreateTags", "DeleteTags"),
    "elastic-ip": ("ReleaseAddress", "AssociateAddress", "DisassociateAddress", "CreateTags"),
    "route-table": ("DeleteRouteTable", "CreateRoute", "ReplaceRoute", "DeleteRoute", "AssociateRouteTable",
                    "ReplaceRouteTableAssociation"),
    "vpc": ("DeleteVpc", "ModifyVpcAttribute", "CreateTags"),
    "subnet": ("DeleteSubnet", "ModifySubnetAttribute"),
    "internet-gateway": ("DeleteInternetGateway", "DetachInternetGateway", "AttachInternetGateway"),
    "key-pair": ("DeleteKeyPair",),
}  # fmt: skip
BALANCERS = {
    "loadbalancer": ("DeleteLoadBalancer", "ModifyLoadBalancerAttributes", "SetSecurityGroups", "AddTags",
                     "RemoveTags"),
    "targetgroup": ("DeleteTargetGroup", "RegisterTargets", "DeregisterTargets", "ModifyTargetGroup"),
    "listener": ("DeleteListener", "ModifyListener", "AddListenerCertificates"),
}  # fmt: skip


def arn(service: str, kind: str) -> str:
    return f"arn:aws:{service}:eu-central-1:123456789012:{kind}/0"


CHANGED = [
    *((f"ec2:{action}", arn("ec2", kind)) for kind, actions in OTHERS.items() for action in actions),
    *(
        (f"elasticloadbalancing:{action}", arn("elasticloadbalancing", kind))
        for kind, actions in BALANCERS.items()
        for action in actions
    ),
]


@pytest.mark.parametrize(("action", "resource"), CHANGED)
@pytest.mark.parametrize("environment", ["staging", "review"])
def test_what_others_have_made_in_the_account_stays(environment: str, action: str, resource: str) -> None:
    """Whoever may push may have the role for review stacks. Its account may hold more than Decant's stacks."""
    own = {"staging": "staging", "review": "pr-7"}[environment]
    assert role(environment).may_with(action, resource, of(own))
    assert not role(environment).may_with(action, resource, {"aws:RequestedRegion": "eu-central-1"})


@pytest.mark.parametrize("environment", ["staging", "review"])
def test_what_is_made_gets_its_first_tags(environment: str) -> None:
    here = {"aws:RequestedRegion": "eu-central-1"}
    may = role(environment).may_with
    for kind in OTHERS:
        assert may("ec2:CreateTags", arn("ec2", kind), {**here, "ec2:CreateAction": "MakeIt"})
        for action in ("CreateVpc", "CreateSubnet", "CreateSecurityGroup", "CreateRouteTable", "CreateInternetGateway",
                       "AllocateAddress", "ImportKeyPair", "RunInstances"):  # fmt: skip
            assert may(f"ec2:{action}", arn("ec2", kind), here), (action, kind)
    for kind in BALANCERS:
        resource = arn("elasticloadbalancing", kind)
        assert may("elasticloadbalancing:AddTags", resource, {**here, "elasticloadbalancing:CreateAction": "MakeIt"})
        for action in ("CreateLoadBalancer", "CreateTargetGroup", "CreateListener"):
            assert may(f"elasticloadbalancing:{action}", resource, here)


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("AuthorizeSecurityGroupIngress", "security-group-rule"),
        ("AssociateAddress", "network-interface"),
        ("ModifyNetworkInterfaceAttribute", "network-interface"),
        ("ModifyVolume", "volume"),
    ],
)
def test_a_rule_of_a_group_and_an_interface_need_no_tags(action: str, kind: str) -> None:
    """A rule is new while AWS decides, and an instance's interface and disk never have tags of the stack."""
    assert role("staging").may_with(f"ec2:{action}", arn("ec2", kind), {"aws:RequestedRegion": "eu-central-1"})


def test_a_deploy_makes_what_has_no_tags_yet() -> None:
    here = {"aws:RequestedRegion": "eu-central-1"}
    for action in ("ec2:CreateVpc", "ec2:RunInstances", "ec2:CreateSecurityGroup", "ec2:AllocateAddress",
                   "elasticloadbalancing:CreateLoadBalancer", "acm:RequestCertificate"):  # fmt: skip
        assert role("staging").may_with(action, "*", here), action
    assert not role("staging").may_with("ec2:TerminateInstances", INSTANCE, here)


def changes(environment: str, *names: str, plan: Plan = PLAN) -> bool:
    """Whether a role may change the records with these names in one request."""
    return role(environment, plan).may_with("route53:ChangeResourceRecordSets", ZONE, {RECORD_NAMES: names})


def test_a_role_changes_dns_records_of_its_stacks_names_alone() -> None:
    """A zone has no tags of a stack, and may hold the names of several ones."""
    assert changes("staging", "staging.example.com", "_c0ffee.staging.example.com")
    assert changes("production", "example.com", "_1.example.com", "www.example.com", "_2.www.example.com")
    for name in ("example.com", "www.example.com", "_1.example.com", "staging.example.com.example.org",
                 "xstaging.example.com", "a.staging.example.com", "\\052.staging.example.com"):  # fmt: skip
        assert not changes("staging", name), name
        assert not changes("staging", "staging.example.com", name), name
    assert not changes("production", "staging.example.com")
    assert not changes("staging"), "a request that tells no names"
    for environment in ROLES.keys() - {"staging", "production"}:
        assert not changes(environment, "staging.example.com"), environment


def test_a_stack_without_a_zone_changes_no_dns_record() -> None:
    plan = dataclasses.replace(PLAN, with_zone={"production": ("example.com",)})
    made = template(plan)["Resources"]
    assert json.dumps(made).count('"route53:ChangeResourceRecordSets"') == 1
    assert '"route53:ChangeResourceRecordSets"' in json.dumps(made["RoleProduction"])


def test_a_role_with_a_zone_reads_zones() -> None:
    for action in ("GetHostedZone", "ListResourceRecordSets", "ListTagsForResource"):
        assert role("staging").may_with(f"route53:{action}", ZONE, {}), action
    assert role("staging").may_with("route53:GetChange", "arn:aws:route53:::change/C0", {})


def test_reviews_change_stacks_of_pull_requests_alone() -> None:
    reviews = role("review")
    for action in ("ec2:TerminateInstances", "ec2:DeleteVpc", "ec2:AuthorizeSecurityGroupIngress"):
        assert reviews.may_with(action, INSTANCE, of("pr-7"))
        for stack in ("production", "staging", "spr-7", "pr"):
            assert not reviews.may_with(action, INSTANCE, of(stack)), (action, stack)
    assert reviews.may_with("ec2:DescribeTags", "*", {})


def test_the_nightly_job_opens_and_closes_ssh_and_changes_nothing_else() -> None:
    nightly = role("nightly")
    for action in ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"):
        assert nightly.may_with(action, GROUP, of("production"))
        assert not nightly.may_with(action, GROUP, of("production", project="blog"))
        assert not nightly.may_with(action, GROUP, {"aws:RequestedRegion": "eu-central-1"})
    for action in set(CHANGES) - {"ec2:AuthorizeSecurityGroupIngress"}:
        assert not nightly.may_with(action, INSTANCE, of("production")), action


def test_a_stack_that_is_not_on_aws_gets_the_state_alone() -> None:
    plan = dataclasses.replace(PLAN, on_aws=frozenset({"production"}))
    assert not role("staging", plan).may_with("ec2:CreateVpc", "*", of("staging"))
    assert role("staging", plan).may_with("s3:PutObject", file("stacks/decant/staging.json"), {})
    assert role("production", plan).may_with("ec2:CreateVpc", "*", of("production"))
    assert not role("staging-preview", plan).may_with("ec2:DescribeInstances", "*", {})
    nowhere = dataclasses.replace(PLAN, on_aws=frozenset())
    assert "Look" not in template(nowhere)["Resources"]
    assert not role("nightly", nowhere).may_with("ec2:AuthorizeSecurityGroupIngress", GROUP, of("production"))


def test_a_role_may_ask_what_it_is_allowed() -> None:
    deploys = role("staging")
    own = "arn:aws:iam::123456789012:role/decant-ci-staging"
    assert deploys.may_with("iam:SimulatePrincipalPolicy", own, {})
    assert deploys.may_with("iam:GetRole", own, {})
    assert not deploys.may_with("iam:GetRole", "arn:aws:iam::123456789012:role/admin", {})


# ------------------------------------------------------------------------------------------------ state and secrets


def secret(stack: str) -> dict[str, str]:
    return {"kms:EncryptionContext:stack": stack}


THROUGH_S3 = {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}


@pytest.mark.parametrize(
    ("environment", "own"),
    [("staging-preview", {"staging"}), ("staging", {"staging"}), ("production-preview", {"production"}),
     ("production", {"production"}), ("review", {"review"}), ("nightly", {"staging", "production"})],
)  # fmt: skip
def test_a_role_reads_the_secrets_of_its_own_stacks_alone(environment: str, own: set[str]) -> None:
    reading = role(environment)
    readable = {
        s for s in ("staging", "production", "review", "pr-7") if reading.may_with("kms:Decrypt", KEY, secret(s))
    }
    assert readable == own
    assert not reading.may_with("kms:Decrypt", KEY, {})
    assert reading.may_with("kms:Decrypt", KEY, THROUGH_S3)
    assert not reading.may_with("kms:Decrypt", f"{KEY}2", THROUGH_S3)


def test_only_a_deploy_writes_and_only_the_state_of_its_stack() -> None:
    own = [
        file("stacks/decant/staging.json"),
        file("stacks/decant/staging.json.bak"),
        file("history/decant/staging/staging-1.history.json"),
        file("backups/decant/staging/staging.1.json"),
        file("locks/organization/decant/staging/94573a8a.json"),
    ]
    others = [
        file("stacks/decant/production.json"),
        file("stacks/decant/staging2.json"),
        file("stacks/blog/staging.json"),
        file("locks/organization/decant/production/1.json"),
        file("meta.yaml"),
    ]
    for action in ("s3:PutObject", "s3:DeleteObject"):
        assert all(role("staging").may_with(action, path, {}) for path in own)
        assert not any(role("staging").may_with(action, path, {}) for path in others)
        for environment in ("staging-preview", "nightly", "production", "review"):
            assert not any(role(environment).may_with(action, path, {}) for path in own), environment
    assert role("staging").may_with("kms:GenerateDataKey", KEY, THROUGH_S3)
    assert not role("staging-preview").may_with("kms:GenerateDataKey", KEY, THROUGH_S3)
    assert role("staging").may_with("kms:Encrypt", KEY, secret("staging"))
    assert not role("staging").may_with("kms:Encrypt", KEY, secret("production"))


def test_reviews_write_the_states_of_pull_requests_alone() -> None:
    assert role("review").may_with("s3:PutObject", file("stacks/decant/pr-7.json"), {})
    assert role("review").may_with("s3:DeleteObject", file("locks/organization/decant/pr-7/1.json"), {})
    assert not role("review").may_with("s3:PutObject", file("stacks/decant/production.json"), {})


def test_every_role_lists_and_reads_the_projects_states() -> None:
    for environment in ROLES:
        reading = role(environment)
        assert reading.may_with("s3:ListBucket", BUCKET, {})
        assert reading.may_with("s3:GetObject", file("stacks/decant/production.json"), {})
        assert reading.may_with("s3:GetObject", file("meta.yaml"), {})
        assert not reading.may_with("s3:GetObject", file("stacks/blog/production.json"), {})
        assert not reading.may_with("s3:DeleteObjectVersion", file("stacks/decant/staging.json"), {})


def test_the_bucket_is_encrypted_versioned_and_shut() -> None:
    made = template(PLAN)["Resources"]
    bucket = made["StateBucket"]
    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("Retain", "Retain")
    properties = bucket["Properties"]
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True, "BlockPublicPolicy": True, "IgnorePublicAcls": True, "RestrictPublicBuckets": True,
    }  # fmt: skip
    (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Fn::GetAtt": ["StateKey", "Arn"]},
    }  # fmt: skip
    assert rule["BucketKeyEnabled"] is True
    (tls,) = made["StateBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (tls["Effect"], tls["Principal"], tls["Condition"]) == (
        "Deny", "*", {"Bool": {"aws:SecureTransport": "false"}},
    )  # fmt: skip
    key = made["StateKey"]
    assert (key["DeletionPolicy"], key["Properties"]["EnableKeyRotation"]) == ("Retain", True)
    assert made["StateKeyAlias"]["Properties"]["AliasName"] == "alias/decant-state"


def test_the_stacks_and_the_workflows_are_told_of_the_key_and_the_bucket() -> None:
    assert PLAN.secrets_provider("staging") == "awskms://alias/decant-state?region=eu-central-1&context_stack=staging"
    assert PLAN.backend_url() == "s3://decant-state-123456789012-eu-central-1?region=eu-central-1"


# ------------------------------------------------------------------------------------------------ AWS's limits


def test_policies_and_template_fit_into_awss_limits() -> None:
    made = template(PLAN)
    assert len(compact(made)) <= TEMPLATE_LIMIT
    json.dumps(made)
    for resource in made["Resources"].values():
        properties = resource["Properties"]
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            assert len(compact(properties["PolicyDocument"])) <= MANAGED_POLICY_LIMIT
        if resource["Type"] == "AWS::IAM::Role":
            assert len(properties["RoleName"]) <= 64
            assert sum(len(compact(one["PolicyDocument"])) for one in properties["Policies"]) <= INLINE_POLICY_LIMIT
            assert len(compact(properties["AssumeRolePolicyDocument"])) <= 2048
            assert len(properties["ManagedPolicyArns"]) <= 10


def test_statements_of_a_policy_have_names_of_their_own() -> None:
    """IAM refuses a document with two statements of one name."""
    for environment in ROLES:
        made = template(PLAN)["Resources"][ROLES[environment]]["Properties"]["Policies"]
        for policy in made:
            names = [one["Sid"] for one in policy["PolicyDocument"]["Statement"]]
            assert len(names) == len(set(names))
            assert all(name.isalnum() for name in names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stacks": ("staging", "review")}, "STACKS has review"),
        ({"stacks": ("nightly",)}, "STACKS has nightly"),
        ({"stacks": ("pr-7",)}, "STACKS has pr-7"),
        ({"stacks": ("a-preview",)}, "STACKS has a-preview"),
        ({"stacks": ("prod*",)}, r"STACKS has prod\*"),
        ({"stacks": ("eu-1", "eu_1")}, r"differ in punctuation alone \(eu-1, eu_1\)"),
        ({"stacks": ("s" * 50,)}, f"The role decant-ci-{'s' * 50}-preview would have 68 characters; AWS allows 64"),
        ({"bucket": "State_Bucket"}, "The bucket State_Bucket is no name that S3 allows"),
        ({"stacks": tuple(f"stack{n}" for n in range(12)), "on_aws": frozenset(f"stack{n}" for n in range(12))},
         r"The template for 12 stacks has \d+ characters, and AWS takes 51200"),
    ],
)  # fmt: skip
def test_what_aws_would_refuse_is_said_before(change: dict[str, Any], said: str) -> None:
    with pytest.raises(StackError, match=rf"(?s){said}.*make ci-init"):
        template(dataclasses.replace(PLAN, **change))


def test_a_template_for_an_unknown_account_names_its_bucket_by_aws_own_word() -> None:
    made = template(dataclasses.replace(PLAN, bucket=f"decant-state-{ACCOUNT}-eu-central-1"))
    assert made["Resources"]["StateBucket"]["Properties"]["BucketName"] == {
        "Fn::Sub": "decant-state-${AWS::AccountId}-eu-central-1"
    }
