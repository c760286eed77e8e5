"""Doubles of the TLS provider, which make real keys."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pulumi

from rehearsal.backend import Backend
from rehearsal.doubles import Double, key_pair
from rehearsal.errors import UnknownResourceError


def doubles(backend: Backend, numbers: Callable[[], str]) -> dict[str, Double]:
    """Return the doubles of this provider by the type of their resource."""
    return {"tls:index/privateKey:PrivateKey": _private_key}


def _private_key(name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if inputs["algorithm"] != "ED25519":
        raise UnknownResourceError(f"{name}: only ED25519 keys have a double, not {inputs['algorithm']}")
    private, public = key_pair()
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return hashlib.sha1(public.encode()).hexdigest(), {  # noqa: S324 - the real provider's id is a SHA-1, too
        "privateKeyOpenssh": pulumi.Output.secret(private),
        "publicKeyOpenssh": public,
        "publicKeyFingerprintSha256": "SHA256:" + base64.b64encode(digest).decode().rstrip("="),
    }
