"""The requirements of an app: requirements.txt with the files that it includes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The requirement files of an app, and what all their lines together mean."""

    files: tuple[str, ...]
    hashed: bool
    local: bool


def read_requirements(folder: Path) -> Requirements:
    """The requirements of an app folder.

    Raises:
        ValueError: for a file that is missing, outside of the folder or not UTF-8, and for an editable requirement.
    """
    files = tuple(_files(folder, "requirements.txt", set()))
    text = "\n".join((folder / file).read_text(encoding="utf-8") for file in files)
    return Requirements(files=files, hashed="--hash=" in text, local=_names_local_code(text))


def _files(folder: Path, name: str, seen: set[str]) -> Iterator[str]:
    """`name` and the files that it includes with -r and -c, each once: `seen` collects them."""
    seen.add(name)
    path = folder / name
    if not path.is_file():
        raise ValueError(f"has no {name}, so nothing says what the app needs")
    yield name
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r"\s*(-e\b|--editable\b)", line):
            raise ValueError(f"{name}: {line.strip()!r} cannot be editable on a machine; leave out -e")
        included = re.match(r"\s*(?:-r|-c|--requirement[\s=]|--constraint[\s=])[\s=]*([^\s#]+)", line)
        if included:
            inner = os.path.normpath(PurePosixPath(name).parent / included[1])
            if inner.startswith(("..", "/")):
                raise ValueError(f"{name} includes {included[1]}, which is outside the app folder")
            if inner not in seen:
                yield from _files(folder, inner, seen)


def _names_local_code(text: str) -> bool:
    """Whether a requirement points into the app folder itself (`.`, `./lib`)."""
    return any(re.match(r"\s*(\.{1,2}(/|$|\[)|file:|\S+\s*@\s*file:)", line) for line in text.splitlines())
