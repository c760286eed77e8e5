"""Secrets in logs and error texts."""

from __future__ import annotations

import json

import pytest

from decant_host import masking, processes
from tests.unit.decant_host.machine import NEW, Machine


def add_release_with_secrets(machine: Machine, **secrets: str) -> None:
    folder = machine.add(NEW, secret_names=sorted(secrets))
    (folder / "environment.json").write_text(json.dumps({**secrets, "GREETING": "hello"}))


def test_secrets_are_masked_in_every_spelling(machine: Machine) -> None:
    secret = 'canary "7d2e"\\ ü'
    add_release_with_secrets(machine, KEY=secret, PIN="123")
    text = f"hello {secret} {secret!r} {json.dumps(secret)} 123"
    masked = masking.mask(NEW, text)
    assert "7d2e" not in masked
    assert masked.count("[KEY]") == 3
    assert masked.startswith("hello ")
    assert masked.endswith(" 123"), "what is that short would mask everything else"


def test_what_controls_a_terminal_is_left_out(machine: Machine) -> None:
    """Colors, cursor and title; other control characters are shown as Python writes them."""
    add_release_with_secrets(machine)
    colors = "\x1b[1;31mred\x1b[0m\x1b]0;title\x07 \x1b]8;;http://x\x1b\\link \x1b[2K"
    others = "\x1b(a\tb\r\nc\rd \x00\x07\x9b caf\ufffd ü"
    assert masking.mask(NEW, colors + others) == "red link \\x1b(a\tb\nc\nd \\x00\\x07\\x9b caf\ufffd ü"


def test_a_secret_is_masked_with_a_color_inside_and_with_control_characters(machine: Machine) -> None:
    add_release_with_secrets(machine, KEY="canary7d2e", ODD="can\x1b[31mary\x07-9f3b")
    masked = masking.mask(NEW, "\x1b[32mcanary\x1b[33m7d2e\x1b[0m and can\x1b[31mary\x07-9f3b")
    assert masked == "[KEY] and [ODD]"


def test_a_secret_that_is_printed_as_latin_1_is_masked(machine: Machine) -> None:
    add_release_with_secrets(machine, KEY="canaryé7d2e", OTHER="日本語日本語")
    assert masking.mask(NEW, b"key canary\xe97d2e".decode(errors="replace")) == "key [KEY]"


def test_a_secret_of_four_characters_is_masked(machine: Machine) -> None:
    add_release_with_secrets(machine, PIN="7d2e", DIGITS="123")
    assert masking.mask(NEW, "7d2e 123") == "[PIN] 123"


def test_a_secret_that_begins_like_another_is_masked_whole(machine: Machine) -> None:
    add_release_with_secrets(machine, A_USER="canary", B_PASSWORD="canary-tail-7d2e")
    assert "7d2e" not in masking.mask(NEW, "login with canary-tail-7d2e as canary")


# Such as a PEM key that the app prints: what indents or cuts lines must come after the mask.
def test_a_secret_of_several_lines_is_masked(machine: Machine) -> None:
    add_release_with_secrets(machine, KEY="-----BEGIN KEY-----\ncanary7d2e\n-----END KEY-----")
    machine.systemd.log = "loading\n-----BEGIN KEY-----\ncanary7d2e\n-----END KEY-----\nfailed\n"
    assert "canary7d2e" not in masking.mask(NEW, processes.journal("app@x", since=0.0))


def test_a_password_inside_a_secret_is_masked_alone(machine: Machine) -> None:
    add_release_with_secrets(
        machine, DATABASE_URL="postgres://shop:canary7d2e@db.example.com/shop", TOKEN="a&canary/9f3b"
    )
    shown = (
        "password canary7d2e; ?t=a%26canary%2F9f3b; a&amp;canary/9f3b; postgres://shop:canary7d2e@db.example.com/shop"
    )
    masked = masking.mask(NEW, shown)
    assert "canary" not in masked
    assert masked.count("[DATABASE_URL]") == 2
    assert masked.count("[TOKEN]") == 2


@pytest.mark.parametrize("shown", ["p@ss%canary7d2e", "p%40ss%25canary7d2e"])
def test_a_password_of_a_url_is_masked_as_its_driver_prints_it(machine: Machine, shown: str) -> None:
    add_release_with_secrets(machine, DATABASE_URL="postgres://shop:p%40ss%25canary7d2e@db.example.com/shop")
    assert masking.mask(NEW, f"password {shown} refused") == "password [DATABASE_URL] refused"


def test_a_secret_is_masked_as_the_bytes_that_python_prints(machine: Machine) -> None:
    add_release_with_secrets(machine, TOKEN="p\u00e4sscanary7d2e")
    assert "canary" not in masking.mask(NEW, repr("p\u00e4sscanary7d2e".encode()))


def test_a_long_line_of_a_log_is_cut_after_it_is_masked(machine: Machine) -> None:
    add_release_with_secrets(machine, KEY="canary7d2e")
    log = masking.masked_log(NEW, "x" * 995 + "canary7d2e" + "y" * 100_000)
    assert log == "    " + "x" * 995 + "[KEY]"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("at https://me:word@x.org/simple.", "at https://[...]@x.org/simple."),
        ("'git+https://ghp_1@x.org/a'", "'git+https://[...]@x.org/a'"),
        ("https://a:b@x and http://c:d@y", "https://[...]@x and http://[...]@y"),
        ("ssh://git@x.org/a", "ssh://git@x.org/a"),
        ("https://x.org/a@1.2", "https://x.org/a@1.2"),
        ("https://me:p@ss@x.org/a", "https://[...]@x.org/a"),
        ("https://me:it's@x.org/a", "https://[...]@x.org/a"),
        ("https://git@evil:word@x.org/a", "https://[...]@x.org/a"),
        ("ssh://git@x.org", "ssh://git@x.org"),
        ("mail me@x.org", "mail me@x.org"),
    ],
)
def test_passwords_in_urls_are_masked(text: str, masked: str) -> None:
    assert masking.mask_urls(text) == masked
