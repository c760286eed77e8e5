"""SSH for one run on DigitalOcean: a firewall on the tag of the stack's droplets, known by its name.

The rules of several firewalls add up, and Pulumi knows only those that it has made itself, so it takes no notice.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from decant.clouds.digitalocean import names
from decant.clouds.digitalocean.api import connect
from decant.clouds.inventory import Resource, StackInAccount
from decant.clouds.runner_access import Opening, end_of
from decant.errors import CloudApiError

TAG = "digitalocean:index/tag:Tag"
TAG_NAME = "tag"  # in the state: decant.clouds.digitalocean.droplets
FIREWALLS = "/v2/firewalls"
PORT = "22"
EXISTS = 409
_TIME = "%Y%m%dT%H%M%SZ"


def is_made(resources: Iterable[Resource]) -> bool:
    """Whether the state has the tag of the droplets."""
    return _tag(resources) is not None


def openings(account: StackInAccount) -> list[Opening]:
    """The firewalls that runs have made for this stack. Raises CloudApiError."""
    tag = _tag(account.resources)
    if tag is None:
        return []
    found = []
    for one in connect(account.provider, account.environ).every(FIREWALLS, "firewalls"):
        told = names.read_run(tag, one["name"])
        if told:
            sources = [
                address
                for rule in one.get("inbound_rules") or ()
                for address in (rule.get("sources") or {}).get("addresses") or ()
            ]
            until = end_of(told[1], _TIME)
            found.append(Opening(id=str(one["id"]), network=", ".join(sources), run=told[0], until=until))
    return found


def open_to(account: StackInAccount, run: str, network: str, until: datetime) -> bool:
    """Let a network in. Always True: a firewall of its own is made. What this run has opened before is deleted.

    Raises:
        CloudApiError: DigitalOcean refuses, or cannot be asked.
    """
    tag = _tag(account.resources)
    if tag is None:
        raise CloudApiError(f"stack {account.stack} has no tag yet")
    for one in openings(account):
        if one.run == run:
            close(account, one)
    rule = {"protocol": "tcp", "ports": PORT, "sources": {"addresses": [network]}}
    name = names.of_run(tag, run, until.astimezone(UTC).strftime(_TIME))
    try:
        connect(account.provider, account.environ).post(
            FIREWALLS, {"name": name, "tags": [tag], "inbound_rules": [rule], "outbound_rules": []}
        )
    except CloudApiError as error:
        if error.status != EXISTS:  # the name is unique: a request before, whose answer was lost, has made it
            raise
    return True


def close(account: StackInAccount, opening: Opening) -> None:
    """Delete a firewall. One that is gone already is no error. Raises CloudApiError."""
    connect(account.provider, account.environ).delete(f"{FIREWALLS}/{opening.id}")


def _tag(resources: Iterable[Resource]) -> str | None:
    named = f"::{TAG_NAME}"
    found = (
        str(one["outputs"]["name"])
        for one in resources
        if one.get("type") == TAG and str(one["urn"]).endswith(named) and one.get("outputs")
    )
    return next(found, None)
