"""Checks of host keys and private keys."""

from __future__ import annotations

import base64
import re

import pytest

from decant.errors import HostKeyError
from decant.ssh import client
from decant.ssh.keys import check_host_key, check_private_key, fingerprint, fingerprint_of_bytes
from tests.support.in_memory import PRIVATE
from tests.support.ssh_keys import KEYS, pem

KNOWN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
BLOB = KNOWN.split()[1]


@pytest.mark.parametrize("text", [KNOWN, KNOWN + " root@shop", f"  {KNOWN} a comment of words\n"])
def test_a_host_key_loses_its_comment(text: str) -> None:
    assert check_host_key(text) == KNOWN


def altered(position: int) -> str:
    raw = bytearray(base64.b64decode(BLOB))
    raw[position] ^= 1
    return "ssh-ed25519 " + base64.b64encode(bytes(raw)).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "it is missing"),
        ("", "it is missing"),
        (" \n", "it is missing"),
        (7, "it is missing"),
        ({"a": 1}, "it is missing"),
        (BLOB, "does not begin with ssh-ed25519"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==", "does not begin with ssh-ed25519"),
        ("ecdsa-sha2-nistp256 AAAA", "does not begin with ssh-ed25519"),
        ("sk-ssh-ed25519@openssh.com AAAA", "does not begin with ssh-ed25519"),
        ("server.example.com " + KNOWN, "does not begin with ssh-ed25519"),
        ("ssh-ed25519", "it is cut short or altered"),
        ("ssh-ed25519 AAAA...", "its second word is not base64"),
        ("ssh-ed25519 größe", "its second word is not base64"),
        (KNOWN[:-4], "it is cut short or altered"),
        (KNOWN[:-3], "its second word is not base64"),
        (KNOWN + "AAAA", "it is cut short or altered"),
        ("ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25518" + bytes(36)).decode(), "cut short or altered"),
        (altered(8), "it is cut short or altered"),
    ],
)
def test_only_ed25519_host_keys_are_accepted(text: object, reason: str) -> None:
    with pytest.raises(HostKeyError, match=re.escape(reason)):
        check_host_key(text)


# Bytes of the lengths inside the key: a key with wrong ones could only fail at the login.
@pytest.mark.parametrize("position", [0, 3, 15, 18])
def test_a_host_key_with_altered_lengths_is_refused(position: int) -> None:
    with pytest.raises(HostKeyError):
        check_host_key(altered(position))


def test_the_fingerprint_is_what_ssh_shows() -> None:
    assert fingerprint(KNOWN) == "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"
    assert fingerprint_of_bytes(base64.b64decode(BLOB)) == fingerprint(KNOWN)


FORMS = [("ed25519", "OpenSSH"), ("rsa", "OpenSSH"), ("ecdsa", "OpenSSH"), ("rsa", "TraditionalOpenSSL"),
         ("ecdsa", "TraditionalOpenSSL")]  # fmt: skip


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_private_key_that_is_accepted_can_log_in(kind: str, form: str) -> None:
    text = check_private_key("  \n" + pem(KEYS[kind], form).strip())
    assert text.endswith("-----\n")
    assert kind in client._load_key(text).get_name()


# PKCS#8 ("BEGIN PRIVATE KEY") and keys whose line ends became spaces (`echo $KEY`), which paramiko does not read.
@pytest.mark.parametrize(
    "text", [*[pem(key, "PKCS8") for key in KEYS.values()], PRIVATE.replace("\n", " ")], ids=[*KEYS, "one line"]
)
def test_a_private_key_that_cannot_log_in_is_refused(text: str) -> None:
    try:
        passed = check_private_key(text)
    except ValueError:
        return
    client._load_key(passed)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "does not begin with -----BEGIN"),
        ("canary", "does not begin with -----BEGIN"),
        (KNOWN, "does not begin with -----BEGIN"),
        (pem(KEYS["ed25519"], password=b"canary"), "it has a passphrase"),
        (pem(KEYS["rsa"], "TraditionalOpenSSL", b"canary"), "it has a passphrase"),
        (pem(KEYS["ecdsa"], "PKCS8", b"canary"), "it has a passphrase"),
        (PRIVATE[:120] + "\n" + PRIVATE[140:], "it cannot be read"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n-----END OPENSSH PRIVATE KEY-----\n", "it cannot be read"),
        ("-----BEGIN RSA PRIVATE KEY-----\ncanary\n-----END RSA PRIVATE KEY-----\n", "it cannot be read"),
    ],
)
def test_unusable_private_keys_are_refused_with_the_reason(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        check_private_key(value)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
