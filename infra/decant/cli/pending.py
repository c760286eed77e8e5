"""What a killed command has left half done, in the state of its stack: taken up where it surely is the stack's.

Pulumi goes on after a kill and warns of "pending operations" from then on. But something that was made without its
knowing is made once more: that fails where the cloud takes only one of it, and costs money where it does not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from decant import clouds
from decant.cli.account import SECOND_LOOK, Account, open_account
from decant.cli.pulumi_cli import PulumiCli
from decant.clouds.lost import NOTHING, Lost
from decant.errors import CloudApiError, StackError

CREATING = "creating"
UNCLEAR_HELP = """Pulumi was killed while it made this, and whether it exists is not known:
{lines}
  The next `make up` makes it in any case. Delete what is left over: nothing will name it again."""

PENDING_HELP = """
A command before this one was killed while it made: {names}
If the cloud says above that something exists already, this takes up what is surely the stack's; then try again:
    make unlock STACK={stack}"""


def settle(cli: PulumiCli, stack: str) -> None:
    """Put what was made without Pulumi's knowing into the state, and forget what was not made.

    Pulumi itself forgets all other operations that were cut short: it makes them again.

    Raises:
        StackError: the state cannot be read or changed.
    """
    state = cli.export_state(stack)
    deployment = state["deployment"]
    operations = deployment.get("pending_operations") or []
    pending = [one["resource"] for one in operations if one["type"] == CREATING]
    if not pending:
        return
    account = open_account(cli, stack)
    resources = deployment.setdefault("resources", [])
    known = {one["urn"] for one in resources}
    taken_up, unclear = [], {}
    for resource, lost in zip(pending, _find_all(account, pending), strict=True):
        if lost.id and resource["urn"] not in known:
            # With its inputs as outputs, so that the provider reads it as one that it knows.
            resources.append({**resource, "id": lost.id, "outputs": dict(resource.get("inputs") or {})})
            taken_up.append(resource["urn"])
        elif lost.id and all(lost.id != one.get("id") for one in resources):
            unclear[resource["urn"]] = f"it exists with the id {lost.id}, beside the one that the stack has by now"
        elif lost.unclear:
            unclear[resource["urn"]] = lost.unclear
    # An import forgets them in any case, so what is unclear is told once.
    deployment["pending_operations"] = []
    cli.import_state(stack, state)
    if taken_up:
        _read(cli, stack, taken_up)
    if unclear:
        lines = "\n".join(f"  {_name(urn)}: {why}" for urn, why in unclear.items())
        print(UNCLEAR_HELP.format(lines=lines), file=sys.stderr, flush=True)


def explain_pending(cli: PulumiCli, stack: str) -> None:
    """After a failed command: print how to take up what a killed one has made, if there was one."""
    try:
        operations = cli.export_state(stack)["deployment"].get("pending_operations") or []
    except StackError:
        return
    names = [_name(one["resource"]["urn"]) for one in operations if one["type"] == CREATING]
    if names:
        print(PENDING_HELP.format(names=", ".join(names), stack=stack), file=sys.stderr, flush=True)


def _find_all(account: Account | None, pending: list[dict[str, Any]]) -> list[Lost]:
    """What the cloud has of each. It is asked twice for what it seems not to have: its lists may lag behind."""
    found = [_find(account, resource) for resource in pending]
    if account and any(_is_of(account, one) and lost == NOTHING for one, lost in zip(pending, found, strict=True)):
        time.sleep(SECOND_LOOK)
        found = [_find(account, one) if lost == NOTHING else lost for one, lost in zip(pending, found, strict=True)]
    return found


def _is_of(account: Account | None, resource: Mapping[str, Any]) -> bool:
    return account is not None and str(resource["type"]).startswith(f"{account.cloud}:")


def _find(account: Account | None, resource: Mapping[str, Any]) -> Lost:
    """Steps and keys are made again: they are idempotent, and exist nowhere but in the state."""
    if account is None or not _is_of(account, resource):
        return NOTHING
    try:
        return clouds.find_lost(account.cloud, account.stack, resource)
    except CloudApiError as error:
        return Lost(unclear=f"{clouds.specs()[account.cloud].title} could not be asked: {error}")


def _read(cli: PulumiCli, stack: str, urns: list[str]) -> None:
    """Let Pulumi read what was taken up. Raises StackError."""
    names = ", ".join(_name(urn) for urn in urns)
    print(f"Made by the command before, which was killed, and taken up into the state: {names}", flush=True)
    targets = [word for urn in urns for word in ("--target", urn)]
    done = cli.capture("refresh", "--yes", "--skip-preview", "--stack", stack, *targets)
    if done.returncode != 0:
        raise StackError(f"Pulumi cannot read what it has taken up ({names}): {done.stdout}{done.stderr}")


def _name(urn: str) -> str:
    return f"{urn.split('::')[-2].rpartition(':')[2]} {urn.rpartition('::')[2]}"
