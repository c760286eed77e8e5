"""Static files that templates use and that only a build of the app makes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from decant.app.files import app_files, printable, repository, run_git
from decant.app.model import AppOptions
from decant.errors import AppError

_USED = re.compile(
    r"""url_for\(\s*['"](?:\w+\.)?static['"]\s*,\s*filename\s*=\s*['"](?P<name>[^'"{}]+\.(?:css|js))['"]"""
    r"""|(?:href|src)\s*=\s*['"]/static/(?P<path>[^'"{}?]+\.(?:css|js))"""
)
_TEMPLATES = (".html", ".htm", ".jinja", ".jinja2", ".j2")
_SCRIPTS = ("build", "compile", "prod", "production", "build:prod", "dist")


def check_built(folder: Path, options: AppOptions) -> None:
    """Refuse an app whose templates use a style or a script that is not there, that git ignores and that npm makes.

    Such an app goes live without its looks: its author's platform runs the build.

    Raises:
        AppError: with the setting that runs the build.
    """
    if options.build or script_of(folder) is None or repository(folder) is None:
        return
    shipped = {name for name, _ in app_files(folder)}
    roots = {name[: name.index("static/")] + "static" for name in shipped if "static/" in name} | {"static"}
    for template, name in _used(folder, sorted(shipped)):
        places = [f"{root}/{name}" for root in sorted(roots)]
        if not any(place in shipped for place in places) and (ignored := _ignored(folder, places)):
            text = (
                f"has no {printable(ignored[0])}, which {printable(template)} uses, which git ignores and a build makes"
            )
            raise AppError("app", (text, f"pulumi config set decant:build {build_command(folder)}"))


def script_of(folder: Path) -> str | None:
    """The script of package.json that most likely builds the app's static files; None where there is none."""
    try:
        scripts = json.loads((folder / "package.json").read_text(encoding="utf-8"))["scripts"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return next((name for name in _SCRIPTS if name in scripts), None) if isinstance(scripts, Mapping) else None


def build_command(folder: Path) -> str:
    """The value of decant:build for the app's package.json, quoted; a placeholder where it has none."""
    if not (folder / "package.json").exists():
        return "COMMAND"
    install = "npm ci" if (folder / "package-lock.json").exists() else "npm install"
    return f"'{install} && npm run {script_of(folder) or 'build'}'"


def _used(folder: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """Templates, and the names of styles and scripts below /static/ that they use."""
    for template in names:
        if template.endswith(_TEMPLATES) and (folder / template).is_file():
            text = (folder / template).read_text(encoding="utf-8", errors="replace")
            for match in _USED.finditer(text):
                yield template, match["name"] or match["path"]


def _ignored(folder: Path, paths: list[str]) -> list[str]:
    try:
        return "".join(run_git(folder, "check-ignore", "--no-index", "--", *paths)).splitlines()
    except AppError:
        return []  # git's status is 1 where it ignores none of them
