"""The command line of the machine's program."""

from __future__ import annotations

import argparse
import errno
import json
import re
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from decant_host import verbs as do
from decant_host.files import HostError
from decant_host.orders import take_orders
from decant_host.releases import room


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb."""
    parser = argparse.ArgumentParser(prog="decant-host", description="Releases of the app on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, *, release: bool = True, attempt: bool = False) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        if release:
            sub.add_argument("release", help="release id")
        if attempt:
            sub.add_argument("--attempt", required=True, help="the rollout that holds this machine's lease")
        return sub

    verb("stage", "make a release ready beside the live one; its description is JSON on standard input")
    verb("room", "is there room for a tar?", release=False).add_argument("bytes", type=int)
    verb("ensure", "start a staged release again where it was stopped", attempt=True)
    verb("migrate", "run the release command, once for a release", attempt=True)
    verb("switch", "give a release the traffic, on trial", attempt=True).add_argument(
        "--deadline", type=int, required=True
    )
    verb("extend", "give a release on trial more time", attempt=True).add_argument(
        "--deadline", type=int, required=True
    )
    verb("confirm", "keep the release that is on trial", attempt=True)
    back = verb("revert", "go back to the confirmed release", release=False)
    back.add_argument("--attempt", help="the rollout that asks; left out by the timer")
    back.add_argument("--because", default="it was asked for")
    hold = verb(
        "lease",
        "hold this machine while lines come on standard input, and do what they order",
        release=False,
        attempt=True,
    )
    hold.add_argument("--owner", required=True)
    verb("reap", "stop a staged release that nobody switched to")
    verb("close", "before the live release stops: wait until the balancer has noticed")
    verb("leave", "take the machine out of its balancer for good", release=False)
    verb("boot", "bring the confirmed release back", release=False)
    verb("status", "what is live here", release=False)
    words = parser.parse_args(arguments)
    if getattr(words, "release", None) is not None and not re.fullmatch(r"[0-9a-f]{12}", words.release):
        parser.error(f"{words.release!r} is not a release id (12 hexadecimal digits)")
    try:
        if words.verb == "lease":
            take_orders(words.attempt, words.owner, main)
            return 0
        print(json.dumps(_call(words)))
    except HostError as error:
        print(f"{socket.gethostname()}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = error.filename or "/var or /run"
        print(f"{socket.gethostname()}: the disk is full ({where}). See what fills it: df -h; df -i", file=sys.stderr)
        return 1
    return 0


def _call(words: argparse.Namespace) -> dict[str, Any]:
    calls: dict[str, Callable[[], dict[str, Any]]] = {
        "stage": lambda: do.stage(words.release, json.load(sys.stdin)),
        "room": lambda: room(words.bytes),
        "ensure": lambda: do.ensure(words.release, words.attempt),
        "migrate": lambda: do.migrate(words.release, words.attempt),
        "switch": lambda: do.switch(words.release, words.attempt, words.deadline),
        "extend": lambda: do.extend(words.release, words.attempt, words.deadline),
        "confirm": lambda: do.confirm(words.release, words.attempt),
        "revert": lambda: do.revert(words.attempt, words.because),
        "reap": lambda: do.reap(words.release),
        "close": lambda: do.close(words.release),
        "leave": do.leave,
        "boot": do.boot,
        "status": do.status,
    }
    return calls[words.verb]()


if __name__ == "__main__":
    sys.exit(main())
