"""Text files that other people's editors wrote: their encoding, and the logical lines of a file of requirements."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from decant.errors import AppError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # PEP 263, which pip reads in requirements, too


def decode(data: bytes) -> str:
    """The text of a file in any encoding that pip reads, and in UTF-16 without a byte order mark.

    Raises:
        ValueError: with the reason.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _decoded(data.removeprefix(bom) if encoding == "utf-8" else data, encoding)
    for line in data.split(b"\n")[:2]:
        if match := _CODING.match(line):
            return _decoded(data, match[1].decode())
    if b"\0" in data:
        return _decoded(data, "utf-16-le" if data[1:2] == b"\0" else "utf-16-be")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        # An old editor's letters in a comment change nothing of what is installed.
        lines = re.split(rb"\r\n|\r|\n", data)
        if all(line.partition(b"#")[0].isascii() for line in lines):
            return data.decode("latin-1")
        number = len(re.split(rb"\r\n|\r|\n", data[: error.start]))
        raise ValueError(f"is not UTF-8: line {number} has the byte 0x{data[error.start]:02x}") from None


def _decoded(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        raise ValueError(f"is not the {encoding} that it begins as") from None
    if "\0" in text:
        raise ValueError("is no text")
    return text


def decode_leniently(data: bytes) -> str:
    """The text of a file in which a letter more or less does not matter; what `decode` cannot tell is Latin-1."""
    try:
        return decode(data)
    except ValueError:
        return data.decode("latin-1")


def within(folder: Path, path: Path) -> Path:
    """The path itself, where it leads to something in the app folder: errors quote lines of what is read.

    Raises:
        AppError: where it leads out of the folder.
    """
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        name = os.path.relpath(path, folder)
        message = f"has {name}, which leads out of the app folder"
        raise AppError("app", (message, f"replace {name} by the file that it leads to"))
    return path


def read_text(path: Path) -> str:
    """The text of a file that is directly in the app folder.

    Raises:
        ValueError: where `decode` cannot tell its encoding.
        AppError: for a link out of the folder.
    """
    return decode(within(path.parent, path).read_bytes())


@dataclass(frozen=True, kw_only=True)
class Line:
    """A logical line: comments left out, continuations joined. `number` is that of its first line in the file."""

    number: int
    text: str


def logical_lines(text: str) -> Iterator[Line]:
    """The lines of a file of requirements, as pip reads them; empty ones are left out."""
    start, parts = 1, list[str]()
    # Not splitlines(), which knows more ends of lines than editors do.
    lines = re.split(r"\r\n|\r|\n", text)
    for number, line in enumerate(lines, start=1):
        comment = re.match(r"\s*#", line)
        if not parts:
            start = number
        if line.endswith("\\") and not comment and number < len(lines):
            parts.append(line[:-1])
            continue
        joined = "".join([*parts, " " + line if comment else line])
        parts = []
        bare = re.sub(r"(^|\s+)#.*$", "", joined).strip()
        if bare:
            yield Line(number=start, text=bare)
