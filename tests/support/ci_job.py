"""A job of a workflow: runs `python -m decant.ci` in this process, with the variables that a runner sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from decant.ci.__main__ import main


@dataclass
class CiJob:
    """`sleeps` are the pauses so far, which are not waited for. `out` and `err` are what the last command printed."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    sleeps: list[float] = field(default_factory=list)
    out: str = ""
    err: str = ""

    def run(self, environ: Mapping[str, str], *argv: str) -> int:
        status = main(argv, environ, sleep=self.sleeps.append)
        self.out, self.err = self.capsys.readouterr()
        return status

    def comment(self, environ: Mapping[str, str], body: str, *argv: str, stack: str = "production") -> int:
        """What `make ci-comment STACK=production MARKDOWN=preview.md` does."""
        return self.run(environ, "comment", f"--stack={stack}", f"--markdown={self.write(body)}", *argv)

    def write(self, body: str) -> Path:
        path = self.folder / "preview.md"
        path.write_text(body, encoding="utf-8")
        return path
