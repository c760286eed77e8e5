"""The packages of poetry.lock that a machine needs."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from decant.app.poetry_lock import poetry_lines


def package(name: str, version: str = "1", **more: Any) -> dict[str, Any]:
    return {"name": name, "version": version, "files": [{"hash": f"sha256:{name}"}], **more}


def lines(dependencies: str, *packages: dict[str, Any], python: str = "3.13", **lock: Any) -> list[str]:
    pyproject = tomllib.loads(f"[tool.poetry.dependencies]\npython = '^3.9'\n{dependencies}")
    return poetry_lines(pyproject, {"package": packages, **lock}, python)


def test_only_what_the_main_group_needs_is_installed() -> None:
    made = lines("Flask = '^3'", package("flask", dependencies={"click": ">=8"}), package("click"), package("pytest"))
    assert made == ["click==1 --hash=sha256:click", "flask==1 --hash=sha256:flask"]


@pytest.mark.parametrize(
    ("dependency", "needed"),
    [
        ("{version='1', optional=true}", False),
        ("{version='1', markers=\"sys_platform == 'win32'\"}", False),
        ("{version='1', markers=\"sys_platform == 'linux'\"}", True),
        ("{version='1', python='<3.10'}", False),
        ("{version='1', python='^3.10'}", True),
        ("[{version='1', python='<3.10'}, {version='1', python='>=3.10'}]", True),
    ],
)
def test_markers_are_those_of_a_machine(dependency: str, needed: bool) -> None:
    assert lines(f"a = {dependency}", package("a")) == (["a==1 --hash=sha256:a"] if needed else [])


def test_what_an_extra_switches_on_is_needed() -> None:
    shop = package(
        "shop",
        dependencies={
            "redis": {"version": ">=3", "optional": True, "markers": 'extra == "cache"'},
            "b": {"version": "1", "optional": True},
        },
        extras={"cache": ["redis (>=3)"], "other": ["b"]},
    )
    assert lines("shop = {version='1', extras=['cache']}", shop, package("redis"), package("b")) == [
        "redis==1 --hash=sha256:redis",
        "shop==1 --hash=sha256:shop",
    ]
    assert lines("shop = '1'", shop, package("redis")) == ["shop==1 --hash=sha256:shop"]


def test_of_several_versions_the_one_for_the_python_is_chosen() -> None:
    both = (package("a", "1", **{"python-versions": ">=3.8,<3.11"}), package("a", "2", **{"python-versions": ">=3.11"}))
    assert lines("a = '*'", *both) == ["a==2 --hash=sha256:a"]
    assert lines("a = '*'", *both, python="3.9") == ["a==1 --hash=sha256:a"]
    same = (package("a", "1"), package("a", "2"))
    assert lines("a = [{version='^1', python='<3.12'}, {version='^2', python='>=3.12'}]", *same) == [
        "a==2 --hash=sha256:a"
    ]
    assert lines("a = '^1'", *same) == ["a==1 --hash=sha256:a"]


def test_a_package_of_one_architecture_keeps_a_marker() -> None:
    made = lines("a = {version='1', markers=\"platform_machine == 'aarch64'\"}", package("a"))
    assert made == ["a==1 ; platform_machine == 'aarch64' --hash=sha256:a"]


def test_markers_that_poetry_2_writes_are_read() -> None:
    left_out = package("a", groups=["main"], markers="sys_platform == 'win32'")
    assert lines("a = '*'", left_out) == []
    assert lines("a = '*'", package("a", markers={"main": "os_name == 'nt'", "dev": "os_name == 'posix'"})) == []
    assert lines("a = '*'", package("a", markers={"main": "os_name == 'posix'"})) != []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({"type": "git", "url": "https://x.org/a.git", "resolved_reference": "abc"}, "a @ git+https://x.org/a.git@abc"),
        ({"type": "git", "url": "https://x.org/a.git", "reference": "main", "subdirectory": "d"},
         "a @ git+https://x.org/a.git@main#subdirectory=d"),
        ({"type": "url", "url": "https://x.org/a.whl"}, "a @ https://x.org/a.whl --hash=sha256:a"),
        ({"type": "directory", "url": "lib"}, "./lib"),
        ({"type": "file", "url": "./a.whl"}, "./a.whl"),
        ({"type": "legacy", "url": "https://pypi.org/simple"}, "a==1 --hash=sha256:a"),
    ],
)  # fmt: skip
def test_each_source_of_a_package(source: dict[str, str], line: str) -> None:
    assert lines("a = '*'", package("a", source=source)) == [line]


def test_an_index_of_the_apps_own_is_named_once() -> None:
    source = {"type": "legacy", "url": "https://x.org/simple"}
    made = lines("a = '*'\nb = '*'", package("a", source=source), package("b", source=source))
    assert made[0] == "--extra-index-url https://x.org/simple"
    assert len(made) == 3


def test_the_files_of_old_locks_are_in_a_table_of_their_own() -> None:
    old = {"name": "a", "version": "1"}
    metadata = {"files": {"a": [{"file": "a.whl", "hash": "sha256:2"}, {"file": "a.tar", "hash": "sha256:1"}]}}
    assert lines("a = '*'", old, metadata=metadata) == ["a==1 --hash=sha256:1 --hash=sha256:2"]


def test_dependencies_of_the_project_table_have_precedence() -> None:
    pyproject = tomllib.loads(
        "[project]\ndependencies = ['a (>=1,<2)', \"b ; os_name == 'nt'\"]\n"
        "[tool.poetry.dependencies]\nA = {version='*'}\n"
    )
    lock = {"package": [package("a", "1.5"), package("a", "2"), package("b")]}
    assert poetry_lines(pyproject, lock, "3.13") == ["a==1.5 --hash=sha256:a"]
