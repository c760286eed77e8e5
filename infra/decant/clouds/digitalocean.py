"""Droplets on DigitalOcean, each with its own reserved address, in a network and behind a firewall of the stack's."""

from __future__ import annotations

import json
from pathlib import Path

import pulumi
import pulumi_digitalocean as digitalocean
import pulumi_tls as tls

from decant import host
from decant.machine import Machine, secret
from decant.settings import Settings

LOGIN = "deploy"
EVERYWHERE = ["0.0.0.0/0", "::/0"]


class DigitalOcean(pulumi.ComponentResource):
    """One droplet and what belongs to it. Needs a token: `pulumi config set --secret digitalocean:token`."""

    def __init__(self, name: str, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("decant:clouds:DigitalOcean", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        label = f"{pulumi.get_project()}-{settings.stack}"
        # The stack's own key: nobody's personal one is needed, and it goes when the stack goes.
        login_key = tls.PrivateKey("login-key", algorithm="ED25519", opts=child)
        ssh_key = digitalocean.SshKey("login-key", name=label, public_key=login_key.public_key_openssh, opts=child)
        network = digitalocean.Vpc("network", region=settings.region, opts=child)
        tag = digitalocean.Tag("tag", name=label, opts=child)
        self.firewall = self._firewall(settings, tag)
        self._addresses: dict[str, pulumi.Output[str]] = {}
        self.machines = [
            self._machine(f"web-{number}", settings, login_key, ssh_key, network, tag)
            for number in range(1, settings.machines + 1)
        ]
        self.register_outputs({})

    def names(self, machine: Machine) -> pulumi.Output[list[str]]:
        """The machine's reserved address."""
        return self._addresses[machine.name].apply(_one_name)

    @property
    def url(self) -> pulumi.Output[str]:
        """The first machine's reserved address."""
        return pulumi.Output.concat("http://", self._addresses[self.machines[0].name])

    def _firewall(self, settings: Settings, tag: digitalocean.Tag) -> digitalocean.Firewall:
        """SSH from administrators, HTTP from everywhere. By tag, because a firewall takes ten droplet ids at most.

        Outward everything is open: without a rule nothing is, and what an app has to reach is not ours to know.
        """
        inbound = digitalocean.FirewallInboundRuleArgs
        outbound = digitalocean.FirewallOutboundRuleArgs
        return digitalocean.Firewall(
            "firewall",
            name=tag.name,
            tags=[tag.name],
            inbound_rules=[
                inbound(protocol="tcp", port_range="22", source_addresses=list(settings.admin_cidrs)),
                inbound(protocol="tcp", port_range="80", source_addresses=EVERYWHERE),
                inbound(protocol="icmp", source_addresses=EVERYWHERE),
            ],
            outbound_rules=[
                outbound(protocol="tcp", port_range="1-65535", destination_addresses=EVERYWHERE),
                outbound(protocol="udp", port_range="1-65535", destination_addresses=EVERYWHERE),
                outbound(protocol="icmp", destination_addresses=EVERYWHERE),
            ],
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _machine(
        self,
        name: str,
        settings: Settings,
        login_key: tls.PrivateKey,
        ssh_key: digitalocean.SshKey,
        network: digitalocean.Vpc,
        tag: digitalocean.Tag,
    ) -> Machine:
        child = pulumi.ResourceOptions(parent=self)
        host_key = tls.PrivateKey(f"{name}-host-key", algorithm="ED25519", opts=child)
        user_data = pulumi.Output.all(
            private=host_key.private_key_openssh,
            public=host_key.public_key_openssh,
            login=login_key.public_key_openssh,
        ).apply(lambda keys: first_boot(host_private=keys["private"], host_public=keys["public"], login=keys["login"]))
        droplet = digitalocean.Droplet(
            name,
            image=settings.image,
            size=settings.size,
            region=settings.region,
            vpc_uuid=network.id,
            ssh_keys=[ssh_key.id],
            user_data=secret(user_data),
            tags=[tag.name],
            ipv6=True,
            monitoring=True,
            droplet_agent=False,  # it would let whoever holds the account's console in
            graceful_shutdown=True,
            # What a machine was born with is not worth its replacement: replacing is asked for
            # (pulumi up --replace), never a side effect.
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[self.firewall], ignore_changes=["image", "userData", "sshKeys"]
            ),
        )
        address = digitalocean.ReservedIp(f"{name}-address", region=settings.region, opts=child)
        assigned = digitalocean.ReservedIpAssignment(
            f"{name}-address",
            ip_address=address.ip_address,
            droplet_id=droplet.id.apply(int),
            opts=pulumi.ResourceOptions(parent=self, deleted_with=droplet),
        )
        # Through the assignment, so that nobody knocks at an address that leads nowhere yet.
        self._addresses[name] = assigned.ip_address
        return Machine(
            name=name,
            address=assigned.ip_address,
            user=LOGIN,
            port=22,
            host_key=host_key.public_key_openssh.apply(str.strip),
            private_key=login_key.private_key_openssh,
            id=droplet.id,
            parent=self,
            resource=droplet,
            first=(assigned,),
        )


def _one_name(address: str) -> list[str]:
    return [host.server_name(address)]


def first_boot(*, host_private: str, host_public: str, login: str) -> str:
    """A droplet's cloud-init data: its host key, so that the first login is verified, and who may log in.

    sshd's settings are a file, because cloud-init's own switch for them restarts sshd under the first login.
    JSON is YAML: what is quoted here cannot be misread there.
    """
    data = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_private, "ed25519_public": host_public.strip()},
        "disable_root": True,
        "users": [
            {
                "name": LOGIN,
                "gecos": "Deploys the app",
                "shell": "/bin/bash",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [login.strip()],
            }
        ],
        "write_files": [
            {
                "path": "/etc/ssh/sshd_config.d/00-decant.conf",
                "content": (Path(host.HERE) / "etc/sshd.conf").read_text(encoding="utf-8"),
                "permissions": "0644",
            }
        ],
    }
    return "#cloud-config\n" + json.dumps(data, indent=1)
