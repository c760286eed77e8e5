"""Put a staged release live on all machines, or leave the old one everywhere. Runs where `pulumi` runs, over SSH.

    python -m decant.rollout RELEASE < plan.json

One attempt: hold every machine's lease; make sure that the release runs and is healthy everywhere; run the release
command once; switch batch by batch; ask the public URL; confirm everywhere. Whatever fails before the confirms is
taken back at once. If this process dies, each machine's own timer takes it back.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import http.client
import itertools
import json
import secrets
import shlex
import signal
import socket
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

from decant.host import PROGRAM
from decant.session import Access, MachineError, Session, Unreachable

T = TypeVar("T")

TRIAL = 30  # seconds that a switched release may wait for its confirm, and 5 more for each machine
TRIAL_PER_MACHINE = 5
URL_PATIENCE = 15.0  # seconds until the public URL must show the new release; well within the trial
LARGEST_ANSWER = 1 << 16  # bytes of an answer that are read
BEAT = 4.0  # seconds between two signs of life to the machines' leases, which lapse after 15


class RolloutError(Exception):
    """Why the release is not live; the old one is, wherever there was one."""


class Unsettled(RolloutError):
    """Confirming was cut short: the release is live, but a machine may still go back to the old one by itself."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to roll out where. `batch` is how many machines switch at a time."""

    stack: str
    release: str
    machines: tuple[Access, ...]
    url: str
    batch: int

    @classmethod
    def read(cls, release: str, data: dict[str, Any]) -> Plan:
        """From the JSON that the `rollout` step gets on standard input."""
        machines = tuple(Access.from_dict(m) for m in data["machines"])
        words = {"serial": 1, "parallel": len(machines)}
        how = str(data["rollout"])
        batch = words[how] if how in words else int(how)
        return cls(stack=data["stack"], release=release, machines=machines, url=data["url"], batch=batch)

    @property
    def deadline(self) -> int:
        """Seconds after which an unconfirmed machine goes back by itself."""
        return TRIAL + TRIAL_PER_MACHINE * len(self.machines)


def say(text: str) -> None:
    """Progress, for people; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ one machine


class Target:
    """A machine in an attempt: its connection and its lease."""

    def __init__(self, access: Access, attempt: str) -> None:
        self.access = access
        self.attempt = attempt
        self.session = Session(access)
        self.lease: Any = None
        self.switched = False
        self.gone = threading.Event()

    def hold(self, owner: str) -> None:
        """Take the machine's lease and keep it, as long as this process lives."""
        words = ["lease", "--attempt", self.attempt, "--owner", owner]
        self.lease = self.session.open(self._shell(words))
        self.lease.settimeout(30)
        try:
            answer = self.lease.recv(64).decode(errors="replace")
        except TimeoutError:
            raise Unreachable(f"{self.access}: no answer to the request for its lease") from None
        if answer.strip() != "held":
            refused = self.lease.makefile_stderr("rb").read().decode(errors="replace").strip()
            raise RolloutError(refused or f"{self.access} gave no lease and no reason")
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self.gone.wait(BEAT):
            try:
                self.lease.sendall(b"\n")
            except OSError:
                return

    def call(self, verb: str, *words: str, timeout: float = 60.0) -> dict[str, Any]:
        """A verb of the machine's own program. Raises RolloutError with its reason."""
        answer = self.session.run(self._shell([verb, *words, "--attempt", self.attempt]), timeout=timeout)
        if answer.status != 0:
            raise RolloutError(answer.stderr.strip() or f"{self.access}: {verb} failed without a word")
        result: dict[str, Any] = json.loads(answer.stdout)
        return result

    def _shell(self, words: Sequence[str]) -> str:
        sudo = [] if self.access.user == "root" else ["sudo", "-n"]
        return shlex.join([*sudo, PROGRAM, *words])

    def close(self) -> None:
        """Give the lease back and hang up."""
        self.gone.set()
        if self.lease is not None:
            with contextlib.suppress(OSError, EOFError):
                self.lease.shutdown_write()
                self.lease.status_event.wait(5)  # a machine that fell silent is not waited for
        self.session.close()


def everywhere(targets: Sequence[Target], action: Callable[[Target], T]) -> list[T]:
    """The action on all machines at once. All end before the first error is raised, with every machine's reason."""
    if not targets:
        return []
    with ThreadPoolExecutor(len(targets)) as pool:
        futures = [pool.submit(action, t) for t in targets]
    errors = [f.exception() for f in futures if f.exception() is not None]
    reasons = [str(e) for e in errors if isinstance(e, RolloutError | MachineError)]
    for error in errors:
        if error is not None and not isinstance(error, RolloutError | MachineError):
            raise error
    if reasons:
        raise RolloutError("\n".join(dict.fromkeys(reasons)))
    return [f.result() for f in futures]


# ------------------------------------------------------------------------------------------------ the public URL


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the public URL answered: status 0 means nothing, and `why` says so. `at` is in seconds."""

    status: int
    release: str
    why: str
    at: float
    seconds: float


def look(url: str, timeout: float = 5.0) -> Seen:
    """Ask a URL once, on a new connection, from where `pulumi` runs."""
    began = time.monotonic()

    def seen(status: int, release: str, why: str) -> Seen:
        return Seen(status=status, release=release, why=why, at=began, seconds=time.monotonic() - began)

    request = urllib.request.Request(url, headers={"User-Agent": "decant"})  # noqa: S310 - settings.py lets http(s) only in
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:  # noqa: S310
            whole = min(int(reply.headers.get("Content-Length", 0)), LARGEST_ANSWER)
            if len(reply.read(LARGEST_ANSWER)) < whole:
                return seen(0, "", "an answer that was cut short")
            return seen(reply.status, reply.headers.get("X-Release", ""), f"status {reply.status}")
    except urllib.error.HTTPError as error:
        return seen(error.code, error.headers.get("X-Release", ""), f"status {error.code}")
    except urllib.error.URLError as error:
        return seen(0, "", str(error.reason))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return seen(0, "", str(error) or type(error).__name__)


def verify(url: str, release: str, patience: float) -> Seen:
    """Until the URL answers 200 with the release's id. Raises RolloutError with what it answered instead."""
    deadline = time.monotonic() + patience
    while True:
        seen = look(url)
        if seen.status == 200 and seen.release == release:
            return seen
        if time.monotonic() > deadline:
            other = f" from release {seen.release}" if seen.release else ""
            raise RolloutError(
                f"{url} gave {seen.why}{other} instead of 200 from release {release}.\n"
                "  The machine itself serves it. Is port 80 open to this computer? Does the name lead to the machine?"
            )
        time.sleep(0.1)


@dataclass
class Prober:
    """Asks the public URL all the time, from another thread: the receipt of what visitors saw."""

    url: str
    every: float = 0.1
    seen: list[Seen] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Probe for as long as the block runs."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                self.seen.append(look(self.url))
                stop.wait(self.every)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=10)

    def receipt(self) -> dict[str, Any]:
        """Requests, failures, the longest time without a good answer and the usual ones, in milliseconds."""
        good = [s for s in self.seen if s.status == 200]
        if not good:
            return {"requests": len(self.seen), "failed": len(self.seen)}
        # From the first question to the last answer: an outage at either end counts as well.
        ends = [self.seen[0].at + good[0].seconds, *(s.at + s.seconds for s in good)]
        ends.append(max(ends[-1], self.seen[-1].at))
        gaps = [b - a for a, b in itertools.pairwise(ends)]
        times = sorted(s.seconds for s in good)
        return {
            "requests": len(self.seen),
            "failed": len(self.seen) - len(good),
            "longest_gap_ms": round(1000 * max(gaps, default=0.0)),
            "p50_ms": round(1000 * statistics.median(times), 1),
            "p99_ms": round(1000 * times[min(len(times) - 1, int(0.99 * len(times)))], 1),
        }


# ------------------------------------------------------------------------------------------------ the attempt


class Attempt:
    """One try to put a release live on all machines."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.id = secrets.token_hex(8)
        self.owner = f"{getpass.getuser()}@{socket.gethostname()}"
        self.targets: list[Target] = []
        self.began = time.monotonic()
        self.steps: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times a step and names it while it runs."""
        started = time.monotonic()
        say(f"{name} ...")
        yield
        self.steps[name] = round(time.monotonic() - started, 2)

    def run(self) -> dict[str, Any]:
        """The whole attempt; its result as the stack's outputs need it. Raises RolloutError."""
        try:
            return self._run()
        finally:
            for target in self.targets:
                target.close()

    def _run(self) -> dict[str, Any]:
        plan = self.plan
        with self.step("hold the machines"):
            self._connect()
        with self.step("make sure it is staged"):
            facts = everywhere(self.targets, lambda t: t.call("ensure", plan.release, timeout=420))
        before = {f["persisted"] for f in facts}
        for target, fact in zip(self.targets, facts, strict=True):
            if fact["current"] not in (fact["persisted"], None):
                say(
                    f"{target.access.name}: an interrupted attempt left {fact['current']} on trial; this one settles it"
                )
        url = plan.url + facts[0]["health"]
        prober = Prober(url=url)
        served = any(before - {None})
        live = all(f["current"] == f["persisted"] == plan.release for f in facts)
        with prober.running() if served else contextlib.nullcontext():
            if live:
                with self.step("ask the public URL"):
                    verify(url, plan.release, URL_PATIENCE)
            else:
                self._switch_and_confirm(url)
        old = next(iter(before - {None}), None)
        return {
            "url": plan.url,
            "release": plan.release,
            "machines": [{"name": t.access.name, "address": t.access.address} for t in self.targets],
            "receipt": {
                **prober.receipt(),
                "from": old,
                "to": plan.release,
                "seconds": {**self.steps, "all": round(time.monotonic() - self.began, 2)},
            },
        }

    def _connect(self) -> None:
        def connect(access: Access) -> Target:
            return Target(access, self.id)

        with ThreadPoolExecutor(len(self.plan.machines)) as pool:
            futures = [pool.submit(connect, a) for a in self.plan.machines]
        errors = [str(f.exception()) for f in futures if isinstance(f.exception(), MachineError)]
        self.targets = [f.result() for f in futures if f.exception() is None]
        if errors:
            raise RolloutError("\n".join(errors) + "\nNothing was switched.")
        for future in futures:
            future.result()
        # One after another and always in the same order, so that two attempts cannot each hold half of a fleet.
        for target in sorted(self.targets, key=lambda t: t.access.name):
            target.hold(self.owner)

    def _switch_and_confirm(self, url: str) -> None:
        plan = self.plan
        first = min(self.targets, key=lambda t: t.access.name)
        with self.step("release command"):
            migrated = first.call("migrate", plan.release, timeout=3700)
        if migrated.get("skipped"):
            say("going back: the release command is not run, so the data keeps its newer form")
        try:
            with self.step("switch"):
                for at in range(0, len(self.targets), plan.batch):
                    everywhere(self.targets[at : at + plan.batch], self._switch)
            with self.step("ask the public URL"):
                verify(url, plan.release, URL_PATIENCE)
        except BaseException as error:
            self._go_back(error)
            raise
        try:
            with self.step("confirm"):
                everywhere(self.targets, lambda t: t.call("confirm", plan.release))
        except (RolloutError, KeyboardInterrupt) as error:
            raise Unsettled(str(error) or "interrupted") from None

    def _switch(self, target: Target) -> None:
        target.switched = True  # even a switch that fails has touched the machine
        target.call("switch", self.plan.release, "--deadline", str(self.plan.deadline))

    def _go_back(self, error: BaseException) -> None:
        touched = [t for t in self.targets if t.switched]
        say(f"going back on {', '.join(t.access.name for t in touched)}: {type(error).__name__}")
        try:
            everywhere(touched, lambda t: t.call("revert", "--because", "the attempt failed", timeout=60))
        except RolloutError as failed:
            say(f"{failed}\nWhere this failed, the machine goes back by itself within {self.plan.deadline} s.")


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The `rollout` step."""
    parser = argparse.ArgumentParser(
        prog="python -m decant.rollout",
        description="Put a staged release live on all machines of a plan, or leave the old one everywhere.",
        epilog="The plan is JSON on standard input: stack, url, rollout (serial, parallel or a batch size) and machines"
        " (name, address, port, user, host_key, private_key of each). The result is one line of JSON.",
    )
    parser.add_argument("release", help="release id: 12 hexadecimal digits")
    words = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        result = Attempt(Plan.read(words.release, json.load(sys.stdin))).run()
    except Unsettled as error:
        say(
            f"release {words.release} is live, but not confirmed everywhere: {error}\n"
            "A machine without its confirm goes back to the old release by itself. Run pulumi up again to settle it."
        )
        return 1
    except (RolloutError, MachineError) as error:
        say(f"release {words.release} is not live: {error}\nWhat was served before is served still.")
        return 1
    except KeyboardInterrupt:
        say(f"release {words.release}: interrupted; what was served before is served still")
        return 130
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
