"""Render's file of services, where there is no Procfile."""

from __future__ import annotations

from pathlib import Path

from tests.support.web_lines import FLASK, web

SERVICE = """
services:
  - type: web
    name: shop
    runtime: python
    rootDir: back
    buildCommand: pip install -r requirements.txt
    preDeployCommand: flask db upgrade
    startCommand: gunicorn -w 2 server:app
    envVars:
      - key: MODE
        value: live
      - key: TOKEN
        generateValue: true
  - type: worker
    startCommand: python worker.py
"""


def test_the_start_command_is_read_as_a_web_line(tmp_path: Path) -> None:
    found = web(tmp_path, None, {"render.yaml": SERVICE, "back/server.py": FLASK, "app.py": FLASK})
    assert (found.wsgi_app, found.why) == ("server:app", "the startCommand of render.yaml")
    assert dict(found.gunicorn) == {"workers": 2, "chdir": "back"}
    assert found.release_command == "flask db upgrade"
    assert found.notes == (
        "render.yaml: envVars are not read. To set them: pulumi config set --path 'decant:env.MODE' live &&"
        " pulumi config set --path 'decant:env.TOKEN' VALUE",
        "render.yaml: buildCommand is not run: packages are installed anyway, see decant:build for more",
    )


def test_a_procfile_comes_first(tmp_path: Path) -> None:
    found = web(tmp_path, "gunicorn app:app", {"render.yaml": SERVICE, "back/server.py": FLASK, "app.py": FLASK})
    assert (found.wsgi_app, found.release_command, found.notes) == ("app:app", None, ())


def test_a_file_without_exactly_one_web_service_says_nothing(tmp_path: Path) -> None:
    two = "services:\n- {type: web, startCommand: gunicorn a:app}\n- {type: web, startCommand: gunicorn b:app}\n"
    for text in (two, "services: none\n", "[", "services:\n- {type: worker, startCommand: x}\n", ""):
        assert web(tmp_path, None, {"render.yaml": text, "app.py": FLASK}).why == "app.py"
