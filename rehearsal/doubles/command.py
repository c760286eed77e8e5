"""Doubles of the command provider: commands and copies really run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi

from decant.ssh.client import Access, CommandResult
from rehearsal.backend import Backend
from rehearsal.doubles import Double
from rehearsal.errors import UnknownResourceError

NOTHING: dict[str, Any] = {"stdout": "", "stderr": ""}  # of a command without `create`, which does not run


def doubles(backend: Backend, numbers: Callable[[], str]) -> dict[str, Double]:
    """Return the doubles of this provider by the type of their resource."""

    def local(name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if "create" not in inputs:
            return numbers(), NOTHING
        return numbers(), _outputs(backend.local(name, inputs["create"], inputs.get("stdin", "")))

    def remote(name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if "create" not in inputs:
            return numbers(), NOTHING
        answer = backend.remote(name, _access(name, inputs), inputs["create"], inputs.get("stdin", ""))
        return numbers(), _outputs(answer)

    def copy(name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        source = inputs["source"]
        if not isinstance(source, pulumi.FileAsset):
            raise UnknownResourceError(f"{name}: only a FileAsset has a double, not {type(source).__name__}")
        backend.copy(name, _access(name, inputs), Path(source.path), inputs["remotePath"])
        return numbers(), {}

    return {
        "command:local:Command": local,
        "command:remote:Command": remote,
        "command:remote:CopyToRemote": copy,
    }


def _outputs(answer: CommandResult) -> dict[str, Any]:
    # The real provider removes the last newline, so a program must not depend on it.
    return {"stdout": answer.stdout.removesuffix("\n"), "stderr": answer.stderr.removesuffix("\n")}


def _access(name: str, inputs: dict[str, Any]) -> Access:
    connection = inputs["connection"]
    return Access(
        name=name,
        address=connection["host"],
        port=int(connection["port"]),
        user=connection["user"],
        host_key=connection["hostKey"],
        private_key=connection["privateKey"],
    )
