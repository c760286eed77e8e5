"""The doubles return what the real providers would: else a rehearsal and the tests prove nothing."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pulumi
import pytest

from decant.session import Answer, check_host_key, check_private_key
from rehearsal.doubles import Doubles, UnknownResource, is_wrapped, key_pair, revealed
from tests.unit.paper import HOST_KEY, PRIVATE, SIGNATURE, PaperWorld

MARK = {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270"}
CONNECTION = {**MARK, "value": {"host": "203.0.113.7", "port": 22.0, "user": "u", "hostKey": HOST_KEY,
                                "privateKey": PRIVATE}}  # fmt: skip


def ask(doubles: Doubles, kind: str, name: str = "one", **inputs: Any) -> tuple[str | None, dict[str, Any]]:
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
    identity, outputs = ask(Doubles(PaperWorld()), "tls:index/privateKey:PrivateKey", algorithm="ED25519")
    assert identity
    public = outputs["publicKeyOpenssh"]
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(public.split()[1])).digest()).decode().rstrip("=")
    assert outputs["publicKeyFingerprintSha256"] == f"SHA256:{digest}"
    assert isinstance(outputs["privateKeyOpenssh"], pulumi.Output), "a secret; the mocks mark nothing by themselves"
    with pytest.raises(UnknownResource, match="not RSA"):
        ask(Doubles(PaperWorld()), "tls:index/privateKey:PrivateKey", algorithm="RSA")


def test_a_droplet_boots_a_machine_that_can_be_given_an_address() -> None:
    world = PaperWorld()
    doubles = Doubles(world)
    wrapped = {**MARK, "value": "#cloud-config\n"}
    identity, outputs = ask(doubles, "digitalocean:index/droplet:Droplet", "web-1", userData=wrapped)
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
    with pytest.raises(KeyError):
        ask(doubles, kind, ipAddress=reserved, dropletId=7.0)


def test_ids_are_never_given_twice() -> None:
    doubles = Doubles(PaperWorld())
    ids = [ask(doubles, "digitalocean:index/droplet:Droplet", f"web-{i}")[0] for i in range(5)]
    assert len(set(ids)) == 5


def test_a_command_loses_its_last_newline_as_with_the_real_provider() -> None:
    class Said(PaperWorld):
        def remote(self, step: str, access: Any, command: str, stdin: str) -> Answer:
            assert (step, access.port, access.private_key, command, stdin) == ("one", 22, PRIVATE, "x", "canary")
            return Answer(status=0, stdout="a\n\n", stderr="b\n")

        def local(self, step: str, command: str, stdin: str) -> Answer:
            return Answer(status=0, stdout="c\n", stderr="")

    doubles = Doubles(Said())
    stdin = {**MARK, "value": "canary"}
    _, outputs = ask(doubles, "command:remote:Command", create="x", stdin=stdin, connection=CONNECTION)
    assert (outputs["stdout"], outputs["stderr"]) == ("a\n", "b")
    assert (outputs["stdin"], outputs["connection"]) == (stdin, CONNECTION)
    _, outputs = ask(doubles, "command:local:Command", create="x")
    assert outputs["stdout"] == "c"


def test_a_command_with_only_a_delete_opens_no_connection() -> None:
    world = PaperWorld()
    _, outputs = ask(Doubles(world), "command:remote:Command", delete="x", connection=CONNECTION)
    assert outputs["stdout"] == ""
    assert not world.steps


def test_only_files_are_copied(tmp_path: Path) -> None:
    world, file = PaperWorld(), tmp_path / "a.tar"
    file.write_bytes(b"tar")
    given: dict[str, Any] = {"remotePath": "/x/a.tar", "connection": CONNECTION}
    ask(Doubles(world), "command:remote:CopyToRemote", source=pulumi.FileAsset(str(file)), **given)
    assert world.copies == {"one": ("/x/a.tar", b"tar")}
    with pytest.raises(UnknownResource, match="only a FileAsset has a double, not StringAsset"):
        ask(Doubles(world), "command:remote:CopyToRemote", source=pulumi.StringAsset("tar"), **given)


@pytest.mark.parametrize("kind", ["aws:ec2/instance:Instance", "command:remote:CopyFile", "digitalocean:index/x:X"])
def test_a_type_without_a_double_is_never_guessed(kind: str) -> None:
    with pytest.raises(UnknownResource, match=kind):
        ask(Doubles(PaperWorld()), kind)


def test_a_component_is_only_a_name() -> None:
    args = pulumi.runtime.MockResourceArgs(typ="decant:fleet:Rollout", name="rollout", inputs={"a": 1}, custom=False)
    assert Doubles(PaperWorld()).new_resource(args) == ("", {"a": 1})
