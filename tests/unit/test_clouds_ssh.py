"""Hosts of your own: several of them, in any order, with and without a balancer of the user's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from decant.clouds import base
from rehearsal.doubles import key_pair
from tests.support.in_memory import HOST, Run, provisioned, requested, server_names

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Start = Callable[..., Run]
KEYS = {name: key_pair()[1].strip() for name in "abcdz"}


def hosts(names: str) -> list[dict[str, Any]]:
    """One host a letter, each with an address and a key of its own."""
    return [{"address": f"10.0.0.{ord(n)}", "hostKey": KEYS[n], "name": n} for n in names]


@pytest.mark.parametrize("preview", [False, True])
def test_another_order_of_the_hosts_changes_nothing(start: Start, preview: bool) -> None:
    one = start(HOST, hosts=hosts("abcd"), preview=preview)
    two = start(HOST, hosts=hosts("dbca"), preview=preview)
    assert requested(one) == requested(two)
    # `contents` has a digest of each setting, and this setting is another one.
    kept = set(one.exports) - {"contents"}
    assert {name: one.exports[name].value for name in kept} == {name: two.exports[name].value for name in kept}


def test_lists_are_sorted_by_name(start: Start) -> None:
    run = start(HOST, hosts=hosts("dbca"))
    plan = json.loads(run.text("Command rollout", "stdin"))
    assert [m["name"] for m in plan["machines"]] == ["a", "b", "c", "d"]
    for name, done in zip("abcd", plan["done"], strict=True):
        assert f"{name}-stage" in done
    for export in ("machines", "ssh"):
        assert [m["name"] for m in run.exports[export].value] == ["a", "b", "c", "d"]
    assert run.exports["url"].value == f"http://10.0.0.{ord('a')}"


@pytest.mark.parametrize("joins", ["a", "c", "z"])
def test_a_host_that_joins_or_leaves_changes_no_other(start: Start, joins: str) -> None:
    """But for the rollout, which is the whole fleet's."""
    others = "".join(n for n in "abcz" if n != joins)
    before, after = requested(start(HOST, hosts=hosts(others))), requested(start(HOST, hosts=hosts("abcz")))
    assert set(before) < set(after)
    new = {after[urn].name for urn in set(after) - set(before)}
    assert new == {
        joins,
        *(
            f"{joins}-{step}"
            for step in ("cleanup", "ready", "files", "provision", "updates", "check-space", "upload", "stage")
        ),
    }
    changed = {before[urn].short for urn in before if before[urn] != after[urn]}
    assert changed == {"Command rollout"}


def test_a_host_that_joins_leaves_a_public_name_as_it_is(start: Start) -> None:
    said = {"url": "http://www.example.com", "trustedProxies": ["10.0.0.5/32"]}
    before, after = (requested(start(HOST, hosts=hosts(names), **said)) for names in ("bc", "abc"))
    assert {before[urn].short for urn in before if before[urn] != after[urn]} == {"Command rollout"}


def test_every_host_answers_to_the_public_name_and_its_own(start: Start) -> None:
    secure = start(HOST, hosts=hosts("ab"), url="https://www.example.com", trustedProxies=["10.0.0.5/32"])
    assert provisioned(secure, "a")[1]["scheme"] == "https"
    run = start(HOST, hosts=hosts("ab"), url="http://www.example.com", trustedProxies=["10.0.0.5/32"])
    for name in "ab":
        conf, settings = provisioned(run, name)
        assert server_names(conf) == ["www.example.com", f"10.0.0.{ord(name)}"]
        assert settings.pop("machine").startswith(f"{name}.")
        assert settings == {
            "stack": "paper", "name": "www.example.com", "scheme": "http", "https": None,
            "drain_seconds": base.DRAIN_SECONDS, "request_timeout": 30,
        }  # fmt: skip
        assert "set_real_ip_from 10.0.0.5/32;" in conf
    assert run.exports["url"].value == "http://www.example.com"
    assert not [r for r in run.resources.values() if r.name.endswith("-drain")], (
        "the balancer is not ours: cleanup does it"
    )


def test_several_hosts_give_warnings(start: Start) -> None:
    data, public = start(HOST, hosts=hosts("ab")).warnings
    assert "$DATA_DIR" in data
    assert "decant:url" in public
