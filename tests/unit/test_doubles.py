"""The doubles return what the real providers return, without which neither a rehearsal nor the tests prove anything."""

from __future__ import annotations

import base64
import hashlib
import importlib
import itertools
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pulumi
import pytest

from decant.ssh.client import CommandResult
from decant.ssh.keys import check_host_key, check_private_key
from rehearsal.backend import Check
from rehearsal.doubles import Doubles, environment, is_wrapped, key_pair, revealed
from rehearsal.errors import StepFailedError, UnknownResourceError
from tests.support.in_memory import HOST_KEY, PRIVATE, SIGNATURE, InMemoryBackend

MARK = {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270"}
CONNECTION = {**MARK, "value": {"host": "203.0.113.7", "port": 22.0, "user": "u", "hostKey": HOST_KEY,
                                "privateKey": PRIVATE}}  # fmt: skip


def ask(doubles: Doubles, kind: str, name: str = "one", /, **inputs: Any) -> tuple[str | None, dict[str, Any]]:
    args = pulumi.runtime.MockResourceArgs(typ=kind, name=name, inputs=inputs, custom=True)
    return doubles.new_resource(args)


def test_a_key_pair_is_what_ssh_takes() -> None:
    private, public = key_pair()
    assert check_private_key(private) == private
    assert check_host_key(public) == public.strip()
    assert public.endswith("\n"), "as the real provider: a program that does not strip it must fail here too"
    assert key_pair()[0] != private


def test_secrets_are_unwrapped_at_every_depth() -> None:
    value = {"a": {**MARK, "value": [{**MARK, "value": "x"}]}, "b": ["y", {"c": {**MARK, "value": 1.0}}], "d": None}
    assert revealed(value) == {"a": ["x"], "b": ["y", {"c": 1.0}], "d": None}
    assert is_wrapped(value["a"])
    assert not any(is_wrapped(v) for v in (value, value["b"], "x", {SIGNATURE: "another mark", "value": 1}))


def test_a_private_key() -> None:
    identity, outputs = ask(Doubles(InMemoryBackend()), "tls:index/privateKey:PrivateKey", algorithm="ED25519")
    assert identity
    public = outputs["publicKeyOpenssh"]
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(public.split()[1])).digest()).decode().rstrip("=")
    assert outputs["publicKeyFingerprintSha256"] == f"SHA256:{digest}"
    assert isinstance(outputs["privateKeyOpenssh"], pulumi.Output), "a secret; the mocks mark nothing by themselves"
    with pytest.raises(UnknownResourceError, match="not RSA"):
        ask(Doubles(InMemoryBackend()), "tls:index/privateKey:PrivateKey", algorithm="RSA")


# What DigitalOcean requires of every droplet.
DROPLET = {"region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64"}


def test_a_droplet_boots_a_machine_that_can_be_given_an_address() -> None:
    world = InMemoryBackend()
    doubles = Doubles(world)
    wrapped = {**MARK, "value": "#cloud-config\n"}
    identity, outputs = ask(doubles, "digitalocean:index/droplet:Droplet", "web-1", **DROPLET, userData=wrapped)
    assert identity
    assert identity.isdigit()
    assert world.booted == {"web-1": "#cloud-config\n"}
    assert outputs["userData"] == wrapped, "a secret stays one"
    assert outputs["ipv4Address"] == "10.9.8.1"
    reserved, address = ask(doubles, "digitalocean:index/reservedIp:ReservedIp", region="fra1")
    assert reserved == address["ipAddress"] == "203.0.113.77"
    kind = "digitalocean:index/reservedIpAssignment:ReservedIpAssignment"
    assigned, outputs = ask(doubles, kind, ipAddress=reserved, dropletId=float(identity))
    assert assigned == f"{identity}-{reserved}"
    assert outputs["ipAddress"] == reserved
    assert world.assigned == {reserved: "10.9.8.1"}
    with pytest.raises(StepFailedError, match=r"^one: 404 The resource you were accessing could not be found\.$"):
        ask(doubles, kind, ipAddress=reserved, dropletId=7.0)


BALANCER: dict[str, Any] = {
    "region": "fra1",
    "dropletTag": "shop",
    "sizeUnit": 1.0,
    "forwardingRules": [{"entryProtocol": "http", "entryPort": 80.0, "targetProtocol": "http", "targetPort": 80.0}],
    "healthcheck": {
        "protocol": "http", "port": 80.0, "path": "/up", "checkIntervalSeconds": 10.0, "responseTimeoutSeconds": 5.0,
        "healthyThreshold": 2.0, "unhealthyThreshold": 3.0,
    },
    "httpIdleTimeoutSeconds": 60.0,
}  # fmt: skip


def test_a_load_balancer_finds_droplets_with_its_tag_from_before_and_after() -> None:
    world = InMemoryBackend()
    doubles = Doubles(world)
    vpc, network = ask(doubles, "digitalocean:index/vpc:Vpc", region="fra1")
    droplet = "digitalocean:index/droplet:Droplet"
    _, first = ask(doubles, droplet, "web-1", **DROPLET, vpcUuid=vpc, tags=["shop"])
    ask(doubles, droplet, "other", **DROPLET, vpcUuid=vpc, tags=["another"])
    _, outputs = ask(doubles, "digitalocean:index/loadBalancer:LoadBalancer", **BALANCER, vpcUuid=vpc)
    _, second = ask(doubles, droplet, "web-2", **DROPLET, vpcUuid=vpc, tags=["x", "shop"])
    assert world.targeted == {outputs["ip"]: (first["ipv4AddressPrivate"], second["ipv4AddressPrivate"])}
    asked, check = world.balancers[outputs["ip"]]
    assert asked == network["ipRange"]
    assert check == Check(path="/up", interval=10, timeout=5, rise=2, fall=3, idle=60, keepalive=False)


RULE = {"entryProtocol": "http", "entryPort": 80, "targetProtocol": "http", "targetPort": 80}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"enableProxyProtocol": True}, "enableProxyProtocol False, not True"),
        ({"stickySessions": {"type": "cookies"}}, "knows no stickySessions"),
        ({"healthcheck": {**BALANCER["healthcheck"], "protocol": "tcp"}}, "checks by http at port 80"),
        ({"forwardingRules": [{**RULE, "entryProtocol": "http2", "entryPort": 443}]}, "forwards http and https"),
    ],
)
def test_a_load_balancer_that_its_double_cannot_play_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownResourceError, match=says):
        ask(Doubles(InMemoryBackend()), "digitalocean:index/loadBalancer:LoadBalancer", **{**BALANCER, **changes})


def test_private_networks_do_not_overlap() -> None:
    doubles = Doubles(InMemoryBackend())
    ranges = [ask(doubles, "digitalocean:index/vpc:Vpc", region="fra1")[1]["ipRange"] for _ in range(3)]
    assert not any(ip_network(a).overlaps(ip_network(b)) for a, b in itertools.combinations(ranges, 2))


PROPERTIES: dict[
    str, tuple[str, dict[str, Any]]
] = {  # what a double adds must be something that the provider's own package has a name for
    "digitalocean:index/vpc:Vpc": ("pulumi_digitalocean.Vpc", {"region": "fra1"}),
    "digitalocean:index/tag:Tag": ("pulumi_digitalocean.Tag", {"name": "shop"}),
    "digitalocean:index/firewall:Firewall": ("pulumi_digitalocean.Firewall", {"name": "shop"}),
    "digitalocean:index/sshKey:SshKey": ("pulumi_digitalocean.SshKey", {"publicKey": HOST_KEY}),
    "digitalocean:index/droplet:Droplet": ("pulumi_digitalocean.Droplet", {**DROPLET, "tags": ["shop"]}),
    "digitalocean:index/loadBalancer:LoadBalancer": ("pulumi_digitalocean.LoadBalancer", BALANCER),
    "digitalocean:index/reservedIp:ReservedIp": ("pulumi_digitalocean.ReservedIp", {"region": "fra1"}),
    "tls:index/privateKey:PrivateKey": ("pulumi_tls.PrivateKey", {"algorithm": "ED25519"}),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the package, about itself
@pytest.mark.parametrize("kind", PROPERTIES)
def test_doubles_have_only_properties_that_the_real_resource_has(kind: str) -> None:
    name, inputs = PROPERTIES[kind]
    package, _, resource = name.rpartition(".")
    found: list[Any] = [
        v.fget for v in vars(getattr(importlib.import_module(package), resource)).values() if isinstance(v, property)
    ]
    real = {getattr(one, "_pulumi_name", one.__name__) for one in found}
    assert ask(Doubles(InMemoryBackend()), kind, **inputs)[1].keys() <= real


def test_every_id_is_unique() -> None:
    doubles = Doubles(InMemoryBackend())
    ids = [ask(doubles, "digitalocean:index/droplet:Droplet", f"web-{i}", **DROPLET)[0] for i in range(5)]
    assert len(set(ids)) == 5


def test_a_command_loses_its_last_newline_as_with_the_real_provider() -> None:
    class Said(InMemoryBackend):
        def remote(self, step: str, access: Any, command: str, stdin: str) -> CommandResult:
            assert (step, access.port, access.private_key, command, stdin) == ("one", 22, PRIVATE, "x", "canary")
            return CommandResult(status=0, stdout="a\n\n", stderr="b\n")

        def local(self, step: str, command: str, stdin: str) -> CommandResult:
            return CommandResult(status=0, stdout="c\n", stderr="")

    doubles = Doubles(Said())
    stdin = {**MARK, "value": "canary"}
    _, outputs = ask(doubles, "command:remote:Command", create="x", stdin=stdin, connection=CONNECTION)
    assert (outputs["stdout"], outputs["stderr"]) == ("a\n", "b")
    assert (outputs["stdin"], outputs["connection"]) == (stdin, CONNECTION)
    _, outputs = ask(doubles, "command:local:Command", create="x")
    assert outputs["stdout"] == "c"


def test_a_command_with_only_a_delete_opens_no_connection() -> None:
    world = InMemoryBackend()
    _, outputs = ask(Doubles(world), "command:remote:Command", delete="x", connection=CONNECTION)
    assert outputs["stdout"] == ""
    _, outputs = ask(Doubles(world), "command:local:Command", delete="x")
    assert outputs["stdout"] == ""
    assert not world.steps


def test_only_files_are_copied(tmp_path: Path) -> None:
    world, file = InMemoryBackend(), tmp_path / "a.tar"
    file.write_bytes(b"tar")
    given: dict[str, Any] = {"remotePath": "/x/a.tar", "connection": CONNECTION}
    ask(Doubles(world), "command:remote:CopyToRemote", source=pulumi.FileAsset(str(file)), **given)
    assert world.copies == {"one": ("/x/a.tar", b"tar")}
    with pytest.raises(UnknownResourceError, match="only a FileAsset has a double, not StringAsset"):
        ask(Doubles(world), "command:remote:CopyToRemote", source=pulumi.StringAsset("tar"), **given)


@pytest.mark.parametrize("kind", ["aws:ec2/x:X", "command:remote:CopyFile", "digitalocean:index/x:X"])
def test_a_type_without_a_double_is_an_error(kind: str) -> None:
    with pytest.raises(UnknownResourceError, match=kind):
        ask(Doubles(InMemoryBackend()), kind)


def test_a_component_has_its_inputs_as_outputs() -> None:
    args = pulumi.runtime.MockResourceArgs(typ="decant:fleet:Rollout", name="rollout", inputs={"a": 1}, custom=False)
    assert Doubles(InMemoryBackend()).new_resource(args) == ("", {"a": 1})


def test_every_cloud_names_the_variables_that_its_provider_reads() -> None:
    assert set(environment()) == {"AWS_", "DIGITALOCEAN_", "SPACES_"}
