"""Web lines for tests: an app folder with a Procfile, read as `pulumi up` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from decant.app.model import AppOptions, WebProcess
from decant.app.web import read_web
from decant.errors import AppError
from tests.support.app_folders import write

FLASK = "from flask import Flask\napp = Flask(__name__)\n"
FACTORY = "from flask import Flask\ndef create_app(config=None):\n    app = Flask(__name__)\n    return app\n"
STRICT_FACTORY = FACTORY.replace("config=None", "config")
RUNS = FLASK + "if __name__ == '__main__':\n    app.run(debug=True)\n"


def web(tmp_path: Path, line: str | None, files: Mapping[str, str | bytes], **options: object) -> WebProcess:
    folder = tmp_path / "app"
    folder.mkdir(exist_ok=True)
    write(folder, {"requirements.txt": "flask\n", **files})
    if line is not None:
        (folder / "Procfile").write_text(f"web: {line}\n")
    return read_web(folder, AppOptions(**options))  # type: ignore[arg-type]


def refused(tmp_path: Path, line: str | None, files: Mapping[str, str | bytes], **options: object) -> tuple[str, str]:
    """The one problem of the line, and its fix."""
    with pytest.raises(AppError) as caught:
        web(tmp_path, line, files, **options)
    (problem,) = caught.value.problems
    return problem
