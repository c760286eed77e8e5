"""Hands a release its environment: variables and secrets from the credential that systemd passed to the unit."""

import json
import os
from pathlib import Path


def load() -> None:
    """Put the credential's variables, and those of the release's virtual environment, into this process's environment.

    Programs of the app's packages are found first: `python`, `flask`, console scripts. PORT is for apps that insist on
    one. gunicorn does not read GUNICORN_CMD_ARGS: what is in there is in release.json.
    """
    venv = f"/var/lib/decant/releases/{os.environ['DECANT_RELEASE']}/venv"
    os.environ.update(PATH=f"{venv}/bin:/usr/local/bin:/usr/bin:/bin", VIRTUAL_ENV=venv, PORT="8000")
    credential = Path(os.environ["CREDENTIALS_DIRECTORY"]) / "environment.json"
    os.environ.update(json.loads(credential.read_text(encoding="utf-8")))
    os.environ.pop("GUNICORN_CMD_ARGS", None)
