"""DigitalOcean's HTTP API in front of an account in memory, with throwaway machines for droplets and balancers.

What the cloud accepts, refuses and takes its time for is in rehearsal/accounts/digitalocean.py. Firewalls are kept, not
enforced. A call that this does not know is answered with 404 and kept in `unknown`, so that a test can say what is
missing here.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from rehearsal.accounts.base import CloudError, RateLimit, Store
from rehearsal.accounts.digitalocean import UNAUTHORIZED, DigitalOcean, calls_a_minute
from rehearsal.accounts.digitalocean_catalogue import Json, Offer, Pace
from rehearsal.accounts.digitalocean_names import NOT_FOUND
from rehearsal.accounts.digitalocean_resources import Droplet, LoadBalancer
from rehearsal.backend import Check, Entrance
from rehearsal.doubles.digitalocean import entrance_of
from rehearsal.machines.machine import Machine
from tests.support.fake_account import FakeAccount
from tests.support.no_machines import NoMachine, NoMachines

# A test waits for what the cloud takes its time for: as long as the provider notices, and no longer.
PACE = Pace(visible=2, pending=3, shutdown=45, resize=5, busy_vpc=10)
SCOPES = {
    "account": "account", "account/keys": "ssh_key", "actions": "actions", "droplets": "droplet", "images": "image",
    "firewalls": "firewall", "load_balancers": "load_balancer", "regions": "regions", "reserved_ips": "reserved_ip",
    "sizes": "sizes", "tags": "tag", "vpcs": "vpc", "domains": "domain", "certificates": "certificate",
}  # fmt: skip
VERBS = {"GET": "read", "POST": "create", "PUT": "update", "DELETE": "delete"}
# What the reference says that a new droplet requires as well.
FOR_A_DROPLET = ("image:read", "ssh_key:read", "vpc:read", "tag:create")


class DigitalOceanApi:
    """One account, behind a URL. `calls` are all that came, as ("POST", "/v2/droplets")."""

    def __init__(
        self,
        fake_account: FakeAccount | NoMachines,
        token: str,
        *,
        pace: Pace = PACE,
        offer: Offer | None = None,
        used_regions: tuple[str, ...] = (),
        rate: RateLimit | None = None,
        scopes: frozenset[str] | None = None,
    ) -> None:
        self.fake_account = fake_account
        self.token = token
        self.account = DigitalOcean(
            pace=pace, offer=offer, used_regions=used_regions, rate=rate or calls_a_minute(), scopes=scopes
        )
        self.entrances: dict[str, Entrance] = {}
        self.machines: dict[int, Machine | NoMachine] = {}
        """The machine of each droplet, by the droplet's id."""
        # From the end of the network: machines are counted from its beginning.
        hosts = list(ipaddress.ip_network(fake_account.network.cidr).hosts())
        self.addresses = map(str, reversed(hosts))
        self.calls: list[tuple[str, str]] = []
        self.unknown: list[tuple[str, str]] = []
        self.refused: list[str] = []
        """What was answered with an error, as "DELETE /v2/vpcs/ID: 409 Can not delete VPC with members"."""
        self.routes = self._routes()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _routes(self) -> list[tuple[str, str, Callable[..., Json | None]]]:
        a = self.account
        return [
            ("POST", "account/keys", lambda body: {"ssh_key": a.add_key(body)}),
            ("GET", "account/keys/([^/]+)", lambda id, _: {"ssh_key": a.keys.get(id)}),
            ("DELETE", "account/keys/([^/]+)", lambda id, _: _nothing(a.keys.remove(id))),
            ("POST", "vpcs", lambda body: {"vpc": a.add_vpc(body).shown()}),
            ("GET", "vpcs/([^/]+)", lambda id, _: {"vpc": a.vpcs.get(id).shown()}),
            ("PUT", "vpcs/([^/]+)", lambda id, body: {"vpc": a.change_vpc(id, body).shown()}),
            ("DELETE", "vpcs/([^/]+)", lambda id, _: a.delete_vpc(id)),
            ("POST", "tags", lambda body: {"tag": self.tag_shown(a.add_tag(body["name"]))}),
            ("GET", "tags/([^/]+)", lambda name, _: {"tag": self.tag_shown(a.tags.get(name))}),
            ("DELETE", "tags/([^/]+)", lambda name, _: a.delete_tag(name)),
            ("POST", "tags/([^/]+)/resources", lambda name, body: self.tag(name, body, tagged=True)),
            ("DELETE", "tags/([^/]+)/resources", lambda name, body: self.tag(name, body, tagged=False)),
            ("POST", "firewalls", lambda body: {"firewall": a.add_firewall(body)}),
            ("GET", "firewalls/([^/]+)", lambda id, _: {"firewall": a.firewalls.get(id)}),
            ("PUT", "firewalls/([^/]+)", lambda id, body: {"firewall": a.change_firewall(id, body)}),
            ("DELETE", "firewalls/([^/]+)", lambda id, _: _nothing(a.firewalls.remove(id))),
            ("POST", "load_balancers", self.add_balancer),
            ("GET", "load_balancers/([^/]+)", lambda id, _: self.balancer_shown(a.balancers.get(id))),
            ("PUT", "load_balancers/([^/]+)", self.change_balancer),
            ("DELETE", "load_balancers/([^/]+)", self.delete_balancer),
            ("POST", "droplets", self.add_droplet),
            ("GET", "droplets/([^/]+)", lambda id, _: self.droplet_shown(a.droplets.get(id))),
            ("GET", "droplets/([^/]+)/actions", self.actions_of_droplet),
            ("POST", "droplets/([^/]+)/actions", self.act_on_droplet),
            ("DELETE", "droplets/([^/]+)", self.delete_droplet),
            ("GET", "actions/([^/]+)", lambda id, _: self.action_shown(id)),
            ("POST", "reserved_ips", self.reserve),
            ("GET", "reserved_ips/([^/]+)", lambda ip, _: self.reserved_shown(ip)),
            ("DELETE", "reserved_ips/([^/]+)", lambda ip, _: a.delete_reserved(ip)),
            ("POST", "reserved_ips/([^/]+)/actions", self.act_on_reserved),
            ("GET", r"reserved_ips/[^/]+/actions/(\d+)", lambda id, _: self.action_shown(id)),
            *self._names(),
            *self._lists(),
        ]

    def _names(self) -> list[tuple[str, str, Callable[..., Json | None]]]:
        """Domains, records and certificates."""
        n = self.account.names
        record = "domains/([^/]+)/records/([^/]+)"

        def certificates(query: Json) -> Json:
            found = [n.shown(one) for one in n.certificates if query.get("name") in (None, n.certificates[one]["name"])]
            return {"certificates": found, "links": {}, "meta": {"total": len(found)}}

        return [
            ("GET", "domains/([^/]+)", lambda name, _: {"domain": n.domain(name).shown()}),
            ("GET", "domains/([^/]+)/records", lambda name, _: {
                "domain_records": list(n.domain(name).records.values()), "links": {}, "meta": {},
            }),
            ("POST", "domains/([^/]+)/records", lambda name, body: {"domain_record": n.add_record(name, body)}),
            ("GET", record, lambda name, id, _: {"domain_record": n.record(name, id)}),
            ("PUT", record, lambda name, id, body: {"domain_record": n.change_record(name, id, body)}),
            ("DELETE", record, lambda name, id, _: n.delete_record(name, id)),
            ("POST", "certificates", lambda body: {"certificate": n.shown(n.add_certificate(body)["id"])}),
            ("GET", "certificates", certificates),
            ("GET", "certificates/([^/]+)", lambda id, _: {"certificate": n.shown(id)}),
            ("DELETE", "certificates/([^/]+)",
             lambda id, _: n.delete_certificate(id, self.account.certificates_in_use())),
        ]  # fmt: skip

    def _lists(self) -> list[tuple[str, str, Callable[..., Json | None]]]:
        """What says what there is; a list shows the newest only after some seconds."""
        a, offer = self.account, self.account.offer
        shown: dict[str, Callable[[], list[Json]]] = {
            "account/keys": lambda: self.visible(a.keys),
            "vpcs": lambda: [vpc.shown() for vpc in self.visible(a.vpcs)],
            "tags": lambda: [self.tag_shown(tag) for tag in self.visible(a.tags)],
            "firewalls": lambda: self.visible(a.firewalls),
            "load_balancers": lambda: [self.balancer_shown(b)["load_balancer"] for b in self.visible(a.balancers)],
            "droplets": lambda: [self.droplet_shown(droplet)["droplet"] for droplet in self.visible(a.droplets)],
            "reserved_ips": lambda: [self.reserved_shown(r.ip)["reserved_ip"] for r in self.visible(a.reserved)],
            "sizes": lambda: [offer.size_shown(slug) for slug in offer.sizes],
            "regions": lambda: [offer.region_shown(slug) for slug in offer.regions],
            "images": lambda: [offer.image_shown(slug) for slug in offer.images],
        }
        names = {"account/keys": "ssh_keys"}

        def listing(path: str) -> Callable[..., Json]:
            return lambda _: {names.get(path, path): (all_ := shown[path]()), "meta": {"total": len(all_)}, "links": {}}

        limits = offer.limits
        account = {"droplet_limit": limits.droplets, "reserved_ip_limit": limits.reserved_ips, "status": "active"}
        return [("GET", path, listing(path)) for path in shown] + [("GET", "account", lambda _: {"account": account})]

    def answer(self, method: str, target: str, authorization: str | None, body: Json) -> tuple[int, Json | None]:
        """Answer one call: the status and the JSON."""
        path = urlsplit(target).path
        body = {**dict(parse_qsl(urlsplit(target).query)), **body}
        with self.account.lock:
            self.calls.append((method, path))
            try:
                self.account.called()
                if authorization != f"Bearer {self.token}":
                    raise UNAUTHORIZED
                return self._routed(method, path.removeprefix("/v2/"), body)
            except CloudError as error:
                self.refused.append(f"{method} {path}: {error.status} {error.message}")
                return error.status, {"id": error.code, "message": error.message}

    def _routed(self, method: str, path: str, body: Json) -> tuple[int, Json | None]:
        for verb, pattern, handle in self.routes:
            match = re.fullmatch(pattern, path)
            if verb == method and match:
                for scope in _scopes(verb, path):
                    self.account.authorize(scope)
                reply = handle(*match.groups(), body)
                if method != "GET":
                    self.find_targets()
                if method == "POST" and reply is not None:
                    return 202 if "droplets" in path or "load_balancers" in path else 201, reply
                return 200 if reply is not None else 204, reply
        self.unknown.append((method, path))
        raise NOT_FOUND

    @property
    def wrong(self) -> list[tuple[str, str]]:
        """What came that this double cannot answer."""
        return self.unknown

    def inventory(self) -> Json:
        """What the account would be billed for, and what else a stack leaves behind."""
        return self.account.inventory()

    def visible(self, those: Store[Any]) -> list[Any]:
        """What a list shows."""
        return those.visible(self.account.pace.visible)

    # ---------------------------------------------------------------------------------------- how things are shown

    def tag_shown(self, name: str) -> Json:
        droplets = sum(name in droplet.tags for droplet in self.account.droplets.values())
        counts = {kind: {"count": 0} for kind in ("images", "volumes", "volume_snapshots", "databases")}
        return {"name": name, "resources": {"count": droplets, "droplets": {"count": droplets}, **counts}}

    def balancer_shown(self, balancer: LoadBalancer) -> Json:
        return {"load_balancer": balancer.shown([droplet.id for droplet in self.account.targets(balancer)])}

    def droplet_shown(self, droplet: Droplet) -> Json:
        self.account.status(droplet)
        return {"droplet": droplet.shown(self.account.offer)}

    def reserved_shown(self, ip: str) -> Json:
        reserved = self.account.reserved.get(ip)
        droplet = self.account.droplets[str(reserved.droplet)] if reserved.droplet else None
        shown = {"ip": ip, "droplet": droplet and self.droplet_shown(droplet)["droplet"], "locked": False}
        return {"reserved_ip": {**shown, "region": {"slug": reserved.region}, "project_id": ""}}

    def action_shown(self, id: str) -> Json:
        return {"action": self.account.actions.get(id).shown(self.account.clock.now())}

    def actions_of_droplet(self, id: str, _: Json) -> Json:
        droplet, now = self.account.droplets.get(id), self.account.clock.now()
        shown = [action.shown(now) for action in self.account.actions.values() if action.resource == id]
        made = {"id": 1, "type": "create", "status": "in-progress" if now < droplet.busy_until else "completed"}
        return {"actions": [made, *shown], "meta": {"total": 1 + len(shown)}}

    # ---------------------------------------------------------------------------------------- what machines do

    def tag(self, name: str, body: Json, *, tagged: bool) -> None:
        self.account.tag_droplets(name, [resource["resource_id"] for resource in body["resources"]], tagged=tagged)

    def add_balancer(self, body: Json) -> Json:
        """Its rules and health check are kept as asked; what the real one has of them is what HAProxy is told."""
        balancer = self.account.add_balancer(body)
        network, asked = self.account.vpcs[body["vpc_uuid"]].ip_range, body["health_check"]
        check = Check(
            path=asked["path"],
            interval=asked["check_interval_seconds"],
            timeout=asked["response_timeout_seconds"],
            rise=asked["healthy_threshold"],
            fall=asked["unhealthy_threshold"],
            idle=body["http_idle_timeout_seconds"],
            keepalive=body.get("enable_backend_keepalive", False),
        )

        def start() -> None:
            address = self.fake_account.create_load_balancer(body["name"], network, check)
            self.enter(balancer, address)
            with self.account.lock:
                self.account.balancer_started(balancer, address)
                self.find_targets()

        threading.Thread(target=start).start()
        return self.balancer_shown(balancer)

    def change_balancer(self, id: str, body: Json) -> Json:
        balancer = self.account.change_balancer(id, body)
        self.enter(balancer, balancer.address)
        return self.balancer_shown(balancer)

    def enter(self, balancer: LoadBalancer, address: str) -> None:
        """Let visitors in as the balancer's rules say."""
        entrance = entrance_of(self.account, self.fake_account, balancer)
        if entrance != self.entrances.get(address, Entrance()):
            self.entrances[address] = entrance
            self.fake_account.set_entrance(address, entrance)

    def delete_balancer(self, id: str, _: Json) -> None:
        self.fake_account.remove(self.account.delete_balancer(id).address)

    def find_targets(self) -> None:
        """Tell every balancer which droplets have its tag."""
        for balancer in self.account.balancers.values():
            if balancer.address:
                inside = [droplet.private_address for droplet in self.account.targets(balancer)]
                if inside != self.fake_account.members.get(balancer.address):
                    self.fake_account.set_targets(balancer.address, inside)

    def add_droplet(self, body: Json) -> Json:
        droplet = self.account.add_droplet(body)
        keys = [self.account.keys[str(number)]["public_key"] for number in body["ssh_keys"]]
        network = self.account.vpcs[droplet.vpc].ip_range

        def boot() -> None:
            data, key = body.get("user_data"), keys[0] if keys else None
            machine = self.fake_account.network.boot(body["name"], user_data=data, authorized_key=key)
            inside = self.fake_account.attach_to_network(machine.address, network)
            with self.account.lock:
                self.machines[droplet.id] = machine
                self.account.booted(droplet, machine.address, inside, is_on=lambda: machine.is_on)
                self.find_targets()

        threading.Thread(target=boot).start()
        return self.droplet_shown(droplet)

    def act_on_droplet(self, id: str, body: Json) -> Json:
        droplet, action = self.account.act_on_droplet(id, body)
        machine = self.machines[droplet.id]
        if action.type == "shutdown" and not droplet.hung:
            machine.run(["systemctl", "--no-block", "poweroff"])
        elif action.type == "power_off":
            machine.power_off()
        elif action.type == "power_on":
            machine.boot_again()
        return self.action_shown(str(action.id))

    def delete_droplet(self, id: str, _: Json) -> None:
        droplet = self.account.delete_droplet(id)
        self.find_targets()
        self.machines.pop(droplet.id).power_off()

    def reserve(self, body: Json) -> Json:
        """Reserve an address that nobody had before, as it is likely in a cloud."""
        address = next(self.addresses)
        self.account.add_reserved(address, body["region"])
        return self.reserved_shown(address)

    def act_on_reserved(self, address: str, body: Json) -> Json:
        before, reserved, action = self.account.act_on_reserved(address, body)
        if before in self.machines and self.machines[before].is_on:
            self.machines[before].run(f"ip address delete {address}/27 dev host0", check=False)
        if reserved.droplet:
            self.machines[reserved.droplet].add_address(f"{address}/27")
        # Other than a cloud's network, this computer remembers which machine had the address.
        subprocess.run(["ip", "neighbour", "flush", "to", address], check=True)
        return self.action_shown(str(action.id))


def _scopes(method: str, path: str) -> tuple[str, ...]:
    """The scopes that a call requires."""
    kind = "account/keys" if path.startswith("account/keys") else path.partition("/")[0]
    verb = "update" if method == "POST" and path.endswith("/actions") else VERBS[method]
    return (f"{SCOPES[kind]}:{verb}", *(FOR_A_DROPLET if (method, path) == ("POST", "droplets") else ()))


def _nothing(_: object) -> None:
    """Nothing comes back of a deletion."""


def _handler(api: DigitalOceanApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, reply = api.answer(self.command, self.path, self.headers["Authorization"], json.loads(body or "{}"))
            text = json.dumps(reply).encode() if reply is not None else b""
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: `calls` holds them."""

    return Handler
