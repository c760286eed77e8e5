"""`make rollback`: which release to go back to, and staying on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from decant.cli.pulumi_cli import PulumiCli, accesses
from decant.errors import NoRollbackError, StackError
from decant.ssh.client import Access
from decant.ssh.machine_client import status
from decant_host.protocol import RELEASE_ID, Status


def pin_release(cli: PulumiCli, stack: str, wanted: str | None) -> None:
    """Set `decant:release` to a release that was live before; `wanted` None takes the last one.

    Raises:
        NoRollbackError: there is no such release on every machine.
        MachineError: a machine does not answer.
        StackError: nothing was released yet, or Pulumi failed.
    """
    release = choose(accesses(cli, stack), wanted)
    done = cli.capture("config", "set", "decant:release", release, "--stack", stack)
    if done.returncode != 0:
        raise StackError(done.stderr.strip())
    print(
        f"Going back to release {release}. The stack stays on it until you leave it:\n"
        f"    pulumi config rm decant:release --stack {stack} && make up STACK={stack}",
        flush=True,
    )


def choose(machines: Sequence[Access], wanted: str | None) -> str:
    """The wanted release, or the one that was live before. Raises NoRollbackError, MachineError."""
    with ThreadPoolExecutor(len(machines)) as pool:
        return _choose(dict(zip((m.name for m in machines), pool.map(status, machines), strict=True)), wanted)


def _choose(statuses: Mapping[str, Status], wanted: str | None) -> str:
    """`statuses` is by machine; its lists of confirmed releases begin with the last one."""
    first = next(iter(statuses.values()))
    # The id goes into the stack's settings, so any other text from a machine is ignored.
    ids = [r for r in first["confirmed"] if re.fullmatch(RELEASE_ID, r)]
    common = [r for r in ids if all(r in entry["confirmed"] for entry in statuses.values())]
    possible = common if wanted else [r for r in common if r != first["persisted"]]
    for release in possible:
        if wanted in (None, release):
            return release
    lists = "\n".join(
        f"  {name}: {', '.join(entry['confirmed']) or 'none'}; live is {entry['persisted'] or 'none'}"
        for name, entry in statuses.items()
    )
    if wanted is None:
        raise NoRollbackError(f"No machine had another release live before this one. Releases that were live:\n{lists}")
    raise NoRollbackError(
        f"Release {wanted} was not live on every machine, or is not there any more (the last five are kept):\n{lists}\n"
        "Choose one that all have: make rollback RELEASE=..."
    )
