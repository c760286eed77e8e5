"""What of an app folder stays behind, and what its user is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.left_behind import SET_BY_DECANT, read_left_behind
from decant.app.model import AppOptions
from decant.settings.parsers import RESERVED_ENV
from tests.support.app_folders import PLAIN, committed, git, use_plain_git, write


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_plain_git(monkeypatch, tmp_path / "home")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return committed(tmp_path / "app", PLAIN)


def warnings(folder: Path, files: Mapping[str, str | bytes] = {}, **options: object) -> list[str]:
    write(folder, files)
    return list(read_left_behind(folder, AppOptions(**options)).warnings)  # type: ignore[arg-type]


def test_an_ordinary_app_gives_no_message(app: Path) -> None:
    found = read_left_behind(app, AppOptions())
    assert (found.notes, found.warnings) == ((), ())


def test_what_is_left_behind_is_a_warning_of_the_app(app: Path) -> None:
    write(app, {".env": "GREETING=hello\n"})
    os.mkfifo(app / "pipe")
    read = read_app(app, AppOptions())
    assert any(text.startswith(".env stays behind") for text in read.warnings)
    assert "pipe is no file (a named pipe, a socket or a device) and stays behind" in read.notes


# ------------------------------------------------------------------------------------------------ .env

DOTENV = """# comment
SECRET_KEY=canary-1
export GREETING='canary-2'
  STRIPE_TOKEN = "canary-3"
MAIL_URL=smtp://user:canary-4@example.com
PLAIN_URL=https://example.com/canary-5
DATABASE_URL=sqlite:///canary-6.db
FLASK_APP=wsgi
FLASK_ENV=development
GUNICORN_CMD_ARGS=x
PORT=5000
not a variable
MULTI="canary
7"
"""


def test_a_dotenv_is_named_with_the_commands_that_set_its_variables(app: Path) -> None:
    (text,) = warnings(app, {".env": DOTENV})
    assert text.splitlines() == [
        ".env stays behind, because it may hold secrets. Set those of its variables that the app needs:",
        "      pulumi config set --secret --path 'decant:secrets.SECRET_KEY'      # asks for the value",
        "      pulumi config set --path 'decant:env.GREETING' VALUE",
        "      pulumi config set --secret --path 'decant:secrets.STRIPE_TOKEN'      # asks for the value",
        "      pulumi config set --secret --path 'decant:secrets.MAIL_URL'      # asks for the value",
        "      pulumi config set --path 'decant:env.PLAIN_URL' VALUE",
        "      pulumi config set --secret --path 'decant:secrets.DATABASE_URL'      # asks for the value",
        "      pulumi config set --path 'decant:env.MULTI' VALUE",
    ]
    assert "canary" not in text


def test_variables_that_the_stack_sets_are_not_asked_for_again(app: Path) -> None:
    (text,) = warnings(app, {".env": "A_KEY=x\nB=y\nC=z\n"}, env={"B": "1"}, secret_names=frozenset({"A_KEY"}))
    assert text.splitlines()[1:] == ["      pulumi config set --path 'decant:env.C' VALUE"]
    assert warnings(app, env={"B": "1", "C": "2"}, secret_names=frozenset({"A_KEY"})) == []


def test_variables_that_decant_sets_itself_are_those_that_it_refuses() -> None:
    assert set(SET_BY_DECANT) == set(RESERVED_ENV)


@pytest.mark.parametrize("name", [".env.production", ".env.prod"])
def test_a_dotenv_for_production_is_named(app: Path, name: str) -> None:
    (text,) = warnings(app, {name: "GREETING=x\n"})
    assert text.startswith(f"{name} stays behind")


@pytest.mark.parametrize("name", [".env.example", ".env.production.sample", ".flaskenv", ".env.local", ".env.test"])
def test_files_like_a_dotenv_that_need_no_word(app: Path, name: str) -> None:
    assert warnings(app, {name: "GREETING=x\n"}) == []


def test_a_dotenv_of_any_encoding_and_length(app: Path) -> None:
    assert "env.GREETING" in warnings(app, {".env": b"\xef\xbb\xbfGREETING=caf\xe9\r\n"})[0]
    (text,) = warnings(app, {".env": "".join(f"V{i}=x\n" for i in range(40))})
    assert len(text.splitlines()) == 27
    assert text.endswith("and 15 more")


def test_the_configuration_in_flasks_instance_folder_is_named(app: Path) -> None:
    (text,) = warnings(app, {"instance/config.py": "SECRET_KEY = 'canary'", "instance/shop.db": "x"})
    assert text.startswith("instance/config.py stays behind")
    assert "canary" not in text
    (app / "instance" / "config.py").unlink()
    assert warnings(app) == []


# ------------------------------------------------------------------------------------------------ git

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def test_pointers_of_git_lfs_are_named(app: Path) -> None:
    assert warnings(app, {"model.pkl": POINTER, "static/a.png": POINTER, "notes.txt": "about git-lfs"}) == [
        "model.pkl, static/a.png: a pointer of Git LFS is shipped in place of the file itself. Get the files:"
        " git -C app lfs pull"
    ]


@pytest.mark.parametrize("made", [False, True], ids=["absent", "empty"])
@pytest.mark.parametrize("place", ["app", "above"])
def test_an_empty_submodule_is_named(tmp_path: Path, made: bool, place: str) -> None:
    whole = tmp_path if place == "above" else tmp_path / "app"
    app = write(tmp_path / "app", PLAIN)
    name = "app/lib" if place == "above" else "lib"
    write(whole, {".gitmodules": f'[submodule "lib"]\n\tpath = {name}\n\turl = https://example.com/lib.git\n'})
    git(whole, "init", "-q")
    if made:
        (app / "lib").mkdir()
    assert warnings(app) == [
        "lib is a git submodule without files, so nothing of it is shipped. Get it:"
        " git -C app submodule update --init lib"
    ]
    write(app, {"lib/x.py": ""})
    assert warnings(app) == []


def test_a_submodule_outside_of_the_app_is_no_matter(tmp_path: Path) -> None:
    app = write(tmp_path / "app", PLAIN)
    write(tmp_path, {".gitmodules": '[submodule "docs"]\n\tpath = docs\n'})
    git(tmp_path, "init", "-q")
    assert warnings(app) == []


def test_static_files_that_git_ignores_are_named_with_the_build(app: Path) -> None:
    write(app, {".gitignore": "static/dist/\n", "static/dist/app.js": "x", "static/dist/b.js": "x"})
    assert warnings(app) == [
        "git ignores these, so they stay behind: static/dist. If a build makes them, let Decant run that build:"
        " pulumi config set decant:build COMMAND"
    ]
    (text,) = warnings(app, {"package.json": "{}"})
    assert text.endswith("decant:build 'npm install && npm run build'")
    (text,) = warnings(app, {"package-lock.json": "{}"})
    assert text.endswith("decant:build 'npm ci && npm run build'")
    assert warnings(app, build=True) == []


def test_a_module_that_git_ignores_and_the_app_imports_is_named(app: Path) -> None:
    write(
        app, {".gitignore": "config.py\nlocal/\nunused.py\n", "config.py": "", "unused.py": "", "local/__init__.py": ""}
    )
    write(app, {"wsgi.py": "import config\nfrom shop import local\napp = None\n"})
    found = warnings(app)
    assert found[0] == (
        "config.py stays behind, because git ignores it, and the app imports config. Track it:"
        " git add -f app/config.py, or read its values from the environment"
    )
    assert found[1].startswith("local/ stays behind, because git ignores it, and the app imports local.")
    assert len(found) == 2


def test_a_file_that_git_ignores_and_the_app_names_is_named(app: Path) -> None:
    write(app, {".gitignore": "*.pkl\n*.db\n", "model.pkl": "x", "other.pkl": "x", "site.db": "x"})
    write(app, {"wsgi.py": "app = open('model.pkl'), 'site.db'\n"})
    assert warnings(app) == [
        "model.pkl stays behind, because git ignores it, and its name is in the app's code."
        " Track it: git add -f app/model.pkl"
    ]


# ------------------------------------------------------------------------------------------------ tools' folders


def test_node_modules_that_templates_use_are_named(app: Path) -> None:
    write(app, {".gitignore": "node_modules/\n", "static/node_modules/x/x.css": "x", "node_modules/tool/i.js": "x"})
    assert warnings(app) == []
    used = {"templates/a.html": "<link href=\"{{ url_for('static', filename='node_modules/x/x.css') }}\">"}
    found = warnings(app, used)
    assert found[1] == (
        "static/node_modules stays behind, and the app uses files of it. Let Decant make it:"
        " pulumi config set decant:build 'npm install --prefix static', or track it: git add -f app/static/node_modules"
    )
    assert "'npm ci'" in warnings(app, {"package-lock.json": "{}"})[0]
    assert warnings(app, build=True) == []
    git(app, "add", "-f", "-A")
    assert warnings(app) == []


@pytest.mark.parametrize("name", ["env", "venv"])
def test_a_package_that_looks_like_an_environment_is_named(app: Path, name: str) -> None:
    write(app, {f"{name}/settings.py": "", "wsgi.py": f"from {name}.settings import X\napp = None\n"})
    assert warnings(app) == [
        f"{name}/ stays behind, because virtual environments have that name, and the app imports {name}. If it is a"
        f" package of the app: touch app/{name}/__init__.py"
    ]
    write(app, {f"{name}/__init__.py": ""})
    assert warnings(app) == []


def test_sockets_are_notes(app: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(app / "s"))
        assert read_left_behind(app, AppOptions()).notes == (
            "s is no file (a named pipe, a socket or a device) and stays behind",
        )


def test_names_that_cannot_be_printed_are_escaped(app: Path) -> None:
    os.close(os.open(os.fsencode(app) + b"/caf\xe9.pkl", os.O_CREAT | os.O_WRONLY))
    (app / "caf\udce9.pkl").write_text(POINTER)
    (text,) = warnings(app)
    assert text.startswith("caf\\xe9.pkl: a pointer of Git LFS")
    text.encode()
