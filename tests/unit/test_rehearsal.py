"""The parts of a rehearsal that need no machine: its steps, its locks, and what the program it runs can see."""

from __future__ import annotations

import os
import subprocess
import threading
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from rehearsal import __main__ as rehearsal
from rehearsal import this_host
from rehearsal.backend import Check
from rehearsal.balancer import configuration
from rehearsal.errors import StepFailedError, StoppedError
from rehearsal.machines.network import Network
from rehearsal.progress import Progress
from rehearsal.this_host import is_locked, locked
from rehearsal.throwaway_backend import ThrowawayBackend


@pytest.fixture
def backend() -> ThrowawayBackend:
    """A backend whose network is down: it can run commands here."""
    return ThrowawayBackend(Network(name="unit"), Progress())


# ------------------------------------------------------------------------------------------------ steps


def test_after_a_failed_step_no_new_step_begins(backend: ThrowawayBackend, tmp_path: Path) -> None:
    with pytest.raises(StepFailedError, match="the reason"):
        backend.local("first", "echo the reason; exit 3", "")
    with pytest.raises(StoppedError, match="second"):
        backend.local("second", f"touch {tmp_path}/begun", "")
    assert list(tmp_path.iterdir()) == []
    assert backend.failures == ["first failed:\nthe reason"], "the second did not fail"


def test_a_local_step_runs_in_a_session_that_ctrl_c_does_not_reach(backend: ThrowawayBackend) -> None:
    shell, session = backend.local("step", "cut -d' ' -f1,6 /proc/$$/stat", "").stdout.split()
    assert session == shell
    assert int(session) != os.getsid(0)


def test_a_local_step_gets_its_standard_input_and_the_programs_folder(backend: ThrowawayBackend) -> None:
    assert backend.local("step", "cat; pwd", "given\n").stdout.split("\n")[:2] == [
        "given", str(Path(rehearsal.__file__).parents[1] / "infra")
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ locks


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_host, "_LOCKS", tmp_path / "locks")


@pytest.mark.usefixtures("locks")
def test_a_lock_has_one_holder_and_others_wait_for_it() -> None:
    order: list[str] = []

    def second() -> None:
        with locked("one"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked("one"):
        assert is_locked("one")
        assert not is_locked("another")
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert not is_locked("one")


@pytest.mark.usefixtures("locks")
def test_shared_holders_of_a_lock_keep_others_out_but_not_each_other() -> None:
    with locked("one", shared=True):
        with locked("one", shared=True, blocking=False):
            pass
        with pytest.raises(BlockingIOError), locked("one", blocking=False):
            pass


@pytest.mark.usefixtures("locks")
def test_a_process_that_inherits_a_lock_holds_it_until_it_ends() -> None:
    with locked("one") as lock:
        heir = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock])
    assert is_locked("one")
    heir.communicate()
    assert not is_locked("one")


# ------------------------------------------------------------------------------------------------ networks


def test_the_balancer_sends_no_request_a_second_time() -> None:
    """tests/hosts/test_balancer.py has the effect: a refused connection is 503 for the visitor."""
    check = Check(path="/up", interval=10, timeout=5, rise=2, fall=3, idle=60, keepalive=True)
    lines = [line.strip() for line in configuration(check).splitlines()]
    assert [line for line in lines if line.startswith("retries")] == ["retries 0"]
    assert not [line for line in lines if "redispatch" in line or line.startswith("retry-on")]


def test_private_addresses_are_unique_also_where_one_network_contains_another(backend: ThrowawayBackend) -> None:
    networks = ["10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16"]
    claimed = [backend._claim(network) for network in networks]
    assert len(set(claimed)) == len(claimed)
    assert all(ip_address(address) in ip_network(network) for address, network in zip(claimed, networks, strict=True))
    assert "10.0.0.1" not in claimed, "it is the router's"


@pytest.mark.parametrize("hosts", [None, "a.example.com", ["a.example.com"], [{"address": "a"}, 7]])
def test_malformed_hosts_are_left_for_the_program_to_refuse(hosts: Any) -> None:
    config = {"decant:hosts": hosts}
    network = Network(name="unit")  # it is down, so a boot would raise
    assert rehearsal._stand_in_hosts(config, set(), network, Progress()) == []
    assert config == {"decant:hosts": hosts}


def test_names_are_listed_with_commas_and_an_and() -> None:
    found = [rehearsal._listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])]
    assert found == ["", "a", "a and b", "a, b and c"]
