"""The pages of the documentation: their links, the files that they name, and what is generated into them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), PROJECT / "app/README.md",
                 PROJECT / "bench/README.md"]
)  # fmt: skip
# Dated pages are records: they name files of their time.
RECORDS = {path for path in PAGES if "decisions" in path.parts or path.name == "CHANGELOG.md"}
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:infra|rehearsal|bench|tests|tools|app|docs)/[\w./@-]*\w)(?:::\w+)?/?`")
NAMED_IN = re.compile(r"((?:`\w+`(?:, | and )?)+) in `((?:infra|rehearsal|bench|tests|tools)/[\w./@-]*\w)`")
FOLDERS = ("app", "bench", "docs", "infra", "rehearsal", "tests", "tools")
WRITTEN = {".py", ".md", ".sh", ".j2", ".conf", ".service", ".yaml", ".toml", ".nft"}
COMMAND = re.compile(r"\bmake ([a-z][a-z-]*)")


def _module_map() -> ModuleType:
    spec = importlib.util.spec_from_file_location("module_map", PROJECT / "tools/module_map.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _name(page: Path) -> str:
    return str(page.relative_to(PROJECT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken, f"{_name(page)} has links that lead nowhere"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RECORDS], ids=_name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = set(FILE.findall(page.read_text(encoding="utf-8")))
    # What is not in the repository (`bench/.venv`) and what the reader has to fill in (`NAME.py`) is left out.
    kept = [name for name in named if "/." not in name and "NAME" not in name]
    missing = sorted(name for name in kept if not (PROJECT / name).exists())
    assert not missing, f"{_name(page)} names files that do not exist"


def test_files_contain_what_the_docs_name() -> None:
    """A page that says "`NAME` in `file`" is right: NAME stands in that file."""
    wrong = []
    for page in [page for page in PAGES if page not in RECORDS]:
        for names, file in NAMED_IN.findall(page.read_text(encoding="utf-8")):
            path = PROJECT / file
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            wrong += [f"{_name(page)}: {name} in {file}" for name in re.findall(r"`(\w+)`", names) if name not in text]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_make_command_of_a_page_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z -]*):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    known = {name for line in targets for name in line.split()}
    code = re.findall(r"```.*?```|`[^`]+`", page.read_text(encoding="utf-8"), re.DOTALL)
    used = {name for block in code for name in COMMAND.findall(block)}
    assert used <= known, f"{_name(page)} uses make targets that do not exist: {used - known}"


def test_every_page_in_docs_is_reachable_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [PROJECT / "README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in seen:
                waiting.append(target)
    assert set(PAGES) <= seen, f"no page links to {sorted(map(_name, set(PAGES) - seen))}"


def test_the_module_map_is_up_to_date() -> None:
    module_map = _module_map()
    page = module_map.PAGE.read_text(encoding="utf-8")
    assert module_map.updated(page) == page, "run `make docs`"


def test_every_module_has_a_docstring() -> None:
    module_map = _module_map()
    silent = [str(name) for name in module_map.files() if not module_map.summary(name) and name.name != "__init__.py"]
    assert not silent, "a module's first docstring line, or a script's first comment, says what is in it"


def test_no_file_names_a_paper_that_is_not_in_the_repository() -> None:
    """A rule stands here with its public source, not with the code that it has in somebody's list."""
    word = re.compile(r"(?i:check" r"list)|\brows? [A-Z]\d|[\"(](?:[ACDFGHINPRT]\d{1,2}(?:, | to )?)+[):]")
    found = []
    paths = [*PROJECT.glob("*.*"), *(path for folder in FOLDERS for path in (PROJECT / folder).rglob("*.*"))]
    for path in paths:
        hidden = any(part.startswith(".") for part in path.relative_to(PROJECT).parts[:-1])
        if hidden or path.suffix not in WRITTEN or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if word.search(line):
                found.append(f"{_name(path)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)
