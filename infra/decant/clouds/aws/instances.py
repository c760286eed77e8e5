"""The instances of an AWS stack: their image, disk, keys and addresses."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import pulumi

from decant.clouds.aws.balancer import LoadBalancer
from decant.clouds.aws.certificates import Certificates
from decant.clouds.aws.dns import Zone
from decant.clouds.aws.existing import ExistingMachines
from decant.clouds.aws.network import EVERYWHERE, Network, Subnet
from decant.clouds.aws.offers import Offers, Size
from decant.clouds.base import AddressMove, CloudComponent, Machine, new_key, when_used
from decant.clouds.dns import DnsRecord
from decant.clouds.user_data import user_data
from decant.settings.model import Settings

if TYPE_CHECKING:
    import pulumi_aws as aws
else:
    aws = when_used("pulumi_aws")


def machines_to_replace() -> list[str]:
    """The machines that this run replaces: `make replace` names them, so that they get the newest image."""
    return [name.strip() for name in os.environ.get("DECANT_REPLACE", "").split(",") if name.strip()]


class Aws(CloudComponent):
    """The instances and what belongs to them. docs/aws.md says where the credentials come from."""

    def __init__(self, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("Aws", settings, opts)
        site = settings.site
        self.key_pair = aws.ec2.KeyPair(
            "login-key", public_key=self.login_key.public_key_openssh.apply(str.strip), opts=self.child
        )
        self.replaced = machines_to_replace()
        self.offers = Offers(settings, self)
        self.existing = ExistingMachines(settings, self, self.label, self.replaced)
        # Asked within `apply`, where the arguments are known: a wrong size ends the run before anything is made.
        self.size: pulumi.Output[Size] = pulumi.Output.from_input(settings.size).apply(self.offers.size)
        self.image: pulumi.Output[str] = self.size.apply(self.offers.image)
        self.network = Network(self, self.size.apply(self._zones))
        # In the subnet's id, because the network is not known in the preview of a first `up`.
        self.fits: pulumi.Output[bool] = pulumi.Output.all(self.size, self.network.vpc.id).apply(self._check_change)
        self.zone = Zone(self, site.dns_zone) if site.dns_zone else None
        self.load_balancer: LoadBalancer | None = None
        self.open_web: tuple[pulumi.Resource, ...] = ()
        if settings.balancer:
            self.load_balancer = self._load_balancer()
        else:
            self.open_web = (
                self.network.allow_in("http", self.network.machines, 80, EVERYWHERE),
                *([self.network.allow_in("https", self.network.machines, 443, EVERYWHERE)] if site.https else []),
            )
        self.machines = [self._machine(place, name) for place, name in enumerate(self.machine_names)]
        self.register_outputs({})

    def _load_balancer(self) -> LoadBalancer:
        """The balancer, and the records that lead the site's names to it."""
        site = self.settings.site
        certificates = Certificates(self, self.zone) if site.domain and site.https else None
        balancer = LoadBalancer(self, self.network, certificates)
        self.public_name = balancer.resource.dns_name
        self.balancer = balancer.described()
        if balancer.https:
            self.scheme = "https"
        if self.zone:
            self.records = [self.zone.lead_to_balancer(name, balancer.resource) for name in site.names_in_zone]
        self.missing_records = [
            *(balancer.resource.dns_name.apply(functools.partial(_alias, name)) for name in site.names_outside_zone),
            *(certificates.missing_records if certificates else ()),
        ]
        return balancer

    async def _zones(self, size: Size) -> list[str]:
        return await self.offers.zones(size, needed=2 if self.settings.balancer else 1)

    async def _check_change(self, known: list[Any]) -> bool:
        size, network = known
        await self.existing.check_change(size, network)
        return True

    def _place_for(self, name: str, subnet: Subnet) -> pulumi.Output[str]:
        """The id of a machine's subnet, once it is certain that the machine can be there."""

        def checked(known: list[Any]) -> str:
            identity, zone, size, _ = known
            self.offers.check_zone(size, name, zone)
            return str(identity)

        place: pulumi.Output[str] = pulumi.Output.all(
            subnet.subnet.id, subnet.subnet.availability_zone, self.size, self.fits
        ).apply(checked)
        return place

    def _credits(self) -> pulumi.Input[aws.ec2.InstanceCreditSpecificationArgs] | None:
        """How a burstable machine pays for CPU time beyond its share; None leaves it to AWS."""
        if self.settings.cpu_credits is None:
            return None
        return aws.ec2.InstanceCreditSpecificationArgs(cpu_credits=self.settings.cpu_credits)

    def _machine(self, place: int, name: str) -> Machine:
        """An instance with its address. Instances alternate between the subnets, and so between the zones."""
        host_key = new_key(f"{name}-host-key", self.child)
        subnet = self.network.machine_subnets[place % len(self.network.machine_subnets)]
        instance = aws.ec2.Instance(
            name,
            ami=self.image,
            instance_type=self.size.apply(_name),
            subnet_id=self._place_for(name, subnet),
            vpc_security_group_ids=[self.network.machines.id],
            key_name=self.key_pair.key_name,
            user_data=user_data(host_key, self.login_key),
            # IMDSv2 with one hop: a request that an app is tricked into sending (SSRF) gets no credentials.
            # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
            metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            credit_specification=self._credits(),
            root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
                encrypted=True, volume_type="gp3", volume_size=10, delete_on_termination=True
            ),
            tags={"Name": f"{self.label}-{name}"},
            opts=pulumi.ResourceOptions(
                parent=self,
                # Create the route and the rules first: SSH works at the first attempt. Delete them last: the machine
                # can still be drained.
                depends_on=[subnet.route, *self.network.reachability],
                # A change of these would replace the instance. Only the user does that, with `make replace`.
                ignore_changes=[*([] if name in self.replaced else ["ami"]), "userData", "keyName"],
                # AWS stops an instance to change its type. Behind a balancer, a new instance takes its place first. A
                # single instance is stopped, which keeps its data and takes about a minute.
                replace_on_changes=["instanceType"] if self.load_balancer else [],
            ),
        )
        address, prerequisites, move = self._address(name, instance)
        return self.created(
            name,
            instance,
            address,
            host_key=host_key,
            prerequisites=prerequisites,
            target_attachment=(self.load_balancer.attach(name, instance),) if self.load_balancer else (),
            move=move,
        )

    def _address(
        self, name: str, instance: aws.ec2.Instance
    ) -> tuple[pulumi.Output[str], tuple[pulumi.Resource, ...], AddressMove | None]:
        """The address for logins, and what must exist before the first one. Without a balancer, an Elastic IP."""
        # Looked up at every run: an instance may be stopped or gone, and its own address changes when it is stopped, or
        # loses an Elastic IP.
        own_address: pulumi.Output[str] = instance.id.apply(functools.partial(self.existing.check_running, name))
        if self.load_balancer:
            return own_address, (), None
        address = aws.ec2.Eip(
            f"{name}-address",
            domain="vpc",
            tags={"Name": f"{self.label}-{name}"},
            # An Elastic IP needs the gateway, and AWS detaches no gateway from a VPC that has mapped public addresses.
            # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DetachInternetGateway.html
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.network.gateway]),
        )
        # An instance has a public address of its own until it is associated with an Elastic IP.
        move = AddressMove(name, own_address=instance.public_ip, site_address=address.public_ip)
        assigned = aws.ec2.EipAssociation(
            f"{name}-address",
            allocation_id=address.allocation_id,
            instance_id=instance.id,
            allow_reassociation=True,  # to a replacement, while the old instance still exists
            # The rules let in the requests that check a new instance before the address moves.
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=list(self.open_web), deleted_with=instance, hooks=move.hooks
            ),
        )
        if self.zone:
            self.records = [
                self.zone.lead_to_address(name, address.public_ip) for name in self.settings.site.names_in_zone
            ]
        # The association's output, not the Elastic IP's: it is known only once the address leads to the instance.
        self.own_names[name] = assigned.public_ip
        reachable: pulumi.Output[str] = pulumi.Output.all(assigned.public_ip, own_address).apply(_first)
        return reachable, (assigned, *self.open_web), move


def _name(size: Size) -> str:
    return size.name


def _first(texts: list[str]) -> str:
    return texts[0]


def _alias(name: str, balancer: str) -> DnsRecord:
    """A load balancer has a name and no fixed address."""
    return {"name": name, "type": "CNAME", "value": balancer}
