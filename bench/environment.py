"""The environment of a bench: throwaway machines, the peers' programs, and facts about this computer."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rehearsal.doubles import key_pair
from rehearsal.machines.image import base_image, install_needs
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from rehearsal.machines.reaper import owned_network
from rehearsal.this_host import Say

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
PEERS = HERE / ".venv" / "bin"
NETWORK = "bench"
LONGEST = 600  # seconds until a command that does not end is stopped


class BenchError(Exception):
    """A measurement is not possible. The text has the reason and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A network for this run's machines, all with one login. `folder` is for the run's own files."""

    network: Network
    folder: Path
    say: Say

    @property
    def key(self) -> Path:
        """The file with the private key that lets root log in to every machine."""
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        """The file with the machines' host keys, in ssh's format."""
        return self.folder / "known_hosts"

    def boot(self, name: str) -> Machine:
        """Boot a bare Debian 13 machine and wait until it has started."""
        public = self.key.with_suffix(".pub").read_text()
        machine = self.network.boot(name, flavour="bare", authorized_key=public, say=self.say)
        machine.wait_running()
        with self.known_hosts.open("a") as file:
            file.write(f"{machine.address} {machine.host_key}\n")
        return machine


@contextlib.contextmanager
def prepared(say: Say) -> Iterator[Environment]:
    """Make a network and a temporary folder for the block. A second bench waits for the first one.

    Raises:
        RehearsalError: This computer lacks something.
    """
    install_needs(say)
    base_image("bare", say)
    with owned_network(NETWORK) as network, tempfile.TemporaryDirectory(prefix="decant-bench-") as folder:
        private, public = key_pair()
        key = Path(folder) / "key"
        key.touch(mode=0o600)
        key.write_text(private)
        key.with_suffix(".pub").write_text(public.strip())
        try:
            yield Environment(network=network, folder=Path(folder), say=say)
        finally:
            say("taking the machines down")


def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, stdin: str = "") -> float:
    """Run a command to its end and return the seconds that it took. Its output goes to the file `log`.

    Raises:
        BenchError: It failed or did not end; the text has the last lines of its output.
    """
    # As on a user's computer, Python keeps what it has compiled.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.monotonic()
    with log.open("w") as output:
        try:
            done = subprocess.run(
                argv, cwd=cwd, env={**variables, **env}, input=stdin.encode(), stdout=output,
                stderr=subprocess.STDOUT, timeout=LONGEST, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BenchError(f"`{' '.join(argv)}` took longer than {LONGEST} s; its output:\n{_end(log)}") from None
    if done.returncode != 0:
        raise BenchError(f"`{' '.join(argv)}` exited with {done.returncode}; its output:\n{_end(log)}")
    return time.monotonic() - began


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def rounds(most: int, seconds: float) -> Iterator[int]:
    """Count to `most`, but begin no round after the first when more than `seconds` have passed."""
    began = time.monotonic()
    for number in range(most):
        if number and time.monotonic() - began > seconds:
            return
        yield number


def install_peers(say: Say) -> None:
    """Make the peers' virtual environment, again when their pinned versions have changed.

    Raises:
        BenchError: This computer lacks a program, or the packages cannot be installed.
    """
    for program, package in (("ssh", "openssh-client"), ("rsync", "rsync")):
        if shutil.which(program) is None:
            raise BenchError(f"Ansible needs {program} on this computer: sudo apt-get install {package}")
    wanted = HERE / "requirements.txt"
    made = PEERS.parent / ".installed"
    if made.exists() and made.read_bytes() == wanted.read_bytes():
        return
    say("installing Ansible, pyinfra and Fabric into bench/.venv (about 60 MB to fetch)")
    uv = PROJECT / ".venv" / "bin" / "uv"
    if not uv.exists():
        raise BenchError("uv, which installs the peers, is not in .venv: .venv/bin/python -m pip install uv")
    shutil.rmtree(PEERS.parent, ignore_errors=True)
    for arguments in (
        ["venv", "--python", sys.executable, str(PEERS.parent)],
        ["pip", "install", "--python", str(PEERS / "python"), "--compile-bytecode", "-r", str(wanted)],
    ):
        done = subprocess.run(
            [str(uv), "--quiet", *arguments], env={**os.environ, "UV_SYSTEM_CERTS": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise BenchError(f"uv could not install bench/requirements.txt:\n{done.stderr.strip()[-2000:]}")
    made.write_bytes(wanted.read_bytes())


def this_computer() -> dict[str, str | int]:
    """Return the facts about this computer that figures depend on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": model,
        "cores": os.cpu_count() or 1,
        "memory_gb": round(memory),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }
