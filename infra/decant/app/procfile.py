"""The Procfile of an app: its processes by name."""

from __future__ import annotations

import re
from pathlib import Path

from decant.app.shown import shown
from decant.app.text_files import decode_leniently, within
from decant.errors import AppError

_SMART = str.maketrans("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00a0", "''''\"\"\"\" ")
_DASHES = re.compile("(^|(?<=\\s))[\u2013\u2014](?=\\w)")


def read_procfile(folder: Path) -> dict[str, str]:
    """The commands of the folder's Procfile by process name; empty where there is no Procfile.

    Raises:
        AppError: with every line that is not `name: command`, for two lines of one name, for typographic quotes, and
            where the file has another name.
    """
    path = folder / "Procfile"
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if "Procfile" not in names:
        other = next((n for n in sorted(names) if n.lower() in ("procfile", "procfile.txt")), None)
        if other and (folder / other).is_file():
            fix = f"mv {shown(folder)}/{other} {shown(folder)}/Procfile"
            raise AppError("app", (f"{other} is not read: its name has to be Procfile", fix))
        return {}
    processes: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    for line in decode_leniently(within(folder, path).read_bytes()).splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, colon, command = text.partition(":")
        name = name.strip()
        if not colon or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            problem = f"Procfile: {text!r} is not of the form `name: command`"
            problems.append((problem, f"remove that line from {shown(folder)}/Procfile"))
            continue
        name = name.lower() if name.lower() in ("web", "release") else name
        typed = _DASHES.sub("--", command.translate(_SMART))
        if typed != command and name in ("web", "release"):
            problem = f"Procfile: the {name}: line holds typographic quotes, dashes or blanks, which no shell knows"
            problems.append((problem, f"in {shown(folder)}/Procfile: {name}: {typed.strip()}"))
        if name in processes:
            problem = f"Procfile: there are two lines {name}:, and only one can be meant"
            problems.append((problem, f"remove one of them: {name}: {processes[name]} / {name}: {command.strip()}"))
        processes[name] = command.strip()
    if problems:
        raise AppError("app", *problems)
    return processes
