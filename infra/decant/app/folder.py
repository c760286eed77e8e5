"""The reader of an app folder: its entry point, release command, requirements and static files."""

from __future__ import annotations

from pathlib import Path

from decant.app.model import App
from decant.app.procfile import DEFAULT_APP, check_wsgi_app, read_procfile, wsgi_app
from decant.app.requirements import Requirements, read_requirements
from decant.errors import AppError

_LOCK = "uv pip compile --generate-hashes --python-version 3.13 requirements.in -o requirements.txt"


def read_app(folder: Path, *, static: str | None) -> App:
    """What Decant needs to know of an app folder, without importing the app.

    `static` is the setting; None stands for Flask's default, the folder `static` where there is one.

    Raises:
        AppError: with all problems of the folder, where it cannot be served.
    """
    if not folder.is_dir():
        raise AppError("app", ("there is no such folder", "pulumi config set decant:app FOLDER"))
    problems: list[tuple[str, str]] = []
    warnings: list[str] = []
    entry, release_command = DEFAULT_APP, None
    try:
        processes = read_procfile(folder)
        entry = wsgi_app(processes.get("web"))
        check_wsgi_app(folder, entry)
        release_command = processes.get("release")
        for name in sorted(processes.keys() - {"web", "release"}):
            warnings.append(f"Procfile: the {name}: line is not run; Decant runs web: and release: alone")
    except ValueError as error:
        fix = f"add wsgi.py with `app` to {folder.name}/, or a Procfile line, e.g. web: gunicorn shop:app"
        problems.append((str(error), fix))
    requirements = Requirements(files=(), hashed=False, local=False)
    try:
        requirements = read_requirements(folder)
        if not requirements.hashed:
            warnings.append(
                f"{folder.name}/requirements.txt has no hashes: machines may install different versions. To lock"
                f" them: {_LOCK}"
            )
    except ValueError as error:
        problems.append((str(error), f"pip freeze > {folder.name}/requirements.txt"))
    if static is None and (folder / "static").is_dir():
        static = "static"
    elif static is not None and not (folder / static).is_dir():
        missing = f"has no folder {static}, which decant:static names"
        problems.append((missing, "pulumi config rm decant:static"))
    if problems:
        raise AppError("app", *problems)
    return App(
        folder=folder,
        wsgi_app=entry,
        static=static,
        release_command=release_command,
        requirements=requirements.files,
        hashed=requirements.hashed,
        local_requirements=requirements.local,
        warnings=tuple(warnings),
    )
