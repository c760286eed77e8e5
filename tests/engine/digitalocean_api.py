"""DigitalOcean's HTTP API as far as this project's resources need it, with throwaway machines for droplets.

Written after the public reference of the API (version 2). Firewalls are kept, not enforced. A load balancer is a real
one, and every droplet with its tag is its target from the moment it is made to the moment it is deleted. A call that
this does not know is answered with 404 and kept in `unknown`, so that a test can say what is missing here.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import itertools
import json
import re
import subprocess
import threading
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rehearsal.backend import Check
from rehearsal.machines.machine import Machine
from tests.support.fake_account import FakeAccount

Json = dict[str, Any]
CREATED_AT = "2026-01-01T00:00:00Z"


class RefusedError(Exception):
    """An answer that is an error: status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(kw_only=True)
class Droplet:
    """What was asked for, and the machine that came of it: None while it boots."""

    id: int
    asked: Json
    machine: Machine | None = None
    inside: str = ""

    @property
    def status(self) -> str:
        if self.machine is None:
            return "new"
        return "active" if self.machine.is_on else "off"

    def shown(self) -> Json:
        addresses = []
        if self.machine:
            for kind, address, mask in (
                ("private", self.inside, "255.255.240.0"),
                ("public", self.machine.address, "255.255.255.224"),
            ):
                addresses.append({"ip_address": address, "netmask": mask, "gateway": "", "type": kind})
        features = [name for name in ("ipv6", "monitoring", "backups") if self.asked.get(name)]
        return {
            "id": self.id,
            "name": self.asked["name"],
            "memory": 1024,
            "vcpus": 1,
            "disk": 25,
            "locked": False,
            "status": self.status,
            "created_at": CREATED_AT,
            "features": [*features, "private_networking"],
            "image": {"id": 1, "slug": self.asked["image"]},
            "size": {"slug": self.asked["size"], "price_hourly": 0.01, "price_monthly": 6.0},
            "size_slug": self.asked["size"],
            "networks": {"v4": addresses, "v6": []},
            "region": {"slug": self.asked["region"], "name": self.asked["region"]},
            "tags": self.asked["tags"],
            "vpc_uuid": self.asked["vpc_uuid"],
            "volume_ids": [],
        }


@dataclass(kw_only=True)
class LoadBalancer:
    """What was asked for, and the address of the balancer that came of it: none while it starts."""

    id: str
    asked: Json
    address: str = ""

    def shown(self) -> Json:
        return {
            **self.asked,
            "id": self.id,
            "ip": self.address,
            "status": "active" if self.address else "new",
            "type": "REGIONAL",
            "algorithm": "round_robin",
            "size": "",
            "created_at": CREATED_AT,
            "region": {"slug": self.asked["region"], "name": self.asked["region"]},
            "sticky_sessions": {"type": "none"},
            "droplet_ids": [],
            "network": "EXTERNAL",
            "network_stack": "IPV4",
        }


@dataclass(kw_only=True)
class DigitalOcean:
    """One account. `calls` are all that came, as ("POST", "/v2/droplets")."""

    fake_account: FakeAccount
    token: str
    calls: list[tuple[str, str]] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)
    keys: dict[int, Json] = field(default_factory=dict)
    vpcs: dict[str, Json] = field(default_factory=dict)
    tags: dict[str, Json] = field(default_factory=dict)
    firewalls: dict[str, Json] = field(default_factory=dict)
    balancers: dict[str, LoadBalancer] = field(default_factory=dict)
    droplets: dict[int, Droplet] = field(default_factory=dict)
    reserved: dict[str, int | None] = field(default_factory=dict)
    """The droplet of each reserved address."""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.numbers = itertools.count(1001)
        self.routes: list[tuple[str, str, Callable[..., Json | None]]] = [
            ("POST", "/v2/account/keys", self.add_key),
            ("GET", r"/v2/account/keys/(\d+)", lambda id, _: {"ssh_key": self.found(self.keys, int(id))}),
            ("DELETE", r"/v2/account/keys/(\d+)", lambda id, _: self.remove(self.keys, int(id))),
            ("POST", "/v2/vpcs", self.add_vpc),
            ("GET", "/v2/vpcs/([^/]+)", lambda id, _: {"vpc": self.found(self.vpcs, id)}),
            ("DELETE", "/v2/vpcs/([^/]+)", self.remove_vpc),
            ("POST", "/v2/tags", self.add_tag),
            ("GET", "/v2/tags/([^/]+)", lambda name, _: {"tag": self.found(self.tags, name)}),
            ("DELETE", "/v2/tags/([^/]+)", lambda name, _: self.remove(self.tags, name)),
            ("POST", "/v2/firewalls", self.add_firewall),
            ("GET", "/v2/firewalls/([^/]+)", lambda id, _: {"firewall": self.found(self.firewalls, id)}),
            ("PUT", "/v2/firewalls/([^/]+)", self.change_firewall),
            ("DELETE", "/v2/firewalls/([^/]+)", lambda id, _: self.remove(self.firewalls, id)),
            ("POST", "/v2/load_balancers", self.add_balancer),
            (
                "GET",
                "/v2/load_balancers/([^/]+)",
                lambda id, _: {"load_balancer": self.found(self.balancers, id).shown()},
            ),
            ("PUT", "/v2/load_balancers/([^/]+)", self.change_balancer),
            ("DELETE", "/v2/load_balancers/([^/]+)", self.remove_balancer),
            ("POST", "/v2/droplets", self.add_droplet),
            ("GET", r"/v2/droplets/(\d+)", lambda id, _: {"droplet": self.found(self.droplets, int(id)).shown()}),
            ("GET", r"/v2/droplets/(\d+)/actions", lambda id, _: {"actions": [], "meta": {"total": 0}}),
            ("POST", r"/v2/droplets/(\d+)/actions", self.act_on_droplet),
            ("DELETE", r"/v2/droplets/(\d+)", self.remove_droplet),
            ("POST", "/v2/reserved_ips", self.reserve),
            ("GET", "/v2/reserved_ips/([^/]+)", lambda ip, _: self.reserved_shown(ip)),
            ("DELETE", "/v2/reserved_ips/([^/]+)", lambda ip, _: self.remove(self.reserved, ip)),
            ("POST", "/v2/reserved_ips/([^/]+)/actions", self.act_on_reserved),
            ("GET", r"/v2/reserved_ips/([^/]+)/actions/(\d+)", lambda ip, id, _: self.done(int(id), "assign_ip")),
        ]
        account = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, reply = account.answer(
                    self.command, self.path.partition("?")[0], self.headers["Authorization"], json.loads(body or "{}")
                )
                text = json.dumps(reply).encode() if reply is not None else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: `calls` holds them."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, authorization: str | None, body: Json) -> tuple[int, Json | None]:
        """One call: the status and the JSON of its answer."""
        with self.lock:
            self.calls.append((method, path))
            if authorization != f"Bearer {self.token}":
                return 401, {"id": "unauthorized", "message": "Unable to authenticate you"}
            for verb, pattern, handle in self.routes:
                match = re.fullmatch(pattern, path)
                if verb == method and match:
                    try:
                        reply = handle(*match.groups(), body)
                    except RefusedError as error:
                        return error.status, {"id": "refused", "message": str(error)}
                    if method == "POST":
                        return 202 if "droplets" in path or "load_balancers" in path else 201, reply
                    return 200 if reply is not None else 204, reply
            self.unknown.append((method, path))
            return 404, {"id": "not_found", "message": f"this double does not know {method} {path}"}

    @property
    def wrong(self) -> list[tuple[str, str]]:
        """What came that this double cannot answer."""
        return self.unknown

    def inventory(self) -> Json:
        """What the account would be billed for."""
        every: list[Collection[Any]] = [
            self.keys,
            self.vpcs,
            self.tags,
            self.firewalls,
            self.balancers,
            self.droplets,
            self.reserved,
        ]
        names = ("keys", "vpcs", "tags", "firewalls", "balancers", "droplets", "reserved")
        return {name: list(those) for name, those in zip(names, every, strict=True) if those}

    @staticmethod
    def found(those: dict[Any, Any], key: Any) -> Any:
        if key not in those:
            raise RefusedError(404, "The resource you were accessing could not be found.")
        return those[key]

    def remove(self, those: dict[Any, Any], key: Any) -> None:
        self.found(those, key)
        del those[key]

    def done(self, number: int, kind: str) -> Json:
        return {"action": {"id": number, "status": "completed", "type": kind, "started_at": CREATED_AT,
                           "completed_at": CREATED_AT}}  # fmt: skip

    # ---------------------------------------------------------------------------------------- what can be made

    def add_key(self, body: Json) -> Json:
        digest = hashlib.md5(base64.b64decode(body["public_key"].split()[1])).hexdigest()
        fingerprint = ":".join(digest[i : i + 2] for i in range(0, 32, 2))
        if any(key["fingerprint"] == fingerprint for key in self.keys.values()):
            raise RefusedError(422, "SSH Key is already in use on your account")
        number = next(self.numbers)
        # The real one gives the key back without the newline that it may come with.
        made = {
            "id": number,
            "fingerprint": fingerprint,
            "name": body["name"],
            "public_key": body["public_key"].strip(),
        }
        self.keys[number] = made
        return {"ssh_key": made}

    def add_vpc(self, body: Json) -> Json:
        id = str(uuid.uuid4())
        made = {"description": "", "ip_range": "10.110.0.0/20", **body, "default": False, "created_at": CREATED_AT}
        self.vpcs[id] = {**made, "id": id, "urn": f"do:vpc:{id}"}
        return {"vpc": self.vpcs[id]}

    def remove_vpc(self, id: str, _: Json) -> None:
        members: list[Any] = [*self.droplets.values(), *self.balancers.values()]
        if any(member.asked["vpc_uuid"] == id for member in members):
            raise RefusedError(409, "Can not delete VPC with members")
        self.remove(self.vpcs, id)

    def add_tag(self, body: Json) -> Json:
        counts = {kind: {"count": 0} for kind in ("droplets", "images", "volumes", "volume_snapshots", "databases")}
        self.tags[body["name"]] = {"name": body["name"], "resources": {"count": 0, **counts}}
        return {"tag": self.tags[body["name"]]}

    def add_firewall(self, body: Json) -> Json:
        return self.keep_firewall(str(uuid.uuid4()), body)

    def change_firewall(self, id: str, body: Json) -> Json:
        self.found(self.firewalls, id)
        return self.keep_firewall(id, body)

    def keep_firewall(self, id: str, body: Json) -> Json:
        for tag in body["tags"]:
            self.found(self.tags, tag)
        for rule in body["inbound_rules"]:
            for balancer in rule["sources"].get("load_balancer_uids") or ():
                self.found(self.balancers, balancer)
        self.firewalls[id] = {**body, "id": id, "status": "succeeded", "created_at": CREATED_AT, "pending_changes": []}
        return {"firewall": self.firewalls[id]}

    # ---------------------------------------------------------------------------------------- load balancers

    def add_balancer(self, body: Json) -> Json:
        """Its rules and health check are kept as asked; what the real one has of them is what HAProxy is told."""
        network = self.found(self.vpcs, body["vpc_uuid"])["ip_range"]
        self.found(self.tags, body["tag"])
        if body.get("droplet_ids"):
            raise RefusedError(422, "Only one of tag and droplet_ids can be set")
        asked = body["health_check"]
        check = Check(
            path=asked["path"],
            interval=asked["check_interval_seconds"],
            timeout=asked["response_timeout_seconds"],
            rise=asked["healthy_threshold"],
            fall=asked["unhealthy_threshold"],
            idle=body["http_idle_timeout_seconds"],
            keepalive=body.get("enable_backend_keepalive", False),
        )
        balancer = LoadBalancer(id=str(uuid.uuid4()), asked=body)
        self.balancers[balancer.id] = balancer

        def start() -> None:
            address = self.fake_account.create_load_balancer(body["name"], network, check)
            with self.lock:
                balancer.address = address
                self.find_targets()

        threading.Thread(target=start).start()
        return {"load_balancer": balancer.shown()}

    def change_balancer(self, id: str, body: Json) -> Json:
        """Keep what is asked from now on. HAProxy goes on with the time-outs that it was started with."""
        balancer = self.found(self.balancers, id)
        if body["name"] != balancer.asked["name"] or body["tag"] != balancer.asked["tag"]:
            raise RefusedError(422, "this double changes neither the name nor the tag of a load balancer")
        balancer.asked = body
        return {"load_balancer": balancer.shown()}

    def remove_balancer(self, id: str, _: Json) -> None:
        balancer = self.found(self.balancers, id)
        self.fake_account.remove(balancer.address)
        del self.balancers[id]

    def find_targets(self) -> None:
        """Tell every balancer which droplets have its tag."""
        for balancer in self.balancers.values():
            if balancer.address:
                its = [
                    d.inside for d in self.droplets.values() if d.inside and balancer.asked["tag"] in d.asked["tags"]
                ]
                self.fake_account.set_targets(balancer.address, its)

    # ---------------------------------------------------------------------------------------- droplets

    def add_droplet(self, body: Json) -> Json:
        self.found(self.vpcs, body["vpc_uuid"])
        keys = [self.found(self.keys, int(number))["public_key"] for number in body["ssh_keys"]]
        droplet = Droplet(id=next(self.numbers), asked=body)
        self.droplets[droplet.id] = droplet

        network = self.vpcs[body["vpc_uuid"]]["ip_range"]

        def boot() -> None:
            data, key = body.get("user_data"), keys[0] if keys else None
            machine = self.fake_account.network.boot(body["name"], user_data=data, authorized_key=key)
            inside = self.fake_account.attach_to_network(machine.address, network)
            with self.lock:
                droplet.machine, droplet.inside = machine, inside
                self.find_targets()

        threading.Thread(target=boot).start()
        return {"droplet": droplet.shown()}

    def act_on_droplet(self, id: str, body: Json) -> Json:
        droplet = self.found(self.droplets, int(id))
        if body["type"] != "shutdown":
            raise RefusedError(422, f"this double does not know the action {body['type']}")
        droplet.machine.run(["systemctl", "--no-block", "poweroff"])
        return self.done(next(self.numbers), "shutdown")

    def remove_droplet(self, id: str, _: Json) -> None:
        droplet = self.found(self.droplets, int(id))
        for address, holder in self.reserved.items():
            if holder == droplet.id:
                self.reserved[address] = None
        del self.droplets[droplet.id]
        self.find_targets()
        droplet.machine.power_off()

    # ---------------------------------------------------------------------------------------- reserved addresses

    def reserve(self, body: Json) -> Json:
        # From the end of the network: machines are counted from its beginning.
        network = ipaddress.ip_network(self.fake_account.network.cidr)
        address = next(a for a in map(str, reversed(list(network.hosts()))) if a not in self.reserved)
        self.reserved[address] = None
        return self.reserved_shown(address, body["region"])

    def reserved_shown(self, address: str, region: str = "fra1") -> Json:
        holder = self.found(self.reserved, address)
        droplet = self.droplets[holder].shown() if holder else None
        shown = {"ip": address, "droplet": droplet, "region": {"slug": region}, "locked": False, "project_id": ""}
        return {"reserved_ip": shown}

    def act_on_reserved(self, address: str, body: Json) -> Json:
        before = self.found(self.reserved, address)
        if before and self.droplets[before].status == "active":
            machine = self.droplets[before].machine
            assert machine
            machine.run(f"ip address delete {address}/27 dev host0")
        self.reserved[address] = None
        if body["type"] == "assign":
            droplet = self.found(self.droplets, body["droplet_id"])
            assert droplet.machine, "the provider assigns to active droplets alone"
            droplet.machine.add_address(f"{address}/27")
            self.reserved[address] = droplet.id
        # Other than a cloud's network, this computer remembers which machine had the address.
        subprocess.run(["ip", "neighbour", "flush", "to", address], check=True)
        return self.done(next(self.numbers), "assign_ip" if body["type"] == "assign" else "unassign_ip")
