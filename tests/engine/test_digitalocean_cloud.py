"""The resources of a DigitalOcean stack through their life: the real engine and provider, and an unkind account.

The program here makes the cloud alone, without steps on machines, so nothing boots. Each test goes on where the one
before ended. The account is a new one: its first VPC cannot be deleted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rehearsal.accounts.base import RateLimit
from rehearsal.accounts.digitalocean import TOO_MANY_CALLS
from rehearsal.accounts.digitalocean_catalogue import Limits, Offer, Pace
from tests.engine.digitalocean_api import VERBS, DigitalOceanApi
from tests.support.no_machines import NoMachines
from tests.support.project_copy import REPOSITORY
from tests.support.pulumi_stack import STACK, Stack, missing

PROGRAM = """
import pulumi
from decant import clouds
from decant.settings.load import load

checked = load(clouds.specs())
assert checked.settings, checked.problems
cloud = clouds.create(checked.settings)
pulumi.export("machines", [{"name": m.name, "id": m.id, "address": m.address} for m in cloud.machines])
"""
NAME = f"decant-{STACK}"
BEFORE = "b37b1cecd4c8c5351f56bf7baa1ecabddb1f408e"  # the last commit that made names without a hash
# Longer than the provider's own limits: 120 s for a VPC, 60 s for a droplet.
PACE = Pace(visible=2, pending=3, shutdown=45, resize=5, busy_vpc=130)
QUICK = Pace(visible=2, pending=3, resize=5, busy_vpc=5)


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    lacking = missing("digitalocean", "tls")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))


@pytest.fixture(scope="module")
def api() -> Iterator[DigitalOceanApi]:
    api = DigitalOceanApi(NoMachines(), "dop_v1_not_a_real_one", pace=PACE, offer=Offer(limits=Limits(droplets=4)))
    yield api
    api.server.shutdown()


def made(folder: Path, api: DigitalOceanApi) -> Stack:
    """A stack with the program above."""
    stack = Stack.create(folder, DIGITALOCEAN_API_URL=api.url)
    (stack.project / "infra/__main__.py").write_text(PROGRAM)
    stack.set({"cloud": "digitalocean", "adminCidrs[0]": "10.0.0.0/8", "machines": "2"})
    stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=api.token)
    return stack


@pytest.fixture(scope="module")
def stack(api: DigitalOceanApi, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return made(tmp_path_factory.mktemp("cloud"), api)


def changed(operations: dict[str, str], word: str) -> set[str]:
    """What was done with this result."""
    return {name for name, done in operations.items() if done == word}


def droplet_urn(stack: Stack, name: str) -> str:
    return str(stack.resources()[f"Droplet {name}"]["urn"])


def test_what_a_new_account_is_left_with(stack: Stack, api: DigitalOceanApi) -> None:
    stack.up()
    account = api.account
    assert [line for line in api.refused if ": 404 " not in line] == [], "404: what was just made is not found yet"
    (vpc,) = account.vpcs.values()
    assert (vpc.default, vpc.asked["description"]) == (True, f"{NAME}, made by Decant")
    (tag,) = account.tags.values()
    assert tag.startswith(f"{NAME}-")
    assert sorted(firewall["name"] for firewall in account.firewalls.values()) == [tag, f"{tag}-web"]
    assert [key["name"] for key in account.keys.values()] == [tag]
    for droplet in account.droplets.values():
        assert droplet.tags == {tag}
        assert len(account.firewalls_of(droplet)) == 2
    (balancer,) = account.balancers.values()
    assert len(account.targets(balancer)) == 2


def test_another_up_changes_nothing_and_a_refresh_changes_outputs_alone(stack: Stack) -> None:
    assert stack.up().counts.keys() == {"unchanged"}
    before = stack.resources()["Tag tag"]["outputs"]["totalResourceCount"]
    assert stack.pulumi("refresh", "--yes").counts.keys() == {"unchanged"}
    # DigitalOcean counts what has a tag, and the droplets came after it. Nothing in the program depends on that.
    assert (before, stack.resources()["Tag tag"]["outputs"]["totalResourceCount"]) == (0, 2)
    assert stack.up().counts.keys() == {"unchanged"}


def test_a_second_stack_of_the_same_name_shares_nothing(stack: Stack, api: DigitalOceanApi, tmp_path: Path) -> None:
    """Two people of a team, each with a state of their own."""
    before = api.inventory()
    other = made(tmp_path, api)
    other.set({"machines": "1"})
    other.up()
    assert len(api.account.tags) == 2
    other.destroy()
    assert api.inventory() == before
    assert [len(api.account.firewalls_of(droplet)) for droplet in api.account.droplets.values()] == [2, 2]
    (balancer,) = api.account.balancers.values()
    assert len(api.account.targets(balancer)) == 2


def test_machines_come_and_go(stack: Stack, api: DigitalOceanApi) -> None:
    (balancer,) = api.account.balancers.values()
    for number in (3, 1):
        stack.set({"machines": str(number)} if number > 1 else {"machines": "1", "balancer": "true"})
        stack.up()
        assert len(api.account.droplets) == len(api.account.targets(balancer)) == number


def test_a_hung_droplet_is_replaced(stack: Stack, api: DigitalOceanApi) -> None:
    (droplet,) = api.account.droplets.values()
    droplet.hung = True
    ran = stack.up("--replace", droplet_urn(stack, "web-1"))
    assert ran.operations["Droplet web-1"] == "deleted"
    (new,) = api.account.droplets.values()
    assert new.id != droplet.id


def test_what_was_deleted_by_hand_comes_back_after_a_refresh(stack: Stack, api: DigitalOceanApi) -> None:
    account = api.account
    with account.lock:
        (droplet,) = account.droplets.values()
        api.delete_droplet(str(droplet.id), {})
        (tag,) = account.tags.values()
        account.delete_tag(tag)
    stack.up("--refresh")
    (new,) = account.droplets.values()
    assert new.tags == {tag}
    assert len(account.firewalls_of(new)) == 2


def test_the_last_droplet_of_a_limit_is_refused_in_the_clouds_words(stack: Stack, api: DigitalOceanApi) -> None:
    stack.set({"machines": "5"})
    ran = stack.up(fails=True)
    assert "creating this/these droplet(s) will exceed your droplet limit" in ran.said
    stack.set({"machines": "1"})
    stack.up()
    assert len(api.account.droplets) == 1


def test_one_machine_is_resized_there_and_back(stack: Stack, api: DigitalOceanApi) -> None:
    """The disk keeps its size. A larger one could never become smaller again."""
    stack.set({"balancer": "false"})
    stack.up()
    (droplet,) = api.account.droplets.values()
    for size in ("s-1vcpu-2gb", "s-1vcpu-1gb"):
        stack.set({"size": size})
        ran = stack.up()
        assert ran.operations == {"Droplet web-1": "updated"}
        assert (droplet.size, droplet.disk, api.account.status(droplet)) == (size, 25, "active")


def test_an_address_and_a_key_that_were_deleted_by_hand_do_not_stop_destroy(stack: Stack, api: DigitalOceanApi) -> None:
    account = api.account
    with account.lock:
        (address,), (key,) = account.reserved, account.keys
        account.delete_reserved(address)
        account.keys.remove(key)
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    assert api.inventory() == {}
    assert [vpc.default for vpc in account.vpcs.values()] == [True], "the cloud keeps the first VPC of a region"
    assert stack.resources() == {}


def test_destroy_ends_well_a_second_time(stack: Stack, api: DigitalOceanApi) -> None:
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    assert api.inventory() == {}
    assert api.unknown == []


# ------------------------------------------------------------------------------------------------ an older stack


@pytest.fixture(scope="module")
def used() -> Iterator[DigitalOceanApi]:
    """An account whose region has a default VPC already."""
    api = DigitalOceanApi(NoMachines(), "dop_v1_another_unreal_one", pace=PACE, used_regions=("fra1",))
    yield api
    api.server.shutdown()


@pytest.fixture(scope="module")
def older(used: DigitalOceanApi, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A stack that the program made before its names had a hash."""
    stack = made(tmp_path_factory.mktemp("older"), used)
    archive = subprocess.run(["git", "archive", BEFORE, "infra"], cwd=REPOSITORY, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"the history here does not reach back to {BEFORE[:7]} (git fetch --unshallow)")
    new = stack.project / "infra"
    new.rename(stack.project / "new")
    subprocess.run(["tar", "-x", "-C", str(stack.project)], input=archive.stdout, check=True)
    (new / "__main__.py").write_text(PROGRAM)
    stack.up()
    shutil.rmtree(new)
    (stack.project / "new").rename(new)
    return stack


def test_an_older_stack_keeps_its_names_and_its_droplets(older: Stack, used: DigitalOceanApi) -> None:
    before = (list(used.account.droplets), list(used.account.balancers), list(used.account.firewalls))
    ran = older.up()
    assert ran.operations == dict.fromkeys(["Vpc network", "Droplet web-1", "Droplet web-2"], "updated")
    assert list(used.account.tags) == [NAME]
    assert sorted(f["name"] for f in used.account.firewalls.values()) == [NAME, f"{NAME}-web"]
    assert (list(used.account.droplets), list(used.account.balancers), list(used.account.firewalls)) == before
    assert [len(used.account.firewalls_of(droplet)) for droplet in used.account.droplets.values()] == [2, 2]
    assert older.up().counts.keys() == {"unchanged"}


@pytest.mark.thorough  # it takes the two minutes after which the provider gives up the first time
def test_destroy_waits_for_a_vpc_that_still_counts_its_balancer(older: Stack, used: DigitalOceanApi) -> None:
    older.up()  # with the names of today's program, also where this test runs alone
    older.destroy()
    assert used.inventory() == {}
    assert len(used.account.vpcs) == 1, "the one that was there before"
    assert any("409 Can not delete VPC with members" in line for line in used.refused)
    assert used.unknown == []


# ------------------------------------------------------------------------------------------------ other accounts


def test_a_limit_of_calls_is_waited_for(tmp_path: Path) -> None:
    rate = RateLimit(calls=8, seconds=4, error=TOO_MANY_CALLS)
    api = DigitalOceanApi(NoMachines(), "dop_v1_slow", pace=PACE, used_regions=("fra1",), rate=rate)
    stack = made(tmp_path, api)
    stack.up()
    assert len(api.account.droplets) == 2
    assert any("429 API Rate limit exceeded." in line for line in api.refused)
    api.server.shutdown()


@pytest.mark.thorough  # it makes a whole stack and changes it three times, for a list in a page
def test_the_scopes_that_the_page_names_are_enough_and_fewer_are_not(tmp_path: Path) -> None:
    """docs/go-live.md lists them."""
    scopes = documented_scopes()
    api = DigitalOceanApi(NoMachines(), "dop_v1_custom", pace=QUICK, used_regions=("fra1",), scopes=scopes)
    stack = made(tmp_path, api)
    stack.up()
    stack.set({"machines": "1", "balancer": "false"})
    stack.up()
    stack.set({"size": "s-1vcpu-2gb"})
    stack.up()
    stack.destroy()
    assert not [line for line in api.refused if ": 403 " in line]
    assert api.inventory() == {}
    api.account.scopes = scopes - {"image:read"}
    ran = stack.up(fails=True)
    assert "Error creating droplet: POST" in ran.said
    assert "403 You are not authorized to perform this operation" in ran.said
    api.server.shutdown()


def documented_scopes() -> frozenset[str]:
    """The scopes that docs/go-live.md tells people to give a token."""
    text = (REPOSITORY / "docs/go-live.md").read_text(encoding="utf-8")
    (full, read) = re.findall(r"of ((?:`[a-z_]+`(?:,\s+|\s+and\s+)?)+)", text)[:2]
    every = {f"{name}:{verb}" for name in re.findall("[a-z_]+(?=`)", full) for verb in VERBS.values()}
    return frozenset(every | {f"{name}:read" for name in re.findall("[a-z_]+(?=`)", read)})
