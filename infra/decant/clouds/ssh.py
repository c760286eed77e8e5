"""Hosts that exist already: nothing is made but the promise to clean up after ourselves."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pulumi
from pulumi_command import remote

from decant import host
from decant.clouds import Balancer, Cloud, Kind
from decant.machine import Machine, secret
from decant.ssh.keys import fingerprint

if TYPE_CHECKING:
    from decant.settings import Host, Settings

KIND = Kind(
    title="hosts of your own",
    takes=frozenset({"hosts", "sshPrivateKey", "trustedProxies", "url"}),
    requires=("hosts", "sshPrivateKey"),
    defaults={"harden": False},
)


def create(settings: Settings) -> Cloud:
    """The stack's hosts."""
    return Ssh("cloud", settings)


class Ssh(pulumi.ComponentResource):
    """The hosts of `decant:hosts`, each a child named by its name, never by its place in the list."""

    def __init__(self, name: str, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("decant:clouds:Ssh", name, None, opts)
        # By name, so that another order of the list changes nothing.
        self.hosts = sorted(settings.hosts, key=lambda h: h.name)
        self.public_url = settings.url
        options = pulumi.ResourceOptions(parent=self)
        self.machines = [ExistingHost(h, settings, _setting_of(h, settings), options).machine for h in self.hosts]
        self.balancer = (
            Balancer(networks=list(settings.trusted_proxies), tells_scheme=True, ours=False)
            if settings.trusted_proxies
            else None
        )
        self.register_outputs({})

    def names(self, machine: Machine) -> pulumi.Output[list[str]]:
        """The public URL's name, where there is one, and the host's address."""
        public = host.server_name(urlsplit(self.public_url).hostname or "") if self.public_url else None
        address = next(h.address for h in self.hosts if h.name == machine.name)
        return pulumi.Output.from_input(list(dict.fromkeys(n for n in (public, host.server_name(address)) if n)))

    @property
    def url(self) -> pulumi.Output[str]:
        """`decant:url`, else the address of the first host by name."""
        return pulumi.Output.from_input(self.public_url or f"http://{host.server_name(self.hosts[0].address)}")


def _setting_of(one: Host, settings: Settings) -> str:
    """Return the path of a host's settings, by its place in the user's own list."""
    return f"decant:hosts[{settings.hosts.index(one)}]"


class ExistingHost(pulumi.ComponentResource):
    """One host. Its identity is its host key: another key at the same address is another machine."""

    def __init__(self, one: Host, settings: Settings, setting: str, opts: pulumi.ResourceOptions) -> None:
        super().__init__("decant:clouds:ExistingHost", one.name, None, opts)
        identity = fingerprint(one.host_key)
        private_key = secret(settings.ssh_private_key or "")
        sudo = "" if one.user == "root" else "sudo -n "
        # Made first and so deleted last, without a `create`: it opens no connection until the stack is destroyed.
        cleanup = remote.Command(
            f"{one.name}-cleanup",
            connection=remote.ConnectionArgs(
                host=one.address,
                port=one.port,
                user=one.user,
                host_key=one.host_key,
                private_key=private_key,
                # Tolerant of a moment's trouble, not of a host that is gone: docs/ssh.md has the two commands for that.
                dial_error_limit=3,
                per_dial_timeout=10,
            ),
            delete=f"{sudo}{host.REMOVE_STEP}",
            add_previous_output_in_env=False,
            # No trigger: a reinstalled host has another key, and cleaning the one that is gone could only fail.
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.machine = Machine(
            name=one.name,
            address=one.address,
            user=one.user,
            port=one.port,
            host_key=one.host_key,
            private_key=private_key,
            id=identity,
            parent=self,
            first=(cleanup,),
            patience=60,
            setting=setting,
        )
        self.register_outputs({"id": identity})
