"""A stack's account at its cloud, and the state of the stack where it does not fit what the account has."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from typing import Any, NamedTuple

from decant import clouds
from decant.cli.pulumi_cli import PulumiCli
from decant.clouds.inventory import Entry, StackInAccount, entry
from decant.errors import CloudApiError, StackError
from decant.settings.project import project_name

UNCHECKED_VARIABLE = "DECANT_ANY_ACCOUNT"
"""Set by the user: the state is brought in line with the account, even if that has nothing of the stack."""

SECOND_LOOK = 5.0
"""Seconds after which something that was missing is looked for again: lists of a cloud may lag behind."""


class Account(NamedTuple):
    """The name of the stack's cloud, and what is known of the stack there."""

    cloud: str
    stack: StackInAccount


def open_account(cli: PulumiCli, stack: str) -> Account | None:
    """The account of a stack; None where its cloud has none. Raises StackError."""
    settings = cli.settings(stack)
    cloud = str(settings.get("decant:cloud", ""))
    if cloud not in clouds.specs() or not clouds.specs()[cloud].has_account:
        return None
    prefix = f"{cloud}:"
    return Account(
        cloud,
        StackInAccount(
            project=project_name(),
            stack=stack,
            provider={name.removeprefix(prefix): value for name, value in settings.items() if name.startswith(prefix)},
            environ=os.environ,
            resources=cli.resources(stack),
        ),
    )


def check_owner(account: Account) -> None:
    """Check that the credentials are of the stack's account, before anything takes what is not there out of the state.

    Raises:
        StackError: they are of another account, or the account cannot be asked.
    """
    title, stack = clouds.specs()[account.cloud].title, account.stack.stack
    if account.stack.environ.get(UNCHECKED_VARIABLE) or not any(one.get("id") for one in account.stack.resources):
        return
    try:
        why = clouds.foreign(*account)
        if why:
            time.sleep(SECOND_LOOK)
            why = clouds.foreign(*account)
    except CloudApiError as error:
        raise StackError(
            f"{title} could not be asked whether stack {stack} is in this account: {error}\n"
            f"  Nothing was changed. What is wrong with the credentials: make check-account STACK={stack}"
        ) from None
    if why:
        raise StackError(
            f"These credentials seem to be of another account than that of stack {stack}: {why}. Nothing was changed.\n"
            f"  Set the right ones. Whose these are: make check-account STACK={stack}\n"
            "  If all of the stack was deleted by hand, run the command again with this in front of it:"
            f" {UNCHECKED_VARIABLE}=yes"
        )


def forget_gone(cli: PulumiCli, account: Account) -> None:
    """Take out of the state what was deleted at the cloud and stops Pulumi's provider, as a refresh would.

    Raises:
        StackError: the credentials are of another account, or the state cannot be changed.
    """
    check_owner(account)
    try:
        gone = set(clouds.gone(*account))
        if gone:
            time.sleep(SECOND_LOOK)
            gone &= set(clouds.gone(*account))
    except CloudApiError:
        return  # Pulumi runs next, and says what is wrong
    if gone:
        names = ", ".join(sorted(urn.rpartition("::")[2] for urn, _ in gone))
        print(f"Deleted at {clouds.specs()[account.cloud].title} by somebody else, so Pulumi forgets it: {names}")
        state = cli.export_state(account.stack.stack)
        _remove(state["deployment"], gone)
        cli.import_state(account.stack.stack, state)


def _remove(deployment: dict[str, Any], gone: Collection[Entry]) -> None:
    """Take resources out of an exported state, and out of what others depend on.

    `pulumi state delete` would take out the resources that depend on them as well, which still exist. A URN stays where
    another entry still has it and comes first, as Pulumi demands of a state.
    """
    deployment["resources"] = [one for one in deployment.get("resources") or () if entry(one) not in gone]
    lost = {urn for urn, _ in gone}
    for one in deployment["resources"]:
        one["dependencies"] = [urn for urn in one.get("dependencies") or () if urn not in lost]
        one["propertyDependencies"] = {
            name: [urn for urn in needed or () if urn not in lost]
            for name, needed in (one.get("propertyDependencies") or {}).items()
        }
        if one.get("deletedWith") in lost:
            del one["deletedWith"]
        lost.discard(one["urn"])
