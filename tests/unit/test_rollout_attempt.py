"""The attempt: in which order it does what, and what is left when something fails."""

from __future__ import annotations

import json
import string
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest

from decant.errors import HttpsError, MachineError, NotInRotationError, RolloutError, UnreachableError
from decant.rollout import attempt, http_probe, timeouts
from decant.rollout.attempt import Attempt
from decant.rollout.certificate import Renewal
from decant.rollout.http_probe import BY_NAME, ProbeResult
from decant.rollout.plan import Plan
from decant.rollout.route import Route
from decant_host import protocol
from tests.support.fake_agent_program import AgentProgram
from tests.support.fake_fleet import NEW, NO_CERTIFICATE, OLD, FakeAgent, Fleet, Site, access, failure, make_attempt
from tests.support.in_memory_sshd import Sshd

# ------------------------------------------------------------------------------------------------ when all goes well


def test_the_order_of_an_attempt(fleet: Fleet) -> None:
    made = make_attempt(fleet, "cab")
    result = made.run()
    steps = [
        [entry[1] for entry in fleet.log].index(v) for v in ("connect", "acquire lease", "prepare", "migrate", "switch")
    ]
    assert steps == sorted(steps)
    held = [name for name, command, *_ in fleet.log if command == "acquire lease"]
    assert held[0] == "a", "always the same one first, so that two attempts cannot each hold half of a fleet"
    assert sorted(held) == ["a", "b", "c"]
    assert fleet.calls("migrate") == [("a", "migrate")], "once, on one machine"
    assert fleet.calls("switch", "confirm")[:3] == [("c", "switch"), ("a", "switch"), ("b", "switch")]
    assert sorted(fleet.touched("confirm")) == ["a", "b", "c"]
    assert fleet.touched("revert") == []
    assert fleet.connections == fleet.held == set()
    assert set(fleet.persisted.values()) == {NEW}
    assert "/healthz" in fleet.site.paths
    assert result["release"] == NEW
    assert result["url"] == fleet.site.url
    assert result["machines"] == [{"name": n, "address": access(n).address} for n in "cab"]


def test_fifty_machines_give_their_leases_at_once_after_the_first(fleet: Fleet) -> None:
    """One after the other, the last ones would wait longer than an agent does for its lease to be asked for."""
    names = string.ascii_letters[:50]
    together = threading.Barrier(49)
    for name in set(names) - {min(names)}:
        fleet.faults[(name, "acquire lease")] = lambda _: together.wait(timeout=60)
    make_attempt(fleet, names).run()
    assert set(fleet.persisted.values()) == {NEW}
    assert next(name for name, command, *_ in fleet.log if command == "acquire lease") == min(names)


def test_a_lease_that_is_refused_switches_nothing(fleet: Fleet) -> None:
    fleet.faults[("b", "acquire lease")] = RolloutError("carol@laptop is rolling out a release here")
    assert failure(make_attempt(fleet)) == "carol@laptop is rolling out a release here"
    assert fleet.touched("prepare") == []
    assert fleet.connections == set()


def test_without_a_release_command_none_is_run(fleet: Fleet) -> None:
    fleet.release_command = False
    make_attempt(fleet).run()
    assert fleet.touched("migrate") == []


def test_each_switch_waits_for_the_confirms_of_the_whole_fleet(fleet: Fleet) -> None:
    make_attempt(fleet).run()
    switches = [entry for entry in fleet.log if entry[1] == "switch"]
    assert {entry[2:] for entry in switches} == {(NEW, "--deadline", "45")}
    assert all(entry[2] == NEW for entry in fleet.log if entry[1] in ("prepare", "migrate", "confirm"))


def test_all_machines_see_one_owner_and_one_attempt(fleet: Fleet) -> None:
    one, two = make_attempt(fleet), make_attempt(fleet)
    assert one.id != two.id
    one.run()
    owners = {entry[2] for entry in fleet.log if entry[1] == "acquire lease"}
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

    def switching(wave: list[str], before: list[str]) -> Callable[[FakeAgent], None]:
        meet = threading.Barrier(len(wave))

        def switch(agent: FakeAgent) -> None:
            meet.wait(timeout=30)  # passes only when the whole batch is there
            assert sorted(done[: len(before)]) == before
            with fleet.lock:
                done.append(agent.access.name)

        return switch

    names: list[str] = []
    for wave in waves:
        behaviour = switching(wave, sorted(names))
        names += wave
        fleet.faults |= {(name, "switch"): behaviour for name in wave}
    make_attempt(fleet, "abcde", batch=batch).run()
    assert sorted(done) == sorted(names) == list("abcde")


def test_all_machines_prepare_and_confirm_at_once(fleet: Fleet) -> None:
    for verb in ("prepare", "confirm"):
        meet = threading.Barrier(3)
        for name in "abc":
            fleet.faults[(name, verb)] = lambda agent, meet=meet: meet.wait(timeout=30)  # type: ignore[misc]
    make_attempt(fleet).run()


def test_the_receipt_has_all_steps(fleet: Fleet) -> None:
    made = make_attempt(fleet).run()["receipt"]
    assert (made["from"], made["to"]) == (OLD, NEW)
    assert made["failed"] == 0
    assert made["requests"] >= 1
    assert set(made["seconds"]) == {
        "hold the machines", "make sure it is staged", "release command", "switch", "ask the public URL", "confirm",
        "all",
    }  # fmt: skip
    assert all(s >= 0 for s in made["seconds"].values())


def test_the_first_release_has_no_visitors_to_count(fleet: Fleet) -> None:
    made = make_attempt(fleet, old=None).run()["receipt"]
    assert made["from"] is None
    assert (made["requests"], made["failed"]) == (0, 0)


def test_a_release_that_is_live_is_confirmed_anew_and_verified(fleet: Fleet) -> None:
    """Its confirm may have been killed half-way, with the old release still running."""
    fleet.site.release = NEW
    result = make_attempt(fleet, old=NEW).run()
    assert {entry[1] for entry in fleet.log} == {"connect", "acquire lease", "prepare", "confirm", "close"}
    assert sorted(fleet.touched("confirm")) == ["a", "b", "c"]
    assert result["receipt"]["from"] == result["receipt"]["to"] == NEW
    assert set(result["receipt"]["seconds"]) >= {"ask the public URL"}


def test_a_release_that_is_live_on_some_machines_is_switched_on_the_others(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.current["a"] = fleet.persisted["a"] = NEW
    fleet.in_rotation.add("a")
    make_attempt(fleet).run()
    assert (sorted(fleet.touched("switch")), sorted(fleet.touched("confirm"))) == (["b", "c"], ["a", "b", "c"])
    assert f"the machines differ (a {NEW}, b {OLD}, c {OLD}); this one settles it" in capsys.readouterr().err


def test_an_interrupted_attempt_is_reported_and_settled(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.current["b"] = NEW  # switched, never confirmed
    make_attempt(fleet).run()
    err = capsys.readouterr().err
    assert err.count("an interrupted attempt left") == 1
    assert f"b: an interrupted attempt left {NEW} unconfirmed; this one settles it" in err
    assert set(fleet.persisted.values()) == {NEW}


def test_going_back_warns_that_data_keeps_its_form(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.confirmed[NEW] = {"a", "b", "c"}
    make_attempt(fleet).run()
    assert "the release command is not run, so the data keeps its newer form" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ a fleet that changes


def test_a_machine_that_joins_is_the_only_one_that_switches(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    make_attempt(fleet, "bc", old=NEW)
    fleet.site.release = NEW
    fleet.current["a"] = fleet.persisted["a"] = None
    make_attempt(fleet, "abc").run()
    assert (fleet.touched("switch"), sorted(fleet.touched("confirm"))) == (["a"], ["a", "b", "c"])
    assert fleet.touched("migrate") == ["b"], "on a machine that knows that this release was live before"
    assert "going back" not in capsys.readouterr().err


def test_a_drained_machine_comes_back_into_rotation(fleet: Fleet) -> None:
    fleet.site.release = NEW
    made = make_attempt(fleet, old=NEW)
    fleet.in_rotation.remove("b")
    result = made.run()
    assert fleet.touched("switch") == []
    assert fleet.in_rotation == {"a", "b", "c"}
    assert "ask the public URL" in result["receipt"]["seconds"], "what changes something ends with a verified answer"


def test_machines_that_wait_for_others_are_extended(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "EXTEND_AFTER", -1.0)
    make_attempt(fleet).run()
    assert fleet.calls("switch", "extend", "confirm")[:3] == [("a", "switch"), ("a", "extend"), ("b", "switch")]
    before_confirm = [verb for _, verb in fleet.calls("switch", "extend", "confirm")].index("confirm")
    last = fleet.calls("switch", "extend", "confirm")[before_confirm - 3 : before_confirm]
    assert sorted(last) == [(name, "extend") for name in "abc"], "the whole time for each when the confirms begin"
    assert all(entry[2:] == (NEW, "--deadline", "45") for entry in fleet.log if entry[1] == "extend")


def test_a_quick_switch_is_not_extended(fleet: Fleet) -> None:
    make_attempt(fleet).run()
    assert fleet.touched("extend") == []


def test_a_machine_that_reverted_meanwhile_reverts_all(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "EXTEND_AFTER", -1.0)
    fleet.faults[("a", "extend")] = RolloutError("release is not live here any more")
    assert "not live here any more" in failure(make_attempt(fleet))
    assert fleet.touched("confirm") == []
    assert sorted(fleet.touched("revert")) == ["a"]


# ------------------------------------------------------------------------------------------------ behind a balancer


class Balanced:
    """A site whose answers come from the machines in rotation, one after the other."""

    def __init__(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, slow: int = 0) -> None:
        self.fleet, self.slow, self.asked = fleet, slow, 0
        monkeypatch.setattr(http_probe, "probe", self.probe)
        monkeypatch.setattr(timeouts, "ROUTING_TIMEOUT", -1.0)
        monkeypatch.setattr(timeouts, "URL_TIMEOUT", -1.0)
        monkeypatch.setattr(timeouts, "BALANCER_TIMEOUT", 5.0)

    def probe(self, url: str, timeout: float = 5.0, route: Route = BY_NAME) -> ProbeResult:
        self.asked += 1
        in_rotation = sorted(self.fleet.in_rotation)
        if not in_rotation or self.asked <= self.slow:
            return ProbeResult(status=503, release="", machine="", why="status 503", at=time.monotonic(), seconds=0.0)
        name = in_rotation[self.asked % len(in_rotation)]
        release = self.fleet.current[name] or ""
        return ProbeResult(
            status=self.fleet.site.status, release=release, machine=name, why="", at=time.monotonic(), seconds=0.0
        )


def test_a_first_release_is_confirmed_before_the_balancer_can_answer(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    Balanced(fleet, monkeypatch)
    result = make_attempt(fleet, old=None, balancer="managed").run()
    assert sorted(fleet.touched("confirm")) == ["a", "b", "c"]
    assert "ask the public URL" not in result["receipt"]["seconds"]
    assert "wait for the balancer" in result["receipt"]["seconds"]


def test_a_later_release_is_verified_before_its_confirm(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    Balanced(fleet, monkeypatch)
    result = make_attempt(fleet, balancer="managed").run()
    assert {"ask the public URL", "wait for the balancer"} <= result["receipt"]["seconds"].keys()
    assert result["receipt"]["requests"] >= 1


def test_a_balancer_without_a_machine_in_rotation_is_not_asked_before_the_confirm(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not answer, so asking would only take time while the machines hold their lease."""
    Balanced(fleet, monkeypatch)
    monkeypatch.setattr(attempt, "routes_to_us", lambda *_, **__: pytest.fail("it was asked"))
    make_attempt(fleet, old=None, balancer="managed").run()
    assert fleet.in_rotation == {"a", "b", "c"}


@pytest.mark.parametrize("balancer", [None, "managed", "external"])
def test_an_app_without_a_health_path_may_redirect(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, balancer: Literal["managed", "external"] | None
) -> None:
    """Everywhere where the public URL is asked, and in the receipt."""
    if balancer:
        Balanced(fleet, monkeypatch)
    fleet.needs_200, fleet.site.status = False, 404
    receipt = make_attempt(fleet, balancer=balancer).run()["receipt"]
    assert receipt["failed"] == 0
    fleet.needs_200 = True
    monkeypatch.setattr(timeouts, "URL_TIMEOUT", 0.0)
    monkeypatch.setattr(timeouts, "BALANCER_TIMEOUT", 0.0)
    with pytest.raises(RolloutError):
        make_attempt(fleet, balancer=balancer).run()


def test_machines_get_more_time_before_the_confirms(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL may have taken so long that a machine would revert during the confirms."""
    made = make_attempt(fleet)

    def wait(url: str, release: str, timeout: float, **options: Any) -> ProbeResult:
        for agent in made.agents:
            assert agent.revert_timer_set_at is not None
            agent.revert_timer_set_at -= protocol.EXTEND_AFTER + 1
        return http_probe.wait_for_release(url, release, timeout, **options)

    monkeypatch.setattr(attempt, "wait_for_release", wait)
    made.run()
    assert sorted(fleet.touched("extend")) == ["a", "b", "c"]


def test_a_balancer_has_minutes_to_find_its_machines() -> None:
    """The name of a new one has to be known, and each machine has to pass its health checks."""
    assert timeouts.BALANCER_TIMEOUT >= 180


def test_a_release_that_was_verified_is_not_asked_for_again_after_its_confirm(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure then would call a release "not live" that all machines keep."""
    confirmed_at: list[int] = []

    def wait(url: str, release: str, timeout: float, **options: Any) -> ProbeResult:
        confirmed_at.append(len(fleet.touched("confirm")))
        return http_probe.wait_for_release(url, release, timeout, **options)

    monkeypatch.setattr(attempt, "wait_for_release", wait)
    make_attempt(fleet).run()
    assert confirmed_at == [0]


def test_a_new_balancer_before_live_machines_is_waited_for(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    balanced = Balanced(fleet, monkeypatch, slow=3)
    make_attempt(fleet, balancer="managed").run()
    assert balanced.asked > 3
    assert set(fleet.persisted.values()) == {NEW}


def test_every_machine_must_answer_through_the_balancer(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    balanced = Balanced(fleet, monkeypatch)
    monkeypatch.setattr(timeouts, "BALANCER_TIMEOUT", 0.2)
    made = make_attempt(fleet, balancer="managed")
    real = balanced.probe

    def without_b(url: str, **_: Any) -> ProbeResult:
        while (seen := real(url)).machine == "b":
            pass
        return seen

    monkeypatch.setattr(http_probe, "probe", without_b)
    text = failure(made, NotInRotationError)
    assert "the balancer sent no request to b." in text
    assert fleet.touched("revert") == [], "it is live and confirmed: only visitors are missing"


def test_an_external_balancer_need_not_reach_every_machine(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    balanced = Balanced(fleet, monkeypatch)
    real = balanced.probe
    monkeypatch.setattr(http_probe, "probe", lambda url, **_: replace(real(url), machine=""))
    make_attempt(fleet, balancer="external").run()
    assert set(fleet.persisted.values()) == {NEW}


def test_the_wait_for_the_balancer_names_missing_machines(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Balanced(fleet, monkeypatch, slow=20)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    made = make_attempt(fleet, "ab", old=NEW, balancer="managed")
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
def test_a_switch_that_fails_is_reverted_wherever_one_began(fleet: Fleet, _: str, error: Exception, batch: int) -> None:
    fleet.faults[("b", "switch")] = error
    text = failure(make_attempt(fleet, batch=batch))
    assert str(error) in text
    begun = {1: ["a", "b"], 2: ["a", "b"], 3: ["a", "b", "c"]}[batch]
    assert sorted(fleet.touched("switch")) == begun
    assert sorted(fleet.touched("revert")) == begun, "also where the switch failed: it has touched the machine"
    assert fleet.touched("confirm") == []
    assert set(fleet.persisted.values()) == {OLD}
    assert {n: fleet.current[n] for n in begun if n != "b"} == {n: OLD for n in begun if n != "b"}
    assert fleet.connections == set()


def test_an_error_has_the_reasons_of_all_machines(fleet: Fleet) -> None:
    fleet.faults[("a", "switch")] = RolloutError("a: status 500")
    fleet.faults[("c", "switch")] = UnreachableError("c: no answer")
    assert failure(make_attempt(fleet, batch=3)) == "a: status 500\nc: no answer"


def test_equal_reasons_are_reported_once(fleet: Fleet) -> None:
    for name in "abc":
        fleet.faults[(name, "prepare")] = RolloutError("no such release")
    assert failure(make_attempt(fleet)) == "no such release"


@pytest.mark.parametrize(("status", "release"), [(200, OLD), (500, NEW), (200, "")])
def test_a_url_that_does_not_give_the_release_reverts_it(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, status: int, release: str
) -> None:
    monkeypatch.setattr(timeouts, "URL_TIMEOUT", -1.0)

    inner = FakeAgent.call

    def call(self: Any, command: str, *arguments: str, timeout: float = 60.0) -> dict[str, Any]:
        result = inner(self, command, *arguments, timeout=timeout)
        if command == "switch":
            fleet.site.status, fleet.site.release = status, release
        return result

    monkeypatch.setattr(FakeAgent, "call", call)
    text = failure(make_attempt(fleet))
    assert f"{fleet.site.url}/healthz gave status {status}" in text
    assert f"instead of 200 from release {NEW}" in text
    if release:
        assert f"from release {release}" in text
    assert sorted(fleet.touched("revert")) == ["a", "b", "c"]
    assert fleet.touched("confirm") == []
    assert set(fleet.current.values()) == {OLD}


def test_a_url_without_a_server_reverts_the_release(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "URL_TIMEOUT", -1.0)
    made = make_attempt(fleet)
    made.plan = Plan(release=NEW, machines=made.plan.machines, url="http://127.0.0.1:1", batch=1)
    assert "refused" in failure(made)
    assert sorted(fleet.touched("revert")) == ["a", "b", "c"]


@pytest.mark.parametrize("where", ["switch", "revert"])
def test_an_interruption_reverts_the_release(fleet: Fleet, where: str) -> None:
    fleet.faults[("b", "switch")] = KeyboardInterrupt()
    if where == "revert":
        fleet.faults[("a", "revert")] = UnreachableError("a: no answer")
    failure(make_attempt(fleet), KeyboardInterrupt)
    assert sorted(fleet.touched("revert")) == ["a", "b"]
    assert fleet.touched("confirm") == []
    assert fleet.connections == set()


def test_reverts_give_the_reason(fleet: Fleet) -> None:
    fleet.faults[("a", "switch")] = RolloutError("a: no")
    failure(make_attempt(fleet))
    assert [entry for entry in fleet.log if entry[1] == "revert"] == [
        ("a", "revert", "--because", "the attempt failed")
    ]


def test_a_failed_revert_does_not_stop_the_others(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.faults[("c", "switch")] = RolloutError("c: status 500")
    fleet.faults[("a", "revert")] = UnreachableError("a: no answer")
    assert failure(make_attempt(fleet)) == "c: status 500", "the first reason is the one that counts"
    assert sorted(fleet.touched("revert")) == ["a", "b", "c"]
    err = capsys.readouterr().err
    assert "a: no answer" in err
    assert "goes back by itself within 45 s" in err


def test_a_confirm_that_fails_is_not_reverted(fleet: Fleet) -> None:
    """Other machines may have confirmed, so a revert could leave two releases live. The next attempt settles it."""
    fleet.faults[("b", "confirm")] = UnreachableError("b: no answer")
    assert "b: no answer" in failure(make_attempt(fleet))
    assert sorted(fleet.touched("confirm")) == ["a", "b", "c"]
    assert fleet.touched("revert") == []
    assert fleet.persisted == {"a": NEW, "b": OLD, "c": NEW}
    fleet.faults.clear()
    fleet.log.clear()
    make_attempt(fleet).run()
    assert set(fleet.persisted.values()) == {NEW}


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_refused_lease_changes_nothing(fleet: Fleet, name: str) -> None:
    fleet.faults[(name, "acquire lease")] = RolloutError(
        "another release is being rolled out by carol@laptop since 12:00:00"
    )
    assert "carol@laptop" in failure(make_attempt(fleet))
    assert {entry[1] for entry in fleet.log} == {"connect", "acquire lease", "close"}
    assert fleet.connections == fleet.held == set()


@pytest.mark.parametrize("error", [UnreachableError("b: no answer"), MachineError("b shows another host key")])
def test_a_machine_that_cannot_be_reached_changes_nothing(fleet: Fleet, error: Exception) -> None:
    fleet.faults[("b", "connect")] = error
    text = failure(make_attempt(fleet))
    assert str(error) in text
    assert "Nothing was switched." in text
    assert {entry[1] for entry in fleet.log} == {"connect", "close"}
    assert fleet.connections == set()


def test_a_release_that_is_not_staged_changes_nothing(fleet: Fleet) -> None:
    fleet.faults[("b", "prepare")] = RolloutError("release bbbbbbbbbbbb is not on this machine; here are: aaaaaaaaaaaa")
    assert "here are: aaaaaaaaaaaa" in failure(make_attempt(fleet))
    assert {entry[1] for entry in fleet.log} == {"connect", "acquire lease", "prepare", "close"}


def test_a_release_command_that_fails_changes_nothing(fleet: Fleet) -> None:
    fleet.faults[("a", "migrate")] = RolloutError("the release command failed: flask db upgrade")
    assert "flask db upgrade" in failure(make_attempt(fleet))
    assert {entry[1] for entry in fleet.log} == {"connect", "acquire lease", "prepare", "migrate", "close"}


def test_a_live_release_whose_url_is_silent_fails(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `up` that changes something ends with a verified answer."""
    monkeypatch.setattr(timeouts, "URL_TIMEOUT", -1.0)
    fleet.site.status = 502
    assert "gave status 502" in failure(make_attempt(fleet, old=NEW))
    assert fleet.touched("revert") == []


def test_a_whole_attempt_over_ssh(site: Site) -> None:
    """With the real agent client, SSH session and URL; only the machine's program is a stand-in."""

    def answer(argv: list[str]) -> dict[str, Any]:
        output: dict[str, Any] = {"release": NEW}
        if argv[0] == "prepare":
            output |= {"health": "/up?x=1", "needs_200": True, "current": OLD, "persisted": OLD}
            output |= {"confirmed": False, "release_command": False, "in_rotation": True}
        if argv[0] == "switch":
            assert argv[2:4] == ["--deadline", "35"]
            site.release = NEW
        return {"stdout": json.dumps(output) + "\n"}

    program = AgentProgram(answer=answer)
    with Sshd(on_command=program).running() as sshd:
        plan = Plan(release=NEW, machines=(sshd.access(),), url=site.url, batch=1)
        made = Attempt(plan)
        made.id, made.owner = "attempt-1", "carol@laptop"
        result = made.run()
        assert [argv[0] for argv in program.argvs] == ["prepare", "switch", "confirm"]
        assert (sshd.connections, len(sshd.lines)) == (1, 1)
    assert result["machines"] == [{"name": "web-1", "address": "127.0.0.1"}]
    assert set(site.paths) == {"/up?x=1"}


# ------------------------------------------------------------------------------------------------ HTTPS


class Certificates:
    """Stands in for the agent's answer about a certificate, and for the public URL over HTTPS."""

    def __init__(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, **status: Any) -> None:
        self.status = {**NO_CERTIFICATE, **status}
        self.urls: list[str] = []
        self.works = True
        fleet.https = False
        fleet.certificate = self.status
        real = http_probe.probe

        def probe(url: str, *arguments: Any, **options: Any) -> ProbeResult:
            self.urls.append(url.rpartition("/")[0])
            if url.startswith("https:") and not self.works:
                return replace(real(url.replace("https:", "http:")), status=0, release="", why="connection refused")
            return real(url.replace("https:", "http:"), *arguments, **options)

        monkeypatch.setattr(http_probe, "probe", probe)
        monkeypatch.setattr(timeouts, "URL_TIMEOUT", 0.0)


LIVE = {"state": "live", "names": ["example.com"], "missing": [], "not_before": 0.0, "not_after": 7776000.0}


def test_a_certificate_that_comes_makes_the_url_https(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Certificates(fleet, monkeypatch, **LIVE)
    result = make_attempt(fleet, "a").run()
    secure = fleet.site.url.replace("http:", "https:")
    assert (result["url"], result["certificate"]) == (secure, made.status)
    assert made.urls[-1] == secure
    assert fleet.touched("certificate") == ["a"]
    order = [entry[1] for entry in fleet.log]
    assert order.index("certificate") > order.index("confirm"), "the site is up on HTTP first"


def test_a_site_with_a_certificate_is_asked_over_https_from_the_beginning(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Certificates(fleet, monkeypatch, **LIVE)
    fleet.https = True
    result = make_attempt(fleet, "a").run()
    assert set(made.urls) == {fleet.site.url.replace("http:", "https:")}
    assert result["url"].startswith("https:")


def test_what_the_machine_has_in_the_end_is_saved(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    Certificates(fleet, monkeypatch, **LIVE)
    fleet.saved_certificate = "bmV3"
    assert make_attempt(fleet, "a").run()["saved_certificate"] == "bmV3"
    calls = [entry[1:] for entry in fleet.log if entry[1].startswith("certificate")]
    assert calls == [("certificate",), ("certificate-save",)]


def test_a_takeover_orders_no_certificate(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name leads to the machine before, so the order would fail."""
    Certificates(fleet, monkeypatch, **LIVE)
    made = make_attempt(fleet, "a")
    made.plan = replace(made.plan, orders_certificate=False)
    made.run()
    assert fleet.touched("certificate") == []


def test_a_name_that_does_not_lead_here_fails_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "example.com leads to no address"
    Certificates(fleet, monkeypatch, state="waiting", cause="no-record", reason=reason)
    result = make_attempt(fleet, "a").run()
    assert result["url"] == fleet.site.url
    assert set(fleet.persisted.values()) == {NEW}
    assert f"HTTPS: {reason}" in capsys.readouterr().err


def test_a_machine_that_cannot_say_what_its_certificate_is_like_fails_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Certificates(fleet, monkeypatch)
    fleet.faults["a", "certificate"] = RolloutError("no answer within 120 s")
    result = make_attempt(fleet, "a").run()
    assert (result["url"], result["certificate"]) == (fleet.site.url, None)
    assert "HTTPS: no answer within 120 s\nThe machine tries again by itself." in capsys.readouterr().err


def test_https_that_does_not_work_is_an_error_after_the_release_is_live(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain HTTP leads visitors to it already."""
    Certificates(fleet, monkeypatch, **LIVE).works = False
    text = failure(make_attempt(fleet, "a"), HttpsError)
    assert "connection refused instead of 200" in text
    assert "Is port" in text
    assert fleet.touched("revert") == []
    assert set(fleet.persisted.values()) == {NEW}


RENEWAL: Renewal = {"names": ["example.com"], "days_left": 40, "help": "look at the record"}


def test_a_load_balancers_certificate_is_looked_at(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the balancer's own address, also before the name leads there."""
    shown: Any = {**NO_CERTIFICATE, **LIVE, "renewal": RENEWAL}
    asked: list[tuple[Any, ...]] = []

    def look(*arguments: Any) -> Any:
        asked.append(arguments)
        return shown

    monkeypatch.setattr(attempt, "shown_certificate", look)
    Balanced(fleet, monkeypatch)
    made = make_attempt(fleet, balancer="managed")
    made.plan = replace(made.plan, renewal=RENEWAL, address="203.0.113.9", root="PEM")
    result = made.run()
    assert result["certificate"] == shown
    assert asked == [("203.0.113.9", RENEWAL, "PEM")]
    assert "HTTPS: for example.com, valid for" in capsys.readouterr().err


def test_a_load_balancer_that_shows_no_certificate_here_fails_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The URL has answered; a proxy on the way may lead nowhere else."""
    monkeypatch.setattr(attempt, "shown_certificate", lambda *_: None)
    Balanced(fleet, monkeypatch)
    made = make_attempt(fleet, balancer="managed")
    made.plan = replace(made.plan, renewal=RENEWAL, address="203.0.113.9")
    assert made.run()["certificate"] is None
    assert "HTTPS: 203.0.113.9 shows this computer no valid certificate" in capsys.readouterr().err


def test_a_load_balancer_without_https_is_not_looked_at(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    Balanced(fleet, monkeypatch)
    monkeypatch.setattr(attempt, "shown_certificate", None)
    assert make_attempt(fleet, balancer="managed").run()["certificate"] is None


def test_a_machine_without_https_of_its_own_is_not_asked_for_a_certificate(fleet: Fleet) -> None:
    result = make_attempt(fleet, "a").run()
    assert (result["url"], result["certificate"]) == (fleet.site.url, None)
    assert fleet.touched("certificate") == []


def test_the_site_is_asked_by_the_route_of_the_plan(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the name leads to the machine, requests go there all the same; also those of the receipt."""
    routes: list[Route] = []
    real = http_probe.probe

    def probe(url: str, *_: Any, route: Route = BY_NAME, **__: Any) -> ProbeResult:
        routes.append(route)
        return real(fleet.site.url + "/healthz")

    monkeypatch.setattr(http_probe, "probe", probe)
    made = make_attempt(fleet, "a")
    made.plan = replace(made.plan, domain="name.invalid", address="203.0.113.7", root=None)
    made.run()
    assert len(routes) > 1
    assert set(routes) == {Route(connect_to="203.0.113.7", root=None)}
