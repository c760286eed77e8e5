"""Which release to go back to: one that was live before and is still on every machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from decant.bundle import RELEASE_ID
from decant.errors import MachineError, NoRollbackError
from decant.host import PROGRAM
from decant.session import Access, Session


def status(access: Access) -> dict[str, Any]:
    """What a machine's own program says of it. Raises MachineError."""
    sudo = "" if access.user == "root" else "sudo -n "
    with Session(access) as session:
        answer = session.run(f"{sudo}{PROGRAM} status", timeout=30)
    if answer.status != 0:
        raise MachineError(f"{access}: {answer.stderr.strip() or f'status {answer.status}'}")
    said: dict[str, Any] = json.loads(answer.stdout)
    return said


def choose(machines: Sequence[Access], wanted: str | None) -> str:
    """The wanted release, or the one that was live before. Raises NoRollbackError, MachineError."""
    with ThreadPoolExecutor(len(machines)) as pool:
        told = dict(zip((m.name for m in machines), pool.map(status, machines), strict=True))
    return _choose(told, wanted)


def _choose(told: Mapping[str, Mapping[str, Any]], wanted: str | None) -> str:
    """`told` maps names of machines to what they say: `persisted`, and `confirmed`, the last one first."""
    first = next(iter(told.values()))
    # Ids, whatever else a machine may say: they go into the stack's settings.
    ids = [r for r in first["confirmed"] if re.fullmatch(RELEASE_ID, r)]
    common = [r for r in ids if all(r in one["confirmed"] for one in told.values())]
    possible: list[str] = common if wanted else [r for r in common if r != first["persisted"]]
    for release in possible:
        if wanted in (None, release):
            return release
    lists = "\n".join(
        f"  {name}: {', '.join(one['confirmed']) or 'none'}; live is {one['persisted'] or 'none'}"
        for name, one in told.items()
    )
    if wanted is None:
        raise NoRollbackError(
            f"No machine has had another release live before this one. Releases that were live:\n{lists}"
        )
    raise NoRollbackError(
        f"Release {wanted} was not live on every machine, or is not there any more (the last five are kept):\n{lists}\n"
        "Choose one that all have: make rollback RELEASE=..."
    )
