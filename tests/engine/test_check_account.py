"""`make check-account` with the real `pulumi`, against a double of the reading half of DigitalOcean's API."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.digitalocean_reads import TOKEN, Account, serving
from tests.support.pulumi_stack import LONGEST, STACK, Stack, missing


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def stack(account: Account, tmp_path: Path) -> Iterator[Stack]:
    lacking = missing("command", "digitalocean", "tls")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    with serving(account) as url:
        stack = Stack.create(tmp_path, DIGITALOCEAN_API_URL=url)
        stack.set({"cloud": "digitalocean", "adminCidrs[0]": "10.0.0.0/8"})
        stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=TOKEN)
        yield stack


def cli(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    process = stack.process(sys.executable, "-m", "decant.cli", *words)
    return subprocess.run(**{**process, "cwd": stack.project / "infra"}, timeout=LONGEST, check=False)


def test_an_account_is_checked_before_anything_is_made(stack: Stack, account: Account) -> None:
    done = cli(stack, "check-account", STACK)
    assert done.returncode == 0, done.stdout
    assert f"Stack {STACK} in your account on DigitalOcean" in done.stdout
    assert "  token                yes      valid, of Carol's team\n" in done.stdout
    assert "about 6.00 USD a month" in done.stdout

    stack.set({"size": "s-9vcpu", "machines": "2"})
    account.limits["droplet_limit"] = 1
    account.asked.clear()
    done = cli(stack, "up", STACK, "--", "--yes", "--non-interactive")
    assert done.returncode == 1
    assert f"DigitalOcean cannot make stack {STACK}: see size s-9vcpu, droplets above." in done.stdout
    assert {call.split()[0] for call in account.asked} == {"GET"}
    assert stack.resources() == {}
    assert TOKEN not in done.stdout


def test_a_preview_says_what_the_stack_costs_and_costs_nothing_itself(stack: Stack, account: Account) -> None:
    stack.set({"machines": "2"})
    done = cli(stack, "preview", STACK, "--", "--non-interactive")
    assert done.returncode == 0, done.stdout
    assert "The stack costs about 24.00 USD a month (2 x droplet s-1vcpu-1gb, 6.00 each; " in done.stdout
    assert "usdPerMonth: 24\n" in done.stdout, "an output, so that the next preview shows what changes"
    assert account.asked == []
