"""What a check of an account asks about, and the form of its answers: yes, no or unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from decant.errors import CloudApiError
from decant.settings.model import Settings

FOREIGN_FIX = "nothing, if another state has them (docs/state.md); else remove them: they are left over, and cost money"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One answer. `detail` says what was found, `fix` is the command that mends a "no".

    `later` marks a "no" that does not keep the stack from being made, but a later change of it.
    """

    subject: str
    answer: Literal["yes", "no", "unknown"]
    detail: str
    fix: str = ""
    later: bool = False

    @property
    def blocks(self) -> bool:
        """Whether making the stack would fail."""
        return self.answer == "no" and not self.later


@dataclass(frozen=True, kw_only=True)
class StackFacts:
    """The stack that an account is checked for: its settings, and what it has made already."""

    project: str
    settings: Settings
    environ: Mapping[str, str] = field(repr=False)
    provider: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Settings of the cloud's Pulumi provider, without the namespace and in clear."""
    owned: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Ids of the resources in the stack's state, by Pulumi's name of their type."""
    reads_only: bool = False
    """The credentials are for previews: nothing is asked that only making the stack needs."""
    role: str = ""
    """The ARN of the role whose permissions are checked, in place of the caller's own."""

    @property
    def label(self) -> str:
        """What the names of the stack's resources begin with."""
        return f"{self.project}-{self.settings.stack}"

    def ids(self, type_name: str) -> frozenset[str]:
        """The ids of the stack's own resources of a type."""
        return self.owned.get(type_name, frozenset())

    def set_command(self, setting: str, value: str) -> str:
        """The command that sets one of the stack's settings."""
        return f"pulumi config set {setting} {value} --stack {self.settings.stack}"


def limit_check(subject: str, *, used: int, limit: int, more: int, what: str, fix: str, later: bool = False) -> Check:
    """Whether `more` of something fit under an account's limit, beside the `used` ones."""
    detail = f"{used} of {limit} {what} in use, {more} more needed"
    fits = used + more <= limit
    return Check(subject=subject, answer="yes" if fits else "no", detail=detail, fix="" if fits else fix, later=later)


def answered(subject: str, ask: Callable[[], Check], *, denied: str) -> Check:
    """The answer of `ask`; where the API refuses the question, or answers in another form, "unknown" with the reason.

    `denied` is what helps where the credentials may not ask.
    """
    try:
        return ask()
    except CloudApiError as error:
        fix = denied if error.status in (401, 403) else ""
        return Check(subject=subject, answer="unknown", detail=str(error), fix=fix)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # A question must not stop an `up` because a cloud has changed the form of an answer.
        detail = f"the cloud's answer has a form that Decant does not know ({type(error).__name__}: {error})"
        return Check(subject=subject, answer="unknown", detail=detail)
