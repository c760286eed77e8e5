"""The instances of an AWS stack: their image, disk, keys and addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from decant.clouds.aws.balancer import LoadBalancer
from decant.clouds.aws.network import EVERYWHERE, Network
from decant.clouds.base import AddressMove, CloudComponent, Machine, new_key, when_used
from decant.clouds.user_data import user_data
from decant.settings.model import Settings

if TYPE_CHECKING:
    import pulumi_aws as aws
else:
    aws = when_used("pulumi_aws")

DEBIAN = "136693071363"  # the account that publishes Debian's images: https://wiki.debian.org/Cloud/AmazonEC2Image


class Aws(CloudComponent):
    """The instances and what belongs to them. docs/aws.md says where the credentials come from."""

    def __init__(self, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("Aws", settings, opts)
        self.key_pair = aws.ec2.KeyPair(
            "login-key", public_key=self.login_key.public_key_openssh.apply(str.strip), opts=self.child
        )
        self.image = self._image()
        self.network = Network(self)
        self.load_balancer: LoadBalancer | None = None
        self.open_http: tuple[pulumi.Resource, ...] = ()
        if settings.balancer:
            self.load_balancer = LoadBalancer(self, self.network)
            self.public_name = self.load_balancer.resource.dns_name
            self.balancer = self.load_balancer.described()
        else:
            self.open_http = (self.network.allow_in("http", self.network.machines, 80, EVERYWHERE),)
        self.machines = [self._machine(place, name) for place, name in enumerate(self.machine_names)]
        self.register_outputs({})

    def _image(self) -> pulumi.Input[str]:
        """The id of the setting's image: the setting itself, or the newest of Debian's images with that name."""
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

    def _machine(self, place: int, name: str) -> Machine:
        """An instance with its address. Instances alternate between the subnets, and so between the zones."""
        host_key = new_key(f"{name}-host-key", self.child)
        subnet, route = self.network.machine_subnets[place % len(self.network.machine_subnets)]
        instance = aws.ec2.Instance(
            name,
            ami=self.image,
            instance_type=self.settings.size,
            subnet_id=subnet.id,
            vpc_security_group_ids=[self.network.machines.id],
            key_name=self.key_pair.key_name,
            user_data=user_data(host_key, self.login_key),
            # IMDSv2 with one hop: a request that an app is tricked into sending (SSRF) gets no credentials.
            # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
            metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
                encrypted=True, volume_type="gp3", volume_size=10, delete_on_termination=True
            ),
            tags={"Name": f"{self.label}-{name}"},
            opts=pulumi.ResourceOptions(
                parent=self,
                # Create the route and the rules first: SSH works at the first attempt. Delete them last: the machine
                # can still be drained.
                depends_on=[route, *self.network.reachability],
                # A change of these would replace the instance. Only the user does that, with `pulumi up --replace`.
                ignore_changes=["ami", "userData", "keyName"],
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
        if self.load_balancer:
            # Looked up at every run: the address changes when an instance is stopped or loses an Elastic IP.
            found = aws.ec2.get_instance_output(instance_id=instance.id, opts=pulumi.InvokeOptions(parent=self))
            return found.apply(lambda now: _public_address(name, now.id, now.public_ip)), (), None
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
                parent=self, depends_on=[*self.open_http], deleted_with=instance, hooks=move.hooks
            ),
        )
        # The association's output, not the Elastic IP's: it is known only once the address leads to the instance.
        self.own_names[name] = assigned.public_ip
        return assigned.public_ip, (assigned, *self.open_http), move


def _public_address(name: str, identity: str, address: str) -> str:
    """The public address. Raises pulumi.RunError when the instance has none, because it is stopped."""
    if not address:
        raise pulumi.RunError(
            f"{name} ({identity}) has no public address: it is stopped\n"
            f"      aws ec2 start-instances --instance-ids {identity}"
        )
    return address
