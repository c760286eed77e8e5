"""Changes of one CloudFormation stack, which are shown before they are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from decant.clouds.aws.policy import compact
from decant.clouds.aws.session import Session
from decant.clouds.ci import Change
from decant.errors import CloudApiError, StackError

EVERY = 3.0  # seconds between two looks at CloudFormation
LONGEST = 900.0  # seconds; what is made takes one or two minutes
MEANINGS = {
    "AWS::KMS::Key": "encrypts the state and the stacks' secrets; about 1 USD a month",
    "AWS::KMS::Alias": "the key's name",
    "AWS::S3::Bucket": "holds the state: every version is kept for 90 days, nothing is public",
    "AWS::S3::BucketPolicy": "refuses connections without TLS",
    "AWS::IAM::OIDCProvider": "lets the account check the tokens of the forge",
    "AWS::IAM::ManagedPolicy": "what a role may do",
    "AWS::IAM::Role": "for the jobs of one environment alone",
}
NOTHING = ("didn't contain changes", "No updates are to be performed")


class Formation:
    """One CloudFormation stack of an account."""

    def __init__(self, session: Session, name: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._session = session
        self._sleep = sleep
        self.name = name
        self._change = ""

    def status(self) -> str:
        """CloudFormation's word for the stack's condition; "" where there is no such stack. Raises CloudApiError."""
        return str((self._described() or {}).get("StackStatus", ""))

    def outputs(self) -> dict[str, str]:
        """The stack's outputs. Raises CloudApiError."""
        return {one["OutputKey"]: one["OutputValue"] for one in (self._described() or {}).get("Outputs", [])}

    def has(self, logical: str) -> bool:
        """Whether the stack has made a resource. Raises CloudApiError."""
        try:
            self._ask("describe_stack_resource", LogicalResourceId=logical)
        except CloudApiError as error:
            if error.code != "ValidationError":
                raise
            return False
        return True

    def propose(self, template: Mapping[str, Any]) -> list[Change]:
        """Have CloudFormation compare a template with what is there; nothing is made yet.

        Raises:
            CloudApiError, StackError: the account refuses the template, or a first try has failed half-way.
        """
        status = self.status()
        if status == "ROLLBACK_COMPLETE":
            raise StackError(
                f"An earlier try to make the CloudFormation stack {self.name} failed, and nothing is left of it. Delete"
                f" its record, then run make ci-init again: aws cloudformation delete-stack --stack-name {self.name}"
            )
        kind = "CREATE" if status in ("", "REVIEW_IN_PROGRESS") else "UPDATE"
        self._change = f"decant-ci-init-{time.time_ns()}"
        self._ask("create_change_set", ChangeSetName=self._change, ChangeSetType=kind, TemplateBody=compact(template),
                  Capabilities=["CAPABILITY_NAMED_IAM"])  # fmt: skip
        found = self._until(lambda: self._ask("describe_change_set", ChangeSetName=self._change), "Status")
        if found["Status"] == "FAILED":
            reason = str(found.get("StatusReason", ""))
            self.withdraw()
            if any(text in reason for text in NOTHING):
                return []
            raise StackError(f"CloudFormation refuses the changes of stack {self.name}: {reason}")
        return [
            Change(
                action=one["ResourceChange"]["Action"],
                type=one["ResourceChange"]["ResourceType"].removeprefix("AWS::"),
                name=one["ResourceChange"]["LogicalResourceId"],
                meaning=MEANINGS.get(one["ResourceChange"]["ResourceType"], ""),
                replaces=one["ResourceChange"].get("Replacement") == "True",
            )
            for one in found.get("Changes", [])
        ]

    def withdraw(self) -> None:
        """Take back what was proposed, and the record of a stack that was never made. Raises CloudApiError."""
        self._ask("delete_change_set", ChangeSetName=self._change)
        if self.status() == "REVIEW_IN_PROGRESS":
            self._ask("delete_stack")

    def apply(self) -> None:
        """Make what was proposed. Raises CloudApiError, or StackError with CloudFormation's reasons."""
        self._ask("execute_change_set", ChangeSetName=self._change)
        self._sleep(EVERY)  # until the stack's condition is that of the change
        status = str(self._until(self._described, "StackStatus").get("StackStatus", "it is gone"))
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise StackError(
                f"CloudFormation could not make stack {self.name} ({status}), and has taken everything back:\n"
                + "\n".join(f"    {line}" for line in self._failures())
            )

    def _failures(self) -> list[str]:
        events = self._ask("describe_stack_events")["StackEvents"]
        failed = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason given')}"
            for event in reversed(events)
            if event.get("ResourceStatus", "").endswith("_FAILED")
            and "cancelled" not in event.get("ResourceStatusReason", "")
        ]
        return failed[:5] or ["it gives no reason"]

    def _until(self, look: Callable[[], Mapping[str, Any] | None], key: str) -> Mapping[str, Any]:
        for _ in range(int(LONGEST / EVERY)):
            found = look() or {}
            if not str(found.get(key, "")).endswith(("_IN_PROGRESS", "_PENDING")):
                return found
            self._sleep(EVERY)
        raise StackError(
            f"CloudFormation has not come to an end with stack {self.name} after {LONGEST / 60:.0f} minutes. Look at"
            f" it: aws cloudformation describe-stack-events --stack-name {self.name}"
        )

    def _described(self) -> Mapping[str, Any] | None:
        try:
            (found,) = self._ask("describe_stacks")["Stacks"]
        except CloudApiError as error:
            if error.code == "ValidationError" and "does not exist" in str(error):
                return None
            raise
        return dict(found)

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return self._session.ask("cloudformation", operation, StackName=self.name, **arguments)
