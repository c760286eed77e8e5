"""The files whose content differs from machine to machine: nginx's configuration and the program's settings."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass

import jinja2

from decant.host.manifest import HERE

HEALTH_PATH = "/healthz"
"""The path of health checks in a stack that sets none."""

KEEPALIVE = 15
"""Seconds that nginx keeps a visitor's idle connection."""

KEEPALIVE_BEHIND_PROXY = 75
"""The same for a proxy's. It must be more than the proxy's own idle time-out, usually 60 s: the proxy would otherwise
send a request on a connection that nginx is closing, and answer the visitor with 502."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """What stands between visitors and nginx: a cloud's load balancer or a proxy of the user's.

    `networks` are the CIDRs that it connects from: X-Forwarded-For is believed from these only.
    `trusts_forwarded_proto`: so is its X-Forwarded-Proto. `drain_seconds` is the time until it sends no more requests
    to a machine whose health check fails.
    """

    networks: tuple[str, ...]
    trusts_forwarded_proto: bool
    drain_seconds: int


def nginx_conf(*, machine: str, names: Iterable[str], proxy: Proxy | None, health_path: str | None) -> str:
    """nginx's whole configuration.

    `names` are the host names of the site, the main one first; requests for other names get no answer. `machine` is
    the machine's tag. With `health_path` None the stack sets no health path, and the front page is checked where the
    app has no page at HEALTH_PATH.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "nginx"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - nginx's language, not HTML; the settings allow only safe characters
    )
    return environment.get_template("nginx.conf.j2").render(
        machine=machine,
        names=list(names),
        proxy=proxy,
        health_location=(health_path or HEALTH_PATH).partition("?")[0],
        front_page_is_health=health_path is None,
        keepalive=KEEPALIVE_BEHIND_PROXY if proxy else KEEPALIVE,
    )


def settings_json(*, stack: str, name: str, proxy: Proxy | None) -> str:
    """What decant_host reads on the machine as /etc/decant/settings.json; `name` is the site's main host name."""
    return json.dumps({"stack": stack, "name": name, "drain_seconds": proxy.drain_seconds if proxy else 0})


def server_name(address: str) -> str:
    """An address in the form that a Host header has."""
    try:
        return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        return address.lower()
