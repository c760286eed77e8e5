"""Parsers of settings: what is taken, what is refused, and what a refusal says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from decant.app.model import AppOptions
from decant.settings import Host
from tests.support.in_memory import HOST_KEY, PRIVATE, PUBLIC
from tests.support.stack_settings import (
    CANARY,
    CLOUDS,
    EC_HOST_KEY,
    ELLIPTIC,
    LOCKED_KEY,
    LOCKED_RSA,
    RSA,
    RSA_HOST_KEY,
    SITE_SETTINGS,
    TABLE,
    aws,
    droplet,
    host,
    hosts,
    private_key,
    read,
    refused,
    ssh,
)  # fmt: skip

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
    (droplet(adminCidrs=["2002::/16"]), "admin_cidrs", ("2002::/16",)),
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
    (ssh(hosts=host(user="x" * 32)), "cloud", "ssh"),
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
    (droplet(), "app_folder", Path("app")),
    (droplet(app="sites/shop"), "app_folder", Path("sites/shop")),
    (droplet(), "app", AppOptions()),
    (droplet(static="static"), "app", AppOptions(static="static")),
    (droplet(static="/shop/public/"), "app", AppOptions(static="shop/public")),
    (droplet(wsgiApp="shop:create_app('x')"), "app", AppOptions(wsgi_app="shop:create_app('x')")),
    (droplet(python="3.12"), "app", AppOptions(python="3.12")),
    (droplet(python="3.12.4"), "app", AppOptions(python="3.12.4")),
    (
        droplet(persistent=["/uploads/", "shop/data.db"]),
        "app",
        AppOptions(persistent=("uploads", "shop/data.db")),
    ),
    (droplet(), "python_mirror", None),
    (droplet(pythonMirror="https://mirror.example.com/python"), "python_mirror", "https://mirror.example.com/python"),
    (droplet(), "build", None),
    (droplet(build="npm ci && npm run build"), "build", "npm ci && npm run build"),
    (droplet(), "max_body", 16 << 20),
    (droplet(maxBody="1k"), "max_body", 1 << 10),
    (droplet(maxBody="2G"), "max_body", 2 << 30),
    (droplet(maxBody="100g"), "max_body", 100 << 30),
    (droplet(), "request_timeout", None),
    (droplet(requestTimeout=1), "request_timeout", 1),
    (droplet(requestTimeout="3600"), "request_timeout", 3600),
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
    (droplet(), "health_timeout", 60),
    (droplet(healthTimeout=1), "health_timeout", 1),
    (droplet(healthTimeout="300"), "health_timeout", 300),
    (droplet(), "workers", None),
    (droplet(workers=1), "workers", 1),
    (droplet(workers=64), "workers", 64),
    (droplet(), "threads", None),
    (droplet(threads=4096), "threads", 4096),
    (droplet(), "cpu_credits", None),
    (aws(), "cpu_credits", None),
    (aws(cpuCredits="standard"), "cpu_credits", "standard"),
    (aws(cpuCredits="unlimited"), "cpu_credits", "unlimited"),
    (droplet(), "rollout", "serial"),
    (droplet(rollout="parallel"), "rollout", "parallel"),
    (droplet(rollout=3), "rollout", "3"),
    (droplet(rollout="99"), "rollout", "99"),
    (droplet(), "release", None),
    (droplet(release="0123456789ab"), "release", "0123456789ab"),
    (droplet(), "review", None),
]


@pytest.mark.parametrize(("config", "name", "value"), GOOD)
def test_a_valid_value_is_taken(config: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(read(config), name) == value


def test_every_setting_has_a_valid_and_an_invalid_value_here() -> None:
    tried = {name for config, *_ in GOOD for name in config} | {name for config, *_ in BAD for name in config}
    assert tried >= set(TABLE) - SITE_SETTINGS
    bad = {re.match(r"[A-Za-z]+", at)[0] for _, at, *_ in BAD}  # type: ignore[index]
    assert bad >= set(TABLE) - SITE_SETTINGS


# ------------------------------------------------------------------------------------------------ what is refused

ONE_OF = "must be one of " + ", ".join(sorted(CLOUDS))
TOO_LONG = "/" + 80 * "x " + "end"
# Configuration, what the message calls it, the value as shown ("" for none), what is allowed.
BAD: list[tuple[dict[str, Any], str, str, str]] = [
    (droplet(review=7), "review", '"7"', "must be an object with atOnce, days, expires"),
    (droplet(review={"most": 3}), "review.most", "", "must be one of atOnce, days, expires"),
    (droplet(review={"atOnce": 0}), "review.atOnce", "0", "must be a whole number from 1 to 50"),
    (droplet(review={"days": 91}), "review.days", "91", "must be a whole number from 1 to 90"),
    (droplet(review={"expires": "soon"}), "review.expires", "soon", "must be a time in UTC such as 2026-12-31T18:00Z"),
    (droplet(review={"expires": "2026-02-30T18:00Z"}), "review.expires", "2026-02-30T18:00Z", "must be a time in UTC"),
    (droplet(wsgiApp="shop app"), "wsgiApp", '"shop app"', "must be an application such as wsgi:app"),
    (droplet(python="2.7"), "python", '"2.7"', 'must be a version such as "3.12"'),
    (droplet(python=3), "python", '"3"', 'must be a version such as "3.12"'),
    (droplet(pythonMirror="mirror"), "pythonMirror", '"mirror"', "must be a URL"),
    (
        droplet(pythonMirror="https://me:word@mirror.example.com/python"),
        "pythonMirror",
        '"https://me:word@mirror.example.com/python"',
        "must be a URL that starts with https://, without a password",
    ),
    (droplet(build=" "), "build", '" "', "must be a command"),
    (droplet(persistent="uploads"), "persistent", '"uploads"', "must be a list of paths inside the app"),
    (droplet(persistent=[]), "persistent", '"[]"', "at least one"),
    (droplet(persistent=["uploads", "../x"]), "persistent[1]", "../x", "must be a folder inside the app"),
    (droplet(maxBody="16"), "maxBody", '"16"', "must be a size from 1k to 100g"),
    (droplet(maxBody="0k"), "maxBody", '"0k"', "must be a size from 1k to 100g"),
    (droplet(maxBody="101g"), "maxBody", '"101g"', "must be a size from 1k to 100g"),
    (droplet(requestTimeout=0), "requestTimeout", '"0"', "must be a whole number from 1 to 3600"),
    (droplet(requestTimeout=3601), "requestTimeout", '"3601"', "must be a whole number from 1 to 3600"),
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
    (droplet(size="S 1"), "size", '"S 1"', "must be a name that the cloud uses: lower-case letters, digits"),
    (droplet(size="$(id)"), "size", '"$(id)"', "must be a name that the cloud uses"),
    (droplet(region=""), "region", '""', "must be a name that the cloud uses"),
    (droplet(region="-fra1"), "region", '"-fra1"', "must be a name that the cloud uses"),
    (droplet(image="debian/13"), "image", '"debian/13"', "must be a name that the cloud uses"),
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
    (droplet(adminCidrs=["10.0.0.0/7"]), "adminCidrs[0]", "10.0.0.0/7", "SSH is never open to the world"),
    (droplet(adminCidrs=["fc00::/15"]), "adminCidrs[0]", "fc00::/15", "SSH is never open to the world"),
    (droplet(adminCidrs=["fd00::/8"]), "adminCidrs[0]", "fd00::/8", "SSH is never open to the world"),
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
    (ssh(hosts=host(user="x" * 33)), "hosts[0].user", "x" * 33, "must be a login name"),
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
    (
        ssh(sshPrivateKey=PRIVATE.replace("\n", " ").replace("KEY----- ", "KEY-----\n", 1)),
        "sshPrivateKey",
        "",
        "its line ends are lost",
    ),
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
    (ssh(url="http://a.example.com:0"), "url", '"http://a.example.com:0"', "must be http://NAME"),
    (ssh(url="http://a b"), "url", '"http://a b"', "must be http://NAME"),
    (ssh(url="http://a;b"), "url", '"http://a;b"', "must be http://NAME"),
    (ssh(url="http://300.1.1.1"), "url", '"http://300.1.1.1"', "must be http://NAME"),
    (droplet(app="/srv/app"), "app", '"/srv/app"', "must be a folder of this project"),
    (droplet(app="../app"), "app", '"../app"', "must be a folder of this project"),
    (droplet(app=""), "app", '""', "must be a folder of this project"),
    (droplet(static="../x"), "static", '"../x"', "must be a folder inside the app"),
    (droplet(static="my files"), "static", '"my files"', "must be a folder inside the app"),
    (droplet(static="."), "static", '"."', "must be a folder inside the app"),
    (droplet(static="/"), "static", '"/"', "must be a folder inside the app"),
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
    (droplet(threads=0), "threads", '"0"', "must be a whole number from 1 to 4096"),
    (droplet(threads=4097), "threads", '"4097"', "must be a whole number from 1 to 4096"),
    (aws(cpuCredits="none"), "cpuCredits", '"none"', "must be one of standard, unlimited"),
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
def test_an_invalid_value_is_refused_with_the_fix(config: dict[str, Any], at: str, shown: str, allowed: str) -> None:
    (problem,) = refused(config)
    first, *fix = problem.split("\n      ")
    assert first.startswith((f"decant:{at}:", f"decant:{at} is "))
    assert allowed in first
    assert shown in first
    assert len(fix) == 1
    name = re.match(r"[A-Za-z]+", at)[0]  # type: ignore[index]
    command = r"pulumi config (set|rm) .*" if name != "sshPrivateKey" else r"cat .* \| pulumi config set --secret .*"
    assert re.fullmatch(rf"(.* \| )?{command}'?decant:{name}\b.*", fix[0]), fix


def test_the_problem_of_a_variable_shows_no_variable() -> None:
    """A user may have put a secret among them."""
    (problem,) = refused(droplet(env={"A": None, "TOKEN": CANARY}))
    assert problem.startswith("decant:env.A: must be text")
    assert CANARY not in problem


def test_hosts_keep_their_order() -> None:
    assert [h.name for h in read(ssh(hosts=hosts("b", "c", "a"))).hosts] == ["b", "c", "a"]


@pytest.mark.parametrize(("place", "other"), [(1, "a"), (2, "b")])
def test_a_second_host_of_the_same_name_is_refused(place: int, other: str) -> None:
    twice = hosts("a", "b", "c")
    twice[place]["name"] = twice[place - 1]["name"]
    (problem,) = refused(ssh(hosts=twice))
    assert problem.startswith(f"decant:hosts[{place}].name is {other}: must be different from every other host's name")
    assert f"decant:hosts[{place}]" in problem.split("\n")[1]


# ------------------------------------------------------------------------------------------------ a rehearsal's network


def test_a_rehearsal_may_use_its_own_example_network_and_no_other() -> None:
    network = "198.51.100.32/27"
    config = droplet(adminCidrs=["10.0.0.1/32", network])
    assert len(refused(config)) == 1
    assert read(config, example_networks=[network]).admin_cidrs == ("10.0.0.1/32", network)
    for other in ("198.51.100.0/24", "198.51.100.64/27", "203.0.113.0/27", "0.0.0.0/0"):
        assert len(refused(droplet(adminCidrs=[other]), example_networks=[network])) == 1


# ------------------------------------------------------------------------------------------------ once gone wrong


@pytest.mark.parametrize("url", ["http://[2001:db8::7", "http://[nonsense]", "http://2001:db8::7]"])
def test_an_unreadable_url_is_a_problem_and_not_a_crash(url: str) -> None:
    (problem,) = refused(ssh(url=url))
    assert "must be http://NAME" in problem


# The rollout would ask http://name:abc/healthz, and fail after the switch.
@pytest.mark.parametrize("port", ["abc", "99999", "-1"])
def test_the_port_of_the_url_is_checked(port: str) -> None:
    (problem,) = refused(ssh(url=f"http://www.example.com:{port}"))
    assert problem.startswith("decant:url is")


# DigitalOcean has sizes such as so1_5-2vcpu-16gb.
def test_a_size_may_have_an_underscore() -> None:
    assert read(droplet(size="so1_5-2vcpu-16gb")).size == "so1_5-2vcpu-16gb"


def test_the_fix_for_an_item_of_a_list_names_that_item() -> None:
    (problem,) = refused(droplet(adminCidrs=["10.0.0.1/32", "10.0.0.2/32", "0.0.0.0/0"]))
    assert "decant:adminCidrs[2]" in problem.split("\n")[1]


def test_a_problem_with_an_item_of_a_list_shows_that_item() -> None:
    (problem,) = refused(droplet(adminCidrs=["10.0.0.0/8", "10.300.1.1"]))
    assert re.match(r'decant:adminCidrs\[1\] is "?10\.300\.1\.1"?: ', problem)
    (problem,) = refused(ssh(hosts=[*host(), "b.example.com"]))
    assert re.match(r'decant:hosts\[1\] is "?b\.example\.com"?: ', problem)
