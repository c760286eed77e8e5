"""An app folder as messages and commands name it."""

from __future__ import annotations

from pathlib import Path

from decant.app.files import source_folder


def shown(folder: Path) -> str:
    """The path of an app folder from its project's root, where commands are typed; its name where no project is near.

    The root is the nearest folder above it that holds Pulumi.yaml.
    """
    source = source_folder(folder)
    for root in source.parents:
        if (root / "Pulumi.yaml").is_file():
            return source.relative_to(root).as_posix()
    return source.name
