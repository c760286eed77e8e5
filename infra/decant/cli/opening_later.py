"""SSH for a run whose stack is new: the rule is made while `make up` makes what it is attached to.

Without it, the first `up` from a runner would wait in vain for its machines.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from decant.cli.pulumi_cli import PulumiCli
from decant.cli.runner_access import Wish, noted, open_noted
from decant.errors import DecantError

INTERVAL = 5.0
"""Seconds between two looks at the state, which Pulumi writes after every resource."""


@contextmanager
def opened_when_possible(cli: PulumiCli, stack: str, environ: Mapping[str, str]) -> Iterator[None]:
    """While this lasts, do what `make ssh-open` could not do before the stack had machines."""
    wish = noted(stack, environ)
    if wish is None:
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(cli, stack, wish, over))
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(cli: PulumiCli, stack: str, wish: Wish, over: threading.Event) -> None:
    told = ""
    while not over.wait(INTERVAL):
        try:
            if open_noted(cli, stack, wish):
                return
        except DecantError as error:  # perhaps for this moment: Pulumi writes the state at the same time
            if str(error) != told:
                told = str(error)
                print(told, file=sys.stderr, flush=True)
