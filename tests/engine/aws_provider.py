"""A stand-in for Pulumi's AWS provider and the account behind it, with throwaway machines for instances.

It speaks the engine's own protocol, in the process of the tests, and the engine is told to talk to it instead of
starting a plugin (PULUMI_DEBUG_PROVIDERS). What resources return is what they return in a rehearsal. On top of that it
knows what a rehearsal need not know: which changes replace a resource, what AWS refuses to delete while it is in use,
and which names the real provider's resources have.
"""

from __future__ import annotations

import importlib
import itertools
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn, get_args

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi import _types
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from rehearsal.accounts.aws import TERMINATED
from rehearsal.doubles import aws
from rehearsal.doubles.aws.provider import ask
from rehearsal.doubles.aws.resources import Aws
from tests.support.fake_account import FakeAccount

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is known of a type of resources beyond what it returns."""

    replaces: frozenset[str]
    """The arguments whose change makes a new one; those that are not in here are changed in place."""
    names: str = ""
    """The argument that the provider makes up where the program gives none; two cannot have the same."""
    longest: int = 255
    held_by: Mapping[str, str] = field(default_factory=dict)
    """The types whose resources must be gone before, each with AWS's words for it."""


def _kind(replaces: str = "", **more: Any) -> Kind:
    return Kind(replaces=frozenset(replaces.split()), **more)


INSTANCE = "aws:ec2/instance:Instance"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
LISTENER = "aws:lb/listener:Listener"
CERTIFICATE = "aws:acm/certificate:Certificate"
RECORD = "aws:route53/record:Record"
ASSOCIATION = "aws:ec2/eipAssociation:EipAssociation"
IN_USE = "DependencyViolation: {what} has dependencies and cannot be deleted"
KINDS: dict[str, Kind] = {
    "aws:ec2/vpc:Vpc": _kind(
        "cidrBlock instanceTenancy",
        held_by=dict.fromkeys(
            (
                "aws:ec2/subnet:Subnet",
                "aws:ec2/internetGateway:InternetGateway",
                "aws:ec2/routeTable:RouteTable",
                "aws:ec2/securityGroup:SecurityGroup",
            ),
            IN_USE,
        ),
    ),
    "aws:ec2/subnet:Subnet": _kind(
        "availabilityZone availabilityZoneId cidrBlock vpcId",
        held_by=dict.fromkeys(("aws:ec2/instance:Instance", "aws:lb/loadBalancer:LoadBalancer"), IN_USE),
    ),
    "aws:ec2/internetGateway:InternetGateway": _kind(),
    "aws:ec2/routeTable:RouteTable": _kind(
        "vpcId", held_by={"aws:ec2/routeTableAssociation:RouteTableAssociation": IN_USE}
    ),
    "aws:ec2/route:Route": _kind("routeTableId destinationCidrBlock destinationIpv6CidrBlock"),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _kind("subnetId gatewayId"),
    "aws:ec2/securityGroup:SecurityGroup": _kind(
        "name namePrefix description vpcId",
        names="name",
        held_by=dict.fromkeys(
            (
                "aws:ec2/instance:Instance",
                "aws:lb/loadBalancer:LoadBalancer",
                "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
                "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
            ),
            IN_USE,
        ),
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _kind("securityGroupId"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _kind("securityGroupId"),
    "aws:ec2/keyPair:KeyPair": _kind("keyName keyNamePrefix publicKey", names="keyName"),
    "aws:ec2/instance:Instance": _kind(
        "ami associatePublicIpAddress availabilityZone keyName privateIp subnetId ipv6Addresses tenancy",
    ),
    "aws:ec2/eip:Eip": _kind(
        "domain",
        held_by={"aws:ec2/eipAssociation:EipAssociation": "InvalidIPAddress.InUse: {what} is in use"},
    ),
    "aws:ec2/eipAssociation:EipAssociation": _kind(
        "allocationId instanceId networkInterfaceId privateIpAddress publicIp"
    ),
    "aws:lb/loadBalancer:LoadBalancer": _kind("name namePrefix internal loadBalancerType", names="name", longest=32),
    "aws:lb/targetGroup:TargetGroup": _kind(
        "name namePrefix port protocol protocolVersion targetType vpcId ipAddressType",
        names="name",
        longest=32,
        held_by={"aws:lb/listener:Listener": "ResourceInUse: target group {what} is currently in use by a listener"},
    ),
    "aws:lb/targetGroupAttachment:TargetGroupAttachment": _kind("targetGroupArn targetId port availabilityZone"),
    "aws:lb/listener:Listener": _kind("loadBalancerArn"),
    "aws:lb/listenerCertificate:ListenerCertificate": _kind("listenerArn certificateArn"),
    "aws:acm/certificate:Certificate": _kind(
        "domainName subjectAlternativeNames validationMethod keyAlgorithm certificateAuthorityArn"
    ),
    "aws:acm/certificateValidation:CertificateValidation": _kind("certificateArn validationRecordFqdns"),
    "aws:route53/record:Record": _kind("zoneId name"),
}


class RefusedError(Exception):
    """AWS's or the provider's answer that is an error."""


@dataclass(kw_only=True)
class Resource:
    """One that exists."""

    id: str
    type: str
    inputs: Json
    outputs: Json

    @property
    def handles(self) -> set[str]:
        """What others call it."""
        known = (self.id, self.outputs.get("arn"), self.outputs.get("allocationId"))
        return {handle for handle in known if isinstance(handle, str)}

    @property
    def mentions(self) -> set[str]:
        """All texts in what was asked for: what it uses is among them."""
        return set(_texts(self.inputs))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from itertools.chain.from_iterable(map(_texts, value.values()))
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(_texts, value))


class Account:
    """One AWS account. `calls` are all that came, as ("Create", "Instance"), `wrong` what was refused."""

    def __init__(self, fake_account: FakeAccount) -> None:
        self.fake_account = fake_account
        self.aws = aws.account_of(fake_account)
        self.lock = threading.Lock()
        self.calls: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        self.resources: dict[str, Resource] = {}
        self.other_rules: list[Json] = []
        """Rules of security groups that Pulumi did not make, as DescribeSecurityGroupRules lists them."""
        self.numbers = itertools.count(1)
        self.cloud = Aws(fake_account, lambda: str(next(self.numbers)), self.aws)
        self.doubles = aws.doubles_of(self.cloud)
        self.look_ups = aws.calls(fake_account)

    def count(self, what: str, kind: str) -> None:
        """Note a call."""
        with self.lock:
            self.calls.append((what, kind.rpartition(":")[2]))

    def inventory(self) -> dict[str, list[str]]:
        """What the account would be billed for."""
        found: dict[str, list[str]] = {}
        for one in self.resources.values():
            found.setdefault(one.type.rpartition(":")[2], []).append(one.id)
        return found

    def create(self, kind: str, name: str, inputs: Json) -> Resource:
        """Make it, whatever time that takes."""
        unique = KINDS[kind].names
        with self.lock:
            for other in self.resources.values():
                if unique and other.type == kind and other.inputs[unique] == inputs[unique]:
                    raise RefusedError(f"Duplicate: {kind} {inputs[unique]} exists already")
        if kind == ASSOCIATION:
            self._reassociate(inputs)
        identity, outputs = self.doubles[kind](name, inputs)
        made = Resource(id=identity, type=kind, inputs=inputs, outputs={**inputs, **outputs})
        with self.lock:
            self.resources[self._key(kind, identity)] = made
        return made

    def _reassociate(self, inputs: Json) -> None:
        """End the association that an address has already, as AWS does where the caller allows it."""
        with self.lock:
            for other in list(self.resources.values()):
                if other.type == ASSOCIATION and other.inputs["allocationId"] == inputs["allocationId"]:
                    if not inputs.get("allowReassociation"):
                        raise RefusedError(f"Resource.AlreadyAssociated: {inputs['allocationId']} is associated")
                    del self.resources[self._key(ASSOCIATION, other.id)]

    def update(self, kind: str, identity: str, inputs: Json) -> Resource:
        """Change it in place."""
        one = self.found(kind, identity)
        changed = {name for name in inputs.keys() | one.inputs.keys() if inputs.get(name) != one.inputs.get(name)}
        if kind == INSTANCE:
            if changed & {"userData", "userDataBase64"}:
                raise RefusedError(f"another user data would stop {identity}, and nobody here asks for that")
            if "instanceType" in changed:
                self._change_type(one, inputs["instanceType"])
            if "creditSpecification" in changed and inputs.get("creditSpecification"):
                credits = inputs["creditSpecification"]["cpuCredits"]
                self._ask("ModifyInstanceCreditSpecification", lambda: self.aws.modify_credits(identity, credits))
        elif kind == LISTENER:
            self.cloud.change_listener(identity, "listener", inputs)
        elif kind == CERTIFICATE:
            self.cloud.change_import(identity, inputs)
        elif kind == RECORD:
            self.aws.dns.delete_record(one.inputs["zoneId"], (one.inputs["name"], one.inputs["type"]))
            self.cloud.names.record("record", inputs)
        one.inputs = inputs
        one.outputs |= inputs
        return one

    def _change_type(self, one: Resource, kind: str) -> None:
        """Stop an instance, change it, start it: where a step fails, the provider leaves it as it is then."""
        self._ask("StopInstances", lambda: self.aws.stop_instance(one.id))
        self.fake_account.power_off(one.outputs["publicIp"])
        self._ask("ModifyInstanceAttribute", lambda: self.aws.modify_type(one.id, kind))
        self._ask("StartInstances", lambda: self.aws.start_instance(one.id))
        self.fake_account.power_on(one.outputs["publicIp"])

    @staticmethod
    def _ask(operation: str, call: Callable[[], None]) -> None:
        ask("updating EC2 Instance", f"EC2: {operation}", call)

    def delete(self, kind: str, identity: str) -> None:
        """Delete it, unless something needs it. An association may have ended with another one of its address."""
        if kind == ASSOCIATION and self._key(kind, identity) not in self.resources:
            return
        one = self.found(kind, identity)
        with self.lock:
            self._check_unused(one)
            del self.resources[self._key(kind, identity)]
        if kind == INSTANCE:
            if identity in self.aws.instances:
                self.aws.terminate_instance(identity)
            # The engine deletes no association of a machine that goes: AWS ends it itself.
            own = [other for other in self.resources.values() if other.inputs.get("instanceId") == identity]
            for association in own:
                del self.resources[self._key(ASSOCIATION, association.id)]
            self.fake_account.remove(one.outputs["publicIp"])
        elif kind == "aws:ec2/vpc:Vpc":
            self.aws.vpcs.remove(identity)
        elif kind == "aws:ec2/eip:Eip":
            self.aws.addresses.remove(identity)
        elif kind == "aws:lb/loadBalancer:LoadBalancer":
            self.aws.balancers.remove(identity)
        elif kind == "aws:lb/targetGroupAttachment:TargetGroupAttachment":
            target = self.found(INSTANCE, one.inputs["targetId"])
            self.fake_account.exclude(target.outputs["privateIp"])
        elif kind == LISTENER:
            self.cloud.delete_listener(identity, one.inputs)
            if one.inputs["protocol"] == "HTTP":
                self.cloud.balancers[one.inputs["loadBalancerArn"]].machine = ""
                self.fake_account.remove_balancers()
        elif kind == "aws:lb/listenerCertificate:ListenerCertificate":
            self.cloud.delete_listener_certificate(one.inputs)
        elif kind == CERTIFICATE:
            self._ask("DeleteCertificate", lambda: self.aws.acm.delete(identity))
        elif kind == RECORD:
            self.aws.dns.delete_record(one.inputs["zoneId"], (one.inputs["name"], one.inputs["type"]))

    def is_terminated(self, identity: str) -> bool:
        """Whether an instance is gone, by whoever's hand."""
        return identity not in self.aws.instances or self.aws.instances[identity].state == TERMINATED

    def found(self, kind: str, identity: str) -> Resource:
        """One that exists."""
        one = self.resources.get(self._key(kind, identity))
        if one is None:
            raise RefusedError(f"NotFound: {kind} {identity} does not exist")
        return one

    def shown(self, one: Resource) -> Json:
        """What the provider reads of it: of a security group all rules, also those that it did not make."""
        rules = [rule for rule in self.other_rules if rule["GroupId"] == one.id]
        if one.type != GROUP or not rules:
            return one.outputs
        ingress = [
            {"protocol": rule["IpProtocol"], "fromPort": rule["FromPort"], "toPort": rule["ToPort"],
             "cidrBlocks": [rule["CidrIpv4"]], "description": rule["Description"]}
            for rule in rules
        ]  # fmt: skip
        return {**one.outputs, "ingress": ingress}

    def _check_unused(self, one: Resource) -> None:
        for other in self.resources.values():
            words = KINDS[one.type].held_by.get(other.type)
            # A security group's own rules go with it.
            own = other.inputs.get("securityGroupId") == one.id
            if words and not own and other.mentions & one.handles:
                raise RefusedError(f"{words.format(what=one.id)} ({other.id})")
        if one.type == "aws:ec2/internetGateway:InternetGateway":
            public = {
                "aws:ec2/instance:Instance",
                "aws:ec2/eipAssociation:EipAssociation",
                "aws:lb/loadBalancer:LoadBalancer",
            }
            if holders := [other.id for other in self.resources.values() if other.type in public]:
                raise RefusedError(
                    f"DependencyViolation: the network of {one.id} has some mapped public addresses ({holders})"
                )

    @staticmethod
    def _key(kind: str, identity: str) -> str:
        return f"{kind}::{identity}"


# ------------------------------------------------------------------------------------------------ the provider


def _plain(message: struct_pb2.Struct) -> Json:
    """A message as JSON. Whole numbers are whole again: the protocol has none."""
    plain: Json = _whole(json_format.MessageToDict(message))
    return plain


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value


def _message(plain: Mapping[str, Any]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update({key: value for key, value in plain.items() if value is not None})
    return made


def _arguments(kind: str) -> type:
    """The class of a resource's arguments, made from the real provider's own schema."""
    module, _, name = kind.removeprefix("aws:").partition("/")
    arguments: type = getattr(importlib.import_module(f"pulumi_aws.{module}"), name.rpartition(":")[2] + "Args")
    return arguments


def unknown_names(kind: type, given: Mapping[str, Any], at: str = "") -> list[str]:
    """Names in what was given that the real provider does not know, at any depth."""
    known = _types.input_type_types(kind)
    found = [f"{at}{name}" for name in given if name not in known]
    for name in given.keys() & known.keys():
        inner = next(filter(_types.is_input_type, _parts(known[name])), None)
        items = given[name] if isinstance(given[name], list) else [given[name]]
        for item in items:
            if inner and isinstance(item, Mapping):
                found += unknown_names(inner, item, f"{at}{name}.")
    return found


def _parts(hint: Any) -> Iterator[Any]:
    """A type, and those that it is made of."""
    yield hint
    for part in get_args(hint):
        yield from _parts(part)


def _answering(handle: Callable[..., Any]) -> Callable[..., Any]:
    """What AWS refuses is an answer of the provider's, as its user reads it."""

    def answer(self: Provider, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return handle(self, request)
        except Exception as error:
            self.account.wrong.append(f"{handle.__name__} {getattr(request, 'urn', '')}: {error!r}")
            context.abort(grpc.StatusCode.UNKNOWN, str(error))

    return answer


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The stand-in; it serves any number of runs of `pulumi`, as long as it lives."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", 1 << 28)])
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    @property
    def environment(self) -> dict[str, str]:
        """What `pulumi` has to be told to use this instead of the plugin."""
        return {"PULUMI_DEBUG_PROVIDERS": f"aws:{self.port}", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true"}

    @_answering
    def Handshake(self, request: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse()

    @_answering
    def Attach(self, request: Any) -> Any:
        return empty_pb2.Empty()

    @_answering
    def Cancel(self, request: Any) -> Any:
        return empty_pb2.Empty()

    @_answering
    def GetPluginInfo(self, request: Any) -> Any:
        return plugin_pb2.PluginInfo(version=importlib.import_module("importlib.metadata").version("pulumi_aws"))

    @_answering
    def CheckConfig(self, request: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    @_answering
    def DiffConfig(self, request: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    @_answering
    def Configure(self, request: Any) -> Any:
        return provider_pb2.ConfigureResponse()

    @_answering
    def Invoke(self, request: Any) -> Any:
        self.account.count("Invoke", request.tok)
        look_up = self.account.look_ups.get(request.tok) or _refuse(f"the look-up {request.tok} is not known here")
        return provider_pb2.InvokeResponse(**{"return": _message(look_up(_plain(request.args)))})

    @_answering
    def Check(self, request: Any) -> Any:
        kind = KINDS.get(request.type) or _refuse(f"resources of type {request.type} are not known here")
        inputs, before = _plain(request.news), _plain(request.olds)
        if kind.names and kind.names not in inputs:
            # As the real one: the resource's name and seven digits; a made-up name stays.
            made_up = f"{request.name[: kind.longest - 8]}-{secrets.token_hex(4)[:7]}"
            inputs[kind.names] = before.get(kind.names) or made_up
        too_long = kind.names and len(str(inputs[kind.names])) > kind.longest
        failures = [
            provider_pb2.CheckFailure(property=name, reason=f"{request.type} has no argument {name}")
            for name in unknown_names(_arguments(request.type), inputs)
        ]
        if too_long:
            reason = f'"{kind.names}" cannot be longer than {kind.longest} characters: {inputs[kind.names]!r}'
            failures.append(provider_pb2.CheckFailure(property=kind.names, reason=reason))
        return provider_pb2.CheckResponse(inputs=_message(inputs), failures=failures)

    @_answering
    def Diff(self, request: Any) -> Any:
        kind = KINDS[request.type]
        old, new = _plain(request.old_inputs), _plain(request.news)
        ignored = {path.partition(".")[0].partition("[")[0] for path in request.ignoreChanges}
        changed = sorted(n for n in (old.keys() | new.keys()) - ignored if old.get(n) != new.get(n))
        replaces = [name for name in changed if name in kind.replaces]
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=some if changed else none,
            diffs=changed,
            replaces=replaces,
            # A name that the program chose cannot be had twice.
            deleteBeforeReplace=bool(replaces and kind.names and kind.names not in changed and self._chosen(request)),
            hasDetailedDiff=True,
            detailedDiff={
                name: provider_pb2.PropertyDiff(
                    kind=provider_pb2.PropertyDiff.UPDATE_REPLACE
                    if name in replaces
                    else provider_pb2.PropertyDiff.UPDATE,
                    inputDiff=True,
                )
                for name in changed
            },
        )

    @staticmethod
    def _chosen(request: Any) -> bool:
        made_up = _plain(request.old_inputs)[KINDS[request.type].names]
        return not made_up.startswith(f"{request.name[: KINDS[request.type].longest - 8]}-")

    @_answering
    def Create(self, request: Any) -> Any:
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        self.account.count("Create", request.type)
        made = self.account.create(request.type, request.name, _plain(request.properties))
        return provider_pb2.CreateResponse(id=made.id, properties=_message(made.outputs))

    @_answering
    def Read(self, request: Any) -> Any:
        self.account.count("Read", request.type)
        try:
            one = self.account.found(request.type, request.id)
        except RefusedError:
            return provider_pb2.ReadResponse()
        if request.type == INSTANCE and self.account.is_terminated(request.id):
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(
            id=one.id, properties=_message(self.account.shown(one)), inputs=_message(one.inputs)
        )

    @_answering
    def Update(self, request: Any) -> Any:
        if request.preview:
            return provider_pb2.UpdateResponse(properties=_message(_plain(request.olds) | _plain(request.news)))
        self.account.count("Update", request.type)
        one = self.account.update(request.type, request.id, _plain(request.news))
        return provider_pb2.UpdateResponse(properties=_message(one.outputs))

    @_answering
    def Delete(self, request: Any) -> Any:
        self.account.count("Delete", request.type)
        self.account.delete(request.type, request.id)
        return empty_pb2.Empty()


def _refuse(text: str) -> NoReturn:
    raise RefusedError(text)
