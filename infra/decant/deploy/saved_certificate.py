"""The certificate that outlives its machine: what the last machine saved is put on one that takes its place.

A rollout keeps what its machine has as the secret output `savedCertificate` of the stack. `make destroy` keeps it as
the setting of the same name. Let's Encrypt gives five certificates a week for the same names, so a machine that is
replaced more often would otherwise be without HTTPS for days.
"""

from __future__ import annotations

import asyncio
import json
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


class CarryOver:
    """What gives a new machine the saved certificate, if there is one, when it is provisioned.

    The certificate is found before the step and goes to the machine after it. To read the stack's outputs, the engine
    registers its own provider and writes the state. After a step's command, the engine holds the step's state until the
    hooks have ended, so that a hook that reads the outputs there waits for ever (seen with Pulumi 3.272).
    """

    def __init__(self, settings: Settings, access: pulumi.Output[dict[str, Any]]) -> None:
        self.settings = settings
        self.access = access
        self.saved: str | None = None

    def hooks(self, machine: str) -> pulumi.ResourceHookBinding:
        """The hooks for the step that provisions the machine of this name."""
        return pulumi.ResourceHookBinding(
            before_create=[pulumi.ResourceHook(f"saved certificate for {machine}", self.find)],
            after_create=[pulumi.ResourceHook(f"certificate of {machine}", self.restore)],
        )

    async def find(self, _: pulumi.ResourceHookArgs) -> None:
        """Find what was saved. It never fails."""
        self.saved = await find_saved(self.settings)

    async def restore(self, _: pulumi.ResourceHookArgs) -> None:
        """Put it on the machine. It never fails: without it, the machine orders a certificate."""
        known = await self.access.future()
        if not self.saved or not known:
            return
        machine = Access.from_dict(known)
        try:
            await asyncio.to_thread(_restore, machine, self.saved)
        except MachineError as error:
            pulumi.log.warn(f"the last machine's certificate is not carried over, so a new one is ordered: {error}")


def _restore(access: Access, saved: str) -> None:
    with Session(access) as session:
        done = session.run(restore_line(access.user), stdin=restore_input(saved), timeout=TIMEOUT)
    if done.status != 0:
        raise MachineError(done.stderr.strip() or f"{access}: certificate-restore failed")
