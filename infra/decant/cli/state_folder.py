"""The folder that Pulumi keeps its state in, after a Pulumi that was killed while it wrote there."""

from __future__ import annotations

from pathlib import Path

SCHEME = "file://"
PARTS = ("stacks", "locks")  # what is read before anything else; old states are in other folders


def mend(url: str) -> None:
    """Delete files of attributes that are empty, where the state's URL is that of a folder.

    Beside each file, Pulumi keeps one with its content type and checksum. It puts the file itself in place in one
    go, but not its attributes. A Pulumi that is killed in between leaves an empty one, which every later command
    refuses as "EOF". Attributes that are missing are none.
    """
    if not url.startswith(SCHEME):
        return
    folder = Path(url.removeprefix(SCHEME).partition("?")[0]).expanduser() / ".pulumi"
    for part in PARTS:
        for file in (folder / part).rglob("*.attrs"):
            if file.is_file() and file.stat().st_size == 0:
                file.unlink(missing_ok=True)
