"""`make replace`: a new machine in the place of one, which may be dead, stopped or deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decant.cli.account import forget_gone, open_account
from decant.cli.pulumi_cli import PulumiCli
from decant.errors import StackError

REPLACED_VARIABLE = "DECANT_REPLACE"
"""Names the machine to the program while it is replaced: only then may it start from a newer image."""


def replace_machine(cli: PulumiCli, stack: str, machine: str, extra: Sequence[str]) -> int:
    """Replace a machine and return the exit status of Pulumi.

    The state is refreshed first. A machine that was deleted at the cloud is not in it any more then, and a plain `up`
    makes a new one.

    Raises:
        StackError: the stack has no such machine, or it is a host of the user's own.
    """
    _check_name(cli, stack, machine)
    print(f"Asking the cloud what is left of stack {stack} ...", flush=True)
    account = open_account(cli, stack)
    if account:
        forget_gone(cli, account)
    status = cli.run("refresh", "--yes", "--skip-preview", "--stack", stack)
    if status != 0:
        return status
    urn = machine_urn(cli.resources(stack), machine)
    cli.environment[REPLACED_VARIABLE] = machine
    return cli.run("up", "--stack", stack, *(["--replace", urn] if urn else []), *extra)


def _check_name(cli: PulumiCli, stack: str, machine: str) -> None:
    resources = cli.resources(stack)
    names = {entry["name"] for entry in cli.outputs(stack).get("machines", [])} | {
        name.removesuffix("-ready") for name in map(_name, resources) if name.endswith("-ready")
    }
    if machine not in names:
        known = ", ".join(sorted(names)) or "none"
        raise StackError(f"There is no machine {machine!r} in stack {stack}; there are: {known}.")
    if f"{machine}-cleanup" in map(_name, resources):
        raise StackError(
            f"{machine} is a host of your own, so no cloud can replace it. Reinstall it, set its new host key"
            f" (docs/ssh.md), then: make up STACK={stack}"
        )


def machine_urn(resources: Sequence[Mapping[str, Any]], machine: str) -> str | None:
    """The URN of the cloud's resource that a machine is; None if the state has none.

    The steps on a machine name it as what they are deleted with. Its id would not do: after an `up` that failed, the
    stack's outputs still show the one of the machine before.
    """
    named = (one.get("deletedWith") for one in resources if _name(one).startswith(f"{machine}-"))
    return next((str(urn) for urn in named if urn), None)


def _name(resource: Mapping[str, Any]) -> str:
    return str(resource["urn"]).rpartition("::")[2]
