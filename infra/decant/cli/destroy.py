"""`make destroy`: delete everything of a stack, and say what the account still has of it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from decant import clouds
from decant.app.files import escaped
from decant.cli.account import Account, forget_gone, open_account
from decant.cli.https import find_to_keep, keep
from decant.cli.pulumi_cli import PulumiCli
from decant.cli.runner_access import close_all
from decant.clouds.inventory import Kept, Left, entry
from decant.errors import CloudApiError, StackError
from decant.settings.model import is_review_stack
from decant.ssh.drain import SKIP_VARIABLE

PATIENCE = 60.0
"""Seconds that a cloud may go on listing what it has deleted."""

INTERVAL = 5.0
"""Seconds between two questions."""


def destroy(cli: PulumiCli, stack: str, extra: Sequence[str]) -> int:
    """Run Pulumi's destroy and return its exit status.

    The state is refreshed first, because the providers cannot delete what was deleted by hand already.

    Raises:
        StackError: the account still has something of the stack, or the state cannot be read.
    """
    cli.environment[SKIP_VARIABLE] = "yes"
    account = open_account(cli, stack)
    kept: list[Kept] = []
    if account:
        forget_gone(cli, account)
        account = _with_lost(account)
        kept = clouds.kept(account.cloud, account.stack.resources)
        _retain(cli, stack, kept)
    # A review stack's settings go with it, so there is nothing to keep the certificate in.
    certificate = None if is_review_stack(stack) else find_to_keep(cli, stack)
    status = cli.run("destroy", "--stack", stack, "--refresh", *extra)
    # Pulumi succeeds with a preview alone, too: then the state still has its resources.
    if status == 0 and not cli.resources(stack):
        keep(cli, stack, certificate)
        if account:
            _close_ssh(account)
            _report(account, kept)
    return status


def _close_ssh(account: Account) -> None:
    """Delete what `make ssh-open` has made. A cloud that cannot be asked is told by the report that follows."""
    with contextlib.suppress(CloudApiError):
        close_all(account)


def _with_lost(account: Account) -> Account:
    """The account, with what is in there and not in the state: it may lose its tag together with the rest."""
    try:
        found = clouds.left(*account)
    except CloudApiError:
        return account
    lost = [{"type": one.type, "id": one.id} for one in found if one.id and one.ours]
    return Account(account.cloud, replace(account.stack, resources=[*account.stack.resources, *lost]))


def _retain(cli: PulumiCli, stack: str, kept: Sequence[Kept]) -> None:
    """Mark what the cloud never deletes, so that Pulumi takes it out of the state without asking the cloud.

    The next `up` would take the marks away again. `pulumi state delete` is no replacement: other resources depend on
    these, and would have to be deleted from the state with them. Raises StackError.
    """
    if not kept:
        return
    wanted = {one.entry for one in kept}
    state = cli.export_state(stack)
    for resource in state["deployment"].get("resources") or ():
        if entry(resource) in wanted:
            resource["retainOnDelete"] = True
    cli.import_state(stack, state)


def _report(account: Account, kept: Sequence[Kept]) -> None:
    title, stack = clouds.specs()[account.cloud].title, account.stack.stack
    for one in kept:
        print(f"\n{one.why}")
    try:
        found = _left_in_the_end(account)
    except CloudApiError as error:
        print(
            f"\nPulumi has deleted everything that it knew of. Whether {title} has more of stack {stack} could"
            f" not be asked: {error}",
            file=sys.stderr,
        )
        return
    others = [one for one in found if not one.ours]
    if others:
        print(
            f"\n{title} has this with the name or the tags of a stack {stack}. If another state has it, such as a"
            " colleague's (docs/state.md), it is in use: leave it alone. Else it is left over, and may cost money:\n"
            f"{_commands(others)}"
        )
    ours = [one for one in found if one.ours]
    if ours:
        raise StackError(
            f"{title} still has this of stack {stack}, which Pulumi does not know. It may cost money."
            f" Delete it in this order:\n{_commands(ours)}"
        )
    rest = " but the above" if kept or others else ""
    print(f"\nNothing of stack {stack} is left at {title}{rest}.")


def _commands(found: Sequence[Left]) -> str:
    return "\n".join(f"  {escaped(one.what)}\n      {escaped(one.command)}" for one in found)


def _left_in_the_end(account: Account) -> list[Left]:
    """What is left, after the cloud has had time to forget what it has deleted. Raises CloudApiError."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = clouds.left(*account)
        if not any(one.ours for one in found) or time.monotonic() > deadline:
            return found
        time.sleep(INTERVAL)
