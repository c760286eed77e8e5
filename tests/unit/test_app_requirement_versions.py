"""What requirements ask for of each package, as two releases are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import AppOptions
from decant.app.requirement_versions import asked_versions
from decant.app.requirements import parse_requirements, read_requirements
from tests.support.app_folders import LOCKED, PLAIN, write


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("Flask==3.1.0", {"flask": "3.1.0"}),
        ("Flask == 3.1.0 --hash=sha256:" + 64 * "0", {"flask": "3.1.0"}),
        ("some.Thing_x===1.0+local", {"some-thing-x": "1.0+local"}),
        ("flask[async]>=3,<4", {"flask": "<4,>=3"}),
        ("flask==3.*", {"flask": "==3.*"}),
        ("flask", {"flask": "any version"}),
        ("flask @ git+https://me:canary@example.com/flask@main", {"flask": "git+https://...@example.com/flask@main"}),
        ("flask==3.1.0; python_version < '3.11'", {}),
        ("flask==3.1.0; sys_platform == 'win32'", {}),
        ("./vendor/thing", {}),
        ("thing @ file:./vendor/thing", {}),
        ("-e .", {}),
        ("--index-url https://example.com/simple", {}),
    ],
)
def test_a_line_asks_for(line: str, asked: dict[str, str]) -> None:
    assert asked_versions(parse_requirements("requirements.txt", line + "\n"), "3.13") == asked


def test_a_constraint_counts_where_it_pins_what_the_requirements_leave_open(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "-c pins.txt\nflask\njinja2==3.0.0\nclick>=8\n",
        "pins.txt": "flask==3.1.0\njinja2==3.1.0\nclick<9\nunused==1\n",
    }
    requirements = read_requirements(write(tmp_path, files))
    assert asked_versions(requirements, "3.13") == {"flask": "3.1.0", "jinja2": "3.0.0", "click": ">=8"}


@pytest.mark.parametrize(
    ("files", "versions"),
    [
        ({"requirements.txt": LOCKED}, {"flask": "3.1.3"}),
        (
            {"requirements.txt": None, "pyproject.toml": '[project]\nname = "a"\ndependencies = ["flask>=3"]\n'},
            {"flask": ">=3"},
        ),
    ],
)
def test_an_app_knows_the_versions_of_its_packages(
    tmp_path: Path, files: dict[str, str | None], versions: dict[str, str]
) -> None:
    given = {name: text for name, text in {**PLAIN, **files}.items() if text is not None}
    assert read_app(write(tmp_path, given), AppOptions()).packages.versions == versions
