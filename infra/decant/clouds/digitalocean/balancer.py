"""The load balancer of a DigitalOcean stack and its certificate."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pulumi

from decant.clouds.base import (
    CHECK_INTERVAL,
    CHECK_THRESHOLD,
    CHECK_TIMEOUT,
    CloudComponent,
    leaf_and_chain,
    renewal_of,
    secret,
    when_used,
)
from decant.clouds.digitalocean.dns import Zone
from decant.host.render import HEALTH_PATH
from decant.rollout.certificate import Renewal
from decant.settings.model import Site

if TYPE_CHECKING:
    import pulumi_digitalocean as digitalocean
else:
    digitalocean = when_used("pulumi_digitalocean")

# Seconds, the most that DigitalOcean allows: a silent connection may be a request that takes long, or a WebSocket.
# https://docs.digitalocean.com/reference/api/digitalocean/#tag/Load-Balancers
IDLE_TIMEOUT = 600
ISSUE_TIMEOUT = "15m"
NOT_RENEWED = (
    "DigitalOcean renews it by itself as long as the domain's name servers are DigitalOcean's and no CAA record forbids"
    " it. What it says: doctl compute certificate list"
)


def zone_certificate(
    cloud: CloudComponent, tag: pulumi.Input[str], names: list[str], zone: Zone
) -> digitalocean.Certificate:
    """A certificate of Let's Encrypt for names in a zone at DigitalOcean, which renews it by itself.

    Other names need another certificate. DigitalOcean deletes none that a balancer has, so the new one is made first,
    the balancer takes it, and the old one goes. The provider's own choice is to delete the old one first, because the
    program sets the name: https://github.com/pulumi/pulumi-terraform/pull/465
    """
    return digitalocean.Certificate(
        "certificate",
        name=_name(tag, "".join(names)),
        type="lets_encrypt",
        # The certificate depends on the look-up of the zone.
        domains=zone.name.apply(lambda _: names),
        opts=pulumi.ResourceOptions(
            parent=cloud,
            delete_before_replace=False,
            custom_timeouts=pulumi.CustomTimeouts(create=ISSUE_TIMEOUT),
            hooks=zone.delegation.required,
        ),
    )


def own_certificate(cloud: CloudComponent, tag: pulumi.Input[str], pem: str, key: str) -> digitalocean.Certificate:
    """A certificate of the user's own. A newer one takes its place in the same order."""
    leaf, chain = leaf_and_chain(pem)
    return digitalocean.Certificate(
        "certificate",
        name=_name(tag, pem),
        type="custom",
        private_key=secret(key),
        leaf_certificate=leaf,
        certificate_chain=chain,
        opts=pulumi.ResourceOptions(parent=cloud, delete_before_replace=False),
    )


def renewal(site: Site) -> Renewal:
    """Who renews the certificate."""
    return renewal_of(site.names, own=site.certificate is not None, days_left=None, help=NOT_RENEWED)


def _name(tag: pulumi.Input[str], content: str) -> pulumi.Output[str]:
    """A name for a certificate. It is unique in the account, so that another certificate can exist beside it."""
    return pulumi.Output.concat(tag, "-", hashlib.sha256(content.encode()).hexdigest()[:7])


def load_balancer(
    cloud: CloudComponent,
    tag: pulumi.Input[str],
    network: pulumi.Input[str],
    certificate: digitalocean.Certificate | None,
) -> digitalocean.LoadBalancer:
    """A balancer that sends requests to the healthy droplets with the stack's tag.

    With a certificate it ends HTTPS, and redirects plain HTTP there. Droplets are found by their tag, so that adding or
    removing one changes nothing here. A droplet is in rotation as long as its health check succeeds. Every setting is
    written out: the provider's defaults may change.
    Reference: https://docs.digitalocean.com/products/networking/load-balancers/
    """
    settings = cloud.settings
    rule = digitalocean.LoadBalancerForwardingRuleArgs
    rules = [rule(entry_protocol="http", entry_port=80, target_protocol="http", target_port=80)]
    more: dict[str, Any] = {}
    if certificate:
        rules.append(
            rule(
                entry_protocol="https",
                entry_port=443,
                target_protocol="http",
                target_port=80,
                # Not its id, which changes with each renewal.
                certificate_name=certificate.name,
            )
        )
        # Else DigitalOcean makes records for the certificate's names by itself, beside those of the stack.
        more["disable_lets_encrypt_dns_records"] = True
    return digitalocean.LoadBalancer(
        "balancer",
        region=settings.region,
        vpc_uuid=network,
        size_unit=1,
        droplet_tag=tag,
        forwarding_rules=rules,
        healthcheck=digitalocean.LoadBalancerHealthcheckArgs(
            protocol="http",
            port=80,
            path=settings.health_path or HEALTH_PATH,
            check_interval_seconds=CHECK_INTERVAL,
            response_timeout_seconds=CHECK_TIMEOUT,
            healthy_threshold=CHECK_THRESHOLD,
            unhealthy_threshold=CHECK_THRESHOLD,
        ),
        http_idle_timeout_seconds=IDLE_TIMEOUT,
        # nginx reads the visitor's address from X-Forwarded-For, and rejects the PROXY protocol's header as a bad
        # request.
        enable_proxy_protocol=False,
        enable_backend_keepalive=False,
        redirect_http_to_https=certificate is not None,
        tls_cipher_policy="STRONG",
        opts=cloud.child,
        **more,
    )
