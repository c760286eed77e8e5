"""Files and links that are written completely or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from decant_host import atomic


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    link = tmp_path / "current"
    assert atomic.link_target(link) is None
    for target in ("releases/one", "two"):
        atomic.link(link, target)
        assert link.readlink() == Path(target)
    assert atomic.link_target(link) == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["current"]
    (tmp_path / "file").touch()
    assert atomic.link_target(tmp_path / "file") is None


def test_a_link_left_over_from_a_kill_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".current.{os.getpid()}").symlink_to("half")
    atomic.link(tmp_path / "current", "whole")
    assert atomic.link_target(tmp_path / "current") == "whole"


def test_a_file_is_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "environment.json"
    before = os.umask(0)
    try:
        atomic.write(target, "secret", mode=0o600)
    finally:
        os.umask(before)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("secret", 0o600)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        atomic.write(target, "half")
    assert target.read_text() == "secret"
    assert [p.name for p in tmp_path.iterdir()] == ["environment.json"], "nothing stays on a full disk"


def test_a_link_is_replaced_by_a_file_and_not_followed(tmp_path: Path) -> None:
    """Neither one in the file's place nor one under the name that the file has until it is whole."""
    other = tmp_path / "other"
    other.write_text("theirs")
    for name in ("file", f".file.{os.getpid()}"):
        (tmp_path / name).symlink_to(other)
    atomic.write(tmp_path / "file", "ours")
    assert (other.read_text(), (tmp_path / "file").read_text()) == ("theirs", "ours")
    assert not (tmp_path / "file").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "other"]


def test_a_file_with_secrets_is_never_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even between its creation and the change of its mode."""
    modes: list[int] = []
    monkeypatch.setattr(os, "fchmod", lambda descriptor, mode: modes.append(os.fstat(descriptor).st_mode & 0o777))
    before = os.umask(0)
    try:
        atomic.write(tmp_path / "environment.json", "secret", mode=0o600)
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_the_umask_does_not_change_a_files_mode(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        atomic.write(tmp_path / "health", "/up")
    finally:
        os.umask(before)
    assert (tmp_path / "health").stat().st_mode & 0o777 == 0o644


def test_a_rename_is_on_the_disk_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut cannot be tried here, so the fsync of the folder after the rename is what is asserted."""
    synced: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), (tmp_path / "current").is_symlink()))

    monkeypatch.setattr(os, "fsync", fsync)
    atomic.link(tmp_path / "current", "one")
    assert synced == [(str(tmp_path), True)]


def test_a_file_is_on_the_disk_before_it_replaces_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((tmp_path / "a").exists()))
    atomic.write(tmp_path / "a", "text")
    assert synced == [False]


def test_read_json_returns_an_empty_object_where_there_is_no_file(tmp_path: Path) -> None:
    assert atomic.read_json(tmp_path / "nothing.json") == {}
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert atomic.read_json(tmp_path / "a.json") == {"a": 1}
