"""`make replace`: which of Pulumi's resources a machine is."""

from __future__ import annotations

from decant.cli.pulumi_cli import PulumiCli
from decant.errors import StackError


def machine_urn(cli: PulumiCli, stack: str, machine: str) -> str:
    """The URN of the cloud's resource that a machine is, found by the id that the stack's outputs show for it.

    Raises:
        StackError: the stack has no such machine, or it is a host of the user's own.
    """
    ids = {entry["name"]: entry["id"] for entry in cli.outputs(stack).get("machines", [])}
    if machine not in ids:
        raise StackError(f"There is no machine {machine!r} in stack {stack}; there are: {', '.join(ids) or 'none'}.")
    for resource in cli.resources(stack):
        if resource.get("id") == ids[machine] and resource["urn"].endswith(f"::{machine}"):
            return str(resource["urn"])
    raise StackError(
        f"{machine} is a host of your own, so no cloud can replace it. Reinstall it, set its new host key"
        f" (docs/ssh.md), then: make up STACK={stack}"
    )
