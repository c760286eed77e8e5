"""The command line of the verbs: `python -m decant.verbs VERB STACK`, which fabfile.py and the Makefile call."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import webbrowser
from collections.abc import Callable, Mapping, Sequence

from decant.cli.pulumi_cli import PulumiCli, accesses, check_state, find_cli, select_stack
from decant.errors import DecantError, InvalidValueError, MachineError
from decant.verbs.logs import show_logs
from decant.verbs.machines import chosen, on_all, overview
from decant.verbs.one_off import run_command
from decant.verbs.overviews import Overviews, env_text, ps_text, releases_text, status_text
from decant.verbs.ssh_login import ssh
from decant_host.protocol import RELEASE_ID

TEXTS: Mapping[str, Callable[[Overviews], str]] = {"ps": ps_text, "releases": releases_text, "env": env_text}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except DecantError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as of `fab logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m decant.verbs", description="Verbs on the running site.")
    parser.add_argument("verb", choices=["status", "ps", "logs", "releases", "run", "console", "env", "open", "ssh"])
    parser.add_argument("stack")
    parser.add_argument("--machine", default="", help="one machine alone, such as web-2")
    parser.add_argument("--release", default="", help="of one release alone (logs), or in it (run, console)")
    parser.add_argument("--source", default="app", choices=["app", "access", "error"], help="which log")
    parser.add_argument("--lines", type=int, default=100, help="how many lines of each machine's log")
    parser.add_argument("--follow", action="store_true", help="go on with the lines that come")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--command", default="", help="the command of run, as a shell line")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.release and not re.fullmatch(RELEASE_ID, options.release):
        raise InvalidValueError(f"{options.release!r} is not a release id (12 hexadecimal digits). See: fab releases")
    if options.verb == "run" and not options.command.strip():
        raise InvalidValueError("run needs a command, such as: make run COMMAND='flask db current'")
    cli = PulumiCli(find_cli())
    check_state(cli, options.stack)
    select_stack(cli, options.stack, create=False)
    if options.verb == "open":
        return _open(str(cli.outputs(options.stack).get("url", "")), options.stack)
    machines = chosen(accesses(cli, options.stack), options.machine)
    if options.verb == "logs":
        argv = ["--source", options.source, "--lines", str(options.lines)]
        argv += ["--release", options.release] if options.release else []
        return show_logs(machines, argv, follow=options.follow, as_json=options.json)
    if options.verb == "ssh":
        return ssh(machines[0])
    if options.verb in ("run", "console"):
        if len(machines) > 1:
            print(f"on {machines[0].name} (choose another one by its name: {machines[1].name})", file=sys.stderr)
        return run_command(machines[0], options.command if options.verb == "run" else None, options.release or None)
    found = dict(zip((m.name for m in machines), on_all(machines, overview), strict=True))
    overviews = {name: one for name, one in found.items() if not isinstance(one, MachineError)}
    if options.json:
        print(json.dumps({name: {"error": str(o)} if isinstance(o, MachineError) else o for name, o in found.items()}))
    elif overviews:
        text = TEXTS.get(options.verb)
        print(
            text(overviews)
            if text
            else status_text(overviews, str(cli.outputs(options.stack).get("url", "")), options.stack)
        )
    errors = [one for one in found.values() if isinstance(one, MachineError)]
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


def _open(url: str, stack: str) -> int:
    if not url:
        raise MachineError(f"Stack {stack} has no URL yet. Put the app live: make up STACK={stack}")
    print(url)
    if sys.stdout.isatty():
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
