"""The types of an app folder: what was read from it (App), and what is shipped of it (Bundle)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class App:
    """An app folder that can be served, as far as Decant can see without importing it."""

    folder: Path
    wsgi_app: str
    """gunicorn's application argument, such as `wsgi:app`."""
    static: str | None
    """The folder of static files in the app."""
    release_command: str | None
    """The command that runs once before a release gets traffic."""
    requirements: tuple[str, ...]
    """requirements.txt and the files that it includes."""
    hashed: bool
    """Whether the requirements carry hashes: then machines install exactly these files."""
    local_requirements: bool
    """Whether a requirement is code of the app folder itself."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An app folder as one tar, the same bytes on every computer."""

    data: bytes = field(repr=False)
    code_hash: str
    """SHA-256 of the names, modes and contents of the files."""
    requirements_hash: str
    """SHA-256 of the requirement files; releases with the same one share a virtual environment."""
    files: int

    @property
    def sha256(self) -> str:
        """SHA-256 of the tar itself."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def file_name(self) -> str:
        """The name of the tar as a file, which changes with its content."""
        return f"app-{self.code_hash[:12]}.tar"
