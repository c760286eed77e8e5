"""The takeover of the site's address: a new machine serves the release before the address moves to it.

Without a balancer, the site is one address that leads to one machine. When another machine takes its place, the steps
in Pulumi's state log in through that address, so they could begin only after the address has moved, and the site would
be away for the minutes that they take. So what they do is done before, through the address that the new machine has
until then. It runs as a hook of the resource that moves the address, which the engine calls whenever the address is
about to move, for whatever reason: https://www.pulumi.com/docs/iac/concepts/resources/options/hooks/
The steps in the state run as ever afterwards, and find everything done.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from decant.errors import DecantError, MachineError, TakeoverError
from decant.rollout.attempt import Attempt
from decant.rollout.plan import Plan
from decant.rollout.report import log
from decant.ssh.client import Access, Session
from decant.ssh.own_key import under_own_key
from decant.ssh.ready import wait_ready

SITE_TIMEOUT = 3.0
"""Seconds for the question whether anything answers at the site's address. The new machine boots meanwhile."""

STEP_TIMEOUT = 1800.0
"""Seconds without any output after which a command on the machine is given up."""


@dataclass(frozen=True)
class Command:
    """What a step runs on the machine: its name for people, a shell line, and its standard input."""

    step: str
    line: str
    stdin: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What a step copies to the machine: a file here, and its path there, which may be relative to the home."""

    source: Path
    target: str


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """A machine that is about to get the site's address, and what makes it serve the release.

    `access` logs in through the machine's own address, and `tag` is the machine's tag. `site` is the site's URL over
    plain HTTP, and `site_address` the address that moves. `root` is the PEM of a private certificate authority.
    """

    access: Access
    tag: str
    site: str
    site_address: str
    root: str | None
    release: str
    steps: tuple[Command | Copy, ...]
    timeout: float

    def run(self) -> None:
        """Make the machine serve the release at its own address, verified and confirmed.

        Nothing is done if nobody serves the site: it is new, or its machine is dead, and cannot be away for longer.

        Raises:
            DecantError: it does not serve it, and the address must not move.
        """
        if not _answers(self.site_address, self.name):
            return
        log(f"{self.access} is prepared before {self.site} leads to it")
        wait_ready(self.access, timeout=self.timeout, log=log)
        # The host key of the user data, which others can read, is good for the first login alone.
        replace(self, access=under_own_key(self.access)).go_live()

    @property
    def name(self) -> str:
        """The site's name, as requests name it."""
        return urlsplit(self.site).netloc

    def go_live(self) -> None:
        """Carry out the steps, then the rollout. Raises DecantError."""
        with Session(self.access) as session:
            for step in self.steps:
                if isinstance(step, Copy):
                    self._copy(session, step)
                else:
                    self._run(session, step)
        # The site's own name, at the machine's own address: so a certificate that was carried over is verified.
        plan = Plan(
            release=self.release,
            machines=(self.access,),
            url=self.site,
            address=self.access.address,
            domain=self.name.strip("[]"),
            root=self.root,
            orders_certificate=False,
            batch=1,
            tags=frozenset({self.tag}),
        )
        Attempt(plan).run()

    def _run(self, session: Session, step: Command) -> None:
        result = session.run(step.line, stdin=step.stdin, timeout=STEP_TIMEOUT)
        if result.status != 0:
            said = result.stderr.strip() or result.stdout.strip() or f"exit status {result.status}"
            raise MachineError(f"{step.step} failed on {self.access}:\n{said}")

    def _copy(self, session: Session, step: Copy) -> None:
        """Copy by SFTP, as the command provider does, and make the folder."""
        try:
            with contextlib.closing(session.client.open_sftp()) as sftp:
                with contextlib.suppress(OSError):  # it exists already
                    sftp.mkdir(str(PurePosixPath(step.target).parent))
                sftp.put(str(step.source), step.target)
        except OSError as error:
            raise MachineError(f"{step.target} could not be copied to {self.access}: {error}") from None


def _answers(address: str, name: str) -> bool:
    """Whether anything answers at an address over plain HTTP, also with a redirect to HTTPS."""
    connection = http.client.HTTPConnection(address, 80, timeout=SITE_TIMEOUT)
    try:
        connection.request("GET", "/", headers={"Host": name, "User-Agent": "decant"})
        return connection.getresponse().status > 0
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


async def take_over(takeover: Takeover, work: Callable[[Takeover], None] = Takeover.run) -> None:
    """Run the takeover in a thread, because the program answers the engine meanwhile.

    Raises:
        TakeoverError: it failed; the text says that the old machine still serves the site, and what to do.
    """
    try:
        await asyncio.to_thread(work, takeover)
    except DecantError as error:
        raise TakeoverError(
            f"{takeover.access.name} does not take over {takeover.site}, which its predecessor still serves: {error}\n"
            "  Mend that, then run pulumi up again: it goes on with the new machine."
        ) from None
