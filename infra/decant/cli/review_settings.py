"""The settings of a review stack: a copy of `Pulumi.review.yaml`, and a check that it holds no other stack's secret."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from decant.cli.pulumi_cli import PulumiCli
from decant.errors import InvalidValueError, StackError
from decant.settings import parsers
from decant.settings.model import EXPIRES_FORMAT, NAMESPACE, REVIEW_TEMPLATE, Review, is_review_stack
from decant.settings.project import stack_file, stack_names

REVIEW = f"{NAMESPACE}:review"
SHORTEST_SECRET = 8
"""Characters. Two stacks may have the same shorter value by chance, such as `true`."""

MISSING = """There is no Pulumi.{template}.yaml, the template of the stacks of pull requests. Make it once:
    pulumi stack init {template}
    pulumi config set decant:cloud CLOUD --stack {template}
docs/review.md has the other settings. Commit the file, then run the same command again."""


def read_template() -> dict[str, Any]:
    """What Pulumi.review.yaml holds. Raises StackError."""
    return _read(stack_file(REVIEW_TEMPLATE))


def template_review() -> Review:
    """How many review stacks there may be, and for how long. Raises StackError."""
    value = (read_template().get("config") or {}).get(REVIEW, {})
    try:
        return parsers.review(value)
    except InvalidValueError as error:
        raise StackError(
            f"{REVIEW}{error.at} in Pulumi.{REVIEW_TEMPLATE}.yaml must be {error.allowed}\n"
            f"      pulumi config set --path '{REVIEW}.days' 7 --stack {REVIEW_TEMPLATE}"
        ) from None


def write_settings(stack: str) -> None:
    """Write the settings of a review stack: a copy of the template.

    Encrypted values stay as they are, with what decrypts them: the salt for the passphrase, or the cloud's key.

    Raises:
        StackError: the template cannot be read.
    """
    read_template()
    stack_file(stack).write_bytes(stack_file(REVIEW_TEMPLATE).read_bytes())


def set_expiry(cli: PulumiCli, stack: str, expires: datetime) -> None:
    """Add the time when a review stack expires to its settings, by Pulumi, whose YAML is not Python's.

    Raises:
        StackError: the settings cannot be changed.
    """
    words = ("config", "set", "--path", f"{REVIEW}.expires", expires.strftime(EXPIRES_FORMAT), "--stack", stack)
    done = cli.capture(*words)
    if done.returncode != 0:
        raise StackError(f"{REVIEW} of stack {stack} cannot be set: {done.stderr.strip()}")


def next_expiry(now: datetime, days: int, until: datetime | None) -> datetime:
    """When a review stack expires that is put live now. `until` is what its tags say.

    Each move changes tags, so it waits until less than half of the time is left.
    """
    if until is not None and now + timedelta(days=days) / 2 < until <= now + timedelta(days=days):
        return until
    return (now + timedelta(days=days)).astimezone(UTC).replace(second=0, microsecond=0)


def check_secrets(cli: PulumiCli, stack: str, known_stacks: list[str]) -> None:
    """Check that a review stack, whose settings are written, has no secret of a stack that is none.

    The encrypted texts are compared, and the values of those stacks whose secrets this computer can decrypt.

    Raises:
        StackError: it has one, or its own settings cannot be read.
    """
    own_texts = dict(_encrypted(read_template().get("config") or {}))
    own_values = _secret_values(cli.read_config(stack))
    opened = []
    for other in _other_stacks():
        shared = _shared(own_texts, dict(_encrypted(_read(stack_file(other)).get("config") or {})))
        if shared is None and other in known_stacks:
            try:
                values = _secret_values(cli.read_config(other))
            except StackError:
                continue  # it has a key of its own, as it should
            shared = _shared(own_values, values)
            opened += [other] if values else []
        if shared:
            raise StackError(_SHARED.format(name=shared[0], theirs=shared[1], stack=other, template=REVIEW_TEMPLATE))
    if opened:
        print(
            f"Warning: the key of this job also decrypts the secrets of {' and '.join(opened)}, and the code of a pull"
            " request runs with it. Give them a key of their own: docs/review.md.",
            file=sys.stderr,
        )


_SHARED = """{name} in Pulumi.{template}.yaml is the same secret as {theirs} of stack {stack}.
A review stack runs the code of a pull request, so it must have secrets of its own. Nothing was made or changed.
Set another value, by standard input:
    pulumi config set --secret --path '{name}' --stack {template}"""


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise StackError(MISSING.format(template=REVIEW_TEMPLATE)) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StackError(f"{path.name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise StackError(f"{path.name} must hold `config:` with settings; docs/review.md has an example.")
    return content


def _other_stacks() -> Iterator[str]:
    """The stacks with a file that are neither the template nor a pull request's."""
    return (name for name in stack_names() if name != REVIEW_TEMPLATE and not is_review_stack(name))


def _encrypted(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The encrypted texts of a stack's file, by the paths of their settings."""
    if not isinstance(value, dict):
        return
    if value.keys() == {"secure"} and isinstance(value["secure"], str):
        yield path, value["secure"]
        return
    for name, part in value.items():
        yield from _encrypted(part, f"{path}.{name}" if path else str(name))


def _secret_values(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The secrets of a stack for its app and its machines, by the paths of their settings.

    Those of the cloud's provider are left out: the account may be the same.
    """
    return {
        path: text
        for name, entry in entries.items()
        if entry.get("secret") and name.startswith(f"{NAMESPACE}:")
        for path, text in _leaves(entry.get("value", ""), name)
        if len(text) >= SHORTEST_SECRET
    }


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and re.match(r"\s*\{", value):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}")
    else:
        yield path, str(value)


def _shared(own: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[str, str] | None:
    """The names of a secret that both have."""
    by_text = {text: name for name, text in theirs.items()}
    return next(((name, by_text[text]) for name, text in own.items() if text in by_text), None)
