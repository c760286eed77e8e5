"""The droplets of a DigitalOcean stack, their firewalls and addresses."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pulumi

from decant.clouds.base import AddressMove, Balancer, CloudComponent, Machine, new_key, when_used
from decant.clouds.digitalocean import names
from decant.clouds.digitalocean.balancer import IDLE_TIMEOUT, load_balancer, own_certificate, renewal, zone_certificate
from decant.clouds.digitalocean.dns import Zone
from decant.clouds.dns import DnsRecord
from decant.clouds.user_data import user_data
from decant.settings.model import Settings

if TYPE_CHECKING:
    import pulumi_digitalocean as digitalocean
else:
    digitalocean = when_used("pulumi_digitalocean")

EVERYWHERE = ["0.0.0.0/0", "::/0"]


class DigitalOcean(CloudComponent):
    """The droplets and what belongs to them. Needs a token: `pulumi config set --secret digitalocean:token`."""

    def __init__(self, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("DigitalOcean", settings, opts)
        self.tag = self._tag()
        self.review_tag = self._review_tag()
        self.ssh_key = digitalocean.SshKey(
            "login-key", name=self.tag.name, public_key=self.login_key.public_key_openssh, opts=self.child
        )
        self.network = self._network()
        self.zone = Zone(self, settings.site.dns_zone) if settings.site.dns_zone else None
        certificate = self._certificate() if settings.balancer else None
        self.load_balancer = (
            load_balancer(self, self.tag.name, self.network.id, certificate) if settings.balancer else None
        )
        self.ssh_firewall = self._ssh_firewall()
        self.web_firewall = self._web_firewall()
        self.machines = [self._machine(name) for name in self.machine_names]
        if self.load_balancer:
            self.public_name = self.load_balancer.ip
            self.scheme = "https" if certificate else "http"
            self.balancer = Balancer(
                networks=self.network.ip_range.apply(_as_list),
                trusts_forwarded_proto=certificate is not None,
                managed=True,
                idle_timeout=IDLE_TIMEOUT,
                prerequisites=(self.load_balancer, self.ssh_firewall, self.web_firewall),
                renewal=renewal(settings.site) if certificate else None,
            )
            self._lead_to(self.load_balancer.ip)
        self.register_outputs({})

    def _lead_to(self, address: pulumi.Output[str]) -> None:
        """Make the records that lead the site's names to an address, as far as they are in the stack's zone."""
        site = self.settings.site
        if self.zone:
            self.records = [self.zone.lead_to(name, address) for name in site.names_in_zone]
        if self.load_balancer:
            self.missing_records = [address.apply(functools.partial(_record, name)) for name in site.names_outside_zone]

    def _tag(self) -> digitalocean.Tag:
        """The tag that finds the stack's droplets. Firewalls and the SSH key have its name, too.

        DigitalOcean hands out an existing tag as if it were new, and deleting it takes it off everything that has it.
        Two people of a team may both have a stack `dev`, so the name ends with a hash of the stack's own login key. A
        stack that was made without the hash keeps its tag: another name would be another tag.
        """
        stack = names.label(pulumi.get_project(), self.settings.stack)
        name = self.login_key.public_key_openssh.apply(lambda key: names.unique(stack, key))
        return digitalocean.Tag("tag", name=name, opts=pulumi.ResourceOptions(parent=self, ignore_changes=["name"]))

    def _review_tag(self) -> digitalocean.Tag | None:
        """The tag by which the stack of a pull request is found, also without its state. Other stacks have none.

        A later expiry is another tag: it is made first, the droplet changes its tags in place, and the old one goes. By
        itself the provider deletes the old one first, and then fails to take it off the droplet.
        """
        review = self.settings.review
        if review is None or review.expires is None:
            return None
        name = self.login_key.public_key_openssh.apply(
            functools.partial(names.review_tag, pulumi.get_project(), self.settings.stack, review.expires)
        )
        opts = pulumi.ResourceOptions(parent=self, delete_before_replace=False)
        return digitalocean.Tag("review-tag", name=name, opts=opts)

    def _network(self) -> digitalocean.Vpc:
        """The private network. Its own name is chosen by Pulumi, so the description says whose it is.

        A VPC counts a deleted balancer as its member for some minutes, and nothing waits for that but the deletion of
        the VPC, for two minutes by default: https://github.com/pulumi/pulumi-digitalocean/issues/753
        """
        return digitalocean.Vpc(
            "network",
            region=self.settings.region,
            description=self._description(),
            opts=pulumi.ResourceOptions(parent=self, custom_timeouts=pulumi.CustomTimeouts(delete="15m")),
        )

    def _description(self) -> pulumi.Input[str]:
        """Of the VPC. A review stack's has its unique name, by which the VPC is found without the state."""
        if self.review_tag:
            return self.tag.name.apply(names.description)
        return names.description(names.label(pulumi.get_project(), self.settings.stack))

    def _certificate(self) -> digitalocean.Certificate | None:
        """The balancer's certificate; None where the site has no name, or HTTPS is off."""
        site = self.settings.site
        if not site.domain or not site.https:
            return None
        if site.certificate:
            return own_certificate(self, self.tag.name, site.certificate, site.certificate_key or "")
        if self.zone is None:  # the settings are refused before: certificates_need_zone
            raise pulumi.RunError(f"decant:domain is {site.domain}: its certificate needs decant:dnsZone")
        return zone_certificate(self, self.tag.name, list(site.names), self.zone)

    def _ssh_firewall(self) -> digitalocean.Firewall:
        """SSH and ICMP in, everything out. It must exist before the droplets.

        Firewalls hold by tag: one takes at most ten droplet ids. The rules of several firewalls add up. All outbound
        traffic is allowed, because a firewall without outbound rules blocks it, and only the app's author knows what
        the app connects to: https://docs.digitalocean.com/products/networking/firewalls/
        """
        inbound = digitalocean.FirewallInboundRuleArgs
        outbound = digitalocean.FirewallOutboundRuleArgs
        return digitalocean.Firewall(
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
            opts=self.child,
        )

    def _web_firewall(self) -> digitalocean.Firewall:
        """HTTP in from the balancer; without one, HTTP and HTTPS from everywhere.

        It is a firewall of its own, so that droplets need not wait for the balancer before they are created.
        """
        source = (
            {"source_load_balancer_uids": [self.load_balancer.id]}
            if self.load_balancer
            else {"source_addresses": EVERYWHERE}
        )
        ports = ["80"] if self.load_balancer or not self.settings.site.https else ["80", "443"]
        return digitalocean.Firewall(
            "web-firewall",
            name=pulumi.Output.concat(self.tag.name, "-web"),
            tags=[self.tag.name],
            inbound_rules=[
                digitalocean.FirewallInboundRuleArgs(protocol="tcp", port_range=port, **source) for port in ports
            ],
            opts=self.child,
        )

    def _machine(self, name: str) -> Machine:
        settings = self.settings
        host_key = new_key(f"{name}-host-key", self.child)
        droplet = digitalocean.Droplet(
            name,
            image=settings.image,
            size=settings.size,
            region=settings.region,
            vpc_uuid=self.network.id,
            ssh_keys=[self.ssh_key.id],
            user_data=user_data(host_key, self.login_key),
            tags=[self.tag.name, *([self.review_tag.name] if self.review_tag else [])],
            ipv6=True,
            monitoring=True,
            droplet_agent=False,  # it would let everybody with access to the account's console log in
            # The provider gives a graceful shutdown and the deletion one minute together, and a hung droplet never
            # shuts down: https://github.com/digitalocean/terraform-provider-digitalocean/issues/1586
            # Behind a balancer the step `drain` comes first, and the disk goes with the droplet in any case.
            graceful_shutdown=False,
            # A larger disk could never become smaller again, so a larger size could not be taken back.
            resize_disk=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[self.ssh_firewall],
                # A change of these would replace the droplet. Only the user replaces one (`pulumi up --replace`).
                ignore_changes=["image", "userData", "sshKeys"],
                custom_timeouts=pulumi.CustomTimeouts(delete="10m"),
                # DigitalOcean powers a droplet off to resize it. Behind a balancer, a new droplet takes its place
                # first. A single droplet is resized, which keeps its data and takes about a minute.
                replace_on_changes=["size"] if self.load_balancer else [],
            ),
        )
        address, prerequisites, move = self._address(name, droplet)
        return self.created(name, droplet, address, host_key=host_key, prerequisites=prerequisites, move=move)

    def _address(
        self, name: str, droplet: digitalocean.Droplet
    ) -> tuple[pulumi.Output[str], tuple[pulumi.Resource, ...], AddressMove | None]:
        """The address for logins, and what must exist before the first one. Without a balancer, a reserved address."""
        if self.load_balancer:
            return droplet.ipv4_address, (), None
        address = digitalocean.ReservedIp(f"{name}-address", region=self.settings.region, opts=self.child)
        move = AddressMove(name, own_address=droplet.ipv4_address, site_address=address.ip_address)
        assigned = digitalocean.ReservedIpAssignment(
            f"{name}-address",
            ip_address=address.ip_address,
            droplet_id=droplet.id.apply(int),
            # The firewall lets in the requests that check a new droplet before the address moves.
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[self.web_firewall], deleted_with=droplet, hooks=move.hooks
            ),
        )
        self._lead_to(address.ip_address)
        # The assignment's output, not the address's: it is known only once the address leads to the droplet.
        self.own_names[name] = assigned.ip_address
        return assigned.ip_address, (assigned, self.web_firewall), move


def _as_list(network: str) -> list[str]:
    return [network]


def _record(name: str, address: str) -> DnsRecord:
    return {"name": name, "type": "A", "value": address}
