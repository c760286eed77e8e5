"""`make review-up`, `review-down` and `review-reap`: a stack for a pull request, and the end of forgotten ones.

Stack `pr-N` has the settings of `Pulumi.review.yaml`. Its tags at the cloud say when it expires: what the reaper does
depends on these alone, and not on a state, which may be lost. docs/review.md describes all of it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from decant import clouds
from decant.app.files import escaped
from decant.ci.runs import current_run
from decant.cli import review_settings
from decant.cli.__main__ import main as run_verb
from decant.cli.hiding import hide, secret_texts
from decant.cli.lock import let_go_where_over
from decant.cli.pulumi_cli import PulumiCli, check_state, check_unlocked, find_cli, stack_names
from decant.cli.review_states import believed, known_stacks, readable_states
from decant.clouds.inventory import StackInAccount
from decant.clouds.reviews import ReviewStack, texts
from decant.errors import CloudApiError, DecantError, LockedError, StackError
from decant.settings.model import EXPIRES_FORMAT, REVIEW_TEMPLATE, is_review_stack
from decant.settings.project import project_name, stack_file

AT_ONCE = ("--yes", "--skip-preview")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        cli = PulumiCli(find_cli())
        check_state(cli, "review")
        if options.verb == "reap":
            return reap(cli)
        stack = stack_of(options.pull_request)
        comment = Path(options.markdown) if options.markdown else None
        return (up if options.verb == "up" else down)(cli, stack, comment)
    except DecantError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m decant.cli.review", description="Stacks for pull requests.")
    parser.add_argument("verb", choices=["up", "down", "reap"])
    parser.add_argument("--pull-request", default="", help="the number of the pull request")
    parser.add_argument("--markdown", default="", help="write the result for a comment to this file")
    return parser


def stack_of(number: str) -> str:
    """The stack of a pull request. Raises StackError."""
    stack = f"pr-{number}"
    if not is_review_stack(stack):
        raise StackError(
            f"PR is {escaped(number) or 'not set'}: it must be the number of a pull request\n"
            "      make review-up PR=12, make review-down PR=12"
        )
    return stack


# ------------------------------------------------------------------------------------------------ up


def up(cli: PulumiCli, stack: str, markdown: Path | None) -> int:
    """Put the stack of a pull request live, write a comment about it, and return the exit status.

    Raises:
        DecantError: the stack was not made or changed. The comment says why.
    """
    try:
        expires = _prepare(cli, stack)
    except DecantError as error:
        _write(markdown, _failed(stack, "is not live", str(error)))
        raise
    status = _put_live(stack)
    if status == 0:
        outputs = cli.outputs(stack)
        _write(markdown, _live(stack, str(outputs["url"]), str(outputs["release"]), expires))
    else:
        _write(markdown, _failed(stack, "is not live", "It could not be put live. The job's log says why."))
    return status


def _put_live(stack: str) -> int:
    """Run `make up`. In CI, SSH is open for this run alone meanwhile: `make ssh-open` needs the stack's settings."""
    if current_run(os.environ) is None:
        return run_verb(["up", stack, "--", *AT_ONCE])
    try:
        return run_verb(["ssh-open", stack]) or run_verb(["up", stack, "--", *AT_ONCE])
    finally:
        run_verb(["ssh-close", stack])


def _prepare(cli: PulumiCli, stack: str) -> datetime:
    """Make the stack and write its settings, if it may be one more. Returns when it expires. Raises DecantError."""
    review = review_settings.template_review()
    known = stack_names(cli)
    review_settings.write_settings(stack)
    is_new = stack not in known
    if is_new:
        _init(cli, stack)
    try:
        review_settings.check_secrets(cli, stack, known)
        cloud, account = _account(cli.settings(stack))
        found = _find(cloud, account)
        # Asked after the stack was made, so that of two jobs at once at most one takes the last place.
        others = {one for one in stack_names(cli) if is_review_stack(one)} | {one.stack for one in found}
        others.discard(stack)
        if is_new and len(others) >= review.at_once:
            raise StackError(_full(stack, review.at_once, others))
    except DecantError:
        if is_new:
            _remove_from_state(cli, stack)
        raise
    own = texts(cli.resources(stack))
    until = max((one.expires for one in found if one.stack == stack and one.ids & own), default=None)
    expires = review_settings.next_expiry(datetime.now(UTC), review.days, until)
    review_settings.set_expiry(cli, stack, expires)
    return expires


def _full(stack: str, at_once: int, others: set[str]) -> str:
    numbers = sorted(int(one.removeprefix("pr-")) for one in others)
    return (
        f"Stack {stack} was not made: there are {len(others)} stacks of pull requests already"
        f" ({', '.join(f'pr-{number}' for number in numbers)}), and {review_settings.REVIEW}.atOnce in"
        f" Pulumi.{REVIEW_TEMPLATE}.yaml is {at_once}.\n"
        "  Close one of these pull requests, or take its label `review` off; or remove its stack with"
        f" make review-down PR={numbers[0]}. Then push again."
    )


def _init(cli: PulumiCli, stack: str) -> None:
    """Make the stack in the state, with the key that its file names. Raises StackError."""
    provider = review_settings.read_template().get("secretsprovider")
    options = ["--secrets-provider", str(provider)] if provider else []
    made = cli.capture("stack", "init", stack, "--no-select", *options)
    if made.returncode != 0:
        raise StackError(f"Stack {stack} could not be made: {made.stderr.strip()}")


def _account(settings: Mapping[str, object]) -> tuple[str, StackInAccount]:
    """The cloud of the review stacks, and how to ask their account. Raises StackError."""
    cloud = str(settings.get("decant:cloud", ""))
    usable = [name for name, spec in clouds.specs().items() if spec.has_account]
    if cloud not in usable:
        raise StackError(
            f"decant:cloud in Pulumi.{REVIEW_TEMPLATE}.yaml is {escaped(cloud) or 'not set'}: the stacks of pull"
            f" requests need one of {', '.join(usable)}, which can make machines\n"
            f"      pulumi config set decant:cloud {usable[-1]} --stack {REVIEW_TEMPLATE}"
        )
    prefix = f"{cloud}:"
    provider = {name.removeprefix(prefix): value for name, value in settings.items() if name.startswith(prefix)}
    return cloud, StackInAccount(project=project_name(), stack=REVIEW_TEMPLATE, provider=provider, environ=os.environ)


def _find(cloud: str, account: StackInAccount) -> list[ReviewStack]:
    """The review stacks that the cloud has. Raises StackError."""
    try:
        return clouds.find_reviews(cloud, account)
    except CloudApiError as error:
        raise StackError(
            f"{clouds.specs()[cloud].title} could not be asked which stacks of pull requests it has: {error}\n"
            f"  What is wrong with the credentials: make check-account STACK={REVIEW_TEMPLATE}"
        ) from None


# ------------------------------------------------------------------------------------------------ down


def down(cli: PulumiCli, stack: str, markdown: Path | None) -> int:
    """Remove the stack of a pull request, write a comment about it, and return the exit status.

    Raises:
        DecantError: something of it may be left; the message and the comment say what to do.
    """
    try:
        status = _remove(cli, stack)
    except DecantError as error:
        _write(markdown, _failed(stack, "is not removed", str(error)))
        raise
    if status == 0:
        _write(markdown, f"## Review stack `{stack}` is removed\n")
    else:
        _write(markdown, _failed(stack, "is not removed", "The job's log says why."))
    return status


def _remove(cli: PulumiCli, stack: str) -> int:
    """Remove a stack's machines, its state and its settings. Returns the exit status. Raises DecantError."""
    known = stack_names(cli)
    cloud, account = _account(_settings_of_account(cli, known))
    if stack in known and _destroy(cli, stack):
        return 1
    states = _states(cli)
    found = [one for one in _find(cloud, account) if one.stack == stack]
    for one in found:
        _remove_found(cloud, account, one, states)
    if stack in known:
        _remove_from_state(cli, stack)
    elif not found:
        print(f"There is no stack {stack}, in this state or at {clouds.specs()[cloud].title}: nothing to remove.")
        return 0
    print(f"Stack {stack} is removed.", flush=True)
    return 0


def _settings_of_account(cli: PulumiCli, known: Sequence[str]) -> Mapping[str, object]:
    """The template's settings, in clear. Encrypted ones are left out where its stack is not in the state.

    The cloud's token then comes from the environment. Raises StackError.
    """
    if REVIEW_TEMPLATE in known:
        return cli.settings(REVIEW_TEMPLATE)
    config = review_settings.read_template().get("config") or {}
    return {name: value for name, value in config.items() if not isinstance(value, dict)}


def _destroy(cli: PulumiCli, stack: str) -> int:
    """Run `make destroy` where the state has something. Raises StackError."""
    if not stack_file(stack).exists():  # a fresh clone
        review_settings.write_settings(stack)
    if not cli.resources(stack):
        return 0
    return run_verb(["destroy", stack, "--", *AT_ONCE])


def _remove_from_state(cli: PulumiCli, stack: str) -> None:
    """Remove a stack without resources from the state, and its settings. Raises StackError."""
    try:
        _rm(cli, stack)
    except LockedError as error:  # by a job that was killed before it had made anything
        let_go_where_over(cli, stack, error, os.environ)
        _rm(cli, stack)
    stack_file(stack).unlink(missing_ok=True)


def _rm(cli: PulumiCli, stack: str) -> None:
    removed = cli.capture("stack", "rm", stack, "--yes")
    if removed.returncode != 0:
        check_unlocked(removed.stderr)
        raise StackError(f"Stack {stack} cannot be removed from the state: {removed.stderr.strip()}")


def _states(cli: PulumiCli) -> dict[str, frozenset[str]]:
    """The texts of every stack's state, by the stack's name. Raises StackError."""
    return {name: texts(cli.resources(name)) for name in stack_names(cli)}


def _remove_found(
    cloud: str, account: StackInAccount, review: ReviewStack, states: Mapping[str, frozenset[str]]
) -> None:
    """Remove what is at the cloud and in no state. Raises DecantError."""
    own = states.get(review.stack, frozenset())
    review = replace(review, ids=review.ids - own)
    if not review.ids:
        return
    others = frozenset().union(*states.values())
    title = clouds.specs()[cloud].title
    print(f"{title} has a stack {review.stack} that is not in the state. Removing it:", flush=True)
    try:
        for what in clouds.remove_review(cloud, account, review, others):
            print(f"  {escaped(what)}", flush=True)
    except CloudApiError as error:
        raise StackError(
            f"{title} did not delete all of stack {review.stack}: {error}\n"
            "  What is left keeps its tags. To try again: make review-reap"
        ) from None


# ------------------------------------------------------------------------------------------------ reap


def reap(cli: PulumiCli, now: datetime | None = None) -> int:
    """Remove all stacks of pull requests that have expired, by their tags. Returns 1 where one of them is left.

    Where not all stacks of the state are known, what is in no state that can be read may be another stack's: it stays.

    Raises:
        DecantError: the state of another stack or the account cannot be asked.
    """
    now = now or datetime.now(UTC)
    if not stack_file(REVIEW_TEMPLATE).exists():
        print(f"There is no Pulumi.{REVIEW_TEMPLATE}.yaml, so there are no stacks of pull requests.")
        return 0
    known, all_known = known_stacks(cli)
    cloud, account = _account(_settings_of_account(cli, known))
    try:
        found = [believed(one, now) for one in _find(cloud, account)]
    except StackError as error:
        if not all_known or any(name == REVIEW_TEMPLATE or is_review_stack(name) for name in known):
            raise
        print(f"No stack of a pull request was made with this state. {error}")
        return 0
    stacks = sorted({one.stack for one in found} | {name for name in known if is_review_stack(name)})
    states, broken = readable_states(cli, known if all_known else dict.fromkeys([*known, *stacks]))
    status = int(bool(broken) or not all_known)
    for stack in [one for one in stacks if one not in broken]:
        tagged = [one for one in found if one.stack == stack]
        status |= _tried(partial(_reap_state, cli, stack, states, tagged, now))
        for one in tagged:
            if all_known and one.expires < now and not one.ids & states.get(stack, frozenset()):
                status |= _tried(partial(_remove_found, cloud, account, one, states))
    return status


def _tried(remove: Callable[[], int | None]) -> int:
    """1 where something could not be removed, which is told: it must not keep the others."""
    try:
        return remove() or 0
    except DecantError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _reap_state(
    cli: PulumiCli,
    stack: str,
    states: Mapping[str, frozenset[str]],
    tagged: Sequence[ReviewStack],
    now: datetime,
) -> int:
    """Remove a stack that is in the state and whose tags say that it has expired. Raises StackError."""
    if stack not in states:
        return 0
    ours = [one.expires for one in tagged if one.ids & states[stack]]
    if not states[stack] and tagged:
        return 0  # made just now, or its resources were lost: their tags decide
    if states[stack] and not ours:
        print(f"Stack {stack} is in the state and has no tag at the cloud that says when it expires: it stays.")
        return 0
    if ours and max(ours) >= now:
        print(f"Stack {stack} stays until {max(ours).strftime(EXPIRES_FORMAT)}.", flush=True)
        return _close_forgotten(stack)
    if ours:
        print(f"Stack {stack} expired at {max(ours).strftime(EXPIRES_FORMAT)}. Removing it.", flush=True)
    if _destroy(cli, stack):
        return 1
    _remove_from_state(cli, stack)
    print(f"Stack {stack} is removed.", flush=True)
    return 0


def _close_forgotten(stack: str) -> int:
    """Take away SSH rules of killed jobs: nothing else may run for this stack for days."""
    if not stack_file(stack).exists():  # a fresh clone
        review_settings.write_settings(stack)
    return run_verb(["ssh-close", stack])


# ------------------------------------------------------------------------------------------------ the comment


def _live(stack: str, url: str, release: str, expires: datetime) -> str:
    until = expires.strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"## Review stack `{stack}` is live\n\n"
        f"<{url}/>\n\n"
        f"It serves release `{release}`. It is updated at each push, and removed when the pull request is closed, or at"
        f" {until} if nothing is pushed before.\n"
    )


def _failed(stack: str, what: str, why: str) -> str:
    longest = max((len(run) for run in re.findall("`+", why)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"## Review stack `{stack}` {what}\n\n{fence}text\n{why}\n{fence}\n"


def _write(path: Path | None, text: str) -> None:
    if path:
        path.write_text(hide(text, secret_texts({})), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
