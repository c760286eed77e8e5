"""The Application Load Balancer of an AWS stack, with its target group and listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from decant.clouds.aws.certificates import Certificates
from decant.clouds.aws.network import EVERYWHERE, ZONES, Network
from decant.clouds.base import (
    CHECK_INTERVAL,
    CHECK_THRESHOLD,
    CHECK_TIMEOUT,
    Balancer,
    CloudComponent,
    when_used,
)
from decant.host.render import HEALTH_PATH

if TYPE_CHECKING:
    import pulumi_aws as aws
else:
    aws = when_used("pulumi_aws")

# Subnets that hold only the load balancer, so nginx may trust X-Forwarded-For from any address in them. AWS requires at
# least a /27 with eight free addresses; a /26 leaves enough addresses for the balancer to scale:
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/application-load-balancers.html
SUBNETS = ("10.90.128.0/26", "10.90.128.64/26")
# Seconds that AWS waits for requests in flight after it takes a target out. A machine drains before that.
DEREGISTRATION_DELAY = 30
# Seconds. The most that AWS allows, and more than decant:requestTimeout may be: a silent connection may be a request
# that takes long, or a WebSocket. https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html
IDLE_TIMEOUT = 4000
# TLS 1.2 and 1.3 with the hybrid post-quantum key exchange. By the API, the default still allows TLS 1.0.
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09"


class LoadBalancer:
    """The balancer, its group, its rules and its listeners. Its resources belong to `cloud`."""

    def __init__(self, cloud: CloudComponent, network: Network, certificates: Certificates | None) -> None:
        """`certificates` are those of the site's names; None where visitors come over plain HTTP."""
        self.cloud = cloud
        self.network = network
        self.certificates = certificates if certificates and certificates.main else None
        self.group = network.group("balancer", "HTTP from everywhere, to the machines alone")
        self.rules = [
            network.allow_in("balancer-http", self.group, 80, EVERYWHERE),
            network.allow_path_mtu("balancer", self.group),
            network.allow_out("balancer-to-machines", self.group, network.machines),
            network.allow_in("http-from-balancer", network.machines, 80, self.group),
        ]
        if self.certificates:
            self.rules.append(network.allow_in("balancer-https", self.group, 443, EVERYWHERE))
        self.resource = self._load_balancer()
        self.targets = self._target_group()
        self.https = self._https(self.certificates) if self.certificates else []
        self.listener = aws.lb.Listener(
            "http",
            load_balancer_arn=self.resource.arn,
            port=80,
            protocol="HTTP",
            default_actions=[self._redirect() if self.https else self._forward()],
            # A redirect must lead somewhere.
            opts=pulumi.ResourceOptions(parent=cloud, depends_on=self.https),
        )

    def described(self) -> Balancer:
        """The balancer as the rest of the program knows it."""
        return Balancer(
            networks=list(SUBNETS),
            trusts_forwarded_proto=bool(self.https),
            managed=True,
            idle_timeout=IDLE_TIMEOUT,
            prerequisites=(self.listener, *self.https, *self.rules),
            renewal=self.certificates.renewal() if self.certificates else None,
        )

    def _forward(self) -> aws.lb.ListenerDefaultActionArgs:
        return aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=self.targets.arn)

    def _redirect(self) -> aws.lb.ListenerDefaultActionArgs:
        """From plain HTTP to the site's own name, also for other names, so that none of these needs a certificate."""
        return aws.lb.ListenerDefaultActionArgs(
            type="redirect",
            redirect=aws.lb.ListenerDefaultActionRedirectArgs(
                protocol="HTTPS",
                port="443",
                host=self.cloud.settings.site.domain,
                path="/#{path}",
                query="#{query}",
                status_code="HTTP_301",
            ),
        )

    def _https(self, certificates: Certificates) -> list[pulumi.Resource]:
        """The listener that ends HTTPS, with the certificate of each name."""
        listener = aws.lb.Listener(
            "https",
            load_balancer_arn=self.resource.arn,
            port=443,
            protocol="HTTPS",
            ssl_policy=TLS_POLICY,
            certificate_arn=certificates.main,
            default_actions=[self._forward()],
            opts=self.cloud.child,
        )
        others = [
            aws.lb.ListenerCertificate(
                f"certificate-{name}", listener_arn=listener.arn, certificate_arn=arn, opts=self.cloud.child
            )
            for name, arn in certificates.others.items()
        ]
        return [listener, *others]

    def attach(self, name: str, instance: aws.ec2.Instance) -> aws.lb.TargetGroupAttachment:
        """Make an instance a target. It is in rotation as long as its health check succeeds."""
        return aws.lb.TargetGroupAttachment(
            name, target_group_arn=self.targets.arn, target_id=instance.id, port=80, opts=self.cloud.child
        )

    def _load_balancer(self) -> aws.lb.LoadBalancer:
        """The balancer itself. Attributes that matter are written out also where they equal today's defaults:

        https://docs.aws.amazon.com/elasticloadbalancing/latest/application/application-load-balancers.html
        """
        # In the machines' zones: a balancer sends no requests to a machine in a zone that it is not in.
        zones = [place.subnet.availability_zone for place in self.network.machine_subnets]
        subnets = [self.network.subnet(f"balancer-{n + 1}", zones[n], SUBNETS[n]) for n in range(ZONES)]
        return aws.lb.LoadBalancer(
            "balancer",
            load_balancer_type="application",
            internal=False,
            ip_address_type="ipv4",
            subnets=[subnet.subnet.id for subnet in subnets],
            security_groups=[self.group.id],
            idle_timeout=IDLE_TIMEOUT,
            drop_invalid_header_fields=True,
            desync_mitigation_mode="defensive",
            xff_header_processing_mode="append",
            enable_xff_client_port=False,
            preserve_host_header=True,
            enable_http2=True,
            enable_deletion_protection=False,
            # AWS creates no public balancer without an internet gateway, and deletes no gateway that one uses.
            opts=pulumi.ResourceOptions(parent=self.cloud, depends_on=[subnet.route for subnet in subnets]),
        )

    def _target_group(self) -> aws.lb.TargetGroup:
        """The machines, and how they are checked.

        Neither the target group nor the balancer has a fixed name. Pulumi adds a random suffix, so that a replacement
        can exist beside the old resource.
        """
        return aws.lb.TargetGroup(
            "targets",
            vpc_id=self.network.vpc.id,
            target_type="instance",
            port=80,
            protocol="HTTP",
            protocol_version="HTTP1",
            deregistration_delay=DEREGISTRATION_DELAY,
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                enabled=True,
                protocol="HTTP",
                port="traffic-port",
                path=self.cloud.settings.health_path or HEALTH_PATH,
                matcher="200",
                interval=CHECK_INTERVAL,
                timeout=CHECK_TIMEOUT,
                healthy_threshold=CHECK_THRESHOLD,
                unhealthy_threshold=CHECK_THRESHOLD,
            ),
            opts=self.cloud.child,
        )
