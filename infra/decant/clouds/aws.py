"""Instances on AWS: one with an address of its own that stays, or several in two zones behind a load balancer."""

from __future__ import annotations

import difflib
import inspect
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pulumi

from decant import host
from decant.clouds import (
    CHECK_INTERVAL,
    CHECK_THRESHOLD,
    CHECK_TIMEOUT,
    IDLE,
    Balancer,
    Cloud,
    Kind,
    when_used,
)
from decant.clouds.first_boot import machine, new_key, user_data
from decant.machine import Machine

if TYPE_CHECKING:
    import pulumi_aws as aws

    from decant.settings import Settings
else:
    aws = when_used("pulumi_aws")

KIND = Kind(
    title="AWS",
    settings=frozenset({"size", "image", "adminCidrs", "machines", "balancer"}),
    required=("adminCidrs",),
    # The smallest instance that holds two releases side by side.
    defaults={"size": "t3.micro", "image": "debian-13-amd64", "harden": True},
    provider={"aws:region": ("AWS_REGION", "eu-central-1")},
)
DEBIAN = "136693071363"  # the account that publishes Debian's own images
EVERYWHERE = "0.0.0.0/0"
ZONES = 2  # the fewest that a load balancer takes
NETWORK = "10.90.0.0/16"
MACHINES = ("10.90.0.0/24", "10.90.1.0/24")
# Nothing but the balancer is in these, so that an address from here is the balancer's word. Room for all it grows to.
BALANCERS = ("10.90.128.0/26", "10.90.128.64/26")
DRAINING = 30  # seconds for requests in flight; a request ends within 35, and a machine leaves before it is taken out


def create(settings: Settings) -> Cloud:
    """The stack's instances."""
    if all(ipaddress.ip_network(network).version == 6 for network in settings.admin_cidrs):
        raise pulumi.RunError(
            f"decant:adminCidrs is {', '.join(settings.admin_cidrs)}: it must hold an IPv4 network, because machines on"
            " AWS are reached by IPv4 alone\n"
            "      pulumi config set --path 'decant:adminCidrs[0]' \"$(curl -fsS4 https://checkip.amazonaws.com)/32\""
        )
    provider = account(settings.provider, {"decant:project": pulumi.get_project(), "decant:stack": settings.stack})
    return Aws("cloud", settings, pulumi.ResourceOptions(providers=[provider]))


# ------------------------------------------------------------------------------------------------ the account


def account(given: Mapping[str, Any], tags: Mapping[str, str]) -> aws.Provider:
    """All that the stack says in the `aws:` namespace, and tags for everything that is made.

    A provider of our own, because only one that the program makes can add tags to the user's.
    """
    parameters = {_camel(name): one for name, one in inspect.signature(aws.ProviderArgs).parameters.items()}
    unknown = [name for name in given if name not in parameters]
    if unknown:
        raise pulumi.RunError("\n".join(_unknown(name, parameters) for name in unknown))
    # Pulumi keeps everything as text; what the provider does not take as text is JSON.
    text = pulumi.Input[str | None]
    arguments = {
        parameters[name].name: value if parameters[name].annotation == text else _parsed(name, value)
        for name, value in given.items()
    }
    ours = {"managed-by": "pulumi", **tags}
    arguments["default_tags"] = pulumi.Output.from_input(arguments.get("default_tags", {})).apply(
        lambda theirs: {"tags": {**ours, **theirs.get("tags", {})}}
    )
    return aws.Provider("aws", **arguments)


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean aws:{near[0]}?" if near else ""
    return f"aws:{name} is not a setting of the AWS provider{hint}\n      pulumi config rm aws:{name}"


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def _parsed(name: str, value: Any, shown: str | None = None) -> Any:
    if isinstance(value, pulumi.Output):  # a secret
        return value.apply(lambda text: _parsed(name, text, shown="[secret]"))
    try:
        return json.loads(value)
    except ValueError:
        raise pulumi.RunError(
            f"aws:{name} is {shown or json.dumps(value)}: it must be a number, true, false or a list or an object in"
            " JSON\n"
            f"      pulumi config set --path 'aws:{name}...', or pulumi config rm aws:{name}"
        ) from None


# ------------------------------------------------------------------------------------------------ the cloud


class Aws(pulumi.ComponentResource):
    """The instances and what belongs to them. Credentials: as for every program of AWS's, see docs/aws.md."""

    def __init__(self, name: str, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("decant:clouds:Aws", name, None, opts)
        self.settings = settings
        self.label = f"{pulumi.get_project()}-{settings.stack}"
        self.child = pulumi.ResourceOptions(parent=self)
        self.login_key = new_key("login-key", self.child)
        self.key_pair = aws.ec2.KeyPair(
            "login-key", public_key=self.login_key.public_key_openssh.apply(str.strip), opts=self.child
        )
        self.image = self._image()
        self.zones = self._zones()
        self.network = aws.ec2.Vpc(
            "network",
            cidr_block=NETWORK,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags={"Name": self.label},
            opts=self.child,
        )
        self.gateway = aws.ec2.InternetGateway(
            "gateway", vpc_id=self.network.id, tags={"Name": self.label}, opts=self.child
        )
        self.routes = aws.ec2.RouteTable(
            "routes",
            vpc_id=self.network.id,
            routes=[aws.ec2.RouteTableRouteArgs(cidr_block=EVERYWHERE, gateway_id=self.gateway.id)],
            tags={"Name": self.label},
            opts=self.child,
        )
        used = ZONES if settings.balancer else 1
        self.subnets = [self._subnet(f"machines-{zone + 1}", zone, MACHINES[zone]) for zone in range(used)]
        self.group = self._group("machines", "SSH from administrators; HTTP")
        # Who knocks must get in, and a machine that boots must get out: without a rule it could do neither.
        self._reachable = [
            *(
                self._inward(f"ssh-from-{_word(one)}", self.group, 22, one)
                for one in dict.fromkeys(settings.admin_cidrs)
            ),
            self._path_mtu("machines", self.group),
            self._outward("machines-out", self.group),
        ]
        self._open: tuple[pulumi.Resource, ...] = ()
        self.balanced: aws.lb.LoadBalancer | None = None
        self.balancer: Balancer | None = None
        if settings.balancer:
            self.balancer = self._balancer()
        else:
            self._open = (self._inward("http", self.group, 80, EVERYWHERE),)
        self._addresses: dict[str, pulumi.Output[str]] = {}
        self.machines = [self._machine(number) for number in range(1, settings.machines + 1)]
        self.register_outputs({})

    def names(self, machine: Machine) -> pulumi.Output[list[str]]:
        """The load balancer's name, or the machine's own address."""
        return self._public_name(machine).apply(_one_name)

    @property
    def url(self) -> pulumi.Output[str]:
        """The load balancer's name, or the only machine's own address."""
        return pulumi.Output.concat("http://", self._public_name(self.machines[0]))

    def _public_name(self, machine: Machine) -> pulumi.Output[str]:
        return self.balanced.dns_name if self.balanced else self._addresses[machine.name]

    # -------------------------------------------------------------------------------------------- looked up

    def _image(self) -> pulumi.Input[str]:
        """The newest of Debian's images with the setting's name, or just the one whose id it is."""
        if self.settings.image.startswith("ami-"):
            return self.settings.image
        wanted = {
            "name": f"{self.settings.image}-*",
            "architecture": "x86_64",
            "virtualization-type": "hvm",
            "root-device-type": "ebs",
        }
        found = aws.ec2.get_ami_output(
            owners=[DEBIAN],
            most_recent=True,
            filters=[aws.ec2.GetAmiFilterArgs(name=name, values=[value]) for name, value in wanted.items()],
            opts=pulumi.InvokeOptions(parent=self),
        )
        image: pulumi.Output[str] = found.id
        return image

    def _zones(self) -> pulumi.Output[Sequence[str]]:
        """The region's zones; local ones, which have to be asked for, take no load balancer."""
        found = aws.get_availability_zones_output(
            state="available",
            filters=[aws.GetAvailabilityZonesFilterArgs(name="opt-in-status", values=["opt-in-not-required"])],
            opts=pulumi.InvokeOptions(parent=self),
        )
        zones: pulumi.Output[Sequence[str]] = found.names.apply(sorted)
        return zones

    # -------------------------------------------------------------------------------------------- the network

    def _subnet(self, name: str, zone: int, network: str) -> tuple[aws.ec2.Subnet, aws.ec2.RouteTableAssociation]:
        """A subnet with a way out. What a subnet is in stays: a zone that comes or goes must not move machines."""
        subnet = aws.ec2.Subnet(
            name,
            vpc_id=self.network.id,
            cidr_block=network,
            availability_zone=self.zones.apply(lambda zones: zones[zone]),
            # Said here and not of each instance: there, one that was stopped for a while would be replaced for it.
            map_public_ip_on_launch=True,
            tags={"Name": f"{self.label}-{name}"},
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["availabilityZone"]),
        )
        association = aws.ec2.RouteTableAssociation(
            name, subnet_id=subnet.id, route_table_id=self.routes.id, opts=self.child
        )
        return subnet, association

    def _group(self, name: str, description: str) -> aws.ec2.SecurityGroup:
        return aws.ec2.SecurityGroup(
            name,
            vpc_id=self.network.id,
            description=description,
            tags={"Name": f"{self.label}-{name}"},
            opts=self.child,
        )

    def _inward(
        self, name: str, group: aws.ec2.SecurityGroup, port: int, source: str | aws.ec2.SecurityGroup
    ) -> aws.vpc.SecurityGroupIngressRule:
        """One TCP port, from a network or from what is in another group."""
        return aws.vpc.SecurityGroupIngressRule(
            name,
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            opts=self.child,
            **_peer(source),
        )

    def _outward(
        self, name: str, group: aws.ec2.SecurityGroup, to: aws.ec2.SecurityGroup | None = None
    ) -> aws.vpc.SecurityGroupEgressRule:
        """To everywhere, because what an app has to reach is not ours to know; or to another group's port 80 alone."""
        if to is None:
            return aws.vpc.SecurityGroupEgressRule(
                name, security_group_id=group.id, ip_protocol="-1", cidr_ipv4=EVERYWHERE, opts=self.child
            )
        return aws.vpc.SecurityGroupEgressRule(
            name,
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=80,
            to_port=80,
            opts=self.child,
            **_peer(to),
        )

    def _path_mtu(self, name: str, group: aws.ec2.SecurityGroup) -> aws.vpc.SecurityGroupIngressRule:
        """ "Too big, must not be split" (ICMP type 3, code 4): else large answers never arrive behind some tunnels."""
        return aws.vpc.SecurityGroupIngressRule(
            f"{name}-path-mtu",
            security_group_id=group.id,
            ip_protocol="icmp",
            from_port=3,
            to_port=4,
            cidr_ipv4=EVERYWHERE,
            opts=self.child,
        )

    # -------------------------------------------------------------------------------------------- the balancer

    def _balancer(self) -> Balancer:
        """HTTP from everywhere, to the machines that answer their health check."""
        subnets = [self._subnet(f"balancer-{zone + 1}", zone, BALANCERS[zone]) for zone in range(ZONES)]
        group = self._group("balancer", "HTTP from everywhere, to the machines alone")
        rules = (
            self._inward("balancer-http", group, 80, EVERYWHERE),
            self._path_mtu("balancer", group),
            self._outward("balancer-to-machines", group, self.group),
            self._inward("http-from-balancer", self.group, 80, group),
        )
        # Every attribute that matters is said, also where it is the default of today.
        self.balanced = aws.lb.LoadBalancer(
            "balancer",
            load_balancer_type="application",
            internal=False,
            ip_address_type="ipv4",
            subnets=[subnet.id for subnet, _ in subnets],
            security_groups=[group.id],
            idle_timeout=IDLE,
            drop_invalid_header_fields=True,
            desync_mitigation_mode="defensive",
            xff_header_processing_mode="append",
            enable_xff_client_port=False,
            preserve_host_header=True,
            enable_http2=True,
            enable_deletion_protection=False,
            # It needs the gateway, and the gateway cannot go while there is a balancer.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[association for _, association in subnets]),
        )
        # No names: Pulumi makes them up, so that one that has to be replaced can stand beside its successor.
        self.targets = aws.lb.TargetGroup(
            "targets",
            vpc_id=self.network.id,
            target_type="instance",
            port=80,
            protocol="HTTP",
            protocol_version="HTTP1",
            deregistration_delay=DRAINING,
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                enabled=True,
                protocol="HTTP",
                port="traffic-port",
                path=self.settings.health_path or host.HEALTH_PATH,
                matcher="200",
                interval=CHECK_INTERVAL,
                timeout=CHECK_TIMEOUT,
                healthy_threshold=CHECK_THRESHOLD,
                unhealthy_threshold=CHECK_THRESHOLD,
            ),
            opts=self.child,
        )
        listener = aws.lb.Listener(
            "http",
            load_balancer_arn=self.balanced.arn,
            port=80,
            protocol="HTTP",
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=self.targets.arn),
            ],
            opts=self.child,
        )
        return Balancer(
            networks=list(BALANCERS),
            tells_scheme=False,  # it takes plain HTTP alone
            ours=True,
            first=(listener, *rules),
        )

    # -------------------------------------------------------------------------------------------- a machine

    def _machine(self, number: int) -> Machine:
        name = f"web-{number}"
        host_key = new_key(f"{name}-host-key", self.child)
        subnet, route = self.subnets[(number - 1) % len(self.subnets)]
        instance = aws.ec2.Instance(
            name,
            ami=self.image,
            instance_type=self.settings.size,
            subnet_id=subnet.id,
            vpc_security_group_ids=[self.group.id],
            key_name=self.key_pair.key_name,
            user_data=user_data(host_key, self.login_key),
            # A session token and one hop: a request that an app is tricked into gets no answer.
            metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
                encrypted=True, volume_type="gp3", volume_size=10, delete_on_termination=True
            ),
            tags={"Name": f"{self.label}-{name}"},
            opts=pulumi.ResourceOptions(
                parent=self,
                # All that makes it reachable: nobody has to knock for long, and it can be asked to leave to the end.
                depends_on=[route, *self._reachable],
                # What a machine was born with is not worth its replacement: replacing is asked for
                # (pulumi up --replace), never a side effect.
                ignore_changes=["ami", "userData", "keyName"],
                # AWS stops an instance to change its size. Behind a balancer another one takes its place first; one
                # that stands alone keeps its data and is away for a minute.
                replace_on_changes=["instanceType"] if self.balanced else [],
            ),
        )
        address, first = self._address(name, instance)
        return machine(
            name,
            instance,
            address,
            host_key=host_key,
            login_key=self.login_key,
            parent=self,
            first=first,
            registration=self._registration(name, instance),
        )

    def _address(self, name: str, instance: aws.ec2.Instance) -> tuple[pulumi.Output[str], tuple[pulumi.Resource, ...]]:
        """Where the machine is reached, and what must exist before. One that stands alone has an address that stays."""
        if self.balanced:
            # Asked for at every run: it is another one after a stop, and after an Elastic IP was taken off.
            found = aws.ec2.get_instance_output(instance_id=instance.id, opts=pulumi.InvokeOptions(parent=self))
            return found.apply(lambda now: _present(name, now.id, now.public_ip)), ()
        address = aws.ec2.Eip(
            f"{name}-address",
            domain="vpc",
            tags={"Name": f"{self.label}-{name}"},
            # Without the gateway it leads nowhere, and the gateway cannot go while there is one.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.gateway]),
        )
        assigned = aws.ec2.EipAssociation(
            f"{name}-address",
            allocation_id=address.allocation_id,
            instance_id=instance.id,
            allow_reassociation=True,  # to a new instance, before the old one is gone
            opts=pulumi.ResourceOptions(parent=self, deleted_with=instance),
        )
        # Through the association, so that nobody knocks at an address that leads nowhere yet.
        self._addresses[name] = assigned.public_ip
        return assigned.public_ip, (assigned, *self._open)

    def _registration(self, name: str, instance: aws.ec2.Instance) -> tuple[pulumi.Resource, ...]:
        if not self.balanced:
            return ()
        return (
            aws.lb.TargetGroupAttachment(
                name, target_group_arn=self.targets.arn, target_id=instance.id, port=80, opts=self.child
            ),
        )


def _peer(peer: str | aws.ec2.SecurityGroup) -> dict[str, Any]:
    if not isinstance(peer, str):
        return {"referenced_security_group_id": peer.id}
    return {f"cidr_ipv{ipaddress.ip_network(peer).version}": peer}


def _word(network: str) -> str:
    return re.sub(r"[:/]", "-", network)


def _present(name: str, identity: str, address: str) -> str:
    if not address:
        raise pulumi.RunError(
            f"{name} ({identity}) has no public address: it is stopped\n"
            f"      aws ec2 start-instances --instance-ids {identity}"
        )
    return address


def _one_name(address: str) -> list[str]:
    return [host.server_name(address)]
