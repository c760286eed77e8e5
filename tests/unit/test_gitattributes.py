"""Line ends: every checkout of the project has the same bytes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.app_folders import git, use_plain_git, write
from tests.support.in_memory import REPOSITORY

HOST = REPOSITORY / "infra" / "decant" / "host"


def test_no_file_for_machines_has_a_carriage_return() -> None:
    folders = (HOST, REPOSITORY / "infra" / "decant_host")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(files) > 20
    assert [path for path in files if b"\r" in path.read_bytes()] == []


def test_a_checkout_with_windows_line_ends_keeps_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_plain_git(monkeypatch, tmp_path / "home")
    image = b"\x89PNG\r\n\x1a\n text\n"
    original = write(tmp_path / "original", {"run.sh": "#!/bin/sh\necho\n", "logo.png": image})
    shutil.copy(REPOSITORY / ".gitattributes", original)
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        git(original, *arguments)
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "-q", "-c", "core.autocrlf=true", str(original), "copy")
    assert (tmp_path / "copy" / "run.sh").read_bytes() == b"#!/bin/sh\necho\n"
    assert (tmp_path / "copy" / "logo.png").read_bytes() == image


def test_every_text_file_of_the_project_is_stored_with_line_feeds() -> None:
    done = subprocess.run(["git", "ls-files", "--eol"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("the project is in no git repository that can be read")
    assert [line for line in done.stdout.splitlines() if line.startswith(("i/crlf", "i/mixed"))] == []
