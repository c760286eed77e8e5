"""What is left of a stack in a DigitalOcean account, and what DigitalOcean never deletes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from decant.clouds.digitalocean import names
from decant.clouds.digitalocean.api import Api, connect
from decant.clouds.inventory import Entry, Kept, Left, Resource, StackInAccount, entry
from decant.errors import CloudApiError

TYPE = "digitalocean:index/"
VPC = f"{TYPE}vpc:Vpc"
CERTIFICATE = f"{TYPE}certificate:Certificate"
ASSIGNMENT = f"{TYPE}reservedIpAssignment:ReservedIpAssignment"

Thing = dict[str, Any]
"""What a list of the API has of a resource."""


def _id(thing: Thing) -> str:
    return str(thing["id"])


def _assignment(thing: Thing) -> str:
    return f"{(thing.get('droplet') or {}).get('id')}-{thing['ip']}"


# For each type of resource the path of its list, the name of the list in the answer, and how an entry of it gives what
# identifies the resource.
LISTS: dict[str, tuple[str, str, Callable[[Thing], str]]] = {
    "droplet:Droplet": ("/v2/droplets", "droplets", _id),
    "loadBalancer:LoadBalancer": ("/v2/load_balancers", "load_balancers", _id),
    "firewall:Firewall": ("/v2/firewalls", "firewalls", _id),
    "sshKey:SshKey": ("/v2/account/keys", "ssh_keys", _id),
    "tag:Tag": ("/v2/tags", "tags", lambda thing: thing["name"]),
    "vpc:Vpc": ("/v2/vpcs", "vpcs", _id),
    # Its id changes at each renewal.
    "certificate:Certificate": ("/v2/certificates", "certificates", lambda thing: thing["name"]),
    "reservedIp:ReservedIp": ("/v2/reserved_ips", "reserved_ips", lambda thing: thing["ip"]),
    "reservedIpAssignment:ReservedIpAssignment": ("/v2/reserved_ips", "reserved_ips", _assignment),
}

_WITH_ID = {TYPE + kind for kind in LISTS} - {f"{TYPE}tag:Tag"}


def kept(resources: Sequence[Resource]) -> list[Kept]:
    """The default VPC of a region, which is the first one that is made there, so in a new account the stack's.

    https://docs.digitalocean.com/reference/api/digitalocean/#tag/VPCs
    """
    return [
        Kept(
            entry=entry(one),
            why=f"VPC {one['outputs'].get('name')} ({one['id']}) is the default one of region"
            f" {one['outputs'].get('region')}, because it was the first there. DigitalOcean deletes no default VPC, so"
            " this one stays. It is empty and costs nothing.\n  To delete it all the same, make another VPC of the"
            f" region the default one, then: doctl vpcs delete {one['id']}",
        )
        for one in resources
        if one.get("type") == VPC and one.get("outputs", {}).get("default")
    ]


def foreign(account: StackInAccount) -> str:
    """Nothing in a state names its account, but ids are the same nowhere else. Tags have only their names.

    Raises:
        CloudApiError: the API cannot be asked.
    """
    ours = {entry(one) for one in account.resources if one.get("type") in _WITH_ID and one.get("id")}
    if ours and ours <= set(gone(account)):
        return "the account has none of its resources"
    return ""


def gone(account: StackInAccount) -> list[Entry]:
    """What was deleted in the console.

    The provider fails on most of it when it deletes it, and even when it refreshes the assignment of an address that is
    gone.

    Raises:
        CloudApiError: the API cannot be asked.
    """
    api = connect(account.provider, account.environ)
    missing: list[Entry] = []
    for kind, (path, key, identity) in LISTS.items():
        ours = [one for one in account.resources if one.get("type") == TYPE + kind and one.get("id")]
        if ours:
            there = {identity(thing) for thing in api.every(path, key)}
            missing += [entry(one) for one in ours if _identity(one) not in there]
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
        self.own_names = _own_names(account, self.label)

    def all(self) -> Iterator[Left]:
        droplets: dict[str, bool] = {}  # whether it is the stack's own, by its id
        for one in self.api.every("/v2/droplets", "droplets"):
            ours = self._ours("droplet:Droplet", one, one.get("tags") or ())
            if ours is not None:
                droplets[_id(one)] = ours
                command = f"doctl compute droplet delete {one['id']}"
                yield replace(_left("droplet", one, command, ours), type=f"{TYPE}droplet:Droplet", id=_id(one))
        for one in self.api.every("/v2/load_balancers", "load_balancers"):
            ours = self._ours("loadBalancer:LoadBalancer", one, [one.get("tag") or ""])
            if ours is not None:
                yield _left("load balancer", one, f"doctl compute load-balancer delete {one['id']}", ours)
        for one in self.api.every("/v2/reserved_ips", "reserved_ips"):
            address, droplet = one["ip"], str((one.get("droplet") or {}).get("id", ""))
            known = address in self.account.ids(f"{TYPE}reservedIp:ReservedIp")
            if known or droplet in droplets:
                command = f"doctl compute reserved-ip delete {address}"
                yield Left(what=f"reserved address {address}", command=command, ours=known or droplets[droplet])
        for one in self.api.every("/v2/firewalls", "firewalls"):
            ours = self._ours("firewall:Firewall", one, [one["name"]])
            if ours is not None:
                yield _left("firewall", one, f"doctl compute firewall delete {one['id']}", ours)
        for one in self.api.every("/v2/account/keys", "ssh_keys"):
            ours = self._ours("sshKey:SshKey", one, [one["name"]])
            if ours is not None:
                yield _left("SSH key", one, f"doctl compute ssh-key delete {one['id']}", ours)
        for one in self.api.every("/v2/tags", "tags"):
            name = one["name"]
            if names.is_of(self.label, name):
                command = f"doctl compute tag delete {name}"
                yield Left(what=f"tag {name}", command=command, ours=name in self.own_names)
        if self.account.ids(CERTIFICATE):
            for one in self.api.every("/v2/certificates", "certificates"):
                known = one["name"] in self.account.ids(CERTIFICATE)
                if known or names.is_of(self.label, one["name"]):
                    yield _left("certificate", one, f"doctl compute certificate delete {one['id']}", known)
        yield from self._records()
        for one in self.api.every("/v2/vpcs", "vpcs"):
            described = one.get("description") in {names.description(name) for name in (self.label, *self.own_names)}
            known = _id(one) in self.account.ids(VPC)
            if not one.get("default") and (described or known):
                yield _left("VPC", one, f"doctl vpcs delete {one['id']}", known)

    def _ours(self, kind: str, thing: Thing, labels: Sequence[str]) -> bool | None:
        """Whether a thing with these names or tags is the stack's own. None where it is another stack's for sure."""
        if _id(thing) in self.account.ids(TYPE + kind) or self.own_names.intersection(labels):
            return True
        if any(names.read_run(own, name) for own in self.own_names for name in labels):
            return True
        return False if any(names.is_of(self.label, name) for name in labels) else None

    def _records(self) -> Iterator[Left]:
        """Records have no tags: those whose ids were in the state."""
        for one in self.account.resources:
            if one.get("type") != f"{TYPE}dnsRecord:DnsRecord" or not one.get("id"):
                continue
            domain, identity = one["outputs"]["domain"], one["id"]
            try:
                self.api.get(f"/v2/domains/{domain}/records/{identity}")
            except CloudApiError as error:
                if error.status == 404:
                    continue
                raise
            yield Left(
                what=f"DNS record {one['outputs'].get('fqdn')} ({identity})",
                command=f"doctl compute domain records delete {domain} {identity}",
                ours=True,
            )


def _own_names(account: StackInAccount, label: str) -> set[str]:
    """The names that only this stack has: they end with a hash of its login key. Those of old stacks have no hash."""
    found: set[str] = set()
    for one in account.resources:
        outputs = one.get("outputs") or {}
        if one.get("type") in (f"{TYPE}tag:Tag", f"{TYPE}sshKey:SshKey") and outputs.get("name"):
            found.add(str(outputs["name"]))
        if str(one.get("urn", "")).endswith("::login-key") and "publicKeyOpenssh" in outputs:
            found.add(names.unique(label, str(outputs["publicKeyOpenssh"])))
    return {*found, *(f"{name}-web" for name in found)}


def _left(kind: str, thing: Thing, command: str, ours: bool) -> Left:
    return Left(what=f"{kind} {thing['name']} ({thing['id']})", command=command, ours=ours)
