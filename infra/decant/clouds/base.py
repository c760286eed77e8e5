"""What every cloud hands to the rest of the program: machines, perhaps a balancer, and the site's names."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import pulumi
from pulumi_command import remote

from decant.clouds.dns import DnsRecord
from decant.host.render import server_name
from decant.rollout.certificate import OWN_HELP, Renewal
from decant.settings.model import Settings
from decant.ssh import setting_paths
from decant.ssh.machine_client import as_root

if TYPE_CHECKING:
    import pulumi_tls as tls

LOGIN = "deploy"  # the user that the machines of clouds are created with

# How a cloud's balancer checks a machine: the same on all clouds, because the machine waits as long before it stops.
# The defaults of clouds, such as five checks at 30 s, would keep a new machine out of rotation for minutes.
CHECK_INTERVAL = 10  # seconds
CHECK_TIMEOUT = 5  # seconds
CHECK_THRESHOLD = 2  # checks in a row, both for "healthy" and for "unhealthy"
# Seconds from a machine's first failing check until the balancer sends it no more requests.
DRAIN_SECONDS = CHECK_THRESHOLD * CHECK_INTERVAL + CHECK_TIMEOUT
IDLE_TIMEOUT = 60  # seconds that balancers usually keep a silent connection; nginx keeps it for longer


class _WhenUsed:
    """Stands in for a package until an attribute of it is read."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._package), name)


def when_used(package: str) -> Any:
    """A cloud's package that is imported when it is first used: the import takes seconds, and a stack needs one cloud.

    importlib.LazyLoader is no replacement: it imports as soon as anything iterates over sys.modules, as `inspect` does.
    """
    return _WhenUsed(package)


if not TYPE_CHECKING:
    tls = when_used("pulumi_tls")


def secret(value: pulumi.Input[str]) -> pulumi.Output[str]:
    """The text as a secret: encrypted in the state, hidden in previews."""
    marked: pulumi.Output[str] = pulumi.Output.secret(value)
    return marked


@dataclass(frozen=True, kw_only=True)
class CloudSpec:
    """How a cloud describes itself before any stack uses it: which settings it takes, requires and defaults."""

    title: str
    """Its name as people write it."""
    settings: frozenset[str]
    """Settings that only some clouds take, this one among them. A setting that no cloud lists is for all of them."""
    required: tuple[str, ...]
    """Settings that a stack must have."""
    defaults: Mapping[str, Any]
    """Values of settings that the stack leaves out."""
    provider: Mapping[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    """Settings of the cloud's Pulumi provider that a stack must have, such as a region: for each, the environment
    variables that must not differ from it, and an example of a value."""
    has_account: bool = False
    """Whether machines are made in an account: then the cloud is a package with the modules `account`, `inventory` and
    `prices`."""
    longest_balanced_request: int | None = None
    """The largest time-out for requests that its load balancer can wait for; None where it is no limit."""
    certificates_need_zone: bool = False
    """Whether its load balancer gets certificates only for names in the cloud's own DNS."""
    balancer_has_no_address: bool = False
    """Whether visitors find its load balancer by a name alone, because its addresses change."""


class AccessInputs(TypedDict):
    """How to log in to a machine, as inputs of a step. `decant.ssh.client.Access` reads it on the other side."""

    name: str
    address: pulumi.Input[str]
    port: int
    user: str
    host_key: pulumi.Input[str]
    private_key: pulumi.Input[str]
    setting: str | None


class AddressMove:
    """The move of the site's address to a machine, where there is no balancer, and what is done right before it.

    `hooks` are for the resource that moves the address. `own_address` leads to the machine until then, and
    `site_address` afterwards.
    """

    def __init__(self, name: str, own_address: pulumi.Output[str], site_address: pulumi.Output[str]) -> None:
        self.own_address = own_address
        self.site_address = site_address
        self.prepare: Callable[[], Awaitable[None]] | None = None
        """Set by `decant.deploy`, which knows the release, before the engine can move anything."""
        hook = pulumi.ResourceHook(f"preparation of {name}", self._before)
        self.hooks = pulumi.ResourceHookBinding(before_create=[hook])

    async def _before(self, _: pulumi.ResourceHookArgs) -> None:
        if self.prepare:
            await self.prepare()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine, as a cloud hands it over: how to log in to it, and how its steps depend on its resources."""

    name: str
    address: pulumi.Input[str]
    user: str
    port: int
    host_key: pulumi.Input[str]
    """The public host key that the first login is verified by."""
    private_key: pulumi.Input[str]
    id: pulumi.Input[str]
    """Changes when another machine takes this one's place: the cloud's id, or on `ssh` the host key's fingerprint."""
    parent: pulumi.Resource
    resource: pulumi.Resource | None = None
    """The cloud's resource. When it is deleted, no step on the machine has to be undone. None on `ssh`."""
    prerequisites: tuple[pulumi.Resource, ...] = ()
    """What must exist before the first login."""
    target_attachment: tuple[pulumi.Resource, ...] = ()
    """What makes the machine a target of the cloud's balancer, where that is a resource of its own."""
    timeout: int = 300
    """Seconds that the step `ready` waits for the first login."""
    setting: str | None = None
    """The path of this machine's own settings, such as `decant:hosts[1]`. None on clouds, where it has none."""
    move: AddressMove | None = None
    """The move of the site's address to it. None behind a balancer and on `ssh`, where no address moves."""
    makes_own_key: bool = False
    """Whether `host_key` is good for the first login alone: its private half is in the user data, which others can
    read. The machine then makes a key of its own."""

    def connection(self) -> remote.ConnectionArgs:
        """The login as the command provider takes it.

        Only a few dial attempts: the step `ready` has waited already, and a dead machine should fail soon.
        """
        return remote.ConnectionArgs(
            host=self.address,
            port=self.port,
            user=self.user,
            host_key=self.host_key,
            private_key=self.private_key,
            dial_error_limit=6,
            per_dial_timeout=15,
        )

    def access(self) -> AccessInputs:
        """The login as plain data, for the steps that run where `pulumi` runs.

        `setting` names a host by its name: its place in the list may change, and must not run the steps again.
        """
        return {
            "name": self.name,
            "address": self.address,
            "port": self.port,
            "user": self.user,
            "host_key": self.host_key,
            "private_key": self.private_key,
            "setting": setting_paths.by_name(self.setting, self.name) if self.setting else None,
        }

    def tag(self) -> pulumi.Output[str]:
        """A text that identifies this machine and no earlier one of the same name. It is public: nginx sends it."""
        return pulumi.Output.from_input(self.id).apply(
            lambda known: f"{self.name}.{hashlib.sha256(known.encode()).hexdigest()[:8]}"
        )

    def options(
        self,
        parent: pulumi.Resource,
        depends_on: tuple[pulumi.Resource, ...] = (),
        aliases: tuple[pulumi.Alias, ...] = (),
    ) -> pulumi.ResourceOptions:
        """The options of a step on this machine. When the machine is deleted, the step is not undone."""
        return pulumi.ResourceOptions(
            parent=parent,
            depends_on=[*self.prerequisites, *depends_on],
            deleted_with=self.resource,
            aliases=list(aliases),
        )

    def triggers(self) -> list[pulumi.Input[str]]:
        """What makes a step run again: another machine in this one's place.

        `deleted_with` alone has this effect only in recent versions of the engine, and not after a failed `up`. A
        replaced step has nothing to delete, so replacing it means running it again.
        """
        return [self.id]

    def as_root(self, command: str) -> str:
        """A shell line that runs `command` as root on this machine."""
        return as_root(self.user, command)


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """A load balancer in front of the machines."""

    networks: pulumi.Input[list[str]]
    """CIDRs that the balancer connects from. X-Forwarded-For is trusted from these only."""
    trusts_forwarded_proto: bool
    """Whether its X-Forwarded-Proto is passed on to the app. Otherwise the app sees http."""
    managed: bool
    """Whether this stack creates it. Then its public URL answers only while a machine is in rotation."""
    drain_seconds: int = DRAIN_SECONDS
    """Seconds from a machine's first failing health check until the balancer sends it no more requests."""
    idle_timeout: int = IDLE_TIMEOUT
    """Seconds that it keeps a silent connection: also one on which the app takes its time, and a silent WebSocket."""
    prerequisites: tuple[pulumi.Resource, ...] = ()
    """What must exist before the public URL can answer."""
    renewal: Renewal | None = None
    """Of the certificates with which it ends HTTPS; None where it ends none, or is not the stack's."""


class Cloud(Protocol):
    """The stack's machines, their balancer if they have one, and the names that visitors use."""

    machines: list[Machine]
    balancer: Balancer | None
    records: list[pulumi.Resource]
    """The site's DNS records, as far as the stack keeps them."""
    missing_records: list[pulumi.Output[DnsRecord]]
    """What the user sets where the site's names are registered, behind a managed balancer."""

    def names(self, machine: Machine) -> pulumi.Output[list[str]]:
        """Host names and addresses that visitors use for this machine, the public one first."""
        ...

    @property
    def address(self) -> pulumi.Output[str]:
        """The name or address that the public URL has to lead to."""
        ...

    @property
    def url(self) -> pulumi.Output[str]:
        """The public URL, without a path. A machine that gets HTTPS by itself begins with http."""
        ...


def renewal_of(names: Sequence[str], *, own: bool, days_left: float | None, help: str) -> Renewal:
    """Who renews a balancer's certificates for these names. `own`: the user does. Else the cloud, as the rest says."""
    if own:
        return {"names": list(names), "days_left": None, "help": OWN_HELP}
    return {"names": list(names), "days_left": days_left, "help": help}


def leaf_and_chain(pem: str) -> tuple[str, str | None]:
    """The site's own certificate and, apart from it, those that lead to a root; None where there are none."""
    end = "-----END CERTIFICATE-----\n"
    leaf, _, chain = pem.partition(end)
    return leaf + end, chain or None


def new_key(name: str, opts: pulumi.ResourceOptions) -> tls.PrivateKey:
    """A key pair that lives as long as the stack: one for logins, and one per machine as its host key."""
    return tls.PrivateKey(name, algorithm="ED25519", opts=opts)


class CloudComponent(pulumi.ComponentResource):
    """What all clouds share: the component with its machines, the login key, and the public names.

    A cloud that creates its machines appends what `created` returns to `machines` and sets `public_name`, or
    `own_names` for machines without a balancer. A cloud of existing hosts overrides `names` and `url`.
    """

    def __init__(self, type_name: str, settings: Settings, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"decant:clouds:{type_name}", "cloud", None, opts)
        self.settings = settings
        self.label = f"{pulumi.get_project()}-{settings.stack}"
        self.child = pulumi.ResourceOptions(parent=self)
        self.machines: list[Machine] = []
        self.balancer: Balancer | None = None
        self.public_name: pulumi.Output[str] | None = None
        """The balancer's name or address."""
        self.own_names: dict[str, pulumi.Output[str]] = {}
        """Without a balancer: the public address of each machine, by the machine's name."""
        self.scheme = "http"
        """How visitors reach the site by its name: https where a balancer of the stack ends it."""
        self.records: list[pulumi.Resource] = []
        self.missing_records: list[pulumi.Output[DnsRecord]] = []

    @cached_property
    def login_key(self) -> tls.PrivateKey:
        """The key that logs in to every machine of the stack."""
        return new_key("login-key", self.child)

    @property
    def machine_names(self) -> list[str]:
        """The names of the machines that the settings ask for."""
        return [f"web-{number}" for number in range(1, self.settings.machines + 1)]

    def names(self, machine: Machine) -> pulumi.Output[list[str]]:
        """The site's name where it has one; the balancer's name or address, else the machine's own address."""
        domain = self.settings.site.domain
        return self._name_of(machine).apply(lambda address: [*([domain] if domain else []), server_name(address)])

    @property
    def address(self) -> pulumi.Output[str]:
        """The name or address of the balancer, else the address of the only machine: the site's name leads there."""
        return self._name_of(self.machines[0])

    @property
    def url(self) -> pulumi.Output[str]:
        """The URL of the site: its name, else the balancer or the only machine."""
        if self.settings.site.domain:
            return pulumi.Output.from_input(f"{self.scheme}://{self.settings.site.domain}")
        return pulumi.Output.concat("http://", self.address)

    def _name_of(self, machine: Machine) -> pulumi.Output[str]:
        return self.own_names[machine.name] if self.public_name is None else self.public_name

    def created(
        self,
        name: str,
        resource: pulumi.CustomResource,
        address: pulumi.Input[str],
        *,
        host_key: tls.PrivateKey,
        prerequisites: tuple[pulumi.Resource, ...],
        target_attachment: tuple[pulumi.Resource, ...] = (),
        move: AddressMove | None = None,
    ) -> Machine:
        """The `Machine` of a resource whose user data holds `host_key` and this stack's login key."""
        return Machine(
            name=name,
            address=address,
            user=LOGIN,
            port=22,
            host_key=host_key.public_key_openssh.apply(str.strip),
            private_key=self.login_key.private_key_openssh,
            id=resource.id,
            parent=self,
            resource=resource,
            prerequisites=prerequisites,
            target_attachment=target_attachment,
            move=move,
            makes_own_key=True,
        )
