"""The certificate that outlives its machine: what the last machine saved is put on one that takes its place.

A rollout keeps what its machine has as the secret output `savedCertificate` of the stack. `make destroy` keeps it as
the setting of the same name. Let's Encrypt gives five certificates a week for the same names, so a machine that is
replaced more often would otherwise be without HTTPS for days.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pulumi

from decant.deploy.last_outputs import last_output
from decant.errors import MachineError
from decant.host.steps import PROGRAM
from decant.settings.model import Settings
from decant.ssh.client import Access, Session
from decant.ssh.machine_client import as_root

OUTPUT = "savedCertificate"
"""The output of the stack."""

TIMEOUT = 60.0
"""Seconds for the command on the machine."""


async def find_saved(settings: Settings) -> str | None:
    """What the stack's last machine saved, else what `make destroy` has kept; None where there is nothing."""
    saved = await last_output(OUTPUT)
    return str(saved) if saved else settings.site.saved_certificate


def restore_line(user: str) -> str:
    """The shell line that takes what was saved from standard input."""
    return as_root(user, f"{PROGRAM} certificate-restore")


def restore_input(saved: str) -> str:
    """Its standard input. It holds private keys."""
    return json.dumps({"saved": saved})


def after_provision(
    settings: Settings, access: pulumi.Output[dict[str, Any]]
) -> Callable[[pulumi.ResourceHookArgs], Awaitable[None]]:
    """What runs after a new machine was provisioned: it gets the saved certificate, if there is one.

    It never fails: without it, the machine orders a certificate.
    """

    async def restore(_: pulumi.ResourceHookArgs) -> None:
        saved = await find_saved(settings)
        known = await access.future()
        if not saved or not known:
            return
        machine = Access.from_dict(known)
        try:
            await asyncio.to_thread(_restore, machine, saved)
        except MachineError as error:
            pulumi.log.warn(f"the last machine's certificate is not carried over, so a new one is ordered: {error}")

    return restore


def _restore(access: Access, saved: str) -> None:
    with Session(access) as session:
        done = session.run(restore_line(access.user), stdin=restore_input(saved), timeout=TIMEOUT)
    if done.status != 0:
        raise MachineError(done.stderr.strip() or f"{access}: certificate-restore failed")
