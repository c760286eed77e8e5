"""Packages and Pythons of an app's own choice, installed and served on a machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from decant.app.model import AppOptions
from tests.support import package_index, python_mirror
from tests.support.app_folders import write
from tests.support.site import Site

WSGI = """
import importlib.metadata
import json
import subprocess
import sys

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    names = [d.metadata["Name"].lower() for d in importlib.metadata.distributions()]
    tool = subprocess.run([sys.prefix + "/bin/shop-tool"], capture_output=True, text=True) if "shop" in names else None
    return json.dumps({
        "gunicorn": importlib.metadata.version("gunicorn"), "python": sys.version.split()[0], "flask": "flask" in names,
        "base": sys.base_prefix, "packages": names, "tool": tool and tool.stdout.strip(), "file": __file__,
    })
"""
ASK = """
import http.client, socket, sys
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(f"/run/decant/{sys.argv[1]}/socket/gunicorn.sock")
connection.request("GET", "/")
print(connection.getresponse().read().decode())
"""


@pytest.fixture
def stage(site: Site, tmp_path: Path) -> Iterator[Any]:
    """Stages an app with these files, asks it at its socket, and stops it."""
    staged: list[str] = []

    def run(files: dict[str, str | bytes], **settings: Any) -> dict[str, Any]:
        app = write(tmp_path / "app", {"wsgi.py": WSGI, **files})
        names = frozenset(settings.get("secrets", ()))
        made = site.stage(app, health_path="/", options=AppOptions(secret_names=names), **settings)
        staged.append(made.release)
        assert made.status == 0, made.error
        answer: dict[str, Any] = json.loads(site.machine.run(["python3", "-c", ASK, made.release]).stdout)
        return answer

    yield run
    for release in staged:
        site.machine.run(["systemctl", "stop", f"app@{release}"], check=False)


@pytest.mark.parametrize("version", ["20.0.4", "20.1.0", "21.2.0", "22.0.0", "23.0.0", "27.0.1"])
def test_every_gunicorn_from_20_on_serves(stage: Any, version: str) -> None:
    answer = stage({"requirements.txt": f"Flask==3.0.3\ngunicorn=={version}\n"})
    assert answer["gunicorn"] == version


def test_requirements_from_powershell_are_installed(stage: Any) -> None:
    files = {"requirements.txt": "-r more.txt\r\n".encode("utf-16"), "more.txt": "Flask==3.0.3\r\n".encode("utf-16")}
    assert stage(files)["flask"]


LOCKS = Path(__file__).parent.parent / "support" / "locks"


@pytest.mark.parametrize("kind", ["uv", "poetry", "pipenv"])
def test_a_lock_is_installed_by_its_hashes(stage: Any, kind: str) -> None:
    files: dict[str, str | bytes] = {path.name: path.read_bytes() for path in (LOCKS / kind).iterdir()}
    answer = stage(files)
    assert answer["gunicorn"] == "23.0.0"
    assert {"flask", "blinker", "markupsafe"} <= set(answer["packages"])
    assert "pytest" not in answer["packages"], "that is for developers"


PROJECT = """
[project]
name = "shop"
version = "1.0"
dependencies = ["flask==3.0.3"]

[project.scripts]
shop-tool = "shop:main"
"""
BUILD = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""
SHOP = {"shop/__init__.py": "def main():\n    print('a tool')\n"}


def test_a_folder_with_pyproject_alone_is_installed(stage: Any) -> None:
    answer = stage({"pyproject.toml": PROJECT})
    assert answer["flask"]
    assert "shop" not in answer["packages"], "it has no build system"


def test_a_project_has_its_metadata_and_scripts_and_serves_from_its_release(stage: Any) -> None:
    answer = stage({"pyproject.toml": PROJECT + BUILD, **SHOP})
    assert answer["tool"] == "a tool"
    assert answer["file"].startswith("/var/lib/decant/releases/")


def test_an_editable_requirement_is_installed(stage: Any) -> None:
    answer = stage({"pyproject.toml": PROJECT + BUILD, **SHOP, "requirements.txt": "-e .\ngunicorn==23.0.0\n"})
    assert (answer["tool"], answer["gunicorn"]) == ("a tool", "23.0.0")


def test_a_python_of_the_apps_choice_serves_it(stage: Any, site: Site, tmp_path: Path) -> None:
    if python_mirror.usable_python() is None:
        pytest.skip("this computer has no Python besides 3.13 that works by itself: apt-get install python3")
    (tmp_path / "mirror").mkdir()
    with python_mirror.serving(tmp_path / "mirror", site.network.gateway) as mirror:
        files = {"requirements.txt": "Flask==3.0.3\n", ".python-version": f"{mirror.minor}\n"}
        answer = stage(files, python_mirror=mirror.url)
    assert answer["python"] == mirror.version
    assert answer["base"].startswith(f"/opt/decant/pythons/{mirror.minor}-")
    owners = site.machine.run("find /opt/decant/pythons ! -user root").stdout
    assert owners == ""


def test_a_mirror_that_is_not_there_is_named(site: Site, tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": "Flask\n", ".python-version": "3.10\n"})
    made = site.stage(app, python_mirror="http://127.0.0.1:9")
    assert made.status == 1
    assert "Python 3.10 cannot be downloaded from this machine. Set decant:pythonMirror" in made.error
    assert site.machine.run("ls /opt/decant/pythons").stdout.count("3.10") == 0


@pytest.fixture
def private(site: Site, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "private").mkdir()
    with package_index.serving(tmp_path / "private", site.network.gateway, TOKEN) as address:
        yield address


TOKEN = "tok/en$1"
PRIVATE = "--extra-index-url http://${INDEX_TOKEN}@ADDRESS/simple\nFlask==3.0.3\nshop-private\n"


def test_a_private_index_gets_its_token_from_the_secrets(stage: Any, private: str) -> None:
    files = {"requirements.txt": PRIVATE.replace("ADDRESS", private)}
    secrets = {"INDEX_TOKEN": quote(TOKEN, safe=""), "OTHER": "not of the installer"}
    assert "shop-private" in stage(files, secrets=secrets)["packages"]


def test_a_wrong_token_is_named_and_not_shown(site: Site, private: str, tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": PRIVATE.replace("ADDRESS", private)})
    made = site.stage(
        app, secrets={"INDEX_TOKEN": "wr0ngt0ken"}, options=AppOptions(secret_names=frozenset({"INDEX_TOKEN"}))
    )
    assert made.status == 1
    assert "shop-private is in none of the package indexes. Does the secret in the index's URL open it?" in made.error
    assert "--path 'decant:secrets.INDEX_TOKEN'" in made.error
    assert "wr0ngt0ken" not in made.error


def test_a_private_repository_gets_its_token_from_the_secrets(stage: Any, site: Site, private: str) -> None:
    if site.machine.run("command -v git", check=False).returncode:
        site.machine.run("apt-get -qq update && apt-get -qq install -y --no-install-recommends git >/dev/null 2>&1")
    line = f"shop-repository @ git+http://${{GIT_TOKEN}}:x@{private}/shop.git"
    answer = stage({"requirements.txt": f"Flask==3.0.3\n{line}\n"}, secrets={"GIT_TOKEN": quote(TOKEN, safe="")})
    assert "shop-repository" in answer["packages"]
