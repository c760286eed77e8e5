"""The names of a rehearsed stack: when there is an authority, what is set for it, and where the names lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rehearsal.authority import Authority
from rehearsal.machines.network import Network
from rehearsal.names import Names, start_names
from rehearsal.progress import Progress
from rehearsal.throwaway_backend import ThrowawayBackend

DROPLET = {"decant:cloud": "digitalocean", "decant:adminCidrs": ["10.0.0.0/8"]}
NAMED = {**DROPLET, "decant:domain": "example.com"}


class FakeAuthority:
    directory, root, resolver = "https://198.51.100.9:14000/dir", "PEM\n", "198.51.100.9"

    def __init__(self) -> None:
        self.records: list[dict[str, list[str]]] = []

    def set_records(self, records: dict[str, list[str]]) -> None:
        self.records.append(records)


class FakeNetwork:
    cidr = "198.51.100.0/27"


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> FakeAuthority:
    made = FakeAuthority()
    monkeypatch.setattr(Authority, "start", lambda *_, **__: made)
    return made


def start(config: dict[str, Any], secret: set[str] | None = None) -> Names | None:
    network: Any = FakeNetwork()
    return start_names(config, secret or set(), "dev", network, Progress())


def test_a_stack_with_a_domain_gets_an_authority_of_its_own(authority: FakeAuthority) -> None:
    config: dict[str, Any] = dict(NAMED)
    made = start(config)
    assert made
    assert made.names == ("example.com", "www.example.com")
    assert config == {
        **NAMED,
        "decant:acmeServer": authority.directory,
        "decant:acmeRoot": authority.root,
        "decant:resolvers": ["198.51.100.9"],
    }


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize(
    "config",
    [
        DROPLET,
        {**NAMED, "decant:https": "off"},
        {**NAMED, "decant:machines": 2},
        {**NAMED, "decant:balancer": True},
        {**NAMED, "decant:domain": "not a name"},
        {},
    ],
)
def test_no_other_stack_gets_one(config: dict[str, Any]) -> None:
    """Wrong settings are reported by the program."""
    before = dict(config)
    assert start(config) is None
    assert config == before


def test_all_names_lead_to_the_first_address_that_is_reserved(authority: FakeAuthority) -> None:
    made: Any = Names(("example.com", "www.example.com"), authority)  # type: ignore[arg-type]
    network: Any = FakeNetwork()
    backend = ThrowawayBackend(network, Progress(), made)
    assert [backend.reserve(), backend.reserve()] == ["198.51.100.30", "198.51.100.29"]
    assert authority.records == [{"example.com": ["198.51.100.30"], "www.example.com": ["198.51.100.30"]}]


def test_the_root_is_kept_for_curl(authority: FakeAuthority, tmp_path: Path) -> None:
    made = Names(("example.com",), authority)  # type: ignore[arg-type]
    assert made.keep_root(tmp_path).read_text() == "PEM\n"


def test_a_backend_without_names_sets_no_records() -> None:
    network: Any = Network(name="unit")
    assert ThrowawayBackend(network, Progress()).names is None
