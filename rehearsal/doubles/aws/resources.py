"""Doubles of AWS's resources: instances are machines, a load balancer is a machine with HAProxy; the rest is a name."""

from __future__ import annotations

import importlib
import inspect
import ipaddress
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rehearsal.accounts.aws import TERMINATED, Account
from rehearsal.accounts.aws_catalogue import ACCOUNT, REGION
from rehearsal.backend import SAME_HOST, Backend, Check, Entrance
from rehearsal.doubles import Double
from rehearsal.doubles.aws.names import Names
from rehearsal.doubles.aws.provider import ask, refused
from rehearsal.errors import UnknownResourceError

ARN = f"arn:aws:%s:{REGION}:{ACCOUNT}:%s"
LONGEST_USER_DATA = 16 * 1024
LONGEST_NAME = 32  # of a load balancer or a target group

Outputs = tuple[str, dict[str, Any]]


@cache
def inputs_of(kind: str) -> frozenset[str]:
    """Return the names of a resource's inputs, from the provider's own package."""
    module, resource = re.fullmatch(r"(\w+)/\w+:(\w+)", kind).groups()  # type: ignore[union-attr]
    package = importlib.import_module("pulumi_aws")
    names = inspect.signature(getattr(getattr(package, module), f"{resource}Args")).parameters
    return frozenset(re.sub(r"_(\w)", lambda found: found[1].upper(), name) for name in names)


def strict(kind: str, double: Double) -> Double:
    """Make a double refuse inputs that the provider does not know, because the provider refuses them, too."""

    def checked(name: str, inputs: dict[str, Any]) -> Outputs:
        if unknown := sorted(inputs.keys() - inputs_of(kind)):
            raise UnknownResourceError(f"{name}: aws:{kind} has no input {', '.join(unknown)}")
        return double(name, inputs)

    return checked


@dataclass
class LoadBalancer:
    """A load balancer's address for visitors and its private network. It answers once a listener forwards requests.

    `machine` is the address of the machine that does it. `certificates` are the ARNs of those that its HTTPS listener
    has, and `redirect` is where its HTTP listener redirects to.
    """

    name: str
    network: str
    idle: int
    machine: str = ""
    certificates: list[str] = field(default_factory=list)
    redirect: str | None = None


@dataclass
class TargetGroup:
    """A target group's health check and members, and its balancer's address, which is empty without a listener."""

    check: dict[str, Any]
    members: list[str] = field(default_factory=list)
    balancer: str = ""


class Aws:
    """What a program makes in an account. Each method is the double of one type: it takes a resource's name and inputs.

    `account` says what AWS allows; `backend` has the machines.
    """

    def __init__(self, backend: Backend, numbers: Callable[[], str], account: Account) -> None:
        self.backend = backend
        self.account = account
        self.numbers = numbers
        self.lock = threading.Lock()
        self.networks: dict[str, str] = {}  # of VPCs
        self.subnets: dict[str, tuple[str, str, str]] = {}  # the VPC's id, own network, zone
        self.elastic: dict[str, str] = {}
        self.balancers: dict[str, LoadBalancer] = {}
        self.groups: dict[str, TargetGroup] = {}
        self.listeners: dict[str, str] = {}  # the ARN of each one's load balancer
        self.listening = threading.Lock()
        self.entrances: set[str] = set()  # the balancers' machines whose entrance was changed
        self.names = Names(backend, numbers, account)

    def _id(self, prefix: str) -> str:
        return f"{prefix}-0{int(self.numbers()):016x}"

    def _named(self, name: str) -> str:
        """Return a name with a suffix, as Pulumi does, so that two resources can exist side by side."""
        return f"{name}-{int(self.numbers()) % 16**7:07x}"

    def simple(self, prefix: str, service: str, word: str) -> Double:
        """Return a double for a type of which the program reads the id alone."""

        def double(name: str, inputs: dict[str, Any]) -> Outputs:
            identity = self._id(prefix)
            return identity, {"arn": ARN % (service, f"{word}/{identity}")} if word else {}

        return double

    def key_pair(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Register a key pair, whose id is its name."""
        made = self._named(name)
        return made, {"keyName": made, "keyPairId": self._id("key"), "keyType": "ed25519"}

    def vpc(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a network."""
        identity = ask("creating EC2 VPC", "EC2: CreateVpc", lambda: self.account.create_vpc(inputs["cidrBlock"]))
        self.networks[identity] = inputs["cidrBlock"]
        return identity, {"arn": ARN % ("ec2", f"vpc/{identity}"), "mainRouteTableId": self._id("rtb")}

    def subnet(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a subnet, which must not overlap with another one."""
        network, own = inputs["vpcId"], ipaddress.ip_network(inputs["cidrBlock"])
        with self.lock:
            others = [ipaddress.ip_network(cidr) for vpc, cidr, _ in self.subnets.values() if vpc == network]
            if any(own.overlaps(other) for other in others):
                raise UnknownResourceError(f"{name}: {own} conflicts with another subnet")
            if not own.subnet_of(ipaddress.ip_network(self.networks[network])):  # type: ignore[arg-type]
                raise UnknownResourceError(f"{name}: {own} is not in {self.networks[network]}")
            identity = self._id("subnet")
            self.subnets[identity] = (network, str(own), inputs["availabilityZone"])
        return identity, {"arn": ARN % ("ec2", f"subnet/{identity}"), "availabilityZoneId": "euc1-az2"}

    def security_group(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a group without rules."""
        identity = self._id("sg")
        return identity, {"arn": ARN % ("ec2", f"security-group/{identity}"), "name": self._named(name)}

    def rule(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a rule, which must have one peer."""
        peers = {"cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId"} & inputs.keys()
        if len(peers) != 1:
            raise UnknownResourceError(f"{name}: a rule has one peer, not {len(peers)}")
        identity = self._id("sgr")
        return identity, {"arn": ARN % ("ec2", f"security-group-rule/{identity}"), "securityGroupRuleId": identity}

    def instance(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Boot a machine."""
        data = inputs.get("userData", "")
        if len(data.encode()) > LONGEST_USER_DATA:
            raise UnknownResourceError(
                f"{name}: {len(data.encode())} bytes of user data, {LONGEST_USER_DATA} are allowed"
            )
        vpc, _, zone = self.subnets[inputs["subnetId"]]
        made = ask(
            "creating EC2 Instance",
            "EC2: RunInstances",
            lambda: self.account.run_instance(
                type_name=inputs["instanceType"],
                image=inputs["ami"],
                zone=zone,
                vpc=vpc,
                tags=inputs.get("tags", {}),
                credits=inputs.get("creditSpecification", {}).get("cpuCredits", ""),
            ),
        )
        address = self.backend.boot(name, data)
        private = self.backend.attach_to_network(address, self.networks[vpc])
        self.account.booted(made.id, address, private)
        if made.state == TERMINATED:
            raise refused(
                f"waiting for EC2 Instance ({made.id}) create: unexpected state 'terminated', wanted target 'running'."
                " last error: Client.InternalError: Client error on launch"
            )
        return made.id, {
            "arn": ARN % ("ec2", f"instance/{made.id}"),
            "availabilityZone": zone,
            "instanceState": "running",
            "primaryNetworkInterfaceId": self._id("eni"),
            "privateIp": private,
            "publicIp": address,
        }

    def elastic_ip(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Reserve an address."""
        identity = ask("creating EC2 EIP", "EC2: AllocateAddress", self.account.allocate_address)
        address = self.backend.reserve()
        self.elastic[identity] = address
        return identity, {"allocationId": identity, "publicIp": address}

    def association(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Assign a reserved address to an instance, which loses the public address that it had before."""
        address = self.elastic[inputs["allocationId"]]
        instance = self.account.instances[inputs["instanceId"]]
        self.backend.assign_address(address, instance.own_address)
        # The provider waits for a new instance, which AWS may not list yet.
        ask(
            "associating EC2 EIP",
            "EC2: AssociateAddress",
            lambda: self.account.associate_address(instance.id, address),
            late="InvalidInstanceID.NotFound",
        )
        return self._id("eipassoc"), {"publicIp": address, "privateIpAddress": instance.private_address}

    def load_balancer(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Reserve the load balancer's address. Nothing answers there before there is a listener."""
        places = [self.subnets[identity] for identity in inputs["subnets"]]
        if len({zone for *_, zone in places}) < 2:
            raise UnknownResourceError(f"{name}: a load balancer needs subnets in two zones")
        if any(ipaddress.ip_network(network).prefixlen > 27 for _, network, _ in places):
            raise UnknownResourceError(f"{name}: a load balancer needs /27 or more of each subnet")
        made = self._load_balancer_name(name, inputs)
        arn = ARN % ("elasticloadbalancing", f"loadbalancer/app/{made}/{int(self.numbers()):016x}")
        ask("creating ELBv2 application Load Balancer", "Elastic Load Balancing v2: CreateLoadBalancer",
            lambda: self.account.create_balancer(arn))  # fmt: skip
        # AWS returns a name. No name server would resolve one here, so the double returns an address, which `listener`
        # assigns to the balancer's machine.
        address = self.backend.reserve()
        with self.lock:
            self.balancers[arn] = LoadBalancer(address, places[0][1], int(inputs.get("idleTimeout", 60)))
        return arn, {"arn": arn, "name": made, "dnsName": address, "zoneId": "Z215JYRZR1TBD5"}

    def target_group(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Keep the health check of a group of instances that take HTTP requests at port 80."""
        wanted = {"targetType": "instance", "port": 80, "protocol": "HTTP", "protocolVersion": "HTTP1"}
        for what, only in wanted.items():
            if inputs.get(what) != only:
                raise UnknownResourceError(f"{name}: a target group's double has {what} {only}, not {inputs.get(what)}")
        made = self._load_balancer_name(name, inputs)
        arn = ARN % ("elasticloadbalancing", f"targetgroup/{made}/{int(self.numbers()):016x}")
        with self.lock:
            self.groups[arn] = TargetGroup(check=inputs["healthCheck"])
        return arn, {"arn": arn, "name": made, "arnSuffix": arn.rpartition(":")[2]}

    def _load_balancer_name(self, name: str, inputs: dict[str, Any]) -> str:
        made = str(inputs.get("name") or self._named(name))
        if len(made) > LONGEST_NAME or not re.fullmatch(r"(?!internal-)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?", made):
            raise UnknownResourceError(f"{made}: {LONGEST_NAME} letters, digits and - at most, no - at an end")
        return made

    def listener(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Let a load balancer listen at a port. The first listener that forwards requests boots its machine."""
        arn = inputs["loadBalancerArn"].replace(":loadbalancer/", ":listener/") + f"/{int(self.numbers()):016x}"
        self.change_listener(arn, name, inputs)
        return arn, {"arn": arn}

    def change_listener(self, arn: str, name: str, inputs: dict[str, Any]) -> None:
        """Have a listener do what the inputs say: a new one, or one that exists."""
        (action,) = inputs["defaultActions"]
        entry = (inputs["port"], inputs["protocol"])
        if entry not in ((80, "HTTP"), (443, "HTTPS")) or action["type"] not in ("forward", "redirect"):
            raise UnknownResourceError(
                f"{name}: a listener's double forwards or redirects, HTTP at 80 and HTTPS at 443"
            )
        balancer = self.balancers[inputs["loadBalancerArn"]]
        self.listeners[arn] = inputs["loadBalancerArn"]
        with self.listening:
            if action["type"] == "forward":
                self._boot(name, balancer, self.groups[action["targetGroupArn"]])
            if entry == (443, "HTTPS"):
                if not str(inputs.get("sslPolicy")).startswith("ELBSecurityPolicy-TLS13-1-2-"):
                    raise UnknownResourceError(
                        f"{name}: a listener's double speaks TLS 1.2 and 1.3, so it needs a policy"
                    )
                self._show(arn, balancer, [inputs["certificateArn"], *balancer.certificates[1:]])
            else:
                balancer.redirect = self._redirect(name, action.get("redirect"))
                self._enter(balancer)

    def _redirect(self, name: str, redirect: dict[str, Any] | None) -> str | None:
        if redirect is None:
            return None
        kept = {key: redirect.get(key) for key in ("protocol", "port", "path", "query", "statusCode")}
        expected = {
            "protocol": "HTTPS", "port": "443", "path": "/#{path}", "query": "#{query}", "statusCode": "HTTP_301",
        }  # fmt: skip
        if kept != expected:
            raise UnknownResourceError(f"{name}: a listener's double redirects as {expected}, not as {kept}")
        return str(redirect.get("host") or SAME_HOST)

    def listener_certificate(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Give a listener one more certificate."""
        listener, arn = inputs["listenerArn"], inputs["certificateArn"]
        balancer = self.balancers[self.listeners[listener]]
        with self.listening:
            self._show(listener, balancer, [*balancer.certificates, arn])
        return f"{listener}_{arn}", {}

    def delete_listener(self, arn: str, inputs: dict[str, Any]) -> None:
        """Let a listener go. The machine stays until somebody removes it and empties `LoadBalancer.machine`."""
        balancer = self.balancers[inputs["loadBalancerArn"]]
        self.account.acm.release(arn)
        if inputs["protocol"] == "HTTPS":
            balancer.certificates = []
        else:
            balancer.redirect = None
        if balancer.machine:
            self._enter(balancer)

    def delete_listener_certificate(self, inputs: dict[str, Any]) -> None:
        """Take a certificate from a listener."""
        listener = inputs["listenerArn"]
        balancer = self.balancers[self.listeners[listener]]
        rest = [arn for arn in balancer.certificates if arn != inputs["certificateArn"]]
        if balancer.machine:
            self._show(listener, balancer, rest)

    def change_import(self, arn: str, inputs: dict[str, Any]) -> None:
        """Have listeners show a newer certificate of the user's in place of the one with this ARN."""
        self.names.changed_import(arn, inputs)
        for balancer in self.balancers.values():
            if arn in balancer.certificates:
                self._enter(balancer)

    def _show(self, listener: str, balancer: LoadBalancer, arns: list[str]) -> None:
        """Have a listener show these certificates."""
        with self.account.lock:
            ask("creating ELBv2 Listener", "Elastic Load Balancing v2: CreateListener",
                lambda: self.account.acm.use(listener, arns))  # fmt: skip
        balancer.certificates = arns
        self._enter(balancer)

    def _enter(self, balancer: LoadBalancer) -> None:
        if not balancer.machine:
            raise UnknownResourceError("a load balancer's double forwards requests before it redirects any")
        certificates = tuple(self.names.pem(arn) for arn in balancer.certificates)
        entrance = Entrance(certificates=certificates, redirect=balancer.redirect)
        if entrance != Entrance() or balancer.machine in self.entrances:
            self.entrances.add(balancer.machine)
            self.backend.set_entrance(balancer.machine, entrance)

    def _boot(self, name: str, balancer: LoadBalancer, group: TargetGroup) -> None:
        """Boot the machine that forwards requests to a group, and assign the load balancer's address to it."""
        if balancer.machine:
            return
        check = group.check
        balancer.machine = self.backend.create_load_balancer(
            name,
            balancer.network,
            Check(
                path=check["path"],
                interval=int(check["interval"]),
                timeout=int(check["timeout"]),
                rise=int(check["healthyThreshold"]),
                fall=int(check["unhealthyThreshold"]),
                idle=balancer.idle,
                keepalive=True,
                expect=check["matcher"],
            ),
        )
        self.backend.assign_address(balancer.name, balancer.machine)
        with self.lock:
            group.balancer = balancer.machine
            self._update_targets(group)

    def attachment(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Add an instance to a target group."""
        group = self.groups[inputs["targetGroupArn"]]
        with self.lock:
            group.members.append(self.account.instances[inputs["targetId"]].private_address)
            self._update_targets(group)
        return f"{inputs['targetGroupArn']}-{self.numbers()}", {}

    def _update_targets(self, group: TargetGroup) -> None:
        """Hand all targets to the balancer. The caller holds the lock, so that no older set comes after a newer one."""
        if group.balancer:
            self.backend.set_targets(group.balancer, group.members)
