"""Droplets on DigitalOcean: one with a reserved address of its own, or several behind a load balancer."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    import pulumi_digitalocean as digitalocean

    from decant.settings import Settings
else:
    digitalocean = when_used("pulumi_digitalocean")

KIND = Kind(
    title="DigitalOcean",
    settings=frozenset({"size", "region", "image", "adminCidrs", "machines", "balancer"}),
    required=("adminCidrs",),
    # The smallest droplet that holds two releases side by side.
    defaults={"size": "s-1vcpu-1gb", "region": "fra1", "image": "debian-13-x64", "harden": True},
)
EVERYWHERE = ["0.0.0.0/0", "::/0"]


def create(settings: Settings) -> Cloud:
    """The stack's droplets."""
    return DigitalOcean("cloud", settings)


class DigitalOcean(pulumi.ComponentResource):
    """The droplets and what belongs to them. Needs a token: `pulumi config set --secret digitalocean:token`."""

    def __init__(self, name: str, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("decant:clouds:DigitalOcean", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        label = f"{pulumi.get_project()}-{settings.stack}"
        self.settings = settings
        self.login_key = new_key("login-key", child)
        self.ssh_key = digitalocean.SshKey(
            "login-key", name=label, public_key=self.login_key.public_key_openssh, opts=child
        )
        self.network = digitalocean.Vpc("network", region=settings.region, opts=child)
        self.tag = digitalocean.Tag("tag", name=label, opts=child)
        self.balanced = self._load_balancer() if settings.balancer else None
        self._firewalls = self._open_ports(label)
        self._addresses: dict[str, pulumi.Output[str]] = {}
        self.machines = [self._machine(f"web-{number}") for number in range(1, settings.machines + 1)]
        self.balancer = (
            Balancer(
                networks=self.network.ip_range.apply(_as_list),
                tells_scheme=False,  # it takes plain HTTP alone
                ours=True,
                first=(self.balanced, *self._firewalls),
            )
            if self.balanced
            else None
        )
        self.register_outputs({})

    def names(self, machine: Machine) -> pulumi.Output[list[str]]:
        """The load balancer's address, or the machine's reserved one."""
        return self._public_address(machine).apply(_one_name)

    @property
    def url(self) -> pulumi.Output[str]:
        """The load balancer's address, or the only machine's reserved one."""
        return pulumi.Output.concat("http://", self._public_address(self.machines[0]))

    def _public_address(self, machine: Machine) -> pulumi.Output[str]:
        return self.balanced.ip if self.balanced else self._addresses[machine.name]

    def _load_balancer(self) -> digitalocean.LoadBalancer:
        """HTTP from everywhere, to the droplets with the stack's tag that answer their health check.

        By tag, so that a droplet that joins or leaves changes nothing here: it takes part from the moment it says so
        itself to the moment it says no more.
        """
        return digitalocean.LoadBalancer(
            "balancer",
            region=self.settings.region,
            vpc_uuid=self.network.id,
            size_unit=1,
            droplet_tag=self.tag.name,
            forwarding_rules=[
                digitalocean.LoadBalancerForwardingRuleArgs(
                    entry_protocol="http", entry_port=80, target_protocol="http", target_port=80
                )
            ],
            healthcheck=digitalocean.LoadBalancerHealthcheckArgs(
                protocol="http",
                port=80,
                path=self.settings.health_path or host.HEALTH_PATH,
                check_interval_seconds=CHECK_INTERVAL,
                response_timeout_seconds=CHECK_TIMEOUT,
                healthy_threshold=CHECK_THRESHOLD,
                unhealthy_threshold=CHECK_THRESHOLD,
            ),
            http_idle_timeout_seconds=IDLE,
            # nginx sees the visitor in X-Forwarded-For, and would take the other protocol's header for a bad request.
            enable_proxy_protocol=False,
            enable_backend_keepalive=False,
            redirect_http_to_https=False,
            tls_cipher_policy="STRONG",
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _open_ports(self, label: str) -> tuple[digitalocean.Firewall, digitalocean.Firewall]:
        """SSH from administrators, HTTP from the balancer or else from everywhere. Their rules add up.

        By tag, because a firewall takes ten droplet ids at most. Two of them, so that droplets need not wait for the
        balancer before they are made. Outward everything is open: without a rule nothing is, and what an app has to
        reach is not ours to know.
        """
        inbound = digitalocean.FirewallInboundRuleArgs
        outbound = digitalocean.FirewallOutboundRuleArgs
        child = pulumi.ResourceOptions(parent=self)
        closed = digitalocean.Firewall(
            "firewall",
            name=self.tag.name,
            tags=[self.tag.name],
            inbound_rules=[
                inbound(protocol="tcp", port_range="22", source_addresses=list(self.settings.admin_cidrs)),
                inbound(protocol="icmp", source_addresses=EVERYWHERE),
            ],
            outbound_rules=[
                outbound(protocol="tcp", port_range="1-65535", destination_addresses=EVERYWHERE),
                outbound(protocol="udp", port_range="1-65535", destination_addresses=EVERYWHERE),
                outbound(protocol="icmp", destination_addresses=EVERYWHERE),
            ],
            opts=child,
        )
        web = (
            inbound(protocol="tcp", port_range="80", source_load_balancer_uids=[self.balanced.id])
            if self.balanced
            else inbound(protocol="tcp", port_range="80", source_addresses=EVERYWHERE)
        )
        opened = digitalocean.Firewall(
            "web-firewall", name=f"{label}-web", tags=[self.tag.name], inbound_rules=[web], opts=child
        )
        return closed, opened

    def _machine(self, name: str) -> Machine:
        settings = self.settings
        child = pulumi.ResourceOptions(parent=self)
        host_key = new_key(f"{name}-host-key", child)
        droplet = digitalocean.Droplet(
            name,
            image=settings.image,
            size=settings.size,
            region=settings.region,
            vpc_uuid=self.network.id,
            ssh_keys=[self.ssh_key.id],
            user_data=user_data(host_key, self.login_key),
            tags=[self.tag.name],
            ipv6=True,
            monitoring=True,
            droplet_agent=False,  # it would let whoever holds the account's console in
            graceful_shutdown=True,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[self._firewalls[0]],
                # What a machine was born with is not worth its replacement: replacing is asked for
                # (pulumi up --replace), never a side effect.
                ignore_changes=["image", "userData", "sshKeys"],
                # DigitalOcean switches a droplet off to change its size. Behind a balancer another one takes its place
                # first; one that stands alone keeps its data and is away for a minute.
                replace_on_changes=["size"] if self.balanced else [],
            ),
        )
        address, first = self._address(name, droplet)
        return machine(name, droplet, address, host_key=host_key, login_key=self.login_key, parent=self, first=first)

    def _address(
        self, name: str, droplet: digitalocean.Droplet
    ) -> tuple[pulumi.Output[str], tuple[pulumi.Resource, ...]]:
        """Where the machine is reached, and what must exist before. Only one that stands alone keeps its address."""
        if self.balanced:
            return droplet.ipv4_address, ()
        address = digitalocean.ReservedIp(
            f"{name}-address", region=self.settings.region, opts=pulumi.ResourceOptions(parent=self)
        )
        assigned = digitalocean.ReservedIpAssignment(
            f"{name}-address",
            ip_address=address.ip_address,
            droplet_id=droplet.id.apply(int),
            opts=pulumi.ResourceOptions(parent=self, deleted_with=droplet),
        )
        # Through the assignment, so that nobody knocks at an address that leads nowhere yet.
        self._addresses[name] = assigned.ip_address
        return assigned.ip_address, (assigned, self._firewalls[1])


def _one_name(address: str) -> list[str]:
    return [host.server_name(address)]


def _as_list(network: str) -> list[str]:
    return [network]
