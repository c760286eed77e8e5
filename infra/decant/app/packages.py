"""The packages of an app: which of the files that name them is used, and what a machine installs."""

from __future__ import annotations

from pathlib import Path

from decant.app.model import AppOptions, Packages
from decant.app.requirements import read_requirements
from decant.errors import AppError

_LOCK = "uv pip compile --generate-hashes --python-version 3.13 requirements.in -o requirements.txt"


def read_packages(folder: Path, options: AppOptions) -> Packages:
    """The packages of an app folder.

    Raises:
        AppError: with all problems, where they cannot be installed.
    """
    try:
        requirements = read_requirements(folder)
    except ValueError as error:
        raise AppError("app", (str(error), f"pip freeze > {folder.name}/requirements.txt")) from None
    loose = (
        f"{folder.name}/requirements.txt has no hashes: machines may install different versions. To lock them: {_LOCK}"
    )
    return Packages(
        why="requirements.txt",
        install=("--requirement", requirements.files[0]),
        files=requirements.files,
        hashed=requirements.hashed,
        local=requirements.local,
        warnings=() if requirements.hashed else (loose,),
    )
