"""An app folder as messages and commands name it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decant.app.files import LISTING, trust_copy
from decant.app.shown import hide_values, shown
from tests.support.app_folders import write


def test_a_folder_of_a_project_is_named_from_its_root(tmp_path: Path) -> None:
    write(tmp_path, {"Pulumi.yaml": "", "sites/shop/Procfile": "", "app/Pulumi.yaml": ""})
    assert shown(tmp_path / "sites/shop") == "sites/shop"
    assert shown(tmp_path / "app") == "app", "the root is above the folder"


def test_the_nearest_project_is_the_one(tmp_path: Path) -> None:
    write(tmp_path, {"Pulumi.yaml": "", "inner/Pulumi.yaml": "", "inner/app/Procfile": ""})
    assert shown(tmp_path / "inner/app") == "app"


def test_without_a_project_it_is_its_name(tmp_path: Path) -> None:
    assert shown(tmp_path / "sites/shop") == "shop"


def test_a_copy_in_which_a_build_ran_is_named_as_its_source(tmp_path: Path) -> None:
    source = tmp_path / "sites/shop"
    write(tmp_path, {"Pulumi.yaml": "", "cache/build/x/shop/Procfile": ""})
    copy = tmp_path / "cache/build/x/shop"
    copy.with_name(LISTING.format("shop")).write_text(json.dumps({"source": str(source), "files": []}))
    trust_copy(copy)
    assert shown(copy) == "sites/shop"


@pytest.mark.parametrize(
    ("command", "without"),
    [
        ("flask db upgrade", "flask db upgrade"),
        ("KEY=canary OTHER='canary' flask db upgrade", "KEY=... OTHER=... flask db upgrade"),
        ("KEY=\"a canary\"'s canary'x flask", "KEY=... flask"),
        ("tool --token=canary -x", "tool --token=... -x"),
        ("tool https://me:canary@example.com/", "tool https://...@example.com/"),
    ],
)
def test_a_command_is_shown_without_values(command: str, without: str) -> None:
    assert hide_values(command) == without
