"""Hints for modules, libraries, programs and files that an app does not find."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant_host.debian_names import library_package
from decant_host.error_hints import NOT_SERVING, find_hint
from decant_host.python_changes import distribution


def serving(text: str, **settings: object) -> str:
    return find_hint(NOT_SERVING, f"it stopped by itself\n{text}", otherwise="none", **settings)


def aptfile(what: str, package: str) -> str:
    return f"{what} is not there. Add this line to Aptfile in the app folder: {package}"


@pytest.mark.parametrize(
    ("text", "what", "package"),
    [
        ("ImportError: libGL.so.1: cannot open shared object file: No such file", "libGL.so.1", "libgl1"),
        ("ImportError: libgthread-2.0.so.0: cannot open shared object file", "libgthread-2.0.so.0", "libglib2.0-0t64"),
        ("ImportError: libpq.so.5: cannot open shared object file", "libpq.so.5", "libpq5"),
        ("ImportError: libmariadb.so.3: cannot open shared object file", "libmariadb.so.3", "libmariadb3"),
        ("ImportError: libodbc.so.2: cannot open shared object file", "libodbc.so.2", "libodbc2"),
        ("ImportError: failed to find libmagic.  Check your installation", "libmagic", "libmagic1t64"),
        ("OSError: cannot load library 'libgobject-2.0-0': libgobject-2.0-0: cannot open", "gobject-2.0-0",
         "libglib2.0-0t64"),
        ("OSError: cannot load library 'libpango-1.0-0'", "pango-1.0-0", "libpango-1.0-0"),
        ('OSError: no library called "cairo-2" was found', "cairo-2", "libcairo2"),
        ("ImportError: Unable to find zbar shared library", "zbar", "libzbar0t64"),
        ("ImportError: MagickWand shared library not found.", "MagickWand", "libmagickwand-7.q16-10"),
        ("OSError: sndfile library not found", "sndfile", "libsndfile1"),
    ],
)  # fmt: skip
def test_a_shared_library_is_named_with_its_debian_package(text: str, what: str, package: str) -> None:
    assert serving(text) == aptfile(f"the shared library {what}", package)


def test_an_unknown_library_comes_with_the_place_to_find_it() -> None:
    hint = serving("ImportError: libfoo.so.7: cannot open shared object file: No such file or directory")
    assert hint.startswith("the shared library libfoo.so.7 is not there. Find its Debian package")
    assert hint.endswith("searchon=contents&keywords=libfoo.so.7")
    assert library_package("libfoo.so.7") is None


@pytest.mark.parametrize(
    ("text", "what", "package"),
    [
        ("FileNotFoundError: [Errno 2] No such file or directory: 'ffmpeg'", "the program ffmpeg", "ffmpeg"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/usr/bin/pdftotext'", "the program pdftotext",
         "poppler-utils"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'git'", "the program git", "git"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'node'", "the program node", "nodejs"),
        ("graphviz.backend.execute.ExecutableNotFound: failed to execute PosixPath('dot'), make sure",
         "the program dot", "graphviz"),
        ("sh: 1: convert: not found", "the program convert", "imagemagick"),
        ("/bin/sh: line 1: psql: command not found".replace("/bin/sh", "bash"), "the program psql",
         "postgresql-client"),
        ("RuntimeWarning: Couldn't find ffmpeg or avconv", "the program ffmpeg", "ffmpeg"),
        ("pdf2image.exceptions.PDFInfoNotInstalledError: Unable to get page count.", "poppler (pdftoppm)",
         "poppler-utils"),
        ("pytesseract.pytesseract.TesseractNotFoundError: tesseract is not installed", "tesseract", "tesseract-ocr"),
        ("ImportError: Bad git executable.", "the program git", "git"),
        ("OSError: No pandoc was found: either install pandoc", "pandoc", "pandoc"),
    ],
)  # fmt: skip
def test_a_program_is_named_with_its_debian_package(text: str, what: str, package: str) -> None:
    assert serving(text) == aptfile(what, package)


def test_a_program_that_debian_no_longer_has() -> None:
    assert "Debian 13 has no package of it" in serving("OSError: No wkhtmltopdf executable found: \"b''\"")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("FileNotFoundError: [Errno 2] No such file or directory: 'config.json'",
         "the file config.json is not in the app folder on the machine. Is it in .gitignore?"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/var/lib/decant/releases/0123456789ab/app/d/m.pkl'",
         "the file d/m.pkl is not in the app folder on the machine."),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/etc/shop.conf'", "the file /etc/shop.conf is not"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'frobnicate'", "the program or file frobnicate is"),
        ("jinja2.exceptions.TemplateNotFound: shop/index.html", "the template shop/index.html is not in the app"),
    ],
)  # fmt: skip
def test_a_file_that_stayed_behind(text: str, hint: str) -> None:
    assert hint in serving(text)


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("flask_login", "Add flask-login to requirements.txt (or the module to the app folder)"),
        ("cv2", "the module cv2 is not there. Add opencv-python-headless to requirements.txt"),
        ("yaml", "Add pyyaml to requirements.txt"),
        ("dotenv", "Add python-dotenv to requirements.txt"),
        ("google.cloud", "the module google.cloud is not there. Add google to requirements.txt"),
        ("config", "the module config is not in the app folder on the machine. Is config.py in .gitignore? What git"
                   " ignores stays behind: track it (git add -f config.py) or read its values from the environment"),
        ("shop.local", "the module shop.local is not in the app folder on the machine. Is shop/local.py in"),
    ],
)  # fmt: skip
def test_a_module_that_is_not_there(tmp_path: Path, module: str, hint: str) -> None:
    (tmp_path / "shop").mkdir()
    assert hint in serving(f"ModuleNotFoundError: No module named '{module}'", app=tmp_path)


def test_a_file_of_the_app_that_hides_a_package() -> None:
    text = "ModuleNotFoundError: No module named 'redis.asyncio'; 'redis' is not a package"
    assert serving(text) == (
        "redis.py in the app folder hides the package redis, so redis.asyncio is not found. Rename the file"
    )


@pytest.mark.parametrize(
    ("module", "name"), [("flask_login.utils", "flask-login"), ("PIL.Image", "pillow"), ("requests", "requests")]
)
def test_the_package_of_a_module(module: str, name: str) -> None:
    assert distribution(module) == name
