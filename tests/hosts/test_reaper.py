"""Networks end with their owner: tests that are stopped in any way leave no machine, mount, interface or rule."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal import __main__ as rehearsal
from rehearsal.machines.network import Network
from rehearsal.machines.reaper import abandoned_networks, owned_network
from rehearsal.this_host import locked, wait
from tests.support.project_copy import REPOSITORY
from tests.support.traces import command_line, traces

TESTS = """
import time
from pathlib import Path

import pytest

from rehearsal.machines.reaper import owned_network


@pytest.fixture(scope="session")
def network():
    with owned_network("reaped") as network:
        yield network


def test_takes_long(network):
    network.boot("one", flavour="bare")
    Path(__file__).with_name("booted").touch()
    time.sleep(600)
"""
ENDS_WITHIN = 60.0  # seconds; a process of xdist ends up to 15 s after the one that started it


def descendants(pid: int) -> Iterator[int]:
    """Yield the ids of a process's children, and of theirs."""
    with contextlib.suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from descendants(child)


@contextlib.contextmanager
def running_tests(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run pytest on a test that boots a machine; the block begins when the machine runs."""
    (folder / "test_one.py").write_text(TESTS)
    (folder / "booted").unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "--tb=native", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    with (folder / "log").open("wb") as log:
        tests = subprocess.Popen(
            [*argv, *options, str(folder / "test_one.py")],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=_take_interrupts,
        )  # fmt: skip
    try:
        wait((folder / "booted").exists, 300, "no machine was booted")
        yield tests
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(tests.pid, signal.SIGKILL)
        tests.wait()


def _take_interrupts() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network(name="reaped")
    with locked("tests-reaped"):  # left by a run of these tests that failed
        network.down()
    yield network
    with locked("tests-reaped"):
        network.down()


def leftovers(network: Network, before: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there now and was not before."""
    return {kind: found - before[kind] for kind, found in traces(network).items() if found - before[kind]}


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two processes"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_tests_that_are_stopped_leave_nothing(
    number: signal.Signals, options: tuple[str, ...], network: Network, tmp_path: Path
) -> None:
    before = traces(network)
    with running_tests(tmp_path, *options) as tests:
        assert set(leftovers(network, before)) >= {"links", "tables", "files", "processes", "groups"}
        assert network.name not in [found.name for found in abandoned_networks()]
        if number == signal.SIGINT:
            os.killpg(tests.pid, number)  # as a terminal does
        else:
            tests.send_signal(number)
        tests.wait(timeout=ENDS_WITHIN)
        wait(lambda: leftovers(network, before) == {}, ENDS_WITHIN, f"still there: {leftovers(network, before)}")


def test_try_down_removes_what_a_kill_of_everything_left(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = traces(network)
    with owned_network("reaped-not") as other, running_tests(tmp_path) as tests:
        reapers = [pid for pid in descendants(tests.pid) if "rehearsal.machines.reaper" in command_line(pid)]
        assert len(reapers) == 1
        for pid in (*reapers, tests.pid):
            os.kill(pid, signal.SIGKILL)
        tests.wait()
        assert set(leftovers(network, before)) >= {"links", "files", "processes"}, "nobody took it down"
        abandoned = [found.name for found in abandoned_networks()]
        assert network.name in abandoned
        assert other.name not in abandoned, "the tests that it belongs to still run"
        # Other networks on this computer are not this test's to remove.
        monkeypatch.setattr(rehearsal, "abandoned_networks", lambda: [network])
        monkeypatch.setattr(rehearsal, "NETWORK", network.name)
        rehearsal.down()
        assert leftovers(network, before) == {}
        assert other.is_up


def test_a_network_that_another_process_owns_is_waited_for(network: Network, tmp_path: Path) -> None:
    """The next owner begins when the machines of the one before are gone, and its own are not taken down with them."""
    program = """
from rehearsal.machines.reaper import owned_network
with owned_network("reaped") as network:
    print(network.machines(), network.is_up)
"""
    second = [sys.executable, "-c", program]
    with (
        running_tests(tmp_path) as tests,
        subprocess.Popen(second, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as owner,
    ):
        tests.terminate()
        output, _ = owner.communicate(timeout=ENDS_WITHIN)
        assert output == "[] True\n"
