"""Requirements that no machine can install: each is named by its line, with the edit that mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.model import AppOptions
from decant.app.packages import read_packages
from decant.app.requirement_checks import machine_markers
from decant.errors import AppError
from tests.support.app_folders import write

LINE = "line 1 of requirements.txt"
HASH = "--hash=sha256:" + 64 * "0"


def found(
    tmp_path: Path, text: str, files: dict[str, str | bytes] | None = None, **options: object
) -> list[tuple[str, str]]:
    app = write(tmp_path / "app", {"requirements.txt": text, **(files or {})})
    try:
        read_packages(app, AppOptions(**options))  # type: ignore[arg-type]
    except AppError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("pkg-resources==0.0.0", "which an old pip on Ubuntu lists by mistake: PyPI has no such package"),
        ("pkg_resources==0.0.0", "which an old pip on Ubuntu lists by mistake: PyPI has no such package"),
        ("pywin32==306", "which exists for Windows alone"),
        ("pypiwin32==223", "which exists for Windows alone"),
        ("pywinpty==2.0.10", "which exists for Windows alone"),
        ("windows-curses", "which exists for Windows alone"),
        ("pyobjc-core==9.2", "which exists for macOS alone"),
        ("wsgiref==0.1.2", "which is a part of Python 2"),
        ("distribute==0.6.31", "which is an old name of setuptools and cannot be installed today"),
    ],
)  # fmt: skip
def test_a_package_that_no_machine_can_install_is_named(tmp_path: Path, line: str, why: str) -> None:
    assert found(tmp_path, f"{line}\n") == [(f"{LINE} names {line}, {why}", f"delete {LINE}")]


@pytest.mark.parametrize("name", ["psycopg2", "psycopg2-binary"])
@pytest.mark.parametrize("version", ["==2.7.3", "==2.8.3", "<2.8"])
def test_a_version_that_no_python_of_machines_can_build_is_named(tmp_path: Path, name: str, version: str) -> None:
    assert found(tmp_path, f"{name}{version}\n") == [
        (f"{LINE} asks for {name}{version}, which cannot be built on Python 3.8 or newer",
         f"write {name}==2.8.6 in {LINE}"),
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "count"), [("==0.16", 1), ("<1", 1), ("==1.0", 0), ("==2.2", 0), ("", 0)])
def test_a_flask_sqlalchemy_for_python_2_is_named(tmp_path: Path, version: str, count: int) -> None:
    text = f"{LINE} asks for Flask-SQLAlchemy{version}, which is for Python 2 alone"
    assert found(tmp_path, f"Flask-SQLAlchemy{version}\n") == count * [
        (text, f"write flask-sqlalchemy==2.5.1 in {LINE}")
    ]


@pytest.mark.parametrize(
    "version", ["", "==2.8.4", "==2.8.6", "==2.9.9", ">=2.7", "~=2.9.1", "==2.9.99", "==3.0", "==2.8.6.post1"]
)
def test_newer_versions_of_it_are_installed(tmp_path: Path, version: str) -> None:
    assert found(tmp_path, f"psycopg2{version}\n") == []


@pytest.mark.parametrize("marker", ['sys_platform == "win32"', "platform_system=='Windows'", "os_name == 'nt'"])
def test_a_marker_that_leaves_it_out_is_enough(tmp_path: Path, marker: str) -> None:
    assert found(tmp_path, f"flask\npywin32==306 ; {marker}\n") == []


def test_the_apps_own_python_decides_about_markers(tmp_path: Path) -> None:
    line = "pywin32 ; python_version < '3.12'\n"
    assert found(tmp_path, line) == []
    assert len(found(tmp_path, line, python="3.11")) == 1


def test_a_constraint_installs_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, "flask\n-c c.txt\n", {"c.txt": "pywin32==306\n"}) == []


@pytest.mark.parametrize(
    ("line", "message", "fix"),
    [
        ("certifi @ file:///croot/certifi_169/work/certifi",
         f"{LINE} names a file of conda's build: certifi @ file:///croot/certifi_169/work/certifi",
         f"write certifi in place of {LINE}"),
        ("six @ file:///home/conda/feedstock_root/six/work",
         f"{LINE} names a file of conda's build: six @ file:///home/conda/feedstock_root/six/work",
         f"write six in place of {LINE}"),
        ("lib @ file:///home/me/lib", f"{LINE} names a file of one computer: lib @ file:///home/me/lib",
         f"write lib in place of {LINE}"),
        ("file:///C:/Users/me/lib", f"{LINE} names a file of one computer: file:///C:/Users/me/lib", f"delete {LINE}"),
        ("-e /home/me/lib", f"{LINE} names a file of one computer: /home/me/lib", f"delete {LINE}"),
        ("..", f"{LINE} installs .., which is outside the app folder",
         f"copy it into app/ and name the copy in {LINE}"),
        ("./gone", f"{LINE} installs ./gone, which is not there", f"delete {LINE}, or add app/gone"),
        ("-e .", f"{LINE} installs the app folder, which has no pyproject.toml and no setup.py", f"delete {LINE}"),
        (".[web]", f"{LINE} installs the app folder, which has no pyproject.toml and no setup.py", f"delete {LINE}"),
        ("./lib", f"{LINE} installs lib, which has no pyproject.toml and no setup.py", f"delete {LINE}"),
    ],
)  # fmt: skip
def test_a_path_that_no_machine_has_is_named(tmp_path: Path, line: str, message: str, fix: str) -> None:
    assert found(tmp_path, f"{line}\n", {"lib/x.py": ""}) == [(message, fix)]


@pytest.mark.parametrize(
    ("line", "message", "fix"),
    [
        ("hg+https://example.com/x", f"{LINE} installs by hg, and machines have git alone",
         f"write an archive's URL in {LINE}"),
        ("git+git://example.com/x.git", f"{LINE} uses git://, which hosts of repositories have switched off",
         f"write git+https://example.com/x.git in {LINE}"),
        ("x @ git+ssh://git@example.com/me/x.git@v1",
         f"{LINE} needs an SSH key for example.com, which machines do not have",
         f"write x @ git+https://${{GIT_TOKEN}}@example.com/me/x.git@v1 in {LINE}, and give the token:"
         " pulumi config set --secret --path 'decant:secrets.GIT_TOKEN'"),
    ],
)  # fmt: skip
def test_a_repository_that_no_machine_can_read_is_named(tmp_path: Path, line: str, message: str, fix: str) -> None:
    assert found(tmp_path, f"{line}\n") == [(message, fix)]


def test_hashes_are_on_all_lines_or_on_none(tmp_path: Path) -> None:
    fix = (
        "write a hash on every line (.venv/bin/uv pip compile --generate-hashes makes them), or delete"
        " line 2 of requirements.txt"
    )
    assert found(tmp_path, f"Flask==3.1.3 {HASH}\nrequests\n") == [
        ("line 2 of requirements.txt has no hash, and other lines have: requests", fix)
    ]
    assert found(tmp_path, f"Flask==3.1.3 \\\n  {HASH}\nx ; os_name == 'nt'\n") == []


def test_a_variable_that_nothing_sets_is_named(tmp_path: Path) -> None:
    text = "-i https://${TOKEN}@example.com/simple\nflask\n"
    assert found(tmp_path, text) == [
        (
            f"{LINE} needs the variable TOKEN, which is in no setting",
            "pulumi config set --secret --path 'decant:secrets.TOKEN'",
        )
    ]
    assert found(tmp_path, text, secret_names=frozenset({"TOKEN"})) == []
    assert found(tmp_path, text, env={"TOKEN": "x"}) == []


def test_all_lines_are_named_at_once(tmp_path: Path) -> None:
    text = "pkg-resources==0.0.0\npywin32==306\nflask\nsix @ file:///croot/six/work\n"
    assert [fix for _, fix in found(tmp_path, text)] == [
        "delete line 1 of requirements.txt",
        "delete line 2 of requirements.txt",
        "write six in place of line 4 of requirements.txt",
    ]


def test_a_machine_is_linux_with_the_newest_release_of_its_python() -> None:
    markers = machine_markers("3.12")
    assert (markers["python_version"], markers["python_full_version"]) == ("3.12", "3.12.99")
    assert machine_markers("3.12.4", "aarch64")["python_full_version"] == "3.12.4"
    assert (markers["sys_platform"], markers["platform_machine"]) == ("linux", "x86_64")
