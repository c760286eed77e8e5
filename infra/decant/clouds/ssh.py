"""Hosts that exist already.

Decant creates nothing there except a step that cleans up when the stack is destroyed.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import pulumi
from pulumi_command import remote

from decant.clouds.base import Balancer, Cloud, CloudComponent, CloudSpec, Machine, secret
from decant.clouds.changes import CloudChanges
from decant.host.render import server_name
from decant.host.steps import remove_step
from decant.settings.model import Host, Settings
from decant.ssh.keys import fingerprint
from decant.ssh.machine_client import as_root

SPEC = CloudSpec(
    title="hosts of your own",
    settings=frozenset({"hosts", "sshPrivateKey", "trustedProxies", "url"}),
    required=("hosts", "sshPrivateKey"),
    defaults={"harden": False},
)
# No step of the stack makes, restarts or deletes a host.
CHANGES = CloudChanges(title=SPEC.title)


def create(settings: Settings) -> Cloud:
    """The stack's hosts."""
    return Ssh(settings)


class Ssh(CloudComponent):
    """The hosts of `decant:hosts`. Each is a child named by its name, not by its place in the list."""

    def __init__(self, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("Ssh", settings, opts)
        # Sorted, so that another order of the list changes nothing.
        self.hosts = sorted(settings.hosts, key=lambda host: host.name)
        paths = {host.name: f"decant:hosts[{place}]" for place, host in enumerate(settings.hosts)}
        self.machines = [ExistingHost(host, settings, paths[host.name], self.child).machine for host in self.hosts]
        if settings.trusted_proxies:
            self.balancer = Balancer(
                networks=list(settings.trusted_proxies), trusts_forwarded_proto=True, managed=False
            )
        self.register_outputs({})

    def names(self, machine: Machine) -> pulumi.Output[list[str]]:
        """The host name of `decant:domain` or `decant:url`, if one is set, and the host's address."""
        url = self.settings.url
        public = self.settings.site.domain or (server_name(urlsplit(url).hostname or "") if url else None)
        address = next(host.address for host in self.hosts if host.name == machine.name)
        found = (public, server_name(address))
        return pulumi.Output.from_input(list(dict.fromkeys(name for name in found if name)))

    @property
    def address(self) -> pulumi.Output[str]:
        """The host name of `decant:url`, else the address of the first host by name."""
        url = self.settings.url
        return pulumi.Output.from_input((urlsplit(url).hostname or "") if url else self.hosts[0].address)

    @property
    def url(self) -> pulumi.Output[str]:
        """`decant:domain` or `decant:url`, else the address of the first host by name."""
        name = self.settings.site.domain or server_name(self.hosts[0].address)
        return pulumi.Output.from_input(self.settings.url or f"http://{name}")


class ExistingHost(pulumi.ComponentResource):
    """One host. Its id is the fingerprint of its host key: another key at the same address is another machine."""

    def __init__(self, host: Host, settings: Settings, setting: str, opts: pulumi.ResourceOptions) -> None:
        """`setting` is the host's path in the settings."""
        super().__init__("decant:clouds:ExistingHost", host.name, None, opts)
        identity = fingerprint(host.host_key)
        private_key = secret(settings.ssh_private_key or "")
        cleanup = self._cleanup(host, private_key)
        self.machine = Machine(
            name=host.name,
            address=host.address,
            user=host.user,
            port=host.port,
            host_key=host.host_key,
            private_key=private_key,
            id=identity,
            parent=self,
            prerequisites=(cleanup,),
            timeout=60,
            setting=setting,
        )
        self.register_outputs({"id": identity})

    def _cleanup(self, host: Host, private_key: pulumi.Output[str]) -> remote.Command:
        """The step that removes Decant from the host. It has no `create`, so it connects only when it is deleted.

        All other steps depend on it, so it is deleted last. It has no trigger: a reinstalled host has another key, and
        a clean-up of the host that is gone would only fail.
        """
        return remote.Command(
            f"{host.name}-cleanup",
            connection=remote.ConnectionArgs(
                host=host.address,
                port=host.port,
                user=host.user,
                host_key=host.host_key,
                private_key=private_key,
                # Enough for a short interruption. A host that is gone fails soon; docs/ssh.md has the commands for it.
                dial_error_limit=3,
                per_dial_timeout=10,
            ),
            delete=as_root(host.user, remove_step(host.name)),
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=self),
        )
