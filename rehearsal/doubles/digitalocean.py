"""Doubles of DigitalOcean: droplets are machines, a load balancer is a machine with HAProxy; the rest is an account."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol, cast

from rehearsal.accounts.base import CloudError
from rehearsal.accounts.digitalocean import DigitalOcean
from rehearsal.accounts.digitalocean_catalogue import Limits, Offer
from rehearsal.accounts.digitalocean_resources import LoadBalancer
from rehearsal.backend import SAME_HOST, Backend, Check, Entrance
from rehearsal.doubles import Call, Double
from rehearsal.errors import StepFailedError, UnknownResourceError
from rehearsal.issuer import Issuer

ENVIRONMENT = ("DIGITALOCEAN_", "SPACES_")
# A rehearsal tries the program, not the limits of somebody's account: those are tested with the real provider.
LIMITS = Limits(droplets=50, reserved_ips=50, load_balancers=50)

Outputs = tuple[str, dict[str, Any]]


class HasIssuer(Protocol):
    """The part of a backend that issues certificates."""

    issuer: Issuer


def account_of(backend: Backend) -> DigitalOcean:
    """Return the backend's account at DigitalOcean: the one that it was given, else a new one.

    A rehearsal tries the program, not which domains an account has: a new account has whatever it is asked for.
    """
    if "digitalocean" not in backend.accounts:
        account = DigitalOcean(offer=Offer(limits=LIMITS))
        account.names.any_domain = True
        backend.accounts["digitalocean"] = account
    return cast(DigitalOcean, backend.accounts["digitalocean"])


def calls(backend: Backend) -> dict[str, Call]:
    """Return the look-ups of this provider by their token."""
    account = account_of(backend)

    def domain(arguments: dict[str, Any]) -> dict[str, Any]:
        name = arguments["name"]
        try:
            return {"id": name, **account.names.domain(name).shown()}
        except CloudError as error:
            url = f"https://api.digitalocean.com/v2/domains/{name}"
            raise StepFailedError(f"domain not found: GET {url}: {error.status} {error.message}") from None

    return {"digitalocean:index/getDomain:getDomain": domain}


def doubles(backend: Backend, numbers: Callable[[], str]) -> dict[str, Double]:
    """Return the doubles of this provider by the type of their resource."""
    cloud = Provider(backend, account_of(backend))
    table = {
        "sshKey:SshKey": cloud.ssh_key,
        "vpc:Vpc": cloud.vpc,
        "tag:Tag": cloud.tag,
        "firewall:Firewall": cloud.firewall,
        "droplet:Droplet": cloud.droplet,
        "loadBalancer:LoadBalancer": cloud.load_balancer,
        "reservedIp:ReservedIp": cloud.reserved_ip,
        "reservedIpAssignment:ReservedIpAssignment": cloud.assignment,
        "certificate:Certificate": cloud.certificate,
        "dnsRecord:DnsRecord": cloud.record,
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

    def __init__(self, backend: Backend, account: DigitalOcean) -> None:
        self.backend = backend
        self.account = account

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
        rules, redirects = asked.pop("forwardingRules"), asked.pop("redirectHttpToHttps", False)
        idle, keepalive = asked.pop("httpIdleTimeoutSeconds", 60), asked.pop("enableBackendKeepalive", False)
        for what, allowed in {"enableProxyProtocol": False, "sizeUnit": 1}.items():
            if asked.pop(what, allowed) != allowed:
                raise UnknownResourceError(f"{name}: a load balancer's double has {what} {allowed}, not {inputs[what]}")
        if unknown := sorted(asked.keys() - {"region", "name", "tlsCipherPolicy", "disableLetsEncryptDnsRecords"}):
            raise UnknownResourceError(f"{name}: a load balancer's double knows no {', '.join(unknown)}")
        if (check["protocol"], check["port"]) != ("http", 80):
            raise UnknownResourceError(f"{name}: a load balancer's double checks by http at port 80, not as {check}")
        with self.account.lock:
            wanted = {
                "name": f"{name}-double",
                "region": inputs["region"],
                "tag": tag,
                "vpc_uuid": network,
                "forwarding_rules": [self._rule(name, rule) for rule in rules],
                "redirect_http_to_https": redirects,
            }
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
        entrance = entrance_of(self.account, self.backend, balancer)
        if entrance != Entrance():
            self.backend.set_entrance(address, entrance)
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

    def _rule(self, name: str, rule: dict[str, Any]) -> dict[str, Any]:
        """Return a forwarding rule as the API has it: with the id of the certificate, whose name the program gives."""
        wanted = dict(rule)
        certificate = wanted.pop("certificateName", None)
        entry = (wanted["entryProtocol"], wanted["entryPort"])
        target = (wanted["targetProtocol"], wanted["targetPort"])
        if entry not in (("http", 80), ("https", 443)) or target != ("http", 80) or len(wanted) != 4:
            raise UnknownResourceError(f"{name}: a load balancer's double forwards http and https to http, not {rule}")
        found = [one["id"] for one in self.account.names.certificates.values() if one["name"] == certificate]
        return {**body(wanted), "certificate_id": found[0] if found else ""}

    def certificate(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a certificate. The provider waits until it is verified; here it is at once or never."""
        wanted = {**body(inputs), "dns_names": inputs.get("domains")}
        with self.account.lock:
            made = self.account.names.add_certificate(wanted)
            state = self.account.names.certificate(made["id"])["state"]
        if state != "verified":
            raise StepFailedError(
                f"Error waiting for certificate ({made['name']}) to become active: timeout while waiting for state to"
                f" become 'verified' (last state: '{state}', timeout: 15m0s)"
            )
        return made["name"], {"uuid": made["id"], "state": state, "notAfter": made["not_after"]}

    def record(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a record."""
        with self.account.lock:
            made = self.account.names.add_record(inputs["domain"], {**body(inputs), "data": inputs["value"]})
        full = inputs["domain"] if inputs["name"] == "@" else f"{inputs['name']}.{inputs['domain']}"
        return str(made["id"]), {"fqdn": full}

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


def entrance_of(account: DigitalOcean, backend: HasIssuer, balancer: LoadBalancer) -> Entrance:
    """Return how visitors come into a load balancer, from its rules."""
    rules = [rule for rule in balancer.asked.get("forwarding_rules") or () if rule["entry_protocol"] == "https"]
    return Entrance(
        certificates=tuple(_pem(account, backend, rule["certificate_id"]) for rule in rules),
        redirect=SAME_HOST if balancer.asked.get("redirect_http_to_https") else None,
    )


def _pem(account: DigitalOcean, backend: HasIssuer, identity: str) -> str:
    """Return certificate, chain and key of a certificate, as a load balancer has them."""
    found = account.names.certificate(identity)
    if found["type"] == "custom":
        return "".join(found[part] for part in ("leaf_certificate", "certificate_chain", "private_key"))
    if not found["leaf_certificate"]:
        made = backend.issuer.issue(*found["dns_names"])
        found |= {"leaf_certificate": made.fullchain, "private_key": made.key}
    return str(found["leaf_certificate"] + found["private_key"])


def _rule(rule: dict[str, Any], side: str) -> dict[str, Any]:
    """Return a rule of a firewall with the peers below one key, as the API has them."""
    peers = {"load_balancer_uids": rule.get(f"{side}LoadBalancerUids"), "addresses": rule.get(f"{side}Addresses")}
    return {"protocol": rule["protocol"], f"{side}s": {kind: those for kind, those in peers.items() if those}}
