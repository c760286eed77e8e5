"""Route 53 and Certificate Manager of the AWS account in memory: zones with their records, and certificates.

AWS issues a certificate once it finds a record of its choice where the world looks for it: in a delegated zone of the
account, or at another DNS host, whose records are in `elsewhere`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from rehearsal.accounts.aws_catalogue import ACCOUNT, REGION
from rehearsal.accounts.base import Clock, CloudError, Store

MOST_CERTIFICATES_OF_A_LISTENER = 26  # its default one besides
PENDING, ISSUED = "PENDING_VALIDATION", "ISSUED"
NO_ZONE = CloudError(404, "NoSuchHostedZone", "No hosted zone found with ID: {}")
NO_CERTIFICATE = CloudError(400, "ResourceNotFoundException", "Could not find certificate {}.")

RecordKey = tuple[str, str]
"""Name, without a dot at its end, and type."""


@dataclass(kw_only=True)
class HostedZone:
    """A public zone. `delegated`: the world asks its name servers."""

    id: str
    name: str
    delegated: bool = True
    records: dict[RecordKey, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name_servers(self) -> list[str]:
        """The four that AWS has given it."""
        tops = ("com", "net", "org", "co.uk")
        return [f"ns-{100 + number}.awsdns-{number:02}.{top}" for number, top in enumerate(tops)]


class Route53:
    """The zones of an account. With `any_zone`, whatever zone is asked for exists."""

    def __init__(self, clock: Clock, new_id: Callable[[str], str], *, any_zone: bool = True) -> None:
        self.new_id = new_id
        self.any_zone = any_zone
        self.zones: Store[HostedZone] = Store(clock, NO_ZONE)
        self.elsewhere: set[tuple[str, str, str]] = set()
        """Records at other DNS hosts: name, type, value."""

    def create_zone(self, name: str, *, delegated: bool = True) -> HostedZone:
        """Make a zone. The registrar has its name servers, or not."""
        identity = self.new_id("Z").replace("-", "").upper()
        return self.zones.add(identity, HostedZone(id=identity, name=name, delegated=delegated))

    def find_zone(self, name: str) -> HostedZone | None:
        """Return the zone with a name, or None."""
        found = next((zone for zone in self.zones.values() if zone.name == name), None)
        return self.create_zone(name) if found is None and self.any_zone else found

    def create_record(self, zone: str, key: RecordKey, values: tuple[str, ...], *, overwrite: bool = False) -> None:
        """Make a record. One that exists is an error, unless the caller means to replace it."""
        found = self.zones.get(zone)
        name, kind = key[0].rstrip("."), key[1]
        if name != found.name and not name.endswith(f".{found.name}"):
            reason = f"RRSet with DNS name {name}. is not permitted in zone {found.name}."
            raise CloudError(400, "InvalidChangeBatch", f"[{reason}]")
        if (name, kind) in found.records and not overwrite:
            reason = f"Tried to create resource record set [name='{name}.', type='{kind}'] but it already exists"
            raise CloudError(400, "InvalidChangeBatch", f"[{reason}]")
        found.records[name, kind] = values

    def delete_record(self, zone: str, key: RecordKey) -> None:
        """Delete a record."""
        self.zones.get(zone).records.pop((key[0].rstrip("."), key[1]), None)

    def is_public(self, name: str, kind: str, value: str) -> bool:
        """Whether the world finds this record."""
        if (name, kind, value) in self.elsewhere:
            return True
        return any(zone.delegated and value in zone.records.get((name, kind), ()) for zone in self.zones.values())


@dataclass(kw_only=True)
class Certificate:
    """A certificate, or the request for one. `imported` is the PEM text of one that AWS has not issued."""

    arn: str
    name: str
    imported: str = ""
    status: str = PENDING

    @property
    def record(self) -> tuple[str, str, str]:
        """Name, type and value of the record that proves whose the name is: for one account always the same."""
        digest = hashlib.md5(self.name.encode()).hexdigest()  # noqa: S324 - the form of AWS's names
        value = hashlib.md5(digest.encode()).hexdigest()  # noqa: S324
        return f"_{digest}.{self.name}", "CNAME", f"_{value}.acm-validations.aws"


class Acm:
    """The certificates of an account. Those in use belong to listeners, by the listener's ARN."""

    def __init__(self, clock: Clock, new_id: Callable[[str], str], dns: Route53) -> None:
        self.new_id = new_id
        self.dns = dns
        self.certificates: Store[Certificate] = Store(clock, NO_CERTIFICATE)
        self.in_use: dict[str, list[str]] = {}

    def request(self, name: str) -> Certificate:
        """Ask for a certificate. It is issued when its record is found."""
        return self._add(name)

    def import_certificate(self, name: str, pem: str) -> Certificate:
        """Take a certificate of the user's."""
        return self._add(name, imported=pem, status=ISSUED)

    def _add(self, name: str, imported: str = "", status: str = PENDING) -> Certificate:
        arn = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/{self.new_id('c')}"
        return self.certificates.add(arn, Certificate(arn=arn, name=name, imported=imported, status=status))

    def describe(self, arn: str) -> Certificate:
        """Return a certificate as it is now."""
        found = self.certificates.get(arn)
        name, kind, value = found.record
        if found.status == PENDING and self.dns.is_public(name, kind, value):
            found.status = ISSUED
        return found

    def find(self, name: str, status: str) -> list[Certificate]:
        """Return the certificates that AWS has issued, or shall issue, for a name."""
        found = [self.describe(arn) for arn in self.certificates]
        return [one for one in found if (one.name, one.status) == (name, status) and not one.imported]

    def delete(self, arn: str) -> None:
        """Delete a certificate that no listener uses."""
        found = self.certificates.get(arn)
        if any(arn in arns for arns in self.in_use.values()):
            raise CloudError(400, "ResourceInUseException", f"Certificate {found.arn} is in use.")
        self.certificates.remove(arn)

    def use(self, listener: str, arns: list[str]) -> None:
        """Say which certificates a listener has: its default one first. Only issued ones can be used."""
        for arn in arns:
            if arn not in self.certificates or self.describe(arn).status == PENDING:
                raise CloudError(
                    400,
                    "UnsupportedCertificate",
                    f"The certificate '{arn}' must have a fully-qualified domain name, a supported signature, and a"
                    " supported key size.",
                )
        if len(arns) > MOST_CERTIFICATES_OF_A_LISTENER:
            raise CloudError(400, "TooManyCertificates", "The maximum number of certificates has been reached")
        self.in_use[listener] = arns

    def release(self, listener: str) -> None:
        """Say that a listener is gone."""
        self.in_use.pop(listener, None)
