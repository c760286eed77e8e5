"""The Python of an app: who may ask for one, and which ones machines can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.model import AppOptions
from decant.app.python_version import offered, poetry_specifier, read_python
from decant.errors import AppError
from tests.support.app_folders import write

NAMED = {
    ".python-version": "3.12\n",
    "runtime.txt": "python-3.11.7\n",
    "Pipfile.lock": '{"_meta": {"requires": {"python_version": "3.10"}}}',
    "Pipfile": '[requires]\npython_version = "3.9"\n',
    "pyproject.toml": '[project]\nrequires-python = "<3.9"\n',
    "uv.lock": 'requires-python = "==3.14.*"\n',
}


def python(folder: Path, setting: str | None = None) -> tuple[str, bool]:
    found = read_python(folder, AppOptions(python=setting))
    return found.version, found.system


def test_a_folder_that_asks_for_none_gets_debians(tmp_path: Path) -> None:
    found = read_python(tmp_path, AppOptions())
    assert (found.version, found.system, found.why) == ("3.13", True, "the machines' own")


def test_the_setting_comes_first_and_then_the_files_in_their_order(tmp_path: Path) -> None:
    folder = write(tmp_path, dict(NAMED))
    assert python(folder, "3.14") == ("3.14", False)
    assert read_python(folder, AppOptions(python="3.14")).why == "decant:python"
    seen = []
    for name in NAMED:
        found = read_python(folder, AppOptions())
        seen.append((name in found.why, found.version))
        (folder / name).unlink()
    assert seen == [(True, v) for v in ("3.12", "3.11", "3.10", "3.9", "3.8", "3.14")]
    assert python(folder) == ("3.13", True)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.13", "3.13"), ("3.13.2", "3.13"), ("3", "3.13"), ("python-3.11.7", "3.11"), ("3.11", "3.11"),
        ("# why\n\n 3.12.1  # x\n3.9\n", "3.12"), ("cpython-3.10.4", "3.10"), ("cpython@", None), (">=3.9", "3.13"),
        (">=3.10,<3.12", "3.11"), ("3.12.x", "3.12"), ("3.12.*", "3.12"), ("Python 3.12", None), ("", "3.13"),
        ("==3.12", "3.12"),
    ],
)  # fmt: skip
def test_the_forms_of_a_version_file(tmp_path: Path, text: str, version: str | None) -> None:
    write(tmp_path, {".python-version": text})
    if version is None:
        with pytest.raises(AppError):
            python(tmp_path)
    else:
        assert python(tmp_path) == (version, version == "3.13")


def test_a_version_file_from_powershell_is_read(tmp_path: Path) -> None:
    assert python(write(tmp_path, {"runtime.txt": "python-3.11.7\r\n".encode("utf-16")})) == ("3.11", False)


def test_another_patch_release_is_said(tmp_path: Path) -> None:
    write(tmp_path, {"runtime.txt": "python-3.11.7"})
    assert (
        read_python(tmp_path, AppOptions()).why == "runtime.txt, which asks for 3.11.7; machines have the newest 3.11"
    )
    write(tmp_path, {"runtime.txt": "python-3.13.1"})
    assert read_python(tmp_path, AppOptions()).why == "runtime.txt, which asks for 3.13.1; machines have Debian's 3.13"
    write(tmp_path, {"runtime.txt": "python-3.13"})
    assert read_python(tmp_path, AppOptions()).why == "runtime.txt"


def test_the_setting_may_ask_for_one_patch_release(tmp_path: Path) -> None:
    assert python(tmp_path, "3.12.4") == ("3.12.4", False)
    assert python(tmp_path, "3.13.2") == ("3.13.2", False)
    assert python(tmp_path, "3.13") == ("3.13", True)
    with pytest.raises(AppError):
        python(tmp_path, "3.12.99")


@pytest.mark.parametrize(
    ("name", "text", "message", "nearest"),
    [
        ("runtime.txt", "python-2.7.18", "runtime.txt asks for Python 2.7.18", "3.13"),
        ("runtime.txt", "python-3.6.8", "runtime.txt asks for Python 3.6.8", "3.8"),
        (".python-version", "3.99", ".python-version asks for Python 3.99", "3.13"),
        (".python-version", "2", ".python-version asks for Python 2", "3.13"),
        (".python-version", "3.16", ".python-version asks for Python 3.16", "3.13"),
        ("pyproject.toml", '[project]\nrequires-python = "<3.8"\n',
         "requires-python in pyproject.toml asks for Python <3.8", "3.13"),
    ],
)  # fmt: skip
def test_a_python_that_no_machine_can_have_is_named(
    tmp_path: Path, name: str, text: str, message: str, nearest: str
) -> None:
    with pytest.raises(AppError) as caught:
        python(write(tmp_path, {name: text}))
    assert caught.value.problems == (
        (f"{message}; machines can have 3.8 to 3.15", f"pulumi config set decant:python {nearest}"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pypy3.9-7.3.11", ".python-version asks for 'pypy3.9-7.3.11'; machines run CPython's releases alone"),
        ("miniconda3-4.7.12", ".python-version asks for 'miniconda3-4.7.12'; machines run CPython's releases alone"),
        ("3.11-dev", ".python-version asks for '3.11-dev'; machines run CPython's releases alone"),
        ("my-shop", ".python-version asks for 'my-shop'; that is no version of Python"),
        (">=x", ".python-version is '>=x', which is no range of versions"),
    ],
)
def test_another_kind_of_python_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AppError) as caught:
        python(write(tmp_path, {".python-version": text}))
    assert caught.value.problems == ((message, "pulumi config set decant:python 3.13"),)


@pytest.mark.parametrize(
    ("asked", "version"),
    [
        (">=3.9", "3.13"), (">=3.14", "3.14"), ("<3.13", "3.12"), (">=3.8,<3.11", "3.10"), ("~=3.11.4", "3.11"),
        ("==3.11.4", "3.11.4"), ("==3.13.*", "3.13"), (">=3.12.0,!=3.13.*", "3.12"), ("<=3.11.5", "3.11.5"),
    ],
)  # fmt: skip
def test_a_range_gets_debians_or_the_nearest_one(tmp_path: Path, asked: str, version: str) -> None:
    folder = write(tmp_path, {"pyproject.toml": f'[project]\nrequires-python = "{asked}"\n'})
    assert python(folder) == (version, version == "3.13")


@pytest.mark.parametrize(
    ("text", "specifier"),
    [
        ("^3.11", ">=3.11,<4"), ("^3.9.1", ">=3.9.1,<4"), ("~3.11", ">=3.11,<3.12"), ("~3.11.2", ">=3.11.2,<3.12"),
        (">=3.8,<4.0", ">=3.8,<4.0"), (">=3.8 <3.12", ">=3.8,<3.12"), ("3.11.*", "==3.11.*"), ("*", ""),
        ("^0.2.3", ">=0.2.3,<0.3"), ("^0.0.3", ">=0.0.3,<0.0.4"), ("^0", ">=0,<1"), ("~3", ">=3,<4"), ("1.2", "==1.2"),
        ("~=3.9", "~=3.9"), (">=3.8, <3.9 || >=3.10", ">=3.8,<3.9"), ("!=3.9.1", "!=3.9.1"),
    ],
)  # fmt: skip
def test_poetrys_constraints_as_specifiers(text: str, specifier: str) -> None:
    assert poetry_specifier(text) == specifier


def test_poetrys_python_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path, {"pyproject.toml": '[tool.poetry.dependencies]\npython = "~3.11"\n'})
    assert python(folder) == ("3.11", False)


def test_machines_are_offered_releases_alone() -> None:
    assert not any(version.is_prerelease for version in offered())
    assert [str(v) for v in (offered()[0], offered()[-1])] == ["3.8.2", "3.15.2"]


def test_a_runtime_that_the_project_itself_rules_out_does_not_count(tmp_path: Path) -> None:
    files = {"runtime.txt": "python-3.6.5", "pyproject.toml": '[project]\nrequires-python = ">=3.8"\n'}
    folder = write(tmp_path, dict(files))
    found = read_python(folder, AppOptions())
    assert (found.version, found.system) == ("3.13", True)
    assert found.why == "requires-python in pyproject.toml, which runtime.txt contradicts by 3.6.5"
    write(folder, {"runtime.txt": "python-3.9"})
    assert python(folder) == ("3.9", False)


@pytest.mark.parametrize("requires", ["", 'requires-python = ">=3.6"\n', 'requires-python = "what"\n'])
def test_an_impossible_runtime_that_nothing_rules_out_is_refused(tmp_path: Path, requires: str) -> None:
    write(tmp_path, {"runtime.txt": "python-3.6.5", "pyproject.toml": f"[project]\n{requires}"})
    with pytest.raises(AppError) as caught:
        python(tmp_path)
    assert caught.value.problems == (
        (
            "runtime.txt asks for Python 3.6.5; machines can have 3.8 to 3.15",
            "pulumi config set decant:python 3.8",
        ),
    )
