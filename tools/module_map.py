"""Write the module map in docs/architecture.md from the first line of every module.

Run by `make docs`. A Python module contributes the first line of its docstring, any other file that lands on a machine
the first sentence of its first comment. tests/unit/test_docs.py fails when the page is not up to date.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules -->", "<!-- /modules -->"
FOLDERS = ("infra", "rehearsal", "bench")
LEFT_OUT = ("bench/peers", "bench/serve")  # what other tools are given to compare with
COMMENTED = {".sh", ".j2", ".conf", ".service", ".timer", ".socket", ".nft"}
COMMENT = re.compile(r"\s*(?:#|//)(?!!)\s?(.*)")


def files() -> list[Path]:
    """Every file of the map, relative to the project, folder by folder."""
    found = []
    for folder in FOLDERS:
        for path in (PROJECT / folder).rglob("*"):
            name = path.relative_to(PROJECT)
            if path.suffix not in COMMENTED | {".py"} or not path.is_file():
                continue
            if any(part.startswith((".", "__pycache__")) for part in name.parts):
                continue
            if not any(name.is_relative_to(left_out) for left_out in LEFT_OUT):
                found.append(name)
    return sorted(found, key=lambda name: (FOLDERS.index(name.parts[0]), name.parent.as_posix(), name.name))


def summary(name: Path) -> str:
    """The first docstring line of a Python module, or the first sentence of another file's first comment."""
    text = (PROJECT / name).read_text(encoding="utf-8")
    if name.suffix == ".py":
        docstring = ast.get_docstring(ast.parse(text))
        return docstring.splitlines()[0] if docstring else ""
    comment: list[str] = []
    for line in text.splitlines():
        found = COMMENT.match(line)
        if found and found[1].strip():
            comment.append(found[1].strip())
        elif comment:
            break
    sentence = re.match(r".*?\.(?=\s|$)", " ".join(comment))
    return sentence[0] if sentence else " ".join(comment)


def module_map() -> str:
    """The map as Markdown: a table for each folder. Empty `__init__.py` files are left out."""
    lines: list[str] = []
    folder = None
    for name in files():
        line = summary(name)
        if not line and name.name == "__init__.py":
            continue
        if name.parent != folder:
            folder = name.parent
            lines += ["", f"### {folder.as_posix()}/", "", "| file | what is in it |", "|---|---|"]
        for character, safe in (("<", "&lt;"), ("|", "\\|")):
            line = line.replace(character, safe)
        lines.append(f"| `{name.name}` | {line} |")
    return "\n".join([*lines, ""])


def updated(page: str) -> str:
    """The text of the page with the map of today between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{module_map()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
