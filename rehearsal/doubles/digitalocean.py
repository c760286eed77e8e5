"""Doubles of DigitalOcean: droplets are machines, a load balancer is a machine with HAProxy; the rest is a name."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import threading
import uuid
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

from rehearsal.backend import Backend, Check
from rehearsal.doubles import Double
from rehearsal.errors import UnknownResourceError

ENVIRONMENT = ("DIGITALOCEAN_", "SPACES_")


def doubles(backend: Backend, numbers: Callable[[], str]) -> dict[str, Double]:
    """Return the doubles of this provider by the type of their resource."""
    cloud = DigitalOcean(backend, numbers)
    return {
        "digitalocean:index/sshKey:SshKey": cloud.ssh_key,
        "digitalocean:index/vpc:Vpc": cloud.vpc,
        "digitalocean:index/tag:Tag": lambda name, inputs: (inputs["name"], {"totalResourceCount": 0}),
        "digitalocean:index/firewall:Firewall": lambda name, inputs: (str(uuid.uuid4()), {"status": "succeeded"}),
        "digitalocean:index/droplet:Droplet": cloud.droplet,
        "digitalocean:index/loadBalancer:LoadBalancer": cloud.load_balancer,
        "digitalocean:index/reservedIp:ReservedIp": cloud.reserved_ip,
        "digitalocean:index/reservedIpAssignment:ReservedIpAssignment": cloud.assignment,
    }


@dataclass(frozen=True, kw_only=True)
class Droplet:
    """The facts about a droplet that a load balancer needs."""

    address: str
    private_address: str
    tags: Set[str]


class DigitalOcean:
    """An account, empty at first. Each method is the double of one type: it takes name and inputs of a resource."""

    def __init__(self, backend: Backend, numbers: Callable[[], str]) -> None:
        self.backend = backend
        self.numbers = numbers
        self.lock = threading.Lock()
        self.ranges = {
            "": "10.110.0.0/20"
        }  # by the id of the VPC; "" is the VPC that every account has from the beginning
        self.droplets: dict[str, Droplet] = {}
        self.balancers: dict[str, str] = {}  # the tag of its droplets, by address

    def ssh_key(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Register a key for logins."""
        blob = base64.b64decode(inputs["publicKey"].split()[1])
        digest = hashlib.md5(blob).hexdigest()  # noqa: S324 - the cloud names keys by their MD5
        return self.numbers(), {"fingerprint": ":".join(digest[i : i + 2] for i in range(0, 32, 2))}

    def vpc(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Make a private network. Without an `ipRange`, the cloud chooses 4096 addresses that no other network has."""
        identity = str(uuid.uuid4())
        with self.lock:
            space = ipaddress.ip_network("10.110.0.0/15").subnets(new_prefix=20)
            self.ranges[identity] = inputs.get("ipRange") or next(
                str(cidr) for cidr in space if str(cidr) not in self.ranges.values()
            )
        outputs = {"name": f"{name}-double", "ipRange": self.ranges[identity], "default": False}
        return identity, {**outputs, "vpcUrn": f"do:vpc:{identity}"}

    def droplet(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Boot a machine."""
        address = self.backend.boot(name, inputs.get("userData", ""))
        private = self.backend.attach_to_network(address, self.ranges[inputs.get("vpcUuid", "")])
        identity = self.numbers()
        with self.lock:
            self.droplets[identity] = Droplet(
                address=address, private_address=private, tags=frozenset(inputs.get("tags", ()))
            )
            self._find_targets()
        return identity, {
            "name": f"{name}-double",
            "ipv4Address": address,
            "ipv4AddressPrivate": private,
            "dropletUrn": f"do:droplet:{identity}",
            "status": "active",
        }

    def load_balancer(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Start a balancer for all droplets with a tag. Inputs that this double cannot play are an error."""
        asked = dict(inputs)
        check, tag, network = asked.pop("healthcheck"), asked.pop("dropletTag"), asked.pop("vpcUuid", "")
        rule = {"entryProtocol": "http", "entryPort": 80, "targetProtocol": "http", "targetPort": 80}
        idle, keepalive = asked.pop("httpIdleTimeoutSeconds", 60), asked.pop("enableBackendKeepalive", False)
        for what, allowed in {
            "forwardingRules": [rule], "enableProxyProtocol": False, "redirectHttpToHttps": False, "sizeUnit": 1,
        }.items():  # fmt: skip
            if asked.pop(what, allowed) != allowed:
                raise UnknownResourceError(f"{name}: a load balancer's double has {what} {allowed}, not {inputs[what]}")
        if unknown := sorted(asked.keys() - {"region", "name", "tlsCipherPolicy"}):
            raise UnknownResourceError(f"{name}: a load balancer's double knows no {', '.join(unknown)}")
        if (check["protocol"], check["port"]) != ("http", 80):
            raise UnknownResourceError(f"{name}: a load balancer's double checks by http at port 80, not as {check}")
        address = self.backend.create_load_balancer(
            name,
            self.ranges[network],
            Check(
                path=check["path"],
                interval=int(check["checkIntervalSeconds"]),
                timeout=int(check["responseTimeoutSeconds"]),
                rise=int(check["healthyThreshold"]),
                fall=int(check["unhealthyThreshold"]),
                idle=int(idle),
                keepalive=keepalive,
            ),
        )
        with self.lock:
            self.balancers[address] = tag
            self._find_targets()
        identity = str(uuid.uuid4())
        return identity, {
            "name": f"{name}-double",
            "ip": address,
            "loadBalancerUrn": f"do:loadbalancer:{identity}",
            "status": "active",
            "dropletIds": [int(number) for number, droplet in self.droplets.items() if tag in droplet.tags],
        }

    def _find_targets(self) -> None:
        """Hand each balancer its droplets; called after a new droplet and after a new balancer."""
        for address, tag in self.balancers.items():
            self.backend.set_targets(
                address, [droplet.private_address for droplet in self.droplets.values() if tag in droplet.tags]
            )

    def reserved_ip(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Reserve an address."""
        address = self.backend.reserve()
        return address, {"ipAddress": address, "reservedIpUrn": f"do:reservedip:{address}"}

    def assignment(self, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Assign a reserved address to a droplet."""
        droplet = str(int(inputs["dropletId"]))
        self.backend.assign_address(inputs["ipAddress"], self.droplets[droplet].address)
        return f"{droplet}-{inputs['ipAddress']}", {}
