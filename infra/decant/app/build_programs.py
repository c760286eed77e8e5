"""What a build's command finds: its variables, its programs, and a virtual environment with the app's packages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from uv import find_uv_bin

from decant.app.model import AppOptions, Packages
from decant.app.packages import read_packages
from decant.app.python_version import read_python
from decant.errors import AppError

_SHELL = frozenset(
    {
        "cd", "export", "set", "test", "[", "echo", "true", "false", ":", "if", "then", "else", "elif", "fi", "for",
        "do", "done", "while", "until", "exit", ".", "source", "eval", "umask", "unset", "trap", "wait", "read",
        "printf", "case", "esac", "{", "}", "!", "shift", "return",
    }
)  # fmt: skip
_NODE = frozenset({"npm", "npx", "node", "yarn", "pnpm", "corepack", "bun", "bunx"})
_NO_PYTHON = _NODE | {
    "make",
    "cmake",
    "gcc",
    "g++",
    "cc",
    "go",
    "cargo",
    "ruby",
    "php",
    "java",
    "deno",
    "docker",
    "hugo",
}
_CREDENTIAL = re.compile(r"(?!NPM_|NODE_|YARN_)(PULUMI_|.*(_TOKEN$|ACCESS_KEY|SECRET|PASSWORD|PASSPHRASE))")
"""Names of variables that open something, such as the cloud to Pulumi. A build needs at most those of npm."""

_PYTHON = r"(python3?(\.\d+)?|pip3?|flask|pybabel|webassets|sphinx-build|mkdocs)"
ENVIRONMENTS = 3  # that stay


def programs(command: str) -> list[str]:
    """The programs that a shell line starts, as far as they can be told without a shell."""
    try:
        words = list(shlex.shlex(command, posix=True, punctuation_chars=True))
    except ValueError:
        return []
    found, first = [], True
    for word in words:
        if re.fullmatch(r"[();<>|&]+", word):
            first = word not in ("<", ">", ">>", ">&", "&>")
        elif re.fullmatch(r"[A-Za-z_]\w*=.*", word) or word in ("exec", "command", "time", "env", "nice"):
            continue
        elif first and not word.startswith("-"):
            first = word in ("if", "then", "else", "elif", "do", "while", "until", "!", "{")
            found.append(word)
    return [word for word in found if word not in _SHELL]


def missing_program(command: str, path: str) -> tuple[str, str] | None:
    """A message and a fix for the first program of the command that is not on PATH."""
    for program in programs(command):
        if "/" in program or "$" in program or shutil.which(program, path=path):
            continue
        message = f"cannot be built: decant:build runs {program}, which is not on this computer"
        if program in _NODE:
            return message, "install Node.js, e.g. sudo apt-get install npm"
        if program in _NO_PYTHON:
            return message, f"install it, e.g. sudo apt-get install {program}"
        return message, f"install {program}, or add the Python package that has it to the app's packages"
    return None


def build_environment(
    command: str, options: AppOptions, work: Path, cache: Path, log: Path, say: Callable[[str], None]
) -> dict[str, str]:
    """The command's variables: the user's own and those of decant:env, without a stack's secrets.

    Variables by which Pulumi reaches its state and the cloud are left out: the app's packages run code, too.

    Where the command needs the app's packages, a virtual environment with them comes first on PATH.

    Raises:
        AppError: where the packages cannot be read or installed.
    """
    left_out = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")
    own = {n: v for n, v in os.environ.items() if not _CREDENTIAL.match(n) and n not in left_out}
    # Pulumi runs this program in Decant's own environment, whose python and flask are not the app's.
    bin_folders = (str(Path(sys.prefix) / "bin"), str(Path(sys.executable).parent))
    path = os.pathsep.join(p for p in own.get("PATH", os.defpath).split(os.pathsep) if p not in bin_folders)
    environment = {**own, **options.env, "PATH": path}
    if _needs_packages(command, work, path):
        environment["VIRTUAL_ENV"] = str(venv := _virtual_environment(options, work, cache, log, own, say))
        environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{path}"
    return environment


def _needs_packages(command: str, work: Path, path: str) -> bool:
    """Whether the command, or a file that it names, runs Python or a program that only the app's packages can have."""
    started = programs(command)
    unknown = [p for p in started if "/" not in p and p not in _NO_PYTHON and not shutil.which(p, path=path)]
    return bool(unknown) or any(re.search(rf"(?<![\w.-]){_PYTHON}(?![\w-])", text) for text in _texts(command, work))


def _texts(command: str, work: Path) -> Iterator[str]:
    """The command and the files of the app that say what it does."""
    yield command
    names = re.findall(r"[\w./-]+", command)
    if "make" in names:
        names += ["Makefile", "makefile", "GNUmakefile"]
    if _NODE & set(names):
        names.append("package.json")
    for name in dict.fromkeys(names):
        file = work / name.removeprefix("./")
        if file.is_file() and file.stat().st_size < 1 << 18:
            text = file.read_text(encoding="utf-8", errors="replace")
            scripts = json.dumps(_scripts(text)) if file.name == "package.json" else text
            yield scripts


def _scripts(text: str) -> object:
    try:
        return json.loads(text).get("scripts")
    except (ValueError, AttributeError):
        return None


# ------------------------------------------------------------------------------------------------ the environment


def _virtual_environment(
    options: AppOptions, work: Path, cache: Path, log: Path, variables: dict[str, str], say: Callable[[str], None]
) -> Path:
    """A virtual environment with the app's packages, made where there is none for these packages."""
    packages, python = read_packages(work, options), read_python(work, options)
    key = hashlib.sha256(json.dumps([packages.install, packages.project, packages.hashed, python.version]).encode())
    names = sorted(p.relative_to(work).as_posix() for p in work.rglob("*.py")) if packages.local else []
    for name in [*packages.files, *names]:
        content = packages.generated.get(name)
        key.update((work / name).read_bytes() if content is None else content)
    venv = cache / "build-environments" / key.hexdigest()[:16]
    if not (venv / ".complete").exists():
        say("decant:build needs the app's packages; installing them on this computer")
        shutil.rmtree(venv, ignore_errors=True)
        with log.open("wb") as output:
            _make(venv, packages, python.version, work, output.fileno(), variables)
            _install(venv, packages, work, output.fileno(), variables, log)
        (venv / ".complete").touch()
    os.utime(venv)
    others = sorted((p for p in venv.parent.iterdir() if p != venv), key=lambda p: p.stat().st_mtime)
    for old in others[: max(0, len(others) - ENVIRONMENTS + 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return venv


def _make(venv: Path, packages: Packages, version: str, work: Path, output: int, variables: dict[str, str]) -> None:
    """Make an empty environment, of the machines' Python or else of the one that runs this program."""
    for python in (version, str(Path(sys.base_prefix) / "bin" / "python3"), sys.executable):
        command = [find_uv_bin(), "venv", "--quiet", "--allow-existing", "--python", python, str(venv)]
        done = subprocess.run(
            command, cwd=work, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
        if done.returncode == 0:
            return


def _install(venv: Path, packages: Packages, work: Path, output: int, variables: dict[str, str], log: Path) -> None:
    made = [name for name in packages.generated if not os.path.lexists(work / name)]
    for name in made:
        (work / name).write_bytes(packages.generated[name])
    hashes = ("--require-hashes",) if packages.hashed else ()
    command = [find_uv_bin(), "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
    steps = [[*hashes, *packages.install], *([["--no-deps", packages.project]] if packages.project else [])]
    try:
        for step in steps:
            done = subprocess.run(
                [*command, *step], cwd=work, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                check=False,
            )  # fmt: skip
            if done.returncode:
                break
    finally:
        for name in made:
            (work / name).unlink()
    if done.returncode:
        tail = "\n".join(f"        {line[:300]}" for line in log.read_text(errors="replace").splitlines()[-15:])
        raise AppError(
            "app",
            (
                f"cannot be built: the app's packages, which decant:build needs, could not be installed here:\n{tail}",
                "see the first line above, or leave decant:build out: pulumi config rm decant:build",
            ),
        )
