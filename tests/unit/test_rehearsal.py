"""What a rehearsal decides before any machine boots."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from rehearsal import __main__ as rehearsal
from rehearsal.machines.network import Network
from rehearsal.progress import Progress
from rehearsal.throwaway_backend import ThrowawayBackend


def test_addresses_of_private_networks_never_meet_also_when_one_is_in_another() -> None:
    backend = ThrowawayBackend(Network(name="paper"), Progress())
    networks = ["10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16"]
    claimed = [backend._claim(network) for network in networks]
    assert len(set(claimed)) == len(claimed)
    assert all(ip_address(one) in ip_network(network) for one, network in zip(claimed, networks, strict=True))
    assert "10.0.0.1" not in claimed, "the router's"


@pytest.mark.parametrize("hosts", [None, "a.example.com", ["a.example.com"], [{"address": "a"}, 7]])
def test_hosts_that_make_no_sense_are_left_for_the_program_to_refuse(hosts: Any) -> None:
    config = {"decant:hosts": hosts}
    network = Network(name="paper")  # which is down: a boot would raise
    assert rehearsal._stand_in_hosts(config, set(), network, Progress()) == []
    assert config == {"decant:hosts": hosts}


def test_names_are_listed_as_people_do() -> None:
    found = [rehearsal._listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])]
    assert found == ["", "a", "a and b", "a, b and c"]
