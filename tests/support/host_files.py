"""What the tests of machines' files share: checkers, a parser of nginx's configuration, a release's surroundings."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant.host import render, steps
from decant_host.protocol import HttpsSettings
from tests.support.in_memory import REPOSITORY

HERE = REPOSITORY / "infra" / "decant" / "host"
BIN = Path(sys.executable).parent
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def program(name: str) -> str:
    """A checker's path; the test is skipped, and says why, where it is not installed."""
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        pytest.skip(f"{name} is not installed on this computer")
    return found


# A proxy of the user's own, and a load balancer that takes HTTP alone.
OWN = render.Proxy(networks=("10.0.0.5/32", "fd00::/8"), trusts_forwarded_proto=True, drain_seconds=25, idle_timeout=60)
CLOUDS = render.Proxy(networks=("10.110.0.0/20",), trusts_forwarded_proto=False, drain_seconds=25, idle_timeout=600)
ADDRESS = render.HostSite(names=("203.0.113.7",))
NAMED = render.HostSite(names=("www.example.com", "10.0.0.7"))
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"site": ADDRESS, "proxy": None, "health_path": "/healthz"},
    "ipv6": {"site": render.HostSite(names=("[2001:db8::7]",)), "proxy": None, "health_path": "/healthz"},
    "url": {"site": NAMED, "proxy": None, "health_path": "/up"},
    "proxied": {
        "site": replace(NAMED, scheme="https"),
        "proxy": OWN,
        "health_path": "/healthz?deep=1",
    },
    "balanced": {"site": ADDRESS, "proxy": CLOUDS, "health_path": None},
    "front-page": {"site": ADDRESS, "proxy": CLOUDS, "health_path": "/"},
}
# Machines that get HTTPS by themselves: for a name with a redirect, and for an address.
BY_NAME: HttpsSettings = {
    "names": ["www.example.com", "example.com"], "by_address": False, "own": False, "profile": "classic",
    "server": "https://acme.example/directory", "root": False, "email": None, "resolvers": [], "hsts": None,
}  # fmt: skip
BY_ADDRESS: HttpsSettings = {**BY_NAME, "names": ["203.0.113.7"], "by_address": True, "profile": "shortlived"}
HTTPS_SHAPES: dict[str, dict[str, Any]] = {
    "https": {
        "site": replace(NAMED, redirects=("example.com",), tunnel_names=("localhost",), https=BY_NAME),
        "proxy": None,
        "health_path": None,
    },
    "https-address": {"site": replace(ADDRESS, https=BY_ADDRESS), "proxy": None, "health_path": None},
    "https-proxied": {
        "site": replace(NAMED, redirects=("example.com",), scheme="https", hsts=True),
        "proxy": replace(CLOUDS, trusts_forwarded_proto=True),
        "health_path": None,
    },
}
LIMITS = render.Limits(request_timeout=30, max_body=16 << 20)
SHAPES = {shape: {"machine": "web-2", "limits": LIMITS, **given} for shape, given in SHAPES.items()}
HTTPS_SHAPES = {shape: {"machine": "web-2", "limits": LIMITS, **given} for shape, given in HTTPS_SHAPES.items()}
PROXIED = {shape for shape, given in SHAPES.items() if given["proxy"]}


@dataclass
class Directive:
    """A line of nginx's configuration, with those inside its braces."""

    words: list[str]
    inner: list[Directive] = field(default_factory=list)

    def all(self, name: str) -> Iterator[Directive]:
        """Every directive of that name, at any depth."""
        for one in self.inner:
            if one.words[0] == name:
                yield one
            yield from one.all(name)

    def own(self, name: str) -> list[list[str]]:
        """The arguments of the directives of that name at this level."""
        return [one.words[1:] for one in self.inner if one.words[0] == name]


def parse(text: str) -> Directive:
    """nginx's grammar: words, quoted words, braces, semicolons, comments."""
    tokens = re.findall(r"""\s*(?:\#[^\n]*|("(?:\\.|[^"])*"|'(?:\\.|[^'])*'|[{};]|[^\s;{}'"]+))""", text)
    root = Directive(words=["root"])
    open_blocks, words = [root], list[str]()
    for token in filter(None, tokens):
        if token == "}":
            open_blocks.pop()
        elif token in ("{", ";"):
            made = Directive(words=words)
            open_blocks[-1].inner.append(made)
            words = []
            if token == "{":
                open_blocks.append(made)
        else:
            words.append(token.strip("\"'"))
    assert open_blocks == [root]
    assert not words
    return root


RELEASE = "0123456789ab"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What systemd and the release's folder would give a program on a machine."""
    (tmp_path / "environment.json").write_text(json.dumps({"GREETING": "hello", "SECRET_KEY": "canary"}))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    for name, value in {
        "DECANT_RELEASE": RELEASE,
        "DECANT_APP": "",
        "GREETING": "",
        "SECRET_KEY": "",
        "PATH": "/bin",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", [str(HERE / "gunicorn"), *sys.path])
    settings = {"entry": "shop:create_app()", "workers": None, "threads": None, "release_command": "flask db upgrade"}
    inner = Path.read_text

    def read_text(self: Path, *words: Any, **more: Any) -> str:
        if str(self) == f"/var/lib/decant/releases/{RELEASE}/release.json":
            return json.dumps(settings)
        return inner(self, *words, **more)

    monkeypatch.setattr(Path, "read_text", read_text)
    return SimpleNamespace(settings=settings)


@pytest.fixture
def gunicorn(machine: SimpleNamespace) -> dict[str, Any]:
    """gunicorn's settings as gunicorn reads them."""
    return runpy.run_path(str(HERE / "gunicorn" / "gunicorn_settings.py"))


UNITS = {
    "app@0123456789ab.service": {"app@.service": "app@.service", "app@.service.d/sandbox.conf": "sandbox.conf"},
    "release@0123456789ab.service": {
        "release@.service": "release@.service",
        "release@.service.d/sandbox.conf": "sandbox.conf",
    },
    "decant-boot.service": {"decant-boot.service": "decant-boot.service"},
    "decant-firewall.service": {"decant-firewall.service": "decant-firewall.service"},
    "decant-certificate.service": {"decant-certificate.service": "decant-certificate.service"},
    "nginx.service": {"nginx.service.d/decant.conf": "nginx.conf"},
}


def service(name: str) -> dict[str, list[str]]:
    """The [Service] settings of a unit with its drop-ins, in order."""
    return section(name, "Service")


def section(name: str, title: str) -> dict[str, list[str]]:
    """The settings in one section of a unit with its drop-ins, in order."""
    made: dict[str, list[str]] = {}
    for source in UNITS[name].values():
        section = (HERE / "systemd" / source).read_text().partition(f"[{title}]\n")[2].partition("\n[")[0]
        for line in section.splitlines():
            if line and not line.startswith("#"):
                key, _, value = line.partition("=")
                made.setdefault(key, []).append(value)
    return made


def provision(**changes: Any) -> tuple[str, str]:
    """The `provision` step of a hardened machine, with these arguments changed."""
    given = {"stack": "blue", "user": "deploy", "harden": True, **SHAPES["plain"], **changes}
    return steps.provision_step(**given)
