"""Domains with their records, and certificates, of the DigitalOcean account in memory.

DigitalOcean proves to Let's Encrypt by itself that a name is the user's, by records in its own DNS.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rehearsal.accounts.base import Clock, CloudError, Store
from rehearsal.accounts.digitalocean_catalogue import Json

NOT_FOUND = CloudError(404, "not_found", "The resource you were accessing could not be found.")


def refused(message: str) -> CloudError:
    """Return the error of a request that the cloud understands and does not carry out."""
    return CloudError(422, "unprocessable_entity", message)


@dataclass(kw_only=True)
class Domain:
    """A zone. `delegated`: the world asks its name servers."""

    name: str
    delegated: bool = True
    records: dict[int, Json] = field(default_factory=dict)

    def shown(self) -> Json:
        """Return the domain as the API shows it."""
        return {"name": self.name, "ttl": 1800, "zone_file": f"$ORIGIN {self.name}.\n"}


class Names:
    """The domains and certificates of an account. With `any_domain`, whatever domain is asked for exists."""

    def __init__(self, clock: Clock, number: Callable[[], int], *, any_domain: bool = False) -> None:
        self.number = number
        self.any_domain = any_domain
        self.domains: Store[Domain] = Store(clock, NOT_FOUND)
        self.certificates: Store[Json] = Store(clock, NOT_FOUND)

    def add_domain(self, name: str, *, delegated: bool = True) -> Domain:
        """Make a domain. The registrar has its name servers, or not."""
        return self.domains.add(name, Domain(name=name, delegated=delegated))

    def domain(self, name: str) -> Domain:
        """Return a domain."""
        if self.any_domain and name not in self.domains:
            self.add_domain(name)
        return self.domains.get(name)

    # ------------------------------------------------------------------------------------------------ records

    def add_record(self, domain: str, body: Json) -> Json:
        """Make a record. Several may have the same name: a resolver gets all of them."""
        number = self.number()
        return self.domain(domain).records.setdefault(number, _record(number, body))

    def record(self, domain: str, number: str) -> Json:
        """Return a record."""
        records = self.domain(domain).records
        if int(number) not in records:
            raise NOT_FOUND
        return records[int(number)]

    def change_record(self, domain: str, number: str, body: Json) -> Json:
        """Change a record."""
        self.record(domain, number).update({key: value for key, value in body.items() if value is not None})
        return self.record(domain, number)

    def delete_record(self, domain: str, number: str) -> None:
        """Delete a record."""
        self.record(domain, number)
        del self.domains.get(domain).records[int(number)]

    def leads_to(self, name: str) -> list[str]:
        """Return where the world finds a name: the values of its address records in delegated domains."""
        return [
            str(record["data"])
            for domain in self.domains.values()
            for record in domain.records.values()
            if domain.delegated and record["type"] == "A" and _full_name(record["name"], domain.name) == name
        ]

    # ------------------------------------------------------------------------------------------------ certificates

    def add_certificate(self, body: Json) -> Json:
        """Make a certificate. One of Let's Encrypt is pending until all its names' domains are delegated."""
        if any(other["name"] == body["name"] for other in self.certificates.values()):
            raise CloudError(409, "conflict", "There is already a certificate with that name.")
        names = list(body.get("dns_names") or ())
        if body["type"] == "lets_encrypt":
            for name in names:
                if self._domain_of(name) is None:
                    raise refused(f"{name} is not a domain that is managed by DigitalOcean's DNS")
        identity = str(uuid.uuid4())
        shown = {
            "id": identity,
            "name": body["name"],
            "type": body["type"],
            "dns_names": names,
            "not_after": "2027-01-01T00:00:00Z",
            "sha1_fingerprint": "",
            "created_at": "2026-01-01T00:00:00Z",
            "state": "verified" if body["type"] == "custom" else "pending",
        }
        parts = {key: body.get(key) or "" for key in ("leaf_certificate", "certificate_chain", "private_key")}
        return self.certificates.add(identity, {**shown, **parts})

    def _domain_of(self, name: str) -> Domain | None:
        if self.any_domain:
            self.domain(".".join(name.split(".")[-2:]))
        found = [one for one in self.domains.values() if name == one.name or name.endswith(f".{one.name}")]
        return max(found, key=lambda one: len(one.name), default=None)

    def certificate(self, identity: str) -> Json:
        """Return a certificate as it is now, with its PEM texts."""
        found = self.certificates.get(identity)
        domains = [self._domain_of(name) for name in found["dns_names"]]
        if found["state"] == "pending" and all(domain and domain.delegated for domain in domains):
            found["state"] = "verified"
        return found

    def shown(self, identity: str) -> Json:
        """Return a certificate as the API shows it: without its key."""
        secret = ("leaf_certificate", "certificate_chain", "private_key")
        return {key: value for key, value in self.certificate(identity).items() if key not in secret}

    def delete_certificate(self, identity: str, used: Iterable[str]) -> None:
        """Delete a certificate that no load balancer has; `used` are those that one has."""
        self.certificates.get(identity)
        if identity in used:
            message = "Make sure the certificate is not in use before deleting it"
            raise CloudError(403, "forbidden", message)
        self.certificates.remove(identity)


def _record(number: int, body: Json) -> Json:
    kept = {key: body.get(key) for key in ("type", "name", "data", "ttl", "priority", "port", "weight", "flags", "tag")}
    return {**kept, "id": number, "ttl": body.get("ttl") or 1800}


def _full_name(name: str, domain: str) -> str:
    return domain if name == "@" else f"{name}.{domain}"
