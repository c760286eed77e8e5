"""What an AWS account refuses, with the real `pulumi`: nothing is stopped or replaced, and the error says what to type.

Each test goes on where the one before ended.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rehearsal.accounts.aws import TERMINATED, Instance
from rehearsal.accounts.aws import Account as Aws
from rehearsal.accounts.aws_catalogue import REGION, ZONES, Limits
from rehearsal.machines.network import Network
from tests.engine.aws_provider import INSTANCE, Account, Provider
from tests.support.fake_account import FakeAccount
from tests.support.pulumi_stack import STACK, Stack, get, missing

READS = {"Read", "Invoke"}
MORE_VCPUS = (
    f"aws --region {REGION} service-quotas request-service-quota-increase --service-code ec2 --quota-code L-1216C47A"
)


@pytest.fixture(scope="module")
def account(network: Network) -> Account:
    if lacking := missing("tls"):
        pytest.skip("needs " + ", ".join(lacking))
    backend = FakeAccount(network)
    backend.accounts["aws"] = Aws(delay=2)
    return Account(backend)


@pytest.fixture(scope="module")
def stack(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    provider = Provider(account)
    stack = Stack.create(tmp_path_factory.mktemp("refusals"), **provider.environment)
    stack.set({"cloud": "aws", "adminCidrs[0]": "10.0.0.0/8"})
    stack.pulumi("config", "set", "aws:region", REGION)
    yield stack
    provider.server.stop(None)


def machine(account: Account) -> Instance:
    """The stack's machine, as AWS has it. Others that are gone are still listed."""
    (one,) = [one for one in account.aws.instances.values() if one.tags and one.state != TERMINATED]
    return one


def refused(stack: Stack, account: Account, *, changes_nothing: bool = True) -> str:
    """What `pulumi preview` and `pulumi up` say, of which the site takes no notice."""
    account.calls.clear()
    planned, ran = stack.pulumi("preview", fails=True), stack.up(fails=True)
    for said in (planned.said, ran.said):
        assert "Traceback" not in said, said
    if changes_nothing:
        assert {verb for verb, _ in account.calls} <= READS, account.calls
        assert account.aws.stopped == []
        assert get(stack.outputs()["url"]).status == 200
    return planned.said


def test_a_size_that_no_zone_offers_makes_nothing(stack: Stack, account: Account) -> None:
    stack.set({"size": "t3.mcro"})
    planned = stack.pulumi("preview", fails=True)
    assert "decant:size is t3.mcro: AWS has no such instance type in eu-central-1" in planned.said
    assert "Traceback" not in planned.said
    assert account.inventory() == {}


def test_the_first_machine_is_in_a_zone_that_offers_its_size(stack: Stack, account: Account) -> None:
    """AWS lists the new machine only two seconds later."""
    stack.set({"size": "t3.micro"})
    stack.up()
    assert {reason.rpartition("(")[2] for reason in account.wrong} == {"'no matching EC2 Instance found')"}
    one = machine(account)
    assert (one.zone, one.kind.name, one.image.architecture) == (ZONES[0], "t3.micro", "x86_64")
    assert stack.up().counts.keys() == {"unchanged"}


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("t3.mcro", f"decant:size is t3.mcro: AWS has no such instance type in {REGION}"),
        ("c7i.large", f"decant:size is c7i.large: AWS does not offer it in {ZONES[0]}, where web-1 is"),
        ("t4g.micro", "decant:size is t4g.micro, which is arm64, and web-1 was made for x86_64"),
    ],
)
def test_a_size_that_the_machine_cannot_have_stops_nothing(
    stack: Stack, account: Account, size: str, words: str
) -> None:
    stack.set({"size": size})
    said = refused(stack, account)
    assert words in said
    assert f"pulumi config set decant:size {'SIZE' if size == 'c7i.large' else 't3.micro'} --stack {STACK}" in said


@pytest.mark.parametrize(("limit", "wanted"), [(3, 8), (5, 6)], ids=["alone", "with others"])
def test_a_quota_without_room_stops_nothing(stack: Stack, account: Account, limit: int, wanted: int) -> None:
    stack.set({"size": "t3.xlarge"})
    account.aws.limits = Limits(vcpus=limit)
    image = next(image.id for image in account.aws.images.values() if "13-amd64" in image.name)
    other = None
    if limit == 5:
        other = account.aws.run_instance(type_name="t3.micro", image=image, zone=ZONES[1], vpc="vpc-default", tags={})
        account.aws.booted(other.id, "203.0.113.200", "172.31.0.9")
    said = refused(stack, account)
    assert f"quota in {REGION} is {limit}" in said
    assert f"{MORE_VCPUS} --desired-value {wanted}" in said
    if other:
        account.aws.terminate_instance(other.id)
    account.aws.limits = Limits()


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_another_region_in_the_environment_plans_nothing(
    stack: Stack, account: Account, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.set({"size": "t3.micro"})
    monkeypatch.setenv(variable, "us-east-1")
    said = refused(stack, account)
    assert f"aws:region is {REGION}: {variable} in the environment is us-east-1. A stack stays where it is" in said
    assert f"unset {variable}, or export {variable}={REGION}" in said


def test_a_machine_that_is_stopped_by_hand_is_started_as_the_error_says(stack: Stack, account: Account) -> None:
    identity = machine(account).id
    account.aws.stop_instance(identity)
    said = refused(stack, account, changes_nothing=False)
    assert f"web-1 ({identity}) is stopped" in said
    assert f"aws --region {REGION} ec2 start-instances --instance-ids {identity}" in said
    account.aws.start_instance(identity)
    account.aws.stopped.clear()
    assert stack.up().counts.keys() == {"unchanged"}


def test_another_size_stops_the_machine_for_a_moment(stack: Stack, account: Account) -> None:
    """It keeps its disk, its address and its release."""
    before = stack.outputs()
    stack.set({"size": "t3.small"})
    ran = stack.up()
    assert ran.operations == {"Instance web-1": "updated"}
    one = machine(account)
    assert (one.kind.name, one.state, account.aws.stopped) == ("t3.small", "running", [one.id])
    after = stack.outputs()
    costs = [outputs.pop("cost")["items"][0] for outputs in (before, after)]
    assert costs == ["1 x instance t3.micro, 8.76 each", "1 x instance t3.small, 17.52 each"]
    assert after == before
    assert stack.up().counts.keys() == {"unchanged"}
    account.aws.stopped.clear()


def test_a_machine_that_aws_has_no_room_for_is_started_again_as_the_error_says(stack: Stack, account: Account) -> None:
    """Nobody can know before whether AWS has a computer of a size that is free."""
    one = machine(account)
    size = one.kind.name
    account.aws.moods.scarce.add(("t3.medium", one.zone))
    stack.set({"size": "t3.medium"})
    assert (
        "api error InsufficientInstanceCapacity: We currently do not have sufficient t3.medium"
        in stack.up(fails=True).said
    )
    assert (one.state, one.kind.name) == ("stopped", "t3.medium")
    said = refused(stack, account, changes_nothing=False)
    assert f"web-1 ({one.id}) is stopped" in said
    assert "Where AWS refuses to start it as t3.medium, first give it a size that it can have:" in said
    change = f"aws --region {REGION} ec2 modify-instance-attribute --instance-id {one.id} --instance-type SIZE"
    assert f"{change} && pulumi config set decant:size SIZE --stack {STACK}" in said
    account.aws.modify_type(one.id, size)
    stack.set({"size": size})
    account.aws.start_instance(one.id)
    account.fake_account.power_on(one.own_address)
    stack.up()
    assert get(stack.outputs()["url"]).status == 200
    account.aws.stopped.clear()


def test_credits_are_changed_in_place(stack: Stack, account: Account) -> None:
    stack.set({"cpuCredits": "standard"})
    assert stack.up().operations == {"Instance web-1": "updated"}
    one = machine(account)
    assert (one.credits, account.aws.stopped) == ("standard", [])


def test_a_terminated_machine_is_replaced_as_the_error_says(stack: Stack, account: Account) -> None:
    identity = machine(account).id
    account.aws.terminate_instance(identity)
    account.fake_account.power_off(account.found(INSTANCE, identity).outputs["publicIp"])
    said = refused(stack, account, changes_nothing=False)
    assert f"web-1 ({identity}) does not exist any more: it was terminated" in said
    assert f"make replace STACK={STACK} MACHINE=web-1" in said
    assert {verb for verb, _ in account.calls} <= READS
    stack.up("--replace", stack.resources()["Instance web-1"]["urn"])
    new = machine(account)
    assert stack.outputs()["machines"][0]["id"] == new.id != identity
    assert get(stack.outputs()["url"]).status == 200


def test_destroy_leaves_nothing(stack: Stack, account: Account) -> None:
    stack.destroy()
    assert account.inventory() == {}
    assert account.aws.inventory() == {}
