"""The backend of a rehearsal: throwaway machines on this computer, and commands that really run."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from decant.errors import MachineError
from decant.ssh.client import Access, CommandResult, Session
from rehearsal.accounts.base import Account
from rehearsal.backend import Check, Entrance
from rehearsal.balancer import BalancerMachine
from rehearsal.errors import RehearsalError, StepFailedError, StoppedError, UnknownResourceError
from rehearsal.issuer import Issuer
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from rehearsal.names import Names
from rehearsal.progress import Progress

PROJECT = Path(__file__).resolve().parents[1]


class ThrowawayBackend:
    """Boots machines on one network and runs commands on them and here.

    The first step that fails sets `stopping`, after which no new step begins; `failures` has a text for each that
    failed. Steps that can fail raise StepFailedError, and StoppedError after another one failed.
    """

    def __init__(self, network: Network, progress: Progress, names: Names | None = None) -> None:
        """`names` are the site's, which lead to the first address that is reserved."""
        self.network = network
        self.names = names
        self.progress = progress
        self.failures: list[str] = []
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.reserved = 0
        # For each private network, the machine at each address; None while the machine is still to get the address.
        self.private: dict[str, dict[str, Machine | None]] = {}
        self.balancers: dict[str, BalancerMachine] = {}
        self.accounts: dict[str, Account] = {}
        self.issuer = Issuer()

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Report a failure at once, not when Pulumi gets to it, and begin no step after it."""
        if self.stopping.is_set():
            raise StoppedError(name)
        try:
            with self.progress.step(name):
                yield
        except (StepFailedError, RehearsalError, MachineError, UnknownResourceError) as error:
            self.stopping.set()
            self.failures.append(f"{name} failed:\n{error}")
            self.progress.say(f"{name} FAILED")
            raise StepFailedError(str(error)) from None

    def boot(self, name: str, user_data: str) -> str:
        """Boot a real Debian machine, where the real cloud-init applies the first-boot data."""
        with self._step(f"boot {name}"):
            return self.network.boot(name, flavour="cloud", user_data=user_data, say=self.progress.say).address

    def reserve(self) -> str:
        """Return an address from the end of the network's; machines get theirs from its beginning."""
        with self.lock:
            self.reserved += 1
            address = str(ipaddress.ip_network(self.network.cidr)[-1 - self.reserved])
            if self.names and self.reserved == 1:
                self.names.lead_to(address)
            return address

    def assign_address(self, reserved: str, machine: str) -> None:
        """Add the address to the machine's interface, also for after a reboot."""
        with self._step(f"assign {reserved}"):
            self._machine(machine).add_address(f"{reserved}/27")

    def attach_to_network(self, machine: str, network: str) -> str:
        """Add an address to the machine's interface: all private networks share the rehearsal's bridge."""
        found = self._machine(machine)
        with self._step(f"attach {found.name} to {network}"):
            address = self._claim(network)
            found.add_address(f"{address}/{network.rpartition('/')[2]}")
            self._route(found, network, address)
            return address

    def create_load_balancer(self, name: str, network: str, check: Check) -> str:
        """Boot a machine with HAProxy."""
        with self._step(f"boot {name}"):
            address = self._claim(network)
            interface = f"{address}/{network.rpartition('/')[2]}"
            balancer = BalancerMachine.start(self.network, name, interface, check, self.progress.say)
            balancer.wait_serving()
            self._route(balancer.machine, network, address)
            self.balancers[balancer.address] = balancer
            return balancer.address

    def set_entrance(self, balancer: str, entrance: Entrance) -> None:
        """Let visitors in as the load balancer's owner says."""
        found = self.balancers[balancer]
        protocols = "HTTP and HTTPS" if entrance.certificates else "HTTP"
        with self._step(f"{found.machine.name} takes {protocols}"):
            found.set_entrance(entrance)

    def set_targets(self, balancer: str, machines: Sequence[str]) -> None:
        """Replace the targets at once. A new machine gets requests when it has passed the balancer's checks."""
        found = self.balancers[balancer]
        with self._step(f"{found.machine.name} sends to {', '.join(machines) or 'no machine'}"):
            found.set_targets(machines)

    def _machine(self, address: str) -> Machine:
        return next(machine for machine in self.network.machines() if machine.address == address)

    def _claim(self, network: str) -> str:
        """Return the first free address in a private network, or in a subnet of one. The very first is the router's."""
        with self.lock:
            taken = {address for members in self.private.values() for address in members}
            hosts = itertools.islice(ipaddress.ip_network(network).hosts(), 1, None)
            address = next(str(host) for host in hosts if str(host) not in taken)
            self.private.setdefault(network, {})[address] = None
            return address

    def _route(self, machine: Machine, network: str, address: str) -> None:
        """Route between this network and the others: the private networks of a cloud reach each other."""
        with self.lock:
            self.private[network][address] = machine
            others = [(other, source, neighbour) for other, members in self.private.items() if other != network
                      for source, neighbour in members.items() if neighbour]  # fmt: skip
            for other in {other for other, _, _ in others}:
                machine.add_route(other, address)
            for _, source, neighbour in others:
                neighbour.add_route(network, source)

    def local(self, step: str, command: str, stdin: str) -> CommandResult:
        """Run a command as the command provider does: by the shell, in the program's folder."""
        with self._step(step):
            # In a session of its own, which Ctrl-C does not reach: the runner waits for steps that are still running.
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                input=stdin, capture_output=True, text=True, cwd=PROJECT / "infra", start_new_session=True, check=False,
            )  # fmt: skip
            return self._checked(step, CommandResult(status=done.returncode, stdout=done.stdout, stderr=done.stderr))

    def remote(self, step: str, access: Access, command: str, stdin: str) -> CommandResult:
        """Run a command over SSH with the pinned host key, on a connection of its own, as the command provider does."""
        with self._step(step), Session(access) as session:
            answer = self._checked(step, session.run(command, stdin=stdin, timeout=900))
        for line in answer.stderr.splitlines():  # Pulumi shows it, too
            self.progress.say(f"{step}: {line}")
        return answer

    def copy(self, step: str, access: Access, source: Path, target: str) -> None:
        """Copy by SFTP and make the parent folder, as the command provider does."""
        with self._step(step), Session(access) as session:
            sftp = session.client.open_sftp()
            try:
                with contextlib.suppress(OSError):  # it exists already
                    sftp.mkdir(str(PurePosixPath(target).parent))
                sftp.put(str(source), target)
            except OSError as error:
                raise StepFailedError(f"{access.address}: {target}: {error}") from None

    @staticmethod
    def _checked(step: str, answer: CommandResult) -> CommandResult:
        if answer.status != 0:
            said = "\n".join(part for part in (answer.stdout.strip(), answer.stderr.strip()) if part)
            raise StepFailedError(said[-4000:] or f"{step} ended with status {answer.status} without any output")
        return answer
