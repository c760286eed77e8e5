"""`make check-account`: whether the stack can be made in the user's account, and what it costs a month."""

from __future__ import annotations

import os
import textwrap
from collections import defaultdict
from collections.abc import Sequence

from decant import clouds
from decant.app.files import escaped
from decant.cli.pulumi_cli import PulumiCli
from decant.clouds.checks import Check, StackFacts
from decant.clouds.costs import Cost
from decant.errors import SettingsError, StackError
from decant.settings import load
from decant.settings.model import Settings
from decant.settings.project import project_name

WIDTH = 110  # of the table; longer details are broken


def check_account(cli: PulumiCli, stack: str, *, reads_only: bool = False, role: str = "") -> None:
    """Print a table of what the account can make of the stack.

    With `reads_only`, the credentials need to be enough for a preview. With `role`, the
    cloud is asked what that role is allowed to do, where it has roles.

    Raises:
        SettingsError: the stack's settings are not valid.
        StackError: the account cannot make the stack, or Pulumi failed.
    """
    checked = read_settings(cli, stack)
    if checked.settings is None:
        raise SettingsError(stack, checked.problems)
    _check(cli, checked.settings, reads_only=reads_only, role=role)


def check_before_first_up(cli: PulumiCli, stack: str) -> None:
    """The same before the first `up`. Settings that are not valid are left to the program, which knows the app, too.

    Raises:
        StackError: the account cannot make the stack, or Pulumi failed.
    """
    checked = read_settings(cli, stack)
    if checked.settings is not None and clouds.specs()[checked.settings.cloud].has_account:
        print("Before the first up, the account is asked (CHECK=no leaves it out) ...", flush=True)
        _check(cli, checked.settings)


def read_settings(cli: PulumiCli, stack: str) -> load.Checked:
    """The checked settings of the stack. Raises StackError."""
    entries = cli.read_config(stack)
    values = {name: entry.get("value", "") for name, entry in entries.items()}
    secret = {name for name, entry in entries.items() if entry.get("secret")}
    return load.check_config(values, secret, stack=stack, clouds=clouds.specs())


def _check(cli: PulumiCli, settings: Settings, *, reads_only: bool = False, role: str = "") -> None:
    title = clouds.specs()[settings.cloud].title
    if not clouds.specs()[settings.cloud].has_account:
        print(f"Stack {settings.stack} is on {title}: there is no account to check, and they cost nothing more.")
        return
    facts = StackFacts(
        project=project_name(),
        settings=settings,
        environ=os.environ,
        provider=settings.provider,
        owned=_owned(cli, settings.stack),
        reads_only=reads_only,
        role=role,
    )
    checks = clouds.check_account(facts)
    print(
        table(f"Stack {settings.stack} in your account on {title}", checks, clouds.monthly_cost(settings)), flush=True
    )
    blocking = [check.subject for check in checks if check.blocks]
    if blocking:
        able = (
            f"These credentials cannot preview stack {settings.stack} on {title}"
            if reads_only
            else (f"{title} cannot make stack {settings.stack}")
        )
        raise StackError(f"{able}: see {', '.join(blocking)} above. Nothing was made or changed.")


def _owned(cli: PulumiCli, stack: str) -> dict[str, frozenset[str]]:
    """The ids of the resources in the stack's state, by type."""
    ids: dict[str, set[str]] = defaultdict(set)
    for resource in cli.resources(stack):
        if resource.get("id"):
            ids[resource["type"]].add(str(resource["id"]))
    return {name: frozenset(found) for name, found in ids.items()}


def table(title: str, checks: Sequence[Check], cost: Cost | None) -> str:
    """The answers as a table: subject, answer and detail, and below a "no" the command that mends it."""
    width = max(len(escaped(check.subject)) for check in checks)
    indent = " " * (width + 13)
    rule = "-" * 72
    lines = [rule, f"  {title}", rule]
    for check in checks:
        lines += _wrapped(escaped(check.detail), f"  {escaped(check.subject):<{width}}  {check.answer:<7}  ", indent)
        if check.fix:
            lines.append(f"{indent}{escaped(check.fix)}")  # in one line, so that it can be copied
    if cost:
        lines += _wrapped(str(cost), f"  {'cost':<{width}}           ", indent)
    return "\n".join([*lines, rule])


def _wrapped(text: str, first: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
