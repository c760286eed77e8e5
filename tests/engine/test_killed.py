"""Runs of CI that are killed, two at once, and SSH for one run, with the real engine and DigitalOcean's real provider.

The program makes the cloud alone, without steps on machines, so nothing boots. Each test goes on where the one before
ended.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rehearsal.accounts.digitalocean_catalogue import Json, Limits, Offer, Pace
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.fake_forge import forge
from tests.support.no_machines import NoMachines
from tests.support.pulumi_stack import STACK, Stack, missing
from tests.support.waiting import wait_for

PROGRAM = """
import pulumi
from decant import clouds
from decant.settings.load import load

checked = load(clouds.specs())
assert checked.settings, checked.problems
cloud = clouds.create(checked.settings)
pulumi.export("url", "{url}")
pulumi.export("release", "0123456789ab")
pulumi.export("machines", cloud.machines[0].id.apply(lambda _: []))
"""
ROOMY = Offer(limits=Limits(reserved_ips=20))
QUICK = Pace(visible=1, pending=1, resize=1, busy_vpc=1)
CI = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "17400", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_REPOSITORY": "carol/shop",
      "GITHUB_TOKEN": "ghs_not_a_real_one", "ADDRESS": "198.41.0.4"}  # fmt: skip
FEWEST_KILLS = 4  # how many there are depends on what is made at the same time


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    lacking = missing("digitalocean", "tls")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))


class KillingApi(DigitalOceanApi):
    """Kills its caller when it has made the first thing of a kind, and before the answer."""

    victim: subprocess.Popen[str] | None = None
    kinds: tuple[str, ...] = ()

    def _routed(self, method: str, path: str, body: Json) -> tuple[int, Json | None]:
        done = super()._routed(method, path, body)
        kind = re.sub(r"[0-9.]+", "ID", path)
        if self.victim and method == "POST" and kind not in self.kinds:
            self.kinds += (kind,)
            os.killpg(self.victim.pid, signal.SIGKILL)
            self.victim = None
        return done


@pytest.fixture(scope="module")
def api() -> Iterator[KillingApi]:
    api = KillingApi(NoMachines(), "dop_v1_not_a_real_one", pace=QUICK, used_regions=("fra1",), offer=ROOMY)
    yield api
    api.server.shutdown()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The URL of a site that serves the release."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Release", "0123456789ab")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def stack(api: KillingApi, site: str, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The stack, as a run of CI sees it."""
    stack = Stack.create(tmp_path_factory.mktemp("killed"), DIGITALOCEAN_API_URL=api.url, **CI)
    (stack.project / "infra/__main__.py").write_text(PROGRAM.format(url=site))
    stack.set({"cloud": "digitalocean", "adminCidrs[0]": "10.0.0.0/8", "machines": "1"})
    stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=api.token)
    return stack


def up(stack: Stack) -> subprocess.Popen[str]:
    """`make up`, in a process group of its own."""
    words = ["-m", "decant.cli", "up", STACK, "--", "--yes", "--skip-preview", "--non-interactive"]
    process = {**stack.process(sys.executable, *words), "cwd": stack.project / "infra"}
    return subprocess.Popen(**process, start_new_session=True)


def locks(stack: Stack) -> list[Path]:
    folder = stack.backend / ".pulumi/locks"
    return list(folder.rglob("*.json")) if folder.exists() else []


def test_a_killed_run_leaves_a_lock_and_the_next_goes_on(stack: Stack, api: KillingApi) -> None:
    while True:
        process = api.victim = up(stack)
        said, _ = process.communicate(timeout=300)
        stack.said.append(said)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
        assert len(locks(stack)) == 1
    assert len(api.kinds) >= FEWEST_KILLS
    assert "that process does not run any more. It is let go." in said
    assert f"Stack {STACK} is live." in said
    assert locks(stack) == []


def test_in_the_end_there_is_one_of_each(stack: Stack, api: KillingApi) -> None:
    account = api.account
    counts = [len(account.tags), len(account.keys), len(account.firewalls), len(account.droplets)]
    assert counts == [1, 1, 2, 1]
    assert [vpc.default for vpc in account.vpcs.values()].count(False) == 1
    assert stack.up().counts.keys() == {"unchanged"}


def test_what_nobody_can_tell_is_said_with_the_command(stack: Stack, api: KillingApi) -> None:
    """A reserved address has neither a name nor a tag, and costs money while nobody uses it."""
    file = stack.backend / f".pulumi/stacks/decant/{STACK}.json"
    state = json.loads(file.read_text())
    latest = state["checkpoint"]["latest"]
    (address,) = [one for one in latest["resources"] if one["type"].endswith(":ReservedIp")]
    made = {name: value for name, value in address.items() if name not in ("id", "outputs")}
    latest["pending_operations"] = [{"type": "creating", "resource": made}]
    file.write_text(json.dumps(state))
    with api.account.lock:
        api.account.add_reserved("198.51.100.9", "fra1")
    time.sleep(QUICK.visible)
    lost = [one.ip for one in api.account.reserved.values() if not one.droplet]
    done = stack.make("unlock")
    assert re.findall(r"doctl compute reserved-ip delete (\S+)", done.stdout) == lost
    assert stack.make("unlock").stdout == f"Nobody holds stack {STACK}.\n"
    with api.account.lock:
        for address in lost:
            api.account.delete_reserved(address)
    stack.up()
    assert "pending operations" not in stack.said[-1]


# ------------------------------------------------------------------------------------------------ two at once


def hold(stack: Stack, host: str) -> Path:
    """What a run on another computer has written into the place of the state."""
    file = stack.backend / f".pulumi/locks/organization/decant/{STACK}/0a3b.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"pid": 4711, "username": "runner", "hostname": host, "timestamp": "2026-11-28T14:00:00.123456789Z"}
    file.write_text(json.dumps(content))
    return file


def test_two_runs_at_once_are_told_and_the_next_after_it_goes_on(stack: Stack) -> None:
    file = hold(stack, "decant-github-17321-2-0a1b2c")
    with forge((200, {"status": "in_progress"})) as (url, asked):
        done = replace(stack, environment={**stack.environment, "GITHUB_API_URL": url}).make("up")
    assert done.returncode == 1
    assert f"Stack {STACK} is in use. It is held by:\n" in done.stdout
    assert "  run 17321 (attempt 2) on GitHub, since 2026-11-28 14:00 UTC: it is not over\n" in done.stdout
    assert asked == [("/repos/carol/shop/actions/runs/17321/attempts/2", "Bearer ghs_not_a_real_one")]
    assert file.exists()
    with forge((200, {"status": "completed", "updated_at": "2026-01-01T00:00:00Z"})) as (url, _):
        done = replace(stack, environment={**stack.environment, "GITHUB_API_URL": url}).make("up")
    assert done.returncode == 0, done.stdout
    assert "run 17321 (attempt 2) on GitHub, since 2026-11-28 14:00 UTC: it is over. It is let go." in done.stdout
    assert not file.exists()
    assert "ghs_not_a_real_one" not in "".join(stack.said)


def test_a_person_who_holds_the_stack_is_named_and_force_lets_go(stack: Stack) -> None:
    file = hold(stack, "laptop")
    for verb in ("up", "destroy", "unlock"):
        done = stack.make(verb)
        assert done.returncode == 1
        assert "runner@laptop (process 4711), since 2026-11-28 14:00 UTC: nothing here can tell" in done.stdout
        assert file.exists()
    done = replace(stack, environment={**stack.environment, "FORCE": "yes"}).make("unlock")
    assert done.returncode == 0, done.stdout
    assert not file.exists()
    assert stack.make("unlock").stdout == f"Nobody holds stack {STACK}.\n"


# ------------------------------------------------------------------------------------------------ SSH for one run


def test_an_open_rule_is_no_drift_and_is_closed(stack: Stack, api: KillingApi) -> None:
    before = json.loads(stack.export())["deployment"]["resources"]
    done = stack.make("ssh-open")
    assert done.returncode == 0, done.stdout
    (firewall,) = [one for one in api.account.firewalls.values() if "-run-github-17400-1-until-" in one["name"]]
    assert firewall["tags"] == list(api.account.tags)
    for words in (("--refresh",), ()):
        assert stack.pulumi("preview", *words, "--expect-no-changes").counts.keys() == {"unchanged"}
    stack.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    after = json.loads(stack.export())["deployment"]["resources"]
    assert [one["urn"] for one in after] == [one["urn"] for one in before]
    assert firewall["id"] not in json.dumps(after)
    done = stack.make("ssh-close")
    assert done.returncode == 0, done.stdout
    assert "SSH from 198.41.0.4/32 (github-17400-1) to stack engine is closed: this run has closed it." in done.stdout
    assert len(api.account.firewalls) == 2


def test_a_destroy_leaves_no_rule_of_a_run(stack: Stack, api: KillingApi) -> None:
    assert stack.make("ssh-open").returncode == 0
    assert len(api.account.firewalls) == 3
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    assert f"Nothing of stack {STACK} is left at DigitalOcean." in done.stdout
    assert len(api.account.firewalls) == 0
    assert api.inventory() == {}


def test_a_new_stack_is_opened_while_it_is_made(stack: Stack, api: KillingApi) -> None:
    done = stack.make("ssh-open")
    assert "`make up` opens SSH to 198.41.0.4/32 as soon as it can" in done.stdout
    done = stack.make("up")
    assert done.returncode == 0, done.stdout
    assert "SSH to the machines of stack engine is open to 198.41.0.4/32 for github-17400-1" in done.stdout
    assert len(api.account.firewalls) == 3
    assert stack.make("ssh-close").returncode == 0
    assert len(api.account.firewalls) == 2
    assert stack.make("destroy").returncode == 0
    wait_for(lambda: api.inventory() == {}, "an empty account")
    assert {method for method, _ in api.unknown} <= {"GET"}, "a check of the account asks what this does not know"
