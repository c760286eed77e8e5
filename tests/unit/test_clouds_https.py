"""HTTPS on the load balancers of clouds, and the DNS records that lead the site's names there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from rehearsal.accounts.aws import Account
from rehearsal.accounts.digitalocean import DigitalOcean
from rehearsal.backend import SAME_HOST
from rehearsal.doubles import is_wrapped
from tests.support import in_memory
from tests.support.certificates import Authority
from tests.support.in_memory import DROPLET, INSTANCE, InMemoryBackend, Registered, Run, project, provisioned, reveal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Start = Callable[..., Run]
NAMES = ("example.com", "www.example.com")
ZONE: dict[str, Any] = {"domain": "example.com", "dnsZone": "example.com"}
OWN = Authority().issue(*NAMES)
STACKS = {"aws": INSTANCE, "digitalocean": DROPLET}


@pytest.fixture
def start(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run the program once: `start("aws", machines=2)`."""
    monkeypatch.delenv("AWS_REGION", raising=False)
    count = iter(range(100))

    def run(cloud: str, *, preview: bool = False, world: InMemoryBackend | None = None, **settings: Any) -> Run:
        folder = project(tmp_path / str(next(count)))
        config = {**STACKS[cloud], **settings}
        return in_memory.run_program(folder, config, monkeypatch, preview=preview, world=world)

    return run


def aws_of(run: Run) -> Account:
    account = run.world.accounts["aws"]
    assert isinstance(account, Account)
    return account


def of(run: Run, kind: str) -> dict[str, Registered]:
    return {one.name: one for one in run.of_type(f":{kind}")}


def issued(run: Run, name: str) -> str:
    return run.ids[run.one(f"Certificate certificate-{name}").urn]


def before(run: Run, one: Registered) -> set[str]:
    """Everything that must exist before a resource, over all steps."""
    found: set[str] = set()
    ahead = [one.urn]
    while ahead:
        for urn in run.resources[ahead.pop()].dependencies:
            if urn not in found:
                found.add(urn)
                ahead.append(urn)
    return {run.resources[urn].short for urn in found}


def names_of(pem: str) -> list[str]:
    from cryptography import x509

    extension = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return extension.value.get_values_for_type(x509.DNSName)


# ------------------------------------------------------------------------------------------------ both clouds


@pytest.fixture(params=["aws", "digitalocean"])
def cloud(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_with_a_zone_one_up_ends_with_https(start: Start, cloud: str) -> None:
    run = start(cloud, machines=2, **ZONE)
    assert run.exports["url"].value == "https://example.com"
    assert "recordsToSet" not in run.exports
    plan = json.loads(run.text("Command rollout", "stdin"))
    assert (plan["url"], plan["domain"]) == ("https://example.com", "example.com")
    for machine in ("web-1", "web-2"):
        conf, settings = provisioned(run, machine)
        assert (settings["name"], settings["scheme"], settings["https"]) == ("example.com", "https", None)
        assert "return 308 https://example.com$request_uri;" in conf
        assert "server_name www.example.com;" in conf
        assert '"1:https" https;' in conf, "the app sees how visitors came"
    waits = before(run, run.one("Command rollout"))
    kind = {"aws": "Record", "digitalocean": "DnsRecord"}[cloud]
    assert {f"{kind} record-{name}" for name in NAMES} <= waits


def test_without_a_domain_nothing_is_made_for_names(start: Start, cloud: str) -> None:
    for machines in (1, 2):
        run = start(cloud, machines=machines)
        kinds = {one.type.rpartition(":")[2] for one in run.resources.values()}
        assert not kinds & {"Certificate", "CertificateValidation", "Record", "DnsRecord", "ListenerCertificate"}
        assert run.exports["url"].value.startswith("http://")
        assert run.world.entrances == {}


def test_https_off_makes_records_and_no_certificate(start: Start, cloud: str) -> None:
    run = start(cloud, machines=2, https="off", **ZONE)
    assert not run.of_type(":Certificate")
    assert run.exports["url"].value == "http://example.com"
    kind = {"aws": "Record", "digitalocean": "DnsRecord"}[cloud]
    assert set(of(run, kind)) == {f"record-{name}" for name in NAMES}
    assert run.world.entrances == {}


def test_a_certificate_of_the_users_own_needs_no_zone(start: Start, cloud: str) -> None:
    run = start(cloud, machines=2, domain="example.com", certificate=OWN.fullchain, certificateKey=OWN.key)
    given = run.one("Certificate certificate").inputs
    leaf, chain = OWN.fullchain.split("-----END CERTIFICATE-----\n")[:2]
    parts = {"aws": "certificateBody", "digitalocean": "leafCertificate"}
    assert given[parts[cloud]] == leaf + "-----END CERTIFICATE-----\n"
    assert given["certificateChain"] == chain + "-----END CERTIFICATE-----\n"
    assert is_wrapped(given["privateKey"])
    assert reveal(given["privateKey"]).strip() == OWN.key.strip()
    assert run.exports["url"].value == "https://example.com"
    (entrances,) = run.world.entrances.values()
    assert names_of(entrances[-1].certificates[0]) == list(NAMES)
    (address,) = run.world.balancers
    shown = {"aws": ("CNAME", "203.0.113.77"), "digitalocean": ("A", address)}[cloud]
    assert run.exports["recordsToSet"].value == [
        {"name": name, "type": shown[0], "value": shown[1]} for name in NAMES
    ]  # fmt: skip


def test_an_own_certificates_key_is_never_in_clear(start: Start, cloud: str) -> None:
    run = start(cloud, machines=2, domain="example.com", certificate=OWN.fullchain, certificateKey=OWN.key)
    line = OWN.key.splitlines()[1]
    for one in run.resources.values():
        assert line not in "".join(in_memory.in_clear(one.inputs)), one.short


def test_a_single_machine_gets_records_and_port_443(start: Start, cloud: str) -> None:
    run = start(cloud, **ZONE)
    assert not run.of_type(":Certificate")
    assert run.exports["url"].value == "http://example.com", "its machine begins with http"
    kind = {"aws": "Record", "digitalocean": "DnsRecord"}[cloud]
    records = of(run, kind)
    assert set(records) == {f"record-{name}" for name in NAMES}
    expected: dict[str, Any] = {
        "aws": {"name": "www.example.com", "type": "A", "ttl": 300, "records": ["203.0.113.77"]},
        "digitalocean": {
            "name": "www", "type": "A", "ttl": 300, "value": "203.0.113.77", "domain": "example.com",
        },
    }[cloud]  # fmt: skip
    given = dict(records["record-www.example.com"].inputs)
    if cloud == "aws":
        assert given.pop("zoneId") == aws_of(run).dns.find_zone("example.com").id  # type: ignore[union-attr]
    assert given == expected
    assert {f"{kind} record-{name}" for name in NAMES} <= before(run, run.one("Command rollout"))
    assert "recordsToSet" not in run.exports, "the machine itself says what is missing"


def test_names_outside_of_the_zone_get_no_record(start: Start, cloud: str) -> None:
    run = start(cloud, redirects=["old.example.org"], **ZONE)
    kind = {"aws": "Record", "digitalocean": "DnsRecord"}[cloud]
    assert set(of(run, kind)) == {"record-example.com"}


def test_a_zone_that_the_account_lacks_ends_the_run_with_the_remedy(start: Start, cloud: str) -> None:
    world = InMemoryBackend()
    if cloud == "aws":
        world.accounts["aws"] = account = Account()
        account.dns.any_zone = False
    else:
        world.accounts["digitalocean"] = DigitalOcean()
    with pytest.raises(pulumi.RunError, match=r"decant:dnsZone is example\.com: the account has no") as caught:
        start(cloud, world=world, preview=True, **ZONE)
    command = {
        "aws": "aws route53 create-hosted-zone --name example.com",
        "digitalocean": "doctl compute domain create example.com",
    }[cloud]
    assert command in str(caught.value)
    assert "pulumi config rm decant:dnsZone --stack paper" in str(caught.value)


def test_the_delegation_is_checked_before_anything_waits(start: Start, cloud: str) -> None:
    """Where the certificate exists, nothing is asked. A record waits for nobody, so that one is only warned of."""
    run = start(cloud, machines=2, **ZONE)
    hooks = {one.short: one.before_create for one in run.resources.values() if one.before_create}
    waits, record = {
        "aws": ({f"CertificateValidation certificate-{name}" for name in NAMES}, "Record"),
        "digitalocean": ({"Certificate certificate"}, "DnsRecord"),
    }[cloud]
    expected = dict.fromkeys(waits, ("delegation of example.com",))
    warning = "delegation of example.com, for records"
    free = {name: (f"{name} leads nowhere",) if cloud == "digitalocean" else () for name in NAMES}
    expected |= {f"{record} record-{name}": (warning, *free[name]) for name in NAMES}
    assert hooks == expected
    for short in waits:
        assert run.one(short).timeouts == {"create": "15m"}


# ------------------------------------------------------------------------------------------------ AWS


def test_on_aws_each_name_has_a_certificate_and_its_validation_record(start: Start) -> None:
    run = start("aws", machines=2, **ZONE)
    zone = aws_of(run).dns.find_zone("example.com")
    assert zone
    for name in NAMES:
        certificate = run.one(f"Certificate certificate-{name}")
        assert dict(certificate.inputs) == {"domainName": name, "validationMethod": "DNS"}
        record_name, kind, value = aws_of(run).acm.certificates[issued(run, name)].record
        assert dict(run.one(f"Record validation-{name}").inputs) == {
            "zoneId": zone.id, "name": record_name, "type": kind, "records": [value], "ttl": 300,
            "allowOverwrite": True,
        }  # fmt: skip
        validation = run.one(f"CertificateValidation certificate-{name}")
        assert dict(validation.inputs) == {
            "certificateArn": issued(run, name), "validationRecordFqdns": [record_name],
        }  # fmt: skip
    balancer = run.states[run.one("LoadBalancer balancer").urn]
    alias = {"name": balancer["dnsName"], "zoneId": balancer["zoneId"], "evaluateTargetHealth": False}
    for name in NAMES:
        assert dict(run.one(f"Record record-{name}").inputs) == {
            "zoneId": zone.id, "name": name, "type": "A", "aliases": [alias],
        }  # fmt: skip


def test_the_listeners_of_aws(start: Start) -> None:
    """By the API, the default policy still allows TLS 1.0."""
    run = start("aws", machines=2, **ZONE)
    https, http = dict(run.one("Listener https").inputs), dict(run.one("Listener http").inputs)
    forward = {"type": "forward", "targetGroupArn": run.ids[run.one("TargetGroup targets").urn]}
    assert https == {
        "loadBalancerArn": run.ids[run.one("LoadBalancer balancer").urn], "port": 443, "protocol": "HTTPS",
        "sslPolicy": "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09", "certificateArn": issued(run, "example.com"),
        "defaultActions": [forward],
    }  # fmt: skip
    assert http["defaultActions"] == [
        {
            "type": "redirect",
            "redirect": {
                "protocol": "HTTPS", "port": "443", "host": "example.com", "path": "/#{path}", "query": "#{query}",
                "statusCode": "HTTP_301",
            },
        }
    ]  # fmt: skip
    assert "Listener https" in before(run, run.one("Listener http")), "a redirect must lead somewhere"
    assert dict(run.one("ListenerCertificate certificate-www.example.com").inputs) == {
        "listenerArn": run.ids[run.one("Listener https").urn], "certificateArn": issued(run, "www.example.com"),
    }  # fmt: skip
    (rule,) = [one for one in run.of_type(":SecurityGroupIngressRule") if one.inputs["fromPort"] == 443]
    group = run.ids[run.one("SecurityGroup balancer").urn]
    assert (rule.name, rule.inputs["securityGroupId"], rule.inputs["cidrIpv4"]) == (
        "balancer-https", group, "0.0.0.0/0",
    )  # fmt: skip
    waits = before(run, run.one("Command rollout"))
    assert {"Listener https", "ListenerCertificate certificate-www.example.com", rule.short} <= waits
    (entrances,) = run.world.entrances.values()
    assert entrances[-1].redirect == "example.com"
    assert [names_of(pem) for pem in entrances[-1].certificates] == [["example.com"], ["www.example.com"]]


def test_with_dns_elsewhere_the_first_up_on_aws_ends_with_the_records_to_set(start: Start) -> None:
    run = start("aws", machines=2, domain="www.example.com")
    assert run.exports["url"].value == "http://www.example.com"
    assert not run.of_type(":CertificateValidation"), "nothing waits for the user"
    assert set(of(run, "Listener")) == {"http"}
    name, kind, value = aws_of(run).acm.certificates[issued(run, "www.example.com")].record
    assert run.exports["recordsToSet"].value == [
        {"name": "www.example.com", "type": "CNAME", "value": "203.0.113.77"},
        {"name": name, "type": kind, "value": value},
    ]
    conf, _ = provisioned(run, "web-1")
    assert "http_x_forwarded_proto" not in conf
    assert run.warnings == () or not any("registrars sell" in one for one in run.warnings)


def test_with_dns_elsewhere_a_later_up_on_aws_adds_https(start: Start) -> None:
    world = InMemoryBackend()
    world.accounts["aws"] = account = Account()
    account.dns.elsewhere.add(account.acm.request("www.example.com").record)
    run = start("aws", machines=2, domain="www.example.com", world=world)
    assert run.exports["url"].value == "https://www.example.com"
    assert set(of(run, "Listener")) == {"http", "https"}
    validation = run.one("CertificateValidation certificate-www.example.com")
    assert dict(validation.inputs) == {"certificateArn": issued(run, "www.example.com")}
    assert validation.before_create == (), "there is no zone to look at"
    assert [record["name"] for record in run.exports["recordsToSet"].value] == [
        "www.example.com", aws_of(run).acm.certificates[issued(run, "www.example.com")].record[0],
    ]  # fmt: skip


def test_an_expired_certificate_on_aws_keeps_its_listener(start: Start) -> None:
    """Without the listener, visitors whose browsers want HTTPS would get nothing at all."""
    world = InMemoryBackend()
    world.accounts["aws"] = account = Account()
    old = account.acm.request("www.example.com")
    account.dns.elsewhere.add(old.record)
    old.status = "EXPIRED"
    run = start("aws", machines=2, domain="www.example.com", world=world)
    assert set(of(run, "Listener")) == {"http", "https"}
    asked = [one.arguments["statuses"] for one in run.asked if one.token.endswith(":getCertificate")]
    assert asked == [["ISSUED"], ["EXPIRED"]], "the look-up finds nothing where it is asked for both"


def test_a_name_that_only_ends_like_the_zone_is_outside_of_it(start: Start) -> None:
    run = start("aws", machines=2, redirects=["myexample.com"], **ZONE)
    assert [record["name"] for record in run.exports["recordsToSet"].value][0] == "myexample.com"  # noqa: RUF015
    assert "Record record-myexample.com" not in {one.short for one in run.of_type(":Record")}


def test_a_redirect_outside_of_the_zone_does_not_hold_up_the_site(start: Start) -> None:
    """Its certificate is not there yet. The balancer leads its visitors to the site over plain HTTP."""
    run = start("aws", machines=2, redirects=["old.example.org"], **ZONE)
    assert run.exports["url"].value == "https://example.com"
    assert not run.of_type(":ListenerCertificate")
    assert set(of(run, "CertificateValidation")) == {"certificate-example.com"}
    shown = run.exports["recordsToSet"].value
    assert [record["name"] for record in shown] == [
        "old.example.org", aws_of(run).acm.certificates[issued(run, "old.example.org")].record[0],
    ]  # fmt: skip


def test_an_apex_that_cannot_lead_to_a_balancer_is_warned_of(start: Start) -> None:
    run = start("aws", machines=2, domain="example.com")
    (warning,) = [one for one in run.warnings if "example.com" in one]
    assert warning.startswith("decant:domain is example.com: ")
    assert "pulumi config set decant:domain www.example.com --stack paper" in warning
    assert not [one for one in start("aws", machines=2, **ZONE).warnings if "example.com" in one]


def test_an_account_that_may_not_look_for_certificates_is_told_of_the_policy(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rehearsal.doubles.aws import look_ups
    from rehearsal.errors import StepFailedError

    def refuse(self: object, arguments: dict[str, Any]) -> dict[str, Any]:
        raise StepFailedError("reading ACM Certificates: AccessDeniedException: not authorized to perform")

    monkeypatch.setattr(look_ups.LookUps, "certificate", refuse)
    with pytest.raises(pulumi.RunError, match=r"docs/aws\.md has the policy that your credentials need"):
        start("aws", machines=2, domain="www.example.com")


# ------------------------------------------------------------------------------------------------ DigitalOcean


def test_the_balancer_of_digitalocean_ends_https(start: Start) -> None:
    run = start("digitalocean", machines=2, **ZONE)
    tag = run.states[run.one("Tag tag").urn]["name"]
    certificate = dict(run.one("Certificate certificate").inputs)
    name = certificate.pop("name")
    assert certificate == {"type": "lets_encrypt", "domains": list(NAMES)}
    assert name.startswith(f"{tag}-")
    assert len(name) == len(tag) + 8
    given = run.one("LoadBalancer balancer").inputs
    assert given["forwardingRules"] == [
        {"entryProtocol": "http", "entryPort": 80, "targetProtocol": "http", "targetPort": 80},
        {
            "entryProtocol": "https", "entryPort": 443, "targetProtocol": "http", "targetPort": 80,
            "certificateName": name,
        },
    ]  # fmt: skip
    assert given["redirectHttpToHttps"] is True
    assert given["disableLetsEncryptDnsRecords"] is True, "or DigitalOcean makes records beside the stack's own"
    (entrances,) = run.world.entrances.values()
    assert [(one.redirect, [names_of(pem) for pem in one.certificates]) for one in entrances] == [
        (SAME_HOST, [list(NAMES)])
    ]
    (address,) = run.world.balancers
    records = {one.inputs["name"]: one.inputs["value"] for one in run.of_type(":DnsRecord")}
    assert records == {"@": address, "www": address}


@pytest.mark.parametrize(
    "settings", [ZONE, {"domain": "example.com", "certificate": OWN.fullchain, "certificateKey": OWN.key}]
)
def test_digitaloceans_next_certificate_is_made_before_the_old_one_goes(start: Start, settings: dict[str, Any]) -> None:
    """The provider's own choice is the other order, which DigitalOcean refuses while a balancer has the certificate."""
    certificate = start("digitalocean", machines=2, **settings).one("Certificate certificate")
    assert certificate.delete_before_replace is False


def test_the_balancer_of_digitalocean_stays_as_it_is_without_a_name(start: Start) -> None:
    given = start("digitalocean", machines=2).one("LoadBalancer balancer").inputs
    assert "disableLetsEncryptDnsRecords" not in given
    assert given["redirectHttpToHttps"] is False


@pytest.mark.parametrize(
    ("settings", "named", "value"),
    [
        ({"domain": "example.com"}, "decant:domain", '"example.com"'),
        ({**ZONE, "redirects": ["old.example.org"]}, "decant:redirects", '"old.example.org"'),
        ({**ZONE, "redirects": ["a.test", "b.test"]}, "decant:redirects", '["a.test", "b.test"]'),
    ],
)
def test_names_without_a_certificate_are_refused_on_digitalocean(
    start: Start, settings: dict[str, Any], named: str, value: str
) -> None:
    with pytest.raises(pulumi.RunError) as caught:
        start("digitalocean", machines=2, **settings)
    text = str(caught.value)
    assert f"{named} is {value}" in text
    assert "gets certificates only for names in the cloud's own DNS" in text
    assert "set decant:certificate and decant:certificateKey" in text
    start("digitalocean", machines=2, domain="example.com", https="off")
    start("digitalocean", machines=1, domain="example.com")  # a machine gets its certificate by itself


def test_only_port_80_of_a_single_droplet_is_open_without_https(start: Start) -> None:
    def ports(**settings: Any) -> list[str]:
        rules = start("digitalocean", **settings).one("Firewall web-firewall").inputs["inboundRules"]
        return [rule["portRange"] for rule in rules]

    assert ports() == ["80", "443"]
    assert ports(https="off") == ["80"]
    assert ports(machines=2, **ZONE) == ["80"], "the balancer comes to port 80"


def test_only_port_80_of_a_single_instance_is_open_without_https(start: Start) -> None:
    def ports(**settings: Any) -> set[int]:
        rules = start("aws", **settings).of_type(":SecurityGroupIngressRule")
        return {rule.inputs["fromPort"] for rule in rules} - {22, 3}

    assert ports() == {80, 443}
    assert ports(https="off") == {80}
