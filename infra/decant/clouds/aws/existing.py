"""The machines that a stack has already: whether they run, and whether they can be changed as the settings say.

AWS stops an instance to change its type, and leaves it stopped where it refuses the change. The program therefore
refuses a change that cannot work before AWS sees it, in previews, too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import pulumi

from decant.clouds.aws.look_ups import STANDARD_FAMILIES, LookUps, filter_by, matching
from decant.clouds.aws.offers import DEBIAN_NAMES, Size
from decant.errors import LookUpError
from decant.settings.model import Settings

PRESENT = ("pending", "running", "stopping", "stopped")
"""The states of an instance that exists."""
_NOT_FOUND = re.compile(r"no matching EC2 Instance|returned no results|NotFound")
# AWS may list a new machine only after some seconds.
PAUSE = 2.0
ATTEMPTS = 4
MOST_LOOK_UPS = 25  # each takes several calls of AWS's API, and an account has a limit of those


class ExistingMachines(LookUps):
    """The machines of a stack, in its network, as AWS knows them."""

    def __init__(self, settings: Settings, parent: pulumi.Resource, label: str, replaced: Iterable[str] = ()) -> None:
        """`label` begins the names that AWS shows; `replaced` are the machines that this run replaces."""
        super().__init__(settings, parent)
        self.label = label
        self.names = [f"web-{number}" for number in range(1, settings.machines + 1)]
        self.kept = [name for name in self.names if name not in set(replaced)]

    async def check_change(self, size: Size, network: str) -> None:
        """Refuse a size that the machines in the stack's network cannot be changed to.

        Where AWS does not answer, nothing is refused: these questions only prevent what AWS would refuse later.
        """
        try:
            for other in DEBIAN_NAMES.keys() - {size.architecture}:
                if await self._machines(network, self.kept, architecture=other):
                    raise pulumi.RunError(
                        f"decant:size is {size.name}, which is {size.architecture}, and {', '.join(self.kept)} was made"
                        f" for {other}: its system cannot run there\n      {self._usual_size()}\n"
                        "      To replace every machine, with the loss of what the app has written to its disk:"
                        f" DECANT_REPLACE={','.join(self.names)} make up STACK={self.settings.stack}"
                    )
            if not self.settings.balancer and STANDARD_FAMILIES.match(size.name):
                await self._check_room(size, network)
        except LookUpError as error:
            pulumi.log.debug(f"not checked before a change of sizes: {error}")

    async def _machines(self, network: str, names: Iterable[str], **more: str) -> list[str]:
        """The ids of the stack's machines with these names that exist."""
        tags = [f"{self.label}-{name}" for name in names]
        if not tags:
            return []
        filters = [*matching(vpc_id=network, **more), filter_by("tag:Name", tags)]
        found = await self.ask("ec2/getInstances", filters=filters, instanceStateNames=list(PRESENT))
        return list(found["ids"])

    async def _check_room(self, size: Size, network: str) -> None:
        """Refuse another size of a single machine where the quota has no room: AWS would stop it and not start it."""
        own = await self._machines(network, self.kept)
        if not own or await self._machines(network, self.kept, instance_type=size.name):
            return
        quota = await self._quota()
        running = await self.ask("ec2/getInstances", instanceStateNames=["pending", "running"])
        others = [identity for identity in running["ids"] if identity not in own]
        if len(others) > MOST_LOOK_UPS:
            return
        used = 0
        for identity in others:
            kind = (await self.ask("ec2/getInstance", instanceId=identity))["instanceType"]
            if STANDARD_FAMILIES.match(kind):
                used += int((await self.ask("ec2/getInstanceType", instanceType=kind))["defaultVcpus"])
        if used + size.vcpus > quota:
            raise pulumi.RunError(
                f"decant:size is {size.name}, which has {size.vcpus} vCPUs: {', '.join(self.kept)} would be stopped for"
                f" it and could not start again, because the account's quota in {self.place} is {quota} and other"
                f" machines use {used}\n      {self._usual_size()}, or ask for a larger quota:\n"
                f"      {self._more_vcpus(used + size.vcpus)}"
            )

    async def check_running(self, name: str, identity: str) -> str:
        """The public address of a machine.

        Raises:
            pulumi.RunError: the machine is stopped, or was terminated.
        """
        for attempt in range(ATTEMPTS):
            try:
                found = await self.ask("ec2/getInstance", instanceId=identity)
                break
            except LookUpError as error:
                if not _NOT_FOUND.search(str(error)):
                    raise self._unanswered(name, identity, error) from None
                if attempt == ATTEMPTS - 1:
                    raise self._terminated(name, identity) from None
                await asyncio.sleep(PAUSE)
        if found["instanceState"] in ("shutting-down", "terminated"):
            raise self._terminated(name, identity)
        if found["instanceState"] in ("stopping", "stopped") or not found.get("publicIp"):
            kind = found["instanceType"]
            change = f"ec2 modify-instance-attribute --instance-id {identity} --instance-type SIZE"
            raise pulumi.RunError(
                f"{name} ({identity}) is stopped\n"
                f"      {self.command(f'ec2 start-instances --instance-ids {identity}')}\n"
                f"      Where AWS refuses to start it as {kind}, first give it a size that it can have:\n"
                f"      {self.command(change)} && {self._set('size', 'SIZE')}"
            )
        return str(found["publicIp"])

    def _terminated(self, name: str, identity: str) -> pulumi.RunError:
        return pulumi.RunError(
            f"{name} ({identity}) does not exist any more: it was terminated\n"
            f"      make replace STACK={self.settings.stack} MACHINE={name}"
        )
