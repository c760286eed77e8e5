"""Every setting: what is taken, what is refused, and what a refusal says."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from decant import settings
from decant.errors import SettingsError
from decant.settings import Host, Settings
from tests.unit.paper import APP, DROPLET, HOST, HOST_KEY, PRIVATE, PUBLIC, REPOSITORY, project

CANARY = "canary-4f1d9c"
EVERYWHERE = ("0.0.0.0/0", "::/0")
SECRET_NAMES = frozenset({"secrets", "sshPrivateKey"})


def host(**changes: Any) -> list[dict[str, Any]]:
    """The one host of the ssh stack, changed; a value of `...` leaves a field out."""
    one = {**HOST["hosts"][0], **changes}
    return [{k: v for k, v in one.items() if v is not ...}]


def hosts(*names: str) -> list[dict[str, Any]]:
    """Hosts of these names, each at an address of its own."""
    return [one for name in names for one in host(name=name, address=f"{name}.example.com")]


def ssh(**more: Any) -> dict[str, Any]:
    return {**HOST, **more}


def droplet(**more: Any) -> dict[str, Any]:
    return {**DROPLET, **more}


def private_key(kind: Any = None, *, form: str = "OpenSSH", password: bytes | None = None) -> str:
    made = kind or ed25519.Ed25519PrivateKey.generate()
    lock = s.BestAvailableEncryption(password) if password else s.NoEncryption()
    return str(made.private_bytes(s.Encoding.PEM, getattr(s.PrivateFormat, form), lock).decode())


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ELLIPTIC = ec.generate_private_key(ec.SECP256R1())
RSA_HOST_KEY = RSA.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH).decode()
EC_HOST_KEY = ELLIPTIC.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH).decode()
LOCKED_KEY = private_key(password=b"let me in")
LOCKED_RSA = private_key(RSA, form="TraditionalOpenSSL", password=b"let me in")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that nobody writes to."""
    made = project(tmp_path_factory.mktemp("settings") / "project")
    (made / "shop" / "public").mkdir(parents=True)
    for name in ("wsgi.py", "requirements.txt"):
        (made / "shop" / name).write_text(APP[name])
    return made


def read(
    folder: Path, config: Mapping[str, Any], secret: frozenset[str] = SECRET_NAMES, **providers: Mapping[str, Any]
) -> Settings:
    """The gate, given what Pulumi would hand over: text, and JSON for what has structure."""
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}
    return settings.parse(values, secret & values.keys(), stack="paper", project=folder, **providers)


def refused(
    folder: Path, config: Mapping[str, Any], secret: frozenset[str] = SECRET_NAMES, **providers: Mapping[str, Any]
) -> list[str]:
    """The problems, each with its two lines as one text."""
    with pytest.raises(SettingsError) as caught:
        read(folder, config, secret, **providers)
    head, *lines = str(caught.value).split("\n")
    problems = [text.strip() for text in re.split(r"\n  (?=[a-z]+:)", "\n" + "\n".join(lines)) if text.strip()]
    count = f"{len(problems)} problem" + ("" if len(problems) == 1 else "s")
    assert head == f"{count} in the settings of stack paper; nothing was changed."
    return problems


# ------------------------------------------------------------------------------------------------ what is taken

GOOD: list[tuple[dict[str, Any], str, Any]] = [
    (droplet(), "cloud", "digitalocean"),
    (ssh(), "cloud", "ssh"),
    (droplet(), "machines", 1),
    (droplet(machines=1), "machines", 1),
    (droplet(machines="1"), "machines", 1),
    (droplet(machines=2), "machines", 2),
    (droplet(machines=50), "machines", 50),
    (droplet(), "balancer", False),
    (droplet(machines=1), "balancer", False),
    (droplet(machines=2), "balancer", True),
    (droplet(machines=2, balancer=True), "balancer", True),
    (droplet(balancer=True), "balancer", True),
    (ssh(), "balancer", False),
    (ssh(hosts=hosts("b", "a")), "balancer", False),
    (droplet(), "size", "s-1vcpu-1gb"),
    (droplet(size="c-2-4gib"), "size", "c-2-4gib"),
    (droplet(), "region", "fra1"),
    (droplet(region="nyc3"), "region", "nyc3"),
    (droplet(), "image", "debian-13-x64"),
    (droplet(image="123456789"), "image", "123456789"),
    (ssh(), "size", ""),
    (droplet(balancer=False), "balancer", False),
    (droplet(adminCidrs=["100.64.7.9/32"]), "admin_cidrs", ("100.64.7.9/32",)),
    (droplet(adminCidrs=["100.64.7.9"]), "admin_cidrs", ("100.64.7.9/32",)),
    (droplet(adminCidrs=["10.0.0.0/8", "fd00::1"]), "admin_cidrs", ("10.0.0.0/8", "fd00::1/128")),
    (ssh(), "admin_cidrs", ()),
    (droplet(), "hosts", ()),
    (
        ssh(hosts=host(user=..., port=..., name=...)),
        "hosts",
        (Host(address="server.example.com", host_key=HOST_KEY, user="root", port=22, name="server.example.com"),),
    ),
    (
        ssh(hosts=host(address="2001:db8::7", hostKey=HOST_KEY + " root@shop", port="2222")),
        "hosts",
        (Host(address="2001:db8::7", host_key=HOST_KEY, user="carol", port=2222, name="shop"),),
    ),
    (ssh(hosts=host() + host(name="b", address="b.example.com")), "cloud", "ssh"),
    (ssh(hosts=host(address="192.168.1.5", user="_www-data", name="a.b_c-d:1")), "cloud", "ssh"),
    (ssh(), "ssh_private_key", PRIVATE),
    (ssh(sshPrivateKey="\n" + PRIVATE.strip() + "\n\n"), "ssh_private_key", PRIVATE),
    (ssh(sshPrivateKey=private_key(RSA)), "cloud", "ssh"),
    (ssh(sshPrivateKey=private_key(RSA, form="TraditionalOpenSSL")), "cloud", "ssh"),
    (ssh(sshPrivateKey=private_key(ELLIPTIC)), "cloud", "ssh"),
    (ssh(sshPrivateKey=private_key(ELLIPTIC, form="TraditionalOpenSSL")), "cloud", "ssh"),
    (droplet(), "ssh_private_key", None),
    (droplet(), "harden", True),
    (droplet(harden=False), "harden", False),
    (ssh(), "harden", False),
    (ssh(harden=True), "harden", True),
    (ssh(harden="True"), "harden", True),
    (ssh(), "trusted_proxies", ()),
    (ssh(trustedProxies=["10.0.0.5", "fd00::/8"]), "trusted_proxies", ("10.0.0.5/32", "fd00::/8")),
    (ssh(), "url", None),
    (ssh(url="http://www.example.com"), "url", "http://www.example.com"),
    (ssh(url="https://www.example.com/"), "url", "https://www.example.com"),
    (ssh(url="http://www.example.com:8080"), "url", "http://www.example.com:8080"),
    (ssh(url="http://10.1.2.3"), "url", "http://10.1.2.3"),
    (ssh(url="http://[2001:db8::7]:8080"), "url", "http://[2001:db8::7]:8080"),
    (droplet(database="none"), "cloud", "digitalocean"),
    (droplet(static="static"), "cloud", "digitalocean"),
    (droplet(), "env", {}),
    (
        droplet(env={"A": "text", "B": True, "C": 3, "D": 1.5, "_e2": "", "F": "true", "G": "a\nb"}),
        "env",
        {"A": "text", "B": "true", "C": "3", "D": "1.5", "_e2": "", "F": "true", "G": "a\nb"},
    ),
    (droplet(), "secrets", {}),
    (droplet(secrets={"KEY": CANARY, "PIN": 1234}), "secrets", {"KEY": CANARY, "PIN": "1234"}),
    (droplet(), "health_path", None),
    (droplet(healthPath="/"), "health_path", "/"),
    (droplet(healthPath="/api/v1.0/health_-~?deep=1&x=a.b"), "health_path", "/api/v1.0/health_-~?deep=1&x=a.b"),
    (droplet(), "health_timeout", 15),
    (droplet(healthTimeout=1), "health_timeout", 1),
    (droplet(healthTimeout="300"), "health_timeout", 300),
    (droplet(), "workers", None),
    (droplet(workers=1), "workers", 1),
    (droplet(workers=64), "workers", 64),
    (droplet(), "threads", None),
    (droplet(threads=128), "threads", 128),
    (droplet(), "rollout", "serial"),
    (droplet(rollout="parallel"), "rollout", "parallel"),
    (droplet(rollout=3), "rollout", "3"),
    (droplet(rollout="99"), "rollout", "99"),
    (droplet(), "release", None),
    (droplet(release="0123456789ab"), "release", "0123456789ab"),
]


@pytest.mark.parametrize(("config", "name", "value"), GOOD)
def test_taken(folder: Path, config: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(read(folder, config), name) == value


def test_taken_app_and_static(folder: Path) -> None:
    plain = read(folder, droplet()).app
    assert (plain.folder, plain.static, plain.entry) == (folder / "app", "static", "wsgi:app")
    shop = read(folder, droplet(app="shop", static="/public/")).app
    assert (shop.folder, shop.static) == (folder / "shop", "public")
    assert read(folder, droplet(app="shop")).app.static is None


def test_the_stacks_name_is_kept(folder: Path) -> None:
    assert read(folder, droplet()).stack == "paper"


def test_every_setting_is_tried() -> None:
    """A setting that joins the table joins these tests."""
    tried = {name for config, *_ in GOOD for name in config} | {name for config, *_ in BAD for name in config}
    assert tried >= set(settings.BY_NAME)
    bad = {re.match(r"[A-Za-z]+", at)[0] for _, at, *_ in BAD}  # type: ignore[index]
    assert bad >= set(settings.BY_NAME)


# ------------------------------------------------------------------------------------------------ what is refused

ONE_OF = "must be one of " + ", ".join(sorted(settings.KINDS))
TOO_LONG = "/" + 80 * "x " + "end"
# Configuration, what the message calls it, the value as shown ("" for none), what is allowed.
BAD: list[tuple[dict[str, Any], str, str, str]] = [
    ({"cloud": "azure"}, "cloud", '"azure"', ONE_OF),
    ({"cloud": "SSH"}, "cloud", '"SSH"', ONE_OF),
    ({"cloud": ""}, "cloud", '""', ONE_OF),
    ({"cloud": "first_boot"}, "cloud", '"first_boot"', ONE_OF),
    (droplet(machines=0), "machines", '"0"', "must be a whole number from 1 to 50"),
    (droplet(machines=51), "machines", '"51"', "must be a whole number from 1 to 50"),
    (droplet(machines=-1), "machines", '"-1"', "must be a whole number from 1 to 50"),
    (droplet(machines=1.5), "machines", '"1.5"', "must be a whole number from 1 to 50"),
    (droplet(machines="two"), "machines", '"two"', "must be a whole number from 1 to 50"),
    (droplet(machines=""), "machines", '""', "must be a whole number from 1 to 50"),
    (droplet(machines=2, balancer=False), "balancer", "false", "must be true, or left out, with 2 machines"),
    (droplet(size="S 1"), "size", '"S 1"', "must be a name of the cloud's: lower-case letters, digits"),
    (droplet(size="$(id)"), "size", '"$(id)"', "must be a name of the cloud's"),
    (droplet(region=""), "region", '""', "must be a name of the cloud's"),
    (droplet(region="-fra1"), "region", '"-fra1"', "must be a name of the cloud's"),
    (droplet(image="debian/13"), "image", '"debian/13"', "must be a name of the cloud's"),
    (droplet(balancer="yes"), "balancer", '"yes"', "must be true or false"),
    (droplet(adminCidrs="100.64.7.9/32"), "adminCidrs", '"100.64.7.9/32"', "must be a list of networks in CIDR form"),
    (droplet(adminCidrs=[]), "adminCidrs", '"[]"', "at least one"),
    (droplet(adminCidrs={"a": 1}), "adminCidrs", "", "must be a list of networks"),
    (
        droplet(adminCidrs=["10.0.0.0/8", "10.300.1.1"]),
        "adminCidrs[1]",
        "10.300.1.1",
        "must be an address or a network",
    ),
    (droplet(adminCidrs=["10.0.0.5/24"]), "adminCidrs[0]", "10.0.0.5/24", "host bits set"),
    (droplet(adminCidrs=["10.0.0.0/33"]), "adminCidrs[0]", "10.0.0.0/33", "must be an address or a network"),
    (droplet(adminCidrs=["example.com"]), "adminCidrs[0]", "example.com", "must be an address or a network"),
    (droplet(adminCidrs=[""]), "adminCidrs[0]", "", "must be an address or a network"),
    (droplet(adminCidrs=[None]), "adminCidrs[0]", "null", "must be an address or a network"),
    (droplet(adminCidrs=[{"a": 1}]), "adminCidrs[0]", "", "must be an address or a network"),
    (droplet(adminCidrs=["10.0.0.1", "0.0.0.0/0"]), "adminCidrs[1]", "0.0.0.0/0", "SSH is never open to the world"),
    (droplet(adminCidrs=["::/0"]), "adminCidrs[0]", "::/0", "SSH is never open to the world"),
    (droplet(adminCidrs=["0.0.0.0/1"]), "adminCidrs[0]", "0.0.0.0/1", "SSH is never open to the world"),
    (droplet(adminCidrs=["8000::/1"]), "adminCidrs[0]", "8000::/1", "SSH is never open to the world"),
    (droplet(adminCidrs=["fe80::1%eth0"]), "adminCidrs[0]", "fe80::1%eth0", "must be an address or a network"),
    (droplet(adminCidrs=["192.0.2.0/24"]), "adminCidrs[0]", "192.0.2.0/24", "reserved for examples"),
    (droplet(adminCidrs=["198.51.100.7"]), "adminCidrs[0]", "198.51.100.7/32", "reserved for examples"),
    (droplet(adminCidrs=["203.0.113.7/32"]), "adminCidrs[0]", "203.0.113.7/32", "reserved for examples"),
    (droplet(adminCidrs=["2001:db8:1::/48"]), "adminCidrs[0]", "2001:db8:1::/48", "reserved for examples"),
    (ssh(hosts="server.example.com"), "hosts", '"server.example.com"', "must be a list of hosts"),
    (ssh(hosts=[]), "hosts", '"[]"', "must be a list of hosts"),
    (ssh(hosts=["server.example.com"]), "hosts[0]", "server.example.com", "must be an object with address and hostKey"),
    (ssh(hosts=host(address=...)), "hosts[0].address", "None", "must be an IP address or a host name"),
    (ssh(hosts=host(address="300.1.1.1")), "hosts[0].address", "300.1.1.1", "must be an IP address or a host name"),
    (ssh(hosts=host(address="1.2.3")), "hosts[0].address", "1.2.3", "must be an IP address or a host name"),
    (ssh(hosts=host(address="fe80::1%eth0; reboot")), "hosts[0].address", "fe80::1%eth0", "must be an IP address"),
    (ssh(hosts=host(address="a b")), "hosts[0].address", "a b", "must be an IP address or a host name"),
    (ssh(hosts=host(address="-o ProxyCommand=x")), "hosts[0].address", "-o ProxyCommand=x", "must be an IP address"),
    (ssh(hosts=host(address="a;reboot")), "hosts[0].address", "a;reboot", "must be an IP address or a host name"),
    (ssh(hosts=host(address=5)), "hosts[0].address", "5", "must be an IP address or a host name"),
    (ssh(hosts=host(hostKey=...)), "hosts[0].hostKey", "None", "ed25519 public key"),
    (ssh(hosts=host(hostKey="")), "hosts[0].hostKey", "", "it is missing"),
    (ssh(hosts=host(hostKey=RSA_HOST_KEY)), "hosts[0].hostKey", RSA_HOST_KEY[:60], "does not begin with ssh-ed25519"),
    (ssh(hosts=host(hostKey=EC_HOST_KEY)), "hosts[0].hostKey", EC_HOST_KEY[:60], "does not begin with ssh-ed25519"),
    (ssh(hosts=host(hostKey=HOST_KEY[:-4])), "hosts[0].hostKey", HOST_KEY[:60], "cut short or altered"),
    (ssh(hosts=host(hostKey="ssh-ed25519 AAAA...")), "hosts[0].hostKey", "ssh-ed25519 AAAA...", "not base64"),
    (ssh(hosts=host(hostKey="SHA256:abc")), "hosts[0].hostKey", "SHA256:abc", "does not begin with ssh-ed25519"),
    (ssh(hosts=host(hostKey=[HOST_KEY])), "hosts[0].hostKey", "ssh-ed25519", "it is missing"),
    (ssh(hosts=host(user="Root")), "hosts[0].user", "Root", "must be a login name"),
    (ssh(hosts=host(user="decant")), "hosts[0].user", "decant", "must be a login name"),
    (ssh(hosts=host(user="decant-build")), "hosts[0].user", "decant-build", "must be a login name"),
    (ssh(hosts=host(user="a b")), "hosts[0].user", "a b", "must be a login name"),
    (ssh(hosts=host(user="$(id)")), "hosts[0].user", "$(id)", "must be a login name"),
    (ssh(hosts=host(user=5)), "hosts[0].user", "5", "must be a login name"),
    (ssh(hosts=host(user="")), "hosts[0].user", "", "must be a login name"),
    (ssh(hosts=host(port=0)), "hosts[0].port", "0", "must be a whole number from 1 to 65535"),
    (ssh(hosts=host(port=65536)), "hosts[0].port", "65536", "must be a whole number from 1 to 65535"),
    (ssh(hosts=host(port="ssh")), "hosts[0].port", "ssh", "must be a whole number from 1 to 65535"),
    (ssh(hosts=host(port=True)), "hosts[0].port", "True", "must be a whole number from 1 to 65535"),
    (ssh(hosts=host(name="a b")), "hosts[0].name", "a b", "must be letters, digits"),
    (ssh(hosts=host(name="x" * 64)), "hosts[0].name", "x" * 64, "63 at most"),
    (ssh(hosts=host(name=7)), "hosts[0].name", "7", "must be letters, digits"),
    (ssh(hosts=host(hostkey=HOST_KEY)), "hosts[0].hostkey", "", "did you mean hostKey?"),
    (ssh(hosts=host(adress="x")), "hosts[0].adress", "", "did you mean address?"),
    (ssh(hosts=host(zzz="x")), "hosts[0].zzz", "", "must be one of address, hostKey, user, port, name"),
    (
        ssh(hosts=host() + host(address="b.example.com")),
        "hosts[1].name",
        "shop",
        "different from every other host's name",
    ),
    (
        ssh(hosts=host() + host(name="b")),
        "hosts[1].address",
        "server.example.com",
        "different from every other host's address",
    ),
    (ssh(sshPrivateKey="secret"), "sshPrivateKey", "", "it does not begin with -----BEGIN"),
    (ssh(sshPrivateKey=PUBLIC), "sshPrivateKey", "", "it does not begin with -----BEGIN"),
    (ssh(sshPrivateKey=LOCKED_KEY), "sshPrivateKey", "", "it has a passphrase"),
    (ssh(sshPrivateKey=LOCKED_RSA), "sshPrivateKey", "", "it has a passphrase"),
    (ssh(sshPrivateKey=PRIVATE[:150] + PRIVATE[200:]), "sshPrivateKey", "", "it cannot be read"),
    (ssh(sshPrivateKey=PRIVATE.replace("\n", "\\n")), "sshPrivateKey", "", "it cannot be read"),
    (ssh(harden="on"), "harden", '"on"', "must be true or false"),
    (ssh(harden=1), "harden", '"1"', "must be true or false"),
    (
        ssh(trustedProxies=["proxy.example.com"]),
        "trustedProxies[0]",
        "proxy.example.com",
        "must be an address or a network",
    ),
    (ssh(trustedProxies=["0.0.0.0/0"]), "trustedProxies[0]", "0.0.0.0/0", "not the whole world"),
    (ssh(trustedProxies="10.0.0.5"), "trustedProxies", '"10.0.0.5"', "must be a list of networks"),
    (ssh(url="www.example.com"), "url", '"www.example.com"', "must be http://NAME or https://NAME, without a path"),
    (ssh(url="ftp://www.example.com"), "url", '"ftp://www.example.com"', "must be http://NAME"),
    (ssh(url="http://"), "url", '"http://"', "must be http://NAME"),
    (ssh(url=""), "url", '""', "must be http://NAME"),
    (ssh(url="http://a.example.com/shop"), "url", '"http://a.example.com/shop"', "without a path"),
    (ssh(url="http://a.example.com/?a=1"), "url", '"http://a.example.com/?a=1"', "without a path"),
    (ssh(url="http://a.example.com#top"), "url", '"http://a.example.com#top"', "without a path"),
    (ssh(url="http://me:pw@a.example.com"), "url", '"http://me:pw@a.example.com"', "must be http://NAME"),
    (ssh(url="http://a b"), "url", '"http://a b"', "must be http://NAME"),
    (ssh(url="http://a;b"), "url", '"http://a;b"', "must be http://NAME"),
    (ssh(url="http://300.1.1.1"), "url", '"http://300.1.1.1"', "must be http://NAME"),
    (droplet(domain="example.com"), "domain", '"example.com"', "not yet"),
    (droplet(domain="Example"), "domain", '"Example"', "must be a domain name such as example.com"),
    (droplet(domain="-a.com"), "domain", '"-a.com"', "must be a domain name"),
    (droplet(dnsZone="example.com"), "dnsZone", '"example.com"', "not yet"),
    (droplet(dnsZone="*.example.com"), "dnsZone", '"*.example.com"', "must be a domain name"),
    (droplet(email="me@example.com"), "email", '"me@example.com"', "not yet"),
    (droplet(email="me"), "email", '"me"', "must be an e-mail address"),
    (droplet(database="managed"), "database", '"managed"', "not yet: only none is"),
    (droplet(database="mysql"), "database", '"mysql"', "must be one of none, managed"),
    (droplet(app="/srv/app"), "app", '"/srv/app"', "must be a folder of this project"),
    (droplet(app="../app"), "app", '"../app"', "must be a folder of this project"),
    (droplet(app=""), "app", '""', "must be a folder of this project"),
    (droplet(app="nowhere"), "app", '"nowhere"', "there is no such folder"),
    (droplet(static="../x"), "static", '"../x"', "must be a folder inside the app"),
    (droplet(static="my files"), "static", '"my files"', "must be a folder inside the app"),
    (droplet(static="."), "static", '"."', "must be a folder inside the app"),
    (droplet(static="/"), "static", '"/"', "must be a folder inside the app"),
    (droplet(static="assets"), "app", '"app"', "no folder assets, which decant:static names"),
    (droplet(env="A=1"), "env", '"A=1"', "must be an object of names and values"),
    (droplet(env=["A"]), "env", "", "must be an object of names and values"),
    (droplet(env={"1A": "x"}), "env.1A", "", "must be named with letters, digits and _"),
    (droplet(env={"A-B": "x"}), "env.A-B", "", "must be named with letters, digits and _"),
    (droplet(env={"": "x"}), "env.", "", "must be named with letters, digits and _"),
    (droplet(env={"A": None}), "env.A", "", "must be text, a number or a boolean"),
    (droplet(env={"A": ["x"]}), "env.A", "", "must be text, a number or a boolean"),
    (droplet(env={"A": {"B": "x"}}), "env.A", "", "must be text, a number or a boolean"),
    (droplet(env={"A": "x\0y"}), "env.A", "", "must be text without NUL characters"),
    *[
        (droplet(**{where: {name: "x"}}), f"{where}.{name}", "", "must be left out: Decant sets this variable itself")
        for where in ("env", "secrets")
        for name in (
            "DATA_DIR",
            "DECANT_RELEASE",
            "DECANT_MACHINE",
            "PROXY_HOPS",
            "CREDENTIALS_DIRECTORY",
            "PORT",
            "GUNICORN_CMD_ARGS",
        )
    ],
    (droplet(secrets="{" + CANARY), "secrets", "", "must be an object of names and values"),
    (droplet(secrets=[CANARY]), "secrets", "", "must be an object of names and values"),
    (droplet(secrets={"A B": CANARY}), "secrets.A B", "", "must be named with letters, digits and _"),
    (droplet(secrets={"A": [CANARY]}), "secrets.A", "", "must be text, a number or a boolean"),
    (droplet(secrets={"A": CANARY + "\0"}), "secrets.A", "", "must be text without NUL characters"),
    (droplet(healthPath="healthz"), "healthPath", '"healthz"', "must be a path that starts with /, such as /healthz"),
    (droplet(healthPath=""), "healthPath", '""', "must be a path that starts with /"),
    (droplet(healthPath="/a b"), "healthPath", '"/a b"', "must be a path that starts with /"),
    (droplet(healthPath="/a\nb"), "healthPath", '"/a\\nb"', "must be a path that starts with /"),
    (droplet(healthPath="/;}"), "healthPath", '"/;}"', "must be a path that starts with /"),
    (droplet(healthPath="http://x/"), "healthPath", '"http://x/"', "must be a path that starts with /"),
    (droplet(healthPath=TOO_LONG), "healthPath", f'"{TOO_LONG[:57]}..."', "must be a path that starts with /"),
    (droplet(healthTimeout=0), "healthTimeout", '"0"', "must be a whole number from 1 to 300"),
    (droplet(healthTimeout=301), "healthTimeout", '"301"', "must be a whole number from 1 to 300"),
    (droplet(healthTimeout="15s"), "healthTimeout", '"15s"', "must be a whole number from 1 to 300"),
    (droplet(workers=0), "workers", '"0"', "must be a whole number from 1 to 64"),
    (droplet(workers=65), "workers", '"65"', "must be a whole number from 1 to 64"),
    (droplet(workers="auto"), "workers", '"auto"', "must be a whole number from 1 to 64"),
    (droplet(threads=0), "threads", '"0"', "must be a whole number from 1 to 128"),
    (droplet(threads=129), "threads", '"129"', "must be a whole number from 1 to 128"),
    (droplet(rollout="fast"), "rollout", '"fast"', "must be serial, parallel or a batch size from 1 to 99"),
    (droplet(rollout=0), "rollout", '"0"', "must be serial, parallel or a batch size from 1 to 99"),
    (droplet(rollout=100), "rollout", '"100"', "must be serial, parallel or a batch size from 1 to 99"),
    (droplet(release="latest"), "release", '"latest"', "must be a release id: 12 hexadecimal digits"),
    (droplet(release="0123456789AB"), "release", '"0123456789AB"', "must be a release id: 12 hexadecimal digits"),
    (droplet(release="0123456789abc"), "release", '"0123456789abc"', "must be a release id: 12 hexadecimal digits"),
    (droplet(release="0123456789ab; id"), "release", '"0123456789ab; id"', "must be a release id"),
]


def label(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < 30 else "-"


@pytest.mark.parametrize(("config", "at", "shown", "allowed"), BAD, ids=label)
def test_refused(folder: Path, config: dict[str, Any], at: str, shown: str, allowed: str) -> None:
    (problem,) = refused(folder, config)
    first, *fix = problem.split("\n      ")
    assert first.startswith((f"decant:{at}:", f"decant:{at} is "))
    assert allowed in first
    assert shown in first
    assert len(fix) == 1
    name = re.match(r"[A-Za-z]+", at)[0]  # type: ignore[index]
    command = r"pulumi config (set|rm) .*" if name != "sshPrivateKey" else r"cat .* \| pulumi config set --secret .*"
    assert re.fullmatch(rf"(.* \| )?{command}'?decant:{name}\b.*", fix[0]) or "decant:static" in first, fix


REQUIRED: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"cloud"}),
    ({"cloud": "digitalocean"}, {"adminCidrs"}),
    ({"cloud": "ssh"}, {"hosts", "sshPrivateKey"}),
    ({"cloud": "ssh", "hosts": host()}, {"sshPrivateKey"}),
    ({"cloud": "ssh", "sshPrivateKey": PRIVATE}, {"hosts"}),
]


@pytest.mark.parametrize(("config", "missing"), REQUIRED)
def test_required(folder: Path, config: dict[str, Any], missing: set[str]) -> None:
    problems = refused(folder, config)
    assert {p.split(":")[1] for p in problems} == missing
    for problem in problems:
        assert " is required" in problem
        assert "pulumi config set" in problem


def only(word: str) -> str:
    """The clouds that take a setting, as a problem names them."""
    return " and ".join(name for name, kind in sorted(settings.KINDS.items()) if word in kind.takes)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        *[
            (ssh(**{name: value}), name)
            for name, value in {
                "size": "s-1vcpu-1gb", "region": "fra1", "image": "debian-13-x64", "machines": 2,
                "adminCidrs": ["10.0.0.1/32"], "balancer": True,
            }.items()
        ],
        (ssh(balancer=False), "balancer"),
        (ssh(machines=1), "machines"),
        *[
            (droplet(**{name: value}), name)
            for name, value in {
                "hosts": HOST["hosts"], "sshPrivateKey": PRIVATE, "trustedProxies": ["10.0.0.1/32"],
                "url": "http://www.example.com",
            }.items()
        ],
    ],
)  # fmt: skip
def test_settings_of_the_other_cloud(folder: Path, config: dict[str, Any], name: str) -> None:
    (problem,) = refused(folder, config)
    cloud = config["cloud"]
    assert only(name)
    assert cloud not in only(name)
    assert problem == (
        f"decant:{name}: does not go with cloud {cloud}, only with {only(name)}\n      pulumi config rm decant:{name}"
    )


@pytest.mark.parametrize(
    ("key", "near"),
    [("worker", "workers"), ("adminCIDRs", "adminCidrs"), ("sshprivatekey", "sshPrivateKey"), ("regoin", "region"),
     ("healthpath", "healthPath"), ("Cloud", "cloud"), ("trustedProxy", "trustedProxies")],
)  # fmt: skip
def test_unknown_key_with_its_nearest(folder: Path, key: str, near: str) -> None:
    (problem,) = refused(folder, droplet(**{key: CANARY}))
    assert (
        problem == f"decant:{key}: is not a setting; did you mean decant:{near}?\n      pulumi config rm decant:{key}"
    )


def test_unknown_key_that_is_like_nothing(folder: Path) -> None:
    (problem,) = refused(folder, droplet(zzz=CANARY))
    assert "docs/settings.md" in problem
    assert "did you mean" not in problem


def test_the_same_variable_twice(folder: Path) -> None:
    both = droplet(env={"A": "1", "B": "2", "KEY": "3"}, secrets={"KEY": CANARY, "B": CANARY, "C": "x"})
    problems = refused(folder, both)
    assert [p.split(": ")[0] for p in problems] == ["decant:env.B", "decant:env.KEY"]
    for problem, name in zip(problems, ("B", "KEY"), strict=True):
        assert "is also in decant:secrets" in problem
        assert problem.endswith(f"pulumi config rm --path 'decant:env.{name}'")


def test_all_problems_at_once(folder: Path) -> None:
    config = {
        "cloud": "digitalocean", "wrokers": 1, "workers": 0, "threads": 0, "size": "X!", "secrets": "{", "env": "{",
        "adminCidrs": ["::/0"], "url": "http://x.example.com", "database": "managed", "machines": 99, "app": "nowhere",
    }  # fmt: skip
    problems = refused(folder, config)
    assert {re.match(r"decant:(\w+)", p)[1] for p in problems} == set(config) - {"cloud"}  # type: ignore[index]


def test_all_problems_of_the_app_at_once(folder: Path, tmp_path: Path) -> None:
    bare = project(tmp_path / "bare", {"README": ""})
    problems = refused(bare, droplet(workers=0))
    assert len(problems) == 3
    assert sum("wsgi.py" in p for p in problems) == 1
    assert sum("pip freeze > app/requirements.txt" in p for p in problems) == 1


def test_nothing_is_concluded_from_a_cloud_that_is_wrong(folder: Path) -> None:
    problems = refused(folder, {"cloud": "azure", "url": "http://x.example.com", "region": "fra1"})
    assert len(problems) == 1


# ------------------------------------------------------------------------------------------------ fleets


def test_several_machines_without_a_balancer_are_refused_with_the_fix(folder: Path) -> None:
    (problem,) = refused(folder, droplet(machines=3, balancer=False))
    assert problem == (
        "decant:balancer is false: must be true, or left out, with 3 machines\n      pulumi config rm decant:balancer"
    )
    (problem,) = refused(folder, droplet(machines="many", balancer=False))
    assert problem.startswith("decant:machines is"), "nothing is concluded from a number that is none"


def test_hosts_are_kept_as_they_are_said(folder: Path) -> None:
    assert [h.name for h in read(folder, ssh(hosts=hosts("b", "c", "a"))).hosts] == ["b", "c", "a"]


@pytest.mark.parametrize(("place", "other"), [(1, "a"), (2, "b")])
def test_every_other_host_with_a_name_twice_is_told(folder: Path, place: int, other: str) -> None:
    twice = hosts("a", "b", "c")
    twice[place]["name"] = twice[place - 1]["name"]
    (problem,) = refused(folder, ssh(hosts=twice))
    assert problem.startswith(f"decant:hosts[{place}].name is {other}: must be different from every other host's name")
    assert f"decant:hosts[{place}]" in problem.split("\n")[1]


def test_one_machine_gives_no_warning(folder: Path) -> None:
    for config in (droplet(), droplet(balancer=True), ssh(), ssh(url="http://www.example.com")):
        assert read(folder, config).warnings == ()


def test_several_machines_do_not_share_their_files(folder: Path) -> None:
    for count, config in ((2, droplet(machines=2)), (3, ssh(hosts=hosts("a", "b", "c"), url="http://www.example.com"))):
        (warning,) = read(folder, config).warnings
        assert warning.startswith(f"{count} machines: ")
        assert "$DATA_DIR" in warning
        assert "database" in warning


def test_several_hosts_without_a_url_are_warned(folder: Path) -> None:
    data, public = read(folder, ssh(hosts=hosts("a", "b"))).warnings
    assert "$DATA_DIR" in data
    assert public.startswith("2 hosts and no decant:url: the URL is the address of one of them")
    assert settings.BY_NAME["url"].command in public
    assert settings.BY_NAME["trustedProxies"].command in public


def test_warnings_of_the_app_come_first(folder: Path, tmp_path: Path) -> None:
    loose = project(tmp_path / "loose", {**APP, "requirements.txt": "flask\n"})
    app, data = read(loose, droplet(machines=2)).warnings
    assert "no hashes" in app
    assert "$DATA_DIR" in data


# ------------------------------------------------------------------------------------------------ a provider's own


@pytest.fixture
def demanding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud whose provider has to be told a region."""
    kind = replace(
        settings.KINDS["digitalocean"], provider={"digitalocean:region": ("PAPER_CLOUD_REGION", "eu-central-1")}
    )
    monkeypatch.setitem(settings.KINDS, "digitalocean", kind)
    monkeypatch.delenv("PAPER_CLOUD_REGION", raising=False)


@pytest.mark.usefixtures("demanding")
def test_what_a_provider_must_be_told_is_required(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = (
        "digitalocean:region: is required on digitalocean, here or in the environment as PAPER_CLOUD_REGION\n"
        "      pulumi config set digitalocean:region eu-central-1"
    )
    assert refused(folder, droplet()) == [wanted]
    assert refused(folder, droplet(), providers={"region": "fra1", "aws:region": "fra1"}) == [wanted]
    several = refused(folder, droplet(workers=0))
    assert (len(several), several[1]) == (2, wanted), "with all others, at once"
    monkeypatch.setenv("PAPER_CLOUD_REGION", "")
    assert refused(folder, droplet()) == [wanted]
    monkeypatch.setenv("PAPER_CLOUD_REGION", "fra1")
    assert read(folder, droplet()).provider == {}
    monkeypatch.delenv("PAPER_CLOUD_REGION")
    assert read(folder, droplet(), providers={"digitalocean:region": "fra1"}).provider == {"region": "fra1"}
    assert read(folder, ssh()).provider == {}, "another cloud's provider is nobody's business here"


@pytest.mark.parametrize("name", sorted(settings.KINDS))
def test_a_kind_fits_the_table(name: str) -> None:
    """A new cloud's words about settings are checked here, not by whoever uses it first."""
    kind = settings.KINDS[name]
    assert kind.title
    assert set(kind.requires) <= set(kind.takes) <= set(settings.BY_NAME)
    assert set(kind.defaults) <= set(kind.takes) | {"harden"}
    assert isinstance(kind.defaults["harden"], bool), "it is the one setting that no other default stands behind"
    for setting, (variable, example) in kind.provider.items():
        assert re.fullmatch(rf"{name}:[A-Za-z]+", setting)
        assert re.fullmatch(r"[A-Z][A-Z_]+", variable)
        assert example
    for setting, value in kind.defaults.items():
        text = value if isinstance(value, str) else json.dumps(value)
        assert settings.BY_NAME[setting].parse(text) == value, f"{name} gives {setting} a value that it would refuse"


def test_nothing_of_a_provider_shows(folder: Path) -> None:
    made = read(folder, droplet(), providers={"digitalocean:token": CANARY, "digitalocean:apiEndpoint": "x"})
    assert made.provider == {"token": CANARY, "apiEndpoint": "x"}
    assert CANARY not in repr(made)


# ------------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize(("name", "value"), [("secrets", {"KEY": CANARY}), ("sshPrivateKey", PRIVATE + CANARY)])
def test_a_secret_in_clear(folder: Path, name: str, value: Any) -> None:
    (problem,) = refused(folder, (ssh if name == "sshPrivateKey" else droplet)(**{name: value}), SECRET_NAMES - {name})
    assert problem.startswith(f"decant:{name}: must be stored encrypted; it is in clear in the stack file")
    assert "pulumi config set --secret" in problem
    assert CANARY not in problem


PLAIN = {
    "cloud": "digitalocean", "machines": "1", "size": "s-1vcpu-1gb", "region": "fra1", "image": "debian-13-x64",
    "balancer": "false", "adminCidrs": ["10.0.0.1/32"], "hosts": HOST["hosts"], "harden": "true",
    "trustedProxies": ["10.0.0.1/32"], "url": "http://www.example.com", "domain": "example.com",
    "dnsZone": "example.com", "email": "me@example.com", "database": "none", "app": "app", "static": "static",
    "env": {"A": "b"}, "healthPath": "/healthz", "healthTimeout": "15", "workers": "1", "threads": "1",
    "rollout": "serial", "release": "0123456789ab",
}  # fmt: skip


def test_the_table_of_plain_settings_is_whole() -> None:
    assert set(PLAIN) | SECRET_NAMES == set(settings.BY_NAME)
    assert {n for n, setting in settings.BY_NAME.items() if setting.secret} == SECRET_NAMES


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_what_is_no_secret_must_not_be_encrypted(folder: Path, name: str) -> None:
    base = ssh() if name in ("hosts", "trustedProxies", "url") else droplet()
    problems = refused(folder, {**base, name: PLAIN[name]}, SECRET_NAMES | {name})
    (problem,) = [p for p in problems if p.startswith(f"decant:{name}:")]
    assert "must not be stored encrypted: previews would hide it" in problem
    assert f"pulumi config rm decant:{name} && pulumi config set " in problem
    assert ("belong in decant:secrets" in problem) == (name == "env")


def wrong_with_canary(name: str) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Every way we know to get a secret value into a setting wrongly."""
    values: list[Any] = [
        CANARY, f'{{"A": "{CANARY}"', f'{{"A": ["{CANARY}"]}}', f'{{"A": {{"B": "{CANARY}"}}}}', f'["{CANARY}"]',
        f'{{"{CANARY[:6]} x": "{CANARY}"}}', f'{{"PORT": "{CANARY}"}}', json.dumps({"A": CANARY + "\0"}),
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----\n",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n", f"PRIVATE KEY-----{CANARY}",
        f'[{{"address": "{CANARY}", "hostKey": "{CANARY}"}}]', f"http://{CANARY}@x/", f"{CANARY}\n{CANARY}",
    ]  # fmt: skip
    for value in values:
        base = ssh() if name in ("sshPrivateKey", "hosts", "trustedProxies", "url") else droplet()
        config = {**base, name: value}
        yield config, SECRET_NAMES | {name}
        if name in SECRET_NAMES:
            yield config, SECRET_NAMES - {name}
            yield {**config, "cloud": "azure"}, SECRET_NAMES
            yield {**config, "env": {"A": "1"}}, SECRET_NAMES


@pytest.mark.parametrize("name", [*sorted(settings.BY_NAME), "sshPrivateKye", "unknown"])
def test_no_secret_is_ever_repeated(folder: Path, name: str) -> None:
    count = 0
    for config, secret in wrong_with_canary(name):
        try:
            made = read(folder, config, secret)
        except SettingsError as error:
            said = str(error)
        else:
            said = repr(made)
        assert CANARY not in said
        count += 1
    assert count >= 14


def test_a_public_key_for_a_private_one_is_not_repeated_either(folder: Path) -> None:
    (problem,) = refused(folder, ssh(sshPrivateKey=PUBLIC))
    assert PUBLIC.split()[1] not in problem


def test_settings_do_not_show_their_secrets(folder: Path) -> None:
    made = read(folder, ssh(secrets={"KEY": CANARY}))
    assert made.secrets == {"KEY": CANARY}
    middle = PRIVATE.splitlines()[2]
    for text in (repr(made), str(made), f"{made}"):
        assert CANARY not in text
        assert middle not in text


# ------------------------------------------------------------------------------------------------ a rehearsal's network


def test_a_rehearsal_may_use_its_own_example_network_and_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "_rehearsal_networks", [])
    mine = droplet(adminCidrs=["10.0.0.1/32", "198.51.100.32/27"])
    assert len(refused(folder, mine)) == 1
    settings.rehearse_on("198.51.100.32/27")
    assert read(folder, mine).admin_cidrs == ("10.0.0.1/32", "198.51.100.32/27")
    for other in ("198.51.100.0/24", "198.51.100.64/27", "203.0.113.0/27", "0.0.0.0/0"):
        assert len(refused(folder, droplet(adminCidrs=[other]))) == 1


# ------------------------------------------------------------------------------------------------ through Pulumi


@pytest.fixture
def pulumi_side(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set a stack's configuration as Pulumi does, and take it back."""
    monkeypatch.setattr(settings, "__file__", str(folder / "infra" / "decant" / "settings.py"))
    monkeypatch.setattr(pulumi, "get_stack", lambda: "blue")
    yield pulumi.runtime.set_all_config
    pulumi.runtime.set_all_config({}, [])


def test_load(pulumi_side: Any) -> None:
    pulumi_side(
        {
            "decant:cloud": "ssh",
            "decant:hosts": json.dumps(HOST["hosts"]),
            "decant:sshPrivateKey": PRIVATE,
            "decant:secrets": json.dumps({"KEY": CANARY}),
            "decant:workers": "3",
            "aws:region": "eu-central-1",
            "digitalocean:token": CANARY,
        },
        ["decant:sshPrivateKey", "decant:secrets", "digitalocean:token"],
    )
    made = settings.load()
    assert (made.stack, made.cloud, made.workers, made.secrets) == ("blue", "ssh", 3, {"KEY": CANARY})
    assert made.hosts[0].user == "carol"


def test_load_keeps_a_providers_settings_and_their_secrecy(pulumi_side: Any) -> None:
    pulumi_side(
        {
            "decant:cloud": "digitalocean",
            "decant:adminCidrs": '["10.0.0.1/32"]',
            "digitalocean:token": CANARY,
            "digitalocean:apiEndpoint": "https://api.example.com",
            "digitaloceans:token": "another's",
            "aws:region": "eu-central-1",
        },
        ["digitalocean:token"],
    )
    provider = settings.load().provider
    assert set(provider) == {"token", "apiEndpoint"}
    assert provider["apiEndpoint"] == "https://api.example.com"
    token = provider["token"]
    assert isinstance(token, pulumi.Output)
    run = asyncio.get_event_loop().run_until_complete
    assert run(token.is_secret())
    assert run(token.future()) == CANARY


def test_load_sees_what_is_stored_in_clear(pulumi_side: Any) -> None:
    pulumi_side({"decant:cloud": "digitalocean", "decant:adminCidrs": '["10.0.0.1/32"]', "decant:secrets": "{}"}, [])
    with pytest.raises(pulumi.RunError, match="decant:secrets: must be stored encrypted"):
        settings.load()


def test_load_reads_the_environment_that_pulumi_sets(pulumi_side: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps({"decant:cloud": "digitalocean", "decant:secrets": '{"K": "v"}'}))
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", json.dumps(["decant:secrets"]))
    pulumi_side({"decant:adminCidrs": '["10.0.0.1/32"]'}, [])
    assert settings.load().secrets == {"K": "v"}


def test_load_says_what_is_wrong_in_pulumis_own_way(pulumi_side: Any) -> None:
    pulumi_side({"decant:workers": "0"}, [])
    with pytest.raises(pulumi.RunError) as caught:
        settings.load()
    assert str(caught.value).startswith("2 problems in the settings of stack blue; nothing was changed.")


def test_the_project_is_where_pulumi_yaml_is() -> None:
    assert (Path(settings.__file__).resolve().parents[2] / "Pulumi.yaml").is_file()


# ------------------------------------------------------------------------------------------------ the page


def test_the_page_is_made_from_the_table() -> None:
    page = REPOSITORY / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings.document(), "write it anew: make docs"


def test_the_page_names_every_setting_with_its_command() -> None:
    text = settings.document()
    for setting in settings.SETTINGS:
        assert f"| `{setting.name}` | {setting.kind} | {setting.default} |" in text
        assert f"# {setting.name}\n{setting.command}\n" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}


SHELL = """
pulumi() { printf '%s\\0' "$@" >>"$OUT"; [ $# -gt 4 ] || command cat >>"$OUT"; printf '\\n\\n' >>"$OUT"; }
curl() { echo 100.64.7.9; }
cat() { command cat "$KEY"; }
"""


@pytest.mark.parametrize("setting", settings.SETTINGS, ids=lambda setting: str(setting.name))
def test_the_documented_command_sets_a_value_that_is_taken(setting: Any, tmp_path: Path) -> None:
    """The page's commands are run by a real shell, with stand-ins for the programs that they call."""
    key, out = tmp_path / "key", tmp_path / "out"
    key.write_text(PRIVATE)
    command = setting.command.replace("ssh-ed25519 AAAA...", HOST_KEY)
    environment = {"OUT": str(out), "KEY": str(key), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    subprocess.run(["sh", "-euc", SHELL + command], env=environment, check=True, stdin=subprocess.DEVNULL)
    gate = settings.Gate({setting.name: _as_pulumi_would(out.read_text(), setting)}, SECRET_NAMES & {setting.name})
    value = gate.get(setting.name)
    assert not gate.problems
    assert value is not None


def _as_pulumi_would(calls: str, setting: Any) -> Any:
    """The value that `pulumi config set` builds: by path for a list or an object, else the text."""
    built: Any = None
    for call in calls.split("\n\n"):
        if not call.strip():
            continue
        *words, last = call.split("\0")
        words += [last] if last else []
        flags = [w for w in words if w.startswith("--")]
        assert ("--secret" in flags) == setting.secret
        value: Any = words[-1]
        verb = [w for w in words if not w.startswith("--")][:2]
        assert verb == ["config", "set"]
        path = next(w for w in words if w.startswith("decant:"))
        keys = re.findall(r"\w+", path.removeprefix("decant:"))
        assert ("--path" in flags) == (len(keys) > 1)
        assert keys[0] == setting.name
        for part in reversed(keys[1:]):
            value = [value] if part.isdigit() else {part: value}
        if isinstance(built, list):
            built[0].update(value[0])
        else:
            built = value
    return built


# ------------------------------------------------------------------------------------------------ once gone wrong


def test_settings_do_not_show_the_app(folder: Path) -> None:
    made = read(folder, droplet())
    assert made.bundle.data
    assert len(repr(made)) < 5000


@pytest.mark.parametrize("url", ["http://[2001:db8::7", "http://[nonsense]", "http://2001:db8::7]"])
def test_an_unreadable_url_is_a_problem_and_not_a_crash(folder: Path, url: str) -> None:
    (problem,) = refused(folder, ssh(url=url))
    assert "must be http://NAME" in problem


# The rollout would ask http://name:abc/healthz, and fail after the switch.
@pytest.mark.parametrize("port", ["abc", "99999", "-1"])
def test_the_port_of_the_url_is_a_port(folder: Path, port: str) -> None:
    (problem,) = refused(folder, ssh(url=f"http://www.example.com:{port}"))
    assert problem.startswith("decant:url is")


# DigitalOcean has such names.
def test_size_with_an_underscore(folder: Path) -> None:
    assert read(folder, droplet(size="so1_5-2vcpu-16gb")).size == "so1_5-2vcpu-16gb"


def test_the_fix_for_an_item_of_a_list_is_for_that_item(folder: Path) -> None:
    (problem,) = refused(folder, droplet(adminCidrs=["10.0.0.1/32", "10.0.0.2/32", "0.0.0.0/0"]))
    assert "decant:adminCidrs[2]" in problem.split("\n")[1]


def test_the_value_shown_for_an_item_of_a_list_is_the_item(folder: Path) -> None:
    (problem,) = refused(folder, droplet(adminCidrs=["10.0.0.0/8", "10.300.1.1"]))
    assert re.match(r'decant:adminCidrs\[1\] is "?10\.300\.1\.1"?: ', problem)
    (problem,) = refused(folder, ssh(hosts=[*host(), "b.example.com"]))
    assert re.match(r'decant:hosts\[1\] is "?b\.example\.com"?: ', problem)
