"""Doubles of what the site's names need on AWS: records in Route 53, and certificates."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rehearsal.accounts.aws import Account
from rehearsal.accounts.aws_names import ISSUED, Certificate
from rehearsal.backend import Backend
from rehearsal.doubles.aws.provider import ask, refused
from rehearsal.errors import UnknownResourceError

Outputs = tuple[str, dict[str, Any]]


class Names:
    """Each method is the double of one type: it takes a resource's name and inputs."""

    def __init__(self, backend: Backend, numbers: Callable[[], str], account: Account) -> None:
        self.backend = backend
        self.account = account
        self.numbers = numbers
        self.lock = threading.Lock()
        self.issued: dict[str, str] = {}
        """The PEM of each certificate that was shown, by ARN."""

    def certificate(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Request a certificate for one name, or import one."""
        if "certificateBody" in inputs:
            pem = "".join(inputs.get(part) or "" for part in ("certificateBody", "certificateChain", "privateKey"))
            made = self.account.acm.import_certificate(name, pem)
            return made.arn, {"arn": made.arn, "status": ISSUED, "domainValidationOptions": []}
        if inputs.get("validationMethod") != "DNS" or inputs.get("subjectAlternativeNames"):
            raise UnknownResourceError(f"{name}: a certificate's double has one name and is validated by DNS")
        made = self.account.acm.request(inputs["domainName"])
        return made.arn, {"arn": made.arn, "status": made.status, "domainValidationOptions": [_option(made)]}

    def validation(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Wait until a certificate is issued. Here it is at once or never."""
        arn = inputs["certificateArn"]
        with self.account.lock:
            status = self.account.acm.describe(arn).status
        if status != ISSUED:
            raise refused(
                f"waiting for ACM Certificate ({arn}) to be issued: timeout while waiting for state to become 'ISSUED'"
                f" (last state: '{status}', timeout: 15m0s)"
            )
        return f"2026-01-01 00:00:{int(self.numbers()) % 60:02} +0000 UTC", {}

    def record(self, name: str, inputs: dict[str, Any]) -> Outputs:
        """Make a record."""
        zone, kind = inputs["zoneId"], inputs["type"]
        wanted = inputs["name"]
        values = tuple(inputs.get("records") or [alias["name"] for alias in inputs.get("aliases", ())])
        if not values or ("ttl" in inputs) == ("aliases" in inputs):
            raise UnknownResourceError(f"{name}: a record has values and a TTL, or an alias and none")
        with self.account.lock:
            ask(
                "creating Route53 Record",
                "Route 53: ChangeResourceRecordSets",
                lambda: self.account.dns.create_record(
                    zone, (wanted, kind), values, overwrite=bool(inputs.get("allowOverwrite"))
                ),
            )
        return f"{zone}_{wanted}_{kind}", {"fqdn": wanted}

    def pem(self, arn: str) -> str:
        """Return certificate, chain and key of one that is issued, as a load balancer has them."""
        with self.lock:
            if arn not in self.issued:
                found = self.account.acm.certificates[arn]
                made = self.backend.issuer.issue(found.name)
                self.issued[arn] = found.imported or made.fullchain + made.key
            return self.issued[arn]

    def changed_import(self, arn: str, inputs: dict[str, Any]) -> None:
        """Take a newer certificate of the user's in place of the one with this ARN."""
        parts = ("certificateBody", "certificateChain", "privateKey")
        with self.lock:
            self.account.acm.certificates[arn].imported = "".join(inputs.get(part) or "" for part in parts)
            self.issued.pop(arn, None)


def _option(certificate: Certificate) -> dict[str, str]:
    name, kind, value = certificate.record
    return {
        "domainName": certificate.name,
        "resourceRecordName": f"{name}.",
        "resourceRecordType": kind,
        "resourceRecordValue": f"{value}.",
    }
