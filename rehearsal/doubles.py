"""Doubles of the resources that the program asks for: they return what the real provider would, to the letter.

What a double must really do (boot a machine, run a command) it asks of a `World`: throwaway machines in a rehearsal,
paper ones in the unit tests. A type that no double stands for is an error, never a guess.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pulumi
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from decant.session import Access, Answer

SIGNATURE = "4dabf18193072939515e22adb298388d"  # how Pulumi marks special values on the wire
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the mark of a secret, not one


class UnknownResource(Exception):
    """The program asks for a resource that no double stands for."""


class World(Protocol):
    """What doubles do for real, or on paper."""

    def boot(self, name: str, user_data: str) -> str:
        """Start a machine with first-boot data; its address."""
        ...

    def reserve(self) -> str:
        """An address that can be given to a machine."""
        ...

    def assign(self, reserved: str, machine: str) -> None:
        """Give a reserved address to the machine at another address."""
        ...

    def local(self, step: str, command: str, stdin: str) -> Answer:
        """Run a shell line where the program runs."""
        ...

    def remote(self, step: str, access: Access, command: str, stdin: str) -> Answer:
        """Run a shell line on a machine."""
        ...

    def copy(self, step: str, access: Access, source: Path, target: str) -> None:
        """Copy a file to a machine."""
        ...


class StepFailed(Exception):
    """A command of the program failed; the text is what the user has to see."""


def revealed(value: Any) -> Any:
    """The value with every secret in it unwrapped."""
    if isinstance(value, Mapping):
        if value.get(SIGNATURE) == SECRET:
            return revealed(value["value"])
        return {key: revealed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [revealed(item) for item in value]
    return value


def is_wrapped(value: Any) -> bool:
    """Did the program mark this whole value as secret?"""
    return isinstance(value, Mapping) and value.get(SIGNATURE) == SECRET


def key_pair() -> tuple[str, str]:
    """A new ed25519 key: the private half in OpenSSH form, the public half as one line with its newline."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, public + "\n"


class Doubles(pulumi.runtime.Mocks):
    """Pulumi's mocks, with a double for each type of resource that the program uses."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lock = threading.Lock()
        self.numbers = itertools.count(400000001)
        self.droplets: dict[str, str] = {}
        self.doubles: dict[str, Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = {
            "tls:index/privateKey:PrivateKey": self._private_key,
            "digitalocean:index/sshKey:SshKey": self._ssh_key,
            "digitalocean:index/vpc:Vpc": self._vpc,
            "digitalocean:index/tag:Tag": lambda name, inputs: (inputs["name"], {"totalResourceCount": 0}),
            "digitalocean:index/firewall:Firewall": lambda name, inputs: (str(uuid.uuid4()), {"status": "succeeded"}),
            "digitalocean:index/droplet:Droplet": self._droplet,
            "digitalocean:index/reservedIp:ReservedIp": self._reserved_ip,
            "digitalocean:index/reservedIpAssignment:ReservedIpAssignment": self._assignment,
            "command:local:Command": self._local,
            "command:remote:Command": self._remote,
            "command:remote:CopyToRemote": self._copy,
        }

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        """One resource: its id and its outputs, inputs included and secrets still wrapped."""
        if not args.custom or args.typ.startswith("pulumi:providers:"):
            return "" if not args.custom else args.name, dict(args.inputs)
        double = self.doubles.get(args.typ)
        if double is None:
            raise UnknownResource(f"{args.typ} ({args.name}) has no double in rehearsal/doubles.py")
        identity, outputs = double(args.name, revealed(args.inputs))
        return identity, {**args.inputs, **outputs}

    def call(self, args: pulumi.runtime.MockCallArgs) -> NoReturn:
        """The program looks nothing up at a cloud, so that a preview needs no account."""
        raise UnknownResource(f"the look-up {args.token} has no double in rehearsal/doubles.py")

    # -------------------------------------------------------------------------------------------- tls

    def _private_key(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if inputs["algorithm"] != "ED25519":
            raise UnknownResource(f"{name}: only ED25519 keys have a double, not {inputs['algorithm']}")
        private, public = key_pair()
        digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
        return hashlib.sha1(public.encode()).hexdigest(), {  # noqa: S324 - the real provider's id is a SHA-1, too
            "privateKeyOpenssh": pulumi.Output.secret(private),
            "publicKeyOpenssh": public,
            "publicKeyFingerprintSha256": "SHA256:" + base64.b64encode(digest).decode().rstrip("="),
        }

    # -------------------------------------------------------------------------------------------- digitalocean

    def _number(self) -> str:
        with self.lock:
            return str(next(self.numbers))

    def _ssh_key(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        blob = base64.b64decode(inputs["publicKey"].split()[1])
        digest = hashlib.md5(blob).hexdigest()  # noqa: S324 - the cloud names keys by their MD5
        return self._number(), {"fingerprint": ":".join(digest[i : i + 2] for i in range(0, 32, 2))}

    def _vpc(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        identity = str(uuid.uuid4())
        outputs = {"name": f"{name}-double", "ipRange": "10.110.0.0/20", "default": False}
        return identity, {**outputs, "vpcUrn": f"do:vpc:{identity}"}

    def _droplet(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        address = self.world.boot(name, inputs.get("userData", ""))
        identity = self._number()
        with self.lock:
            self.droplets[identity] = address
        return identity, {
            "name": f"{name}-double",
            "ipv4Address": address,
            "ipv4AddressPrivate": "10.110.0.2",
            "dropletUrn": f"do:droplet:{identity}",
            "status": "active",
        }

    def _reserved_ip(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        address = self.world.reserve()
        return address, {"ipAddress": address, "reservedIpUrn": f"do:reservedip:{address}"}

    def _assignment(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        droplet = str(int(inputs["dropletId"]))
        self.world.assign(inputs["ipAddress"], self.droplets[droplet])
        return f"{droplet}-{inputs['ipAddress']}", {}

    # -------------------------------------------------------------------------------------------- command

    def _local(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        answer = self.world.local(name, inputs["create"], inputs.get("stdin", ""))
        return self._number(), self._outputs(answer)

    def _remote(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if "create" not in inputs:
            return self._number(), {"stdout": "", "stderr": ""}  # as the real provider: nothing to run, no connection
        answer = self.world.remote(name, self._access(name, inputs), inputs["create"], inputs.get("stdin", ""))
        return self._number(), self._outputs(answer)

    def _copy(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        source = inputs["source"]
        if not isinstance(source, pulumi.FileAsset):
            raise UnknownResource(f"{name}: only a FileAsset has a double, not {type(source).__name__}")
        self.world.copy(name, self._access(name, inputs), Path(source.path), inputs["remotePath"])
        return self._number(), {}

    @staticmethod
    def _outputs(answer: Answer) -> dict[str, Any]:
        # The real provider cuts the last newline off, and so hides a program that forgot to.
        return {"stdout": answer.stdout.removesuffix("\n"), "stderr": answer.stderr.removesuffix("\n")}

    @staticmethod
    def _access(name: str, inputs: dict[str, Any]) -> Access:
        connection = inputs["connection"]
        return Access(
            name=name,
            address=connection["host"],
            port=int(connection["port"]),
            user=connection["user"],
            host_key=connection["hostKey"],
            private_key=connection["privateKey"],
        )
