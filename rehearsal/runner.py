"""Runs the stack's own program in this process, with doubles for the cloud and everything else for real."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi
from pulumi.runtime.stack import run_pulumi_func

from decant import program
from decant.errors import MachineError
from decant.ssh.client import Access, CommandResult, Session
from rehearsal.balancer import BalancerMachine
from rehearsal.doubles import Check, Doubles, StepFailedError, UnknownResourceError, environment
from rehearsal.image import RehearsalError
from rehearsal.machines import Machine, Network

PROJECT = Path(__file__).resolve().parents[1]
# A thread is held while a double works, never while it waits: this many steps can run side by side.
THREADS = 64


class Progress:
    """Says what is being done and how many seconds have passed, from any thread."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.running: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        """One line."""
        with self.lock:
            print(f"{self.seconds:6.1f} s  {text}", flush=True)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Names a step as it begins and as it ends."""
        self.say(f"{name} ...")
        started = time.monotonic()
        self.running[name] = started
        try:
            yield
        finally:
            self.running.pop(name, None)
        self.say(f"{name} done in {time.monotonic() - started:.1f} s")


class StoppedError(Exception):
    """Something failed already, so this step was not begun."""


class ThrowawayWorld:
    """Machines of a rehearsal's network, and commands that really run, on them or here."""

    def __init__(self, network: Network, progress: Progress) -> None:
        self.network = network
        self.progress = progress
        self.failures: list[str] = []
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.reserved = 0
        self.private: dict[str, dict[str, Machine | None]] = {}  # who has an address in a private network; None: soon
        self.balancers: dict[str, BalancerMachine] = {}

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """A step that fails is told at once, not when Pulumi gets to it; after it nothing new begins."""
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
        """A real Debian machine, first-boot data applied by the real cloud-init."""
        with self._step(f"boot {name}"):
            return self.network.boot(name, flavour="cloud", user_data=user_data, say=self.progress.say).address

    def reserve(self) -> str:
        """From the end of the network's addresses; machines are counted from its beginning."""
        with self.lock:
            self.reserved += 1
            return str(ipaddress.ip_network(self.network.cidr)[-1 - self.reserved])

    def assign(self, reserved: str, machine: str) -> None:
        """A second address on the machine's interface, there again after a reboot."""
        with self._step(f"assign {reserved}"):
            self._machine(machine).add_address(f"{reserved}/27")

    def inside(self, machine: str, network: str) -> str:
        """A second address on the machine's interface: all private networks are on the rehearsal's bridge."""
        one = self._machine(machine)
        with self._step(f"put {one.name} into {network}"):
            address = self._claim(network)
            one.add_address(f"{address}/{network.rpartition('/')[2]}")
            self._route(one, network, address)
            return address

    def balance(self, name: str, network: str, check: Check) -> str:
        """A machine with HAProxy."""
        with self._step(f"boot {name}"):
            address = self._claim(network)
            inside = f"{address}/{network.rpartition('/')[2]}"
            balancer = BalancerMachine.start(self.network, name, inside, check, self.progress.say)
            balancer.wait_serving()
            self._route(balancer.machine, network, address)
            self.balancers[balancer.address] = balancer
            return balancer.address

    def targets(self, balancer: str, machines: Sequence[str]) -> None:
        """Takes effect at once; a new machine gets requests when it has passed the balancer's checks."""
        one = self.balancers[balancer]
        with self._step(f"{one.machine.name} asks {', '.join(machines) or 'nobody'}"):
            one.set_targets(machines)

    def _machine(self, address: str) -> Machine:
        return next(machine for machine in self.network.machines() if machine.address == address)

    def _claim(self, network: str) -> str:
        """The first free address in a private network, or in a part of one. Its very first is its router's."""
        with self.lock:
            taken = {address for members in self.private.values() for address in members}
            hosts = itertools.islice(ipaddress.ip_network(network).hosts(), 1, None)
            address = next(str(host) for host in hosts if str(host) not in taken)
            self.private.setdefault(network, {})[address] = None
            return address

    def _route(self, machine: Machine, network: str, address: str) -> None:
        """The private networks of a cloud reach each other."""
        with self.lock:
            self.private[network][address] = machine
            others = [(other, source, one) for other, members in self.private.items() if other != network
                      for source, one in members.items() if one]  # fmt: skip
            for other in {other for other, _, _ in others}:
                machine.add_route(other, address)
            for _, source, one in others:
                one.add_route(network, source)

    def local(self, step: str, command: str, stdin: str) -> CommandResult:
        """As the command provider runs it: by the shell, in the program's folder."""
        with self._step(step):
            # Not in our session: Ctrl-C is for the runner, which says what is still running and waits for it.
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                input=stdin, capture_output=True, text=True, cwd=PROJECT / "infra", start_new_session=True, check=False,
            )  # fmt: skip
            return self._checked(step, CommandResult(status=done.returncode, stdout=done.stdout, stderr=done.stderr))

    def remote(self, step: str, access: Access, command: str, stdin: str) -> CommandResult:
        """Over SSH with the pinned key, one connection a step, as the provider does it."""
        with self._step(step), Session(access) as session:
            return self._checked(step, session.run(command, stdin=stdin, timeout=900))

    def copy(self, step: str, access: Access, source: Path, target: str) -> None:
        """By sftp, parent folders made, as the provider does it."""
        with self._step(step), Session(access) as session:
            sftp = session.client.open_sftp()
            try:
                with contextlib.suppress(OSError):  # it is there
                    sftp.mkdir(str(PurePosixPath(target).parent))
                sftp.put(str(source), target)
            except OSError as error:
                raise StepFailedError(f"{access.address}: {target}: {error}") from None

    @staticmethod
    def _checked(step: str, answer: CommandResult) -> CommandResult:
        if answer.status != 0:
            said = "\n".join(part for part in (answer.stdout.strip(), answer.stderr.strip()) if part)
            raise StepFailedError(said[-4000:] or f"{step} ended with status {answer.status} and said nothing")
        return answer


def run_program(stack: str, config: Mapping[str, str], secret_keys: list[str], world: ThrowawayWorld) -> dict[str, Any]:
    """Run Decant's program to its end; the stack's outputs. Raises RehearsalError with every failure in it."""

    for name in [n for n in os.environ if n.startswith(environment())]:
        del os.environ[name]  # a rehearsal must not reach a cloud by accident
    os.chdir(PROJECT / "infra")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    pulumi.runtime.set_all_config(dict(config), secret_keys)
    pulumi.runtime.set_mocks(Doubles(world), project="decant", stack=stack, preview=False)

    async def body() -> None:
        program.run(example_networks=[world.network.cidr])

    task = loop.create_task(run_pulumi_func(body))
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            world.stopping.set()
            names = ", ".join(world.progress.running) or "nothing"
            world.progress.say(f"interrupted; still running, waiting for: {names}")
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        loop.run_until_complete(task)
        return loop.run_until_complete(_outputs())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except pulumi.RunError as error:
        raise RehearsalError(str(error)) from None
    except (StepFailedError, StoppedError, UnknownResourceError) as error:
        world.stopping.set()
        loop.run_until_complete(loop.shutdown_default_executor())
        raise RehearsalError("\n\n".join(world.failures) or str(error)) from None
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())


async def _outputs() -> dict[str, Any]:
    root: Any = pulumi.runtime.settings.get_root_resource()
    values: dict[str, Any] = {}
    for name, value in root.outputs.items():
        values[name] = await pulumi.Output.from_input(value).future()
    return values


def finish(code: int) -> None:
    """End the process without the noise that Pulumi's event loops make when Python takes them down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
