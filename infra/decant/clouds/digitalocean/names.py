"""Names of a DigitalOcean stack's resources, by which they are found in the account."""

from __future__ import annotations

import hashlib
import re


def label(project: str, stack: str) -> str:
    """PROJECT-STACK, with what tags or firewalls may not have in their names replaced.

    Firewalls take letters, digits, periods and dashes, tags no periods:
    https://docs.digitalocean.com/reference/api/digitalocean/#tag/Firewalls
    """
    return re.sub(r"[^a-zA-Z0-9-]+", "-", f"{project}-{stack}")


def unique(stack: str, public_key: str) -> str:
    """The stack's label with seven characters that belong to its login key, so that no other stack has the name."""
    return f"{stack}-{hashlib.sha256(public_key.split()[1].encode()).hexdigest()[:7]}"


def is_of(stack: str, name: str) -> bool:
    """Whether a tag, an SSH key, a firewall or a certificate with this name belongs to the stack with this label."""
    return re.fullmatch(rf"{re.escape(stack)}(-[0-9a-f]{{7}}){{0,2}}(-web|-run-.+)?", name) is not None


def of_run(tag: str, run: str, until: str) -> str:
    """The name of the firewall that lets a run in. `until` is a time without spaces."""
    return f"{tag}-run-{run}-until-{until}"


def read_run(tag: str, name: str) -> tuple[str, str] | None:
    """The run and the time in the name of such a firewall of the stack with this tag. None for every other name."""
    found = re.fullmatch(rf"{re.escape(tag)}-run-(.+)-until-(\d{{8}}T\d{{6}}Z)", name)
    return (found[1], found[2]) if found else None


def description(stack: str) -> str:
    """The description of the stack's VPC, which has a name of Pulumi's choice."""
    return f"{stack}, made by Decant"
