"""The ladder of a rollout's times: what waits for something waits longer than that takes, at both ends.

Each time stands in decant_host.protocol alone, and both ends import it from there.
"""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from decant.clouds import aws, digitalocean
from decant.clouds.aws import balancer as aws_balancer
from decant.clouds.digitalocean import balancer as digitalocean_balancer
from decant.host import render
from decant.rollout import timeouts
from decant.ssh.client import CONNECT_TIMEOUT
from decant_host import balancer, processes, protocol, switch
from decant_host.protocol import (
    CERTIFICATE_TIMEOUT,
    COMMAND_TIMEOUT,
    CONFIRM_TIMEOUT,
    CONFIRM_TIMEOUT_PER_MACHINE,
    ECHO_TIMEOUT,
    EXTEND_AFTER,
    FIRST_LINE_TIMEOUT,
    HEARTBEAT_INTERVAL,
    KEPT_AT_LEAST,
    LEASE_PATIENCE,
    LEASE_TIMEOUT,
    LONGEST_REQUEST_TIMEOUT,
    LONGEST_ROLLOUT,
    MIGRATE_TIMEOUT,
    PREPARE_TIMEOUT,
    RELEASE_ID,
    REPLY_TIMEOUT,
    REQUEST_TIMEOUT,
    UNCLAIMED_TIMEOUT,
    kept_after_switch,
    reply_timeout,
)
from tests.support import host_files
from tests.support.host_files import SHAPES

machine = host_files.machine

INFRA = Path(protocol.__file__).parents[1]
HOST = INFRA / "decant" / "host"
LONGEST_HEALTH_TIMEOUT = 300  # decant:healthTimeout: see the test below
TIMES = [name for name, value in vars(protocol).items() if name.isupper() and isinstance(value, int | float)]
# Used where pulumi runs alone.
COORDINATORS = {
    "LONGEST_REQUEST_TIMEOUT",
    "HEARTBEAT_INTERVAL",
    "REPLY_TIMEOUT",
    "CONFIRM_TIMEOUT",
    "CONFIRM_TIMEOUT_PER_MACHINE",
    "EXTEND_AFTER",
    "PING_INTERVAL",  # of the verbs
}
# Used by reply_timeout() alone, which both ends call.
REPLY_TIMES = {"PREPARE_TIMEOUT", "MIGRATE_TIMEOUT", "COMMAND_TIMEOUT"}


def test_one_lost_heartbeat_ends_no_attempt() -> None:
    """The newest echo is up to two intervals old: one on the machine's side, one on the coordinator's."""
    assert HEARTBEAT_INTERVAL > 0
    assert 2 * HEARTBEAT_INTERVAL < ECHO_TIMEOUT
    assert ECHO_TIMEOUT - 2 * HEARTBEAT_INTERVAL >= HEARTBEAT_INTERVAL, "one heartbeat may be lost"
    assert 3 * HEARTBEAT_INTERVAL < REPLY_TIMEOUT
    assert 3 * HEARTBEAT_INTERVAL < LEASE_TIMEOUT


def test_lost_signs_of_life_end_no_command() -> None:
    assert 0 < 3 * protocol.PING_INTERVAL < protocol.PING_TIMEOUT


def test_a_machine_refuses_requests_before_its_coordinator_gives_it_up() -> None:
    assert ECHO_TIMEOUT < REPLY_TIMEOUT
    # A command that has passed the check at the last moment still switches before the coordinator gives up.
    assert REPLY_TIMEOUT - ECHO_TIMEOUT >= 3


def test_a_machine_holds_the_lease_until_its_coordinator_has_given_it_up() -> None:
    """Otherwise another attempt could begin on this machine while the first one still needs it."""
    assert REPLY_TIMEOUT < LEASE_TIMEOUT
    assert FIRST_LINE_TIMEOUT > 3 * CONNECT_TIMEOUT + timeouts.LEASE_REPLY_TIMEOUT, "a login, then a lease"


def test_a_new_attempt_waits_for_one_that_has_just_ended() -> None:
    """sshd notices a lost connection within moments, but not at once; the coordinator must not give up meanwhile."""
    assert 2 <= LEASE_PATIENCE < REPLY_TIMEOUT - HEARTBEAT_INTERVAL


def test_a_machine_that_falls_silent_does_not_cost_the_others_their_confirm() -> None:
    """Twice: when a machine falls silent during a batch, and another one during the confirms."""
    assert LEASE_TIMEOUT < CONFIRM_TIMEOUT
    assert EXTEND_AFTER + 2 * REPLY_TIMEOUT < CONFIRM_TIMEOUT
    assert EXTEND_AFTER > 0
    assert CONFIRM_TIMEOUT_PER_MACHINE > 0


def test_a_prepare_may_wait_for_the_longest_health_timeout() -> None:
    """It also waits out the first seconds of a new release, and may install requirements."""
    assert PREPARE_TIMEOUT >= LONGEST_HEALTH_TIMEOUT + processes.FIRST_SECONDS + COMMAND_TIMEOUT


def test_a_migrate_may_take_as_long_as_systemd_lets_a_release_command_run() -> None:
    assert unit_seconds("release@.service", "TimeoutStartSec") + LONGEST_HEALTH_TIMEOUT < MIGRATE_TIMEOUT


def test_systemd_starts_a_release_for_longer_than_the_longest_health_timeout() -> None:
    assert unit_seconds("app@.service", "TimeoutStartSec") > LONGEST_HEALTH_TIMEOUT


def test_other_commands_end_within_their_timeout() -> None:
    """The slowest is a switch: each probe through nginx takes 5 s at most."""
    assert COMMAND_TIMEOUT > 5 * switch.SWITCH_PROBES + REPLY_TIMEOUT


@pytest.mark.parametrize("request_timeout", [1, 30, 31, 3600])
def test_nothing_that_waits_for_a_request_ends_before_it(
    request_timeout: int, machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nginx <= sync worker < gunicorn's end of a release < systemd's; and a drain waits as long as gunicorn."""
    machine.settings["request_timeout"] = request_timeout
    gunicorn = runpy.run_path(str(HOST / "gunicorn" / "gunicorn_settings.py"))
    limits = render.Limits(request_timeout=request_timeout, max_body=1)
    text = render.nginx_conf(**{**SHAPES["balanced"], "limits": limits})
    (nginx_waits,) = re.findall(r"^ {4}proxy_read_timeout (\d+)s;", text, re.MULTILINE)
    (systemd_waits,) = re.findall(r"TimeoutStopSec=(\d+)", render.stop_timeout_conf(limits))
    kept = kept_after_switch(request_timeout)
    assert int(nginx_waits) == request_timeout < gunicorn["timeout"], "a 504, and not the 502 of a killed worker"
    assert request_timeout <= gunicorn["graceful_timeout"] == kept < int(systemd_waits)
    monkeypatch.setattr(balancer, "read_json", lambda path: {"request_timeout": request_timeout})
    assert balancer.kept_seconds() == kept


def test_the_time_for_a_request_without_any_setting() -> None:
    assert REQUEST_TIMEOUT == KEPT_AT_LEAST == 30


def test_every_balancer_waits_longer_than_a_request_may_take() -> None:
    longest = digitalocean.SPEC.longest_balanced_request
    assert longest is not None
    assert longest < digitalocean_balancer.IDLE_TIMEOUT
    assert aws.SPEC.longest_balanced_request is None
    assert LONGEST_REQUEST_TIMEOUT < aws_balancer.IDLE_TIMEOUT
    assert LONGEST_REQUEST_TIMEOUT == 3600


def test_a_staged_release_waits_for_the_rollout_of_a_whole_fleet() -> None:
    assert UNCLAIMED_TIMEOUT > PREPARE_TIMEOUT + LONGEST_HEALTH_TIMEOUT
    assert LONGEST_ROLLOUT > MIGRATE_TIMEOUT + PREPARE_TIMEOUT + UNCLAIMED_TIMEOUT


def test_the_longest_health_timeout_is_the_settings_maximum() -> None:
    sources = "\n".join(p.read_text() for p in modules() if "settings" in str(p.relative_to(INFRA)))
    row = sources[sources.index('name="healthTimeout"') :]
    assert re.search(r"\b(\d+)\)", row)[1] == str(LONGEST_HEALTH_TIMEOUT), row[:300]  # type: ignore[index]


@pytest.mark.parametrize("text", ["0123456789ab", "aaaaaaaaaaaa"])
def test_a_release_id_has_twelve_hexadecimal_digits(text: str) -> None:
    assert re.fullmatch(RELEASE_ID, text)
    assert not re.fullmatch(RELEASE_ID, text.upper().replace("0", "G"))
    assert not re.fullmatch(RELEASE_ID, text[1:])
    assert not re.fullmatch(RELEASE_ID, text + "0")


# ------------------------------------------------------------------------------------------------ one place


def test_no_other_module_defines_one_of_these_times() -> None:
    for path in modules():
        assigned = {name for name in assigned_names(path) if name in TIMES}
        assert not assigned, f"{path} has a copy of {assigned}"


def test_every_time_is_used() -> None:
    """No other module defines such a name, so a module that uses it has it from the protocol."""
    machine, coordinator = set[str](), set[str]()
    for path in modules():
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        (machine if path.is_relative_to(INFRA / "decant_host") else coordinator).update(names & set(TIMES))
    assert machine >= set(TIMES) - COORDINATORS - REPLY_TIMES
    assert coordinator >= COORDINATORS


def test_the_time_for_a_reply_depends_on_the_command() -> None:
    assert reply_timeout("prepare") == PREPARE_TIMEOUT
    assert reply_timeout("migrate") == MIGRATE_TIMEOUT
    assert reply_timeout("certificate") == CERTIFICATE_TIMEOUT
    assert reply_timeout("switch") == reply_timeout("revert") == COMMAND_TIMEOUT


def test_both_ends_take_the_time_for_a_reply_from_the_protocol() -> None:
    callers = {path.name for path in modules() if "reply_timeout(" in path.read_text()}
    assert callers == {"agent_client.py", "lease.py"}


def modules() -> Iterator[Path]:
    """The modules of both ends, but for the protocol."""
    for path in sorted(INFRA.rglob("*.py")):
        if path != Path(protocol.__file__):
            yield path


def assigned_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def unit_seconds(unit: str, option: str) -> int:
    (value,) = re.findall(rf"^{option}=(\d+)$", (HOST / "systemd" / unit).read_text(), re.MULTILINE)
    return int(value)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_that_takes_a_guarded_description_for_commands_ends_before_it(shell: str) -> None:
    text = protocol.SHELL_GUARD + '{"environment": {"KEY": "canary; echo owned"}}\n'
    done = subprocess.run([shell], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (97, f"{protocol.OTHER_SHELL}\n", "")


def test_a_guard_is_taken_off_once() -> None:
    assert protocol.unguarded(protocol.SHELL_GUARD + "{}") == protocol.unguarded("{}") == "{}"
