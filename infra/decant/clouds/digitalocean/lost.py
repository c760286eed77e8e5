"""What a killed command has made at DigitalOcean without Pulumi's knowing.

Droplets, networks and balancers have a name that Pulumi has made up for that one resource. The names of firewalls, keys
and certificates end with a hash of the stack's login key. So a thing with exactly that name is the one that was made.
"""

from __future__ import annotations

from collections.abc import Iterator

from decant.clouds.digitalocean import names
from decant.clouds.digitalocean.api import Api, connect
from decant.clouds.digitalocean.inventory import ASSIGNMENT, LISTS, TYPE, Thing
from decant.clouds.inventory import Resource, StackInAccount
from decant.clouds.lost import NOTHING, Lost

BY_NAME = ("droplet:Droplet", "vpc:Vpc", "loadBalancer:LoadBalancer")
BY_OWN_NAME = ("firewall:Firewall", "sshKey:SshKey", "certificate:Certificate")
AGAIN = ("tag:Tag",)  # DigitalOcean hands out one that exists as if it were new


def find(account: StackInAccount, resource: Resource) -> Lost:
    """The resource of a pending operation. Raises CloudApiError."""
    kind = str(resource["type"]).removeprefix(TYPE)
    inputs = resource.get("inputs") or {}
    api = connect(account.provider, account.environ)
    if kind in AGAIN:
        return NOTHING
    if kind in (*BY_NAME, *BY_OWN_NAME):
        if kind in BY_OWN_NAME and not _is_own(account, str(inputs["name"])):
            return Lost(unclear=f"others may have the name {inputs['name']}, too")
        path, key, identity = LISTS[kind]
        return _one(identity(thing) for thing in api.every(path, key) if thing["name"] == inputs["name"])
    if resource["type"] == ASSIGNMENT:
        address, droplet = str(inputs["ipAddress"]), int(inputs["dropletId"])
        there = [one for one in api.every("/v2/reserved_ips", "reserved_ips") if one["ip"] == address]
        # The provider gives each assignment an id of its own, and reads nothing from it.
        return _one(f"{droplet}-{address}-found" for one in there if (one.get("droplet") or {}).get("id") == droplet)
    if kind == "reservedIp:ReservedIp":
        return _address(account, api, str(inputs["region"]))
    if kind == "dnsRecord:DnsRecord":
        records = api.every(f"/v2/domains/{inputs['domain']}/records", "domain_records")
        return _one(str(one["id"]) for one in records if _is_record(one, inputs))
    return Lost(unclear="look for it at https://cloud.digitalocean.com")


def _is_own(account: StackInAccount, name: str) -> bool:
    """Whether a name has the hash of the stack's login key."""
    stack = names.label(account.project, account.stack)
    keys = [one["outputs"] for one in account.resources if str(one.get("urn", "")).endswith("::login-key")]
    own = [names.unique(stack, str(key["publicKeyOpenssh"])) for key in keys if "publicKeyOpenssh" in key]
    return any(f"{name}-".startswith(f"{one}-") for one in own)


def _one(found: Iterator[str]) -> Lost:
    ids = list(found)
    if len(ids) > 1:
        return Lost(unclear=f"more than one fits: {', '.join(ids)}")
    return Lost(id=ids[0]) if ids else NOTHING


def _is_record(thing: Thing, inputs: Thing) -> bool:
    kept = (thing["type"], thing["name"], thing["data"])
    return kept == (inputs["type"], inputs["name"], inputs["value"])


def _address(account: StackInAccount, api: Api, region: str) -> Lost:
    """Reserved addresses have neither a name nor a tag."""
    known = account.ids(f"{TYPE}reservedIp:ReservedIp")
    free = [
        one["ip"]
        for one in api.every("/v2/reserved_ips", "reserved_ips")
        if one["ip"] not in known and not one.get("droplet") and (one.get("region") or {}).get("slug") == region
    ]
    if not free:
        return NOTHING
    commands = "".join(f"\n      doctl compute reserved-ip delete {ip}" for ip in free)
    return Lost(unclear=f"it may be one of these, which nobody uses and which cost money:{commands}")
