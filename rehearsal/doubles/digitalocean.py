"""Doubles of DigitalOcean: droplets are machines, a load balancer is a machine with HAProxy; the rest is an account."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rehearsal.accounts.base import CloudError
from rehearsal.accounts.digitalocean import DigitalOcean
from rehearsal.accounts.digitalocean_catalogue import Limits, Offer
from rehearsal.backend import Backend, Check
from rehearsal.doubles import Double
from rehearsal.errors import StepFailedError, UnknownResourceError

ENVIRONMENT = ("DIGITALOCEAN_", "SPACES_")
# A rehearsal tries the program, not the limits of somebody's account: those are tested with the real provider.
LIMITS = Limits(droplets=50, reserved_ips=50, load_balancers=50)

Outputs = tuple[str, dict[str, Any]]


def doubles(backend: Backend, numbers: Callable[[], str]) -> dict[str, Double]:
    """Return the doubles of this provider by the type of their resource."""
    cloud = Provider(backend)
    table = {
        "sshKey:SshKey": cloud.ssh_key,
        "vpc:Vpc": cloud.vpc,
        "tag:Tag": cloud.tag,
        "firewall:Firewall": cloud.firewall,
        "droplet:Droplet": cloud.droplet,
        "loadBalancer:LoadBalancer": cloud.load_balancer,
        "reservedIp:ReservedIp": cloud.reserved_ip,
        "reservedIpAssignment:ReservedIpAssignment": cloud.assignment,
    }
    return {f"digitalocean:index/{kind}": _explained(double) for kind, double in table.items()}


def _explained(double: Double) -> Double:
    """Make a double fail with the resource's name and the cloud's words when the account refuses."""

    def checked(name: str, inputs: dict[str, Any]) -> Outputs:
        try:
            return double(name, inputs)
        except CloudError as error:
            raise StepFailedError(f"{name}: {error.status} {error.message}") from None

    return checked


def body(inputs: Any) -> Any:
    """Return a resource's inputs with the names that the API has for them."""
    if isinstance(inputs, dict):
        return {re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", key): body(item) for key, item in inputs.items()}
    return [body(item) for item in inputs] if isinstance(inputs, list) else inputs


class Provider:
    """The provider of one account. Each method is the double of one type: it takes name and inputs of a resource."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.account = DigitalOcean(offer=Offer(limits=LIMITS))

    def _offer(self, inputs: dict[str, Any]) -> None:
        """Take every size, region and image: what DigitalOcean offers changes, and `make check-account` asks."""
        usual = {"size": "s-1vcpu-1gb", "region": "fra1", "image": "debian-13-x64"}
        self.account.offer.include(**{kind: inputs.get(kind, usual[kind]) for kind in usual})

    def ssh_key(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Register a key for logins."""
        with self.account.lock:
            key = self.account.add_key({"name": name, **body(inputs)})
        return str(key["id"]), {"fingerprint": key["fingerprint"]}

    def vpc(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a private network."""
        with self.account.lock:
            self._offer(inputs)
            vpc = self.account.add_vpc({"name": f"{name}-double", **body(inputs)})
        shown = vpc.shown()
        outputs = {"name": shown["name"], "ipRange": shown["ip_range"], "default": shown["default"]}
        return vpc.id, {**outputs, "vpcUrn": shown["urn"]}

    def tag(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a tag."""
        with self.account.lock:
            return self.account.add_tag(inputs["name"]), {"totalResourceCount": 0}

    def firewall(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a firewall, which holds nobody."""
        rules = [_rule(rule, "source") for rule in inputs.get("inboundRules", [])]
        with self.account.lock:
            made = self.account.add_firewall({"name": name, **body(inputs), "inbound_rules": rules})
        return str(made["id"]), {"status": made["status"]}

    def droplet(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Boot a machine."""
        with self.account.lock:
            self._offer(inputs)
            droplet = self.account.add_droplet({"name": f"{name}-double", **body(inputs)})
            network = self.account.vpcs[droplet.vpc].ip_range
        address = self.backend.boot(name, inputs.get("userData", ""))
        private = self.backend.attach_to_network(address, network)
        with self.account.lock:
            self.account.booted(droplet, address, private)
            self._find_targets()
        return str(droplet.id), {
            "name": f"{name}-double",
            "ipv4Address": address,
            "ipv4AddressPrivate": private,
            "dropletUrn": f"do:droplet:{droplet.id}",
            "status": droplet.status,
        }

    def load_balancer(self, name: str, inputs: dict[str, Any]) -> Outputs:
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
        with self.account.lock:
            wanted = {"name": f"{name}-double", "region": inputs["region"], "tag": tag, "vpc_uuid": network}
            balancer = self.account.add_balancer(wanted)
        address = self.backend.create_load_balancer(
            name,
            self.account.vpcs[balancer.asked["vpc_uuid"]].ip_range,
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
        with self.account.lock:
            self.account.balancer_started(balancer, address)
            self._find_targets()
            targets = [droplet.id for droplet in self.account.targets(balancer)]
        return balancer.id, {
            "name": wanted["name"],
            "ip": address,
            "loadBalancerUrn": f"do:loadbalancer:{balancer.id}",
            "status": "active",
            "dropletIds": targets,
        }

    def _find_targets(self) -> None:
        """Hand each balancer its droplets; called after a new droplet and after a new balancer."""
        for balancer in self.account.balancers.values():
            if balancer.address:
                droplets = self.account.targets(balancer)
                self.backend.set_targets(balancer.address, [droplet.private_address for droplet in droplets])

    def reserved_ip(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Reserve an address."""
        address = self.backend.reserve()
        with self.account.lock:
            self.account.add_reserved(address, inputs["region"])
        return address, {"ipAddress": address, "reservedIpUrn": f"do:reservedip:{address}"}

    def assignment(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Assign a reserved address to a droplet."""
        wanted = {"type": "assign", "droplet_id": int(inputs["dropletId"])}
        with self.account.lock:
            _, reserved, _ = self.account.act_on_reserved(inputs["ipAddress"], wanted)
            droplet = self.account.droplets[str(reserved.droplet)]
        self.backend.assign_address(reserved.ip, droplet.address)
        return f"{droplet.id}-{reserved.ip}", {}


def _rule(rule: dict[str, Any], side: str) -> dict[str, Any]:
    """Return a rule of a firewall with the peers below one key, as the API has them."""
    peers = {"load_balancer_uids": rule.get(f"{side}LoadBalancerUids"), "addresses": rule.get(f"{side}Addresses")}
    return {"protocol": rule["protocol"], f"{side}s": {kind: those for kind, those in peers.items() if those}}
