"""Stack settings for tests: the smallest stacks of two clouds, keys of every kind, and a reader of settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from decant import clouds
from decant.errors import SettingsError
from decant.settings import Settings
from decant.settings.load import check
from decant.settings.table import settings_table
from tests.support.in_memory import DROPLET, HOST, INSTANCE

CLOUDS = clouds.specs()
TABLE = settings_table(CLOUDS)
# Those that tests/unit/test_settings_site.py is about.
SITE_SETTINGS = {
    "domain", "redirects", "dnsZone", "https", "hsts", "email", "acmeServer", "acmeRoot", "certificate",
    "certificateKey", "savedCertificate", "resolvers",
}  # fmt: skip
CANARY = "canary-4f1d9c"
SECRET_NAMES = frozenset({"secrets", "sshPrivateKey", "certificateKey", "savedCertificate"})


def host(**changes: Any) -> list[dict[str, Any]]:
    """The one host of the ssh stack, changed; a value of `...` leaves a field out."""
    changed = {**HOST["hosts"][0], **changes}
    return [{k: v for k, v in changed.items() if v is not ...}]


def hosts(*names: str) -> list[dict[str, Any]]:
    """Hosts of these names, each at an address of its own."""
    return [item for name in names for item in host(name=name, address=f"{name}.example.com")]


def ssh(**changes: Any) -> dict[str, Any]:
    return {**HOST, **changes}


def droplet(**changes: Any) -> dict[str, Any]:
    return {**DROPLET, **changes}


def aws(**changes: Any) -> dict[str, Any]:
    return {**INSTANCE, **changes}


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


def parse(values: Mapping[str, Any], secret_names: frozenset[str], *, stack: str, **options: Any) -> Settings:
    """The settings that `check` finds, or its problems as the error that the program raises."""
    checked = check(values, secret_names, stack=stack, **{"clouds": CLOUDS, **options})
    if checked.settings is None:
        raise SettingsError(stack, checked.problems)
    return checked.settings


def read(config: Mapping[str, Any], secret: frozenset[str] = SECRET_NAMES, **options: Any) -> Settings:
    """The settings of what Pulumi would hand over: text, and JSON for values with structure.

    Names with a namespace, such as aws:region, are settings of a provider.
    """
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items() if ":" not in k}
    if providers := {k: v for k, v in config.items() if ":" in k}:
        options = {"providers": providers, **options}
    return parse(values, secret & values.keys(), **{"stack": "paper", **options})


def refused(config: Mapping[str, Any], secret: frozenset[str] = SECRET_NAMES, **options: Any) -> list[str]:
    """The problems, each with its two lines as one text."""
    with pytest.raises(SettingsError) as caught:
        read(config, secret, **options)
    head, *lines = str(caught.value).split("\n")
    problems = [text.strip() for text in re.split(r"\n  (?=[a-z]+:)", "\n" + "\n".join(lines)) if text.strip()]
    count = f"{len(problems)} problem" + ("" if len(problems) == 1 else "s")
    assert head == f"{count} in the settings of stack paper; nothing was changed."
    return problems
