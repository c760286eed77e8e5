"""The requirements of an app: included files, hashes, and code of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import App, AppOptions
from decant.app.requirements import has_credentials, hide_credentials, parse_requirements, read_requirements
from decant.errors import AppError
from tests.support.app_folders import LOCKED, PLAIN, WSGI, pack_beside, packed, problems, write

SETUP = {"setup.py": "", "lib/setup.py": ""}


def requirements(tmp_path: Path, text: str) -> App:
    return read_app(write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": text}), AppOptions())


def test_requirements_without_hashes_are_warned_about(tmp_path: Path) -> None:
    locked = requirements(tmp_path / "a", LOCKED)
    assert (locked.packages.hashed, locked.warnings) == (True, ())
    loose = requirements(tmp_path / "b", "flask\n")
    assert not loose.packages.hashed
    assert loose.warnings == (
        "app/requirements.txt has no hashes: machines may install different versions. To lock them:"
        " .venv/bin/uv pip compile --generate-hashes --universal --python-version 3.13 app/requirements.txt"
        " -o app/requirements.txt",
    )
    write(tmp_path / "b" / "app", {"requirements.in": "flask\n"})
    (warning,) = read_app(tmp_path / "b" / "app", AppOptions()).warnings
    assert warning.endswith(" app/requirements.in -o app/requirements.txt")


def test_a_comment_about_hashes_is_no_hash(tmp_path: Path) -> None:
    assert not requirements(tmp_path, "# --hash= is not used here\nFlask\n").packages.hashed
    assert requirements(tmp_path, "--require-hashes\n" + LOCKED).packages.hashed


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
    before = pack_beside(app).requirements_hash
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


def test_what_is_included_must_be_in_the_folder(tmp_path: Path) -> None:
    write(tmp_path, {"other.txt": ""})
    app = write(tmp_path / "app", {"wsgi.py": WSGI, "inner.txt": "\n-r gone.txt\n"})
    for line, message in (
        ("-r missing.txt", "has no missing.txt, which line 2 of requirements.txt includes"),
        ("-r inner.txt", "has no gone.txt, which line 2 of inner.txt includes"),
        ("-r ../other.txt", "line 2 of requirements.txt includes ../other.txt, which is outside the app folder"),
        (
            "-r a/../../other.txt",
            "line 2 of requirements.txt includes a/../../other.txt, which is outside the app folder",
        ),
        ("-c /etc/limits.txt", "line 2 of requirements.txt includes /etc/limits.txt, which is outside the app folder"),
    ):
        write(app, {"requirements.txt": f"flask\n{line}\n"})
        assert problems(app) == [message]


def test_the_remedy_for_a_missing_file_names_the_line(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"requirements.txt": "-r requirements/prod.txt\n"})
    with pytest.raises(AppError) as caught:
        read_requirements(app)
    (problem,) = caught.value.problems
    assert problem[1] == "add app/requirements/prod.txt, or delete line 1 of requirements.txt"


@pytest.mark.parametrize(
    ("line", "local"),
    [
        (".", True), ("./lib", True), (".[web]", True), ("  ./lib", True), ("file:./lib", True), ("-e .", True),
        ("--editable=./lib", True), ("-e.[web]", True), ("money @ file:./lib", True), ("flask", False),
        ("zope.interface", False), ("# ./lib", False), ("money @ https://example.com/m.whl", False),
        ("-e git+https://example.com/a.git#egg=a", False),
    ],
)  # fmt: skip
def test_requirements_that_are_code_of_the_app_change_with_it(tmp_path: Path, line: str, local: bool) -> None:
    app = write(tmp_path / "app", {"wsgi.py": WSGI, **SETUP, "requirements.txt": f"flask\n{line}\n"})
    assert read_app(app, AppOptions()).packages.local == local
    before = packed(app).requirements_hash
    write(app, {"lib/setup.py": "changed"})
    assert (packed(app).requirements_hash != before) == local


def test_a_file_that_two_others_include_is_listed_once(tmp_path: Path) -> None:
    files = {"requirements.txt": "-r a.txt\n-r b.txt\n", "a.txt": "-r c.txt\n", "b.txt": "-r c.txt\n", "c.txt": LOCKED}
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, **files}), AppOptions())
    assert sorted(app.packages.files) == ["a.txt", "b.txt", "c.txt", "requirements.txt"]


# pip and uv take `-rbase.txt`, too. If Decant missed it, a change of the file would install nothing.
@pytest.mark.parametrize("line", ["-rbase.txt", "-r=base.txt", "--requirement base.txt", "-r 'base.txt'"])
def test_an_include_needs_no_space(tmp_path: Path, line: str) -> None:
    files = {"requirements.txt": f"{line}\n", "base.txt": LOCKED}
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, **files}), AppOptions())
    assert app.packages.files == ("requirements.txt", "base.txt")


def test_a_file_that_uv_cannot_read_is_made_one_that_it_can(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "wsgi.py": WSGI,
        "requirements.txt": b"\xef\xbb\xbf-r base.txt\n-c limits.txt\n",
        "base.txt": "Flask==3.1.3  # f\u00fcr\r\n-i https://example.com/simple\r\n".encode("utf-16"),
        "limits.txt": "click<9\n",
    }
    app = read_app(write(tmp_path / "app", files), AppOptions())
    made = app.packages
    assert made.install == ("--requirement", "decant-requirements.txt", "--constraint", "decant-constraints.txt")
    assert made.generated == {
        "decant-requirements.txt": b"Flask==3.1.3\n-i https://example.com/simple\n",
        "decant-constraints.txt": b"click<9\n",
    }
    assert made.files == ("decant-requirements.txt", "decant-constraints.txt")


def test_a_file_in_an_unknown_encoding_is_named_with_the_command_that_converts_it(tmp_path: Path) -> None:
    with pytest.raises(AppError) as caught:
        read_requirements(write(tmp_path / "my app", {"requirements.txt": b"\nf\xfcr\n"}))
    assert caught.value.problems == (
        (
            "requirements.txt is not UTF-8: line 2 has the byte 0xfc",
            "iconv -f ISO-8859-1 -t UTF-8 'my app/requirements.txt' > fixed.txt"
            " && mv fixed.txt 'my app/requirements.txt'",
        ),
    )


@pytest.mark.parametrize(
    ("line", "message", "fix"),
    [
        ("flask=2.0.3=pyhd3eb1b0_0", "line 1 of requirements.txt is conda's: 'flask=2.0.3=pyhd3eb1b0_0'",
         "write flask==2.0.3 in line 1 of requirements.txt; conda's own packages (python, libgcc, ...) are left out"),
        ("flask=2.0.3", "line 1 of requirements.txt is no requirement: 'flask=2.0.3'",
         "write flask==2.0.3 in line 1 of requirements.txt"),
        ("pip install flask", "line 1 of requirements.txt is no requirement: 'pip install flask'",
         "delete line 1 of requirements.txt"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_requirement_is_named(tmp_path: Path, line: str, message: str, fix: str) -> None:
    with pytest.raises(AppError) as caught:
        read_requirements(write(tmp_path / "app", {"requirements.txt": f"{line}\n"}))
    assert caught.value.problems == ((message, fix),)


def test_variables_are_those_that_pip_expands() -> None:
    made = parse_requirements(
        "r.txt", "-i https://${USER_1}:${TOKEN}@example.com\nx @ https://$OTHER/${lower}/${TOKEN}\n"
    )
    assert made.variables == ("TOKEN", "USER_1")


def test_credentials_are_hidden() -> None:
    for secret in ("https://me:pass@example.com/x", "git+https://ghp_1@example.com/x", "https://me:p@ss@example.com/x",
                   "https://me:it's@example.com/x", "https://git@me:pass@example.com/x"):  # fmt: skip
        assert has_credentials(secret)
        assert hide_credentials(f"a {secret} b").count("...@example.com/x b") == 1
    for free in (
        "git+ssh://git@example.com/x",
        "ssh://git@example.com",
        "https://${TOKEN}@example.com",
        "https://me:${TOKEN}@x",
        "a@b",
    ):
        assert not has_credentials(free)


@pytest.mark.parametrize("name", [".env", ".env.production", "instance/keys.txt"])
def test_a_file_that_may_hold_secrets_is_not_included(tmp_path: Path, name: str) -> None:
    app = write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": f"flask\n-r {name}\n", name: "KEY=canary d\n"})
    assert problems(app) == [f"line 2 of requirements.txt includes {name}, which is never shipped"]
