"""The project that this program belongs to: its folder, its name, and what encrypts the secrets of its stacks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from decant.settings.model import REVIEW_TEMPLATE, is_review_stack

PROJECT = Path(__file__).resolve().parents[3]
PASSPHRASE = ("", "default", "passphrase")  # a stack file's secretsprovider where a passphrase encrypts


def project_name() -> str:
    """The project's name in Pulumi.yaml, which the names of all resources contain."""
    return str(yaml.safe_load((PROJECT / "Pulumi.yaml").read_text(encoding="utf-8"))["name"])


def stack_file(stack: str) -> Path:
    """The path of the stack's settings file, whether it exists or not."""
    return PROJECT / f"Pulumi.{stack}.yaml"


def stack_names() -> list[str]:
    """The stacks that have a settings file."""
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in PROJECT.glob("Pulumi.*.yaml"))


def read_stack_file(stack: str) -> Mapping[str, Any]:
    """What the stack's file holds; nothing where there is none, or no valid one (Pulumi says what is wrong with it)."""
    try:
        found = yaml.safe_load(stack_file(stack).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def secrets_provider(stack: str) -> str:
    """The URL of the key that encrypts the stack's secrets; "" where a passphrase does, or nothing was chosen.

    A stack without a choice of its own gets the key that all other stacks of the project have, under its own name, and
    a stack of a pull request under the name of their template.
    """
    own = read_stack_file(stack)
    if "encryptionsalt" in own or own.get("secretsprovider"):
        return _key(own)
    name_of_key = REVIEW_TEMPLATE if is_review_stack(stack) else stack
    others = {stack_key(_key(read_stack_file(name)), name_of_key) for name in stack_names()} - {""}
    return others.pop() if len(others) == 1 else ""


def stack_key(url: str, stack: str) -> str:
    """The URL of a key that is for one stack alone (docs/state.md), changed to another stack's name."""
    return re.sub(r"(?<=[?&]context_stack=)[^&]*", lambda _: stack, url)


def _key(stack_settings: Mapping[str, Any]) -> str:
    named = str(stack_settings.get("secretsprovider") or "")
    return "" if named in PASSPHRASE else named
