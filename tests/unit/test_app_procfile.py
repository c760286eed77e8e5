"""The Procfile of an app: its lines, in any form that people write them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import AppOptions
from decant.app.procfile import read_procfile
from decant.errors import AppError
from tests.support.app_folders import LOCKED, write

SHOP = {"requirements.txt": LOCKED, "shop.py": "", "wsgi.py": "", "pkg/__init__.py": "", "pkg/web.py": ""}


def fixes(folder: Path) -> list[tuple[str, str]]:
    with pytest.raises(AppError) as caught:
        read_procfile(folder)
    return list(caught.value.problems)


LINE = "web: gunicorn shop:app\r\nrelease: flask db upgrade\r\n"
READ = {"web": "gunicorn shop:app", "release": "flask db upgrade"}


@pytest.mark.parametrize(
    "data",
    [
        LINE.encode(),
        LINE.replace("\r\n", "\n").encode(),
        LINE.replace("\r\n", "\r").encode(),
        LINE.encode("utf-8-sig"),
        LINE.encode("utf-16"),
        LINE.encode("utf-16-le"),
        LINE.encode("utf-16-be"),
        b"\xfe\xff" + LINE.encode("utf-16-be"),
        b"# gr\xfc\xdfe\n" + LINE.encode(),
        "# grüße\n".encode() + LINE.encode(),
        b"\n\n  # comment\n" + LINE.encode() + b"   \n",
        LINE.replace("web: ", "web:").encode(),
        LINE.replace("web: ", "web :   ").encode(),
        LINE.replace("web: ", "WEB: ").encode(),
        LINE.replace("web: ", "  Web:\t").encode(),
    ],
)
def test_a_procfile_is_read_in_every_form(tmp_path: Path, data: bytes) -> None:
    assert read_procfile(write(tmp_path, {"Procfile": data})) == READ


def test_a_command_keeps_its_colons_and_comments(tmp_path: Path) -> None:
    text = "release :  flask db upgrade --yes: now # last\nbeat-2_x: celery\n"
    expected = {"release": "flask db upgrade --yes: now # last", "beat-2_x": "celery"}
    assert read_procfile(write(tmp_path, {"Procfile": text})) == expected
    assert read_procfile(write(tmp_path, {"Procfile": ""})) == {}


@pytest.mark.parametrize("name", ["procfile", "Procfile.txt", "PROCFILE"])
def test_a_file_of_another_name_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "app", {name: LINE})
    assert fixes(folder) == [(f"{name} is not read: its name has to be Procfile", f"mv app/{name} app/Procfile")]
    assert read_procfile(write(folder, {"Procfile": LINE})) == READ
    assert read_procfile(write(tmp_path / "none", {"Procfile.dev": LINE})) == {}


def test_every_wrong_line_is_named(tmp_path: Path) -> None:
    text = "web: gunicorn a:app\nheroku ps:scale web=1\nweb gunicorn\nwe b: x\nweb: gunicorn b:app\n"
    assert fixes(write(tmp_path / "app", {"Procfile": text})) == [
        ("Procfile: 'heroku ps:scale web=1' is not of the form `name: command`", "remove that line from app/Procfile"),
        ("Procfile: 'web gunicorn' is not of the form `name: command`", "remove that line from app/Procfile"),
        ("Procfile: 'we b: x' is not of the form `name: command`", "remove that line from app/Procfile"),
        (
            "Procfile: there are two lines web:, and only one can be meant",
            "remove one of them: web: gunicorn a:app / web: gunicorn b:app",
        ),
    ]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("web: gunicorn \u2018shop:create_app()\u2019", "web: gunicorn 'shop:create_app()'"),
        ("web: gunicorn \u201cshop:app\u201d", 'web: gunicorn "shop:app"'),
        ("web: gunicorn \u2013workers 4 shop:app", "web: gunicorn --workers 4 shop:app"),
        ("web: gunicorn\u00a0shop:app", "web: gunicorn shop:app"),
    ],
)
def test_typographic_characters_are_named(tmp_path: Path, typed: str, meant: str) -> None:
    problem = "Procfile: the web: line holds typographic quotes, dashes or blanks, which no shell knows"
    assert fixes(write(tmp_path / "app", {"Procfile": typed})) == [(problem, f"in app/Procfile: {meant}")]


def test_other_processes_are_warned_about(tmp_path: Path) -> None:
    text = "web: gunicorn shop:app\nworker: rq worker\nclock: python clock.py\n"
    app = read_app(write(tmp_path / "app", {**SHOP, "Procfile": text}), AppOptions())
    assert [w.split(" line")[0] for w in app.warnings] == ["Procfile: the clock:", "Procfile: the worker:"]
    assert app.web.release_command is None


# `shop` means shop:application to gunicorn. It follows an option with its value, or a switch.
@pytest.mark.parametrize("web", ["gunicorn --workers=3 shop", "gunicorn --log-file=- shop", "gunicorn --preload shop"])
def test_a_module_alone_is_an_application(tmp_path: Path, web: str) -> None:
    assert read_app(write(tmp_path / "app", {**SHOP, "Procfile": f"web: {web}\n"}), AppOptions()).web.wsgi_app == "shop"


# The application is the first argument that is neither an option nor the value of one.
@pytest.mark.parametrize("web", ["gunicorn shop:app --bind unix:shop", "gunicorn shop:app --logger-class pkg.web:Log",
                                 "gunicorn shop:app -k pkg.web:Worker"])  # fmt: skip
def test_the_value_of_an_option_is_not_the_application(tmp_path: Path, web: str) -> None:
    folder = write(tmp_path / "app", {**SHOP, "Procfile": f"web: {web}\n"})
    assert read_app(folder, AppOptions()).web.wsgi_app == "shop:app"
