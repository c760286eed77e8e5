"""Runs the `release:` line of the Procfile with the release's own environment. Started by release@<release>.service."""

import json
import os
from pathlib import Path

import release_environment

release = os.environ["DECANT_RELEASE"]
home = Path(f"/var/lib/decant/releases/{release}")
settings = json.loads((home / "release.json").read_text(encoding="utf-8"))
release_environment.load()
os.execv("/bin/sh", ["sh", "-c", settings["release_command"]])  # noqa: S606 - a shell line is what a Procfile holds
