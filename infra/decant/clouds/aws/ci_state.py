"""The place for Pulumi's state in an AWS account, as a part of CI's CloudFormation template: a bucket and a key."""

from __future__ import annotations

from typing import Any

from decant.clouds.aws.policy import document
from decant.clouds.ci import ACCOUNT, Plan

DAYS_OF_OLD_VERSIONS = 90
# Both stay when the template is deleted: without them, the state is lost.
STAYS = {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
SHUT = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")


def state(plan: Plan) -> dict[str, Any]:
    """The resources of the template that hold the state, by their names in it."""
    return {
        "StateKey": _key(plan),
        "StateKeyAlias": {
            "Type": "AWS::KMS::Alias",
            "Properties": {"AliasName": plan.alias, "TargetKeyId": {"Ref": "StateKey"}},
        },
        "StateBucket": _bucket(plan),
        "StateBucketPolicy": _tls_alone(),
    }


def tags(plan: Plan) -> list[dict[str, str]]:
    """The tags of all that CI has in the account."""
    return [{"Key": "decant:project", "Value": plan.project}, {"Key": "managed-by", "Value": "decant-ci"}]


def _key(plan: Plan) -> dict[str, Any]:
    root = {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}
    whole_account = {
        "Sid": "Account",
        "Effect": "Allow",
        "Principal": {"AWS": root},
        "Action": "kms:*",
        "Resource": "*",
    }
    properties = {
        "Description": f"Pulumi state of {plan.project}",
        "EnableKeyRotation": True,
        "PendingWindowInDays": 30,
        "KeyPolicy": document(whole_account),
        "Tags": tags(plan),
    }
    return {"Type": "AWS::KMS::Key", **STAYS, "Properties": properties}


def _bucket(plan: Plan) -> dict[str, Any]:
    by_key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Fn::GetAtt": ["StateKey", "Arn"]}}
    encryption = {"ServerSideEncryptionByDefault": by_key, "BucketKeyEnabled": True}
    old = {
        "Id": "old-versions",
        "Status": "Enabled",
        "NoncurrentVersionExpiration": {"NoncurrentDays": DAYS_OF_OLD_VERSIONS},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    properties = {
        "BucketName": {"Fn::Sub": plan.bucket} if ACCOUNT in plan.bucket else plan.bucket,
        "BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]},
        "VersioningConfiguration": {"Status": "Enabled"},
        "PublicAccessBlockConfiguration": dict.fromkeys(SHUT, True),
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "LifecycleConfiguration": {"Rules": [old]},
        "Tags": tags(plan),
    }
    return {"Type": "AWS::S3::Bucket", **STAYS, "Properties": properties}


def _tls_alone() -> dict[str, Any]:
    policy = document({
        "Sid": "OnlyTls", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
        "Resource": [{"Fn::GetAtt": ["StateBucket", "Arn"]}, {"Fn::Sub": "${StateBucket.Arn}/*"}],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    })  # fmt: skip
    return {"Type": "AWS::S3::BucketPolicy", "Properties": {"Bucket": {"Ref": "StateBucket"}, "PolicyDocument": policy}}
