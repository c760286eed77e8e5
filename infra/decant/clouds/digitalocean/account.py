"""Whether a DigitalOcean account can make a stack: token, scopes, region, size, image, limits and names.

Everything is asked by reading. How each answer looks: https://docs.digitalocean.com/reference/api/digitalocean/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from decant.clouds.checks import FOREIGN_FIX, Check, StackFacts, answered, limit_check
from decant.clouds.digitalocean import names
from decant.clouds.digitalocean.api import PUBLIC_URL, Api, connect
from decant.clouds.digitalocean.dns import NAME_SERVERS
from decant.clouds.dns import zone_check
from decant.errors import CloudApiError

PANEL_URL = "https://cloud.digitalocean.com"
TOKENS_PAGE = f"{PANEL_URL}/account/api/tokens"
LIMITS_PAGE = f"{PANEL_URL}/account/team/resource-limits"
MEMORY = 1024  # MB, the least that two releases side by side need
DROPLET = "digitalocean:index/droplet:Droplet"
RESERVED_ADDRESS = "digitalocean:index/reservedIp:ReservedIp"
BALANCER = "digitalocean:index/loadBalancer:LoadBalancer"
FIREWALL = "digitalocean:index/firewall:Firewall"
VPC = "digitalocean:index/vpc:Vpc"

# What reads a kind of thing: its path, the list's name in the answer, and the scope that a token needs.
READS = {
    "droplets": ("/v2/droplets", "droplets", "droplet"),
    "balancers": ("/v2/load_balancers", "load_balancers", "load_balancer"),
    "addresses": ("/v2/reserved_ips", "reserved_ips", "reserved_ip"),
    "firewalls": ("/v2/firewalls", "firewalls", "firewall"),
    "vpcs": ("/v2/vpcs", "vpcs", "vpc"),
    "keys": ("/v2/account/keys", "ssh_keys", "ssh_key"),
    "tags": ("/v2/tags", "tags", "tag"),
    "regions": ("/v2/regions", "regions", "regions"),
    "sizes": ("/v2/sizes", "sizes", "sizes"),
    "images": ("/v2/images", "images", "image"),
    "actions": ("/v2/actions", "actions", "actions"),
    "domains": ("/v2/domains", "domains", "domain"),
    "certificates": ("/v2/certificates", "certificates", "certificate"),
}
ONLY_FIRST_PAGE = {"actions"}  # asked to see whether the token may read them; an account has thousands
MADE = ("droplet", "firewall", "vpc", "ssh_key", "tag")  # scopes of what every stack makes and deletes


def check(stack: StackFacts) -> list[Check]:
    """All answers about the account; only the first where the token does not let anything else be asked."""
    try:
        api = connect(stack.provider, stack.environ)
    except CloudApiError as error:
        return [Check(subject="token", answer="no", detail=str(error), fix=_new_token(stack))]
    token, limits = _token(stack, api)
    if token.answer != "yes":
        return [token]
    return [token, *Account(stack, api, limits).checks()]


def _new_token(stack: StackFacts) -> str:
    return f"{stack.set_command('--secret digitalocean:token', '').replace('  ', ' ')}   (from {TOKENS_PAGE})"


def _token(stack: StackFacts, api: Api) -> tuple[Check, dict[str, Any]]:
    """Whether the token is valid, and the account's limits where it may read them."""
    try:
        account = api.get("/v2/account").get("account") or {}
    except CloudApiError as error:
        if error.status == 401:
            detail = f"DigitalOcean does not know the token: {error}"
            return Check(subject="token", answer="no", detail=detail, fix=_new_token(stack)), {}
        if error.status in (403, 404):
            return Check(subject="token", answer="yes", detail="not refused; it may not read the account"), {}
        return Check(subject="token", answer="unknown", detail=str(error)), {}
    if account.get("status") == "locked":
        detail = f"the account is locked: {account.get('status_message') or 'DigitalOcean gives no reason'}"
        return Check(subject="token", answer="no", detail=detail, fix="https://cloudsupport.digitalocean.com"), {}
    team = (account.get("team") or {}).get("name")
    return Check(
        subject="token", answer="yes", detail=f"valid, of {team or account.get('email', 'an account')}"
    ), account


class Account:
    """What the token can read of an account. Each kind of thing is read once."""

    def __init__(self, stack: StackFacts, api: Api, limits: dict[str, Any]) -> None:
        self.stack = stack
        self.settings = stack.settings
        self.api = api
        self.limits = limits
        self._read: dict[str, list[dict[str, Any]] | CloudApiError] = {}

    def checks(self) -> Iterator[Check]:
        """Every answer, in the order of the table."""
        settings = self.settings
        yield self._ask("scopes", self._scopes)
        yield self._ask(f"region {settings.region}", self._region)
        yield self._ask(f"size {settings.size}", self._size)
        yield self._ask(f"image {settings.image}", self._image)
        yield self._ask("droplets", lambda: self._droplets(later=False))
        yield self._ask("a replacement", lambda: self._droplets(later=True))
        if settings.balancer:
            yield self._ask("load balancer", self._balancer)
        else:
            yield self._ask("reserved addresses", self._addresses)
        yield self._ask("network", self._network)
        if settings.site.dns_zone:
            yield self._ask(f"zone {settings.site.dns_zone}", self._zone)
        yield self._ask("names", self._names)

    def _ask(self, subject: str, ask: Callable[[], Check]) -> Check:
        return answered(subject, ask, denied="")  # the answer on scopes has the command

    def things(self, kind: str) -> list[dict[str, Any]]:
        """All things of a kind. Raises CloudApiError."""
        if kind not in self._read:
            path, key, _ = READS[kind]
            try:
                if kind in ONLY_FIRST_PAGE:
                    self._read[kind] = self.api.get(path, per_page=1).get(key) or []
                else:
                    self._read[kind] = list(self.api.every(path, key))
            except CloudApiError as error:
                self._read[kind] = error
        found = self._read[kind]
        if isinstance(found, CloudApiError):
            raise found
        return found

    def _scopes(self) -> Check:
        """Whether the token may do what an `up` and a `destroy` do. A token with custom scopes answers 403."""
        address = "load_balancer" if self.settings.balancer else "reserved_ip"
        unused = {"addresses" if self.settings.balancer else "balancers"}
        unused |= set() if self.settings.site.dns_zone else {"domains"}
        unused |= set() if self._needs_certificate() else {"certificates"}
        missing: list[str] = []
        unclear: list[str] = []
        for kind, (path, _, scope) in READS.items():
            if kind in unused:
                continue
            try:
                self.things(kind)
            except CloudApiError as error:
                if error.status == 403:
                    missing.append(f"{scope}:read")
                elif error.status != 404:
                    unclear.append(path)
        lacking = [] if self.stack.reads_only else self._lacking_scopes(address)
        missing += lacking or []
        if missing:
            detail = f"the token lacks {', '.join(missing)}"
            return Check(subject="scopes", answer="no", detail=detail, fix=_new_token(self.stack))
        if unclear:
            return Check(subject="scopes", answer="unknown", detail=f"DigitalOcean does not answer to {unclear[0]}")
        if lacking is None:
            detail = "it may read all; whether it may create and delete, DigitalOcean says only when it is done"
            return Check(subject="scopes", answer="unknown", detail=detail)
        needs = "a preview" if self.stack.reads_only else "the stack"
        return Check(subject="scopes", answer="yes", detail=f"the token may do all that {needs} needs")

    def _lacking_scopes(self, address: str) -> list[str] | None:
        """Scopes for making and deleting that the token has not; None where DigitalOcean does not tell its scopes.

        The same question that `doctl` asks, at the panel's host. A token with full access has the scope `write`; one
        with custom scopes has some of the form `droplet:create`.
        """
        provider = dict(self.stack.provider)
        if self.api.url == PUBLIC_URL:
            provider["apiEndpoint"] = PANEL_URL
        try:
            held = set(map(str, connect(provider, self.stack.environ).get("/v1/oauth/token/info").get("scopes") or ()))
        except CloudApiError:
            return None
        if "write" in held:
            return []
        if held == {"read"}:
            return ["write"]
        wanted = {f"{scope}:{verb}" for scope in (*MADE, address) for verb in ("create", "delete")}
        if self.settings.site.dns_zone:
            wanted |= {"domain:create", "domain:update", "domain:delete"}
        if self._needs_certificate():
            wanted |= {"certificate:create", "certificate:delete"}
        wanted |= {"droplet:update", f"{address}:update", "firewall:update", "image:read"}
        return sorted(wanted - held) if any(":" in scope for scope in held) else None

    def _needs_certificate(self) -> bool:
        return bool(self.settings.balancer and self.settings.site.domain and self.settings.site.https)

    def _zone(self) -> Check:
        """Whether the account has the zone, and the world asks it there."""
        zone = self.settings.site.dns_zone or ""
        subject, servers = f"zone {zone}", list(NAME_SERVERS)
        if not any(one.get("name") == zone for one in self.things("domains")):
            fix = (
                f"doctl compute domain create {zone}, and where it is registered the name servers {', '.join(servers)}"
            )
            return Check(subject=subject, answer="no", detail="the account has no domain of that name", fix=fix)
        return zone_check(zone, servers, self.settings.site.resolvers)

    def _region(self) -> Check:
        open_regions = sorted(r["slug"] for r in self.things("regions") if r.get("available"))
        if self.settings.region in open_regions:
            return Check(subject=f"region {self.settings.region}", answer="yes", detail="open")
        return Check(
            subject=f"region {self.settings.region}",
            answer="no",
            detail=f"open to this account are {', '.join(open_regions) or 'none'}",
            fix=self.stack.set_command("decant:region", open_regions[0] if open_regions else "REGION"),
        )

    def _size(self) -> Check:
        subject, region = f"size {self.settings.size}", self.settings.region
        sizes = {size["slug"]: size for size in self.things("sizes")}
        offered = [
            size
            for size in sizes.values()
            if size.get("available") and region in size.get("regions", ()) and size.get("memory", 0) >= MEMORY
        ]
        wanted = sizes.get(self.settings.size)
        if wanted in offered:
            return Check(subject=subject, answer="yes", detail=f"offered in {region}, {wanted['memory']} MB of memory")
        if wanted is None:
            why = "DigitalOcean has no such size"
        elif wanted.get("memory", 0) < MEMORY:
            why = f"{wanted['memory']} MB of memory; two releases side by side need {MEMORY}"
        else:
            why = f"not offered in {region} now"
        near = [size["slug"] for size in sorted(offered, key=lambda s: float(s.get("price_monthly", 0)))[:5]]
        fix = self.stack.set_command("decant:size", near[0] if near else "SIZE")
        return Check(subject=subject, answer="no", detail=f"{why}; offered are {', '.join(near) or 'none'}", fix=fix)

    def _image(self) -> Check:
        subject, region = f"image {self.settings.image}", self.settings.region
        fix = self.stack.set_command("decant:image", "debian-13-x64")
        wanted = self.settings.image
        image = next((i for i in self.things("images") if wanted in (i.get("slug"), str(i.get("id")))), None)
        if image is None:
            slugs = sorted(i["slug"] for i in self.things("images") if (i.get("slug") or "").startswith("debian-"))
            detail = f"DigitalOcean has no such image; of Debian it has {', '.join(slugs) or 'none'}"
            return Check(subject=subject, answer="no", detail=detail, fix=fix)
        if image.get("distribution", "Debian") != "Debian":
            detail = f"it is {image['distribution']}; machines must run Debian"
            return Check(subject=subject, answer="no", detail=detail, fix=fix)
        if region not in image.get("regions", [region]):
            return Check(subject=subject, answer="no", detail=f"not in region {region}", fix=fix)
        return Check(subject=subject, answer="yes", detail=f"in {region}")

    def _droplets(self, *, later: bool) -> Check:
        """Room for the stack's droplets, or (`later`) for one more, which replaces one of them."""
        subject = "a replacement" if later else "droplets"
        limit = self.limits.get("droplet_limit")
        if limit is None:
            return self._unknown_limit(subject, "droplets")
        more = max(0, self.settings.machines - len(self.stack.ids(DROPLET))) + (1 if later else 0)
        used = len(self.things("droplets"))
        return limit_check(
            subject, used=used, limit=limit, more=more, what="droplets", fix=f"ask for more: {LIMITS_PAGE}", later=later
        )

    def _addresses(self) -> Check:
        subject = "reserved addresses"
        limit = self.limits.get("reserved_ip_limit", self.limits.get("floating_ip_limit"))
        if limit is None:
            return self._unknown_limit(subject, subject)
        more = max(0, self.settings.machines - len(self.stack.ids(RESERVED_ADDRESS)))
        used = len(self.things("addresses"))
        return limit_check(subject, used=used, limit=limit, more=more, what=subject, fix=f"ask for more: {LIMITS_PAGE}")

    def _unknown_limit(self, subject: str, what: str) -> Check:
        detail = f"DigitalOcean does not tell this token how many {what} the account may have"
        return Check(subject=subject, answer="unknown", detail=detail, fix=f"see {LIMITS_PAGE}")

    def _balancer(self) -> Check:
        """DigitalOcean tells nobody how many balancers an account may have. One that exists shows that it may."""
        found = self.things("balancers")
        limit = self.limits.get("load_balancer_limit")
        if isinstance(limit, int):
            more = 0 if self.stack.ids(BALANCER) else 1
            return limit_check(
                "load balancer", used=len(found), limit=limit, more=more, what="load balancers",
                fix=f"ask for more: {LIMITS_PAGE}",
            )  # fmt: skip
        if self.stack.ids(BALANCER):
            return Check(subject="load balancer", answer="yes", detail="the stack has one")
        detail = f"the account has {len(found)}; how many it may have, the API does not say"
        return Check(subject="load balancer", answer="unknown", detail=detail, fix=f"see {LIMITS_PAGE}")

    def _network(self) -> Check:
        region = self.settings.region
        there = [vpc for vpc in self.things("vpcs") if vpc.get("region") == region]
        if there or self.stack.ids(VPC):
            return Check(subject="network", answer="yes", detail=f"{len(there)} VPCs in {region}")
        detail = f"the stack's VPC will be the first in {region}: DigitalOcean keeps it as the default, at no cost"
        return Check(subject="network", answer="yes", detail=detail)

    def _names(self) -> Check:
        """Whether another stack, or what is left of one, has this stack's names."""
        label = names.label(self.stack.project, self.settings.stack)
        foreign = [
            f"droplet {droplet['name']} ({droplet['id']})"
            for droplet in self.things("droplets")
            if any(names.is_of(label, tag) for tag in droplet.get("tags") or ())
            and str(droplet["id"]) not in self.stack.ids(DROPLET)
        ]
        foreign += [
            f"firewall {firewall['name']} ({firewall['id']})"
            for firewall in self.things("firewalls")
            if names.is_of(label, firewall["name"]) and firewall["id"] not in self.stack.ids(FIREWALL)
        ]
        if not foreign:
            return Check(subject="names", answer="yes", detail=f"nothing else is named {self.stack.label}")
        return Check(
            subject="names",
            answer="no",
            detail=f"{', '.join(foreign)}: named as this stack's, and not in its state",
            fix=FOREIGN_FIX,
            later=True,  # names end in what is the stack's own, so that both can exist
        )
