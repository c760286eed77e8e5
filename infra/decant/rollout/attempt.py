"""Put a staged release live on all machines, or leave the old one everywhere. Runs where `pulumi` runs, over SSH.

    python -m decant.rollout RELEASE < plan.json

One attempt: hold every machine's lease; make sure that the release runs and is healthy everywhere; run the release
command once; switch batch by batch; ask the public URL; confirm everywhere. Whatever fails before the confirms is
taken back at once. If this process dies, each machine's own timer takes it back. Behind a balancer, a machine takes
traffic from its first confirm on: the attempt ends when every machine has answered through the public URL.
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
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from types import FrameType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from decant.errors import MachineError, NotInRotationError, RolloutError, UnreachableError, UnsettledError
from decant.host import PROGRAM
from decant.session import Access, Session

T = TypeVar("T")

TRIAL = 30  # seconds that a switched release may wait for its confirm, and 5 more for each machine
TRIAL_PER_MACHINE = 5
REARM_AFTER = 5.0  # seconds of a trial after which it is extended while other machines have their turn
URL_PATIENCE = 15.0  # seconds until the public URL must show the new release; well within the trial
URL_LEADS_HERE = 3.0  # seconds that a balancer's URL may take to show that it leads to a machine of ours at all
BALANCER_PATIENCE = 300.0  # seconds: a new balancer's name may take minutes to be known, its checks half a minute
LARGEST_ANSWER = 1 << 16  # bytes of an answer that are read
BEAT = 4.0  # seconds between two signs of life to the machines' leases, which lapse after 15
SILENCE = 12.0  # seconds without an answer to them after which a machine is given up


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to roll out where. `batch` is how many machines switch at a time.

    `balancer` is "ours" when the stack makes one, "theirs" when it is the user's own, None when the URL leads to a
    machine. `marks` are what the machines call themselves in answers: one that replaces another has another.
    """

    stack: str
    release: str
    machines: tuple[Access, ...]
    url: str
    batch: int
    balancer: str | None = None
    marks: frozenset[str] = frozenset()

    @classmethod
    def read(cls, release: str, data: dict[str, Any]) -> Plan:
        """From the JSON that the `rollout` step gets on standard input."""
        machines = tuple(Access.from_dict(m) for m in data["machines"])
        words = {"serial": 1, "parallel": len(machines)}
        how = str(data["rollout"])
        batch = words[how] if how in words else int(how)
        return cls(
            stack=data["stack"],
            release=release,
            machines=machines,
            url=data["url"],
            batch=batch,
            balancer=data["balancer"],
            marks=frozenset(m["mark"] for m in data["machines"]),
        )

    @property
    def deadline(self) -> int:
        """Seconds after which an unconfirmed machine goes back by itself."""
        return TRIAL + TRIAL_PER_MACHINE * len(self.machines)


def say(text: str) -> None:
    """Progress, for people; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------ one machine


class Target:
    """A machine in an attempt: its connection, and the process there that holds its lease and does its verbs."""

    def __init__(self, access: Access, attempt: str, owner: str) -> None:
        """Log in and start that process. Raises UnreachableError, MachineError."""
        self.access = access
        self.attempt = attempt
        self.armed: float | None = None
        """When its timer was last set, once it was told to switch."""
        self.gone = threading.Event()
        self._why = ""  # it can be reached no more
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._sending = threading.Lock()
        sudo = [] if access.user == "root" else ["sudo", "-n"]
        words = [*sudo, PROGRAM, "lease", "--attempt", attempt, "--owner", owner]
        self.session = Session(access)
        try:
            self.channel = self.session.open(shlex.join(words))
        except BaseException:
            self.session.close()
            raise

    def hold(self) -> None:
        """Take the machine's lease and keep it while this process lives. Raises RolloutError, UnreachableError."""
        self.channel.settimeout(30)
        try:
            with contextlib.suppress(OSError):  # it has ended, and says why
                self._send("")
            answer = self.channel.recv(64).decode(errors="replace")
        except TimeoutError:
            raise UnreachableError(f"{self.access}: no answer to the request for its lease") from None
        if answer.strip() != "held":
            refused = self.channel.makefile_stderr("rb").read().decode(errors="replace").strip()
            raise RolloutError(refused or f"{self.access} gave no lease and no reason")
        threading.Thread(target=self._listen, daemon=True).start()

    def _send(self, line: str) -> None:
        with self._sending:
            self.channel.sendall(line.encode() + b"\n")

    def _listen(self) -> None:
        """Answers, and signs of life both ways: whatever waits for a machine that gives none fails, and waits no more.

        An answer is a line of JSON, a sign of life any other.
        """
        try:
            self._why = self._hear()
        except (OSError, EOFError, ValueError, LookupError) as error:
            self._why = f"the connection broke ({error}). Run pulumi up again."
        if not self.gone.is_set():
            self.session.close()
        for answer in list(self._answers.values()):
            answer.set_exception(ConnectionError())

    def _hear(self) -> str:
        """Until nothing more comes, and why that is."""
        heard, beaten, unread = time.monotonic(), 0.0, b""
        while (now := time.monotonic()) < heard + SILENCE:
            if now >= beaten + BEAT:
                self._send("")
                beaten = now
            self.channel.settimeout(max(0.001, beaten + BEAT - now))
            try:
                data = self.channel.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                said = self.channel.recv_stderr(1 << 12).decode() if self.channel.recv_stderr_ready() else ""
                return said.strip() or "the connection closed. Run pulumi up again."
            heard = time.monotonic()
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                if line.startswith(b"{"):
                    answer = json.loads(line)
                    self._answers.pop(answer["order"]).set_result(answer)
        return "no sign of life any more. Run pulumi up again."

    def call(self, verb: str, *words: str, timeout: float = 60.0) -> dict[str, Any]:
        """A verb of the machine's own program. Raises RolloutError with its reason, UnreachableError."""
        number, answer = next(self._numbers), Future[dict[str, Any]]()
        self._answers[number] = answer
        try:
            self._send(json.dumps({"order": number, "words": [verb, *words, "--attempt", self.attempt]}))
            done = answer.result(timeout)
        except OSError as error:
            late = f"no answer within {timeout:.0f} s. Run pulumi up again."
            why = (
                late if isinstance(error, TimeoutError) else self._why or "the connection closed. Run pulumi up again."
            )
            raise UnreachableError(f"{self.access}, during {verb}: {why}") from None
        if done["status"] != 0:
            raise RolloutError(done["stderr"].strip() or f"{self.access}: {verb} failed without a word")
        result: dict[str, Any] = json.loads(done["stdout"])
        return result

    def close(self) -> None:
        """Give the lease back and hang up."""
        self.gone.set()
        with contextlib.suppress(OSError, EOFError):
            self.channel.shutdown_write()
            self.channel.status_event.wait(5)  # a machine that fell silent is not waited for
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
    machine: str
    why: str
    at: float
    seconds: float


class _OneSite(urllib.request.HTTPRedirectHandler):
    """Follows a redirect within a site. One that leads elsewhere is the site's answer: nobody else is asked."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            return None
        fp.close()  # its text is read to the end otherwise, however slowly it comes
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_OneSite)


def look(url: str, timeout: float = 5.0) -> Seen:
    """Ask a URL once, on a new connection, from where `pulumi` runs."""
    began = time.monotonic()

    def seen(status: int, headers: Mapping[str, str] | Message, why: str) -> Seen:
        return Seen(
            status=status,
            release=headers.get("X-Release", ""),
            machine=headers.get("X-Machine", ""),
            why=why,
            at=began,
            seconds=time.monotonic() - began,
        )

    words = {"User-Agent": "decant", "X-Decant-Probe": "1"}  # asks nginx for X-Machine
    request = urllib.request.Request(url, headers=words)  # noqa: S310 - settings.py lets http(s) only in
    try:
        with _OPENER.open(request, timeout=timeout) as reply:
            whole = min(int(reply.headers.get("Content-Length", 0)), LARGEST_ANSWER)
            read = 0
            while read < LARGEST_ANSWER and (piece := reply.read1(LARGEST_ANSWER)):
                read += len(piece)
                # The time-out above is for each piece; an answer that trickles would hold all machines for ever.
                if (not whole or read < whole) and time.monotonic() - began > timeout:
                    return seen(0, {}, f"no whole answer within {timeout:.0f} s")
            if read < whole:
                return seen(0, {}, "an answer that was cut short")
            return seen(reply.status, reply.headers, f"status {reply.status}")
    except urllib.error.HTTPError as error:
        leads = error.headers.get("Location")  # to another site: see _OneSite
        return seen(error.code, error.headers, f"status {error.code}" + (f" to {leads[:200]!r}" if leads else ""))
    except urllib.error.URLError as error:
        return seen(0, {}, str(error.reason))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return seen(0, {}, str(error) or type(error).__name__)


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


def leads_here(url: str, releases: Set[str], patience: float) -> bool:
    """Does the URL lead to one of these releases already? A balancer that is new, or has nobody to ask, does not."""
    deadline = time.monotonic() + patience
    while True:
        seen = look(url)
        if seen.status == 200 and seen.release in releases:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def reach_everyone(url: str, release: str, machines: Set[str], patience: float) -> None:
    """Until each machine has answered through the URL with the release. Raises NotInRotationError with the others."""
    deadline = time.monotonic() + patience
    missing, asked, told = set(machines), 0, 0.0
    while missing:
        seen = look(url)
        asked += 1
        if seen.status == 200 and seen.release == release:
            missing.discard(seen.machine)
            answer = ""
        else:
            other = f" from release {seen.release}" if seen.release else ""
            answer = f"; {url} gave {seen.why}{other}"
        if time.monotonic() > deadline:
            raise NotInRotationError(
                f"within {patience:.0f} s the balancer sent no request to {', '.join(sorted(missing))}{answer}.\n"
                "  Look at its health checks in the cloud's console; they must get 200 from these machines."
            )
        # One after the other where all take part; patiently while checks have still to pass.
        if asked > 4 * len(machines):
            if time.monotonic() - told > 15:
                say(f"waiting until the balancer sends requests to {', '.join(sorted(missing))}{answer}")
                told = time.monotonic()
            time.sleep(0.25)


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
        self.confirmed = False

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
        before = {f["persisted"] for f in facts} - {None}
        self._tell(facts)
        url = plan.url + facts[0]["health"]
        everyone = list(zip(self.targets, facts, strict=True))
        behind = [t for t, f in everyone if not f["current"] == f["persisted"] == plan.release]
        # A machine's own URL must always answer; a balancer's can while it sends requests to one of ours.
        if plan.balancer:
            asking = any(f["open"] for f in facts) and leads_here(url, before, URL_LEADS_HERE)
        else:
            asking = True
        prober = Prober(url=url)
        with prober.running() if before and asking else contextlib.nullcontext():
            if behind:
                self._migrate(everyone)
                self._switch(behind, url if asking else None)
                self._confirm(self.targets)
            else:
                self._confirm(self.targets)  # the last one may have been cut short: the old release runs on, say
                if not plan.balancer:
                    with self.step("ask the public URL"):
                        verify(url, plan.release, URL_PATIENCE)
        self.confirmed = True
        if plan.balancer:
            with self.step("wait for the balancer"):
                self._reach(url)
        old = min(before, default=None)
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
            return Target(access, self.id, self.owner)

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
            target.hold()

    def _tell(self, facts: Sequence[Mapping[str, Any]]) -> None:
        """What an attempt that was cut short has left, so that nobody wonders."""
        names = [t.access.name for t in self.targets]
        for name, fact in zip(names, facts, strict=True):
            if fact["current"] not in (fact["persisted"], None):
                say(f"{name}: an interrupted attempt left {fact['current']} on trial; this one settles it")
        served = {name: f["persisted"] for name, f in zip(names, facts, strict=True) if f["persisted"]}
        if len(set(served.values())) > 1:
            each = ", ".join(f"{name} {release}" for name, release in served.items())
            say(f"an attempt was cut short while it confirmed, so the machines differ ({each}); this one settles it")

    def _migrate(self, everyone: Sequence[tuple[Target, Mapping[str, Any]]]) -> None:
        """The release command, on one machine; never again once a machine of this stack has confirmed the release."""
        if not any(f["release_command"] for _, f in everyone):
            return
        knows = [t for t, f in everyone if f["confirmed"]]
        target = knows[0] if knows else min(self.targets, key=lambda t: t.access.name)
        with self.step("release command"):
            migrated = target.call("migrate", self.plan.release, timeout=3700)
        if migrated.get("skipped") and any(f["persisted"] not in (None, self.plan.release) for _, f in everyone):
            say("going back: the release command is not run, so the data keeps its newer form")

    def _switch(self, behind: Sequence[Target], url: str | None) -> None:
        """The release on trial on these machines, batch by batch; all or none. `url` None cannot be asked yet."""
        try:
            with self.step("switch"):
                for at in range(0, len(behind), self.plan.batch):
                    self._extend()
                    everywhere(behind[at : at + self.plan.batch], self._switch_one)
            if url:
                with self.step("ask the public URL"):
                    self._extend()
                    verify(url, self.plan.release, URL_PATIENCE)
            self._extend()
        except BaseException as error:
            self._go_back(error)
            raise

    def _switch_one(self, target: Target) -> None:
        target.armed = time.monotonic()  # even a switch that fails has touched the machine
        target.call("switch", self.plan.release, "--deadline", str(self.plan.deadline))

    def _extend(self) -> None:
        """More time for the machines that have waited for others: none may go back while this process lives."""
        waiting = [t for t in self.targets if t.armed is not None and time.monotonic() - t.armed > REARM_AFTER]

        def extend(target: Target) -> None:
            target.armed = time.monotonic()
            target.call("extend", self.plan.release, "--deadline", str(self.plan.deadline))

        everywhere(waiting, extend)

    def _confirm(self, targets: Sequence[Target]) -> None:
        """Keep it, on all at once: the one window in which a death of this process can leave machines that differ."""
        try:
            with self.step("confirm"):
                everywhere(targets, lambda t: t.call("confirm", self.plan.release))
        except (RolloutError, KeyboardInterrupt) as error:
            raise UnsettledError(str(error) or "interrupted") from None

    def _reach(self, url: str) -> None:
        """Visitors get there: to every machine behind a balancer of ours; what another does is not ours to say."""
        if self.plan.balancer == "ours":
            reach_everyone(url, self.plan.release, self.plan.marks, BALANCER_PATIENCE)
            return
        try:
            verify(url, self.plan.release, BALANCER_PATIENCE)
        except RolloutError as error:
            raise NotInRotationError(str(error)) from None

    def _go_back(self, error: BaseException) -> None:
        touched = [t for t in self.targets if t.armed is not None]
        say(f"going back on {', '.join(t.access.name for t in touched)}: {type(error).__name__}")
        try:
            everywhere(touched, lambda t: t.call("revert", "--because", "the attempt failed", timeout=60))
        except RolloutError as failed:
            say(f"{failed}\nWhere this failed, the machine goes back by itself within {self.plan.deadline} s.")


def told(receipt: Mapping[str, Any]) -> str:
    """A receipt in one line."""
    seconds = f"{receipt['seconds']['all']:.1f} s"
    if "p99_ms" not in receipt:
        return f"{receipt['to']} is live after {seconds}"
    return (
        f"{receipt['from']} -> {receipt['to']} in {seconds}: {receipt['requests']} requests asked meanwhile,"
        f" {receipt['failed']} failed, longest gap {receipt['longest_gap_ms']} ms, p50 {receipt['p50_ms']} ms,"
        f" p99 {receipt['p99_ms']} ms"
    )


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The `rollout` step."""
    parser = argparse.ArgumentParser(
        prog="python -m decant.rollout",
        description="Put a staged release live on all machines of a plan, or leave the old one everywhere.",
        epilog="The plan is JSON on standard input: stack, url, balancer (ours, theirs or null), rollout (serial,"
        " parallel or a batch size) and machines (name, mark, address, port, user, host_key, private_key of each)."
        " The result is one line of JSON.",
    )
    parser.add_argument("release", help="release id: 12 hexadecimal digits")
    words = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT also where a shell has started us in the background
        signal.signal(number, _interrupted)
    attempt = Attempt(Plan.read(words.release, json.load(sys.stdin)))
    try:
        result = attempt.run()
    except NotInRotationError as error:
        say(
            f"release {words.release} is live and confirmed on all machines, but visitors do not reach all: {error}\n"
            "Then run pulumi up again: it asks once more."
        )
        return 1
    except UnsettledError as error:
        say(
            f"release {words.release} is live, but not confirmed everywhere: {error}\n"
            "A machine without its confirm goes back to the old release by itself. Run pulumi up again to settle it."
        )
        return 1
    except (RolloutError, MachineError) as error:
        say(f"release {words.release} is not live: {error}\nWhat was served before is served still.")
        return 1
    except KeyboardInterrupt:
        served = "it is live" if attempt.confirmed else "what was served before is served still"
        say(f"release {words.release}: interrupted; {served}")
        return 130
    say(told(result["receipt"]))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
