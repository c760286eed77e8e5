"""What CI needs of a cloud: a place for the state, and a role for the jobs of each environment of the forge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

AUDIENCE = "sts.amazonaws.com"
GITHUB_ISSUER = "token.actions.githubusercontent.com"
REVIEW = "review"  # the environment of stacks for pull requests, and what stands for their names in the key's context
NIGHTLY = "nightly"
PREVIEW = "-preview"  # ends the name of the environment that shows a stack in pull requests
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
    with_zone: Mapping[str, tuple[str, ...]] = field(hash=False)
    """The names of those of them that have a `decant:dnsZone`. Each one's role may change the records of its names."""
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


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is added, changed or removed in the account. `meaning` says what it is for."""

    action: str
    type: str
    name: str
    meaning: str
    replaces: bool


class CiAccount(Protocol):
    """The account that CI is set up in, with the credentials of an administrator. All raise CloudApiError."""

    number: str
    caller: str
    formation: str
    """The name of what is made as a whole."""

    def provider(self, issuer: str) -> str:
        """The account's trust in a forge that was there before; "" where it is CI's own to make. Raises StackError."""

    def propose(self, plan: Plan) -> Sequence[Change]:
        """What would change; nothing does yet. Raises StackError where a plan cannot be made."""

    def withdraw(self) -> None:
        """Take back what was proposed."""

    def apply(self) -> None:
        """Make what was proposed. Raises StackError with the cloud's reasons."""

    def roles(self, plan: Plan) -> Mapping[str, str]:
        """The roles that were made, by environment."""
