"""What is left of a stack in a DigitalOcean account, and what DigitalOcean never deletes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from decant.clouds.digitalocean import names
from decant.clouds.digitalocean.api import Api, connect
from decant.clouds.inventory import Kept, Left, Resource, StackInAccount

TYPE = "digitalocean:index/"
VPC = f"{TYPE}vpc:Vpc"
ASSIGNMENT = f"{TYPE}reservedIpAssignment:ReservedIpAssignment"

Entry = dict[str, Any]


def _id(entry: Entry) -> str:
    return str(entry["id"])


def _assignment(entry: Entry) -> str:
    return f"{(entry.get('droplet') or {}).get('id')}-{entry['ip']}"


# For each type of resource the path of its list, the name of the list in the answer, and how an entry gives what
# identifies the resource.
LISTS: dict[str, tuple[str, str, Callable[[Entry], str]]] = {
    "droplet:Droplet": ("/v2/droplets", "droplets", _id),
    "loadBalancer:LoadBalancer": ("/v2/load_balancers", "load_balancers", _id),
    "firewall:Firewall": ("/v2/firewalls", "firewalls", _id),
    "sshKey:SshKey": ("/v2/account/keys", "ssh_keys", _id),
    "tag:Tag": ("/v2/tags", "tags", lambda entry: entry["name"]),
    "vpc:Vpc": ("/v2/vpcs", "vpcs", _id),
    "reservedIp:ReservedIp": ("/v2/reserved_ips", "reserved_ips", lambda entry: entry["ip"]),
    "reservedIpAssignment:ReservedIpAssignment": ("/v2/reserved_ips", "reserved_ips", _assignment),
}


def kept(resources: Sequence[Resource]) -> list[Kept]:
    """The default VPC of a region, which is the first one that is made there, so in a new account the stack's.

    https://docs.digitalocean.com/reference/api/digitalocean/#tag/VPCs
    """
    return [
        Kept(
            urn=one["urn"],
            why=f"VPC {one['outputs'].get('name')} ({one['id']}) is the default one of region"
            f" {one['outputs'].get('region')}, because it was the first there. DigitalOcean deletes no default VPC, so"
            " this one stays. It is empty and costs nothing.\n  To delete it all the same, make another VPC of the"
            f" region the default one, then: doctl vpcs delete {one['id']}",
        )
        for one in resources
        if one.get("type") == VPC and one.get("outputs", {}).get("default")
    ]


def gone(account: StackInAccount) -> list[str]:
    """What was deleted in the console.

    The provider fails on most of it when it deletes it, and even when it refreshes the assignment of an address that is
    gone.

    Raises:
        CloudApiError: the API cannot be asked.
    """
    api = connect(account.provider, account.environ)
    missing = []
    for kind, (path, key, identity) in LISTS.items():
        ours = [one for one in account.resources if one.get("type") == TYPE + kind and one.get("id")]
        if ours:
            there = {identity(entry) for entry in api.every(path, key)}
            missing += [str(one["urn"]) for one in ours if _identity(one) not in there]
    return missing


def _identity(resource: Resource) -> str:
    """A resource's id, as `LISTS` gives it. The provider makes up a new id for each assignment of an address."""
    if resource["type"] == ASSIGNMENT:
        return f"{int(resource['outputs']['dropletId'])}-{resource['outputs']['ipAddress']}"
    return str(resource["id"])


def left(account: StackInAccount) -> list[Left]:
    """All that the account still has of the stack, without its default VPC.

    Raises:
        CloudApiError: the API cannot be asked.
    """
    return list(_Search(connect(account.provider, account.environ), account).all())


class _Search:
    def __init__(self, api: Api, account: StackInAccount) -> None:
        self.api = api
        self.account = account
        self.label = names.label(account.project, account.stack)

    def all(self) -> Iterator[Left]:
        droplets = [one for one in self.api.every("/v2/droplets", "droplets") if self._tagged(one, "droplet:Droplet")]
        for one in droplets:
            command = f"doctl compute droplet delete {one['id']}"
            yield replace(_left("droplet", one, command), type=f"{TYPE}droplet:Droplet", id=str(one["id"]))
        for one in self.api.every("/v2/load_balancers", "load_balancers"):
            if self._tagged({**one, "tags": [one.get("tag") or ""]}, "loadBalancer:LoadBalancer"):
                yield _left("load balancer", one, f"doctl compute load-balancer delete {one['id']}")
        ours = {str(one["id"]) for one in droplets}
        for one in self.api.every("/v2/reserved_ips", "reserved_ips"):
            address, droplet = one["ip"], str((one.get("droplet") or {}).get("id", ""))
            if droplet in ours or address in self.account.ids(f"{TYPE}reservedIp:ReservedIp"):
                yield Left(what=f"reserved address {address}", command=f"doctl compute reserved-ip delete {address}")
        for one in self.api.every("/v2/firewalls", "firewalls"):
            if self._named(one, "firewall:Firewall"):
                yield _left("firewall", one, f"doctl compute firewall delete {one['id']}")
        for one in self.api.every("/v2/account/keys", "ssh_keys"):
            if self._named(one, "sshKey:SshKey"):
                yield _left("SSH key", one, f"doctl compute ssh-key delete {one['id']}")
        for one in self.api.every("/v2/tags", "tags"):
            if names.is_of(self.label, one["name"]):
                yield Left(what=f"tag {one['name']}", command=f"doctl compute tag delete {one['name']}")
        for one in self.api.every("/v2/vpcs", "vpcs"):
            described = one.get("description") == names.description(self.label)
            if not one.get("default") and (described or self._known(one, "vpc:Vpc")):
                yield _left("VPC", one, f"doctl vpcs delete {one['id']}")

    def _known(self, entry: Entry, kind: str) -> bool:
        return str(entry["id"]) in self.account.ids(TYPE + kind)

    def _named(self, entry: Entry, kind: str) -> bool:
        return names.is_of(self.label, entry["name"]) or self._known(entry, kind)

    def _tagged(self, entry: Entry, kind: str) -> bool:
        return any(names.is_of(self.label, tag) for tag in entry.get("tags") or ()) or self._known(entry, kind)


def _left(kind: str, entry: Entry, command: str) -> Left:
    return Left(what=f"{kind} {entry['name']} ({entry['id']})", command=command)
