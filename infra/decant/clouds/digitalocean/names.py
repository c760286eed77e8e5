"""Names of a DigitalOcean stack's resources, by which they are found in the account."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import NamedTuple

from decant.settings.model import REVIEW_STACK

_EXPIRES = "%Y%m%dT%H%MZ"


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


class ReviewTag(NamedTuple):
    """What the tag of a review stack says: the stack, its unique name, and when it expires."""

    stack: str
    unique: str
    expires: datetime


def review_tag(project: str, stack: str, expires: datetime, public_key: str) -> str:
    """The tag of a review stack: decant-review:PROJECT:pr-7:HASH:TIME.

    Tags take letters, digits, colons, dashes and underscores. A project's name may have periods and no colons.
    """
    ending = unique("", public_key).removeprefix("-")
    return ":".join((_review_prefix(project), stack, ending, expires.strftime(_EXPIRES)))


def read_review_tag(project: str, tag: str) -> ReviewTag | None:
    """What a tag says of a review stack of this project. None for every other tag."""
    pattern = rf"{re.escape(_review_prefix(project))}:({REVIEW_STACK}):([0-9a-f]{{7}}):(\d{{8}}T\d{{4}}Z)"
    found = re.fullmatch(pattern, tag)
    if found is None:
        return None
    stack, ending, time = found.groups()
    try:
        expires = datetime.strptime(time, _EXPIRES).replace(tzinfo=UTC)
    except ValueError:
        return None
    return ReviewTag(stack, f"{label(project, stack)}-{ending}", expires)


def is_unique(tag: str) -> bool:
    """Whether a tag may be the unique name of some stack: it ends with a hash of seven characters."""
    return re.fullmatch(r"[a-zA-Z0-9-]+-[0-9a-f]{7}", tag) is not None


def _review_prefix(project: str) -> str:
    return f"decant-review:{project.replace('.', ':')}"
