"""The project that this program belongs to: its folder, and its name in Pulumi.yaml."""

from __future__ import annotations

from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[3]


def project_name() -> str:
    """The project's name in Pulumi.yaml, which the names of all resources contain."""
    return str(yaml.safe_load((PROJECT / "Pulumi.yaml").read_text(encoding="utf-8"))["name"])
