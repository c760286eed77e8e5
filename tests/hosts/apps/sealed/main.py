"""A plain WSGI module whose work is done by compiled code."""

from collections.abc import Callable, Iterable
from typing import Any

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    key, box = Ed25519PrivateKey.generate(), Fernet(Fernet.generate_key())
    answer = box.decrypt(box.encrypt(b"a secret, kept"))
    key.public_key().verify(key.sign(answer), answer)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer]
