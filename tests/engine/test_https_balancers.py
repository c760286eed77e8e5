"""HTTPS on the clouds' load balancers: the real `pulumi`, doubles of the clouds, real machines, verified certificates.

Each test goes on where the one before ended, first on one cloud, then on the next.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decant.rollout.http_probe import ProbeResult, probe
from decant.rollout.route import Route
from rehearsal.accounts.aws_catalogue import REGION
from rehearsal.issuer import Issuer
from rehearsal.machines.network import Network
from tests.engine.aws_provider import Account, Provider
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.dns_server import DnsServer
from tests.support.fake_account import FakeAccount
from tests.support.pulumi_stack import Stack, missing

COMMON = {"adminCidrs[0]": "10.0.0.0/8", "balancer": "true"}
ELSEWHERE = ["a.registrar.test", "b.registrar.test"]


@pytest.fixture(scope="module")
def resolver() -> Iterator[DnsServer]:
    server = DnsServer()
    yield server
    server.close()


def ask(stack: Stack, url: str, address: str, root: str) -> ProbeResult:
    """One request by the URL's name, through the balancer, whose certificate is verified."""
    return probe(url, route=Route(connect_to=address, root=root))


# ------------------------------------------------------------------------------------------------ AWS


@pytest.fixture(scope="module")
def aws(network: Network) -> Account:
    if lacking := missing("tls"):
        pytest.skip("needs " + ", ".join(lacking))
    account = Account(FakeAccount(network))
    account.aws.dns.any_zone = False
    return account


@pytest.fixture(scope="module")
def on_aws(aws: Account, resolver: DnsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    provider = Provider(aws)
    environment = {**provider.environment, "DECANT_RESOLVERS": resolver.address}
    stack = Stack.create(tmp_path_factory.mktemp("https-aws"), **environment)
    stack.set({**COMMON, "cloud": "aws", "domain": "www.example.com"})
    stack.pulumi("config", "set", "aws:region", REGION)
    stack.set({"acmeRoot": aws.fake_account.issuer.root})
    yield stack
    provider.server.stop(None)


def refused(aws: Account) -> list[str]:
    """What AWS has refused, without the answer that there is no certificate yet."""
    return [one for one in aws.wrong if "no ACM Certificate matching domain" not in one]


def address_of(aws: Account) -> str:
    (balancer,) = aws.cloud.balancers.values()
    return balancer.name


def test_with_dns_elsewhere_the_first_up_ends_with_the_records_to_set(on_aws: Stack, aws: Account) -> None:
    ran = on_aws.up()
    assert refused(aws) == []
    outputs = on_aws.outputs()
    assert outputs["url"] == "http://www.example.com"
    (certificate,) = aws.aws.acm.certificates.values()
    name, kind, value = certificate.record
    assert outputs["recordsToSet"] == [
        {"name": "www.example.com", "type": "CNAME", "value": address_of(aws)},
        {"name": name, "type": kind, "value": value},
    ]
    assert "Listener https" not in ran.operations
    answer = ask(on_aws, "http://www.example.com/", address_of(aws), aws.fake_account.issuer.root)
    assert (answer.status, answer.release) == (200, outputs["release"])
    assert on_aws.up().counts.keys() == {"unchanged"}, "the user has not set them yet"


def test_the_up_after_that_adds_https(on_aws: Stack, aws: Account) -> None:
    (certificate,) = aws.aws.acm.certificates.values()
    aws.aws.dns.elsewhere.add(certificate.record)
    ran = on_aws.up()
    assert refused(aws) == []
    made = {one for one, done in ran.operations.items() if done == "created"}
    assert made == {
        "CertificateValidation certificate-www.example.com", "Listener https",
        "SecurityGroupIngressRule balancer-https",
    }  # fmt: skip
    outputs = on_aws.outputs()
    assert outputs["url"] == "https://www.example.com"
    root, address = aws.fake_account.issuer.root, address_of(aws)
    answer = ask(on_aws, "https://www.example.com/", address, root)
    assert (answer.status, answer.release) == (200, outputs["release"])
    shown = outputs["certificate"]
    assert (shown["state"], shown["names"], shown["renewal"]["days_left"]) == ("live", ["www.example.com"], 40)
    assert "savedCertificate" not in outputs
    assert on_aws.up().counts.keys() == {"unchanged"}
    assert on_aws.pulumi("refresh", "--yes").counts.keys() == {"unchanged"}


def test_another_name_touches_no_certificate_in_use(on_aws: Stack, aws: Account) -> None:
    on_aws.set({"redirects[0]": "old.example.org"})
    ran = on_aws.up()
    assert refused(aws) == []
    assert on_aws.outputs()["url"] == "https://www.example.com"
    assert {one for one in ran.operations if one.startswith(("Certificate", "Listener"))} == {
        "Certificate certificate-old.example.org"
    }
    on_aws.unset("redirects")


def test_a_zone_that_nobody_asks_is_told_before_anything_waits(
    on_aws: Stack, aws: Account, resolver: DnsServer
) -> None:
    on_aws.set({"domain": "example.com", "dnsZone": "example.com"})
    failed = on_aws.pulumi("preview", fails=True)
    assert "decant:dnsZone is example.com: the account has no public hosted zone" in failed.said
    zone = aws.aws.dns.create_zone("example.com", delegated=False)
    resolver.zones["example.com"] = ELSEWHERE
    failed = on_aws.up(fails=True)
    assert "its name servers are a.registrar.test, b.registrar.test" in failed.said
    assert f"set these name servers: {', '.join(sorted(zone.name_servers))}" in failed.said
    assert "Traceback" not in failed.said
    assert not [one for one in aws.wrong if "timeout" in one], "nothing has waited"


def test_once_the_zone_is_delegated_everything_is_made(on_aws: Stack, aws: Account, resolver: DnsServer) -> None:
    (zone,) = aws.aws.dns.zones.values()
    zone.delegated, resolver.zones["example.com"] = True, zone.name_servers
    aws.wrong.clear()
    on_aws.up()
    assert refused(aws) == []
    outputs = on_aws.outputs()
    assert outputs["url"] == "https://example.com"
    assert "recordsToSet" not in outputs
    root, address = aws.fake_account.issuer.root, address_of(aws)
    for url in ("https://example.com/", "http://example.com/", "https://www.example.com/"):
        answer = ask(on_aws, url, address, root)
        assert (answer.status, answer.release) in ((200, outputs["release"]), (308, "")), f"{url}: {answer}"
    assert (
        ask(on_aws, "https://www.example.com/a?b=c", address, root).why == "status 308 to 'https://example.com/a?b=c'"
    )
    assert {key[0] for key in zone.records if key[1] == "A"} == {"example.com", "www.example.com"}
    assert {one.name for one in aws.aws.acm.certificates.values()} == {"example.com", "www.example.com"}
    assert on_aws.up().counts.keys() == {"unchanged"}


def test_destroy_leaves_nothing_in_the_account(on_aws: Stack, aws: Account) -> None:
    on_aws.destroy()
    assert refused(aws) == []
    assert aws.inventory() == {}
    assert aws.aws.inventory() == {}


# ------------------------------------------------------------------------------------------------ DigitalOcean


@pytest.fixture(scope="module")
def api(network: Network) -> Iterator[DigitalOceanApi]:
    if lacking := missing("digitalocean", "tls"):
        pytest.skip("needs " + ", ".join(lacking))
    api = DigitalOceanApi(FakeAccount(network), "dop_v1_not_a_real_one", used_regions=("fra1",))
    yield api
    api.server.shutdown()


@pytest.fixture(scope="module")
def on_digitalocean(api: DigitalOceanApi, resolver: DnsServer, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    environment = {"DIGITALOCEAN_API_URL": api.url, "DECANT_RESOLVERS": resolver.address}
    stack = Stack.create(tmp_path_factory.mktemp("https-digitalocean"), **environment)
    stack.set({**COMMON, "cloud": "digitalocean", "domain": "example.net", "dnsZone": "example.net"})
    stack.set({"acmeRoot": api.fake_account.issuer.root})
    stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=api.token)
    return stack


def test_a_domain_that_nobody_asks_is_told_before_anything_waits(
    on_digitalocean: Stack, api: DigitalOceanApi, resolver: DnsServer
) -> None:
    failed = on_digitalocean.pulumi("preview", fails=True)
    assert "doctl compute domain create example.net" in failed.said
    api.account.names.add_domain("example.net", delegated=False)
    failed = on_digitalocean.up(fails=True)
    assert "no name servers are known for it" in failed.said
    assert "ns1.digitalocean.com, ns2.digitalocean.com, ns3.digitalocean.com" in failed.said
    assert ("POST", "/v2/certificates") not in api.calls


def test_a_record_of_somebody_else_stays(on_digitalocean: Stack, api: DigitalOceanApi, resolver: DnsServer) -> None:
    """Another one beside it would send half of the visitors away."""
    names = api.account.names
    names.domain("example.net").delegated = True
    resolver.zones["example.net"] = ["ns1.digitalocean.com", "ns2.digitalocean.com"]
    theirs = names.add_record("example.net", {"type": "A", "name": "www", "data": "192.0.2.7"})
    names.add_record("example.net", {"type": "TXT", "name": "@", "data": "something else"})
    failed = on_digitalocean.up(fails=True)
    assert "decant:dnsZone is example.net, which has a record www A 192.0.2.7 already" in failed.said
    assert f"doctl compute domain records delete example.net {theirs['id']}" in failed.said
    assert "Traceback" not in failed.said
    assert names.leads_to("www.example.net") == ["192.0.2.7"]
    names.delete_record("example.net", str(theirs["id"]))


def test_one_up_ends_with_https(on_digitalocean: Stack, api: DigitalOceanApi) -> None:
    on_digitalocean.up()
    assert api.unknown == []
    outputs = on_digitalocean.outputs()
    assert outputs["url"] == "https://example.net"
    (balancer,) = api.account.balancers.values()
    assert balancer.asked["disable_lets_encrypt_dns_records"] is True
    assert api.account.names.leads_to("www.example.net") == [balancer.address]
    root = api.fake_account.issuer.root
    answer = ask(on_digitalocean, "https://example.net/", balancer.address, root)
    assert (answer.status, answer.release) == (200, outputs["release"])
    answer = ask(on_digitalocean, "http://www.example.net/a?b=c", balancer.address, root)
    assert answer.why == "status 308 to 'https://example.net/a?b=c'", "after the balancer's own redirect"
    shown = outputs["certificate"]
    assert (shown["state"], shown["names"]) == ("live", ["example.net", "www.example.net"])
    made = on_digitalocean.make("up")
    assert "for example.net, www.example.net, valid for 20 days" in made.stdout, made.stdout
    assert on_digitalocean.up().counts.keys() == {"unchanged"}
    assert on_digitalocean.pulumi("refresh", "--yes").counts.keys() == {"unchanged"}


def test_a_renewal_changes_the_certificates_id_and_nothing_in_the_stack(
    on_digitalocean: Stack, api: DigitalOceanApi
) -> None:
    """Its name stays, by which the balancer's rule names it."""
    names = api.account.names
    (old,) = names.certificates.values()
    renewed = {**old, "id": "renewed"}
    names.certificates.remove(old["id"])
    names.certificates.add("renewed", renewed)
    (balancer,) = api.account.balancers.values()
    balancer.asked["forwarding_rules"][1]["certificate_id"] = "renewed"
    on_digitalocean.pulumi("refresh", "--yes")
    assert on_digitalocean.up().counts.keys() == {"unchanged"}


def swaps(api: DigitalOceanApi, begin: int) -> list[str]:
    """What was done to certificates and the balancer since a number of calls: "POST certificates"."""
    changed = [(method, path.split("/")[2]) for method, path in api.calls[begin:] if method != "GET"]
    return [f"{method} {kind}" for method, kind in changed if kind in ("certificates", "load_balancers")]


# DigitalOcean deletes no certificate that a balancer has.
SWAP = ["POST certificates", "PUT load_balancers", "DELETE certificates"]


def test_another_name_needs_another_certificate_and_the_old_one_goes_last(
    on_digitalocean: Stack, api: DigitalOceanApi
) -> None:
    (balancer,) = api.account.balancers.values()
    begin = len(api.calls)
    on_digitalocean.set({"redirects[0]": "old.example.net"})
    on_digitalocean.up()
    assert swaps(api, begin) == SWAP
    assert list(api.account.balancers.values()) == [balancer]
    answer = ask(on_digitalocean, "https://old.example.net/", balancer.address, api.fake_account.issuer.root)
    assert answer.why == "status 308 to 'https://example.net/'"
    on_digitalocean.unset("redirects")


def test_a_certificate_of_the_users_own_takes_the_place_of_the_clouds(
    on_digitalocean: Stack, api: DigitalOceanApi
) -> None:
    begin = len(api.calls)
    own = Issuer()
    made = own.issue("example.net", "www.example.net")
    on_digitalocean.set({"certificate": made.fullchain, "acmeRoot": own.root})
    on_digitalocean.set_secret("certificateKey", made.key)
    on_digitalocean.up()
    assert api.unknown == []
    assert swaps(api, begin) == SWAP
    (balancer,) = api.account.balancers.values()
    (certificate,) = api.account.names.certificates.values()
    assert certificate["type"] == "custom"
    answer = ask(on_digitalocean, "https://example.net/", balancer.address, own.root)
    assert answer.release == on_digitalocean.outputs()["release"]
    assert on_digitalocean.up().counts.keys() == {"unchanged"}


@pytest.mark.parametrize(("left", "fails"), [(25, False), (14, True)])
def test_a_balancers_certificate_that_ends_soon_is_told_after_the_release_is_live(
    on_digitalocean: Stack, api: DigitalOceanApi, left: int, fails: bool
) -> None:
    own = Issuer()
    late = own.issue("example.net", "www.example.net", days=left + 0.4, begins=90 - left)
    on_digitalocean.set({"certificate": late.fullchain, "acmeRoot": own.root})
    on_digitalocean.set_secret("certificateKey", late.key)
    on_digitalocean.edit("app/hello/templates/index.html", "<main>", f"<main><!-- {left} days -->")
    before, begin = on_digitalocean.outputs()["release"], len(api.calls)
    made = on_digitalocean.make("up")
    # Pulumi deletes what is replaced only where all else has succeeded; otherwise the next run does.
    assert swaps(api, begin) == (SWAP[:2] if fails else SWAP)
    said = made.stdout + (made.stderr or "")
    assert (made.returncode != 0) is fails, said
    told = "the release is live, but its certificate" if fails else "warning: the certificate"
    assert f"{told} is for example.net, www.example.net, valid for {left} days" in said
    assert "set a newer decant:certificate and decant:certificateKey" in said
    (balancer,) = api.account.balancers.values()
    answer = ask(on_digitalocean, "https://example.net/", balancer.address, own.root)
    assert answer.status == 200
    assert answer.release not in ("", before)


def test_destroy_leaves_the_domain_and_nothing_else(on_digitalocean: Stack, api: DigitalOceanApi) -> None:
    on_digitalocean.destroy()
    assert api.inventory() == {"records": ["@"]}, "what is not the stack's"
    assert list(api.account.names.domains) == ["example.net"]
    for text in on_digitalocean.said:
        assert "PRIVATE KEY" not in text
