"""Which release to go back to: one that was live before and is still on every machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from decant.errors import NoRollbackError
from decant.ssh.client import Access
from decant.ssh.machine_client import status
from decant_host.protocol import RELEASE_ID


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
