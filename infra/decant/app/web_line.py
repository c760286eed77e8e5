"""The line that starts an app's web process: what a shell would do with it, up to the server's own arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from decant.app import shell
from decant.app.commands_before import refuse_writer, skipped
from decant.app.shell import Command, ShellError, UnknownValueError, Word
from decant.errors import AppError

HOME = "/app"
"""The app's folder where platforms keep it, and so the start of paths in lines that were written for them."""
# Programs that run another one and change nothing that matters here.
_PLAIN_PREFIXES = frozenset({"exec", "nohup", "command", "dumb-init", "time"})
_RUNNERS = frozenset({"poetry", "pipenv", "uv", "pdm", "hatch", "rye"})
_RUNNER_FLAGS = frozenset({"--no-sync", "--frozen", "--locked", "--no-dev", "--quiet", "-q", "-v", "--"})
_WRAPPERS = frozenset(
    {
        "newrelic-admin",
        "ddtrace-run",
        "opentelemetry-instrument",
        "splunk-instrument",
        "splunk-py-trace",
        "elasticapm-run",
    }
)
_BUILDPACK = re.compile(r"(\./)?bin/(start-|runsvdir-dyno|qgtunnel|proximo|heroku)[\w-]*")
_SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ash"})
_PYTHON = re.compile(r"(python|pypy)[\d.]*")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a line is read with: where it stands, and which variables are known."""

    source: str
    """The file and the line's name: `Procfile: web:`."""
    place: str
    """How to write another line in its place: `in app/Procfile: web: `."""
    variables: Mapping[str, str]
    secrets: frozenset[str]
    folder: Path
    """The app folder."""
    persistent: tuple[str, ...] = ()
    """Paths in it that the app may write."""

    def error(self, message: str, fix: str) -> AppError:
        """A problem with the line."""
        return AppError("app", (f"{self.source} {message}", fix))


@dataclass(kw_only=True)
class ServerLine:
    """The command that serves, and what the line does before it."""

    program: str = ""
    arguments: list[str] = field(default_factory=list)
    """What a shell on a machine would fill in stands between two `shell.MARK`."""
    folder: str = "."
    """Where the line changes to, relative to the app folder."""
    env: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    before: str | None = None
    """Commands that run before the server."""
    notes: list[str] = field(default_factory=list)


def read_line(line: str, context: Context) -> ServerLine:
    """The server's command of a line, with what it is to be given.

    Raises:
        AppError: for what Decant cannot do as the line says.
    """
    try:
        line, commands = _without_shells(line, context)
    except ShellError as error:
        if not line.split("#")[0].strip():
            raise context.error("runs nothing", f"{context.place}gunicorn MODULE:NAME") from None
        fix = f"{context.place}gunicorn MODULE:NAME, with everything else in a `release:` line"
        raise context.error(f"cannot be read: {error}", fix) from None
    read = _Reader(line, commands, context)
    return read.all()


def _without_shells(line: str, context: Context) -> tuple[str, list[Command]]:
    """The line, where each `bash -c '...'` is replaced by what stands in the quotes."""
    for _ in range(4):
        commands = shell.parse(line)
        for command in commands:
            assignments, words = split_assignments(command.words)
            if words and words[0].source == "exec":
                words = words[1:]
            if not words or PurePosixPath(words[0].source).name not in _SHELLS:
                continue
            flags = [word.source for word in words[1:]]
            at = next((i for i, f in enumerate(flags) if re.fullmatch(r"-[a-z]*c", f)), None)
            if at is None or at + 1 >= len(flags):
                continue
            exports = "".join(f"export {line[w.start : w.end]} && " for w in assignments)
            line = f"{line[: command.start]}{exports}{flags[at + 1]}{line[command.end :]}"
            break
        else:
            return line, commands
    raise ShellError("shells start each other")


def split_assignments(words: tuple[Word, ...]) -> tuple[list[Word], list[Word]]:
    """The `NAME=value` words that a command begins with, and the others."""
    first = next((i for i, word in enumerate(words) if word.assignment() is None), len(words))
    return list(words[:first]), list(words[first:])


@dataclass(frozen=True, kw_only=True)
class _Stripped:
    """A command without the programs that only start another one."""

    words: tuple[Word, ...]
    assignments: tuple[Word, ...]
    wrapper: tuple[Word, ...]

    @property
    def program(self) -> str:
        return PurePosixPath(self.words[0].source).name if self.words else ""


def strip(words: tuple[Word, ...]) -> _Stripped:
    """A command without assignments, `exec`, `poetry run`, wrappers and `python -m`."""
    assignments: list[Word] = []
    wrapper: list[Word] = []
    while True:
        more, left = split_assignments(words)
        assignments += more
        words = tuple(left)
        names = [word.source for word in words]
        program = PurePosixPath(names[0]).name if names else ""
        if program in _PLAIN_PREFIXES or (program == "env" and len(words) > 1):
            words = words[1:]
        elif program in _RUNNERS and names[1:2] == ["run"]:
            words = words[2:]
            while words and words[0].source in _RUNNER_FLAGS:
                words = words[1:]
        elif program in _WRAPPERS and names[1:2] != ["generate-config"]:  # newrelic-admin's, which starts nothing
            end = 2 if program == "newrelic-admin" else _wrapped(names)
            wrapper += words[:end]
            words = words[end:]
        elif _PYTHON.fullmatch(program) and (module := _module(names)):
            found, rest = module
            start = replace(words[0], pieces=(shell.Piece(source=found, text=found),))
            return _Stripped(words=(start, *words[rest:]), assignments=tuple(assignments), wrapper=tuple(wrapper))
        else:
            return _Stripped(words=words, assignments=tuple(assignments), wrapper=tuple(wrapper))


def _wrapped(names: list[str]) -> int:
    """Where the program begins that a wrapper with options of its own starts."""
    programs = ("gunicorn", "flask", "waitress-serve")
    found = (PurePosixPath(name).name for name in names)
    return next((i for i, name in enumerate(found) if name in programs or _PYTHON.fullmatch(name)), 1)


def _module(names: list[str]) -> tuple[str, int] | None:
    """The program that `python -m` runs where it is known, and where its arguments begin."""
    at = next((i for i, name in enumerate(names[1:], 1) if not name.startswith("-") or name == "-m"), len(names))
    if names[at : at + 1] != ["-m"] or at + 1 >= len(names):
        return None
    module = names[at + 1].partition(".")[0]
    known = {"gunicorn": "gunicorn", "flask": "flask", "waitress": "waitress-serve", "uvicorn": "uvicorn"}
    return (known[module], at + 2) if module in known else None


class _Reader:
    """Reads the commands of one line in turn."""

    def __init__(self, line: str, commands: list[Command], context: Context) -> None:
        self.line = line
        self.commands = commands
        self.context = context
        self.found = ServerLine()

    def all(self) -> ServerLine:
        """Find the server's command, and account for every other."""
        programs = [strip(command.words).program for command in self.commands]
        server = programs.index("gunicorn") if "gunicorn" in programs else len(programs) - 1
        self._after(server)
        ran = [i for i in range(server) if self._before(i, last=i + 1 == server)]
        if ran:
            before = self.line[self.commands[0].start : self.commands[server - 1].end]
            plain = re.fullmatch(r"[^;&|]+(&&[^;&|]+)*", before) and self.found.folder == "."
            self.found.before = before if plain else f"({before})"
            names = " and ".join(f"`{self._text(i)}`" for i in ran)
            self.found.notes.append(
                f"{self.context.source} {names} {'runs' if len(ran) == 1 else 'run'} as the release command: once,"
                " before the release gets traffic"
            )
        self._server(self.commands[server])
        return self.found

    def _text(self, index: int) -> str:
        command = self.commands[index]
        return self.line[command.start : command.end]

    def without(self, index: int) -> str:
        """The line without one of its commands."""
        kept = [i for i in range(len(self.commands)) if i != index]
        if not kept:
            return ""
        parts = [f"{self._text(i)} {self.commands[i].operator}" for i in kept[:-1]]
        return " ".join([*parts, self._text(kept[-1])]).replace(" ;", ";")

    def _after(self, server: int) -> None:
        rest = self.commands[server + 1 :]
        operator = self.commands[server].operator
        if rest:
            other = self.line[rest[0].start : rest[-1].end]
            alone = self.line[: self.commands[server].end]
            raise self.context.error(
                f"starts another process with `{operator}`: `{other}`. Decant runs the web process alone, and no other",
                f"{self.context.place}{alone}    (and, for platforms that run more, a line of its own: "
                f"worker: {self.line[rest[0].start : rest[0].end]})",
            )
        if operator == "&":
            raise self.context.error(
                "puts the server into the background with `&`",
                f"{self.context.place}{self.line[: self.commands[server].end]}",
            )

    def _before(self, index: int, *, last: bool) -> bool:
        """Whether a command before the server is one for the release command."""
        command = self.commands[index]
        if command.operator == "&" or (last and command.operator in ("|", "||")):
            raise self.context.error(
                f"starts `{self._text(index)}` beside the server with `{command.operator}`. Decant runs the web"
                " process alone, and no other",
                f"{self.context.place}{self.without(index)}",
            )
        stripped = strip(command.words)
        for word in stripped.assignments if not stripped.words else ():
            self._set(word)
        if not stripped.words:
            return False
        arguments = stripped.words[1:]
        if stripped.program == "cd":
            self._change_to(arguments)
        elif stripped.program == "export":
            for word in arguments:
                if word.assignment():
                    self._set(word)
        elif (note := skipped([w.source for w in stripped.words], redirected=command.redirected)) is not None:
            if note:
                self.found.notes.append(f"{self.context.source} `{self._text(index)}` is left out: {note}")
        else:
            words = [word.source for word in stripped.words]
            without = f"{self.context.place}{self.without(index)}"
            if refused := refuse_writer(words, self._text(index), without, self.context.persistent):
                raise self.context.error(*refused)
            return True
        return False

    def _change_to(self, arguments: tuple[Word, ...]) -> None:
        try:
            target = arguments[0].value(self._path_variable) if arguments else HOME
        except UnknownValueError as error:
            raise self._unknown(error) from None
        self.found.folder = join(self.found.folder, target, self.context)

    def _path_variable(self, name: str) -> str | None:
        return HOME if name in ("HOME", "PWD") else self._variable(name)

    def _variable(self, name: str) -> str | None:
        known = {"PORT": "8000", "PYTHONPATH": "", **self.context.variables, **self.found.env}
        return None if name in self.context.secrets else known.get(name)

    def _set(self, word: Word) -> None:
        made = word.assignment()
        assert made is not None  # noqa: S101 - the callers have looked
        name, value = made
        try:
            self.found.env[name] = value.value(self._variable)
        except UnknownValueError as error:
            raise self._unknown(error, name) from None

    def _unknown(self, error: UnknownValueError, sets: str | None = None) -> AppError:
        if error.name and error.name in self.context.secrets and sets:
            return self.context.error(
                f"sets {sets} from the secret {error.name}, which machines alone know",
                f"pulumi config set --secret --path 'decant:secrets.{sets}', and {self.context.place}the line without"
                f" {sets}=",
            )
        needs = f"sets {sets} to" if sets else "needs"
        fix = f"pulumi config set --path 'decant:env.{error.name or sets or 'NAME'}' VALUE"
        if error.name is None:
            fix += f", and {self.context.place}the line without {error.source}"
        return self.context.error(f"{needs} {error.source}, and nothing says what that is", fix)

    def _server(self, command: Command) -> None:
        stripped = strip(command.words)
        for word in stripped.assignments:
            self._set(word)
        if not stripped.words:
            raise self.context.error("runs nothing", f"{self.context.place}gunicorn MODULE:NAME")
        program = stripped.words[0].source
        if _BUILDPACK.fullmatch(program) and not (self.context.folder / program).is_file():
            rest = self.line[stripped.words[1].start :] if len(stripped.words) > 1 else "gunicorn MODULE:NAME"
            raise self.context.error(
                f"starts {program}, which a platform's buildpack brings and machines do not have",
                f"{self.context.place}{rest.removeprefix('-- ')}",
            )
        if command.redirected:
            self.found.notes.append(
                f"{self.context.source} its redirections have no effect: output goes to the journal"
            )
        try:
            self.found.wrapper = tuple(word.value(self._variable) for word in stripped.wrapper)
        except UnknownValueError as error:
            raise self._unknown(error) from None
        python = _PYTHON.fullmatch(stripped.program)
        self.found.program = "python" if python else stripped.program if "/" not in program else program
        if stripped.program in ("gunicorn", "flask", "waitress-serve", "uwsgi", "uvicorn", *_SHELLS):
            self.found.program = stripped.program
        self.found.arguments = [word.marked(self._variable) for word in stripped.words[1:]]


def join(folder: str, target: str, context: Context) -> str:
    """A folder of the app as it is seen from another one.

    Raises:
        AppError: for a folder outside of the app.
    """
    if target == HOME or target.startswith(HOME + "/"):
        folder, target = ".", target[len(HOME) :].lstrip("/") or "."
    path = os.path.normpath(PurePosixPath(folder) / target)
    if path.startswith(("/", "..")):
        raise context.error(
            f"changes to {target}, which is outside of the app folder", "name a folder of the app, e.g. --chdir src"
        )
    return path
