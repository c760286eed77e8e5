"""The project's folder: what encrypts the secrets of a stack, by the stacks' files."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.settings import project
from decant.settings.project import read_stack_file, secrets_provider, stack_key

KEY = "awskms://alias/decant-state?region=eu-central-1&context_stack="


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(project, "PROJECT", tmp_path)
    return tmp_path


def write(folder: Path, stack: str, text: str) -> None:
    (folder / f"Pulumi.{stack}.yaml").write_text(text)


def test_a_stacks_own_key_comes_first(folder: Path) -> None:
    write(folder, "staging", f"secretsprovider: {KEY}staging\n")
    write(folder, "dev", "secretsprovider: gcpkms://other\n")
    assert secrets_provider("staging") == f"{KEY}staging"
    assert secrets_provider("dev") == "gcpkms://other"


@pytest.mark.parametrize(
    "text", ["encryptionsalt: v1:abc\n", "secretsprovider: passphrase\n", "secretsprovider: default\n"]
)
def test_a_stack_with_a_passphrase_keeps_it(folder: Path, text: str) -> None:
    write(folder, "dev", text)
    write(folder, "staging", f"secretsprovider: {KEY}staging\n")
    assert secrets_provider("dev") == ""


def test_a_new_stack_gets_the_key_of_the_others_under_its_own_name(folder: Path) -> None:
    write(folder, "staging", f"secretsprovider: {KEY}staging\n")
    write(folder, "production", f"secretsprovider: {KEY}production\n")
    write(folder, "dev", "config:\n  decant:cloud: aws\n")
    assert secrets_provider("qa") == f"{KEY}qa"
    assert secrets_provider("dev") == f"{KEY}dev"


def test_a_stack_of_a_pull_request_gets_the_key_of_reviews(folder: Path) -> None:
    """Its role may use the key for these alone."""
    write(folder, "staging", f"secretsprovider: {KEY}staging\n")
    assert secrets_provider("pr-12") == f"{KEY}review"
    assert secrets_provider("pr-x") == f"{KEY}pr-x"


def test_a_new_stack_has_no_key_where_the_others_have_none_or_different_ones(folder: Path) -> None:
    assert secrets_provider("qa") == ""
    write(folder, "dev", "encryptionsalt: v1:abc\n")
    assert secrets_provider("qa") == ""
    write(folder, "staging", f"secretsprovider: {KEY}staging\n")
    write(folder, "production", "secretsprovider: awskms://alias/another?region=eu-central-1\n")
    assert secrets_provider("qa") == ""


def test_a_key_for_one_stack_is_changed_in_its_name_alone() -> None:
    assert stack_key("awskms://k?context_stack=a&region=r", "b.c") == "awskms://k?context_stack=b.c&region=r"
    assert stack_key("awskms://k?my_context_stack=a", "b") == "awskms://k?my_context_stack=a"


@pytest.mark.parametrize("text", ["a: [", "just text", "\xff"])
def test_a_file_that_is_not_valid_says_nothing(folder: Path, text: str) -> None:
    (folder / "Pulumi.dev.yaml").write_bytes(text.encode("latin-1"))
    assert read_stack_file("dev") == {}
    assert read_stack_file("none") == {}
