"""The folder of the state, after a Pulumi that was killed while it wrote there."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.cli.state_folder import mend

NAMES = ("stacks/decant/dev.json", "locks/organization/decant/dev/0a3b.json")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A file of each kind, with empty attributes; the state itself is never empty."""
    made = []
    for name in NAMES:
        file = tmp_path / ".pulumi" / name
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        file.with_name(f"{file.name}.attrs").touch()
        made.append(file)
    return made


def names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder / ".pulumi")) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("ending", ["", "?no_tmp_dir=true"])
def test_empty_attributes_are_deleted(tmp_path: Path, files: list[Path], ending: str) -> None:
    mend(f"file://{tmp_path}{ending}")
    assert names(tmp_path) == sorted(NAMES)


def test_the_home_folder_is_found(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    mend("file://~")
    assert names(tmp_path) == sorted(NAMES)


def test_everything_else_stays(tmp_path: Path, files: list[Path]) -> None:
    kept = [file.with_name(f"{file.name}.attrs") for file in files]
    for file in kept:
        file.write_text("{}")
    empty = tmp_path / ".pulumi/stacks/decant/empty.json"
    empty.touch()
    before = names(tmp_path)
    mend(f"file://{tmp_path}")
    assert names(tmp_path) == before


@pytest.mark.parametrize("url", ["s3://bucket", "https://app.pulumi.com/carol", ""])
def test_other_places_are_left_alone(tmp_path: Path, files: list[Path], url: str) -> None:
    before = names(tmp_path)
    mend(url)
    mend("file:///does/not/exist")
    assert names(tmp_path) == before
