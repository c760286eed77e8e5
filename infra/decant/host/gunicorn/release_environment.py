"""Hands a release its environment: variables and secrets from the credential that systemd passed to the unit."""

import json
import os
from pathlib import Path


def load() -> None:
    """Put the credential's variables into this process's environment."""
    credential = Path(os.environ["CREDENTIALS_DIRECTORY"]) / "environment.json"
    os.environ.update(json.loads(credential.read_text(encoding="utf-8")))
