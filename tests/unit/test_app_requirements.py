"""The requirements of an app: included files, hashes, and code of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.archive import pack
from decant.app.folder import read_app
from decant.app.model import App, AppOptions
from tests.support.app_folders import LOCKED, PLAIN, WSGI, packed, problems, write


def requirements(tmp_path: Path, text: str) -> App:
    return read_app(write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": text}), AppOptions())


def test_a_folder_without_requirements_is_a_problem(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path / "app", {"wsgi.py": WSGI}))
    assert problem == "has no requirements.txt, so nothing says what the app needs"


def test_requirements_without_hashes_are_warned_about(tmp_path: Path) -> None:
    locked = requirements(tmp_path / "a", LOCKED)
    assert (locked.packages.hashed, locked.warnings) == (True, ())
    loose = requirements(tmp_path / "b", "flask\n")
    assert not loose.packages.hashed
    (warning,) = loose.warnings
    assert "uv pip compile --generate-hashes --python-version 3.13" in warning
    assert warning.startswith("app/requirements.txt has no hashes")


INCLUDES = "# first\n-r base.txt\n  -c limits.txt # why\n--requirement=extra/more.txt\n--constraint more.txt\n"


def included(folder: Path) -> Path:
    return write(
        folder,
        {
            "wsgi.py": WSGI, "requirements.txt": INCLUDES, "base.txt": LOCKED, "limits.txt": "", "more.txt": "",
            "extra/more.txt": "-r ../deep.txt\n-r same.txt\n", "deep.txt": "-r requirements.txt\n",
            "extra/same.txt": "",
        },
    )  # fmt: skip


def test_included_files_are_part_of_the_requirements_hash(tmp_path: Path) -> None:
    app = read_app(included(tmp_path / "app"), AppOptions())
    names = ["requirements.txt", "base.txt", "limits.txt", "extra/more.txt", "deep.txt", "extra/same.txt", "more.txt"]
    assert list(app.packages.files) == names
    assert app.packages.hashed
    before = pack(app).requirements_hash
    for name in names:
        changed = included(tmp_path / name.replace("/", "-"))
        (changed / name).write_text((changed / name).read_text() + "# changed\n")
        assert packed(changed).requirements_hash != before, name


def test_a_change_of_code_keeps_the_requirements_hash(tmp_path: Path) -> None:
    app = write(tmp_path / "app", PLAIN)
    before = packed(app)
    write(app, {"wsgi.py": "app = 2\n", "new.py": ""})
    after = packed(app)
    assert (before.requirements_hash == after.requirements_hash, before.code_hash == after.code_hash) == (True, False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-e .", "requirements.txt: '-e .' cannot be editable on a machine; leave out -e"),
        ("  --editable ./lib", "'--editable ./lib' cannot be editable on a machine"),
        ("-e git+https://example.com/a.git#egg=a", "cannot be editable on a machine"),
        ("-r missing.txt", "has no missing.txt"),
        ("-r ../other.txt", "requirements.txt includes ../other.txt, which is outside the app folder"),
        ("-r extra/../../other.txt", "which is outside the app folder"),
        ("-c /etc/limits.txt", "which is outside the app folder"),
        ("-r inner.txt", "inner.txt: '-e .' cannot be editable"),
    ],
)
def test_requirements_that_no_machine_can_install_are_a_problem(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path, {"other.txt": ""})
    (problem,) = problems(
        write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": f"flask\n{line}\n", "inner.txt": "-e .\n"})
    )
    assert message in problem


@pytest.mark.parametrize(
    ("line", "local"),
    [
        (".", True), ("./lib", True), (".[web]", True), ("..", True), ("  ./lib", True), ("file:./lib", True),
        ("money @ file:./lib", True), ("money@file:///srv/x", True), ("flask", False), ("zope.interface", False),
        ("# ./lib", False), ("money @ https://example.com/m.whl", False), (".hidden-is-no-name", False),
    ],
)  # fmt: skip
def test_requirements_that_are_code_of_the_app_change_with_it(tmp_path: Path, line: str, local: bool) -> None:
    app = write(tmp_path / "app", {**PLAIN, "requirements.txt": f"flask\n{line}\n"})
    assert read_app(app, AppOptions()).packages.local == local
    before = packed(app).requirements_hash
    write(app, {"lib/setup.py": "changed"})
    assert (packed(app).requirements_hash != before) == local


def test_a_file_that_two_others_include_is_listed_once(tmp_path: Path) -> None:
    files = {"requirements.txt": "-r a.txt\n-r b.txt\n", "a.txt": "-r c.txt\n", "b.txt": "-r c.txt\n", "c.txt": LOCKED}
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, **files}), AppOptions())
    assert sorted(app.packages.files) == ["a.txt", "b.txt", "c.txt", "requirements.txt"]


# pip and uv take `-rbase.txt`, too. If Decant missed it, a change of the file would install nothing.
def test_an_include_needs_no_space(tmp_path: Path) -> None:
    files = {"requirements.txt": "-rbase.txt\n", "base.txt": LOCKED}
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, **files}), AppOptions())
    assert app.packages.files == ("requirements.txt", "base.txt")
