"""SSH for one run on AWS: the rule is no drift, with the real engine.

The program makes the cloud alone, without steps on machines, so nothing boots.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from decant import clouds
from decant.clouds.inventory import StackInAccount
from rehearsal.accounts.aws_catalogue import REGION
from tests.engine.aws_provider import GROUP, Account, Provider
from tests.engine.test_digitalocean_cloud import PROGRAM
from tests.support import aws_reads
from tests.support.fake_account import FakeAccount
from tests.support.in_memory import InMemoryBackend
from tests.support.pulumi_stack import STACK, Stack, missing

UNTIL = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)


@pytest.fixture(scope="module")
def account() -> Account:
    if lacking := missing("tls"):
        pytest.skip("needs " + ", ".join(lacking))
    return Account(cast(FakeAccount, InMemoryBackend()))


@pytest.fixture(scope="module")
def stack(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    provider = Provider(account)
    stack = Stack.create(tmp_path_factory.mktemp("access"), **provider.environment)
    (stack.project / "infra/__main__.py").write_text(PROGRAM)
    stack.set({"cloud": "aws", "adminCidrs[0]": "10.0.0.0/8"})
    stack.pulumi("config", "set", "aws:region", REGION)
    stack.up()
    yield stack
    provider.server.stop(None)


def test_an_open_rule_is_no_drift(stack: Stack, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = aws_reads.Account(rules=account.other_rules)
    aws_reads.install(ec2, monkeypatch)
    state = json.loads(stack.export())["deployment"]["resources"]
    keys = {"region": REGION, "accessKey": "a", "secretKey": "s"}
    at = StackInAccount(project="decant", stack=STACK, provider=keys, environ={}, resources=state)
    assert clouds.open_to("aws", at, run="github-17321-2", network="198.41.0.4/32", until=UNTIL)
    (rule,) = account.other_rules
    (group,) = (one.id for one in account.resources.values() if one.type == GROUP)
    assert (rule["GroupId"], rule["CidrIpv4"], rule["FromPort"]) == (group, "198.41.0.4/32", 22)
    account.calls.clear()
    for words in (("--refresh",), ()):
        assert stack.pulumi("preview", *words, "--expect-no-changes").counts.keys() == {"unchanged"}
    assert ("Read", "SecurityGroup") in account.calls, "the refresh has read the group, with the rule in it"
    assert account.found(GROUP, group).outputs != account.shown(account.found(GROUP, group))
    assert stack.up("--refresh").counts.keys() == {"unchanged"}
    assert account.other_rules == [rule]
    (one,) = clouds.openings("aws", at)
    clouds.close("aws", at, one)
    assert account.other_rules == []
    assert stack.up("--refresh").counts.keys() == {"unchanged"}
