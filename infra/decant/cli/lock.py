"""The lock of a stack: who holds it and since when, and `make unlock`, which lets it go where that process is over.

Pulumi keeps a lock for each command that changes a stack whose state lives in a folder or a bucket. A command that is
killed leaves its lock behind, and every later one is refused: https://github.com/pulumi/pulumi/issues/9148
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from decant.ci.run_state import run_ended, seconds_left
from decant.ci.runs import current_run, run_of
from decant.cli.pending import settle
from decant.cli.pulumi_cli import PulumiCli
from decant.clouds.base import when_used
from decant.errors import DecantError, LockedError, StackError

boto3 = when_used("boto3")

_LINE = re.compile(
    r"^\s*(?P<url>\S.*): created by (?P<user>.*)@(?P<host>\S*) \(pid (?P<pid>\d+)\) at (?P<since>\S+)\s*$", re.MULTILINE
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
EXISTS = "already exists"


@dataclass(frozen=True, kw_only=True)
class Lock:
    """One lock, as Pulumi tells of it. `url` is that of its file."""

    url: str
    user: str
    host: str
    pid: int
    since: datetime

    def __str__(self) -> str:
        run = run_of(self.host)
        holder = str(run) if run else f"{self.user}@{self.host} (process {self.pid})"
        return f"{holder}, since {self.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

    @property
    def is_in_a_folder(self) -> bool:
        """Whether it lies on a disk of this computer."""
        return urlsplit(self.url).scheme == "file"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether what made a lock is over. `why` says how that is known, or why it is not."""

    lock: Lock
    over: bool
    why: str
    wait: float = 0.0
    """Seconds after which it is over for sure, where the forge says that it has just ended."""

    def __str__(self) -> str:
        return f"{self.lock}: {self.why}"


def read_locks(text: str) -> list[Lock]:
    """The locks that Pulumi's error names."""
    return [
        Lock(
            url=found["url"],
            user=found["user"],
            host=found["host"],
            pid=int(found["pid"]),
            since=datetime.fromisoformat(found["since"]),
        )
        for found in _LINE.finditer(_COLOUR.sub("", text))
    ]


def judge(lock: Lock) -> Verdict:
    """Whether the process that made a lock is over, as far as that can be proven."""
    run = run_of(lock.host)
    if run and lock.host != socket.gethostname():
        try:
            ended = run_ended(run)
        except DecantError as error:
            return Verdict(lock=lock, over=False, why=f"whether it is over could not be asked: {error}")
        return _verdict_of_run(lock, ended)
    if lock.host == socket.gethostname() and (run or lock.is_in_a_folder):
        over = not _is_running(lock.pid)
        why = "that process does not run any more" if over else "that process runs"
        return Verdict(lock=lock, over=over, why=why)
    return Verdict(lock=lock, over=False, why="nothing here can tell whether it is over")


def _verdict_of_run(lock: Lock, ended: datetime | None) -> Verdict:
    if ended is None:
        return Verdict(lock=lock, over=False, why="it is not over")
    left = seconds_left(ended)
    if not left:
        return Verdict(lock=lock, over=True, why="it is over")
    why = f"it ended at {ended:%H:%M:%S} UTC, and its Pulumi may run for two minutes after that"
    return Verdict(lock=lock, over=False, why=why, wait=left)


def _is_running(pid: int) -> bool:
    """Whether a process of this computer with this number is a Pulumi."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return True  # this system does not tell
    # "4711 (pulumi) S ...": Z is a process that has ended and that its parent has not asked about.
    name, state = told[told.index("(") + 1 : told.rindex(")")], told[told.rindex(")") + 2]
    return name == "pulumi" and state != "Z"


def let_go_where_over(
    cli: PulumiCli,
    stack: str,
    error: LockedError,
    environ: Mapping[str, str],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """After a command was refused: let the stack go, if this is CI and all of its locks are provably left behind.

    Where that will be so in a moment, it is waited for.

    Raises:
        StackError: the stack is held; the message says by whom, and what to do.
    """
    locks = read_locks(str(error))
    verdicts = [judge(lock) for lock in locks]
    if not verdicts:
        raise error
    in_ci = current_run(environ) is not None
    wait = max(verdict.wait for verdict in verdicts)
    if in_ci and wait and all(verdict.over or verdict.wait for verdict in verdicts):
        held = "; ".join(str(verdict) for verdict in verdicts)
        print(f"Stack {stack} is held by {held}. Waiting {wait:.0f} s for its end ...", flush=True)
        sleep(wait + 1)
        verdicts = [judge(lock) for lock in locks]
    if not all(verdict.over for verdict in verdicts) or not in_ci:
        raise StackError(_held(stack, verdicts))
    _let_go(cli, stack, verdicts)
    settle(cli, stack)


def unlock(cli: PulumiCli, stack: str, *, force: bool) -> None:
    """`make unlock`: let the stack go where what holds it is over, or where the user says so, and settle its state.

    Raises:
        StackError: it is not known to be over; the message says who holds the stack.
    """
    # Renaming a stack to its own name takes the lock, and then fails without changing anything.
    tried = cli.capture("stack", "rename", stack, "--stack", stack)
    verdicts = [judge(lock) for lock in read_locks(tried.stderr)]
    if not verdicts:
        if EXISTS not in tried.stderr:
            raise StackError(f"Who holds stack {stack} cannot be read: {tried.stderr.strip()}")
        print(f"Nobody holds stack {stack}.", flush=True)
    elif force or all(verdict.over for verdict in verdicts):
        _let_go(cli, stack, verdicts)
    else:
        raise StackError(_held(stack, verdicts))
    settle(cli, stack)


def _held(stack: str, verdicts: Sequence[Verdict]) -> str:
    lines = "\n".join(f"  {verdict}" for verdict in verdicts)
    if all(verdict.over for verdict in verdicts):
        return f"Stack {stack} is held by what is over:\n{lines}\n  To let it go: make unlock STACK={stack}"
    return (
        f"Stack {stack} is in use. It is held by:\n{lines}\n"
        "  Wait until that has ended, then run the same command again.\n"
        f"  Only if you know that it is over: make unlock STACK={stack} FORCE=yes"
    )


def _let_go(cli: PulumiCli, stack: str, verdicts: Sequence[Verdict]) -> None:
    """Delete these locks, and no other that somebody may have made meanwhile, as far as the place of the state allows.

    Raises:
        StackError: a lock cannot be deleted.
    """
    for verdict in verdicts:
        print(f"Stack {stack} was held by {verdict}. It is let go.", flush=True)
    if all(_is_deletable(verdict.lock) for verdict in verdicts):
        for verdict in verdicts:
            _delete(verdict.lock)
        return
    done = cli.capture("cancel", "--yes", "--stack", stack)
    if done.returncode != 0:
        raise StackError(f"Stack {stack} cannot be let go: {done.stderr.strip()}")


def _is_deletable(lock: Lock) -> bool:
    return urlsplit(lock.url).scheme in ("file", "s3")


def _delete(lock: Lock) -> None:
    """Delete the file of a lock. Raises StackError."""
    parts = urlsplit(lock.url)
    try:
        if parts.scheme == "file":
            file = Path(unquote(parts.path))
            for one in (file, file.with_name(f"{file.name}.attrs")):  # what Pulumi keeps beside every file
                one.unlink(missing_ok=True)
            return
        options = {name: values[0] for name, values in parse_qs(parts.query).items()}
        endpoint = options.get("endpoint")
        if endpoint and "://" not in endpoint:
            endpoint = f"https://{endpoint}"
        session = boto3.Session(region_name=options.get("region"), profile_name=options.get("profile"))
        session.client("s3", endpoint_url=endpoint).delete_object(
            Bucket=parts.netloc, Key=unquote(parts.path).lstrip("/")
        )
    except Exception as error:  # boto3 has many; each of them means the same here
        raise StackError(f"The lock {lock.url} cannot be deleted: {error}") from None
