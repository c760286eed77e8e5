"""The command line of the Makefile's verbs for stacks: `make up`, `preview`, `destroy`, `rollback` and others.

Each runs one of Pulumi's own commands and adds what a first-time user lacks: the CLI is installed where it is missing,
the choice of where state lives is explained before it is needed, a new stack is made, and an `up` ends by asking the
public URL, also when nothing changed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from decant.cli.check_account import check_account, check_before_first_up
from decant.cli.destroy import destroy
from decant.cli.drift import drift
from decant.cli.https import notice_https
from decant.cli.lock import let_go_where_over, unlock
from decant.cli.opening_later import opened_when_possible
from decant.cli.pending import explain_pending
from decant.cli.preview import preview, tell_failure
from decant.cli.pulumi_cli import PulumiCli, check_state, find_cli, select_stack
from decant.cli.replace import replace_machine
from decant.cli.rollback import pin_release
from decant.cli.runner_access import ssh_close, ssh_open
from decant.cli.up import explain_failure, show_summary
from decant.errors import DecantError, LockedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except DecantError as error:
        print(f"\n{error}", file=sys.stderr)
        if options.verb == "preview" and options.markdown:
            tell_failure(options.stack, options.markdown, str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m decant.cli", description="Pulumi's commands for a stack.")
    verbs = ["up", "preview", "destroy", "rollback", "replace", "check-account", "drift"]
    verbs += ["ssh-open", "ssh-close", "unlock"]
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("stack")
    parser.add_argument("--release", help="the release to roll back to (default: the one that was live before)")
    parser.add_argument("--machine", default="", help="the machine to replace, such as web-2")
    parser.add_argument("--markdown", help="a file that gets what preview or drift says as Markdown")
    parser.add_argument("--no-check", action="store_true", help="do not check the account before the first up")
    parser.add_argument("--read-only", action="store_true", help="check an account for previews alone")
    parser.add_argument("--role", default="", help="the ARN of the role to check, in place of one's own credentials")
    parser.add_argument("extra", nargs="*", help="options for Pulumi, after --")
    return parser


def _run(options: argparse.Namespace) -> int:
    cli = PulumiCli(find_cli())
    check_state(cli, options.stack)
    select_stack(cli, options.stack, create=options.verb in ("up", "preview", "check-account", "ssh-open"))
    try:
        return _run_verb(cli, options)
    except LockedError as error:
        let_go_where_over(cli, options.stack, error, os.environ)
        return _run_verb(cli, options)


def _run_verb(cli: PulumiCli, options: argparse.Namespace) -> int:
    started = time.monotonic()
    stack, verb, extra = options.stack, options.verb, list(options.extra)
    if verb in ("check-account", "ssh-open", "ssh-close", "unlock"):
        {
            "check-account": lambda: check_account(cli, stack, reads_only=options.read_only, role=options.role),
            "ssh-open": lambda: ssh_open(cli, stack, os.environ),
            "ssh-close": lambda: ssh_close(cli, stack, os.environ),
            "unlock": lambda: unlock(cli, stack, force=os.environ.get("FORCE") == "yes"),
        }[verb]()
        return 0
    if verb == "drift":
        drift(cli, stack, options.markdown and Path(options.markdown), reads_only=options.read_only)
        return 0
    before = cli.outputs(stack) if verb == "up" else {}
    if verb == "up" and "release" not in before and not options.no_check:
        check_before_first_up(cli, stack)
    if verb == "rollback":
        pin_release(cli, stack, options.release)
        verb = "up"
    if verb == "replace":
        status = replace_machine(cli, stack, options.machine, extra)
        verb = "up"
    elif verb == "destroy":
        status = destroy(cli, stack, extra)
    elif verb == "preview":
        status = preview(cli, stack, extra, options.markdown)
    else:
        noticed = notice_https(cli, stack, before) if verb == "up" else []
        with opened_when_possible(cli, stack, os.environ):
            status = cli.run(verb, "--stack", stack, *noticed, *extra)
    if status == 0 and verb == "up":
        show_summary(cli, stack, time.monotonic() - started, before)
    if status != 0 and verb in ("up", "destroy"):
        explain_failure(cli, stack, verb)
        explain_pending(cli, stack)
    return status


if __name__ == "__main__":
    sys.exit(main())
