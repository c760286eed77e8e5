"""`make ssh-open` and `make ssh-close`: SSH to a stack's machines for one run, from an address that no setting allows.

The rule is no part of the stack's state, so nothing drifts. It names the run and the time until which it is wanted:
whatever runs next takes away those past their time, and those of runs that are over. The machines' host keys stay
pinned.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import json
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from decant import clouds
from decant.ci.run_state import run_is_over
from decant.ci.runs import current_run, run_named
from decant.cli.account import Account, open_account
from decant.cli.own_address import own_address
from decant.cli.pulumi_cli import PulumiCli
from decant.clouds.runner_access import Opening
from decant.errors import CloudApiError, DecantError, StackError
from decant.settings.project import PROJECT

MINUTES = 60
"""How long a rule is wanted, where MINUTES does not say otherwise."""

MOST_MINUTES = 360  # the longest that a job of GitHub Actions runs: https://docs.github.com/en/actions/reference/limits
PATIENCE = 60.0
"""Seconds until a new rule holds at the latest."""

INTERVAL = 2.0  # sshd penalises sources that connect more often without logging in
PORT = 22


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a run wants: its name, the network that is let in, and until when."""

    run: str
    network: str
    until: datetime


def ssh_open(cli: PulumiCli, stack: str, environ: Mapping[str, str]) -> None:
    """Let this computer in. Where the stack has no machines yet, `make up` does it as soon as it can be done.

    Raises:
        StackError: the address is not known or not public, the cloud refuses, or no machine answers afterwards.
    """
    account = open_account(cli, stack)
    if account is None:
        print(f"Stack {stack} is on hosts of your own: Decant opens nothing there.")
        return
    _reap(account, environ)
    wish = _wish(environ)
    by = _allowed_by(cli.settings(stack), wish.network)
    if by:
        print(f"{wish.network} may use SSH already: decant:adminCidrs has {by}.")
        return
    if not clouds.can_open(account.cloud, account.stack.resources):
        _note(stack).parent.mkdir(parents=True, exist_ok=True)
        _note(stack).write_text(json.dumps({"run": wish.run, "network": wish.network, "until": wish.until.isoformat()}))
        print(f"Stack {stack} has no machines yet. `make up` opens SSH to {wish.network} as soon as it can.")
        return
    _open(account, wish)
    _wait_for_ssh(cli, stack, wish.network)


def ssh_close(cli: PulumiCli, stack: str, environ: Mapping[str, str]) -> None:
    """Take away this run's rule, and all that nobody wants any more. Raises StackError."""
    _note(stack).unlink(missing_ok=True)
    account = open_account(cli, stack)
    if account is None:
        print(f"Stack {stack} is on hosts of your own: Decant has opened nothing there.")
        return
    _reap(account, environ, own=run_name(environ))


def close_all(account: Account) -> None:
    """Take away all such rules of a stack, at its end: on some clouds they outlive what they are attached to."""
    for opening in clouds.openings(*account):
        clouds.close(account.cloud, account.stack, opening)


def run_name(environ: Mapping[str, str]) -> str:
    """The name of this run, of letters, digits and dashes. Outside of CI, a person on this computer is one run."""
    run = current_run(environ)
    return run.name if run else re.sub(r"[^a-z0-9]+", "-", f"{getpass.getuser()}-{socket.gethostname()}".lower())


def noted(stack: str, environ: Mapping[str, str]) -> Wish | None:
    """What this run's `make ssh-open` could not do yet."""
    try:
        found = json.loads(_note(stack).read_text())
        wish = Wish(run=found["run"], network=found["network"], until=datetime.fromisoformat(found["until"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return wish if wish.run == run_name(environ) and wish.until > datetime.now(UTC) else None


def open_noted(cli: PulumiCli, stack: str, wish: Wish) -> bool:
    """Let a run in whose stack had no machines; False where it still has nothing to attach a rule to.

    Raises:
        StackError: the state cannot be read, or the cloud refuses.
    """
    account = open_account(cli, stack)
    if account is None or not clouds.can_open(account.cloud, account.stack.resources):
        return False
    _open(account, wish)
    _note(stack).unlink(missing_ok=True)
    return True


def _note(stack: str) -> Path:
    return PROJECT / ".decant" / f"ssh-open-{stack.replace('/', '-')}.json"


def _wish(environ: Mapping[str, str]) -> Wish:
    text = environ.get("MINUTES") or str(MINUTES)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_MINUTES:
        raise StackError(
            f"MINUTES is {text!r}: it must be a number from 1 to {MOST_MINUTES}, such as: make ssh-open MINUTES=90"
        )
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=int(text))
    return Wish(run=run_name(environ), network=f"{own_address(environ)}/32", until=until)


def _allowed_by(settings: Mapping[str, Any], network: str) -> str:
    """The entry of `decant:adminCidrs` that lets the network in already; empty where none does.

    A value that is not valid lets nobody in: `make up` says what is wrong with it.
    """
    listed = settings.get("decant:adminCidrs") or "[]"
    wanted = ipaddress.IPv4Network(network)
    with contextlib.suppress(ValueError):
        for entry in json.loads(listed) if isinstance(listed, str) else listed:
            known = ipaddress.ip_network(str(entry), strict=False)
            if isinstance(known, ipaddress.IPv4Network) and wanted.subnet_of(known):
                return str(entry)
    return ""


def _open(account: Account, wish: Wish) -> None:
    title, stack = clouds.specs()[account.cloud].title, account.stack.stack
    try:
        made = clouds.open_to(account.cloud, account.stack, run=wish.run, network=wish.network, until=wish.until)
    except CloudApiError as error:
        raise StackError(
            f"{title} does not open SSH to the machines of stack {stack}: {error}\n"
            f"  What the credentials may do: make check-account STACK={stack}"
        ) from None
    if not made:
        print(f"{wish.network} may use SSH already, by a rule that somebody else has made.")
        return
    print(
        f"SSH to the machines of stack {stack} is open to {wish.network} for {wish.run}"
        f" until {wish.until:%Y-%m-%d %H:%M} UTC.",
        flush=True,
    )


def _reap(account: Account, environ: Mapping[str, str], own: str = "") -> None:
    """Delete the rules that nobody wants any more, and those of the run `own`. Raises StackError."""
    title, stack = clouds.specs()[account.cloud].title, account.stack.stack
    try:
        for opening in clouds.openings(*account):
            why = "this run has closed it" if opening.run == own else _why_over(opening, environ)
            if why:
                clouds.close(account.cloud, account.stack, opening)
                print(f"SSH from {_shown(opening)} to stack {stack} is closed: {why}.", flush=True)
    except CloudApiError as error:
        raise StackError(
            f"{title} could not close SSH to the machines of stack {stack}: {error}\n"
            f"  To try again: make ssh-close STACK={stack}"
        ) from None


def _why_over(opening: Opening, environ: Mapping[str, str]) -> str:
    """Why a rule is not wanted any more; empty where it is. A run that cannot be asked about keeps its time."""
    if opening.is_over(datetime.now(UTC)):
        return "its time was over"
    run = run_named(opening.run)
    if run is None or opening.run == run_name(environ):
        return ""
    try:
        return f"{run} is over" if run_is_over(run, environ) else ""
    except DecantError:
        return ""


def _shown(opening: Opening) -> str:
    return f"{opening.network} ({opening.run})"


def _wait_for_ssh(cli: PulumiCli, stack: str, network: str) -> None:
    """Wait until the machines answer at their SSH port. Raises StackError."""
    deadline = time.monotonic() + PATIENCE
    waiting = _addresses(cli, stack)
    while waiting:
        waiting = [address for address in waiting if not _answers(address)]
        if waiting and time.monotonic() > deadline:
            raise StackError(
                f"SSH is open to {network}, but {', '.join(waiting)} did not answer at port {PORT} within"
                f" {PATIENCE:.0f} s.\n  Do your connections come from another address, such as that of a VPN? Then:"
                f" make ssh-open STACK={stack} ADDRESS=..."
            )
        if waiting:
            time.sleep(INTERVAL)


def _addresses(cli: PulumiCli, stack: str) -> Sequence[str]:
    return [str(machine["address"]) for machine in cli.outputs(stack).get("machines") or ()]


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, PORT), timeout=5):
            return True
    except OSError:
        return False
