"""Private keys of each kind, for tests of SSH."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa


def pem(key: Any, form: str = "OpenSSH", password: bytes | None = None) -> str:
    """A private key as text, encrypted where there is a password."""
    encryption = s.BestAvailableEncryption(password) if password else s.NoEncryption()
    return str(key.private_bytes(s.Encoding.PEM, getattr(s.PrivateFormat, form), encryption).decode())


KEYS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ecdsa": ec.generate_private_key(ec.SECP256R1()),
}
