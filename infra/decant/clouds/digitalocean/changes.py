"""What a preview's steps mean on DigitalOcean: docs/fleets.md says how long visitors notice each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from decant.clouds.changes import (
    BALANCER,
    EVERYBODY,
    MACHINES,
    Certificate,
    CloudChanges,
    Inputs,
    Opening,
    Record,
    known,
    peer,
)
from decant.clouds.dns import TTL

FIREWALL = "digitalocean:index/firewall:Firewall"
LOAD_BALANCER = "digitalocean:index/loadBalancer:LoadBalancer"
RECORD = "digitalocean:index/dnsRecord:DnsRecord"
CERTIFICATE = "digitalocean:index/certificate:Certificate"


def _openings(kind: str, name: str, inputs: Inputs) -> tuple[Opening, ...]:
    """Whom a firewall lets in, or which ports a load balancer serves: these are open to everybody."""
    if kind == FIREWALL:
        return tuple(
            Opening(port=_ports(rule), protocol=known(rule.get("protocol")), of=MACHINES, peer=source)
            for rule in _list(inputs.get("inboundRules"))
            for source in _sources(rule)
        )
    if kind == LOAD_BALANCER:
        return tuple(
            Opening(
                port=known(rule.get("entryPort")),
                protocol="udp" if rule.get("entryProtocol") == "udp" else "tcp",
                of=BALANCER,
                peer=EVERYBODY,
            )
            for rule in _list(inputs.get("forwardingRules"))
        )
    return ()


def _ports(rule: Mapping[str, Any]) -> str:
    ports = known(rule.get("portRange"))
    return "" if ports in ("0", "all", "1-65535") else ports


def _sources(rule: Mapping[str, Any]) -> Iterator[str]:
    yield from map(peer, _list(rule.get("sourceAddresses")))
    others = {
        "sourceLoadBalancerUids": BALANCER,
        "sourceTags": "the droplets with some tags",
        "sourceDropletIds": "some droplets",
        "sourceKubernetesIds": "Kubernetes clusters",
    }
    yield from (words for field, words in others.items() if rule.get(field))


def _record(kind: str, name: str, inputs: Inputs) -> Record | None:
    if kind != RECORD:
        return None
    domain, short = known(inputs.get("domain")), known(inputs.get("name"))
    return Record(
        name=(domain if short == "@" else f"{short}.{domain}") if domain and short else name.removeprefix("record-"),
        type=known(inputs.get("type")),
        value=known(inputs.get("value")),
        ttl=int(inputs.get("ttl") or TTL),
    )


def _certificate(kind: str, name: str, inputs: Inputs) -> Certificate | None:
    if kind != CERTIFICATE:
        return None
    own = inputs.get("type") == "custom"
    return Certificate(names=() if own else tuple(map(known, _list(inputs.get("domains")))), own=own)


def _list(value: Any) -> list[Any]:
    """A list; none where it is not known yet."""
    return value if isinstance(value, list) else []


CHANGES = CloudChanges(
    title="DigitalOcean",
    machine="digitalocean:index/droplet:Droplet",
    size="size",
    # https://docs.digitalocean.com/products/droplets/how-to/resize/
    stopping=frozenset({"size"}),
    running=frozenset({"backups", "gracefulShutdown", "monitoring", "name", "resizeDisk", "tags", "volumeIds"}),
    stop="DigitalOcean cuts its power for that, and the site is away for about a minute",
    cuts_power=True,
    of_one_machine=("digitalocean:index/reservedIpAssignment:ReservedIpAssignment",),
    address="digitalocean:index/reservedIp:ReservedIp",
    address_output="ipAddress",
    balancer=LOAD_BALANCER,
    balancer_output="ip",
    openings=_openings,
    opening_inputs=frozenset({"inboundRules", "forwardingRules"}),
    record=_record,
    certificate=_certificate,
)
