"""A rehearsal's run of the program: what it passes on, and what it reports."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest

from decant import program
from rehearsal import runner
from rehearsal.errors import RehearsalError, StepFailedError, StoppedError
from rehearsal.machines.network import Network
from rehearsal.progress import Progress
from rehearsal.throwaway_backend import ThrowawayBackend
from tests.support.in_memory import REPOSITORY


@pytest.fixture(autouse=True)
def this_process_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The runner changes the current folder, the signals and Pulumi's runtime of the process."""
    monkeypatch.chdir(Path.cwd())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    pulumi.runtime.set_all_config({}, [])
    pulumi.runtime.reset_options()


def run(monkeypatch: pytest.MonkeyPatch, body: Any) -> tuple[dict[str, Any], str]:
    """The outputs of a program with this body, and its rehearsal's network."""
    monkeypatch.setattr(program, "run", body)
    backend = ThrowawayBackend(Network(name="paper"), Progress())
    monkeypatch.setattr(Network, "cidr", "198.51.100.32/27")
    return runner.run_program("paper", {}, [], backend), backend.network.cidr


def test_the_program_gets_the_networks_of_the_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def body(**options: Any) -> None:
        seen.append((options, Path.cwd(), pulumi.get_stack()))
        pulumi.export("url", "http://198.51.100.34")

    outputs, network = run(monkeypatch, body)
    assert seen == [
        ({"example_networks": [network], "extra_names": ("localhost", "127.0.0.1")}, REPOSITORY / "infra", "paper")
    ]
    assert outputs == {"url": "http://198.51.100.34"}


def test_a_clouds_variables_do_not_reach_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "canary")
    seen: list[str] = []
    run(monkeypatch, lambda **_: seen.extend(os.environ))
    assert seen
    assert not {"AWS_PROFILE", "DIGITALOCEAN_TOKEN"} & set(seen)


def test_a_problem_of_the_settings_is_reported_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(**_: Any) -> None:
        raise pulumi.RunError("1 problem in the settings")

    with pytest.raises(RehearsalError, match=r"^1 problem in the settings$"):
        run(monkeypatch, body)


def test_every_step_that_failed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ThrowawayBackend(Network(name="paper"), Progress())
    monkeypatch.setattr(Network, "cidr", "198.51.100.32/27")

    def body(**_: Any) -> None:
        backend.failures += ["web-1-stage failed:\nno space", "web-2-stage failed:\nno answer"]
        raise StepFailedError("no space")

    monkeypatch.setattr(program, "run", body)
    with pytest.raises(RehearsalError) as caught:
        runner.run_program("paper", {}, [], backend)
    assert str(caught.value) == "web-1-stage failed:\nno space\n\nweb-2-stage failed:\nno answer"


def test_after_an_interruption_no_new_step_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ThrowawayBackend(Network(name="paper"), Progress())
    monkeypatch.setattr(Network, "cidr", "198.51.100.32/27")
    monkeypatch.setattr(program, "run", lambda **_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        runner.run_program("paper", {}, [], backend)
    with pytest.raises(StoppedError):
        backend.local("step", "true", "")


def test_what_the_program_logs_is_shown_among_the_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(**_: Any) -> None:
        pulumi.log.debug("nothing for people")
        pulumi.log.info("The app in app/:\n  entry point  wsgi:app")
        pulumi.log.warn("no hashes")

    run(monkeypatch, body)
    lines = capsys.readouterr().out.splitlines()
    assert [line[10:] for line in lines] == ["The app in app/:", "  entry point  wsgi:app", "warning: no hashes"]
    assert lines[1].startswith(10 * " ")
