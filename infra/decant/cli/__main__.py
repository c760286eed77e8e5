"""The command line of `make up`, `preview`, `destroy`, `rollback`, `replace` and `check-account`.

Each runs one of Pulumi's own commands and adds what a first-time user lacks: the CLI is installed where it is missing,
the choice of where state lives is explained before it is needed, a new stack is made, and an `up` ends by asking the
public URL, also when nothing changed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from decant.cli.check_account import check_account, check_before_first_up
from decant.cli.destroy import destroy
from decant.cli.https import notice_https
from decant.cli.preview import preview, tell_failure
from decant.cli.pulumi_cli import PulumiCli, check_state, find_cli, select_stack
from decant.cli.replace import replace_machine
from decant.cli.rollback import pin_release
from decant.cli.up import explain_failure, show_summary
from decant.errors import DecantError


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
    parser.add_argument("verb", choices=["up", "preview", "destroy", "rollback", "replace", "check-account"])
    parser.add_argument("stack")
    parser.add_argument("--release", help="the release to roll back to (default: the one that was live before)")
    parser.add_argument("--machine", default="", help="the machine to replace, such as web-2")
    parser.add_argument("--markdown", help="a file that gets the summary of a preview as Markdown")
    parser.add_argument("--no-check", action="store_true", help="do not check the account before the first up")
    parser.add_argument("extra", nargs="*", help="options for Pulumi, after --")
    return parser


def _run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    stack, extra = options.stack, list(options.extra)
    cli = PulumiCli(find_cli())
    check_state(cli)
    select_stack(cli, stack, create=options.verb in ("up", "preview", "check-account"))
    verb = options.verb
    if verb == "check-account":
        check_account(cli, stack)
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
        status = cli.run(verb, "--stack", stack, *noticed, *extra)
    if status == 0 and verb == "up":
        show_summary(cli, stack, time.monotonic() - started, before)
    if status != 0 and verb in ("up", "destroy"):
        explain_failure(cli, stack, verb)
    return status


if __name__ == "__main__":
    sys.exit(main())
