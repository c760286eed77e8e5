"""Stacks of pull requests in a DigitalOcean account: found by tags, and deleted where their state is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from decant import clouds
from decant.clouds import reviews
from decant.clouds.digitalocean import names
from decant.clouds.inventory import StackInAccount
from decant.clouds.reviews import ReviewStack
from decant.errors import CloudApiError, StackError
from rehearsal.accounts.base import CloudError
from rehearsal.accounts.digitalocean_catalogue import Pace
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.no_machines import NoMachines

PAST, FUTURE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2126, 1, 1, tzinfo=UTC)


@dataclass(kw_only=True)
class Review:
    """A stack in the account: the names and ids of what it has."""

    unique: str
    droplet: str
    address: str


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[DigitalOceanApi]:
    monkeypatch.setattr(reviews, "INTERVAL", 0.01)
    api = DigitalOceanApi(NoMachines(), "token", pace=Pace(visible=0, pending=0), used_regions=("fra1",))
    yield api
    api.server.shutdown()


def new_key() -> str:
    """A public key as OpenSSH writes it."""
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*form).decode()


def of(api: DigitalOceanApi, project: str = "decant") -> StackInAccount:
    environ = {"DIGITALOCEAN_API_URL": api.url}
    return StackInAccount(project=project, stack="review", provider={"token": api.token}, environ=environ)


def make(
    api: DigitalOceanApi,
    stack: str = "pr-7",
    *expires: datetime,
    project: str = "decant",
    address: str = "198.51.100.7",
) -> Review:
    """A stack with what the program makes of it."""
    account, key = api.account, new_key()
    unique = names.unique(names.label(project, stack), key)
    tags = [unique, *(names.review_tag(project, stack, when, key) for when in expires)]
    vpc = account.add_vpc({"name": f"network-{unique}", "region": "fra1", "description": names.description(unique)})
    number = account.add_key({"name": unique, "public_key": key})["id"]
    for tag in tags:
        account.add_tag(tag)
    for name in (unique, f"{unique}-web"):
        account.add_firewall({"name": name, "tags": [unique], "inbound_rules": [], "outbound_rules": []})
    known = set(account.droplets)
    api.add_droplet(
        {"name": "web-1-abc1234", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64",
         "ssh_keys": [number], "tags": tags, "vpc_uuid": vpc.id}
    )  # fmt: skip
    (droplet,) = set(account.droplets) - known
    account.add_reserved(address, "fra1")
    while account.droplets[droplet].status == "new":
        pass
    account.act_on_reserved(address, {"type": "assign", "droplet_id": int(droplet)})
    return Review(unique=unique, droplet=droplet, address=address)


def found(api: DigitalOceanApi, project: str = "decant") -> list[ReviewStack]:
    return clouds.find_reviews("digitalocean", of(api, project))


def remove(api: DigitalOceanApi, review: ReviewStack, *others: str) -> list[str]:
    return clouds.remove_review("digitalocean", of(api), review, others)


def test_stacks_of_the_project_are_found_with_the_latest_of_their_times(api: DigitalOceanApi) -> None:
    moved = make(api, "pr-7", PAST, FUTURE)
    again = make(api, "pr-7", PAST, address="198.51.100.8")
    other = make(api, "pr-9", PAST, project="shop", address="198.51.100.9")
    api.account.add_tag("decant-dev-1234567")
    assert sorted(found(api), key=lambda one: one.expires) == [
        ReviewStack(stack="pr-7", expires=PAST, ids=frozenset({again.unique})),
        ReviewStack(stack="pr-7", expires=FUTURE, ids=frozenset({moved.unique})),
    ]
    assert found(api, "shop") == [ReviewStack(stack="pr-9", expires=PAST, ids=frozenset({other.unique}))]


def test_all_of_one_is_deleted_and_nothing_of_others(api: DigitalOceanApi) -> None:
    other = make(api, "pr-8", PAST)
    before = api.inventory()
    gone = make(api, "pr-7", PAST, FUTURE, address="198.51.100.8")
    told = remove(api, ReviewStack(stack="pr-7", expires=PAST, ids=frozenset({gone.unique})))
    assert api.inventory() == before
    assert [line.partition(" (")[0] for line in told] == [
        "droplet web-1-abc1234",
        "reserved address 198.51.100.8",
        f"firewall {gone.unique}",
        f"firewall {gone.unique}-web",
        f"SSH key {gone.unique}",
        f"VPC network-{gone.unique}",
        f"tag {gone.unique}",
        f"tag decant-review:decant:pr-7:{gone.unique[-7:]}:20260101T0000Z",
        f"tag decant-review:decant:pr-7:{gone.unique[-7:]}:21260101T0000Z",
    ]
    assert [one.ids for one in found(api)] == [frozenset({other.unique})]
    assert api.unknown == []


def test_the_address_goes_before_its_droplet_because_it_has_no_tag(
    api: DigitalOceanApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(api, "pr-7", PAST)
    (review,) = found(api)

    def killed(identity: str) -> None:
        raise CloudError(403, "forbidden", "not today")

    monkeypatch.setattr(api.account, "delete_droplet", killed)
    with pytest.raises(CloudApiError, match="not today"):
        remove(api, review)
    assert api.inventory().keys() == {"keys", "vpcs", "tags", "firewalls", "droplets"}
    monkeypatch.undo()
    monkeypatch.setattr(reviews, "INTERVAL", 0.01)
    (review,) = found(api)
    remove(api, review)
    assert api.inventory() == {}


def test_an_address_that_must_not_be_assigned_is_deleted_after_its_droplet(
    api: DigitalOceanApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(api, "pr-7", PAST)
    usual = api.account.delete_reserved

    def delete(address: str) -> None:
        if api.account.reserved[address].droplet:
            raise CloudError(422, "unprocessable_entity", "is assigned")
        usual(address)

    monkeypatch.setattr(api.account, "delete_reserved", delete)
    (review,) = found(api)
    remove(api, review)
    assert api.inventory() == {}


def test_what_a_killed_job_has_made_so_far_is_removed(api: DigitalOceanApi) -> None:
    key = new_key()
    unique = names.unique("decant-pr-7", key)
    api.account.add_tag(names.review_tag("decant", "pr-7", PAST, key))
    (review,) = found(api)
    assert review.ids == {unique}
    assert remove(api, review) == [f"tag decant-review:decant:pr-7:{unique[-7:]}:20260101T0000Z"]
    assert api.inventory() == {}


@pytest.mark.parametrize("tag", ["decant-production-1234567", "shop-dev-abcdef0"])
def test_a_droplet_that_has_another_stacks_tag_as_well_is_left_alone(api: DigitalOceanApi, tag: str) -> None:
    made = make(api, "pr-7", PAST)
    api.account.add_tag(tag)
    api.account.tag_droplets(tag, [made.droplet], tagged=True)
    before = api.inventory()
    (review,) = found(api)
    with pytest.raises(StackError) as told:
        remove(api, review)
    assert str(told.value) == (
        f"droplet web-1-abc1234 ({made.droplet}) has a tag of review stack pr-7, and has the tag of another stack,"
        f" {tag}, as well. So nothing of pr-7 was deleted.\n"
        "  Take the tag that is not its own off it, or delete it by hand; then: make review-reap"
    )
    assert api.inventory() == before


def test_a_droplet_whose_review_tag_was_taken_off_is_left_alone(api: DigitalOceanApi) -> None:
    made = make(api, "pr-7", PAST)
    tag = next(name for name in api.account.tags if name.startswith("decant-review"))
    api.account.tag_droplets(tag, [made.droplet], tagged=False)
    (review,) = found(api)
    with pytest.raises(StackError, match="has no tag that says when it expires"):
        remove(api, review)
    assert list(api.account.droplets) == [made.droplet]


def test_a_droplet_that_was_given_the_review_tag_alone_keeps_it(api: DigitalOceanApi) -> None:
    """A tag that is deleted is taken off everything that has it."""
    made = make(api, "dev")
    tag = f"decant-review:decant:pr-7:{made.unique[-7:]}:20260101T0000Z"
    api.account.add_tag(tag)
    api.account.tag_droplets(tag, [made.droplet], tagged=True)
    (review,) = found(api)
    with pytest.raises(StackError, match="does not have the stack's tag decant-pr-7-"):
        remove(api, review)
    assert api.account.droplets[made.droplet].tags == {made.unique, tag}


def test_what_another_state_has_is_left_alone(api: DigitalOceanApi) -> None:
    made = make(api, "pr-7", PAST)
    (review,) = found(api)
    firewall = next(iter(api.account.firewalls))
    before = api.inventory()
    for other in (made.droplet, made.address, firewall, made.unique):
        with pytest.raises(StackError, match="is in the state of another stack"):
            remove(api, review, other)
    assert api.inventory() == before


def test_the_networks_of_other_stacks_stay(api: DigitalOceanApi) -> None:
    """Their descriptions have no hash: `pr-7` of a state without reviews is another stack."""
    account = api.account
    kept = account.add_vpc({"name": "n", "region": "fra1", "description": "decant-pr-7, made by Decant"})
    make(api, "pr-7", PAST)
    (review,) = found(api)
    remove(api, review)
    assert kept.id in account.vpcs
