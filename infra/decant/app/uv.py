"""The uv of the machines' own version, which runs where `pulumi` runs, too."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from uv import find_uv_bin


def run_uv(*arguments: str, folder: Path | None = None) -> str:
    """What uv prints. It reads no settings of the user's and asks no network, so that it says the same everywhere.

    Raises:
        subprocess.CalledProcessError: with uv's reason in `stderr`.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    command = [find_uv_bin(), "--no-progress", "--offline", "--no-python-downloads", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout
