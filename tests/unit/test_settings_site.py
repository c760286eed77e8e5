"""The settings of the site's names and its HTTPS."""

from __future__ import annotations

from typing import Any

import pytest

from decant.settings.site import LETS_ENCRYPT, STAGING, covers, is_apex
from tests.support.certificates import Authority
from tests.support.stack_settings import CANARY, droplet, hosts, read, refused, ssh

AUTHORITY = Authority()
NAMES = ("example.com", "www.example.com")
ISSUED = AUTHORITY.issue(*NAMES)


def own(**changes: Any) -> dict[str, Any]:
    """A stack with a certificate of the user's own, changed; a value of `...` leaves a setting out."""
    config = droplet(domain="example.com", certificate=ISSUED.fullchain, certificateKey=ISSUED.key)
    return {k: v for k, v in {**config, **changes}.items() if v is not ...}


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("given", "domain", "redirects"),
    [
        ("example.com", "example.com", ("www.example.com",)),
        ("Example.COM.", "example.com", ("www.example.com",)),
        ("example.co.uk", "example.co.uk", ("www.example.co.uk",)),
        ("shop.example.com", "shop.example.com", ()),
        ("www.example.com", "www.example.com", ()),
        ("münchen.de", "xn--mnchen-3ya.de", ("www.xn--mnchen-3ya.de",)),
        ("me.github.io", "me.github.io", ("www.me.github.io",)),
    ],
)
def test_the_domain_and_the_names_that_lead_to_it(given: str, domain: str, redirects: tuple[str, ...]) -> None:
    site = read(droplet(domain=given)).site
    assert (site.domain, site.redirects, site.names) == (domain, redirects, (domain, *redirects))


def test_the_apex_of_a_zone_of_the_clouds_gets_www_as_well() -> None:
    assert read(droplet(domain="a.example.com", dnsZone="a.example.com")).site.redirects == ("www.a.example.com",)
    assert read(droplet(domain="a.example.com", dnsZone="example.com")).site.redirects == ()


def test_redirects_are_as_given() -> None:
    assert read(droplet(domain="example.com", redirects=[])).site.redirects == ()
    given = ["Old.example.org", "www.example.com", "old.example.org"]
    assert read(droplet(domain="example.com", redirects=given)).site.redirects == ("old.example.org", "www.example.com")


@pytest.mark.parametrize(
    "name",
    ["https://example.com", "example.com/path", "example", "203.0.113.7", "a_b.example.com", "-a.example.com",
     "example.com:8080", "*.example.com", "", "a" * 64 + ".example.com", "exa mple.com"],
)  # fmt: skip
def test_what_is_no_host_name_is_refused(name: str) -> None:
    (problem,) = refused(droplet(domain=name))
    assert "must be a host name such as example.com, without https:// and without a path" in problem
    assert problem.endswith("pulumi config set decant:domain example.com")


def test_without_a_domain_the_settings_that_need_one_are_refused() -> None:
    problems = refused(droplet(redirects=["www.example.com"], dnsZone="example.com", hsts=True))
    assert [problem.split(":")[1] for problem in problems] == ["redirects", "dnsZone", "hsts"]
    for problem in problems:
        assert "needs decant:domain, the site's name" in problem
        assert "pulumi config set decant:domain example.com, or pulumi config rm decant:" in problem


@pytest.mark.parametrize(
    "config", [ssh(domain="example.com", url="https://example.com"),
               ssh(domain="example.com", trustedProxies=["10.0.0.5/32"])],
)  # fmt: skip
def test_a_proxy_of_the_users_own_ends_https_itself(config: dict[str, Any]) -> None:
    (problem,) = refused(config)
    assert "does not go with decant:domain" in problem
    assert "pulumi config rm decant:domain, or pulumi config rm decant:" in problem


def test_a_name_cannot_lead_to_several_hosts() -> None:
    (problem,) = refused(ssh(hosts=hosts("a", "b"), domain="example.com"))
    assert "leads to one machine, and there are 2 hosts" in problem
    assert read(ssh(domain="example.com")).site.domain == "example.com"


def test_the_zone_holds_the_domain() -> None:
    (problem,) = refused(droplet(domain="example.com", dnsZone="example.org"))
    assert problem.startswith('decant:dnsZone is "example.org": ') or "example.org" in problem
    assert "must be example.com or end of it" in problem
    (problem,) = refused(droplet(domain="myexample.com", dnsZone="example.com"))
    assert "dnsZone" in problem


def test_the_domain_does_not_lead_to_itself() -> None:
    (problem,) = refused(droplet(domain="example.com", redirects=["example.com"]))
    assert "must not hold decant:domain itself" in problem


def test_names_that_registrars_sell() -> None:
    assert [is_apex(name) for name in ("example.com", "a.example.com", "example.co.uk", "co.uk")] == [
        True, False, True, False,
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ the authority


@pytest.mark.parametrize(
    ("given", "server"),
    [("letsencrypt", LETS_ENCRYPT), ("staging", STAGING), ("https://ca.example/dir", "https://ca.example/dir")],
)
def test_the_authority_has_a_name_or_a_url(given: str, server: str) -> None:
    assert read(droplet(domain="example.com", acmeServer=given)).site.acme_server == server


@pytest.mark.parametrize(
    "server", ["http://ca.example/dir", "https://a@ca.example/dir", "https://", "zerossl", "https://a b/"]
)
def test_another_authority_is_refused(server: str) -> None:
    (problem,) = refused(droplet(domain="example.com", acmeServer=server))
    assert "must be letsencrypt, staging, or the https:// URL of an ACME directory" in problem


def test_an_authority_is_asked_unless_it_is_off_or_the_certificate_is_given() -> None:
    assert read(droplet()).site.acme_server == LETS_ENCRYPT
    assert read(droplet(domain="example.com", https="off")).site.acme_server == ""
    assert read(own()).site.acme_server == ""


def test_the_root_of_a_private_authority_is_read_from_pem() -> None:
    assert read(droplet(domain="example.com", acmeRoot=f"text\n{AUTHORITY.root}\n")).site.acme_root == AUTHORITY.root
    (problem,) = refused(droplet(domain="example.com", acmeRoot="no certificate"))
    assert "must be certificates in PEM form" in problem


@pytest.mark.parametrize("given", ["maybe", "on", "true"])
def test_https_is_auto_or_off(given: str) -> None:
    (problem,) = refused(droplet(https=given))
    assert "must be one of auto, off" in problem


def test_hsts_is_left_to_the_first_renewal_unless_it_is_set() -> None:
    given: list[dict[str, Any]] = [{}, {"hsts": True}, {"hsts": "false"}]
    assert [read(droplet(domain="example.com", **more)).site.hsts for more in given] == [None, True, False]


@pytest.mark.parametrize("email", ["ann", "ann@example", "a b@example.com", "ann@example.com'"])
def test_what_is_no_email_address_is_refused(email: str) -> None:
    (problem,) = refused(droplet(domain="example.com", email=email))
    assert "must be an e-mail address" in problem


# ------------------------------------------------------------------------------------------------ a certificate given


def test_a_certificate_of_the_users_own_is_kept_with_its_chain() -> None:
    site = read(own()).site
    assert (site.certificate, site.certificate_key) == (ISSUED.fullchain, ISSUED.key)
    assert ISSUED.key not in repr(site)


@pytest.mark.parametrize(("present", "lacking"), [("certificate", "certificateKey"), ("certificateKey", "certificate")])
def test_a_certificate_and_its_key_come_together(present: str, lacking: str) -> None:
    (problem,) = refused(own(**{lacking: ...}))
    assert problem.startswith(f"decant:{lacking}: is required with decant:{present}")


def test_a_certificate_is_for_every_name_of_the_site() -> None:
    issued = AUTHORITY.issue("example.com")
    (problem,) = refused(own(certificate=issued.fullchain, certificateKey=issued.key))
    assert "must be for www.example.com; it is for example.com" in problem
    assert read(own(certificate=issued.fullchain, certificateKey=issued.key, redirects=[])).site.redirects == ()


def test_a_wildcard_stands_for_one_label() -> None:
    issued = AUTHORITY.issue("example.com", "*.example.com")
    assert read(own(certificate=issued.fullchain, certificateKey=issued.key)).site.names == NAMES
    assert covers(["*.example.com"], "a.example.com")
    assert not covers(["*.example.com"], "example.com")
    assert not covers(["*.example.com"], "a.b.example.com")


@pytest.mark.parametrize(("days", "begins"), [(-1, 10), (20, -1)])
def test_a_certificate_is_valid_today(days: float, begins: float) -> None:
    issued = AUTHORITY.issue(*NAMES, days=days, begins=begins)
    (problem,) = refused(own(certificate=issued.fullchain, certificateKey=issued.key))
    assert "must be valid today; it is from 20" in problem


def test_the_key_is_the_certificates() -> None:
    other = AUTHORITY.issue(*NAMES).key
    (problem,) = refused(own(certificateKey=other))
    assert problem.startswith("decant:certificateKey: must be the key of decant:certificate")
    assert other.splitlines()[1] not in problem


def test_a_key_that_is_none_is_refused_without_showing_it() -> None:
    (problem,) = refused(own(certificateKey=CANARY))
    assert "must be a private key in PEM form without a passphrase" in problem
    assert CANARY not in problem


def test_a_certificate_and_https_off_contradict_each_other() -> None:
    (problem,) = refused(own(https="off"))
    assert "must be auto with decant:certificate" in problem


def test_what_destroy_has_kept_is_a_secret_text() -> None:
    config = droplet(domain="example.com", savedCertificate="c2F2ZWQ=")
    site = read(config).site
    assert site.saved_certificate == "c2F2ZWQ="
    assert "c2F2ZWQ" not in repr(site)
    (problem,) = refused(droplet(savedCertificate="not base64!"))
    assert "must be what `make destroy` has stored here" in problem
    (problem,) = refused(config, frozenset())
    assert "must be stored encrypted" in problem


def test_dns_servers_are_addresses() -> None:
    assert read(droplet(domain="example.com")).site.resolvers == ()
    given = ["10.0.0.2", "2001:db8::1"]
    assert read(droplet(domain="example.com", resolvers=given)).site.resolvers == ("10.0.0.2", "2001:db8::1")
    (problem,) = refused(droplet(domain="example.com", resolvers=["10.0.0.2", "dns.example.com"]))
    assert problem.startswith("decant:resolvers[1]")
    assert "must be an IP address" in problem
    (problem,) = refused(droplet(domain="example.com", resolvers=[]))
    assert "must be a list of IP addresses, at least one" in problem
