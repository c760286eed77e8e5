"""The check of a DigitalOcean account, and the client that asks, against a double of the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from decant.clouds.checks import Check
from decant.clouds.digitalocean import account as checks
from decant.clouds.digitalocean import api
from decant.clouds.digitalocean.api import Api, connect
from decant.errors import CloudApiError
from tests.support.account_facts import facts, row
from tests.support.digitalocean_reads import TOKEN, Account, serving
from tests.support.dns_server import DnsServer

NEW_TOKEN = "pulumi config set --secret digitalocean:token --stack dev   (from https://cloud.digitalocean.com/account/api/tokens)"
MORE = "ask for more: https://cloud.digitalocean.com/account/team/resource-limits"


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def url(account: Account) -> Iterator[str]:
    with serving(account) as served:
        yield served


@pytest.fixture
def check(url: str) -> Any:
    """Check the account for a stack with these settings."""

    def run(*, token: str = TOKEN, owned: dict[str, frozenset[str]] | None = None, **more: Any) -> list[Check]:
        environ = {"DIGITALOCEAN_API_URL": url}
        return checks.check(facts("digitalocean", provider={"token": token}, environ=environ, owned=owned, **more))

    return run


def parts(check: Check) -> tuple[str, str, str]:
    return check.answer, check.detail, check.fix


# ------------------------------------------------------------------------------------------------ the client


def test_every_page_of_a_list_is_read(account: Account, url: str) -> None:
    account.page = 2
    account.lists["droplets"] = [{"id": number} for number in range(5)]
    assert [droplet["id"] for droplet in Api(TOKEN, url).every("/v2/droplets", "droplets")] == [0, 1, 2, 3, 4]
    assert account.asked == ["GET /v2/droplets"] * 3


def test_a_refusal_for_too_many_requests_is_waited_out(account: Account, url: str) -> None:
    body = {"id": "too_many_requests", "message": "API Rate limit exceeded."}
    account.failing = [(429, body, {"Retry-After": "7"}), (429, body, {}), (503, {}, {})]
    pauses: list[float] = []
    answer = Api(TOKEN, url, sleep=pauses.append).get("/v2/account")
    assert answer["account"]["droplet_limit"] == 10
    assert pauses == [7.0, 2.0, 4.0], "as long as the API says, else a little longer each time"


def test_a_limit_that_does_not_end_is_an_error(account: Account, url: str) -> None:
    account.failing = [
        (429, {"id": "too_many_requests", "message": "API Rate limit exceeded."}, {"Retry-After": "900"})
    ] * 6
    pauses: list[float] = []
    with pytest.raises(CloudApiError, match=r"API Rate limit exceeded\.") as caught:
        Api(TOKEN, url, sleep=pauses.append).get("/v2/account")
    assert (caught.value.status, caught.value.code) == (429, "too_many_requests")
    assert pauses == [60, 60, 60, 60, 60]


def test_a_refusal_is_not_asked_again(account: Account, url: str) -> None:
    with pytest.raises(CloudApiError, match="Unable to authenticate you") as caught:
        Api("wrong", url, sleep=lambda seconds: pytest.fail("slept")).get("/v2/account")
    assert (caught.value.status, caught.value.code) == (401, "Unauthorized")
    assert len(account.asked) == 1


def test_the_token_is_not_sent_where_a_redirect_leads(account: Account, url: str) -> None:
    account.failing = [(302, {}, {"Location": f"{url}/elsewhere"})]
    with pytest.raises(CloudApiError, match="status 302"):
        Api(TOKEN, url).get("/v2/account")
    assert account.asked == ["GET /v2/account"]


def test_nobody_at_the_address_is_an_error_that_names_it() -> None:
    pauses: list[float] = []
    with pytest.raises(CloudApiError, match=r"http://127\.0\.0\.1:1 does not answer: .*refused") as caught:
        Api(TOKEN, "http://127.0.0.1:1", sleep=pauses.append).get("/v2/account")
    assert (caught.value.status, len(pauses)) == (0, 2)


@pytest.mark.parametrize(
    ("provider", "environ", "token", "url"),
    [
        ({"token": "a"}, {"DIGITALOCEAN_TOKEN": "b"}, "Bearer a", "https://api.digitalocean.com"),
        ({}, {"DIGITALOCEAN_TOKEN": "b", "DIGITALOCEAN_ACCESS_TOKEN": "c"}, "Bearer b", "https://api.digitalocean.com"),
        ({}, {"DIGITALOCEAN_ACCESS_TOKEN": "c"}, "Bearer c", "https://api.digitalocean.com"),
        ({"token": "a", "apiEndpoint": "https://x"}, {"DIGITALOCEAN_API_URL": "https://y"}, "Bearer a", "https://x"),
        ({"token": "a"}, {"DIGITALOCEAN_API_URL": "https://y/"}, "Bearer a", "https://y"),
    ],
)
def test_token_and_address_come_from_where_the_provider_reads_them(
    provider: dict[str, str], environ: dict[str, str], token: str, url: str
) -> None:
    api = connect(provider, environ)
    assert (f"Bearer {api._token}", api.url) == (token, url)


def test_an_address_that_is_no_url_is_refused() -> None:
    with pytest.raises(CloudApiError, match="DIGITALOCEAN_API_URL is file:///etc/passwd: it must be a URL"):
        connect({"token": "a"}, {"DIGITALOCEAN_API_URL": "file:///etc/passwd"})


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]:8080/x", "http://localhost"])
def test_a_token_may_go_to_this_computer_in_clear(url: str) -> None:
    assert connect({"token": "a"}, {"DIGITALOCEAN_API_URL": url}).url == url


@pytest.mark.parametrize(
    "url", ["http://api.digitalocean.com", "http://127.0.0.1.example.org", "http://x@10.0.0.1", "http://"]
)
@pytest.mark.parametrize("setting", [True, False])
def test_a_token_goes_nowhere_else_in_clear(url: str, setting: bool) -> None:
    provider, environ = ({"apiEndpoint": url}, {}) if setting else ({}, {"DIGITALOCEAN_API_URL": url})
    name = "digitalocean:apiEndpoint" if setting else "DIGITALOCEAN_API_URL"
    with pytest.raises(CloudApiError, match=rf"^{name} is {url}: it must be a URL that starts with https://$"):
        connect({"token": "a", **provider}, environ)


def test_a_refusal_does_not_control_the_terminal(account: Account, url: str) -> None:
    account.failing = [(403, {"id": "x\x1b", "message": "no\x1b[2J \ud800"}, {})]
    with pytest.raises(CloudApiError) as caught:
        Api(TOKEN, url).get("/v2/account")
    assert (str(caught.value), caught.value.code) == ("no\\x1b[2J \\ud800", "x\\x1b")


# ------------------------------------------------------------------------------------------------ the account


def test_an_account_with_everything(check: Any, account: Account) -> None:
    found = check()
    assert [(c.subject, c.answer) for c in found] == [
        ("token", "yes"), ("scopes", "yes"), ("region fra1", "yes"), ("size s-1vcpu-1gb", "yes"),
        ("image debian-13-x64", "yes"), ("droplets", "yes"), ("a replacement", "yes"),
        ("reserved addresses", "yes"), ("network", "yes"), ("names", "yes"),
    ]  # fmt: skip
    assert row(found, "token").detail == "valid, of Carol's team"
    assert row(found, "droplets").detail == "0 of 10 droplets in use, 1 more needed"
    assert row(found, "a replacement").detail == "0 of 10 droplets in use, 2 more needed"
    assert not any(c.fix for c in found)
    assert {call.split()[0] for call in account.asked} == {"GET"}, "a check only reads"


def test_no_token(url: str) -> None:
    (only,) = checks.check(facts("digitalocean", environ={"DIGITALOCEAN_API_URL": url}))
    assert parts(only) == ("no", "there is no token", NEW_TOKEN)
    assert only.blocks


def test_a_token_that_digitalocean_does_not_know(check: Any, account: Account) -> None:
    (only,) = check(token="wrong")
    assert parts(only) == ("no", "DigitalOcean does not know the token: Unable to authenticate you", NEW_TOKEN)
    assert account.asked == ["GET /v2/account"]


def test_a_locked_account(check: Any, account: Account) -> None:
    account.limits = {"status": "locked", "status_message": "Please verify your identity."}
    (only,) = check()
    assert only.answer == "no"
    assert only.detail == "the account is locked: Please verify your identity."


def test_an_api_that_does_not_answer_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "UNANSWERED_ATTEMPTS", 1)
    environ = {"DIGITALOCEAN_API_URL": "http://127.0.0.1:1"}
    (only,) = checks.check(facts("digitalocean", provider={"token": TOKEN}, environ=environ))
    assert (only.subject, only.answer, only.blocks) == ("token", "unknown", False)


def test_scopes_that_the_token_lacks_are_named(check: Any, account: Account) -> None:
    account.refused = {"/v2/droplets", "/v2/vpcs"}
    account.scopes = None
    scopes = row(check(), "scopes")
    assert parts(scopes) == ("no", "the token lacks droplet:read, vpc:read", NEW_TOKEN)
    assert row(check(), "names").answer == "unknown"


def test_scopes_to_make_things_are_named(check: Any, account: Account) -> None:
    made = [f"{kind}:{verb}" for kind in ("droplet", "firewall", "vpc", "ssh_key", "tag", "reserved_ip")
            for verb in ("create", "read", "update", "delete")]  # fmt: skip
    account.scopes = [*made, "image:read", "account:read"]
    assert row(check(), "scopes").answer == "yes"
    account.scopes.remove("droplet:create")
    account.scopes.remove("image:read")
    assert row(check(), "scopes").detail == "the token lacks droplet:create, image:read"
    account.scopes += ["droplet:create", "image:read"]
    assert row(check(machines=2), "scopes").detail == (
        "the token lacks load_balancer:create, load_balancer:delete, load_balancer:update"
    )


def test_a_list_that_digitalocean_cannot_give_is_unknown(
    check: Any, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "ATTEMPTS", 1)
    account.broken = {"/v2/vpcs"}
    found = check()
    assert parts(row(found, "scopes")) == ("unknown", "DigitalOcean does not answer to /v2/vpcs", "")
    assert parts(row(found, "network")) == ("unknown", "Unexpected server-side error", "")
    assert account.asked.count("GET /v2/vpcs") == 1, "each list is read once"


def test_a_token_that_may_only_read(check: Any, account: Account) -> None:
    account.scopes = ["read"]
    assert row(check(), "scopes").detail == "the token lacks write"


@pytest.mark.parametrize("told", [None, [], ["something new"]])
def test_scopes_that_digitalocean_does_not_tell_are_unknown(check: Any, account: Account, told: Any) -> None:
    account.scopes = told
    scopes = row(check(), "scopes")
    assert (scopes.answer, scopes.blocks) == ("unknown", False)


def test_a_token_that_may_make_no_load_balancer(check: Any, account: Account) -> None:
    account.refused = {"/v2/load_balancers"}
    found = check(machines=2)
    assert row(found, "scopes").detail == "the token lacks load_balancer:read"
    balancer = row(found, "load balancer")
    assert parts(balancer) == ("unknown", "You are not authorized to perform this operation", "")
    assert row(check(), "scopes").answer == "yes", "a stack without a balancer does not need it"


def test_an_account_that_may_have_no_load_balancer(check: Any, account: Account) -> None:
    account.limits["load_balancer_limit"] = 0
    assert parts(row(check(machines=2), "load balancer")) == ("no", "0 of 0 load balancers in use, 1 more needed", MORE)


def test_how_many_load_balancers_an_account_may_have_is_not_told(check: Any) -> None:
    balancer = row(check(machines=2), "load balancer")
    assert balancer.answer == "unknown"
    assert balancer.detail == "the account has 0; how many it may have, the API does not say"
    owned = {checks.BALANCER: frozenset({"lb"})}
    assert parts(row(check(machines=2, owned=owned), "load balancer")) == ("yes", "the stack has one", "")


def test_a_limit_of_droplets_that_is_reached(check: Any, account: Account) -> None:
    account.limits["droplet_limit"] = 3
    account.lists["droplets"] = [{"id": n, "name": f"d{n}", "tags": []} for n in range(2)]
    found = check(machines=2)
    assert parts(row(found, "droplets")) == ("no", "2 of 3 droplets in use, 2 more needed", MORE)
    assert row(found, "droplets").blocks
    found = check(machines=1)
    assert row(found, "droplets").answer == "yes"
    replacement = row(found, "a replacement")
    assert parts(replacement) == ("no", "2 of 3 droplets in use, 2 more needed", MORE)
    assert not replacement.blocks, "the stack can be made all the same"


def test_an_account_that_may_have_no_droplets(check: Any, account: Account) -> None:
    account.limits["droplet_limit"] = 0
    assert parts(row(check(), "droplets")) == ("no", "0 of 0 droplets in use, 1 more needed", MORE)


def test_what_the_stack_has_already_needs_no_room(check: Any, account: Account) -> None:
    account.limits["droplet_limit"] = 2
    account.lists["droplets"] = [{"id": 7, "name": "web-1", "tags": ["decant-dev"]}]
    found = check(owned={checks.DROPLET: frozenset({"7"})})
    assert row(found, "droplets").detail == "1 of 2 droplets in use, 0 more needed"
    assert row(found, "a replacement").answer == "yes"
    assert row(found, "names").answer == "yes"


def test_a_limit_of_reserved_addresses_that_is_reached(check: Any, account: Account) -> None:
    account.lists["reserved_ips"] = [{"ip": f"192.0.2.{n}"} for n in range(3)]
    found = row(check(), "reserved addresses")
    assert parts(found) == ("no", "3 of 3 reserved addresses in use, 1 more needed", MORE)


def test_limits_that_the_token_may_not_read_are_unknown(check: Any, account: Account) -> None:
    account.refused = {"/v2/account"}
    found = check()
    assert parts(row(found, "token")) == ("yes", "not refused; it may not read the account", "")
    assert {row(found, s).answer for s in ("droplets", "a replacement", "reserved addresses")} == {"unknown"}


@pytest.mark.parametrize("region", ["nyc2", "mars1"])
def test_a_region_that_is_not_open(check: Any, region: str) -> None:
    found = row(check(region=region), f"region {region}")
    assert parts(found) == (
        "no",
        "open to this account are fra1, nyc3",
        "pulumi config set decant:region fra1 --stack dev",
    )


@pytest.mark.parametrize(
    ("size", "why"),
    [
        ("s-9vcpu-1gb", "DigitalOcean has no such size"),
        ("c-2", "not offered in fra1 now"),
        ("s-1vcpu-512mb-10gb", "512 MB of memory; two releases side by side need 1024"),
    ],
)
def test_a_size_that_is_not_offered(check: Any, size: str, why: str) -> None:
    fix = "pulumi config set decant:size s-1vcpu-1gb --stack dev"
    found = row(check(size=size), f"size {size}")
    assert parts(found) == ("no", f"{why}; offered are s-1vcpu-1gb, s-1vcpu-2gb", fix)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("debian-14-x64", "DigitalOcean has no such image; of Debian it has debian-13-x64"),
        ("ubuntu-24-04-x64", "it is Ubuntu; machines must run Debian"),
    ],
)
def test_an_image_that_cannot_be_used(check: Any, image: str, why: str) -> None:
    fix = "pulumi config set decant:image debian-13-x64 --stack dev"
    assert parts(row(check(image=image), f"image {image}")) == ("no", why, fix)


def test_an_image_that_another_region_has(check: Any, account: Account) -> None:
    account.lists["images"][0]["regions"] = ["nyc3"]
    assert row(check(), "image debian-13-x64").detail == "not in region fra1"
    account.lists["images"].append({"id": 77, "slug": None, "distribution": "Debian", "regions": ["fra1"]})
    assert row(check(image="77"), "image 77").answer == "yes", "one of the account's own has no slug"


def test_the_first_network_of_a_region_stays(check: Any, account: Account) -> None:
    assert row(check(), "network").detail == "1 VPCs in fra1"
    account.lists["vpcs"] = []
    assert row(check(), "network").detail == (
        "the stack's VPC will be the first in fra1: DigitalOcean keeps it as the default, at no cost"
    )


def test_names_that_another_stack_has(check: Any, account: Account) -> None:
    account.lists["droplets"] = [
        {"id": 4, "name": "web-1", "tags": ["decant-dev-0a1b2c3"]},
        {"id": 5, "name": "web-1", "tags": ["decant-development"]},
        {"id": 6, "name": "web-1", "tags": ["decant-dev-0a1b2c3-4d5e6f7"]},
    ]
    account.lists["firewalls"] = [
        {"id": "f1", "name": "decant-dev-0a1b2c3-web"},
        {"id": "f2", "name": "decant-dev-2-web"},
    ]
    names = row(check(), "names")
    assert names.answer == "no"
    assert names.detail == (
        "droplet web-1 (4), droplet web-1 (6), firewall decant-dev-0a1b2c3-web (f1): named as this stack's,"
        " and not in its state"
    )
    assert not names.blocks, "names end in what is the stack's own; two people may each have a stack dev"


# ------------------------------------------------------------------------------------------------ names

ZONE: dict[str, Any] = {"domain": "example.com", "dnsZone": "example.com"}


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    server = DnsServer()
    monkeypatch.setenv("DECANT_RESOLVERS", server.address)
    yield server
    server.close()


def test_scopes_for_names_are_needed_where_a_stack_has_them(check: Any, account: Account, resolver: DnsServer) -> None:
    account.refused = {"/v2/domains", "/v2/certificates"}
    assert row(check(), "scopes").answer == "yes"
    assert row(check(domain="example.com"), "scopes").answer == "yes", "a machine gets its certificate by itself"
    assert row(check(**ZONE), "scopes").detail == "the token lacks domain:read"
    assert row(check(**ZONE, machines=2), "scopes").detail == "the token lacks domain:read, certificate:read"
    account.refused = set()
    account.scopes = ["account:read"]
    named = row(check(**ZONE, machines=2), "scopes").detail
    for scope in ("domain:create", "domain:update", "domain:delete", "certificate:create", "certificate:delete"):
        assert scope in named
    assert "domain:" not in row(check(), "scopes").detail


def test_a_zone_is_looked_for_and_its_delegation_too(check: Any, account: Account, resolver: DnsServer) -> None:
    servers = "ns1.digitalocean.com, ns2.digitalocean.com, ns3.digitalocean.com"
    assert parts(row(check(**ZONE), "zone example.com")) == (
        "no",
        "the account has no domain of that name",
        f"doctl compute domain create example.com, and where it is registered the name servers {servers}",
    )
    account.lists["domains"] = [{"name": "example.com"}]
    resolver.zones["example.com"] = ["a.registrar.test"]
    assert parts(row(check(**ZONE), "zone example.com")) == (
        "no",
        "the world does not ask the zone in your account, because its name servers are a.registrar.test",
        f"Where example.com is registered, set these name servers: {servers}",
    )
    resolver.zones["example.com"] = ["ns2.digitalocean.com"]
    assert parts(row(check(**ZONE), "zone example.com")) == ("yes", "the account has it", "")
    assert not [one for one in check() if one.subject.startswith("zone")]
