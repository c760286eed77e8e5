"""The site of a stack as its machines need it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from decant.clouds.base import Cloud
from decant.deploy.site import host_site, https_settings, orders_certificate
from decant.settings.model import Settings, Site
from tests.support.stack_settings import droplet, hosts, read, ssh

PUBLIC, PRIVATE = "203.0.114.7", "10.0.0.7"
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"


def with_site(config: dict[str, Any] | None = None, **site: Any) -> Settings:
    settings = read(config or droplet())
    return replace(settings, site=replace(settings.site, **site))


def test_a_name_gets_a_certificate_for_itself_and_its_redirects() -> None:
    settings = read(droplet(domain="Example.com", email="ann@example.com"))
    site = host_site(settings, ["example.com", PUBLIC], "http", proxied=False)
    assert (site.names, site.redirects, site.scheme) == (("example.com", PUBLIC), ("www.example.com",), "http")
    assert site.https == {
        "names": ["example.com", "www.example.com"], "by_address": False, "own": False, "server": LETS_ENCRYPT,
        "root": False, "profile": "classic", "email": "ann@example.com", "resolvers": [], "hsts": None,
    }  # fmt: skip


def test_a_public_address_gets_a_short_lived_certificate() -> None:
    found = https_settings(read(droplet()), PUBLIC)
    assert found
    assert (found["names"], found["by_address"], found["profile"]) == ([PUBLIC], True, "shortlived")


@pytest.mark.parametrize(
    "address", [PRIVATE, "198.51.100.7", "192.168.1.2", "127.0.0.1", "[fd00::1]", "balancer.example"]
)
def test_what_is_no_public_address_gets_none(address: str) -> None:
    assert https_settings(read(droplet()), address) is None


@pytest.mark.parametrize(
    ("machines", "balancer", "https", "expected"),
    [(1, None, True, True), (2, None, True, False), (1, "balancer", True, False), (1, None, False, False)],
)
def test_only_a_single_machine_that_is_reached_directly_orders(
    machines: int, balancer: str | None, https: bool, expected: bool
) -> None:
    cloud = cast(Cloud, SimpleNamespace(machines=["web"] * machines, balancer=balancer))
    assert orders_certificate(with_site(https=https), cloud) is expected


def test_https_off_and_several_hosts_and_a_url_of_the_users_get_none() -> None:
    assert https_settings(read(droplet(domain="example.com", https="off")), "example.com") is None
    assert https_settings(read(ssh(hosts=hosts("a", "b"))), PUBLIC) is None
    assert https_settings(read(ssh(url="http://www.example.com")), PUBLIC) is None
    assert https_settings(read(ssh()), PUBLIC) is not None


def test_behind_a_proxy_the_machine_needs_no_certificate() -> None:
    settings = with_site(domain="example.com", certificate="PEM", certificate_key="KEY", hsts=True)
    site = host_site(settings, ["example.com", PUBLIC], "https", proxied=True)
    assert (site.https, site.certificate, site.certificate_key) == (None, "", "")
    assert (site.scheme, site.hsts) == ("https", True)


def test_pem_texts_reach_the_machine_and_a_repr_shows_no_key() -> None:
    settings = with_site(domain="example.com", certificate="PEM", certificate_key="KEY", acme_root="ROOT")
    site = host_site(settings, ["example.com"], "http", proxied=False)
    assert (site.certificate, site.certificate_key, site.acme_root) == ("PEM", "KEY", "ROOT")
    assert site.https
    assert (site.https["own"], site.https["root"]) == (True, True)
    assert "KEY" not in repr(site) + repr(settings)


def test_a_rehearsals_own_names_are_for_its_tunnel() -> None:
    settings = replace(with_site(domain="example.com"), extra_names=("localhost",))
    assert host_site(settings, ["example.com"], "http", proxied=False).tunnel_names == ("localhost",)


def test_the_site_of_a_stack_without_names_is_empty() -> None:
    assert read(droplet()).site == Site(acme_server=LETS_ENCRYPT)
