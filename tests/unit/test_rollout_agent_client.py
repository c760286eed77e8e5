"""A machine's agent, called over a real SSH connection to a server in memory."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from decant.errors import MachineError, RolloutError, UnreachableError
from decant.host.steps import PROGRAM
from decant.rollout import agent_client, timeouts
from decant.rollout.agent_client import MachineAgent, run_on_all
from decant.ssh.client import Session
from decant_host import protocol
from tests.support.fake_agent_program import AgentProgram
from tests.support.fake_fleet import NEW, access
from tests.support.in_memory_sshd import Run, Sshd


@contextlib.contextmanager
def held(sshd: Sshd) -> Iterator[MachineAgent]:
    """A machine whose lease is held."""
    agent = MachineAgent(sshd.access(), "attempt-1", "carol@laptop")
    try:
        agent.acquire_lease()
        yield agent
    finally:
        agent.close()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    pause = threading.Event()
    for _ in range(6000):
        if condition():
            return
        pause.wait(0.005)
    pytest.fail(f"{what} did not come")


# ------------------------------------------------------------------------------------------------ commands


def test_a_connection_whose_agent_does_not_start_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Session] = []

    def breaks(self: Session, command: str) -> None:
        raise UnreachableError("the connection broke")

    close = Session.close

    def note(self: Session) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(Session, "start", breaks)
    monkeypatch.setattr(Session, "close", note)
    broken = pytest.raises(UnreachableError, match="the connection broke")
    with Sshd(on_command=AgentProgram()).running() as sshd, broken:
        MachineAgent(sshd.access(), "attempt-1", "carol@laptop")
    assert len(closed) == 1


def test_an_agents_threads_do_not_keep_the_process_alive() -> None:
    with Sshd(on_command=AgentProgram()).running() as sshd:
        before = set(threading.enumerate())
        with held(sshd):
            assert [thread for thread in threading.enumerate() if thread not in before and not thread.daemon] == []


def test_a_heartbeat_does_not_break_into_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's thread sends heartbeats while other threads send requests."""
    with Sshd(on_command=AgentProgram()).running() as sshd, held(sshd) as agent:
        sending = threading.Lock()
        overlaps: list[bool] = []

        def sendall(data: bytes) -> None:
            overlaps.append(not sending.acquire(blocking=False))
            threading.Event().wait(0.05)
            sending.release()

        monkeypatch.setattr(agent.channel, "sendall", sendall)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(agent._send, [{}, {}]))
        monkeypatch.undo()
    assert len(overlaps) >= 2
    assert not any(overlaps)


def test_a_call_names_its_attempt() -> None:
    with Sshd(on_command=AgentProgram()).running() as sshd, held(sshd) as agent:
        assert agent.call("prepare", NEW) == {"arguments": [NEW, "--attempt", "attempt-1"]}


def test_a_command_that_fails_gives_the_machines_reason() -> None:
    with Sshd(on_command=AgentProgram()).running() as sshd, held(sshd) as agent:
        with pytest.raises(RolloutError) as caught:
            agent.confirm(NEW)
        assert str(caught.value) == "web-1: release x is not live here any more\n  Run pulumi up again."
        with pytest.raises(RolloutError, match=r"web-1 \(.*\): revert failed and gave no reason"):
            agent.revert("it was asked for")


def test_each_command_has_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def call(self: MachineAgent, command: str, *arguments: str) -> dict[str, Any]:
        calls.append((command, *arguments))
        return {}

    monkeypatch.setattr(MachineAgent, "call", call)
    with Sshd(on_command=AgentProgram()).running() as sshd, held(sshd) as agent:
        times = [agent.revert_timer_set_at]
        agent.prepare(NEW)
        agent.migrate(NEW)
        times.append(agent.revert_timer_set_at)
        agent.switch(NEW, 35)
        times.append(agent.revert_timer_set_at)
        agent.extend(NEW, 35)
        times.append(agent.revert_timer_set_at)
        agent.confirm(NEW)
        agent.revert("why")
    assert times[:2] == [None, None]
    assert times[2] is not None
    assert times[3] is not None
    assert times[2] <= times[3]
    assert calls == [
        ("prepare", NEW),
        ("migrate", NEW),
        ("switch", NEW, "--deadline", "35"),
        ("extend", NEW, "--deadline", "35"),
        ("confirm", NEW),
        ("revert", "--because", "why"),
    ]


def test_arguments_arrive_unchanged_and_root_needs_no_sudo() -> None:
    because = 'it\'s $(id); "done"\n'
    for user, before in (("carol", ["sudo", "-n"]), ("root", [])):
        program = AgentProgram()
        with Sshd(on_command=program, user=user).running() as sshd, held(sshd) as agent:
            assert agent.call("prepare", "--because", because)["arguments"][1] == because
        assert program.argvs == [["prepare", "--because", because, "--attempt", "attempt-1"]]
        assert [shlex.split(line)[: len(before) + 1] for line in sshd.lines] == [[*before, PROGRAM]]


def test_calls_at_the_same_time_get_their_own_replies() -> None:
    class Late(AgentProgram):
        """Answers the first request after the second."""

        def handle(self, run: Run, request: dict[str, Any]) -> None:
            if waiting:
                super().handle(run, request)
                super().handle(run, waiting.pop())
            else:
                waiting.append(request)

    waiting: list[dict[str, Any]] = []
    with Sshd(on_command=Late()).running() as sshd, held(sshd) as agent, ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda argument: agent.call("prepare", argument)["arguments"][0], ["first", "second"])
        assert list(found) == ["first", "second"]


def test_a_command_that_takes_too_long_is_given_up_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "reply_timeout", {"switch": 0.01, "prepare": 25.0}.__getitem__)

    class Slow(AgentProgram):
        def handle(self, run: Run, request: dict[str, Any]) -> None:
            if request["argv"][0] != "switch":
                super().handle(run, request)

    with Sshd(on_command=Slow()).running() as sshd, held(sshd) as agent:
        with pytest.raises(UnreachableError, match=r"during switch: no answer within 0 s\. Run pulumi up again\."):
            agent.call("switch", NEW)
        assert agent.call("prepare", NEW)


# ------------------------------------------------------------------------------------------------ freshness


def test_the_first_line_is_a_heartbeat_that_asks_for_the_lease() -> None:
    program = AgentProgram()
    with Sshd(on_command=program).running() as sshd, held(sshd):
        assert program.received[0] == {"clock": 0.0}


def test_the_first_line_after_the_lease_echoes_the_clock_that_came_with_it() -> None:
    program = AgentProgram()
    with Sshd(on_command=program).running() as sshd, held(sshd):
        wait_for(lambda: len(program.received) == 2, "the first heartbeat")
    assert program.received[1] == {"clock": 1001.0}


def test_every_line_echoes_the_newest_clock_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the machine refuses the request: a request of old is one that the network delivered late."""
    monkeypatch.setattr(protocol, "HEARTBEAT_INTERVAL", 60.0)
    program = AgentProgram()
    with Sshd(on_command=program).running() as sshd, held(sshd) as agent:
        wait_for(lambda: len(program.received) == 2, "the first heartbeat")
        for _ in range(3):
            clock = program.clock
            wait_for(lambda clock=clock: agent._clock == clock, "the machine's clock")  # type: ignore[misc]
            agent.call("prepare", NEW)
            assert program.received[-1]["clock"] == clock


def test_the_echo_is_never_older_than_the_newest_clock() -> None:
    agent = MachineAgent.__new__(MachineAgent)
    agent._clock, agent._pending = 7.0, {}
    agent._handle({"clock": 5.0})
    assert agent._clock == 7.0
    agent._handle({"clock": 9.0})
    assert agent._clock == 9.0


class SilentMachine:
    """A clock and a channel to a machine that answers until `silent_from`; time passes only in `recv`."""

    def __init__(self, silent_from: float) -> None:
        self.now = 1000.0
        self.silent_from = silent_from
        self.sent: list[tuple[float, dict[str, Any]]] = []
        self.answers = 0

    def monotonic(self) -> float:
        return self.now

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds

    def sendall(self, data: bytes) -> None:
        self.sent.append((self.now - 1000, json.loads(data)))
        self.answers += 1

    def recv(self, _: int) -> bytes:
        if self.answers and self.now < 1000 + self.silent_from:
            self.answers -= 1
            return json.dumps({"clock": self.now}).encode() + b"\n"
        self.now += self.timeout
        raise TimeoutError


@pytest.mark.parametrize("silent_from", [0.0, 7.0])
def test_heartbeats_keep_their_interval_and_silence_ends_them(
    monkeypatch: pytest.MonkeyPatch, silent_from: float
) -> None:
    machine = SilentMachine(silent_from)
    monkeypatch.setattr(agent_client, "time", machine)
    agent = MachineAgent.__new__(MachineAgent)
    agent.channel, agent._clock, agent._unread, agent._pending = machine, 0.0, b"", {}
    agent._sending = threading.Lock()
    assert agent._read_until_end() == "no sign of life any more. Run pulumi up again."
    interval = protocol.HEARTBEAT_INTERVAL
    heard = silent_from // interval * interval  # the last heartbeat that got an answer
    assert machine.now - 1000 == heard + protocol.REPLY_TIMEOUT
    assert [at for at, _ in machine.sent] == [n * interval for n in range(int((heard + 12) / interval))]
    assert {tuple(message) for _, message in machine.sent} == {("clock",)}


def test_a_lease_is_kept_by_heartbeats_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_INTERVAL", 0.005)
    program = AgentProgram()
    with Sshd(on_command=program).running() as sshd:
        with held(sshd):
            wait_for(lambda: len(program.received) >= 5, "heartbeats")
            assert not program.ended.is_set()
        assert program.ended.wait(timeout=30), "the lease was not given back"
    assert {tuple(message) for message in program.received} == {("clock",)}


# ------------------------------------------------------------------------------------------------ a connection ends


def test_a_machine_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEARTBEAT_INTERVAL", 0.005)
    monkeypatch.setattr(protocol, "REPLY_TIMEOUT", 0.1)
    over = threading.Event()

    def silent(run: Run) -> int:
        run.say('{"held": true, "clock": 1.0}\n')
        over.wait(timeout=30)
        return 0

    with Sshd(on_command=silent).running() as sshd, held(sshd) as agent:
        with pytest.raises(
            UnreachableError, match=r"web-1 .*, during switch: no sign of life any more\. Run pulumi up again"
        ):
            agent.call("switch", NEW)
        with pytest.raises(UnreachableError, match=r"during revert: no sign of life any more"):
            agent.call("revert")
        over.set()


@pytest.mark.parametrize("text", ["web-1: decant-host lease was killed by signal 9. Run pulumi up again.", ""])
def test_an_agent_that_ends_during_a_command_is_named(text: str) -> None:
    class Killed(AgentProgram):
        def handle(self, run: Run, request: dict[str, Any]) -> None:
            run.say(text, error=True)
            raise EOFError

    expected = re.escape(text or "the connection closed. Run pulumi up again.")

    def ends(run: Run) -> int:
        with contextlib.suppress(EOFError):
            Killed()(run)
        return 137

    with Sshd(on_command=ends).running() as sshd, held(sshd) as agent:
        for command in ("switch", "revert"):
            with pytest.raises(UnreachableError, match=f"during {command}: {expected}"):
                agent.call(command, NEW)


@pytest.mark.parametrize("line", ['{"id": 77, "clock": 2.0}', "{}", "no JSON at all", "[1]", '{"clock": null}'])
def test_a_line_that_is_no_reply_ends_the_connection(line: str) -> None:
    class Mad(AgentProgram):
        def handle(self, run: Run, request: dict[str, Any]) -> None:
            run.say(line + "\n")

    expected = re.escape(f"during switch: it sent a line that is no reply: {line!r}. Run pulumi up again.")
    with (
        Sshd(on_command=Mad()).running() as sshd,
        held(sshd) as agent,
        pytest.raises(UnreachableError, match=expected),
    ):
        agent.call("switch", NEW)


# ------------------------------------------------------------------------------------------------ no lease


def test_a_lease_that_is_refused_says_who_holds_it() -> None:
    def refuse(run: Run) -> int:
        run.say("web-1: another release is being rolled out by dave@ci since 12:00:00\n", error=True)
        return 1

    message = "rolled out by dave@ci since 12:00:00"
    with Sshd(on_command=refuse).running() as sshd, pytest.raises(RolloutError, match=message), held(sshd):
        pass


def test_a_connection_that_breaks_before_the_lease_is_an_error() -> None:
    def hang_up(run: Run) -> int:
        run.channel.get_transport().close()
        return 0

    with Sshd(on_command=hang_up).running() as sshd, pytest.raises((RolloutError, MachineError)), held(sshd):
        pass


def test_a_machine_that_prints_nothing_gives_no_lease() -> None:
    message = "gave no lease and no reason"
    with Sshd().running() as sshd, pytest.raises(RolloutError, match=message), held(sshd):
        pass


def test_a_machine_that_never_answers_gives_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "LEASE_REPLY_TIMEOUT", 0.05)
    monkeypatch.setattr(timeouts, "CLOSE_TIMEOUT", 0.05)
    over = threading.Event()
    message = "no answer to the request for its lease"
    with Sshd(on_command=lambda run: int(over.wait(30))).running() as sshd:
        with pytest.raises(UnreachableError, match=message), held(sshd):
            pass
        over.set()


@pytest.mark.parametrize("noise", ["Welcome to web-1!\n", "Welcome! ", "\n", "7\n"])
def test_a_login_shell_that_prints_text_is_named(noise: str) -> None:
    class Noisy(AgentProgram):
        def __call__(self, run: Run) -> int:
            run.say(noise)
            return super().__call__(run)

    with Sshd(on_command=Noisy()).running() as sshd, pytest.raises(MachineError) as caught, held(sshd):
        pass
    assert "login shell of user carol" in str(caught.value)
    assert "~/.bashrc" in str(caught.value)


# ------------------------------------------------------------------------------------------------ all machines


class Named(MachineAgent):
    """No machine but its name."""

    def __init__(self, name: str) -> None:
        self.access = access(name)


def test_run_on_all_keeps_the_order_and_waits_for_all() -> None:
    agents = [Named(name) for name in "cab"]
    assert run_on_all(agents, lambda agent: agent.access.name * 2) == ["cc", "aa", "bb"]
    assert run_on_all([], lambda agent: agent) == []
    done: list[str] = []

    def action(agent: MachineAgent) -> None:
        if agent.access.name == "a":
            raise RolloutError("a: no")
        done.append(agent.access.name)

    with pytest.raises(RolloutError, match="a: no"):
        run_on_all(agents, action)
    assert sorted(done) == ["b", "c"]


def test_run_on_all_does_not_hide_a_fault_of_the_program() -> None:
    def action(agent: MachineAgent) -> None:
        raise {"a": RolloutError("a: no"), "b": ZeroDivisionError()}[agent.access.name]

    with pytest.raises(ZeroDivisionError):
        run_on_all([Named("a"), Named("b")], action)
