"""SSH for one run: the rules that each cloud is asked for, found again by what they say, and nothing else touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from decant import clouds
from decant.clouds.inventory import StackInAccount
from decant.clouds.runner_access import Opening
from decant.errors import CloudApiError
from rehearsal.accounts.base import CloudError
from rehearsal.accounts.digitalocean_catalogue import Pace
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support import aws_reads
from tests.support.aws_reads import RefusedError
from tests.support.no_machines import NoMachines

NOW = datetime(2026, 11, 28, 14, 30, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
TAG = "decant-dev-0a1b2c3"
GROUP = "sg-0123"
STACK = {
    "digitalocean": {"urn": "urn:pulumi:dev::decant::digitalocean:index/tag:Tag::tag",
                     "type": "digitalocean:index/tag:Tag", "id": TAG, "outputs": {"name": TAG}},
    "aws": {"urn": "urn:pulumi:dev::decant::aws:ec2/securityGroup:SecurityGroup::machines",
            "type": "aws:ec2/securityGroup:SecurityGroup", "id": GROUP, "outputs": {}},
}  # fmt: skip
OTHERS = {
    "digitalocean": {"urn": "urn:pulumi:dev::decant::digitalocean:index/tag:Tag::review-tag",
                     "type": "digitalocean:index/tag:Tag", "id": "other", "outputs": {"name": "other"}},
    "aws": {"urn": "urn:pulumi:dev::decant::aws:ec2/securityGroup:SecurityGroup::balancer",
            "type": "aws:ec2/securityGroup:SecurityGroup", "id": "sg-9", "outputs": {}},
}  # fmt: skip


@pytest.fixture
def api() -> Iterator[DigitalOceanApi]:
    api = DigitalOceanApi(NoMachines(), "token", pace=Pace(visible=0, pending=0))
    for tag in (TAG, "other"):
        api.account.add_tag(tag)
    yield api
    api.server.shutdown()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> aws_reads.Account:
    account = aws_reads.Account()
    aws_reads.install(account, monkeypatch)
    return account


def at(cloud: str, *resources: dict[str, Any], url: str = "") -> StackInAccount:
    provider = {
        "digitalocean": {"token": "token"},
        "aws": {"region": "eu-central-1", "accessKey": "a", "secretKey": "s"},
    }
    return StackInAccount(
        project="decant", stack="dev", provider=provider[cloud], environ={"DIGITALOCEAN_API_URL": url},
        resources=resources,
    )  # fmt: skip


@pytest.fixture(params=["digitalocean", "aws"])
def cloud(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def account(cloud: str, api: DigitalOceanApi, aws: aws_reads.Account) -> StackInAccount:
    return at(cloud, OTHERS[cloud], STACK[cloud], url=api.url)


def shown(account: StackInAccount, cloud: str) -> list[tuple[str, str, datetime]]:
    return [(one.network, one.run, one.until) for one in clouds.openings(cloud, account)]


# ------------------------------------------------------------------------------------------------ on all clouds


def test_a_rule_is_found_again_with_its_run_and_its_time(cloud: str, account: StackInAccount) -> None:
    assert clouds.openings(cloud, account) == []
    assert clouds.open_to(cloud, account, run="github-17321-2", network="198.41.0.4/32", until=LATER)
    assert shown(account, cloud) == [("198.41.0.4/32", "github-17321-2", LATER)]


def test_a_rule_that_is_closed_twice_is_closed(cloud: str, account: StackInAccount) -> None:
    clouds.open_to(cloud, account, run="github-1-1", network="198.41.0.4/32", until=LATER)
    (one,) = clouds.openings(cloud, account)
    clouds.close(cloud, account, one)
    assert clouds.openings(cloud, account) == []
    clouds.close(cloud, account, one)


def test_runs_have_rules_of_their_own(cloud: str, account: StackInAccount) -> None:
    clouds.open_to(cloud, account, run="github-1-1", network="198.41.0.4/32", until=LATER)
    clouds.open_to(cloud, account, run="github-2-1", network="199.7.83.42/32", until=NOW)
    first, second = sorted(clouds.openings(cloud, account), key=lambda one: one.run)
    clouds.close(cloud, account, first)
    assert clouds.openings(cloud, account) == [second]


def test_opening_again_makes_the_rule_last(cloud: str, account: StackInAccount) -> None:
    for until in (NOW, LATER):
        assert clouds.open_to(cloud, account, run="github-1-1", network="198.41.0.4/32", until=until)
    assert shown(account, cloud) == [("198.41.0.4/32", "github-1-1", LATER)]


def test_a_stack_without_machines_has_nothing_to_open(cloud: str, account: StackInAccount) -> None:
    empty = replace(account, resources=[OTHERS[cloud]])
    assert not clouds.can_open(cloud, empty.resources)
    assert clouds.can_open(cloud, account.resources)
    assert clouds.openings(cloud, empty) == []
    with pytest.raises(CloudApiError, match="stack dev has no "):
        clouds.open_to(cloud, empty, run="x", network="198.41.0.4/32", until=LATER)


@pytest.mark.parametrize(("now", "over"), [(LATER - timedelta(seconds=1), False), (LATER, True)])
def test_a_rule_is_over_at_its_time(now: datetime, over: bool) -> None:
    assert Opening(id="1", network="198.41.0.4/32", run="x", until=LATER).is_over(now) is over


def test_a_rule_with_a_time_that_does_not_exist_is_closed(
    cloud: str, account: StackInAccount, api: DigitalOceanApi, aws: aws_reads.Account
) -> None:
    """Somebody has written it by hand. It must not keep all others open."""
    clouds.open_to(cloud, account, run="github-1-1", network="198.41.0.4/32", until=LATER)
    for rule in aws.rules:
        rule["Description"] = rule["Description"].replace("2026-11-28", "2026-13-28")
    for firewall in api.account.firewalls.values():
        firewall["name"] = firewall["name"].replace("20261128", "20261328")
    (one,) = clouds.openings(cloud, account)
    assert one.is_over(NOW)
    clouds.close(cloud, account, one)
    assert clouds.openings(cloud, account) == []


# ------------------------------------------------------------------------------------------------ DigitalOcean


def test_at_digitalocean_a_firewall_on_the_stacks_tag_opens_ssh_alone(api: DigitalOceanApi) -> None:
    account = at("digitalocean", OTHERS["digitalocean"], STACK["digitalocean"], url=api.url)
    clouds.open_to("digitalocean", account, run="github-17321-2", network="198.41.0.4/32", until=LATER)
    (firewall,) = api.account.firewalls.values()
    assert firewall["name"] == f"{TAG}-run-github-17321-2-until-20261128T153000Z"
    assert (firewall["tags"], firewall["droplet_ids"], firewall["outbound_rules"]) == ([TAG], [], [])
    assert firewall["inbound_rules"] == [
        {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["198.41.0.4/32"]}}
    ]


def test_at_digitalocean_firewalls_of_others_are_no_rules_of_runs(api: DigitalOceanApi) -> None:
    for name in (TAG, f"{TAG}-web", f"{TAG}9-run-github-1-1-until-20261128T153000Z", f"{TAG}-run-x-until-soon"):
        api.account.add_firewall({"name": name, "tags": [TAG], "inbound_rules": [], "outbound_rules": []})
    assert clouds.openings("digitalocean", at("digitalocean", STACK["digitalocean"], url=api.url)) == []


def test_at_digitalocean_an_answer_that_was_lost_is_no_failure(
    api: DigitalOceanApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, calls = api.account.add_firewall, []

    def stumbles(body: Any) -> Any:
        calls.append(body["name"])
        made = add(body)
        if len(calls) == 1:
            raise CloudError(502, "server_error", "Bad Gateway")
        return made

    monkeypatch.setattr(api.account, "add_firewall", stumbles)
    account = at("digitalocean", STACK["digitalocean"], url=api.url)
    assert clouds.open_to("digitalocean", account, run="github-1-1", network="198.41.0.4/32", until=LATER)
    assert len(calls) == 2
    assert shown(account, "digitalocean") == [("198.41.0.4/32", "github-1-1", LATER)]


def test_a_runs_firewall_is_the_stacks_own_where_it_is_left(api: DigitalOceanApi) -> None:
    """`make destroy` deletes them first, unless the cloud refuses."""
    account = at("digitalocean", STACK["digitalocean"], url=api.url)
    clouds.open_to("digitalocean", account, run="github-1-1", network="198.41.0.4/32", until=LATER)
    (found,) = [one for one in clouds.left("digitalocean", account) if one.what.startswith("firewall")]
    assert (found.ours, found.command) == (True, f"doctl compute firewall delete {next(iter(api.account.firewalls))}")


# ------------------------------------------------------------------------------------------------ AWS


def test_on_aws_a_rule_in_the_machines_group_opens_ssh_alone(aws: aws_reads.Account) -> None:
    account = at("aws", OTHERS["aws"], STACK["aws"])
    clouds.open_to("aws", account, run="github-17321-2", network="198.41.0.4/32", until=LATER)
    assert aws.rules == [
        {"GroupId": GROUP, "IsEgress": False, "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22,
         "CidrIpv4": "198.41.0.4/32", "SecurityGroupRuleId": "sgr-2",
         "Description": "Decant: SSH for run=github-17321-2 until=2026-11-28T15:30:00Z"},
    ]  # fmt: skip


def rule(identity: str, **more: Any) -> dict[str, Any]:
    return {"GroupId": GROUP, "IsEgress": False, "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22,
            "CidrIpv4": "198.41.0.4/32", "SecurityGroupRuleId": identity, **more}  # fmt: skip


TEXT = "Decant: SSH for run=github-1-1 until=2026-11-28T15:30:00Z"


@pytest.mark.parametrize(
    "other",
    [
        rule("sgr-1"),
        rule("sgr-1", Description="office"),
        rule("sgr-1", Description=f"{TEXT} and longer"),
        rule("sgr-1", Description=TEXT, IsEgress=True),
        rule("sgr-1", Description=TEXT, GroupId="sg-9"),
    ],
)
def test_on_aws_rules_of_others_are_no_rules_of_runs(aws: aws_reads.Account, other: dict[str, Any]) -> None:
    aws.rules.append(other)
    assert clouds.openings("aws", at("aws", STACK["aws"])) == []


def test_on_aws_a_network_that_is_let_in_already_stays_as_it_is(aws: aws_reads.Account) -> None:
    aws.rules.append(rule("sgr-1", Description="office"))
    account = at("aws", STACK["aws"])
    assert not clouds.open_to("aws", account, run="github-1-1", network="198.41.0.4/32", until=LATER)
    assert aws.rules == [rule("sgr-1", Description="office")]


def test_on_aws_two_runs_from_one_address_share_a_rule_that_the_later_one_closes(aws: aws_reads.Account) -> None:
    """AWS takes no second rule for a network."""
    account = at("aws", STACK["aws"])
    for run in ("github-1-1", "github-2-1"):
        assert clouds.open_to("aws", account, run=run, network="198.41.0.4/32", until=LATER)
    assert shown(account, "aws") == [("198.41.0.4/32", "github-2-1", LATER)]


@pytest.mark.parametrize("operation", ["AuthorizeSecurityGroupIngress", "DescribeSecurityGroupRules"])
def test_on_aws_a_refusal_is_an_error(aws: aws_reads.Account, operation: str) -> None:
    aws.refused[operation] = RefusedError("UnauthorizedOperation", "You are not authorized", 403)
    with pytest.raises(CloudApiError, match="You are not authorized"):
        clouds.open_to("aws", at("aws", STACK["aws"]), run="x", network="198.41.0.4/32", until=LATER)


def test_on_aws_a_rule_that_may_not_be_deleted_is_an_error(aws: aws_reads.Account) -> None:
    aws.rules.append(rule("sgr-1", Description=TEXT))
    account = at("aws", STACK["aws"])
    (one,) = clouds.openings("aws", account)
    aws.refused["RevokeSecurityGroupIngress"] = RefusedError("UnauthorizedOperation", "You are not authorized", 403)
    with pytest.raises(CloudApiError, match="You are not authorized"):
        clouds.close("aws", account, one)
