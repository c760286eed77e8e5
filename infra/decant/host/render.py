"""The files whose content differs from machine to machine: nginx's configuration and the program's settings."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field

import jinja2

from decant.host.manifest import HERE
from decant_host.protocol import HttpsSettings, kept_after_switch

HEALTH_PATH = "/healthz"
"""The path of health checks in a stack that sets none."""

KEEPALIVE = 15
"""Seconds that nginx keeps a visitor's idle connection."""

KEEPALIVE_MARGIN = 15
"""Seconds that nginx keeps a proxy's idle connection for longer than the proxy itself does. The proxy would otherwise
send a request on a connection that nginx is closing, and answer the visitor with 502."""

STOP_MARGIN = 10
"""Seconds that systemd gives a release to stop besides those that gunicorn gives to what is under way."""

WEBSOCKET_IDLE = 3600
"""Seconds that a WebSocket may be silent in both directions. What is in front may be less patient."""

BELOW_500 = (*range(300, 304), 305, 306, 307, 308, *range(400, 432), 451)
"""Statuses of an app's answers that are neither a success nor an error of the server's."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """What stands between visitors and nginx: a cloud's load balancer or a proxy of the user's.

    `networks` are the CIDRs that it connects from: X-Forwarded-For is believed from these only.
    `trusts_forwarded_proto`: so is its X-Forwarded-Proto. `drain_seconds` is the time until it sends no more requests
    to a machine whose health check fails. `idle_timeout`: the seconds that it keeps an idle connection.
    """

    networks: tuple[str, ...]
    trusts_forwarded_proto: bool
    drain_seconds: int
    idle_timeout: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may take: seconds until the app answers, and bytes of the body."""

    request_timeout: int
    max_body: int


@dataclass(frozen=True, kw_only=True)
class HostSite:
    """The names that a machine answers to, and how.

    `names` are the site's own name and then those that show the same, such as the address. `redirects` lead to the
    site's own. `tunnel_names` show the same over plain HTTP alone, for a rehearsal that is watched through a tunnel.
    Requests for other names get no answer.

    `scheme` is how visitors come where a balancer or a proxy stands before the machine, and `hsts` whether they are
    told to use HTTPS alone then. `https` says how the machine itself gets a certificate, None where it gets none.
    `acme_root`, `certificate` and `certificate_key` are PEM texts for it, "" where there is none.
    """

    names: tuple[str, ...]
    redirects: tuple[str, ...] = ()
    tunnel_names: tuple[str, ...] = ()
    scheme: str = "http"
    hsts: bool = False
    https: HttpsSettings | None = None
    acme_root: str = ""
    certificate: str = ""
    certificate_key: str = field(default="", repr=False)


def nginx_conf(*, machine: str, site: HostSite, proxy: Proxy | None, health_path: str | None, limits: Limits) -> str:
    """nginx's whole configuration.

    `machine` is the machine's tag. With `health_path` None the stack sets no health path, and the front page is checked
    where the app does not answer 200 at HEALTH_PATH.
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
        names=list(site.names),
        redirects=list(site.redirects),
        tunnel_names=list(site.tunnel_names),
        scheme=site.scheme,
        https=site.https,
        hsts=_hsts(site),
        proxy=proxy,
        health_location=(health_path or HEALTH_PATH).partition("?")[0],
        front_page_is_health=health_path is None,
        below_500=" ".join(map(str, BELOW_500)),
        keepalive=proxy.idle_timeout + KEEPALIVE_MARGIN if proxy else KEEPALIVE,
        request_timeout=limits.request_timeout,
        max_body=limits.max_body,
        websocket_idle=WEBSOCKET_IDLE,
    )


def _hsts(site: HostSite) -> str:
    """When nginx sends HSTS: never (""), "always", or "once-renewed" where decant-host says so by a file."""
    if site.https:
        return "" if site.https["by_address"] or site.https["hsts"] is False else "once-renewed"
    return "always" if site.hsts and site.scheme == "https" else ""


def certificate_files(site: HostSite) -> dict[str, str]:
    """The PEM files of a machine's own HTTPS by name, empty where there is none."""
    return {
        "acme-root.pem": site.acme_root,
        "certificate.pem": site.certificate,
        "certificate-key.pem": site.certificate_key,
    }


def settings_json(*, stack: str, machine: str, site: HostSite, proxy: Proxy | None, limits: Limits) -> str:
    """What decant_host and remove.sh read on the machine as /etc/decant/settings.json. `machine` is its tag."""
    return json.dumps(
        {
            "stack": stack,
            "machine": machine,
            "name": site.names[0],
            "scheme": site.scheme,
            "https": site.https,
            "drain_seconds": proxy.drain_seconds if proxy else 0,
            "request_timeout": limits.request_timeout,
        }
    )


def stop_timeout_conf(limits: Limits) -> str:
    """The part of the unit app@ that says how long a release may take to stop.

    gunicorn ends what is under way after `protocol.kept_after_switch`; systemd waits a little longer than that.
    """
    seconds = round(kept_after_switch(limits.request_timeout)) + STOP_MARGIN
    return f"# As long as requests, streams and WebSockets are kept, and more.\n[Service]\nTimeoutStopSec={seconds}\n"


def server_name(address: str) -> str:
    """An address in the form that a Host header has."""
    try:
        return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        return address.lower()
