"""Commands that a web line runs before the server: which are left out, and which cannot run on machines."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

_BUILDERS = frozenset(
    {"npm", "npx", "yarn", "pnpm", "bun", "bower", "gulp", "grunt", "webpack", "vite", "tailwindcss", "sass", "sassc",
     "make", "tsc", "esbuild", "rollup"}
)  # fmt: skip
_WRITERS = frozenset({"cp", "mv", "ln", "rm", "chmod", "chown", "unzip", "tar", "wget", "git", "sed", "curl"})
_INSTALLERS = frozenset({"apt", "apt-get", "apk", "conda", "brew", "dnf", "yum"})
# Commands of `flask`, `pybabel`, `python manage.py` and the like that write files beside the code.
_COMPILES = re.compile(
    r"(flask|pybabel|python[\d.]* \S*manage\.py|python[\d.]* -m flask) (\S+ )*?"
    r"(translate|compile|assets|digest|collect|collectstatic|build|freeze|webpack|vite|tailwind)\b.*"
)


def skipped(words: list[str], *, redirected: bool) -> str | None:
    """The reason for leaving a command out: "" if no note is needed; None if the command has to run."""
    program = PurePosixPath(words[0]).name or words[0]  # "." has no name
    if redirected:
        return None
    if program in ("set", ":", "true", "echo", "printf", "pwd", "ulimit", "umask", "hash", "printenv", "which"):
        return ""
    if program in ("sleep", "wait-for-it", "wait-for-it.sh"):
        return "a release that cannot start is tried again"
    if program in ("source", ".") and words[-1].endswith("activate"):
        return "the app always runs in its own environment"
    return None


def refuse_writer(words: list[str], text: str, without: str, persistent: Sequence[str] = ()) -> tuple[str, str] | None:
    """The problem and its fix for a command that always writes into the app folder (npm, mkdir, cp).

    None for any other. `without` is the line without the command; `persistent` is what the app may write already.
    """
    program = PurePosixPath(words[0]).name or words[0]  # "." has no name
    line = " ".join([program, *words[1:]])
    quoted = shlex.quote(text)
    if program in ("pip", "pip3", *_INSTALLERS) or re.match(
        r"(python[\d.]* -m (pip|ensurepip)\b|(uv|poetry|pipenv|pdm) (sync|install|pip|lock)\b)", line
    ):
        where = "Aptfile" if program in _INSTALLERS else "requirements.txt"
        return f"installs packages with `{text}`; Decant installs them before the app starts, from {where}", without
    if program == "mkdir":
        folders = [word for word in words[1:] if not word.startswith("-")]
        new = [folder for folder in folders if not _is_persistent(folder, persistent)]
        sets = " && ".join(
            f"pulumi config set --path 'decant:persistent[{i}]' {shlex.quote(folder)}"
            for i, folder in enumerate(new, len(persistent))
        )
        fix = f"{sets}; {without}" if new else without
        return f"makes a folder with `{text}`, and the app folder is read-only on machines", fix
    if program in _BUILDERS or _COMPILES.fullmatch(line):
        return (
            f"runs `{text}`, which writes files beside the code, and those are read-only on machines",
            f"pulumi config set decant:build {quoted}; {without}",
        )
    if program in ("source", "."):
        return f"reads variables with `{text}`", f"pulumi config set --path 'decant:env.NAME' VALUE; {without}"
    if program in ("echo", "printf", "cat", "tee") and (">" in text or program == "tee"):
        return (
            f"writes a file with `{text}`, and the app folder is read-only on machines",
            f"{without}    (the app itself reads the value from its environment, or writes the file below $DATA_DIR)",
        )
    if words[:2] == ["newrelic-admin", "generate-config"]:
        return (
            f"runs `{text}`, which writes a file, and the app folder is read-only on machines",
            f"pulumi config set --secret --path 'decant:secrets.NEW_RELIC_LICENSE_KEY'; {without}"
            "    (New Relic reads the key from its variable)",
        )
    if program in _WRITERS:
        return (
            f"runs `{text}`, which changes files, and the app folder is read-only on machines",
            f"pulumi config set decant:build {quoted}; {without}",
        )
    return None


def _is_persistent(folder: str, persistent: Sequence[str]) -> bool:
    """Whether a folder is one of the persistent paths, or in one of them."""
    path = PurePosixPath(posixpath.normpath(folder))
    return any(path.is_relative_to(posixpath.normpath(known)) for known in persistent)
