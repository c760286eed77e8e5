"""Finds the clouds: each module or package in this folder that has a `SPEC` is one.

A cloud has `SPEC`, a `CloudSpec` that is read without importing the cloud's Pulumi package, and `create(settings)`,
which returns a `Cloud`. No other module knows which clouds exist: docs/clouds.md says how to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import ModuleType
from typing import Any

from decant.clouds.base import Cloud, CloudSpec
from decant.clouds.changes import CloudChanges
from decant.clouds.checks import Check, StackFacts
from decant.clouds.ci import CiAccount, Plan
from decant.clouds.costs import Cost
from decant.clouds.inventory import Entry, Kept, Left, Resource, StackInAccount
from decant.clouds.lost import Lost
from decant.clouds.reviews import ReviewStack
from decant.clouds.runner_access import Opening
from decant.settings.model import Settings


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"decant.clouds.{name}")


def specs() -> dict[str, CloudSpec]:
    """Every cloud's spec, by the cloud's value in `decant:cloud`, in the order of these names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: _module(name).SPEC for name in names if hasattr(_module(name), "SPEC")}


def create(settings: Settings) -> Cloud:
    """Create the machines of the stack's cloud, and what belongs to them.

    Raises:
        pulumi.RunError: the cloud cannot be used with these settings.
    """
    cloud: Cloud = _module(settings.cloud).create(settings)
    return cloud


def check_account(stack: StackFacts) -> list[Check]:
    """Whether the account can make the stack. Empty for a cloud without accounts."""
    if not specs()[stack.settings.cloud].has_account:
        return []
    checks: list[Check] = _module(f"{stack.settings.cloud}.account").check(stack)
    return checks


def monthly_cost(settings: Settings) -> Cost | None:
    """What the stack costs; None for a cloud that costs nothing."""
    if not specs()[settings.cloud].has_account:
        return None
    cost: Cost = _module(f"{settings.cloud}.prices").monthly_cost(settings)
    return cost


def changes(cloud: str) -> CloudChanges:
    """How to read the steps of a preview at this cloud."""
    module = _module(f"{cloud}.changes" if specs()[cloud].has_account else cloud)
    found: CloudChanges = module.CHANGES
    return found


def kept(cloud: str, resources: Sequence[Resource]) -> list[Kept]:
    """What the cloud never deletes of these resources. `cloud` has accounts."""
    found: list[Kept] = _module(f"{cloud}.inventory").kept(resources)
    return found


def foreign(cloud: str, account: StackInAccount) -> str:
    """Why the credentials seem to be of another account than the stack's; empty where they do not.

    `cloud` has accounts. Raises CloudApiError.
    """
    why: str = _module(f"{cloud}.inventory").foreign(account)
    return why


def gone(cloud: str, account: StackInAccount) -> list[Entry]:
    """The resources in the state that were deleted at the cloud, and that its provider stumbles over.

    `cloud` has accounts. Raises CloudApiError.
    """
    found: list[Entry] = _module(f"{cloud}.inventory").gone(account)
    return found


def left(cloud: str, account: StackInAccount) -> list[Left]:
    """What the account still has of the stack. `cloud` has accounts. Raises CloudApiError."""
    found: list[Left] = _module(f"{cloud}.inventory").left(account)
    return found


def find_lost(cloud: str, account: StackInAccount, resource: Resource) -> Lost:
    """What the cloud has of a resource that was being made when Pulumi was killed.

    `cloud` has accounts. Raises CloudApiError.
    """
    found: Lost = _module(f"{cloud}.lost").find(account, resource)
    return found


def can_open(cloud: str, resources: Sequence[Resource]) -> bool:
    """Whether the state has what a rule for one run is attached to. `cloud` has accounts."""
    made: bool = _module(f"{cloud}.runner_access").is_made(resources)
    return made


def openings(cloud: str, account: StackInAccount) -> list[Opening]:
    """The rules that let runs reach the stack's machines by SSH. `cloud` has accounts. Raises CloudApiError."""
    found: list[Opening] = _module(f"{cloud}.runner_access").openings(account)
    return found


def open_to(cloud: str, account: StackInAccount, *, run: str, network: str, until: datetime) -> bool:
    """Let a network reach the machines by SSH; False where it may already. `cloud` has accounts.

    Raises:
        CloudApiError: the cloud refuses, or cannot be asked.
    """
    made: bool = _module(f"{cloud}.runner_access").open_to(account, run, network, until)
    return made


def close(cloud: str, account: StackInAccount, opening: Opening) -> None:
    """Delete such a rule. `cloud` has accounts. Raises CloudApiError."""
    _module(f"{cloud}.runner_access").close(account, opening)


def ci_account(project: str, region: str, environ: Mapping[str, str]) -> CiAccount:
    """The account that CI is set up in. AWS alone has roles for jobs, so it is AWS's. Raises CloudApiError."""
    account: CiAccount = _module("aws.ci").open_account(project, region, environ)
    return account


def ci_template(plan: Plan) -> dict[str, Any]:
    """All that CI has in its account, as the cloud's own tools read it. Raises StackError."""
    made: dict[str, Any] = _module("aws.ci_roles").template(plan)
    return made


def ci_credentials(role: str, token: str, *, region: str, name: str) -> Mapping[str, str]:
    """An hour's credentials of a role, for the token of a job of CI. Raises CloudApiError."""
    keys: Mapping[str, str] = _module("aws.ci").credentials(role, token, region=region, name=name)
    return keys


def find_reviews(cloud: str, account: StackInAccount) -> list[ReviewStack]:
    """The review stacks of the account's project, by the tags in the account alone.

    `cloud` has accounts; of `account`, the stack and its resources are not used. Raises CloudApiError.
    """
    found: list[ReviewStack] = _module(f"{cloud}.reviews").find(account)
    return found


def remove_review(cloud: str, account: StackInAccount, review: ReviewStack, others: Collection[str]) -> list[str]:
    """Delete a review stack that no state has, and return what was deleted, in words.

    `others` are the texts of the states of all other stacks: nothing that one of them has is deleted.

    Raises:
        StackError: something with the stack's tags may be another stack's. Nothing was deleted.
        CloudApiError: the cloud refused, or could not be asked. What is left keeps its tags.
    """
    deleted: list[str] = _module(f"{cloud}.reviews").remove(account, review, others)
    return deleted
