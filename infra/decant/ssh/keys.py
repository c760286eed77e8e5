"""SSH keys: checks of host keys and private keys, and the fingerprint that ssh shows."""

from __future__ import annotations

import base64
import binascii
import hashlib

from decant.errors import HostKeyError

ED25519 = "ssh-ed25519"


def check_host_key(text: object) -> str:
    """Return `ssh-ed25519 AAAA...`, without the comment.

    Only ed25519 is accepted. The Pulumi command provider offers exactly the type of the pinned key, and for an RSA key
    that would be the ssh-rsa signature with SHA-1, which sshd refuses since OpenSSH 8.8.

    Raises:
        HostKeyError: the text is not an ed25519 host key.
    """
    if not isinstance(text, str) or not text.strip():
        raise HostKeyError("it is missing")
    kind, _, rest = text.strip().partition(" ")
    blob = rest.split(" ")[0]
    if kind != ED25519:
        raise HostKeyError("it does not begin with ssh-ed25519")
    try:
        raw = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        raise HostKeyError("its second word is not base64") from None
    # RFC 8709, section 4: the name of the type and the key, each after its length in 4 bytes.
    if len(raw) != 51 or not raw.startswith(b"\0\0\0\x0b" + ED25519.encode() + b"\0\0\0\x20"):
        raise HostKeyError("it is cut short or altered")
    return f"{ED25519} {blob}"


def fingerprint(host_key: str) -> str:
    """Return the `SHA256:...` form of a public key in one line, as `ssh-keygen -l` prints it."""
    return fingerprint_of_bytes(base64.b64decode(host_key.split()[1]))


def fingerprint_of_bytes(raw: bytes) -> str:
    """Return the `SHA256:...` form of a public key in SSH's binary encoding."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


def check_private_key(value: object) -> str:
    """Return the key's text with one newline at its end, which OpenSSH requires.

    Raises:
        ValueError: the key cannot be used; the message does not contain the key.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    if not isinstance(value, str) or "PRIVATE KEY-----" not in value:
        raise ValueError("it does not begin with -----BEGIN ... PRIVATE KEY-----")
    text = value.strip() + "\n"
    if "-----BEGIN PRIVATE KEY-----" in text:
        raise ValueError("it is in PKCS#8 form; ssh-keygen -p -f KEYFILE rewrites it")
    if text.count("\n") < 3:
        raise ValueError("it cannot be read: its line ends are lost; give the file itself")
    load = load_ssh_private_key if "OPENSSH" in text else load_pem_private_key
    try:
        load(text.encode(), password=None)
    except TypeError:
        raise ValueError("it has a passphrase") from None
    except Exception as error:
        passphrase = "password" in str(error).lower()
        raise ValueError("it has a passphrase" if passphrase else "it cannot be read") from None
    return text
