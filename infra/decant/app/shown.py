"""An app folder, and its commands, as messages show them."""

from __future__ import annotations

import re
from pathlib import Path

from decant.app.files import source_folder
from decant.app.requirements import hide_credentials


def shown(folder: Path) -> str:
    """The path of an app folder from its project's root, where commands are typed; its name where no project is near.

    The root is the nearest folder above it that holds Pulumi.yaml.
    """
    source = source_folder(folder)
    for root in source.parents:
        if (root / "Pulumi.yaml").is_file():
            return source.relative_to(root).as_posix()
    return source.name


def hide_values(command: str) -> str:
    """A command without the values of assignments and options, and without passwords in URLs: they may be secret."""
    return re.sub(r"\b(\w+)=(?:\"[^\"]*\"|'[^']*'|[^\s\"'])+", r"\1=...", hide_credentials(command))
