"""The types of a stack's settings: the checked result, and how a cloud describes the settings that it takes.

Of Decant, this module imports `decant.app.model` alone, so that every other module can import it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from decant.app.model import AppOptions

NAMESPACE = "decant"
"""The prefix of every setting's name in a stack file: `decant:cloud`."""

REVIEW_TEMPLATE = "review"
"""The stack whose file, `Pulumi.review.yaml`, is the template of every review stack's."""

REVIEW_STACK = r"pr-[1-9]\d{0,8}"
"""The names of review stacks: one for each pull request, with its number."""

MOST_REVIEW_DAYS = 90
"""The longest that a review stack can be kept without a push."""

EXPIRES_FORMAT = "%Y-%m-%dT%H:%MZ"
"""How the time at which a review stack expires is written, in UTC."""


def is_review_stack(name: str) -> bool:
    """Whether a stack's name is one of those that pull requests get."""
    return re.fullmatch(REVIEW_STACK, name) is not None


@dataclass(frozen=True, kw_only=True)
class Host:
    """A server that exists already: its address, the login user, and the ed25519 host key that it must show."""

    address: str
    host_key: str
    user: str
    port: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Site:
    """The names of the site, and how it gets HTTPS."""

    domain: str | None = None
    """The site's host name in lower case, ASCII; None where visitors use an address."""
    redirects: tuple[str, ...] = ()
    """Other names that lead to `domain`."""
    dns_zone: str | None = None
    """The zone in the cloud's own DNS whose records the program keeps."""
    email: str | None = None
    """For the certificate authority's account."""
    https: bool = True
    hsts: bool | None = None
    """Whether browsers are told to use HTTPS alone. None: from the first renewal on."""
    acme_server: str = ""
    """The directory URL of the certificate authority; "" where `https` is false or `certificate` is the user's own."""
    acme_root: str | None = None
    """PEM of the root that signed the ACME server's own certificate and those that it issues, for a private one."""
    certificate: str | None = None
    """PEM of a certificate of the user's own, followed by its chain."""
    certificate_key: str | None = field(default=None, repr=False)
    saved_certificate: str | None = field(default=None, repr=False)
    """What `make destroy` has kept of the last machine's certificate."""
    resolvers: tuple[str, ...] = ()
    """Addresses of the DNS servers that say where names lead. Empty: public ones."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names that a certificate is for, `domain` first."""
        return (self.domain, *self.redirects) if self.domain else ()

    def in_zone(self, name: str) -> bool:
        """Whether `dns_zone` holds the records of a name."""
        return self.dns_zone is not None and (name == self.dns_zone or name.endswith(f".{self.dns_zone}"))

    @property
    def names_in_zone(self) -> list[str]:
        """The names whose records the stack keeps, in `dns_zone`."""
        return [name for name in self.names if self.in_zone(name)]

    @property
    def names_outside_zone(self) -> list[str]:
        """The names whose records the user sets."""
        return [name for name in self.names if not self.in_zone(name)]


@dataclass(frozen=True, kw_only=True)
class Review:
    """How the stacks of pull requests are kept, and when this one expires."""

    at_once: int = 3
    """How many of them there may be."""
    days: int = 7
    """How long one is kept without a push."""
    expires: datetime | None = None
    """When the stack may be removed. None in the template."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked settings of one stack, with every default filled in. Its repr shows no secret."""

    stack: str
    cloud: str
    machines: int
    balancer: bool
    size: str
    region: str
    image: str
    cpu_credits: str | None
    admin_cidrs: tuple[str, ...]
    hosts: tuple[Host, ...]
    harden: bool
    trusted_proxies: tuple[str, ...]
    url: str | None
    site: Site
    app_folder: Path
    """Relative to the project, the folder that holds Pulumi.yaml."""
    app: AppOptions
    """How the app folder is read."""
    build: str | None
    """A command that runs in a copy of the app folder before it is packed."""
    python_mirror: str | None
    """Where machines download a Python that is not Debian's; None for uv's own source."""
    max_body: int
    """In bytes."""
    request_timeout: int | None
    """In seconds. None where no setting says it: then the app's web line may."""
    health_path: str | None
    health_timeout: int
    """In seconds."""
    workers: int | None
    threads: int | None
    rollout: str
    release: str | None
    review: Review | None
    """None for a stack that is no pull request's."""
    warnings: tuple[str, ...]
    env: Mapping[str, str]
    provider: Mapping[str, Any] = field(repr=False)
    """Settings of the cloud's own Pulumi provider (`<cloud>:...`); encrypted ones are secret outputs."""
    secrets: Mapping[str, str] = field(repr=False)
    ssh_private_key: str | None = field(repr=False)
    extra_names: tuple[str, ...] = ()
    """Host names that machines answer to besides those of the site: a rehearsal's, for a tunnel."""


class CloudSettings(Protocol):
    """What the settings need to know of a cloud; `decant.clouds` has one such object for each cloud."""

    @property
    def title(self) -> str:
        """The cloud's name as people write it."""
        ...

    @property
    def settings(self) -> frozenset[str]:
        """Settings that mean something on this cloud. A setting that no cloud names belongs to all of them."""
        ...

    @property
    def required(self) -> tuple[str, ...]:
        """Settings that a stack on this cloud must have."""
        ...

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Values of settings that the stack leaves out."""
        ...

    @property
    def provider(self) -> Mapping[str, tuple[tuple[str, ...], str]]:
        """Settings of the cloud's Pulumi provider that a stack must have.

        Each comes with the environment variables that must not differ from it, and with an example of a value.
        """
        ...


Clouds = Mapping[str, CloudSettings]
"""Every cloud by its name in `decant:cloud`."""
