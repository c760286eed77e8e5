"""The id of a release: what is part of it, and how secrets enter it."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decant.app.model import Bundle
from decant.app.release_id import release_id
from decant_host.protocol import RELEASE_ID

MADE = Bundle(
    path=Path("app-cccccccccccc.tar"), size=3, sha256="a" * 64, code_hash="c" * 64, requirements_hash="d" * 64, files=3
)
CONFIG: dict[str, Any] = {"entry": "wsgi:app", "workers": None, "env": {"A": "1", "B": "2"}, "runtime": "abc"}
SECRETS = {"SECRET_KEY": "correct horse", "MAIL": "battery staple"}


def ids(**changes: Any) -> Iterator[str]:
    options: dict[str, Any] = {"bundle": MADE, "config": CONFIG, "secrets": SECRETS, "key": "k"} | changes
    yield release_id(options["bundle"], options["config"], options["secrets"], options["key"])


def one_id(**changes: Any) -> str:
    return next(ids(**changes))


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": dataclasses.replace(MADE, code_hash="e" * 64)},
        {"bundle": dataclasses.replace(MADE, requirements_hash="e" * 64)},
        {"bundle": dataclasses.replace(MADE, code_hash=MADE.requirements_hash, requirements_hash=MADE.code_hash)},
        {"config": {**CONFIG, "entry": "wsgi:other"}},
        {"config": {**CONFIG, "workers": 0}},
        {"config": {**CONFIG, "threads": None}},
        {"config": {k: v for k, v in CONFIG.items() if k != "workers"}},
        {"config": {**CONFIG, "env": {"A": "1", "B": "3"}}},
        {"config": {**CONFIG, "env": {"A": "12"}}},
        {"secrets": {**SECRETS, "MAIL": "another"}},
        {"secrets": {"SECRET_KEY": SECRETS["SECRET_KEY"]}},
        {"secrets": {"SECRET_KEY": SECRETS["MAIL"], "MAIL": SECRETS["SECRET_KEY"]}},
        {"secrets": {}},
        {"key": "another"},
        {"key": ""},
    ],
)
def test_each_ingredient_changes_the_id(change: dict[str, Any]) -> None:
    assert one_id(**change) != one_id()


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": dataclasses.replace(MADE, sha256="b" * 64)},
        {"bundle": dataclasses.replace(MADE, files=4)},
        {"config": dict(reversed(CONFIG.items()))},
        {"secrets": dict(reversed(SECRETS.items()))},
    ],
)
def test_the_tar_and_the_order_of_keys_keep_the_id(change: dict[str, Any]) -> None:
    assert one_id(**change) == one_id()


def test_without_secrets_the_key_does_not_matter() -> None:
    assert one_id(secrets={}, key="a") == one_id(secrets={}, key="b")


def test_the_id_has_the_pattern_of_release_ids() -> None:
    assert re.fullmatch(RELEASE_ID, one_id())
    assert len({one_id(key=str(i)) for i in range(200)}) == 200


def test_secrets_enter_by_an_hmac_with_a_key_of_its_own() -> None:
    """Computed here again: without the stack's key, a guess at a secret cannot be checked."""

    def canonical(value: Any) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    derived = hashlib.sha256(b"decant release id\0" + b"k").digest()
    mac = hmac.new(derived, canonical(SECRETS), hashlib.sha256).hexdigest()
    expected = hashlib.sha256(canonical([MADE.code_hash, MADE.requirements_hash, CONFIG, mac])).hexdigest()[:12]
    assert one_id() == expected
    for without_key in (canonical(SECRETS), b""):
        for guess in (
            hashlib.sha256(without_key).hexdigest(),
            hmac.new(b"", without_key, hashlib.sha256).hexdigest(),
        ):
            assert (
                hashlib.sha256(canonical([MADE.code_hash, MADE.requirements_hash, CONFIG, guess])).hexdigest()[:12]
                != one_id()
            )
