"""The command line of the program: one table of all commands."""

from __future__ import annotations

import argparse
import errno
import json
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from decant_host.agent import serve_requests
from decant_host.balancer import drain, pre_stop
from decant_host.certificate import certificate, certificate_run
from decant_host.certificate_archive import restore_certificate, save_certificate
from decant_host.draining import end_draining
from decant_host.errors import HostError
from decant_host.logs import SOURCES, show_logs
from decant_host.one_off import run_one_off
from decant_host.overview import overview
from decant_host.protocol import RELEASE_ID, unguarded
from decant_host.releases import check_space
from decant_host.stage import expire, migrate, prepare, stage
from decant_host.status import status
from decant_host.switch import boot, confirm, extend, revert, switch


class Argument:
    """An argument of a command, as ArgumentParser.add_argument takes it."""

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.options = options


class Command(NamedTuple):
    """A command: `run` gets the parsed arguments and returns what is printed as JSON, or None for no output.

    `old_name` is what the release before this one called it. Its timers and units may still use that name.
    """

    name: str
    help: str
    arguments: tuple[Argument, ...]
    run: Callable[[argparse.Namespace], Mapping[str, object] | None]
    old_name: str | None = None


def release_id(text: str) -> str:
    """Check a release id from the command line. Raises argparse.ArgumentTypeError."""
    if not re.fullmatch(RELEASE_ID, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a release id (12 hexadecimal digits)")
    return text


RELEASE = Argument("release", type=release_id, help="release id")
ATTEMPT = Argument("--attempt", required=True, help="the rollout attempt that holds this machine's lease")
ASKING_ATTEMPT = Argument("--attempt", help="the rollout attempt that asks; others need none")
DEADLINE = Argument("--deadline", type=int, required=True, help="seconds until the machine goes back by itself")

COMMANDS = (
    Command(
        "stage",
        "make a release ready beside the live one; its description is JSON on standard input",
        (RELEASE,),
        lambda options: stage(options.release, json.loads(unguarded(sys.stdin.read()))),
    ),
    Command(
        "check-space",
        "check that a tar of so many bytes fits",
        (Argument("bytes", type=int),),
        lambda options: check_space(options.bytes),
        old_name="room",
    ),
    Command(
        "prepare",
        "make sure that a staged release runs and is healthy",
        (RELEASE, ATTEMPT),
        lambda options: prepare(options.release, options.attempt),
    ),
    Command(
        "migrate",
        "run the release command, once for a release",
        (RELEASE, ATTEMPT),
        lambda options: migrate(options.release, options.attempt),
    ),
    Command(
        "switch",
        "give a release the traffic until it is confirmed or the deadline has passed",
        (RELEASE, ATTEMPT, DEADLINE),
        lambda options: switch(options.release, options.attempt, options.deadline),
    ),
    Command(
        "extend",
        "give an unconfirmed release more time",
        (RELEASE, ATTEMPT, DEADLINE),
        lambda options: extend(options.release, options.attempt, options.deadline),
    ),
    Command(
        "confirm",
        "keep the unconfirmed release",
        (RELEASE, ATTEMPT),
        lambda options: confirm(options.release, options.attempt),
    ),
    Command(
        "revert",
        "go back to the confirmed release",
        (
            Argument("--attempt", help="the rollout attempt that asks for it; the timer has none"),
            Argument("--because", default="it was asked for", help="the reason, for `status`"),
        ),
        lambda options: revert(options.attempt, options.because),
    ),
    Command(
        "lease",
        "hold this machine for a rollout attempt and carry out its requests from standard input",
        (ATTEMPT, Argument("--owner", required=True, help="who runs the rollout, for others")),
        lambda options: serve_requests(options.attempt, options.owner, main),
    ),
    Command(
        "expire",
        "stop a staged release that no rollout has switched to",
        (RELEASE,),
        lambda options: expire(options.release),
        old_name="reap",
    ),
    Command(
        "end-draining",
        "end a release that lost the traffic and still keeps requests, streams or WebSockets",
        (RELEASE,),
        lambda options: end_draining(options.release),
    ),
    Command(
        "pre-stop",
        "before the live release stops: wait until the load balancer has noticed",
        (RELEASE,),
        lambda options: pre_stop(options.release),
        old_name="close",
    ),
    Command(
        "drain",
        "take the machine out of its load balancer for good",
        (),
        lambda options: drain(),
        old_name="leave",
    ),
    Command(
        "certificate",
        "get or renew the certificate if that is due, and show what it is like",
        (Argument("--renew", action="store_true", help="renew it in any case, with a new key"), ASKING_ATTEMPT),
        lambda options: certificate(renew=options.renew),
    ),
    Command("certificate-run", "what the unit runs for `certificate`", (), lambda options: certificate_run()),
    Command(
        "certificate-save",
        "print what another machine needs to go on with this certificate; secret",
        (ASKING_ATTEMPT,),
        lambda options: save_certificate(),
    ),
    Command(
        "certificate-restore",
        "take a certificate that was saved on another machine; it is JSON on standard input",
        (),
        lambda options: restore_certificate(json.load(sys.stdin)),
    ),
    Command("boot", "bring the confirmed release back", (), lambda options: boot()),
    Command("status", "show what is live here", (), lambda options: status()),
    Command("overview", "show what runs here, and what people ask of a machine", (), lambda options: overview()),
    Command(
        "logs",
        "print the last lines of a log as JSON; with --follow for as long as standard input sends signs of life",
        (
            Argument("--source", choices=SOURCES, default="app", help="which log"),
            Argument("--release", type=release_id, help="of one release alone, also one that never went live"),
            Argument("--lines", type=int, default=100, help="how many lines"),
            Argument("--follow", action="store_true", help="go on with the lines that come"),
        ),
        lambda options: show_logs(options.source, options.release, options.lines, follow=options.follow),
    ),
    Command(
        "run",
        "run a one-off command in a release; what to run is JSON on standard input",
        (),
        lambda options: run_one_off(),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = _parser().parse_args(argv)
    host = socket.gethostname()
    try:
        _dispatch(options)
    except HostError as error:
        print(f"{host}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or "/var or /run"
        if error.errno == errno.ENOSPC:
            reason = f"the disk is full ({where}). See what fills it: df -h; df -i"
        elif error.errno == errno.EROFS:
            reason = (
                f"the disk is mounted read-only ({where}). Linux does that after a disk error: journalctl -k shows it."
                " Repair the disk or replace the machine, then run pulumi up again."
            )
        else:
            raise
        print(f"{host}: {reason}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="decant-host", description="Releases of the app on this machine.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        added = [subparsers.add_parser(command.name, help=command.help, description=command.help)]
        if command.old_name:
            added.append(subparsers.add_parser(command.old_name))  # argparse lists no command without help
        for subparser in added:
            for argument in command.arguments:
                subparser.add_argument(argument.name, **argument.options)
            subparser.set_defaults(run=command.run)
    return parser


def _dispatch(options: argparse.Namespace) -> None:
    output = options.run(options)
    if output is not None:
        print(json.dumps(output))
