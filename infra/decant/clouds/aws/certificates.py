"""The certificates of a load balancer on AWS: AWS's own, which it renews by itself, or one of the user's."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pulumi

from decant.clouds.aws.dns import Zone
from decant.clouds.aws.look_ups import LookUps
from decant.clouds.base import CloudComponent, leaf_and_chain, renewal_of, secret, when_used
from decant.clouds.dns import TTL, DnsRecord
from decant.errors import LookUpError
from decant.rollout.certificate import Renewal

if TYPE_CHECKING:
    import pulumi_aws as aws
else:
    aws = when_used("pulumi_aws")

# The provider would wait for 75 minutes. AWS issues some minutes after it has seen the record.
ISSUE_TIMEOUT = "15m"
# One that is no longer valid was issued, too: a balancer keeps it until the user has seen to it. The look-up cannot mix
# them, and its filter by tags does not go together with the one by types.
ISSUED = ("ISSUED", "EXPIRED")


# AWS renews 45 days before the end, less than a third of the 198 days that its certificates are valid. It tries again
# for some days. https://docs.aws.amazon.com/acm/latest/userguide/managed-renewal.html
RENEWED_DAYS_BEFORE = 40
NOT_RENEWED = (
    "AWS renews it by itself as long as the record of the certificate is in the DNS. The record's name and the reason:"
    " aws acm describe-certificate --certificate-arn ARN --query 'Certificate.[DomainValidationOptions,RenewalSummary]'"
)


class IssuedCertificates(LookUps):
    """The certificates that AWS has issued in the account."""

    def has(self, name: str) -> bool:
        """Whether there is one for a name. Raises pulumi.RunError where AWS does not say."""
        return any(self._has(name, status) for status in ISSUED)

    def _has(self, name: str, status: str) -> bool:
        try:
            self.ask_now("acm/getCertificate", domain=name, statuses=[status], types=["AMAZON_ISSUED"], mostRecent=True)
        except LookUpError as error:
            if "no ACM Certificate" not in str(error):
                raise self._unanswered("decant:domain", name, error) from None
            return False
        return True


class Certificates:
    """The certificates of the site's names: one for each name, so that another name touches no certificate in use.

    AWS issues a certificate when it finds a record of its choice below the name. In the stack's own zone, the program
    makes that record and waits. Elsewhere the user sets it: one `up` ends with the record, and a later one finds the
    certificate issued. A name without a certificate is still redirected over plain HTTP.
    """

    def __init__(self, cloud: CloudComponent, zone: Zone | None) -> None:
        self.cloud = cloud
        self.zone = zone
        self.main: pulumi.Output[str] | None = None
        """The certificate for the site's own name; None as long as there is none."""
        self.others: dict[str, pulumi.Output[str]] = {}
        """Those for the names that lead to it, by name."""
        self.missing_records: list[pulumi.Output[DnsRecord]] = []
        """What the user sets where a name is registered."""
        site = cloud.settings.site
        if site.certificate:
            self.main = self._own(site.certificate, site.certificate_key or "")
            return
        issued = {name: arn for name in site.names if (arn := self._issued(name)) is not None}
        self.main = issued.pop(site.names[0], None)
        self.others = issued if self.main else {}

    def renewal(self) -> Renewal:
        """Who renews those in use."""
        site = self.cloud.settings.site
        own = site.certificate is not None
        names = list(site.names) if own else [site.names[0], *self.others]
        return renewal_of(names, own=own, days_left=RENEWED_DAYS_BEFORE, help=NOT_RENEWED)

    def _own(self, pem: str, key: str) -> pulumi.Output[str]:
        leaf, chain = leaf_and_chain(pem)
        made = aws.acm.Certificate(
            "certificate",
            certificate_body=leaf,
            certificate_chain=chain,
            private_key=secret(key),
            opts=self.cloud.child,
        )
        arn: pulumi.Output[str] = made.arn
        return arn

    def _issued(self, name: str) -> pulumi.Output[str] | None:
        """The certificate for a name once it can be used, else None."""
        certificate = aws.acm.Certificate(
            f"certificate-{name}", domain_name=name, validation_method="DNS", opts=self.cloud.child
        )
        # The options are a set and have no order.
        record: pulumi.Output[DnsRecord] = certificate.domain_validation_options.apply(
            functools.partial(_validation_record, name)
        )
        if self.zone and self.cloud.settings.site.in_zone(name):
            made = self._record(self.zone, name, record)
            return self._validated(name, certificate, [made.fqdn], self.zone.delegation.required)
        self.missing_records.append(record)
        if not IssuedCertificates(self.cloud.settings, self.cloud).has(name):
            return None
        # The one that AWS has issued may be another stack's. Then the record is there, and this one follows.
        return self._validated(name, certificate)

    def _record(self, zone: Zone, name: str, record: pulumi.Output[DnsRecord]) -> aws.route53.Record:
        """The record by which AWS sees that the name is the user's. It stays: each renewal looks for it."""
        return aws.route53.Record(
            f"validation-{name}",
            zone_id=zone.id,
            name=record.apply(lambda known: known["name"]),
            type=record.apply(lambda known: known["type"]),
            records=[record.apply(lambda known: known["value"])],
            ttl=TTL,
            # All certificates for a name in one account have the same record: another one may have made it.
            allow_overwrite=True,
            opts=self.cloud.child,
        )

    def _validated(
        self,
        name: str,
        certificate: aws.acm.Certificate,
        fqdns: list[pulumi.Input[str]] | None = None,
        hooks: pulumi.ResourceHookBinding | None = None,
    ) -> pulumi.Output[str]:
        """The certificate, known once AWS has issued it."""
        validation = aws.acm.CertificateValidation(
            f"certificate-{name}",
            certificate_arn=certificate.arn,
            validation_record_fqdns=fqdns,
            opts=pulumi.ResourceOptions(
                parent=self.cloud, custom_timeouts=pulumi.CustomTimeouts(create=ISSUE_TIMEOUT), hooks=hooks
            ),
        )
        arn: pulumi.Output[str] = validation.certificate_arn
        return arn


def _validation_record(name: str, options: list[Any]) -> DnsRecord:
    option = next(one for one in options if one.domain_name == name)
    return {
        "name": option.resource_record_name.rstrip("."),
        "type": option.resource_record_type,
        "value": option.resource_record_value.rstrip("."),
    }
