"""Secrets in texts that others read: comments, issues, and the logs of jobs, which may be public."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "[secret]"
CREDENTIALS = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSPHRASE|_KEY)$")
"""Variables of the environment with credentials, such as DIGITALOCEAN_TOKEN. A forge masks them in logs, and not in
comments."""
SHORTEST = 6
"""Characters of a secret that is looked for in what is shown. A shorter one would be found inside of words."""


def secret_texts(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All secret texts of the stack's settings and of the environment, the longest first. None of them may be shown."""
    values = [entry.get("value") for entry in settings.values() if entry.get("secret")]
    values += [value for name, value in os.environ.items() if CREDENTIALS.search(name)]
    texts = {text for value in values for text in _texts(value)}
    lines = {line for text in texts for line in text.splitlines()}
    return sorted((text for text in texts | lines if len(text) >= SHORTEST), key=len, reverse=True)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a setting's value, which is JSON where it has structure."""
    if isinstance(value, str):
        yield value.strip()
        try:
            inner = json.loads(value)
        except ValueError:
            return
        if not isinstance(inner, str):
            yield from _texts(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def hide(text: str, secrets: Sequence[str]) -> str:
    """A text without secrets. Pulumi hides what it knows to be secret; this is for what it does not know of."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text
