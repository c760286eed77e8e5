"""A machine: all that the rest of the program knows of a cloud."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_command import remote


def secret(value: pulumi.Input[str]) -> pulumi.Output[str]:
    """The text as a secret: encrypted in state, hidden in previews."""
    marked: pulumi.Output[str] = pulumi.Output.secret(value)
    return marked


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine as a cloud module hands it over.

    `id` changes when another machine stands at the address: the cloud's id, or on `ssh` the host key's
    fingerprint. `resource` is the cloud's own resource, whose deletion makes undoing steps pointless; on `ssh`
    there is none and `first` holds what must exist before the first step. `registration` is what makes the cloud's
    balancer ask this machine whether it may send requests. `setting` is the path of a host's own settings, such as
    `decant:hosts[1]`; None on clouds.
    """

    name: str
    address: pulumi.Input[str]
    user: str
    port: int
    host_key: pulumi.Input[str]
    private_key: pulumi.Input[str]
    id: pulumi.Input[str]
    parent: pulumi.Resource
    resource: pulumi.Resource | None = None
    first: tuple[pulumi.Resource, ...] = ()
    registration: tuple[pulumi.Resource, ...] = ()
    patience: int = 300
    setting: str | None = None

    def connection(self) -> remote.ConnectionArgs:
        """For the command provider. `ready` has waited already: few dial tries, so that a dead host fails soon."""
        return remote.ConnectionArgs(
            host=self.address,
            port=self.port,
            user=self.user,
            host_key=self.host_key,
            private_key=self.private_key,
            dial_error_limit=6,
            per_dial_timeout=15,
        )

    def access(self) -> dict[str, Any]:
        """The same as plain data, for the steps that run where `pulumi` runs (see `ssh.client.Access`)."""
        return {
            "name": self.name,
            "address": self.address,
            "port": self.port,
            "user": self.user,
            "host_key": self.host_key,
            "private_key": self.private_key,
            "setting": self.setting,
        }

    def mark(self) -> pulumi.Output[str]:
        """What tells this machine from the one that had its name before, and can be shown to anybody who asks."""
        return pulumi.Output.from_input(self.id).apply(
            lambda known: f"{self.name}.{hashlib.sha256(known.encode()).hexdigest()[:8]}"
        )

    def options(self, parent: pulumi.Resource, depends_on: tuple[pulumi.Resource, ...] = ()) -> pulumi.ResourceOptions:
        """Options of every step on this machine: when the machine goes, there is nothing left to undo."""
        return pulumi.ResourceOptions(parent=parent, depends_on=[*self.first, *depends_on], deleted_with=self.resource)

    def triggers(self) -> list[pulumi.Input[str]]:
        """Another machine at the same address must be prepared anew, also when a first try at it failed half-way.

        `deleted_with` alone does that in new engines only, and forgets it after a failure. A replaced step has
        nothing to delete, so replacing it is the same as running it again.
        """
        return [self.id]

    def as_root(self, command: str) -> str:
        """A shell line that runs as root on the machine, whoever logs in."""
        return command if self.user == "root" else f"sudo -n {command}"
