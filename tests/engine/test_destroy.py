"""`make destroy` and `make replace` with the real engine and provider, on accounts and states that something went wrong
with.

The program makes the cloud alone, without steps on machines, so nothing boots.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rehearsal.accounts.base import CloudError
from rehearsal.accounts.digitalocean_catalogue import Pace
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.engine.test_digitalocean_cloud import NAME, made
from tests.support.no_machines import NoMachines
from tests.support.pulumi_stack import STACK, Stack, missing
from tests.support.waiting import wait_for

QUICK = Pace(visible=2, pending=3, resize=5, busy_vpc=5)


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    lacking = missing("digitalocean", "tls")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))


@pytest.fixture
def api() -> Iterator[DigitalOceanApi]:
    """A new account: the first VPC of its region cannot be deleted."""
    api = DigitalOceanApi(NoMachines(), "dop_v1_not_a_real_one", pace=QUICK)
    yield api
    api.server.shutdown()


@pytest.fixture
def stack(api: DigitalOceanApi, tmp_path: Path) -> Stack:
    stack = made(tmp_path, api)
    stack.set({"machines": "1"})
    return stack


def kept_vpc(api: DigitalOceanApi) -> str:
    """The id of the only thing that the account has."""
    assert api.inventory() == {}
    (vpc,) = api.account.vpcs.values()
    assert vpc.default
    return str(vpc.shown()["id"])


def test_destroy_leaves_the_default_vpc_and_says_so_twice(stack: Stack, api: DigitalOceanApi) -> None:
    stack.up()
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    vpc = kept_vpc(api)
    assert f"({vpc}) is the default one of region fra1" in done.stdout
    assert f"doctl vpcs delete {vpc}" in done.stdout
    assert f"Nothing of stack {STACK} is left at DigitalOcean but the above." in done.stdout
    assert stack.resources() == {}
    again = stack.make("destroy")
    assert again.returncode == 0, again.stdout
    assert f"Nothing of stack {STACK} is left at DigitalOcean." in again.stdout
    stack.up()
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    assert "default one" not in done.stdout, "this stack's was the second VPC of the region"
    assert kept_vpc(api) == vpc
    assert api.unknown == []


def test_what_was_deleted_by_hand_does_not_stop_destroy(stack: Stack, api: DigitalOceanApi) -> None:
    stack.up()
    account = api.account
    with account.lock:
        (droplet,), (tag,), (key,), (address,) = account.droplets, account.tags, account.keys, account.reserved
        api.delete_droplet(str(droplet), {})
        account.delete_tag(tag)
        account.keys.remove(key)
        account.delete_reserved(address)
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    kept_vpc(api)
    assert stack.resources() == {}


def test_another_accounts_token_changes_nothing(stack: Stack, api: DigitalOceanApi) -> None:
    stack.up()
    before = stack.export()
    other = DigitalOceanApi(NoMachines(), api.token, pace=QUICK)
    theirs = replace(stack, environment={"DIGITALOCEAN_API_URL": other.url})
    for done in (theirs.make("destroy"), theirs.make("replace", machine="web-1")):
        assert done.returncode == 1
        assert "another account" in done.stdout
        assert stack.export() == before
    other.server.shutdown()
    assert stack.make("destroy").returncode == 0
    kept_vpc(api)


def test_a_droplet_that_was_deleted_by_hand_is_replaced(stack: Stack, api: DigitalOceanApi) -> None:
    stack.up()
    (old,) = api.account.droplets
    with api.account.lock:
        api.delete_droplet(str(old), {})
    done = stack.make("replace", machine="web-1")
    (new,) = api.account.droplets
    assert new != old, done.stdout
    (reserved,) = api.account.reserved.values()
    assert str(reserved.droplet) == new
    # Nothing serves here, so the summary at the end has nothing to show.
    assert "Resources:" in done.stdout


def test_a_destroy_that_fails_is_finished_by_the_next(
    stack: Stack, api: DigitalOceanApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.up()
    with monkeypatch.context() as patch:

        def refuses(identity: str) -> None:
            raise CloudError(422, "unprocessable_entity", "not today")

        patch.setattr(api.account, "delete_reserved", refuses)
        done = stack.make("destroy")
        assert done.returncode != 0
        assert "not today" in done.stdout
        assert "is left at DigitalOcean" not in done.stdout
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    kept_vpc(api)


def test_what_a_killed_up_has_lost_is_named_with_the_commands(stack: Stack, api: DigitalOceanApi) -> None:
    """Pulumi records a resource when its provider has answered."""
    running = subprocess.Popen(**stack.process("pulumi", "up", "--yes", "--skip-preview", "--non-interactive"))
    wait_for(lambda: len(api.account.droplets) == 1, "a droplet")
    running.send_signal(signal.SIGKILL)
    running.communicate()
    stack.pulumi("cancel", "--yes")
    assert "Droplet web-1" not in stack.resources()
    done = stack.make("destroy")
    print(done.stdout)
    (identity,) = api.account.droplets
    assert done.returncode == 1
    assert re.search(rf"droplet web-1-\w+ \({identity}\)\n +doctl compute droplet delete {identity}\n", done.stdout)
    with api.account.lock:
        api.delete_droplet(str(identity), {})
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    kept_vpc(api)


def test_a_preview_of_destroy_reports_nothing(stack: Stack, api: DigitalOceanApi) -> None:
    stack.up()
    before = json.loads(stack.export())["deployment"]["resources"]
    done = stack.make("destroy", extra=("--preview-only",))
    assert done.returncode == 0, done.stdout
    assert "is left at DigitalOcean" not in done.stdout
    assert len(json.loads(stack.export())["deployment"]["resources"]) == len(before)
    assert stack.up().counts.keys() == {"unchanged"}
    assert NAME in next(iter(api.account.tags))
