"""The account behind DigitalOcean's doubles: every rule of the cloud that a stack has to live with."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.accounts.base import CloudError, ManualClock, RateLimit
from rehearsal.accounts.digitalocean import DigitalOcean, calls_a_minute
from rehearsal.accounts.digitalocean_catalogue import Limits, Offer, Pace
from rehearsal.accounts.digitalocean_resources import Droplet
from rehearsal.doubles import key_pair

PACE = Pace(visible=2, pending=3, shutdown=45, resize=30, busy_vpc=180)
DROPLET = {"name": "web", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64"}
FIREWALL: dict[str, Any] = {"name": "shop", "tags": ["shop"], "inbound_rules": [], "outbound_rules": []}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def account(clock: ManualClock) -> DigitalOcean:
    return DigitalOcean(clock, pace=PACE, offer=Offer(limits=Limits(droplets=2, reserved_ips=1, load_balancers=1)))


def says(error: pytest.ExceptionInfo[CloudError]) -> tuple[int, str]:
    return error.value.status, error.value.message


def running(account: DigitalOcean, clock: ManualClock, **changes: Any) -> Droplet:
    """A droplet that accepts its next event."""
    droplet = account.add_droplet({**DROPLET, **changes})
    account.booted(droplet, f"198.51.100.{len(account.droplets)}", f"10.110.0.{len(account.droplets)}")
    clock.advance(5)
    return droplet


def test_the_first_vpc_of_a_region_is_its_default_and_cannot_be_deleted(account: DigitalOcean) -> None:
    first, second, elsewhere = (account.add_vpc({"region": r, "name": r}) for r in ("fra1", "fra1", "ams3"))
    assert [first.default, second.default, elsewhere.default] == [True, False, True]
    with pytest.raises(CloudError) as error:
        account.delete_vpc(first.id)
    assert says(error) == (403, "Can not delete default VPCs")
    account.change_vpc(second.id, {"name": "fra1", "description": "", "default": True})
    account.delete_vpc(first.id)
    assert [first.default, second.default] == [False, True]


def test_a_region_that_was_used_before_has_a_default_vpc(clock: ManualClock) -> None:
    account = DigitalOcean(clock, used_regions=("fra1",))
    assert account.add_vpc({"region": "fra1", "name": "one"}).default is False
    assert len(account.inventory()["vpcs"]) == 1, "the default one is nobody's"


def test_a_vpc_counts_its_balancer_for_minutes_after_that_is_gone(account: DigitalOcean, clock: ManualClock) -> None:
    account.add_vpc({"region": "fra1", "name": "default"})
    vpc = account.add_vpc({"region": "fra1", "name": "one"})
    balancer = account.add_balancer({"name": "b", "region": "fra1", "vpc_uuid": vpc.id, "tag": "shop"})
    account.delete_balancer(balancer.id)
    for seconds in (0, 179):
        clock.advance(seconds)
        with pytest.raises(CloudError) as error:
            account.delete_vpc(vpc.id)
        assert says(error) == (409, "Can not delete VPC with members")
    clock.advance(1)
    account.delete_vpc(vpc.id)
    assert vpc.id not in account.vpcs


def test_a_vpc_with_a_droplet_cannot_be_deleted(account: DigitalOcean, clock: ManualClock) -> None:
    account.add_vpc({"region": "fra1", "name": "default"})
    vpc = account.add_vpc({"region": "fra1", "name": "one"})
    droplet = running(account, clock, vpc_uuid=vpc.id)
    with pytest.raises(CloudError, match="Can not delete VPC with members"):
        account.delete_vpc(vpc.id)
    account.delete_droplet(str(droplet.id))
    account.delete_vpc(vpc.id)


def test_a_tag_is_shared_silently_and_deleting_it_untags_everything(account: DigitalOcean, clock: ManualClock) -> None:
    account.add_tag("shop")
    assert account.add_tag("shop") == "shop", "as if it had been made"
    droplet = running(account, clock, tags=["shop"])
    firewall = account.add_firewall(FIREWALL)
    balancer = account.add_balancer({"name": "b", "region": "fra1", "tag": "shop"})
    assert account.firewalls_of(droplet) == [firewall]
    assert account.targets(balancer) == [droplet]
    account.delete_tag("shop")
    assert (droplet.tags, account.firewalls_of(droplet), account.targets(balancer)) == (set(), [], [])
    with pytest.raises(CloudError) as error:
        account.delete_tag("shop")
    assert says(error) == (404, "The resource you were accessing could not be found.")


def test_a_balancer_sends_nothing_to_a_droplet_that_still_boots(account: DigitalOcean) -> None:
    balancer = account.add_balancer({"name": "b", "region": "fra1", "tag": "shop"})
    droplet = account.add_droplet({**DROPLET, "tags": ["shop"]})
    assert account.targets(balancer) == []
    account.booted(droplet, "198.51.100.1", "10.110.0.2")
    assert account.targets(balancer) == [droplet]


def test_a_tag_of_a_new_droplet_is_made_with_it(account: DigitalOcean) -> None:
    account.add_droplet({**DROPLET, "tags": ["new"]})
    assert list(account.tags) == ["new"]


@pytest.mark.parametrize("name", ["a.b", "a b", "", "x" * 256])
def test_tags_have_no_periods(account: DigitalOcean, name: str) -> None:
    with pytest.raises(CloudError, match="Tags may contain letters"):
        account.add_tag(name)


def test_names_of_firewalls_are_unique_and_have_no_underscores(account: DigitalOcean) -> None:
    account.add_tag("shop")
    first = account.add_firewall(FIREWALL)
    account.change_firewall(first["id"], FIREWALL)
    with pytest.raises(CloudError) as error:
        account.add_firewall(FIREWALL)
    assert says(error) == (409, "duplicate name")
    with pytest.raises(CloudError, match="invalid character in name"):
        account.add_firewall({**FIREWALL, "name": "a_b"})
    with pytest.raises(CloudError, match="tag other does not exist"):
        account.add_firewall({**FIREWALL, "name": "b", "tags": ["other"]})


def test_a_droplet_takes_its_time_to_shut_down(account: DigitalOcean, clock: ManualClock) -> None:
    droplet = running(account, clock)
    account.act_on_droplet(str(droplet.id), {"type": "shutdown"})
    clock.advance(44)
    assert account.status(droplet) == "active"
    clock.advance(1)
    assert account.status(droplet) == "off"


def test_a_hung_droplet_never_shuts_down_and_can_be_deleted(account: DigitalOcean, clock: ManualClock) -> None:
    droplet = running(account, clock)
    droplet.hung = True
    account.act_on_droplet(str(droplet.id), {"type": "shutdown"})
    clock.advance(3600)
    assert account.status(droplet) == "active"
    account.delete_droplet(str(droplet.id))
    with pytest.raises(CloudError, match="could not be found"):
        account.delete_droplet(str(droplet.id))


def test_the_caller_that_runs_the_machine_tells_whether_it_is_on(account: DigitalOcean, clock: ManualClock) -> None:
    droplet, state = account.add_droplet(DROPLET), {"on": True}
    account.booted(droplet, "198.51.100.1", "10.110.0.2", is_on=lambda: state["on"])
    clock.advance(5)
    account.act_on_droplet(str(droplet.id), {"type": "shutdown"})
    clock.advance(3600)
    assert account.status(droplet) == "active"
    state["on"] = False
    assert account.status(droplet) == "off"


def test_a_size_changes_while_a_droplet_is_off_and_a_disk_never_becomes_smaller(
    account: DigitalOcean, clock: ManualClock
) -> None:
    droplet = running(account, clock)
    number = str(droplet.id)
    with pytest.raises(CloudError, match="Droplet is currently on"):
        account.act_on_droplet(number, {"type": "resize", "size": "s-1vcpu-2gb", "disk": False})
    account.act_on_droplet(number, {"type": "power_off"})
    with pytest.raises(CloudError, match="already powered off"):
        account.act_on_droplet(number, {"type": "power_off"})
    _, action = account.act_on_droplet(number, {"type": "resize", "size": "s-1vcpu-2gb", "disk": False})
    assert (droplet.size, droplet.disk, account.is_done(action)) == ("s-1vcpu-2gb", 25, False)
    clock.advance(30)
    assert account.is_done(action)
    account.act_on_droplet(number, {"type": "resize", "size": "s-1vcpu-1gb", "disk": False})
    account.act_on_droplet(number, {"type": "resize", "size": "s-1vcpu-2gb", "disk": True})
    with pytest.raises(CloudError) as error:
        account.act_on_droplet(number, {"type": "resize", "size": "s-1vcpu-1gb", "disk": True})
    assert says(error) == (422, "Size can not decrease size of Droplet's disk image")
    assert (droplet.size, droplet.disk) == ("s-1vcpu-2gb", 50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "t3.micro"}, "You specified an invalid size for Droplet creation."),
        ({"region": "eu-central-1"}, "You specified an invalid region for Droplet creation."),
        ({"image": "debian-7-x64"}, "You specified an invalid image for Droplet creation."),
        ({"size": "s-2vcpu-4gb"}, "Size is not available in this region."),
        ({"ssh_keys": [7]}, "7 are invalid key identifiers for Droplet creation."),
    ],
)
def test_what_a_region_does_not_offer_is_refused(account: DigitalOcean, changes: dict[str, Any], message: str) -> None:
    account.offer.not_in_region = frozenset({("s-2vcpu-4gb", "fra1")})
    with pytest.raises(CloudError) as error:
        account.add_droplet({**DROPLET, **changes})
    assert says(error) == (422, message)


def test_limits_are_refused_in_the_clouds_words(account: DigitalOcean, clock: ManualClock) -> None:
    for _ in range(2):
        running(account, clock)
    with pytest.raises(CloudError) as error:
        account.add_droplet(DROPLET)
    assert says(error) == (422, "creating this/these droplet(s) will exceed your droplet limit")
    account.add_reserved("203.0.113.1", "fra1")
    with pytest.raises(CloudError, match="limit of reserved IPs"):
        account.add_reserved("203.0.113.2", "fra1")
    account.add_balancer({"name": "a", "region": "fra1", "tag": "shop"})
    with pytest.raises(CloudError, match="load balancer limit reached"):
        account.add_balancer({"name": "b", "region": "fra1", "tag": "shop"})


def test_what_was_just_made_is_not_found_for_two_seconds(account: DigitalOcean, clock: ManualClock) -> None:
    droplet = account.add_droplet(DROPLET)
    key = account.add_key({"name": "k", "public_key": key_pair()[1]})
    for store, number in ((account.droplets, droplet.id), (account.keys, key["id"])):
        with pytest.raises(CloudError, match="could not be found"):
            store.get(str(number))
        assert store.visible() == []
    clock.advance(2)
    assert account.droplets.visible() == [droplet] == [account.droplets.get(str(droplet.id))]
    assert account.keys.get(str(key["id"])) == key


def test_a_key_is_registered_once(account: DigitalOcean) -> None:
    public = key_pair()[1]
    assert account.add_key({"name": "k", "public_key": public})["public_key"] == public.strip()
    with pytest.raises(CloudError) as error:
        account.add_key({"name": "other", "public_key": public})
    assert says(error) == (422, "SSH Key is already in use on your account")


def test_an_address_and_its_droplet_take_one_event_at_a_time(account: DigitalOcean, clock: ManualClock) -> None:
    account.add_reserved("203.0.113.1", "fra1")
    droplet = account.add_droplet(DROPLET)
    clock.advance(2)
    assign = {"type": "assign", "droplet_id": droplet.id}
    with pytest.raises(CloudError, match="Droplet already has a pending event"):
        account.act_on_reserved("203.0.113.1", assign)
    account.booted(droplet, "198.51.100.1", "10.110.0.2")
    with pytest.raises(CloudError, match="Droplet already has a pending event"):
        account.act_on_reserved("203.0.113.1", assign)
    clock.advance(3)
    before, reserved, _ = account.act_on_reserved("203.0.113.1", assign)
    assert (before, reserved.droplet) == (None, droplet.id)
    with pytest.raises(CloudError, match="The reserved IP already has a pending event"):
        account.delete_reserved("203.0.113.1")
    account.delete_droplet(str(droplet.id))
    assert reserved.droplet is None, "it leads nowhere, and is still reserved"
    clock.advance(3)
    account.delete_reserved("203.0.113.1")
    with pytest.raises(CloudError, match="could not be found"):
        account.delete_reserved("203.0.113.1")


def test_too_many_calls_are_refused(clock: ManualClock) -> None:
    account = DigitalOcean(clock, rate=calls_a_minute())
    for _ in range(250):
        account.called()
    with pytest.raises(CloudError) as error:
        account.called()
    assert (error.value.status, error.value.code) == (429, "too_many_requests")
    clock.advance(61)
    account.called()


def test_a_refused_call_does_not_count(clock: ManualClock) -> None:
    limit = RateLimit(calls=1, seconds=10, error=CloudError(429, "x", "y"))
    limit.take(0)
    with pytest.raises(CloudError):
        limit.take(9)
    limit.take(10)


def test_a_token_may_do_what_its_scopes_say(clock: ManualClock) -> None:
    account = DigitalOcean(clock, scopes=frozenset({"droplet:read"}))
    account.authorize("droplet:read")
    with pytest.raises(CloudError) as error:
        account.authorize("droplet:create")
    assert says(error) == (403, "You are not authorized to perform this operation")


def test_the_inventory_names_everything_but_default_vpcs(account: DigitalOcean, clock: ManualClock) -> None:
    assert account.inventory() == {}
    droplet = running(account, clock, tags=["shop"])
    assert account.inventory() == {"droplets": [str(droplet.id)], "tags": ["shop"]}
