"""Text files of other people's editors: encodings, and the logical lines of requirements."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import AppOptions
from decant.app.text_files import decode, logical_lines, read_text, within
from decant.errors import AppError
from tests.support.app_folders import write

TEXT = "Flask==3.1.3\r\ngunicorn==23.0.0\r\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
    ],
)
def test_every_encoding_that_editors_write_is_read(data: bytes, tmp_path: Path) -> None:
    assert decode(data) == TEXT
    (tmp_path / "a.txt").write_bytes(data)
    assert read_text(tmp_path / "a.txt") == TEXT


def test_a_declared_encoding_is_believed() -> None:
    text = "# -*- coding: latin-1 -*-\nFlask  # für\n"
    assert decode(text.encode("latin-1")) == text
    assert decode(b"#!x\n" + text.encode("latin-1")) == "#!x\n" + text
    with pytest.raises(ValueError, match=r"is not the ascii that it begins as"):
        decode("# coding: ascii\nfür\n".encode())
    with pytest.raises(ValueError, match="is not the nonsense that it begins as"):
        decode(b"# coding: nonsense\n")


def test_an_old_editors_letters_may_be_in_comments_alone() -> None:
    assert decode("Flask  # für\n".encode("latin-1")) == "Flask  # für\n"
    with pytest.raises(ValueError, match=r"^is not UTF-8: line 2 has the byte 0xfc$"):
        decode("Flask\nfür\n".encode("latin-1"))


def test_a_program_is_no_text() -> None:
    with pytest.raises(ValueError, match="is no text"):
        decode(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")


def test_logical_lines_are_those_of_pip() -> None:
    text = "# one\n\nFlask \\\n  ==3.1.3  # two\r\nx#y\nlast \\"
    assert [(line.number, line.text) for line in logical_lines(text)] == [
        (3, "Flask   ==3.1.3"),
        (5, "x#y"),
        (6, "last \\"),
    ]


def test_a_comment_ends_a_continued_line() -> None:
    assert [line.text for line in logical_lines("a \\\n# b \\\nc\n")] == ["a", "c"]


def test_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"real.txt": "x", "inner/a.txt": "y"})
    write(tmp_path, {"credentials": "canary", "application/x": "canary"})
    (app / "out").symlink_to("../credentials")
    (app / "beside").symlink_to("../application")
    (app / "in").symlink_to("inner/a.txt")
    (tmp_path / "link").symlink_to("app")
    assert read_text(app / "in") == read_text(tmp_path / "link" / "in") == "y"
    for name in ("out", "beside/x", "../credentials"):
        with pytest.raises(AppError) as caught:
            within(app, app / name)
        assert caught.value.problems == (
            (f"has {name}, which leads out of the app folder", f"replace {name} by the file that it leads to"),
        )


@pytest.mark.parametrize(
    "name",
    ["Procfile", "Aptfile", "requirements.txt", "runtime.txt", ".python-version", "pyproject.toml", "render.yaml",
     "Pipfile", ".flaskenv"],
)  # fmt: skip
def test_every_reader_refuses_a_link_out_of_the_folder(tmp_path: Path, name: str) -> None:
    app = write(tmp_path / "app", {"wsgi.py": "from flask import Flask\napp = Flask(__name__)\n"})
    if name != "requirements.txt":
        write(app, {"requirements.txt": "flask\n"})
    if name == ".flaskenv":
        write(app, {"Procfile": "web: flask run\n"})
    write(tmp_path, {"credentials": "[default]\naws_secret_access_key = canary\n"})
    (app / name).symlink_to("../credentials")
    with pytest.raises(AppError) as caught:
        read_app(app, AppOptions())
    assert f"has {name}, which leads out of the app folder" in [message for message, _ in caught.value.problems]
    assert "canary" not in str(caught.value)
