"""The site of a stack as its machines need it: the names that they answer to, and how they get a certificate."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from decant.clouds.base import Cloud
from decant.host.render import HostSite
from decant.settings.model import Settings
from decant_host.protocol import HttpsSettings

# Kinds of certificates at Let's Encrypt. One for an address is always short-lived.
# https://letsencrypt.org/docs/profiles/
PROFILE = "classic"
PROFILE_BY_ADDRESS = "shortlived"


def host_site(settings: Settings, names: Sequence[str], scheme: str, *, proxied: bool) -> HostSite:
    """The names of a machine and how it gets HTTPS.

    `names` are those that the cloud knows, the site's own first. `scheme` is that of the public URL. `proxied`: a
    balancer or a proxy ends HTTPS before the machine.
    """
    site = settings.site
    return HostSite(
        names=tuple(names),
        redirects=site.redirects,
        tunnel_names=settings.extra_names,
        scheme=scheme,
        hsts=site.hsts is True,
        https=None if proxied else https_settings(settings, names[0]),
        acme_root=site.acme_root or "",
        certificate="" if proxied else site.certificate or "",
        certificate_key="" if proxied else site.certificate_key or "",
    )


def https_settings(settings: Settings, name: str) -> HttpsSettings | None:
    """How a machine that visitors reach directly gets its certificate; None where it gets none.

    Without a domain, the certificate is for the machine's public address, which `name` then is. An address of a private
    network gets none, nor do several hosts.
    """
    site = settings.site
    by_address = site.domain is None
    if not site.https or (by_address and (settings.url or len(settings.hosts) > 1 or not _is_public(name))):
        return None
    return {
        "names": [name] if by_address else list(site.names),
        "by_address": by_address,
        "own": site.certificate is not None,
        "server": site.acme_server,
        "root": site.acme_root is not None,
        "profile": PROFILE_BY_ADDRESS if by_address else PROFILE,
        "email": site.email,
        "resolvers": list(site.resolvers),
        "hsts": site.hsts,
    }


def orders_certificate(settings: Settings, cloud: Cloud) -> bool:
    """Whether the stack has one machine that visitors reach directly, which gets HTTPS by itself."""
    return settings.site.https and not cloud.balancer and len(cloud.machines) == 1


def _is_public(name: str) -> bool:
    try:
        return ipaddress.ip_address(name.strip("[]")).is_global
    except ValueError:
        return False
