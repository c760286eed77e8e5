"""docs/settings.md, which is made from the table of settings."""

from __future__ import annotations

import subprocess
import sys

from decant.settings.docs import document
from tests.support.in_memory import REPOSITORY
from tests.support.stack_settings import TABLE

PAGE = REPOSITORY / "docs" / "settings.md"


def test_the_page_is_the_one_that_the_table_gives() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(TABLE), "write it again: make docs"


def test_the_page_names_every_setting_with_its_command() -> None:
    text = document(TABLE)
    for setting in TABLE.values():
        assert f"| `{setting.name}` | {setting.value} | {setting.default} |" in text
        assert f"# {setting.name}\n{setting.command}\n" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}


def test_the_command_of_make_docs_prints_the_page() -> None:
    argv = [sys.executable, "-W", "ignore", "-m", "decant.settings.docs"]
    printed = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert printed == PAGE.read_text(encoding="utf-8")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "$(python) -m decant.settings.docs > docs/settings.md" in makefile
