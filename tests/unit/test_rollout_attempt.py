"""The rollout: in which order it does what, and what is left when something fails."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from decant import errors, rollout
from decant.errors import MachineError, RolloutError, UnreachableError
from decant.host import PROGRAM
from decant.rollout import Attempt, Plan, Prober, Seen, Target, everywhere, look, verify
from decant.session import Access
from tests.unit.paper import PRIVATE
from tests.unit.paper_sshd import SHOWN_KEY, Run, Sshd

OLD, NEW = "aaaaaaaaaaaa", "bbbbbbbbbbbb"

# ------------------------------------------------------------------------------------------------ a public URL


@dataclass
class Site:
    """What visitors see: a local web server whose answers say which release gave them."""

    release: str = OLD
    status: int = 200
    how: str = ""  # "silent", "garbage", "cut short", "trickling ...": the ways to answer badly
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            if made.how == "silent":
                return
            if made.how == "garbage":
                self.wfile.write(b"no HTTP at all\r\n\r\n")
                return
            if made.how == "trickling redirect" and self.path != "/there":
                self.send_response(302)
                self.send_header("Location", "/there")
            else:
                self.send_response(made.status)
            if made.release:
                self.send_header("X-Release", made.release)
            if made.how == "trickling chunks":
                self.send_header("Transfer-Encoding", "chunked")
            elif made.how != "trickling to the end":
                self.send_header("Content-Length", "2" if not made.how or self.path == "/there" else "200")
            self.end_headers()
            if made.how.startswith("trickling") and self.path != "/there":
                with contextlib.suppress(OSError):
                    for _ in range(200):
                        self.wfile.write(b"1\r\n.\r\n" if "chunks" in made.how else b".")
                        time.sleep(0.05)
                return
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        made.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join(timeout=10)


def test_look(site: Site) -> None:
    seen = look(site.url + "/healthz")
    assert (seen.status, seen.release, seen.why) == (200, OLD, "status 200")
    assert seen.seconds >= 0
    site.status = 503
    assert (look(site.url).status, look(site.url).release, look(site.url).why) == (503, OLD, "status 503")
    site.status, site.release = 200, ""
    assert look(site.url).release == ""
    site.how = "silent"
    broken = look(site.url)
    assert (broken.status, broken.release) == (0, "")
    assert broken.why
    assert site.asked[0] == "/healthz"


# http.client's own errors are no OSError; a cut answer is just what the prober is there to count.
@pytest.mark.parametrize("how", ["garbage", "cut short"])
def test_look_at_a_broken_answer(site: Site, how: str) -> None:
    site.how = how
    broken = look(site.url)
    assert broken.status == 0
    assert broken.why


@pytest.mark.parametrize("how", ["trickling", "trickling chunks", "trickling to the end"])
def test_look_at_an_answer_that_trickles(site: Site, how: str) -> None:
    """Each piece comes in time; all of them would take ten seconds."""
    site.how = how
    seen = look(site.url, timeout=0.3)
    assert (seen.status, seen.why) == (0, "no whole answer within 0 s")
    assert seen.seconds < 5


def test_look_follows_a_redirect_within_the_site(site: Site) -> None:
    """Without reading what comes with it, which may never end."""
    site.how = "trickling redirect"
    seen = look(site.url + "/", timeout=2)
    assert (seen.status, seen.release, site.asked) == (200, OLD, ["/", "/there"])
    assert seen.seconds < 5


def test_look_follows_no_redirect_to_elsewhere(site: Site) -> None:
    """The app decides on it, and this computer may reach what the app may not."""
    asked: list[str] = []

    class Leading(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("X-Release", NEW)
            self.send_header("Location", f"http://localhost:{site.port}/secret")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Leading) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        seen = look(f"http://127.0.0.1:{server.server_port}/")
    assert (seen.status, seen.release) == (302, NEW)
    assert seen.why == f"status 302 to 'http://localhost:{site.port}/secret'"
    assert (asked, site.asked) == (["/"], [])


def test_the_prober_survives_a_broken_answer(site: Site) -> None:
    prober, enough = Prober(url=site.url, every=0.001), threading.Event()
    site.how = "cut short"
    with prober.running():
        while len(prober.seen) < 3 and [t for t in threading.enumerate() if "work" in t.name]:
            enough.wait(0.005)
    assert prober.receipt()["failed"] >= 3


def test_look_where_nobody_is() -> None:
    seen = look("http://127.0.0.1:1/")
    assert (seen.status, seen.release) == (0, "")
    assert "refused" in seen.why
    assert look("http://nowhere.invalid/").status == 0


def test_verify_waits_until_the_url_shows_the_release(site: Site) -> None:
    answers = iter([(200, OLD), (502, ""), (503, NEW), (200, ""), (200, NEW)])

    class Turns(Site):
        pass

    real = rollout.look

    def turning(url: str) -> Seen:
        site.status, site.release = next(answers)
        return real(url)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout, "look", turning)
        assert verify(site.url + "/healthz", NEW, patience=60).release == NEW
    assert next(answers, None) is None
    assert site.asked == ["/healthz"] * 5


@pytest.mark.parametrize(
    ("status", "release", "words"),
    [(200, OLD, f"gave status 200 from release {OLD} instead of 200 from release {NEW}"),
     (503, NEW, f"gave status 503 from release {NEW} instead"),
     (200, "", f"gave status 200 instead of 200 from release {NEW}")],
)  # fmt: skip
def test_verify_says_what_it_saw(site: Site, status: int, release: str, words: str) -> None:
    site.status, site.release = status, release
    with pytest.raises(RolloutError) as caught:
        verify(site.url + "/healthz", NEW, patience=-1)
    assert words in str(caught.value)
    assert site.url + "/healthz" in str(caught.value)
    assert "Is port 80 open" in str(caught.value)


# ------------------------------------------------------------------------------------------------ the receipt


def seen(status: int, at: float, seconds: float = 0.01) -> Seen:
    return Seen(status=status, release=OLD, machine="", why="", at=at, seconds=seconds)


def receipt(*answers: Seen) -> dict[str, Any]:
    return Prober(url="", seen=list(answers)).receipt()


def test_receipt_of_a_quiet_release() -> None:
    made = receipt(*[seen(200, i * 0.1, 0.010 + 0.001 * (i % 10)) for i in range(100)])
    assert made == {"requests": 100, "failed": 0, "longest_gap_ms": 101, "p50_ms": 14.5, "p99_ms": 19.0}


def test_receipt_counts_what_failed_and_how_long_nobody_was_served() -> None:
    made = receipt(seen(200, 0.0), seen(0, 0.1), seen(502, 0.2), seen(404, 0.3), seen(200, 0.5, 0.2), seen(200, 0.8))
    assert (made["requests"], made["failed"]) == (6, 3)
    assert made["longest_gap_ms"] == 690


def test_receipt_of_a_slow_answer() -> None:
    made = receipt(*[seen(200, float(i)) for i in range(50)], seen(200, 50.0, 3.0))
    assert made["p50_ms"] == 10.0
    assert made["p99_ms"] == 3000.0
    assert made["longest_gap_ms"] == 3990


def test_receipt_of_nothing() -> None:
    assert receipt() == {"requests": 0, "failed": 0}
    assert receipt(seen(0, 0.0), seen(502, 0.1)) == {"requests": 2, "failed": 2}
    assert receipt(seen(200, 0.0)) == {
        "requests": 1, "failed": 0, "longest_gap_ms": 0, "p50_ms": 10.0, "p99_ms": 10.0,
    }  # fmt: skip


@pytest.mark.parametrize("turn", [1, -1], ids=["at the end", "at the beginning"])
def test_receipt_of_failures_at_an_end(turn: int) -> None:
    statuses = [200, 200, 0, 0, 0, 0][::turn]
    made = receipt(*[seen(status, float(i)) for i, status in enumerate(statuses)])
    assert made["longest_gap_ms"] >= 3000


def test_prober_asks_until_it_is_told_to_stop(site: Site) -> None:
    prober = Prober(url=site.url + "/x", every=0.001)
    with prober.running():
        enough = threading.Event()
        while len(prober.seen) < 5:
            enough.wait(0.005)
    count = len(prober.seen)
    assert threading.active_count() >= 1
    assert all(s.status == 200 for s in prober.seen)
    assert prober.receipt()["requests"] == count
    assert len(prober.seen) == count


def test_prober_stops_when_the_block_fails(site: Site) -> None:
    prober = Prober(url=site.url, every=0.001)
    before = threading.active_count()
    with contextlib.suppress(KeyError), prober.running():
        raise KeyError
    assert not [t for t in threading.enumerate() if t.name == "work"]
    assert threading.active_count() <= before + 1


# ------------------------------------------------------------------------------------------------ the plan


def access(name: str, **changes: Any) -> Access:
    given = {"name": name, "address": f"203.0.113.{ord(name[-1]) % 100}", "port": 22, "user": "deploy",
             "host_key": SHOWN_KEY, "private_key": PRIVATE}  # fmt: skip
    return Access(**{**given, **changes})


@pytest.mark.parametrize(("how", "batch"), [("serial", 1), ("parallel", 3), ("2", 2), ("5", 5)])
def test_plan(how: str, batch: int) -> None:
    machines = [
        {
            "name": n,
            "mark": f"{n}.1",
            "address": "203.0.113.1",
            "port": 22.0,
            "user": "u",
            "host_key": SHOWN_KEY,
            "private_key": PRIVATE,
        }
        for n in "abc"
    ]
    given = {
        "stack": "blue",
        "url": "http://x",
        "balancer": "ours",
        "rollout": how,
        "machines": machines,
        "done": ["."],
    }
    plan = Plan.read(NEW, given)
    assert (plan.stack, plan.release, plan.url, plan.batch) == ("blue", NEW, "http://x", batch)
    assert plan.balancer == "ours"
    assert plan.marks == {"a.1", "b.1", "c.1"}
    assert [m.name for m in plan.machines] == ["a", "b", "c"]
    assert plan.deadline == 45


def test_the_deadline_leaves_time_for_the_url() -> None:
    one = Plan(stack="s", release=NEW, machines=(access("a"),), url="", batch=1)
    assert one.deadline == 35
    assert one.deadline - 15 > rollout.URL_PATIENCE, "else machines go back while the URL is still asked"
    lapses = 15  # seconds, as decant_host/lease.py says
    assert lapses > 3 * rollout.BEAT


# ------------------------------------------------------------------------------------------------ paper machines

Behaviour = Callable[["PaperTarget"], Any]


@dataclass
class Fleet:
    """Machines on paper that share one site: the one that switched last is what visitors see."""

    site: Site
    current: dict[str, str | None] = field(default_factory=dict)
    persisted: dict[str, str | None] = field(default_factory=dict)
    log: list[tuple[str, ...]] = field(default_factory=list)
    instead: dict[tuple[str, str], Exception | BaseException | Behaviour] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    """Connections."""
    doors: set[str] = field(default_factory=set)
    """Machines that let their balancer's checks through."""
    confirmed: dict[str, set[str]] = field(default_factory=dict)
    """Machines that ever confirmed a release, by release."""
    held: set[str] = field(default_factory=set)
    release_command: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    def verbs(self, *wanted: str) -> list[tuple[str, ...]]:
        """Calls of these verbs in the order in which they came; without their further words."""
        return [entry[:2] for entry in self.log if entry[1] in wanted]

    def touched(self, verb: str) -> list[str]:
        """The machines that got this verb."""
        return [name for name, did, *_ in self.log if did == verb]


class PaperTarget:
    """A machine's own program, with the same promises as the real one."""

    fleet: Fleet

    def __init__(self, access: Access, attempt: str, owner: str) -> None:
        self.access = access
        self.attempt = attempt
        self.owner = owner
        self.armed: float | None = None
        self._do("connect")
        self.fleet.open.add(access.name)

    def _do(self, verb: str, *words: str) -> None:
        with self.fleet.lock:
            self.fleet.log.append((self.access.name, verb, *words))
        behaviour = self.fleet.instead.get((self.access.name, verb))
        if isinstance(behaviour, BaseException):
            raise behaviour
        if behaviour is not None:
            behaviour(self)

    def hold(self) -> None:
        self._do("hold", self.owner)
        self.fleet.held.add(self.access.name)

    def close(self) -> None:
        self._do("close")
        self.fleet.held.discard(self.access.name)
        self.fleet.open.discard(self.access.name)

    def call(self, verb: str, *words: str, timeout: float = 60.0) -> dict[str, Any]:
        fleet, name = self.fleet, self.access.name
        assert name in fleet.held, f"{verb} on {name} without its lease"
        self._do(verb, *words)
        result: dict[str, Any] = {"release": words[0] if words else None}
        if verb == "ensure":
            result |= {
                "health": "/healthz",
                "current": fleet.current.get(name),
                "persisted": fleet.persisted.get(name),
                "confirmed": name in fleet.confirmed.get(words[0], set()),
                "release_command": fleet.release_command,
                "open": name in fleet.doors,
            }
        elif verb == "migrate":
            result["skipped"] = name in fleet.confirmed.get(words[0], set())
        elif verb == "switch":
            fleet.current[name] = fleet.site.release = words[0]
        elif verb == "extend":
            assert fleet.current[name] == words[0]
        elif verb == "revert":
            fleet.current[name] = fleet.persisted.get(name)
            fleet.site.release = fleet.persisted.get(name) or ""
        elif verb == "confirm":
            assert fleet.current[name] == words[0]
            fleet.persisted[name] = words[0]
            fleet.confirmed.setdefault(words[0], set()).add(name)
            with fleet.lock:
                fleet.doors.add(name)
        return result


@pytest.fixture
def fleet(site: Site, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet(site=site)
    monkeypatch.setattr(rollout, "Target", type("Target", (PaperTarget,), {"fleet": made}))
    return made


def attempt(
    fleet: Fleet,
    names: str = "abc",
    batch: int = 1,
    release: str = NEW,
    old: str | None = OLD,
    balancer: str | None = None,
) -> Attempt:
    """An attempt on machines that all serve `old`."""
    for name in names:
        if name not in fleet.persisted and old:
            fleet.doors.add(name)
            fleet.confirmed.setdefault(old, set()).add(name)
        fleet.current.setdefault(name, old)
        fleet.persisted.setdefault(name, old)
    machines = tuple(access(name) for name in names)
    url = fleet.site.url
    plan = Plan(
        stack="paper", release=release, machines=machines, url=url, batch=batch, balancer=balancer,
        marks=frozenset(names),
    )  # fmt: skip
    return Attempt(plan)


def refused(made: Attempt, error: type[BaseException] = RolloutError) -> str:
    with pytest.raises(error) as caught:
        made.run()
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ when all goes well


def test_the_order_of_an_attempt(fleet: Fleet) -> None:
    made = attempt(fleet, "cab")
    result = made.run()
    steps = [[entry[1] for entry in fleet.log].index(v) for v in ("connect", "hold", "ensure", "migrate", "switch")]
    assert steps == sorted(steps)
    held = [name for name, verb, *_ in fleet.log if verb == "hold"]
    assert held == ["a", "b", "c"], "always in the same order, so that two attempts cannot each hold half of a fleet"
    assert fleet.verbs("migrate") == [("a", "migrate")], "once, on one machine"
    assert fleet.verbs("switch", "confirm")[:3] == [("c", "switch"), ("a", "switch"), ("b", "switch")]
    assert sorted(fleet.touched("confirm")) == ["a", "b", "c"]
    assert fleet.touched("revert") == []
    assert fleet.open == fleet.held == set()
    assert set(fleet.persisted.values()) == {NEW}
    assert "/healthz" in fleet.site.asked
    assert result["release"] == NEW
    assert result["url"] == fleet.site.url
    assert result["machines"] == [{"name": n, "address": access(n).address} for n in "cab"]


def test_nobody_is_asked_to_run_no_release_command(fleet: Fleet) -> None:
    fleet.release_command = False
    attempt(fleet).run()
    assert fleet.touched("migrate") == []


def test_each_switch_is_on_trial_for_the_whole_fleets_time(fleet: Fleet) -> None:
    attempt(fleet).run()
    switches = [entry for entry in fleet.log if entry[1] == "switch"]
    assert {entry[2:] for entry in switches} == {(NEW, "--deadline", "45")}
    assert all(entry[2] == NEW for entry in fleet.log if entry[1] in ("ensure", "migrate", "confirm"))


def test_one_owner_and_one_attempt_for_the_fleet(fleet: Fleet) -> None:
    one, two = attempt(fleet), attempt(fleet)
    assert one.id != two.id
    one.run()
    owners = {entry[2] for entry in fleet.log if entry[1] == "hold"}
    assert owners == {one.owner}
    assert "@" in one.owner


@pytest.mark.parametrize(
    ("batch", "waves"),
    [(1, [["a"], ["b"], ["c"], ["d"], ["e"]]), (2, [["a", "b"], ["c", "d"], ["e"]]), (5, [["a", "b", "c", "d", "e"]]),
     (9, [["a", "b", "c", "d", "e"]])],
)  # fmt: skip
def test_machines_of_a_batch_switch_together_and_batches_one_after_another(
    fleet: Fleet, batch: int, waves: list[list[str]]
) -> None:
    done: list[str] = []

    def switching(wave: list[str], before: list[str]) -> Behaviour:
        meet = threading.Barrier(len(wave))

        def switch(target: PaperTarget) -> None:
            meet.wait(timeout=30)  # passes only when the whole batch is there
            assert sorted(done[: len(before)]) == before
            with fleet.lock:
                done.append(target.access.name)

        return switch

    names: list[str] = []
    for wave in waves:
        behaviour = switching(wave, sorted(names))
        names += wave
        fleet.instead |= {(name, "switch"): behaviour for name in wave}
    attempt(fleet, "abcde", batch=batch).run()
    assert sorted(done) == sorted(names) == list("abcde")


def test_all_machines_are_ensured_and_confirmed_at_once(fleet: Fleet) -> None:
    for verb in ("ensure", "confirm"):
        meet = threading.Barrier(3)
        for name in "abc":
            fleet.instead[(name, verb)] = lambda target, meet=meet: meet.wait(timeout=30)  # type: ignore[misc]
    attempt(fleet).run()


def test_the_receipt_of_an_attempt(fleet: Fleet) -> None:
    made = attempt(fleet).run()["receipt"]
    assert (made["from"], made["to"]) == (OLD, NEW)
    assert made["failed"] == 0
    assert made["requests"] >= 1
    assert set(made["seconds"]) == {
        "hold the machines", "make sure it is staged", "release command", "switch", "ask the public URL", "confirm",
        "all",
    }  # fmt: skip
    assert all(s >= 0 for s in made["seconds"].values())


def test_the_first_release_has_no_visitors_to_count(fleet: Fleet) -> None:
    made = attempt(fleet, old=None).run()["receipt"]
    assert made["from"] is None
    assert (made["requests"], made["failed"]) == (0, 0)


def test_what_is_live_already_is_confirmed_anew_and_asked_for(fleet: Fleet) -> None:
    """Its confirm may have been killed half-way, with the old release still running."""
    fleet.site.release = NEW
    result = attempt(fleet, old=NEW).run()
    assert {entry[1] for entry in fleet.log} == {"connect", "hold", "ensure", "confirm", "close"}
    assert sorted(fleet.touched("confirm")) == ["a", "b", "c"]
    assert result["receipt"]["from"] == result["receipt"]["to"] == NEW
    assert set(result["receipt"]["seconds"]) >= {"ask the public URL"}


def test_what_is_live_on_some_machines_is_rolled_out_on_the_others(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.current["a"] = fleet.persisted["a"] = NEW
    fleet.doors.add("a")
    attempt(fleet).run()
    assert (sorted(fleet.touched("switch")), sorted(fleet.touched("confirm"))) == (["b", "c"], ["a", "b", "c"])
    assert f"the machines differ (a {NEW}, b {OLD}, c {OLD}); this one settles it" in capsys.readouterr().err


def test_an_interrupted_attempt_is_told_and_settled(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.current["b"] = NEW  # switched, never confirmed
    attempt(fleet).run()
    err = capsys.readouterr().err
    assert err.count("an interrupted attempt left") == 1
    assert f"b: an interrupted attempt left {NEW} on trial; this one settles it" in err
    assert set(fleet.persisted.values()) == {NEW}


def test_going_back_says_that_data_does_not(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.confirmed[NEW] = {"a", "b", "c"}
    attempt(fleet).run()
    assert "the release command is not run, so the data keeps its newer form" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ a fleet that changes


def test_a_machine_that_joins_is_the_only_one_that_switches(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    attempt(fleet, "bc", old=NEW)
    fleet.site.release = NEW
    fleet.current["a"] = fleet.persisted["a"] = None
    attempt(fleet, "abc").run()
    assert (fleet.touched("switch"), sorted(fleet.touched("confirm"))) == (["a"], ["a", "b", "c"])
    assert fleet.touched("migrate") == ["b"], "on a machine that knows that this release was live before"
    assert "going back" not in capsys.readouterr().err


def test_a_machine_that_has_left_is_let_in_again(fleet: Fleet) -> None:
    fleet.site.release = NEW
    made = attempt(fleet, old=NEW)
    fleet.doors.remove("b")
    result = made.run()
    assert fleet.touched("switch") == []
    assert fleet.doors == {"a", "b", "c"}
    assert "ask the public URL" in result["receipt"]["seconds"], "what changes something ends with a verified answer"


def test_machines_wait_for_the_others_without_going_back(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "REARM_AFTER", -1.0)
    attempt(fleet).run()
    assert fleet.verbs("switch", "extend", "confirm")[:3] == [("a", "switch"), ("a", "extend"), ("b", "switch")]
    before_confirm = [verb for _, verb in fleet.verbs("switch", "extend", "confirm")].index("confirm")
    last = fleet.verbs("switch", "extend", "confirm")[before_confirm - 3 : before_confirm]
    assert sorted(last) == [(name, "extend") for name in "abc"], "a full trial for each when the confirms begin"
    assert all(entry[2:] == (NEW, "--deadline", "45") for entry in fleet.log if entry[1] == "extend")


def test_a_short_trial_is_not_extended(fleet: Fleet) -> None:
    attempt(fleet).run()
    assert fleet.touched("extend") == []


def test_a_machine_that_went_back_meanwhile_takes_all_back(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "REARM_AFTER", -1.0)
    fleet.instead[("a", "extend")] = RolloutError("release is not live here any more")
    assert "not live here any more" in refused(attempt(fleet))
    assert fleet.touched("confirm") == []
    assert sorted(fleet.touched("revert")) == ["a"]


# ------------------------------------------------------------------------------------------------ behind a balancer


class Balanced:
    """A site whose answers come from the machines with an open door, one after the other."""

    def __init__(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, slow: int = 0) -> None:
        self.fleet, self.slow, self.asked = fleet, slow, 0
        monkeypatch.setattr(rollout, "look", self.look)
        monkeypatch.setattr(rollout, "URL_LEADS_HERE", -1.0)
        monkeypatch.setattr(rollout, "URL_PATIENCE", -1.0)
        monkeypatch.setattr(rollout, "BALANCER_PATIENCE", 5.0)

    def look(self, url: str, timeout: float = 5.0) -> Seen:
        self.asked += 1
        doors = sorted(self.fleet.doors)
        if not doors or self.asked <= self.slow:
            return Seen(status=503, release="", machine="", why="status 503", at=time.monotonic(), seconds=0.0)
        name = doors[self.asked % len(doors)]
        release = self.fleet.current[name] or ""
        return Seen(status=200, release=release, machine=name, why="status 200", at=time.monotonic(), seconds=0.0)


def test_a_first_release_is_confirmed_before_the_balancer_can_answer(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    Balanced(fleet, monkeypatch)
    result = attempt(fleet, old=None, balancer="ours").run()
    assert sorted(fleet.touched("confirm")) == ["a", "b", "c"]
    assert "ask the public URL" not in result["receipt"]["seconds"]
    assert "wait for the balancer" in result["receipt"]["seconds"]


def test_later_releases_are_asked_for_before_they_are_confirmed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    Balanced(fleet, monkeypatch)
    result = attempt(fleet, balancer="ours").run()
    assert {"ask the public URL", "wait for the balancer"} <= result["receipt"]["seconds"].keys()
    assert result["receipt"]["requests"] >= 1


def test_a_balancer_that_is_new_to_live_machines_is_waited_for(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    balanced = Balanced(fleet, monkeypatch, slow=3)
    attempt(fleet, balancer="ours").run()
    assert balanced.asked > 3
    assert set(fleet.persisted.values()) == {NEW}


def test_every_machine_must_answer_through_the_balancer(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    balanced = Balanced(fleet, monkeypatch)
    monkeypatch.setattr(rollout, "BALANCER_PATIENCE", 0.2)
    made = attempt(fleet, balancer="ours")
    real = balanced.look

    def without_b(url: str, timeout: float = 5.0) -> Seen:
        while (seen := real(url)).machine == "b":
            pass
        return seen

    monkeypatch.setattr(rollout, "look", without_b)
    text = refused(made, errors.NotInRotationError)
    assert "the balancer sent no request to b." in text
    assert fleet.touched("revert") == [], "it is live and confirmed: only visitors are missing"


def test_a_balancer_of_the_users_need_not_reach_everyone(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    balanced = Balanced(fleet, monkeypatch)
    real = balanced.look
    monkeypatch.setattr(rollout, "look", lambda url, timeout=5.0: replace(real(url), machine=""))
    attempt(fleet, balancer="theirs").run()
    assert set(fleet.persisted.values()) == {NEW}


def test_the_wait_names_who_is_missing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Balanced(fleet, monkeypatch, slow=20)
    monkeypatch.setattr(rollout.time, "sleep", lambda _: None)
    made = attempt(fleet, "ab", old=NEW, balancer="ours")
    made.run()
    assert "waiting until the balancer sends requests to a, b; " in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ when it does not

BROKEN: list[tuple[str, Exception]] = [
    ("refused", RolloutError("machine b: status 500")),
    ("gone", UnreachableError("b (deploy@203.0.113.98): no answer")),
    ("unusable", MachineError("b cannot be used")),
]


@pytest.mark.parametrize(("_", "error"), BROKEN)
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_switch_that_fails_is_taken_back_wherever_one_was_begun(
    fleet: Fleet, _: str, error: Exception, batch: int
) -> None:
    fleet.instead[("b", "switch")] = error
    text = refused(attempt(fleet, batch=batch))
    assert str(error) in text
    begun = {1: ["a", "b"], 2: ["a", "b"], 3: ["a", "b", "c"]}[batch]
    assert sorted(fleet.touched("switch")) == begun
    assert sorted(fleet.touched("revert")) == begun, "also where the switch failed: it has touched the machine"
    assert fleet.touched("confirm") == []
    assert set(fleet.persisted.values()) == {OLD}
    assert {n: fleet.current[n] for n in begun if n != "b"} == {n: OLD for n in begun if n != "b"}
    assert fleet.open == set()


def test_all_machines_reasons_are_told(fleet: Fleet) -> None:
    fleet.instead[("a", "switch")] = RolloutError("a: status 500")
    fleet.instead[("c", "switch")] = UnreachableError("c: no answer")
    assert refused(attempt(fleet, batch=3)) == "a: status 500\nc: no answer"


def test_the_same_reason_is_told_once(fleet: Fleet) -> None:
    for name in "abc":
        fleet.instead[(name, "ensure")] = RolloutError("no such release")
    assert refused(attempt(fleet)) == "no such release"


@pytest.mark.parametrize(("status", "release"), [(200, OLD), (500, NEW), (200, "")])
def test_a_url_that_does_not_show_the_release_takes_it_back(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, status: int, release: str
) -> None:
    monkeypatch.setattr(rollout, "URL_PATIENCE", -1.0)

    def behind_something_else(target: PaperTarget) -> None:
        fleet.site.status = status

    inner = PaperTarget.call

    def call(self: Any, verb: str, *words: str, timeout: float = 60.0) -> dict[str, Any]:
        result = inner(self, verb, *words, timeout=timeout)
        if verb == "switch":
            fleet.site.status, fleet.site.release = status, release
        return result

    monkeypatch.setattr(PaperTarget, "call", call)
    text = refused(attempt(fleet))
    assert f"{fleet.site.url}/healthz gave status {status}" in text
    assert f"instead of 200 from release {NEW}" in text
    if release:
        assert f"from release {release}" in text
    assert sorted(fleet.touched("revert")) == ["a", "b", "c"]
    assert fleet.touched("confirm") == []
    assert set(fleet.current.values()) == {OLD}


def test_a_url_where_nobody_is_takes_it_back(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "URL_PATIENCE", -1.0)
    made = attempt(fleet)
    made.plan = Plan(stack="s", release=NEW, machines=made.plan.machines, url="http://127.0.0.1:1", batch=1)
    assert "refused" in refused(made)
    assert sorted(fleet.touched("revert")) == ["a", "b", "c"]


@pytest.mark.parametrize("where", ["switch", "revert"])
def test_an_interruption_takes_it_back(fleet: Fleet, where: str) -> None:
    fleet.instead[("b", "switch")] = KeyboardInterrupt()
    if where == "revert":
        fleet.instead[("a", "revert")] = UnreachableError("a: no answer")
    refused(attempt(fleet), KeyboardInterrupt)
    assert sorted(fleet.touched("revert")) == ["a", "b"]
    assert fleet.touched("confirm") == []
    assert fleet.open == set()


def test_reverts_say_why(fleet: Fleet) -> None:
    fleet.instead[("a", "switch")] = RolloutError("a: no")
    refused(attempt(fleet))
    assert [entry for entry in fleet.log if entry[1] == "revert"] == [
        ("a", "revert", "--because", "the attempt failed")
    ]


def test_a_revert_that_fails_stops_no_other_and_says_what_will_happen(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.instead[("c", "switch")] = RolloutError("c: status 500")
    fleet.instead[("a", "revert")] = UnreachableError("a: no answer")
    assert refused(attempt(fleet)) == "c: status 500", "the first reason is the one that counts"
    assert sorted(fleet.touched("revert")) == ["a", "b", "c"]
    err = capsys.readouterr().err
    assert "a: no answer" in err
    assert "goes back by itself within 45 s" in err


def test_a_confirm_that_fails_is_not_taken_back_blindly(fleet: Fleet) -> None:
    """Others may have confirmed: going back would make two fleets of one. The next attempt settles it."""
    fleet.instead[("b", "confirm")] = UnreachableError("b: no answer")
    assert "b: no answer" in refused(attempt(fleet))
    assert sorted(fleet.touched("confirm")) == ["a", "b", "c"]
    assert fleet.touched("revert") == []
    assert fleet.persisted == {"a": NEW, "b": OLD, "c": NEW}
    fleet.instead.clear()
    fleet.log.clear()
    attempt(fleet).run()
    assert set(fleet.persisted.values()) == {NEW}


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_lease_that_is_refused_leaves_everything_as_it_is(fleet: Fleet, name: str) -> None:
    fleet.instead[(name, "hold")] = RolloutError("another release is being rolled out by carol@laptop since 12:00:00")
    assert "carol@laptop" in refused(attempt(fleet))
    assert {entry[1] for entry in fleet.log} == {"connect", "hold", "close"}
    assert fleet.open == fleet.held == set()


@pytest.mark.parametrize("error", [UnreachableError("b: no answer"), MachineError("b shows another host key")])
def test_a_machine_that_cannot_be_reached_leaves_everything_as_it_is(fleet: Fleet, error: Exception) -> None:
    fleet.instead[("b", "connect")] = error
    text = refused(attempt(fleet))
    assert str(error) in text
    assert "Nothing was switched." in text
    assert {entry[1] for entry in fleet.log} == {"connect", "close"}
    assert fleet.open == set()


def test_a_release_that_is_not_there_leaves_everything_as_it_is(fleet: Fleet) -> None:
    fleet.instead[("b", "ensure")] = RolloutError("release bbbbbbbbbbbb is not on this machine; here are: aaaaaaaaaaaa")
    assert "here are: aaaaaaaaaaaa" in refused(attempt(fleet))
    assert {entry[1] for entry in fleet.log} == {"connect", "hold", "ensure", "close"}


def test_a_release_command_that_fails_leaves_everything_as_it_is(fleet: Fleet) -> None:
    fleet.instead[("a", "migrate")] = RolloutError("the release command failed: flask db upgrade")
    assert "flask db upgrade" in refused(attempt(fleet))
    assert {entry[1] for entry in fleet.log} == {"connect", "hold", "ensure", "migrate", "close"}


def test_a_live_release_whose_url_is_silent_fails(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `up` that changes something ends with a verified answer."""
    monkeypatch.setattr(rollout, "URL_PATIENCE", -1.0)
    fleet.site.status = 502
    assert "gave status 502" in refused(attempt(fleet, old=NEW))
    assert fleet.touched("revert") == []


# ------------------------------------------------------------------------------------------------ everywhere


def test_everywhere_keeps_the_order_and_waits_for_all() -> None:
    targets: list[Any] = list("cab")
    assert everywhere(targets, lambda t: str(t) * 2) == ["cc", "aa", "bb"]
    assert everywhere([], lambda t: t) == []
    done: list[str] = []

    def action(name: Any) -> None:
        if name == "a":
            raise RolloutError("a: no")
        done.append(name)

    with pytest.raises(RolloutError, match="a: no"):
        everywhere(targets, action)
    assert sorted(done) == ["b", "c"]


def test_everywhere_does_not_hide_a_mistake_of_ours() -> None:
    def action(name: Any) -> None:
        raise {"a": RolloutError("a: no"), "b": ZeroDivisionError()}[name]

    with pytest.raises(ZeroDivisionError):
        everywhere(list("ab"), action)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ a target, over SSH


Verb = Callable[[list[str]], dict[str, Any]]


def answers(words: list[str]) -> dict[str, Any]:
    """What the machine's program says to an order: most of its verbs give their words back."""
    if words[0] == "confirm":
        return {"status": 1, "stderr": "web-1: release x is not live here any more\n  Run pulumi up again.\n"}
    return {"status": 3} if words[0] == "revert" else {"stdout": json.dumps({"words": words[1:]}) + "\n"}


@dataclass
class Program:
    """The machine's program: it holds the lease at the first line, and answers lines with a dot, or as ordered."""

    do: Verb = answers
    orders: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __call__(self, run: Run) -> int:
        words = shlex.split(run.line)
        assert words[-6:] == [PROGRAM, "lease", "--attempt", "attempt-1", "--owner", "carol@laptop"]
        unread = ""
        while data := run.channel.recv(100).decode():
            *lines, unread = (unread + data).split("\n")
            for line in lines:
                self.lines.append(line)
                if len(self.lines) == 1:
                    run.say("held\n")
                elif not line:
                    run.say(".\n")
                else:
                    self._order(run, json.loads(line))
        self.ended.set()
        return 0

    def _order(self, run: Run, order: dict[str, Any]) -> None:
        self.orders.append(order["words"])
        answer = json.dumps(
            {"status": 0, "stdout": "", "stderr": "", **self.do(order["words"]), "order": order["order"]}
        )
        run.say(answer[:7])  # as a network would have it: in pieces
        run.say(f"{answer[7:]}\n.\n")


@contextlib.contextmanager
def target(sshd: Sshd) -> Iterator[Target]:
    """A machine whose lease is held."""
    made = Target(sshd.access(), "attempt-1", "carol@laptop")
    try:
        made.hold()
        yield made
    finally:
        made.close()


def test_a_call_names_its_attempt() -> None:
    with Sshd(on_command=Program()).running() as sshd, target(sshd) as one:
        assert one.call("ensure", NEW) == {"words": [NEW, "--attempt", "attempt-1"]}
        with pytest.raises(RolloutError) as caught:
            one.call("confirm", NEW)
        assert str(caught.value) == "web-1: release x is not live here any more\n  Run pulumi up again."
        with pytest.raises(RolloutError, match=r"web-1 \(.*\): revert failed without a word"):
            one.call("revert")


def test_words_arrive_as_they_are_and_root_needs_no_sudo() -> None:
    because = 'it\'s $(id); "done"\n'
    for user, before in (("carol", ["sudo", "-n"]), ("root", [])):
        program = Program()
        with Sshd(on_command=program, user=user).running() as sshd, target(sshd) as one:
            assert one.call("ensure", "--because", because)["words"][1] == because
        assert program.orders == [["ensure", "--because", because, "--attempt", "attempt-1"]]
        assert [shlex.split(line)[: len(before) + 1] for line in sshd.lines] == [[*before, PROGRAM]]


def test_calls_at_the_same_time_get_their_own_answers() -> None:
    class Late(Program):
        """It answers the first order after the second."""

        def _order(self, run: Run, order: dict[str, Any]) -> None:
            if waiting:
                super()._order(run, order)
                super()._order(run, waiting.pop())
            else:
                waiting.append(order)

    waiting: list[dict[str, Any]] = []
    with Sshd(on_command=Late()).running() as sshd, target(sshd) as one, ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda word: one.call("ensure", word)["words"][0], ["first", "second"])
        assert list(found) == ["first", "second"]


def test_a_lease_is_kept_alive_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "BEAT", 0.005)
    program = Program()
    with Sshd(on_command=program).running() as sshd:
        with target(sshd):
            deadline = time.monotonic() + 30
            while len(program.lines) < 5:
                assert time.monotonic() < deadline, "no sign of life came"
                time.sleep(0.005)
            assert not program.ended.is_set()
        assert program.ended.wait(timeout=30), "the lease was not given back"
    assert set(program.lines) == {""}


def test_a_machine_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "BEAT", 0.005)
    monkeypatch.setattr(rollout, "SILENCE", 0.1)
    over = threading.Event()

    def silent(run: Run) -> int:
        run.say("held\n")
        over.wait(timeout=30)
        return 0

    with Sshd(on_command=silent).running() as sshd, target(sshd) as one:
        with pytest.raises(
            UnreachableError, match=r"web-1 .*, during switch: no sign of life any more\. Run pulumi up again"
        ):
            one.call("switch", NEW, timeout=25)
        with pytest.raises(UnreachableError, match=r"during revert: no sign of life any more"):
            one.call("revert", timeout=25)
        over.set()


def test_a_verb_that_takes_too_long_is_given_up_alone() -> None:
    class Slow(Program):
        def _order(self, run: Run, order: dict[str, Any]) -> None:
            if order["words"][0] != "switch":
                super()._order(run, order)

    with Sshd(on_command=Slow()).running() as sshd, target(sshd) as one:
        with pytest.raises(UnreachableError, match=r"during switch: no answer within 0 s\. Run pulumi up again\."):
            one.call("switch", NEW, timeout=0.01)
        assert one.call("ensure", NEW)


@pytest.mark.parametrize("said", ["web-1: decant-host lease was killed by signal 9. Run pulumi up again.", ""])
def test_a_program_that_ends_in_the_middle(said: str) -> None:
    class Killed(Program):
        def _order(self, run: Run, order: dict[str, Any]) -> None:
            run.say(said, error=True)
            raise EOFError

    expected = re.escape(said or "the connection closed. Run pulumi up again.")

    def ends(run: Run) -> int:
        with contextlib.suppress(EOFError):
            Killed()(run)
        return 137

    with Sshd(on_command=ends).running() as sshd, target(sshd) as one:
        for verb in ("switch", "revert"):
            with pytest.raises(UnreachableError, match=f"during {verb}: {expected}"):
                one.call(verb, NEW, timeout=25)


def test_a_machine_that_talks_nonsense_is_given_up() -> None:
    class Mad(Program):
        def _order(self, run: Run, order: dict[str, Any]) -> None:
            run.say('{"order": 77}\n')

    expected = r"during switch: the connection broke \(77\)\. Run pulumi up again\."
    with Sshd(on_command=Mad()).running() as sshd, target(sshd) as one, pytest.raises(UnreachableError, match=expected):
        one.call("switch", NEW, timeout=25)


def test_a_lease_that_is_refused_says_who_holds_it() -> None:
    def refuse(run: Run) -> int:
        run.say("web-1: another release is being rolled out by dave@ci since 12:00:00\n", error=True)
        return 1

    message = "rolled out by dave@ci since 12:00:00"
    with Sshd(on_command=refuse).running() as sshd, pytest.raises(RolloutError, match=message), target(sshd):
        pass


def test_a_connection_that_breaks_before_the_lease() -> None:
    def hang_up(run: Run) -> int:
        run.channel.get_transport().close()
        return 0

    with Sshd(on_command=hang_up).running() as sshd, pytest.raises((RolloutError, MachineError)), target(sshd):
        pass


def test_a_machine_that_says_nothing_gives_no_lease() -> None:
    message = "gave no lease and no reason"
    with Sshd().running() as sshd, pytest.raises(RolloutError, match=message), target(sshd):
        pass


def test_a_whole_attempt_over_ssh(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real Target, Session and URL; only the machine's program is a stand-in."""

    def machine(words: list[str]) -> dict[str, Any]:
        answer: dict[str, Any] = {"release": NEW}
        if words[0] == "ensure":
            answer |= {"health": "/up?x=1", "current": OLD, "persisted": OLD}
            answer |= {"confirmed": False, "release_command": False, "open": True}
        if words[0] == "switch":
            assert words[2:4] == ["--deadline", "35"]
            site.release = NEW
        return {"stdout": json.dumps(answer) + "\n"}

    program = Program(do=machine)
    with Sshd(on_command=program).running() as sshd:
        plan = Plan(stack="s", release=NEW, machines=(sshd.access(),), url=site.url, batch=1)
        attempt = Attempt(plan)
        attempt.id, attempt.owner = "attempt-1", "carol@laptop"
        result = attempt.run()
        assert [words[0] for words in program.orders] == ["ensure", "switch", "confirm"]
        assert (sshd.connections, len(sshd.lines)) == (1, 1)
    assert result["machines"] == [{"name": "web-1", "address": "127.0.0.1"}]
    assert set(site.asked) == {"/up?x=1"}


# ------------------------------------------------------------------------------------------------ the command line


@pytest.fixture
def own_signals() -> Iterator[None]:
    """The step's handlers go with the test; where it sets none, the test fails and not its whole process.

    What a shell starts in the background ignores SIGINT.
    """
    terminate = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nobody handles SIGTERM"))
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, interrupt)


def command(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """`python -m decant.rollout NEW < plan.json` on machine a."""
    fleet.current["a"] = fleet.persisted["a"] = OLD
    one = access("a")
    machine = {"mark": "a.1"} | {
        k: getattr(one, k) for k in ("name", "address", "port", "user", "host_key", "private_key")
    }
    plan = {"stack": "s", "url": fleet.site.url, "rollout": "serial", "machines": [machine], "balancer": None}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(plan)))
    status = rollout.main([NEW])
    out, err = capsys.readouterr()
    assert PRIVATE.splitlines()[2] not in out + err
    return status, out, err


@pytest.mark.usefixtures("own_signals")
def test_the_step_prints_one_line(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = command(fleet, monkeypatch, capsys)
    assert status == 0
    assert out.count("\n") == 1
    assert set(json.loads(out)) == {"url", "release", "machines", "receipt"}


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("verb", ["connect", "hold", "ensure", "migrate", "switch"])
def test_the_step_fails_with_a_reason_and_no_traceback(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    fleet.instead[("a", verb)] = UnreachableError("a: no answer")
    status, out, err = command(fleet, monkeypatch, capsys)
    assert (status, out) == (1, "")
    assert f"release {NEW} is not live: a: no answer" in err
    assert "What was served before is served still." in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_step_takes_its_switch_back(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    inner = rollout.verify

    def terminated(url: str, release: str, patience: float) -> Seen:
        os.kill(os.getpid(), number)
        return inner(url, release, patience)

    monkeypatch.setattr(rollout, "verify", terminated)
    status, out, err = command(fleet, monkeypatch, capsys)
    assert (status, out) == (130, "")
    assert "interrupted" in err
    assert fleet.touched("revert") == ["a"]
    assert fleet.touched("confirm") == []
    assert fleet.open == set()


def test_the_step_wants_a_release(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        rollout.main([])
    assert caught.value.code == 2
    assert "release" in capsys.readouterr().err


# Then the new release is what visitors get, and other machines may keep it.
@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(
    "error", [UnreachableError("a: no answer"), KeyboardInterrupt()], ids=["failure", "interruption"]
)
def test_the_step_does_not_promise_the_old_release_when_a_confirm_failed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    fleet.instead[("a", "confirm")] = error
    status, _, err = command(fleet, monkeypatch, capsys)
    assert status != 0
    assert look(fleet.site.url).release == NEW
    assert "served before is served still" not in err
