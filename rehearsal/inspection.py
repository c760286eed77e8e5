"""The command behind `make inspect`: what is understood of an app and its stack's settings, without any machine."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from decant.app.archive import pack
from decant.app.folder import read_app
from decant.app.summary import describe
from decant.clouds import specs
from decant.errors import AppError, Problem, SettingsError
from decant.program import app_problems
from decant.settings.load import check_config
from rehearsal import stackfile
from rehearsal.doubles import key_pair

EXAMPLE_NETWORK = "198.51.100.0/24"
"""Stands in for `adminCidrs`: only the user knows it, and no app depends on it."""


def inspect(project: Path, stack: str, app_folder: str | None = None) -> str:
    """What is understood of the stack's app, or of the app in `app_folder`, ready to print. Nothing is changed.

    What only an account knows has stand-ins, as in a rehearsal: encrypted values, the provider's token, and who may log
    in by SSH.

    Raises:
        RehearsalError: there is no such stack, or its file cannot be read.
        SettingsError: with everything that an `up` would refuse.
    """
    if app_folder and not Path(app_folder).is_dir():
        missing = "there is no such folder"
        problem = Problem(setting="APP", value=json.dumps(app_folder), expected=missing, fix="make inspect APP=FOLDER")
        raise SettingsError(stack, [problem], heading=_heading(app_folder, 1))
    config, secret_keys, _ = stackfile.read(project, stack)
    _stand_in(config, secret_keys)
    values = stackfile.as_text(config)
    checked = check_config(values, secret_keys, stack=stack, clouds=specs(), example_networks=(EXAMPLE_NETWORK,))
    problems = list(checked.problems)
    named = checked.app_folder and project / checked.app_folder
    folder = Path(app_folder).resolve() if app_folder else named
    lines: list[str] = []
    if folder is not None:
        try:
            app = read_app(folder, checked.app)
            with tempfile.TemporaryDirectory() as packed:
                files = pack(app, Path(packed)).files
            build = checked.settings.build if checked.settings else None
            lines = [
                *describe(app, build=build),
                *(f"  warning: {warning}" for warning in app.warnings),
                "",
                f"Nothing of it is refused; {files} files would be shipped. To see it run: {_next(folder, named)}",
            ]
        except AppError as error:
            problems += app_problems(error, app_folder or str(checked.app_folder))
    if app_folder and problems and not checked.problems:
        raise SettingsError(stack, problems, heading=_heading(app_folder, len(problems)))
    if problems:
        raise SettingsError(stack, problems)
    return "\n".join(lines)


def _heading(app_folder: str, count: int) -> str:
    return f"{count} problem{'s' if count > 1 else ''} with the app in {app_folder.rstrip('/')}/:"


def _next(folder: Path, named: Path | None) -> str:
    """How to see an app run: at once, or after it is where the stack looks for it."""
    if named is None or folder == named.resolve():
        return "make try"
    return f"put it into {named.name}/, then make try"


def _stand_in(config: dict[str, Any], secret_keys: set[str]) -> None:
    cloud = specs().get(str(config.get("decant:cloud")))
    if cloud is None:
        return
    for name, (_, example) in cloud.provider.items():
        config.setdefault(name, example)
    if "adminCidrs" in cloud.settings:
        config.setdefault("decant:adminCidrs", [EXAMPLE_NETWORK])
    if "sshPrivateKey" in cloud.settings:
        config["decant:sshPrivateKey"] = key_pair()[0]
        secret_keys.add("decant:sshPrivateKey")
