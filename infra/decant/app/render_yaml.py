"""Render's file of services, from which an app without a Procfile takes its commands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from decant.app.text_files import decode_leniently, within


@dataclass(frozen=True, kw_only=True)
class RenderService:
    """The web service of render.yaml."""

    start: str
    folder: str
    release: str | None
    notes: tuple[str, ...]


def read_render(folder: Path) -> RenderService | None:
    """The only web service of the folder's render.yaml that has a start command; None where there is none."""
    path = next((folder / n for n in ("render.yaml", "render.yml") if (folder / n).is_file()), None)
    if path is None:
        return None
    try:
        content = yaml.safe_load(decode_leniently(within(folder, path).read_bytes()))
    except yaml.YAMLError:
        return None
    services = content.get("services") if isinstance(content, dict) else None
    if not isinstance(services, list):
        return None
    web = [s for s in services if isinstance(s, dict) and s.get("type") == "web" and s.get("startCommand")]
    if len(web) != 1:
        return None
    service = web[0]
    notes = []
    values = [v for v in service.get("envVars") or [] if isinstance(v, dict) and "key" in v]
    if values:
        sets = " && ".join(
            f"pulumi config set --path 'decant:env.{v['key']}' {v.get('value', 'VALUE')}" for v in values[:4]
        )
        notes.append(f"{path.name}: envVars are not read. To set them: {sets}")
    if service.get("buildCommand"):
        notes.append(f"{path.name}: buildCommand is not run: packages are installed anyway, see decant:build for more")
    root = os.path.normpath(str(service.get("rootDir") or "."))
    release = service.get("preDeployCommand")
    return RenderService(
        start=str(service["startCommand"]).strip(),
        folder="." if root.startswith(("/", "..")) else root,
        release=str(release).strip() if release else None,
        notes=tuple(notes),
    )
