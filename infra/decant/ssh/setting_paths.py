"""The paths of hosts in the settings, such as `decant:hosts[1]`, for error texts that advise `pulumi config set`.

A step's inputs name a host's settings by the host's name, `decant:hosts[bee]`, because another order of the list must
not run the step again. The program writes the exact paths to a file at every run, and a step that fails reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

FILE = Path("../.decant/setting-paths.json")  # seen from infra/, where the program and the local steps start


def by_name(path: str, name: str) -> str:
    """The path with the host's name in place of its number."""
    return f"{path.partition('[')[0]}[{name}]"


def write(paths: Mapping[str, str]) -> None:
    """Keep the exact path of each host, by its host key. Nothing is written for a stack without hosts."""
    if not paths:
        return
    FILE.parent.mkdir(parents=True, exist_ok=True)
    unfinished = FILE.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(paths, indent=1), encoding="utf-8")
    unfinished.replace(FILE)


def exact(path: str | None, host_key: str) -> str | None:
    """The exact path of the host with this key, or `path` as it is where the file does not have one."""
    if path is None:
        return None
    try:
        paths: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return path
    return paths.get(host_key, path)
