"""Steps of a preview for tests, as `decant.preview.events` reads them from the engine's log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from decant.preview.events import State, Step

KINDS = {
    "Instance": "aws:ec2/instance:Instance",
    "Eip": "aws:ec2/eip:Eip",
    "EipAssociation": "aws:ec2/eipAssociation:EipAssociation",
    "LoadBalancer": "aws:lb/loadBalancer:LoadBalancer",
    "TargetGroupAttachment": "aws:lb/targetGroupAttachment:TargetGroupAttachment",
    "Ingress": "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    "Record": "aws:route53/record:Record",
    "Certificate": "aws:acm/certificate:Certificate",
    "CertificateValidation": "aws:acm/certificateValidation:CertificateValidation",
    "Vpc": "aws:ec2/vpc:Vpc",
    "KeyPair": "aws:ec2/keyPair:KeyPair",
    "Provider": "pulumi:providers:aws",
    "Droplet": "digitalocean:index/droplet:Droplet",
    "ReservedIp": "digitalocean:index/reservedIp:ReservedIp",
    "DoLoadBalancer": "digitalocean:index/loadBalancer:LoadBalancer",
    "Firewall": "digitalocean:index/firewall:Firewall",
    "DnsRecord": "digitalocean:index/dnsRecord:DnsRecord",
    "DoCertificate": "digitalocean:index/certificate:Certificate",
    "DoProvider": "pulumi:providers:digitalocean",
    "Command": "command:remote:Command",
    "PrivateKey": "tls:index/privateKey:PrivateKey",
    "MachineSteps": "decant:deploy:MachineSteps",
}
Json = Mapping[str, Any]


def state(inputs: Json | None = None, outputs: Json | None = None, *, protected: bool = False) -> State:
    return State(id="id", inputs=inputs or {}, outputs=outputs or {}, protected=protected)


def _step(op: str, kind: str, name: str, old: State | None, new: State | None, *changed: str, **more: Any) -> Step:
    urn = f"urn:pulumi:engine::decant::{KINDS[kind]}::{name}"
    return Step(op=op, urn=urn, type=KINDS[kind], name=name, old=old, new=new, changed=changed, **more)


def same(kind: str, name: str, inputs: Json | None = None, outputs: Json | None = None) -> Step:
    return _step("same", kind, name, state(inputs, outputs), state(inputs, outputs))


def made(kind: str, name: str, inputs: Json | None = None) -> Step:
    return _step("create", kind, name, None, state(inputs))


def deleted(kind: str, name: str, inputs: Json | None = None, outputs: Json | None = None, **more: Any) -> Step:
    return _step("delete", kind, name, state(inputs, outputs, **more), None)


def left_over(kind: str, name: str, inputs: Json | None = None) -> Step:
    """The deletion of one that an earlier run has replaced."""
    return _step("delete-replaced", kind, name, replace(state(inputs), id="older"), None)


def changed(kind: str, name: str, old: Json, new: Json, outputs: Json | None = None) -> Step:
    """A change in place of every input that differs."""
    return _step("update", kind, name, state(old, outputs), state(new), *_different(old, new))


def replaced(
    kind: str, name: str, old: Json, new: Json, *, deleted_first: bool = False, outputs: Json | None = None, **more: Any
) -> tuple[Step, ...]:
    """The three steps of a replacement, in the engine's order. Where no input differs, somebody asked for it."""
    before, after, paths = state(old, outputs, **more), state(new), _different(old, new)
    causes = tuple(paths) or ("id",)
    steps = (
        _step("create-replacement", kind, name, before, after, *paths, causes=causes),
        _step("replace", kind, name, before, after, *paths, causes=causes),
        _step("delete-replaced", kind, name, before, None),
    )
    return (steps[2], steps[1], steps[0]) if deleted_first else steps


def _different(old: Json, new: Json) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
