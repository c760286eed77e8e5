"""SSH for one run: the types that the modules `runner_access` of the clouds share.

A runner's address changes with every run, so it is in no setting and no state. A rule at the cloud lets it in, with a
text that names the run and the moment until which the rule is wanted. Such a module has three functions.
`openings(account)` returns the stack's rules of this kind, `open_to(account, run, network, until)` makes one, and
`close(account, opening)` deletes one. `is_made(resources)` says whether the stack has what a rule is attached to.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A rule that lets one network reach the SSH port of a stack's machines.

    `id` is the cloud's own. `network` is a CIDR, `run` the name of the run that the rule was made for.
    """

    id: str
    network: str
    run: str
    until: datetime

    def is_over(self, now: datetime) -> bool:
        """Whether the rule is not wanted any more."""
        return self.until <= now


def end_of(text: str, form: str) -> datetime:
    """The moment in a rule's text. One that does not exist, such as a 13th month, is long over: the rule is closed."""
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
