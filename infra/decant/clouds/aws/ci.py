"""The AWS account that CI is set up in, and the credentials that a job gets there for its token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from decant.clouds.aws.ci_roles import logical_name, template
from decant.clouds.aws.formation import Formation
from decant.clouds.aws.session import Session, connect
from decant.clouds.ci import AUDIENCE, Change, Plan
from decant.errors import CloudApiError, StackError

SESSION_SECONDS = 3600  # what a role allows without a setting of its own; a deploy takes minutes


class AwsCiAccount:
    """An account, as `decant.clouds.ci.CiAccount` describes it."""

    def __init__(self, session: Session, formation: Formation) -> None:
        caller = session.ask("sts", "get_caller_identity")
        self.number = str(caller["Account"])
        self.caller = str(caller["Arn"])
        self.formation = formation.name
        self._session = session
        self._formation = formation

    def provider(self, issuer: str) -> str:
        """The ARN of an OIDC provider that others have made, or "". Raises CloudApiError, StackError."""
        if self._formation.has("Provider"):
            return ""
        for one in self._session.ask("iam", "list_open_id_connect_providers")["OpenIDConnectProviderList"]:
            arn = str(one["Arn"])
            if arn.partition(":oidc-provider/")[2] == issuer:
                self._check_audience(arn)
                return arn
        return ""

    def propose(self, plan: Plan) -> Sequence[Change]:
        """What would change; nothing does yet. Raises CloudApiError, StackError."""
        wanted = template(plan)
        if not self._formation.has("StateBucket") and self._bucket_exists(plan.bucket):
            raise StackError(
                f"There is a bucket {plan.bucket} already, which the CloudFormation stack {self.formation} did not"
                f" make. If it is left of an earlier one, and empty: aws s3 rb s3://{plan.bucket}\n"
                "  Else: make ci-init BUCKET=NAME"
            )
        return self._formation.propose(wanted)

    def withdraw(self) -> None:
        """Take back what was proposed. Raises CloudApiError."""
        self._formation.withdraw()

    def apply(self) -> None:
        """Make what was proposed. Raises CloudApiError, StackError."""
        self._formation.apply()

    def roles(self, plan: Plan) -> Mapping[str, str]:
        """The ARNs of the roles that were made, by environment. Raises CloudApiError."""
        outputs = self._formation.outputs()
        named = {name: outputs.get(f"Role{logical_name(name)}", "") for name in plan.environments()}
        return {name: arn for name, arn in named.items() if arn}

    def _check_audience(self, arn: str) -> None:
        found = self._session.ask("iam", "get_open_id_connect_provider", OpenIDConnectProviderArn=arn)
        if AUDIENCE not in found.get("ClientIDList", []):
            raise StackError(
                f"The account's OIDC provider {arn} does not take tokens for {AUDIENCE}. Let it, then: make ci-init\n"
                f"    aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn {arn}"
                f" --client-id {AUDIENCE}"
            )

    def _bucket_exists(self, bucket: str) -> bool:
        try:
            self._session.ask("s3", "head_bucket", Bucket=bucket)
        except CloudApiError as error:
            if error.status not in (403, 404):
                raise
            return error.status == 403  # it is in another account
        return True


def open_account(project: str, region: str, environ: Mapping[str, str]) -> AwsCiAccount:
    """The account of the environment's credentials. Raises CloudApiError."""
    session = connect({"region": region}, environ)
    return AwsCiAccount(session, Formation(session, f"{project}-ci"))


def credentials(role: str, token: str, *, region: str, name: str) -> Mapping[str, str]:
    """An hour's credentials of a role, for a job's token. Raises CloudApiError.

    STS takes this question unsigned, so no other credentials take part. `name` shows in CloudTrail.
    """
    answer: Mapping[str, str] = connect({"region": region}, {}).ask(
        "sts",
        "assume_role_with_web_identity",
        RoleArn=role,
        RoleSessionName=name[:64],
        WebIdentityToken=token,
        DurationSeconds=SESSION_SECONDS,
    )["Credentials"]
    return answer
