"""A stack's account at its cloud, and the state of the stack where it does not fit what the account has."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from typing import Any, NamedTuple

import yaml

from decant import clouds
from decant.cli.pulumi_cli import PROJECT, PulumiCli
from decant.clouds.inventory import StackInAccount
from decant.errors import CloudApiError

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
            project=yaml.safe_load((PROJECT / "Pulumi.yaml").read_text(encoding="utf-8"))["name"],
            stack=stack,
            provider={name.removeprefix(prefix): value for name, value in settings.items() if name.startswith(prefix)},
            environ=os.environ,
            resources=cli.resources(stack),
        ),
    )


def forget_gone(cli: PulumiCli, account: Account) -> None:
    """Take out of the state what was deleted at the cloud and stops Pulumi's provider, as a refresh would.

    Where the cloud cannot be asked, nothing happens: Pulumi runs next, and says what is wrong.

    Raises:
        StackError: the state cannot be changed.
    """
    try:
        gone = set(clouds.gone(*account))
        if gone:
            time.sleep(SECOND_LOOK)
            gone &= set(clouds.gone(*account))
    except CloudApiError:
        return
    if gone:
        names = ", ".join(sorted(urn.rpartition("::")[2] for urn in gone))
        print(f"Deleted at {clouds.specs()[account.cloud].title} by somebody else, so Pulumi forgets it: {names}")
        state = cli.export_state(account.stack.stack)
        _remove(state["deployment"], gone)
        cli.import_state(account.stack.stack, state)


def _remove(deployment: dict[str, Any], urns: Collection[str]) -> None:
    """Take resources out of an exported state, and out of what others depend on.

    `pulumi state delete` would take out the resources that depend on them as well, which still exist.
    """
    deployment["resources"] = [one for one in deployment.get("resources") or () if one["urn"] not in urns]
    for one in deployment["resources"]:
        one["dependencies"] = [urn for urn in one.get("dependencies") or () if urn not in urns]
        one["propertyDependencies"] = {
            name: [urn for urn in needed or () if urn not in urns]
            for name, needed in (one.get("propertyDependencies") or {}).items()
        }
        if one.get("deletedWith") in urns:
            del one["deletedWith"]
