"""The AWS account in memory refuses what AWS refuses, in its words, and lists what AWS lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rehearsal.accounts.aws import LISTED, Account, Instance, Moods
from rehearsal.accounts.aws_catalogue import STANDARD_VCPUS, TOO_MANY_CALLS, ZONES, Limits
from rehearsal.accounts.base import CloudError, ManualClock, RateLimit


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def account(clock: ManualClock) -> Account:
    return Account(clock, limits=Limits(vcpus=6, addresses=1, vpcs=2, balancers=1))


def image(account: Account, architecture: str = "x86_64") -> str:
    found = account.describe_images(f"debian-13-{'arm64' if architecture == 'arm64' else 'amd64'}-*", architecture)
    assert found
    return found.id


def run(account: Account, type_name: str = "t3.micro", zone: str = ZONES[0], **more: Any) -> Instance:
    options: dict[str, Any] = {"image": image(account), "vpc": "vpc-1", "tags": {"Name": "web-1"}, **more}
    made = account.run_instance(type_name=type_name, zone=zone, **options)
    account.booted(made.id, "198.51.100.1", "10.0.0.4")
    return made


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(CloudError) as caught:
        call()
    return caught.value.code, caught.value.message


def test_a_type_with_another_architecture_than_the_image_is_refused(account: Account) -> None:
    code, message = refusal(lambda: run(account, "t4g.micro"))
    assert code == "InvalidParameterValue"
    assert message.startswith("The architecture 'arm64' of the specified instance type does not match the architecture"
                              " 'x86_64' of the specified AMI.")  # fmt: skip
    assert run(account, "t4g.micro", image=image(account, "arm64")).kind.architecture == "arm64"


@pytest.mark.parametrize(
    ("type_name", "zone", "code", "words"),
    [
        ("t3.mcro", ZONES[0], "InvalidParameterValue", "Invalid value 't3.mcro' for InstanceType."),
        ("c7i.large", ZONES[0], "Unsupported", "(c7i.large) is not supported in your requested Availability Zone"),
        ("m5.2xlarge", ZONES[0], "VcpuLimitExceeded", "your current vCPU limit of 6 allows"),
    ],
)
def test_a_machine_that_cannot_be(account: Account, type_name: str, zone: str, code: str, words: str) -> None:
    told = refusal(lambda: run(account, type_name, zone))
    assert told[0] == code
    assert words in told[1]
    assert len(account.instances) == 0


def test_an_image_that_is_gone(account: Account) -> None:
    assert refusal(lambda: run(account, image="ami-0ffffffffffffffff")) == (
        "InvalidAMIID.NotFound", "The image id '[ami-0ffffffffffffffff]' does not exist",
    )  # fmt: skip


def test_what_does_not_run_does_not_count_against_the_quota(account: Account) -> None:
    first, second, _ = run(account), run(account), run(account)
    assert refusal(lambda: run(account))[0] == "VcpuLimitExceeded"
    account.terminate_instance(first.id)
    fourth = run(account)
    account.stop_instance(second.id)
    run(account)
    assert refusal(lambda: account.start_instance(second.id))[0] == "VcpuLimitExceeded"
    assert (second.state, fourth.state) == ("stopped", "running")
    assert account.get_quota(STANDARD_VCPUS) == 6


def test_a_machine_that_cannot_start_with_its_new_type_stays_stopped(account: Account) -> None:
    one = run(account)
    assert refusal(lambda: account.modify_type(one.id, "t3.small"))[0] == "IncorrectInstanceState"
    account.stop_instance(one.id)
    assert one.public_address == ""
    assert refusal(lambda: account.modify_type(one.id, "t3.mcro"))[0] == "InvalidParameterValue"
    assert refusal(lambda: account.modify_type(one.id, "t4g.micro"))[0] == "InvalidParameterValue"
    account.modify_type(one.id, "m5.2xlarge")
    assert refusal(lambda: account.start_instance(one.id))[0] == "VcpuLimitExceeded"
    account.modify_type(one.id, "c7i.large")
    assert refusal(lambda: account.start_instance(one.id))[0] == "Unsupported"
    account.modify_type(one.id, "t3.small")
    account.moods.scarce.add(("t3.small", ZONES[0]))
    assert refusal(lambda: account.start_instance(one.id))[0] == "InsufficientInstanceCapacity"
    assert (one.state, account.stopped) == ("stopped", [one.id])
    account.moods.scarce.clear()
    account.start_instance(one.id)
    assert (one.state, one.public_address) == ("running", "198.51.100.1")


def test_a_terminated_machine_is_listed_for_an_hour(account: Account, clock: ManualClock) -> None:
    one = run(account)
    account.terminate_instance(one.id)
    clock.advance(LISTED - 1)
    assert account.describe_instance(one.id).state == "terminated"
    assert account.describe_instance(one.id).public_address == ""
    assert [found.id for found in account.describe_instances({"tag:Name": ["web-1"]})] == [one.id]
    account.terminate_instance(one.id)
    assert refusal(lambda: account.start_instance(one.id))[0] == "IncorrectInstanceState"
    clock.advance(1)
    gone = ("InvalidInstanceID.NotFound", f"The instance ID '{one.id}' does not exist")
    assert refusal(lambda: account.describe_instance(one.id)) == gone
    assert refusal(lambda: account.terminate_instance(one.id)) == gone


def test_a_new_machine_is_found_after_a_while(clock: ManualClock) -> None:
    account = Account(clock, delay=2)
    made = account.run_instance(type_name="t3.micro", image=image(account), zone=ZONES[0], vpc="v", tags={})
    account.booted(made.id, "198.51.100.1", "10.0.0.4")
    clock.advance(1.9)
    assert refusal(lambda: account.describe_instance(made.id))[0] == "InvalidInstanceID.NotFound"
    assert account.describe_instances({}) == []
    clock.advance(0.1)
    assert account.describe_instance(made.id).public_address == "198.51.100.1"


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, True),
        ({"instance-state-name": ["running", "stopped"], "vpc-id": ["vpc-1"], "tag:Name": ["web-2", "web-1"]}, True),
        ({"instance-state-name": ["stopped"]}, False),
        ({"instance-type": ["t3.micro"], "architecture": ["x86_64"], "availability-zone": [ZONES[0]]}, True),
        ({"architecture": ["arm64"]}, False),
        ({"tag:Other": ["web-1"]}, False),
    ],
)
def test_machines_are_found_by_filters(account: Account, filters: dict[str, list[str]], found: bool) -> None:
    run(account)
    assert bool(account.describe_instances(filters)) is found


def test_a_filter_that_is_not_known_is_an_error(account: Account) -> None:
    run(account)
    assert refusal(lambda: account.describe_instances({"name": ["web-1"]}))[1] == "The filter 'name' is invalid"


def test_an_elastic_address_leads_to_one_machine(account: Account) -> None:
    first, second = run(account), run(account)
    account.associate_address(first.id, "203.0.113.7")
    account.associate_address(second.id, "203.0.113.7")
    assert (first.public_address, second.public_address) == ("198.51.100.1", "203.0.113.7")
    account.stop_instance(second.id)
    assert second.public_address == "203.0.113.7", "an elastic address stays"


def test_credits_are_for_burstable_machines(account: Account) -> None:
    assert refusal(lambda: run(account, "m5.large", credits="standard"))[0] == "InvalidParameterCombination"
    one = run(account, credits="standard")
    account.modify_credits(one.id, "unlimited")
    assert one.credits == "unlimited"


def test_limits_are_refused_in_awss_words(account: Account) -> None:
    account.create_vpc("10.90.0.0/16")
    assert refusal(lambda: account.create_vpc("10.91.0.0/16")) == (
        "VpcLimitExceeded", "The maximum number of VPCs has been reached.",
    )  # fmt: skip
    account.allocate_address()
    assert refusal(account.allocate_address) == (
        "AddressLimitExceeded", "The maximum number of addresses has been reached.",
    )  # fmt: skip
    account.create_balancer("arn:1")
    assert refusal(lambda: account.create_balancer("arn:2"))[0] == "TooManyLoadBalancers"
    account.moods = Moods(balancers=False)
    assert refusal(lambda: account.create_balancer("arn:2")) == (
        "OperationNotPermitted",
        "This AWS account currently does not support creating load balancers. For more information, please contact AWS"
        " Support.",
    )
    assert account.inventory().keys() == {"vpcs", "addresses", "balancers"}


def test_a_disk_key_that_may_not_be_used_ends_the_machine(account: Account) -> None:
    account.moods.unusable_key = True
    assert run(account).state == "terminated"


def test_too_many_calls_are_refused(clock: ManualClock) -> None:
    account = Account(clock, RateLimit(calls=2, seconds=1, error=TOO_MANY_CALLS))
    account.describe_type("t3.micro")
    account.describe_zones(all_zones=False)
    assert refusal(lambda: account.describe_type("t3.micro")) == ("RequestLimitExceeded", "Request limit exceeded.")
    clock.advance(1)
    assert account.describe_offerings(["m7i-flex.large", "t3.mcro"]) == [("m7i-flex.large", ZONES[2])]
    assert refusal(lambda: account.describe_type("t3.mcro")) == (
        "InvalidInstanceType", "The following supplied instance types do not exist: [t3.mcro]",
    )  # fmt: skip
