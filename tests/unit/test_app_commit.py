"""The commit of an app folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from decant.app.commit import commit_of
from tests.support.app_folders import PLAIN, committed, git, use_plain_git, write


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_plain_git(monkeypatch, tmp_path / "home")


def head(folder: Path) -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_it_is_the_one_that_is_checked_out(tmp_path: Path) -> None:
    project = committed(tmp_path / "project", {f"app/{name}": text for name, text in PLAIN.items()})
    assert len(head(project)) == 40
    assert commit_of(project / "app") == head(project)


def test_only_changes_of_the_app_folder_are_told(tmp_path: Path) -> None:
    project = committed(tmp_path / "project", {f"app/{name}": text for name, text in PLAIN.items()})
    write(project, {"README.md": "new"})
    assert commit_of(project / "app") == head(project)
    write(project, {"app/new.py": ""})
    assert commit_of(project / "app") == head(project) + "+changes"


def test_a_folder_without_a_commit_has_none(tmp_path: Path) -> None:
    folder = write(tmp_path / "app", PLAIN)
    assert commit_of(folder) is None
    git(folder, "init", "-q")
    assert commit_of(folder) is None


def test_a_repository_that_git_cannot_read_has_none(tmp_path: Path) -> None:
    folder = committed(tmp_path / "app", PLAIN)
    shutil.rmtree(folder / ".git" / "objects")
    assert commit_of(folder) is None
