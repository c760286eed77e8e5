"""The agent: requests, replies, heartbeats, and which requests are too late."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest

from decant_host import lease, paths
from decant_host.protocol import ECHO_TIMEOUT, REPLY_TIMEOUT
from tests.unit.decant_host.agent_process import START, AgentProcess
from tests.unit.decant_host.machine import Machine

TOO_LATE = r"decant-host {} is too late and is refused: .* {:.1f} s old, and the limit is 8 s\. Run pulumi up again\."


@pytest.fixture
def agent(machine: Machine) -> AgentProcess:
    """An agent that holds the lease."""
    made = AgentProcess(paths.RUN)
    made.hold()
    return made


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def test_every_line_carries_the_machines_clock(machine: Machine) -> None:
    agent = AgentProcess(paths.RUN)
    assert agent.message() == {"held": True, "clock": START}
    assert agent.message() == {"clock": START}
    agent.now += 1.5
    agent.heartbeat(START)
    assert agent.message() == {"clock": START + 1.5}
    agent.request(7, "status")
    assert agent.message()["clock"] == START + 1.5
    agent.finish()


def test_replies_carry_the_id_of_their_request(agent: AgentProcess, tmp_path: Path) -> None:
    agent.request(1, "wait", str(tmp_path / "go"))
    agent.request(2, "prepare", "it's \u00e4")
    reply = agent.message()
    assert {**reply, "stdout": json.loads(reply["stdout"])} == {
        "id": 2, "status": 0, "stdout": {"argv": ["it's \u00e4"]}, "stderr": "", "clock": START,
    }  # fmt: skip
    agent.heartbeat(START)
    assert agent.message() == {"clock": START}, "a slow command delays no heartbeat"
    (tmp_path / "go").touch()
    assert agent.message()["id"] == 1
    agent.request(3, "fail")
    reply = agent.message()
    assert (reply["id"], reply["status"], reply["stdout"], reply["stderr"]) == (3, 1, '{"argv": []}\n', "web-1: no\n")
    assert agent.finish() == ("", "")
    assert agent.process.returncode == 0


def test_a_command_that_is_killed_leaves_the_lease_alone(agent: AgentProcess) -> None:
    agent.request(1, "die")
    reply = agent.message()
    assert (reply["id"], reply["status"], reply["stdout"]) == (1, 1, "")
    assert re.search(r": decant-host die was killed by signal 9\. .*Run pulumi up again\.", reply["stderr"])
    agent.request(2, "raise", "an error of ours")
    reply = agent.message()
    assert reply["status"] == 1
    assert "ValueError: an error of ours" in reply["stderr"]
    lease.need_lease("one")
    agent.finish()


@pytest.mark.parametrize("end", ["input ends", "killed"])
def test_a_command_outlives_its_coordinator_and_the_lease_does_not(
    agent: AgentProcess, tmp_path: Path, end: str
) -> None:
    agent.request(1, "wait", str(tmp_path / "go"))
    wait_for(tmp_path / "go.waits")
    if end == "killed":
        agent.process.kill()
    assert agent.finish() == ("", "")
    assert lease.lease_holder() is None
    (tmp_path / "go").touch()
    wait_for(tmp_path / "go.done")


def test_a_coordinator_of_another_version_gets_an_error_that_says_so(machine: Machine) -> None:
    """Its heartbeats were empty lines once."""
    agent = AgentProcess(paths.RUN, ask_for_lease=False)
    agent.send("")
    out, err = agent.finish()
    assert out == ""
    assert err.startswith("the coordinator speaks another version of the protocol than this machine.")
    assert lease.lease_holder() is None


def test_an_agent_waits_longer_for_its_first_line_than_for_the_others(machine: Machine) -> None:
    """The coordinator logs in to all machines before it asks the first one for its lease."""
    agent = AgentProcess(paths.RUN, ask_for_lease=False, lease_timeout=0.1, real_clock=True)
    time.sleep(0.5)
    agent.heartbeat(0)
    agent.hold()
    assert agent.line() == "", "it has given the lease back"
    hasty = AgentProcess(paths.RUN, ask_for_lease=False, first_line_timeout=0.1, real_clock=True)
    assert hasty.line() == ""
    assert hasty.process.wait(timeout=60) == 0


# ------------------------------------------------------------------------------------------------ late requests


@pytest.mark.parametrize("command", ["prepare", "migrate", "switch", "extend", "confirm", "revert"])
def test_a_late_request_is_refused_for_every_command(agent: AgentProcess, command: str) -> None:
    agent.now = START + 11.3
    agent.request(1, command, "bbbbbbbbbbbb", "--attempt", "one", echo=START)
    reply = agent.message()
    assert (reply["id"], reply["status"], reply["stdout"]) == (1, 1, "")
    assert re.fullmatch(r"[\w.-]+: " + TOO_LATE.format(command, 11.3), reply["stderr"])
    agent.finish()


@pytest.mark.parametrize(("age", "status"), [(0.0, 0), (7.9, 0), (8.0, 0), (8.1, 1)])
def test_a_request_is_refused_once_its_echo_is_older_than_the_timeout(
    agent: AgentProcess, age: float, status: int
) -> None:
    agent.now = START + age
    agent.request(1, "switch", echo=START)
    assert agent.message()["status"] == status
    agent.finish()


def test_a_request_before_any_echo_is_refused(machine: Machine) -> None:
    agent = AgentProcess(paths.RUN, ask_for_lease=False)
    agent.request(1, "switch", echo=0)
    assert agent.message()["held"] is True
    reply = agent.message()
    assert reply["status"] == 1
    assert "decant-host switch is refused, because it came before the coordinator had echoed" in reply["stderr"]
    agent.finish()


@pytest.mark.parametrize("echo", [START + 3600, float("nan"), -1.0])
def test_an_echo_that_the_machine_cannot_have_sent_does_not_count(agent: AgentProcess, echo: float) -> None:
    agent.request(1, "switch", echo=echo)
    assert agent.message()["status"] == 1
    agent.now = START + 5
    agent.heartbeat(START + 4)
    agent.message()
    agent.request(2, "switch", echo=echo)
    assert agent.message()["status"] == 0, "the newest echo that counts is 1 s old"
    agent.finish()


@pytest.mark.parametrize(("heard", "status"), [(False, 1), (True, 0)], ids=["cut off", "heard"])
def test_a_command_that_waited_for_a_lock_is_refused_once_its_coordinator_is_late(
    agent: AgentProcess, tmp_path: Path, heard: bool, status: int
) -> None:
    agent.request(1, "lock", str(tmp_path / "go"))
    wait_for(tmp_path / "go.waits")
    agent.now = START + 8.5
    if heard:
        agent.heartbeat(START + 6.5)
        assert agent.message() == {"clock": START + 8.5}
    (tmp_path / "go").touch()
    reply = agent.message()
    assert reply["status"] == status
    assert heard or re.fullmatch(TOO_LATE.format("lock", 8.5) + "\n", reply["stderr"])
    assert (tmp_path / "go.done").exists() == heard
    agent.finish()


def test_no_request_is_carried_out_for_a_coordinator_that_may_have_given_up(agent: AgentProcess) -> None:
    """200 requests at random delays on both ways, with late heartbeats before them."""
    chance = random.Random(14)
    carried_out = given_up = 0
    for number in range(200):
        echoed = agent.now = agent.now + 20
        agent.heartbeat(echoed)
        assert agent.message() == {"clock": echoed}
        there = chance.choice([0.0, 0.1, chance.uniform(0, 6)])
        late = chance.uniform(ECHO_TIMEOUT - 2, REPLY_TIMEOUT + 4)  # from the coordinator's receipt to the arrival
        agent.now = echoed + there + late
        heartbeats = [json.dumps({"clock": echoed})] * chance.randrange(3)
        agent.send(*heartbeats, json.dumps({"id": number, "argv": ["switch"], "clock": echoed}))
        replies = [agent.message() for _ in range(len(heartbeats) + 1)]
        refused = replies[-1]["status"] == 1
        assert refused == (there + late > ECHO_TIMEOUT), (there, late)
        if late >= REPLY_TIMEOUT:
            given_up += 1
            assert refused, (there, late)
        carried_out += not refused
    assert given_up > 50
    assert carried_out > 20
    agent.finish()
