"""The web process of an app: how gunicorn serves it, from the Procfile or from what the folder holds."""

from __future__ import annotations

from pathlib import Path

from decant.app.model import AppOptions, WebProcess
from decant.app.procfile import check_wsgi_app, read_procfile, wsgi_app
from decant.errors import AppError


def read_web(folder: Path, options: AppOptions) -> WebProcess:
    """How gunicorn serves the app of a folder.

    Raises:
        AppError: with all problems, where it cannot be served.
    """
    try:
        processes = read_procfile(folder)
        entry = options.wsgi_app or wsgi_app(processes.get("web"))
        check_wsgi_app(folder, entry)
    except ValueError as error:
        fix = f"add wsgi.py with `app` to {folder.name}/, or a Procfile line, e.g. web: gunicorn shop:app"
        raise AppError("app", (str(error), fix)) from None
    others = sorted(processes.keys() - {"web", "release"})
    return WebProcess(
        wsgi_app=entry,
        why="the web: line of Procfile" if "web" in processes else "wsgi.py",
        release_command=processes.get("release"),
        warnings=tuple(f"Procfile: the {n}: line is not run; Decant runs web: and release: alone" for n in others),
    )
