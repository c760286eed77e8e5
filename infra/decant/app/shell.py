"""The shell's grammar as far as one line of a Procfile uses it: commands, operators, quotes, variables, comments."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

MARK = "\0"
"""Encloses what only a shell on a machine could fill in, in the text of a word: `\\0$(nproc)\\0`."""
KEYWORDS = frozenset({"if", "while", "until", "for", "case", "function", "select", "{", "!"})

Lookup = Callable[[str], str | None]


class ShellError(Exception):
    """A line that is no shell line, or one that is too much of a program."""


class UnknownValueError(Exception):
    """A word whose value nobody can tell here; `source` is the part that is unknown, such as `$(nproc)`."""

    def __init__(self, source: str, name: str | None) -> None:
        super().__init__(source)
        self.source = source
        self.name = name


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a word: text, or a variable, or (without both) something else that only a shell can fill in."""

    source: str
    text: str | None = None
    variable: str | None = None
    default: str | None = None


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word of a command, with its place in the line."""

    pieces: tuple[Piece, ...]
    start: int
    end: int

    @property
    def source(self) -> str:
        """The word without its quotes, and with its variables as they are written."""
        return "".join(piece.source if piece.text is None else piece.text for piece in self.pieces)

    def value(self, lookup: Lookup) -> str:
        """The word's text, with variables filled in.

        Raises:
            UnknownValueError: where it holds something that cannot be filled in.
        """
        return "".join(_value(piece, lookup) for piece in self.pieces)

    def marked(self, lookup: Lookup) -> str:
        """The word's text, where what cannot be filled in stands between two `MARK`."""

        def filled(piece: Piece) -> str:
            try:
                return _value(piece, lookup)
            except UnknownValueError as error:
                return f"{MARK}{error.source}{MARK}"

        return "".join(filled(piece) for piece in self.pieces)

    def assignment(self) -> tuple[str, Word] | None:
        """The name and the value where the word is `NAME=value`."""
        first = self.pieces[0]
        found = re.match(r"([A-Za-z_]\w*)=", first.text or "") if first.text == first.source else None
        if found is None:
            return None
        rest = first.source[found.end() :]
        value = (Piece(source=rest, text=rest), *self.pieces[1:])
        return found[1], Word(pieces=value, start=self.start + found.end(), end=self.end)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A simple command of a line: its words, and the operator that follows it."""

    words: tuple[Word, ...]
    redirected: bool
    start: int
    end: int
    operator: str


def _value(piece: Piece, lookup: Lookup) -> str:
    if piece.text is not None:
        return piece.text
    value = lookup(piece.variable) if piece.variable else None
    value = piece.default if value is None else value
    if value is None:
        raise UnknownValueError(piece.source, piece.variable)
    return value


_VARIABLE = r"\$\{(?P<braced>\w+)(?::?-(?P<default>[^{}$`]*))?\}|\$(?P<name>\w+)"
_TOKEN = re.compile(
    rf"""(?P<blank>\s+)
    | (?P<redirect>&>>?|\d?(?:>>|>\||>|<)(?:&[\d-])?)
    | (?P<operator>&&|\|\||;|&|\|)
    | '(?P<single>[^']*)'
    | "(?P<double>(?:\\.|[^"\\])*)"
    | \\(?P<escaped>.)
    | {_VARIABLE}
    | (?P<command>\$\(|\$\{{|`)
    | (?P<open>\()
    | (?P<text>\$|[^\s'"\\$`;&|<>()]+)""",
    re.VERBOSE,
)
_IN_QUOTES = re.compile(rf"""\\(?P<escaped>[\\"$`])|{_VARIABLE}|(?P<command>\$\(|\$\{{|`)|(?P<text>[^\\$`]+|[\\$])""")
# The arguments of an application such as shop:create_app('dev'), in which quotes belong to Python.
_CALL = re.compile(r"""\((?:'[^']*'|"[^"]*"|[^()'"]|\([^()]*\))*\)""")


def parse(line: str) -> list[Command]:
    """The commands of a line.

    Raises:
        ShellError: for what is not understood, such as a quote without an end, a group, or a loop.
    """
    commands: list[Command] = []
    words: list[Word] = []
    redirected = target = False
    begin: int | None = None
    end = 0

    def finish(operator: str) -> None:
        nonlocal words, redirected, begin
        if begin is not None:
            commands.append(Command(words=tuple(words), redirected=redirected, start=begin, end=end, operator=operator))
        elif operator:
            raise ShellError(f"there is no command before {operator}")
        words, redirected, begin = [], False, None

    for kind, text, word, start, stop in _tokens(line):
        if kind == "operator":
            finish(text)
            continue
        begin = start if begin is None else begin
        end = stop
        if kind == "redirect":
            redirected, target = True, "&" not in text[1:]
        elif target:
            target = False
        elif word is not None:
            words.append(word)
    finish("")
    if not commands:
        raise ShellError("it is empty")
    if keyword := next((c.words[0].source for c in commands if c.words and c.words[0].source in KEYWORDS), None):
        raise ShellError(f"`{keyword}` makes it a program of the shell's")
    return commands


def _tokens(line: str) -> list[tuple[str, str, Word | None, int, int]]:
    """The tokens of a line: kind (word, operator, redirect), text, the word, start and end."""
    found: list[tuple[str, str, Word | None, int, int]] = []
    pieces: list[Piece] = []
    begin = position = 0

    def close() -> None:
        if pieces:
            found.append(("word", "", Word(pieces=tuple(pieces), start=begin, end=position), begin, position))
            pieces.clear()

    while position < len(line):
        if not pieces:
            begin = position
            if line[position] == "#":
                break
        match = _TOKEN.match(line, position)
        if match is None:
            raise ShellError("No closing quotation" if line[position] in "'\"" else f"{line[position:]!r} is unknown")
        kind = match.lastgroup
        if kind in ("blank", "operator", "redirect"):
            close()
            if kind != "blank":
                found.append((kind, match[0], None, position, match.end()))
            position = match.end()
        elif kind == "open":
            call = _CALL.match(line, position)
            if call is None or not pieces:
                raise ShellError("a group in ( ) makes it a program of the shell's")
            pieces.append(Piece(source=call[0], text=call[0]))
            position = call.end()
        else:
            made, position = _pieces(line, position, match)
            pieces.extend(made)
    close()
    return found


def _pieces(line: str, position: int, match: re.Match[str]) -> tuple[list[Piece], int]:
    """The pieces that begin at a position of the line, and the position behind them."""
    kind = match.lastgroup
    if kind == "command":
        end = _closing(line, position)
        return [Piece(source=line[position:end])], end
    if kind in ("name", "braced", "default"):
        name = match["braced"] or match["name"]
        return [Piece(source=match[0], variable=name, default=match["default"])], match.end()
    if kind == "double":
        inner = match["double"]
        made, at = [Piece(source="", text="")], 0
        while at < len(inner):
            part = _IN_QUOTES.match(inner, at)
            assert part is not None  # noqa: S101 - the last alternative takes any character
            more, at = _pieces(inner, at, part)
            made += more
        return made, match.end()
    text = match[kind] if kind else ""
    return [Piece(source=match[0], text=text)], match.end()


def _closing(line: str, position: int) -> int:
    """The position behind the `$(...)`, `${...}` or backquotes that begin at `position`."""
    if line[position] == "`":
        end = line.find("`", position + 1)
        if end < 0:
            raise ShellError("a backquote has no end")
        return end + 1
    opening = line[position + 1]
    closing = {"(": ")", "{": "}"}[opening]
    depth = 0
    for at in range(position + 1, len(line)):
        depth += (line[at] == opening) - (line[at] == closing)
        if depth == 0:
            return at + 1
    raise ShellError(f"${opening} has no end")
