"""What the reaper of review stacks goes by: the states that can be read, and the times that can be believed.

Jobs of every branch write the states of review stacks, and their tags. A broken one must not keep the others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from decant.cli.pulumi_cli import PulumiCli, stack_names
from decant.clouds.reviews import ReviewStack, texts
from decant.errors import StackError
from decant.settings import project
from decant.settings.model import EXPIRES_FORMAT, MOST_REVIEW_DAYS, is_review_stack

LATEST = timedelta(days=MOST_REVIEW_DAYS + 1)  # a day more, for clocks that differ


def known_stacks(cli: PulumiCli) -> tuple[list[str], bool]:
    """The stacks in the state, and whether these are all: one broken state ends Pulumi's list, which is told.

    Then they are those that have a file and can be read.
    """
    try:
        return stack_names(cli), True
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
    read = ("stack", "output", "--json", "--stack")
    return [name for name in project.stack_names() if cli.capture(*read, name).returncode == 0], False


def readable_states(cli: PulumiCli, stacks: Iterable[str]) -> tuple[dict[str, frozenset[str]], set[str]]:
    """The texts of each stack's state, and the review stacks whose states cannot be read, which is told.

    Raises:
        StackError: the state of another stack cannot be read, so that nobody knows what belongs to it.
    """
    states: dict[str, frozenset[str]] = {}
    broken = set()
    for name in stacks:
        try:
            states[name] = texts(cli.resources(name))
        except StackError as error:
            if not is_review_stack(name):
                raise
            broken.add(name)
            print(f"\nThe state of stack {name} cannot be read, so it stays: {error}", file=sys.stderr)
    return states, broken


def believed(review: ReviewStack, now: datetime) -> ReviewStack:
    """A review stack as its tags say. One that expires later than `make review-up` ever sets has expired."""
    if review.expires <= now + LATEST:
        return review
    print(
        f"Stack {review.stack} has a tag that says {review.expires.strftime(EXPIRES_FORMAT)}, which is more than"
        f" {MOST_REVIEW_DAYS} days away. `make review-up` sets no such time, so the stack counts as expired.",
        flush=True,
    )
    return replace(review, expires=now - timedelta(minutes=1))
