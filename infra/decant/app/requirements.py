"""The requirement files of an app: requirements.txt, or a lock in that form, with the files that it includes."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

from decant.app.files import is_never_shipped
from decant.app.text_files import Line, decode, logical_lines, within
from decant.errors import AppError

Problem = tuple[str, str]

OPTIONS_WITH_VALUE = {
    "-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-i": "--index-url", "-f": "--find-links",
}  # fmt: skip
_OPTION = re.compile(r"(--[a-z-]+|-[rceif])(?:\s*=\s*|\s*)(.*)", re.DOTALL)
_PER_REQUIREMENT = re.compile(r"\s--(hash|config-settings?|global-option|install-option)\b.*", re.DOTALL)
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")  # pip and uv expand this form alone
_CREDENTIALS = re.compile(r"(://)(?!git@[^/\s@]+(?:/|\s|$))(?:[^/\s@:]*:)?([^/\s]+)@")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a file of requirements."""

    file: str
    line: Line
    constraint: bool
    """Whether it only limits the version of what others require."""
    option: str = ""
    """An option's long name, such as `--extra-index-url`; empty for a package."""
    value: str = ""
    """The option's value, or the package as written, without its hashes."""
    package: Requirement | None = None
    """The package, where it has a name; a path or a URL has none."""

    @property
    def where(self) -> str:
        """The place for people."""
        if self.file.endswith(".lock"):
            return self.file  # the line is that of another form
        return f"line {self.line.number} of {self.file}"

    @property
    def is_package(self) -> bool:
        """Whether the line installs something."""
        return self.option in ("", "--editable") and not self.constraint

    @property
    def hashed(self) -> bool:
        """Whether the line has a hash."""
        return bool(re.search(r"\s--hash\b", self.line.text))

    @property
    def url(self) -> str:
        """Where the package comes from, if not from an index."""
        if self.package is not None:
            return self.package.url or ""
        return self.value if re.match(r"[a-z][a-z0-9+.-]*:", self.value, re.IGNORECASE) else ""

    @property
    def path(self) -> str | None:
        """The path of a package that is a folder or a file, without its extras; None for others."""
        url = self.url
        if url.lower().startswith("file:"):
            path = re.sub(r"^file:(//(localhost)?)?", "", url, flags=re.IGNORECASE).partition("#")[0]
            return path or None
        if url or not self.is_package or self.package is not None:
            return None
        return re.sub(r"\[[^\]]*\]$", "", self.value.partition(";")[0].strip())


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The requirement files of an app, and what all their lines together mean."""

    files: tuple[str, ...]
    entries: tuple[Entry, ...]
    plain: bool
    """Whether uv reads the files as they are: UTF-8 without a byte order mark and without -e."""

    @property
    def packages(self) -> tuple[Entry, ...]:
        """The lines that install something."""
        return tuple(entry for entry in self.entries if entry.is_package)

    @property
    def hashed(self) -> bool:
        """Whether pip would ask for hashes."""
        return any(e.hashed or e.option == "--require-hashes" for e in self.entries)

    @property
    def local(self) -> bool:
        """Whether code of the app folder itself is installed."""
        return any(entry.path is not None for entry in self.packages)

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables in URLs."""
        return tuple(sorted({name for entry in self.entries for name in _VARIABLE.findall(entry.line.text)}))

    def values(self, option: str) -> list[str]:
        """The values of an option."""
        return [entry.value for entry in self.entries if entry.option == option]

    def flat(self, *, constraints: bool) -> str:
        """All lines in one file, without -r and -c: the packages and options, or the constraints.

        Without -e, too. uv takes no repository there, and an editable package would point into a folder of the
        builder's; the app's own code is found in its folder first all the same.
        """
        return "".join(
            (entry.value if entry.option == "--editable" else entry.line.text) + "\n"
            for entry in self.entries
            if entry.constraint == constraints and entry.option not in ("--requirement", "--constraint")
        )


def hide_credentials(text: str) -> str:
    """The text without user names and passwords in URLs."""
    return _CREDENTIALS.sub(r"\1...@", text)


def has_credentials(text: str) -> bool:
    """Whether a URL in the text has a user name or password that is written out, not a variable."""
    return any(not _VARIABLE.fullmatch(match[2]) for match in _CREDENTIALS.finditer(text))


def read_requirements(folder: Path, name: str = "requirements.txt") -> Requirements:
    """A file of requirements with the files that it includes.

    Raises:
        AppError: with every file that is missing, outside of the folder or no text, and every line that is no
            requirement.
    """
    reader = _Reader(folder)
    reader.read(name, constraint=False, included_by="")
    if reader.problems:
        raise AppError("app", *reader.problems)
    plain = reader.plain and not any(entry.option == "--editable" for entry in reader.entries)
    return Requirements(files=tuple(reader.texts), entries=tuple(reader.entries), plain=plain)


def parse_requirements(name: str, text: str) -> Requirements:
    """Requirements that another program has made, which include no other file."""
    entries = tuple(_entries(name, text, constraint=False))
    return Requirements(files=(name,), entries=entries, plain=True)


@dataclass
class _Reader:
    folder: Path
    texts: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    plain: bool = True

    def read(self, name: str, *, constraint: bool, included_by: str) -> None:
        shown = f"{self.folder.name}/{name}"
        path = self.folder / name
        if not path.is_file():
            text = f"has no {name}" + (f", which {included_by} includes" if included_by else "")
            self.problems.append((text, f"add {shown}" + (f", or delete {included_by}" if included_by else "")))
            return
        if is_never_shipped(PurePosixPath(name).parts):
            text = f"{included_by} includes {name}, which is never shipped"
            self.problems.append((text, f"remove {included_by}, or name a file of requirements there"))
            return
        try:
            data = within(self.folder, path).read_bytes()
            text = decode(data)
        except AppError as error:
            self.problems.extend(error.problems)
            return
        except ValueError as error:
            fix = f"iconv -f ISO-8859-1 -t UTF-8 {shlex.quote(shown)} > fixed.txt && mv fixed.txt {shlex.quote(shown)}"
            self.problems.append((f"{name} {error}", fix))
            return
        self.texts[name] = text
        self.plain &= text.encode() == data
        for entry in _entries(name, text, constraint=constraint):
            self.entries.append(entry)
            if entry.option in ("--requirement", "--constraint"):
                self._include(entry)
            elif entry.is_package and entry.option == "" and entry.package is None:
                self.problems.extend(_unreadable(entry, self.folder))

    def _include(self, entry: Entry) -> None:
        if "://" in entry.value:
            return  # uv reads it from there
        inner = os.path.normpath(PurePosixPath(entry.file).parent / entry.value)
        if inner.startswith(("..", "/")):
            text = f"{entry.where} includes {entry.value}, which is outside the app folder"
            self.problems.append((text, f"copy that file into {self.folder.name}/ and name the copy in {entry.where}"))
        elif inner not in self.texts:
            constraint = entry.constraint or entry.option == "--constraint"
            self.read(inner, constraint=constraint, included_by=entry.where)


def _entries(name: str, text: str, *, constraint: bool) -> Iterator[Entry]:
    for line in logical_lines(text):
        match = _OPTION.match(line.text)
        if match:
            value = match[2].strip().strip("\"'")
            option = OPTIONS_WITH_VALUE.get(match[1], match[1])
            yield Entry(file=name, line=line, constraint=constraint, option=option, value=value)
        else:
            value = _PER_REQUIREMENT.sub("", line.text).strip()
            yield Entry(file=name, line=line, constraint=constraint, value=value, package=_package(value))


def _package(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def _unreadable(entry: Entry, folder: Path) -> Sequence[Problem]:
    """The problem of a line that is neither a name nor a URL nor a path."""
    if entry.url or _looks_like_path(entry.value, folder):
        return ()
    conda = re.fullmatch(r"([\w.-]+)=([\w.!+-]+)=\S+", entry.value)
    if conda:
        fix = f"write {conda[1]}=={conda[2]} in {entry.where}; conda's own packages (python, libgcc, ...) are left out"
        return ((f"{entry.where} is conda's: {entry.value!r}", fix),)
    single = re.fullmatch(r"([\w.-]+(?:\[[^\]]*\])?)\s*=\s*([\w.!+-]+)", entry.value)
    fix = f"write {single[1]}=={single[2]} in {entry.where}" if single else f"delete {entry.where}"
    return ((f"{entry.where} is no requirement: {hide_credentials(entry.value)!r}", fix),)


def _looks_like_path(value: str, folder: Path) -> bool:
    bare = re.sub(r"\[[^\]]*\]$", "", value.partition(";")[0].strip())
    return bare.startswith((".", "/", "~")) or bare.endswith((".whl", ".zip", ".tar.gz")) or (folder / bare).is_dir()
