"""What the program says and does where an AWS account refuses: wrong sizes, zones, quotas, states and regions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest

from rehearsal.accounts.aws import LISTED, Account, Moods
from rehearsal.accounts.aws_catalogue import TOO_MANY_CALLS, TYPES, ZONES, Limits
from rehearsal.accounts.base import ManualClock, RateLimit
from rehearsal.errors import StepFailedError
from tests.support import in_memory
from tests.support.in_memory import INSTANCE, InMemoryBackend, Run, project

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Start = Callable[..., Run]


@pytest.fixture(autouse=True)
def _no_region_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "DECANT_REPLACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def account(clock: ManualClock) -> Account:
    return Account(clock)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: Account) -> Start:
    """Run the program on AWS with this account: `start(machines=2)`, with `preview=True` for a forecast."""
    count = iter(range(100))

    def run(*, preview: bool = False, **settings: Any) -> Run:
        folder = project(tmp_path / str(next(count)))
        config = {k.replace("__", ":"): v for k, v in {**INSTANCE, **settings}.items()}
        world = InMemoryBackend(accounts={"aws": account})
        return in_memory.run_program(folder, config, monkeypatch, preview=preview, world=world)

    return run


def error(start: Start, **settings: Any) -> str:
    with pytest.raises(pulumi.RunError) as caught:
        start(**settings)
    return str(caught.value)


def zone_of(run: Run, machine: str) -> str:
    subnet = run.one(f"Instance {machine}").inputs["subnetId"]
    (found,) = [one for one in run.of_type(":Subnet") if run.ids[one.urn] == subnet]
    return str(run.states[found.urn]["availabilityZone"])


# ------------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "up"])
@pytest.mark.parametrize("machines", [1, 2])
def test_a_size_that_aws_does_not_have_is_refused_before_any_machine(
    start: Start, account: Account, machines: int, preview: bool
) -> None:
    assert error(start, size="t3.mcro", machines=machines, preview=preview) == (
        "decant:size is t3.mcro: AWS has no such instance type in eu-central-1\n"
        "      pulumi config set decant:size t3.micro --stack paper"
    )
    assert len(account.instances) == 0


def test_the_image_has_the_architecture_of_the_size(start: Start, account: Account) -> None:
    run = start(size="t4g.small")
    image = account.images[run.one("Instance web-1").inputs["ami"]]
    assert (image.name, image.architecture) == ("debian-13-arm64-20261103-2286", "arm64")
    image = account.images[start(size="t3.small").one("Instance web-1").inputs["ami"]]
    assert (image.name, image.architecture) == ("debian-13-amd64-20261103-2286", "x86_64")


@pytest.mark.parametrize(
    ("image", "size", "architectures"),
    [
        ("debian-13-amd64", "t4g.small", "an image for x86_64, and decant:size t4g.small is arm64"),
        ("debian-13-arm64", "t3.small", "an image for arm64, and decant:size t3.small is x86_64"),
        ("ami-0123456789abcdef0", "t4g.small", "an image for x86_64, and decant:size t4g.small is arm64"),
    ],
)
def test_an_image_of_another_architecture_is_refused(start: Start, image: str, size: str, architectures: str) -> None:
    assert error(start, image=image, size=size) == (
        f"decant:image is {image}: {architectures}\n      pulumi config rm decant:image --stack paper"
    )


def test_an_image_that_debian_does_not_have_is_named(start: Start) -> None:
    assert error(start, image="debian-14") == (
        "decant:image is debian-14: Debian has no image debian-14-amd64-* in eu-central-1\n"
        "      pulumi config rm decant:image --stack paper"
    )


def test_an_image_id_that_is_gone_is_only_warned_of(start: Start) -> None:
    """Machines that run need it no more, and a release for them must not fail."""
    run = start(image="ami-0aaaaaaaaaaaaaaaa", preview=True)
    assert [text for text in run.warnings if "ami-" in text] == [
        "decant:image is ami-0aaaaaaaaaaaaaaaa: AWS does not have this image in eu-central-1 any more, or it is"
        " private. Machines that run keep going; no new one can start: pulumi config rm decant:image --stack paper"
    ]


# ------------------------------------------------------------------------------------------------ zones


def test_machines_and_balancer_are_in_zones_that_offer_the_size(start: Start) -> None:
    run = start(size="c7i.large", machines=2)
    assert [zone_of(run, name) for name in ("web-1", "web-2")] == list(ZONES[1:])
    balancer = [one for one in run.of_type(":Subnet") if one.name.startswith("balancer")]
    assert sorted(one.inputs["availabilityZone"] for one in balancer) == list(ZONES[1:])


def test_a_single_machine_is_in_the_first_zone_that_offers_its_size(start: Start) -> None:
    assert zone_of(start(size="m7i-flex.large"), "web-1") == "eu-central-1c"
    assert zone_of(start(), "web-1") == "eu-central-1a"


def test_a_balancer_needs_two_zones_that_offer_the_size(start: Start, account: Account) -> None:
    assert error(start, size="m7i-flex.large", machines=2) == (
        "decant:size is m7i-flex.large: AWS offers it in one zone of eu-central-1 only (eu-central-1c), and a load"
        " balancer needs machines in two\n      pulumi config set decant:size t3.micro --stack paper"
    )
    assert len(account.instances) == 0


def test_a_size_that_a_machines_zone_does_not_offer_is_refused(start: Start, account: Account) -> None:
    """The zone of an existing subnet stays: here the account offered the size there when the subnet was made."""
    account.types["t3.micro"] = replace(TYPES["t3.micro"], zones=ZONES[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rehearsal.doubles.aws.resources.Aws.subnet", _in_zone_a)
        assert error(start) == (
            "decant:size is t3.micro: AWS does not offer it in eu-central-1a, where web-1 is, but in eu-central-1b,"
            " eu-central-1c\n      pulumi config set decant:size SIZE --stack paper     (those of the zone: aws"
            " --region eu-central-1 ec2 describe-instance-type-offerings --location-type availability-zone --filters"
            " Name=location,Values=eu-central-1a --query 'InstanceTypeOfferings[].InstanceType')"
        )


def _in_zone_a(self: Any, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    self.subnets["subnet-0old"] = (inputs["vpcId"], inputs["cidrBlock"], "eu-central-1a")
    return "subnet-0old", {"availabilityZone": "eu-central-1a"}


# ------------------------------------------------------------------------------------------------ changes of machines


def running(account: Account, size: str = "t3.micro", name: str = "web-1", image: str = "debian-13-amd64") -> str:
    """Put a machine of the stack into the account, in the network that the program will make."""
    (found,) = {one.id for one in account.images.values() if one.name == f"{image}-20261103-2286"}
    one = account.run_instance(
        type_name=size, image=found, zone=ZONES[0], vpc="vpc-existing", tags={"Name": f"decant-paper-{name}"}
    )
    account.booted(one.id, "10.9.8.200", "10.90.0.9")
    return one.id


@pytest.fixture
def _existing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack's network is there already."""

    def vpc(self: Any, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        self.networks["vpc-existing"] = inputs["cidrBlock"]
        return "vpc-existing", {}

    monkeypatch.setattr("rehearsal.doubles.aws.resources.Aws.vpc", vpc)


@pytest.mark.usefixtures("_existing_network")
@pytest.mark.parametrize("machines", [1, 2])
def test_a_machine_cannot_get_another_architecture(
    start: Start, account: Account, machines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(machines):
        running(account, name=f"web-{number + 1}")
    names = ",".join(f"web-{number + 1}" for number in range(machines))
    assert error(start, size="t4g.micro", machines=machines) == (
        f"decant:size is t4g.micro, which is arm64, and {names.replace(',', ', ')} was made for x86_64: its system"
        " cannot run there\n      pulumi config set decant:size t3.micro --stack paper\n"
        "      To replace every machine, with the loss of what the app has written to its disk:"
        f" DECANT_REPLACE={names} make up STACK=paper"
    )
    monkeypatch.setenv("DECANT_REPLACE", names)
    run = start(size="t4g.micro", machines=machines)
    assert "ami" not in run.one("Instance web-1").ignore_changes


@pytest.mark.usefixtures("_existing_network")
def test_a_single_machine_is_not_stopped_when_the_quota_has_no_room_for_its_new_size(
    start: Start, account: Account
) -> None:
    account.limits = Limits(vcpus=5)
    running(account)
    other = account.run_instance(
        type_name="t3.micro", image=next(i.id for i in account.images.values() if "13-amd64" in i.name),
        zone=ZONES[1], vpc="vpc-other", tags={},
    )  # fmt: skip
    account.booted(other.id, "10.9.8.201", "10.90.0.10")
    assert error(start, size="t3.xlarge") == (
        "decant:size is t3.xlarge, which has 4 vCPUs: web-1 would be stopped for it and could not start again, because"
        " the account's quota in eu-central-1 is 5 and other machines use 2\n"
        "      pulumi config set decant:size t3.micro --stack paper, or ask for a larger quota:\n"
        "      aws --region eu-central-1 service-quotas request-service-quota-increase --service-code ec2"
        " --quota-code L-1216C47A --desired-value 6"
    )
    assert account.stopped == []


@pytest.mark.usefixtures("_existing_network")
def test_a_single_machine_may_get_a_size_for_which_the_quota_has_room(start: Start, account: Account) -> None:
    account.limits = Limits(vcpus=64)
    running(account)
    start(size="t3.xlarge")


@pytest.mark.parametrize(("machines", "needed"), [(3, 6), (4, 8)])
def test_a_fleet_that_no_quota_allows_is_refused_before_anything(
    start: Start, account: Account, machines: int, needed: int
) -> None:
    account.limits = Limits(vcpus=5)
    assert error(start, machines=machines) == (
        f"decant:machines is {machines} of decant:size t3.micro: they need {needed} vCPUs, and the account's quota in"
        " eu-central-1 is 5\n"
        "      pulumi config set decant:machines 2 --stack paper, or ask for a larger quota:\n"
        "      aws --region eu-central-1 service-quotas request-service-quota-increase --service-code ec2"
        f" --quota-code L-1216C47A --desired-value {needed + 2}"
    )
    assert len(account.instances) == 0


def test_a_quota_that_cannot_be_read_refuses_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy of an older release does not allow to read it."""

    def denied(*asked: Any) -> Any:
        raise StepFailedError("api error AccessDeniedException: not authorized")

    monkeypatch.setattr("rehearsal.doubles.aws.look_ups.LookUps.quota", denied)
    monkeypatch.setattr("rehearsal.doubles.aws.look_ups.LookUps.instances", denied)
    assert start(machines=2).one("Instance web-2")


# ------------------------------------------------------------------------------------------------ states


@pytest.mark.parametrize("machines", [1, 2])
def test_a_stopped_machine_is_named_with_the_command_that_starts_it(
    start: Start, account: Account, monkeypatch: pytest.MonkeyPatch, machines: int
) -> None:
    after_boot(monkeypatch, account.stop_instance)
    text = error(start, machines=machines)
    assert re.fullmatch(
        r"web-\d \(i-0[0-9a-f]{16}\) is stopped\n"
        r"      aws --region eu-central-1 ec2 start-instances --instance-ids i-0[0-9a-f]{16}\n"
        r"      Where AWS refuses to start it as t3\.micro, first give it a size that it can have:\n"
        r"      aws --region eu-central-1 ec2 modify-instance-attribute --instance-id i-0[0-9a-f]{16} --instance-type"
        r" SIZE && pulumi config set decant:size SIZE --stack paper",
        text,
    ), text


@pytest.mark.parametrize("machines", [1, 2])
@pytest.mark.parametrize("gone", [False, True], ids=["listed", "forgotten"])
def test_a_terminated_machine_is_to_be_replaced(
    start: Start,
    account: Account,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    machines: int,
    gone: bool,
) -> None:
    def end(identity: str) -> None:
        account.terminate_instance(identity)
        if gone:
            clock.advance(LISTED)

    monkeypatch.setattr("decant.clouds.aws.existing.PAUSE", 0)
    after_boot(monkeypatch, end)
    text = error(start, machines=machines)
    assert re.fullmatch(
        r"(web-\d) \(i-0[0-9a-f]{16}\) does not exist any more: it was terminated\n"
        r"      make replace STACK=paper MACHINE=\1",
        text,
    ), text


def after_boot(monkeypatch: pytest.MonkeyPatch, happens: Callable[[str], None]) -> None:
    """Let something happen to each machine as soon as it exists."""
    from rehearsal.doubles.aws.resources import Aws

    original = Aws.instance

    def instance(self: Aws, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        identity, outputs = original(self, name, inputs)
        happens(identity)
        return identity, outputs

    def associated(self: Aws, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "eipassoc-0", {"publicIp": self.elastic[inputs["allocationId"]]}

    monkeypatch.setattr(Aws, "instance", instance)
    monkeypatch.setattr(Aws, "association", associated)


def test_a_machine_that_aws_does_not_list_yet_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = InMemoryBackend(accounts={"aws": Account(delay=1.5)})
    config = {**INSTANCE, "machines": 2}
    run = in_memory.run_program(project(tmp_path), config, monkeypatch, world=world)
    assert [machine["name"] for machine in run.exports["machines"].value] == ["web-1", "web-2"]
    assert len([one for one in run.asked if one.token.endswith(":getInstance")]) > 2


def test_calls_that_are_too_many_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = RateLimit(calls=4, seconds=0.3, error=TOO_MANY_CALLS)
    world = InMemoryBackend(accounts={"aws": Account(rate=rate)})
    run = in_memory.run_program(project(tmp_path), INSTANCE, monkeypatch, world=world)
    assert run.exports["url"].value == "http://203.0.113.77"


# ------------------------------------------------------------------------------------------------ refusals of AWS


@pytest.mark.parametrize(
    ("limits", "moods", "words"),
    [
        (Limits(vpcs=1), Moods(), "api error VpcLimitExceeded: The maximum number of VPCs has been reached."),
        (Limits(), Moods(balancers=False), "api error OperationNotPermitted: This AWS account currently does not"),
        (Limits(), Moods(unusable_key=True), "Client.InternalError: Client error on launch"),
        (Limits(), Moods(scarce={("t3.micro", ZONES[1])}), "api error InsufficientInstanceCapacity: We currently"),
    ],
)
def test_what_aws_refuses_ends_the_run_with_its_words(
    start: Start, account: Account, limits: Limits, moods: Moods, words: str
) -> None:
    account.limits, account.moods = limits, moods
    with pytest.raises(StepFailedError, match=re.escape(words)):
        start(machines=2)


# ------------------------------------------------------------------------------------------------ credits and tags


def test_credits_are_left_to_aws_where_the_setting_is_not_set(start: Start) -> None:
    assert "creditSpecification" not in start().one("Instance web-1").inputs


@pytest.mark.parametrize("mode", ["standard", "unlimited"])
def test_credits_are_as_the_setting_says(start: Start, account: Account, mode: str) -> None:
    run = start(cpuCredits=mode)
    assert run.one("Instance web-1").inputs["creditSpecification"] == {"cpuCredits": mode}
    assert [one.credits for one in account.instances.values()] == [mode]


def test_credits_need_a_size_that_has_them(start: Start) -> None:
    assert error(start, size="m5.large", cpuCredits="standard") == (
        "decant:cpuCredits is standard: m5.large always has its whole CPUs, only burstable sizes such as t3.micro have"
        " credits\n      pulumi config rm decant:cpuCredits --stack paper"
    )


@pytest.mark.parametrize(("named", "ignored"), [("web-1", False), ("web-2", True), ("web-2,web-1", False), ("", True)])
def test_only_a_machine_that_is_to_be_replaced_gets_the_newest_image(
    start: Start, monkeypatch: pytest.MonkeyPatch, named: str, ignored: bool
) -> None:
    monkeypatch.setenv("DECANT_REPLACE", named)
    ignores = start(machines=2).one("Instance web-1").ignore_changes
    assert ignores == (("ami",) if ignored else ()) + ("userData", "keyName")


# ------------------------------------------------------------------------------------------------ the region


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_an_exported_region_that_differs_is_refused(
    start: Start, account: Account, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "us-east-1")
    assert error(start).partition("\n")[2].strip() == (
        f"aws:region is eu-central-1: {variable} in the environment is us-east-1. A stack stays where it is\n"
        f"      unset {variable}, or export {variable}=eu-central-1"
    )
    assert len(account.instances) == 0
    monkeypatch.setenv(variable, "eu-central-1")
    start()


def test_the_environment_does_not_replace_the_stacks_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    without = {k: v for k, v in INSTANCE.items() if k != "aws:region"}
    with pytest.raises(pulumi.RunError) as caught:
        in_memory.run_program(project(tmp_path), without, monkeypatch)
    assert (
        "aws:region: is required on aws, and the environment does not count: the region in which the stack's machines"
        " are, or will be\n      pulumi config set aws:region eu-central-1"
    ) in str(caught.value)
