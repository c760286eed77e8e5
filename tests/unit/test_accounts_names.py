"""Zones, records and certificates of the clouds' accounts in memory."""

from __future__ import annotations

import pytest

from rehearsal.accounts.aws import Account
from rehearsal.accounts.base import CloudError
from rehearsal.accounts.digitalocean import DigitalOcean

# ------------------------------------------------------------------------------------------------ AWS


@pytest.fixture
def aws() -> Account:
    account = Account()
    account.dns.any_zone = False
    return account


def test_aws_issues_a_certificate_once_its_record_is_where_the_world_looks(aws: Account) -> None:
    certificate = aws.acm.request("example.com")
    name, kind, value = certificate.record
    zone = aws.dns.create_zone("example.com", delegated=False)
    aws.dns.create_record(zone.id, (f"{name}.", kind), (value,))
    assert aws.acm.describe(certificate.arn).status == "PENDING_VALIDATION"
    assert aws.acm.find("example.com", "ISSUED") == []
    zone.delegated = True
    assert aws.acm.describe(certificate.arn).status == "ISSUED"
    assert aws.acm.find("example.com", "ISSUED") == [certificate]
    zone.records.clear()
    assert aws.acm.describe(certificate.arn).status == "ISSUED", "it needs the record again when it is renewed"


def test_another_value_is_not_the_record_that_aws_looks_for(aws: Account) -> None:
    certificate = aws.acm.request("example.com")
    name, kind, value = certificate.record
    aws.dns.elsewhere.add((name, kind, "_other.acm-validations.aws"))
    assert aws.acm.describe(certificate.arn).status == "PENDING_VALIDATION"
    aws.dns.elsewhere.add((name, kind, value))
    assert aws.acm.describe(certificate.arn).status == "ISSUED"


def test_all_certificates_for_a_name_have_one_record(aws: Account) -> None:
    assert aws.acm.request("example.com").record == aws.acm.request("example.com").record
    assert aws.acm.request("www.example.com").record != aws.acm.request("example.com").record


def test_a_listener_takes_issued_certificates_alone_and_holds_them(aws: Account) -> None:
    certificate = aws.acm.request("example.com")
    with pytest.raises(CloudError, match="must have a fully-qualified domain name") as caught:
        aws.acm.use("listener", [certificate.arn])
    assert caught.value.code == "UnsupportedCertificate"
    aws.dns.elsewhere.add(certificate.record)
    aws.acm.use("listener", [certificate.arn])
    with pytest.raises(CloudError, match="is in use") as caught:
        aws.acm.delete(certificate.arn)
    assert caught.value.code == "ResourceInUseException"
    aws.acm.release("listener")
    aws.acm.delete(certificate.arn)
    assert aws.inventory() == {}


def test_a_record_of_route_53_that_exists_is_refused(aws: Account) -> None:
    zone = aws.dns.create_zone("example.com")
    aws.dns.create_record(zone.id, ("example.com", "A"), ("198.51.100.1",))
    with pytest.raises(CloudError) as caught:
        aws.dns.create_record(zone.id, ("example.com.", "A"), ("198.51.100.2",))
    assert caught.value.message == (
        "[Tried to create resource record set [name='example.com.', type='A'] but it already exists]"
    )
    aws.dns.create_record(zone.id, ("example.com", "A"), ("198.51.100.2",), overwrite=True)
    assert zone.records == {("example.com", "A"): ("198.51.100.2",)}
    with pytest.raises(CloudError, match=r"RRSet with DNS name myexample\.com\. is not permitted in zone"):
        aws.dns.create_record(zone.id, ("myexample.com", "A"), ("198.51.100.2",))
    assert aws.inventory() == {"records": ["example.com A"]}


def test_only_a_rehearsals_account_has_every_zone(aws: Account) -> None:
    assert aws.dns.find_zone("example.com") is None
    found = Account().dns.find_zone("example.com")
    assert found
    assert (found.name, len(found.name_servers)) == ("example.com", 4)


# ------------------------------------------------------------------------------------------------ DigitalOcean


@pytest.fixture
def digitalocean() -> DigitalOcean:
    return DigitalOcean()


LETS_ENCRYPT = {"type": "lets_encrypt", "dns_names": ["example.com", "www.example.com"]}


def test_digitalocean_has_certificates_for_its_own_domains_alone(digitalocean: DigitalOcean) -> None:
    names = digitalocean.names
    with pytest.raises(CloudError, match=r"example\.com is not a domain that is managed"):
        names.add_certificate({"name": "a", **LETS_ENCRYPT})
    domain = names.add_domain("example.com", delegated=False)
    made = names.add_certificate({"name": "a", **LETS_ENCRYPT})
    assert names.certificate(made["id"])["state"] == "pending"
    domain.delegated = True
    assert names.certificate(made["id"])["state"] == "verified"
    with pytest.raises(CloudError, match="already a certificate with that name"):
        names.add_certificate({"name": "a", **LETS_ENCRYPT})


def test_a_certificates_key_is_never_shown(digitalocean: DigitalOcean) -> None:
    made = digitalocean.names.add_certificate({"name": "a", "type": "custom", "private_key": "secret"})
    assert "secret" not in str(digitalocean.names.shown(made["id"]))


def test_a_balancer_holds_its_certificate(digitalocean: DigitalOcean) -> None:
    made = digitalocean.names.add_certificate({"name": "a", "type": "custom"})
    https = {"entry_protocol": "https", "entry_port": 443, "target_protocol": "http", "target_port": 80}
    rule = {**https, "certificate_id": made["id"]}
    body = {"name": "b", "region": "fra1", "forwarding_rules": [rule], "redirect_http_to_https": True}
    with pytest.raises(CloudError, match="certificate missing was not found"):
        digitalocean.add_balancer({**body, "forwarding_rules": [{**rule, "certificate_id": "missing"}]})
    with pytest.raises(CloudError, match="requires a forwarding rule for https"):
        digitalocean.add_balancer({**body, "forwarding_rules": []})
    balancer = digitalocean.add_balancer(body)
    with pytest.raises(CloudError, match="not in use before deleting it"):
        digitalocean.names.delete_certificate(made["id"], digitalocean.certificates_in_use())
    digitalocean.change_balancer(balancer.id, {**body, "forwarding_rules": [], "redirect_http_to_https": False})
    digitalocean.names.delete_certificate(made["id"], digitalocean.certificates_in_use())


def test_records_are_numbered_and_lead_to_addresses(digitalocean: DigitalOcean) -> None:
    names = digitalocean.names
    domain = names.add_domain("example.com")
    apex = names.add_record("example.com", {"type": "A", "name": "@", "data": "198.51.100.1"})
    names.add_record("example.com", {"type": "A", "name": "www", "data": "198.51.100.2", "ttl": 300})
    assert names.leads_to("example.com") == ["198.51.100.1"]
    assert names.leads_to("www.example.com") == ["198.51.100.2"]
    names.change_record("example.com", str(apex["id"]), {"data": "198.51.100.3"})
    assert names.leads_to("example.com") == ["198.51.100.3"]
    domain.delegated = False
    assert names.leads_to("example.com") == []
    names.delete_record("example.com", str(apex["id"]))
    with pytest.raises(CloudError, match="could not be found"):
        names.record("example.com", str(apex["id"]))
    with pytest.raises(CloudError, match="could not be found"):
        names.add_record("example.org", {"type": "A", "name": "@", "data": "198.51.100.1"})
