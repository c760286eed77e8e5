"""What both benches stand on: throwaway machines, the peers' environment, and what this computer is."""

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

from rehearsal.computer import RehearsalError, locked
from rehearsal.doubles import key_pair
from rehearsal.image import base_image, install_needs
from rehearsal.machines import Machine, Network

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
PEERS = HERE / ".venv" / "bin"
NETWORK = "bench"
LONGEST = 600  # seconds for one command; a guard against one that never ends


class BenchError(Exception):
    """What stands in the way of measuring, and what to do about it."""


class Progress:
    """Says what is being done and how many seconds have passed."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, text: str) -> None:
        """One line."""
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A network for this run's machines, all with one login; `folder` is for the run's own files."""

    network: Network
    folder: Path
    say: Progress

    @property
    def key(self) -> Path:
        """The private key that every machine lets in as root."""
        return self.folder / "key"

    @property
    def known_hosts(self) -> Path:
        """The machines' host keys, as ssh wants them."""
        return self.folder / "known_hosts"

    def boot(self, name: str) -> Machine:
        """A bare Debian 13 machine that has started and lets us in."""
        public = self.key.with_suffix(".pub").read_text()
        machine = self.network.boot(name, flavour="bare", authorized_key=public, say=self.say)
        machine.wait_running()
        with self.known_hosts.open("a") as file:
            file.write(f"{machine.address} {machine.host_key}\n")
        return machine


@contextlib.contextmanager
def lab(say: Progress) -> Iterator[Lab]:
    """A network and a scratch folder, gone after the block. Raises RehearsalError for what this computer lacks."""
    install_needs(say)
    base_image("bare", say)
    with locked("bench"), tempfile.TemporaryDirectory(prefix="decant-bench-") as folder:
        private, public = key_pair()
        key = Path(folder) / "key"
        key.touch(mode=0o600)
        key.write_text(private)
        key.with_suffix(".pub").write_text(public.strip())
        network = Network(name=NETWORK)
        network.down()  # of a run that was killed
        network.up()
        try:
            yield Lab(network=network, folder=Path(folder), say=say)
        finally:
            say("taking the machines down")
            network.down()


def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, given: str = "") -> float:
    """Run a command to its end and return how many seconds it took. Raises BenchError with its last words."""
    # As on a user's computer, Python keeps what it has compiled.
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.monotonic()
    with log.open("w") as output:
        try:
            done = subprocess.run(
                argv, cwd=cwd, env={**usual, **env}, input=given.encode(), stdout=output,
                stderr=subprocess.STDOUT, timeout=LONGEST, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BenchError(f"`{' '.join(argv)}` took longer than {LONGEST} s; it said:\n{_end(log)}") from None
    if done.returncode != 0:
        raise BenchError(f"`{' '.join(argv)}` exited with {done.returncode}; it said:\n{_end(log)}")
    return time.monotonic() - began


def _end(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def rounds(most: int, seconds: float) -> Iterator[int]:
    """Count to `most`; after the first, only while less than `seconds` have passed (a computer may be slow)."""
    began = time.monotonic()
    for number in range(most):
        if number and time.monotonic() - began > seconds:
            return
        yield number


def install_peers(say: Progress) -> None:
    """The peers' own environment, made anew where their pinned versions changed. Raises BenchError."""
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
    for words in (
        ["venv", "--python", sys.executable, str(PEERS.parent)],
        ["pip", "install", "--python", str(PEERS / "python"), "--compile-bytecode", "-r", str(wanted)],
    ):
        done = subprocess.run(
            [str(uv), "--quiet", *words], env={**os.environ, "UV_SYSTEM_CERTS": "1"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise BenchError(f"uv could not install bench/requirements.txt:\n{done.stderr.strip()[-2000:]}")
    made.write_bytes(wanted.read_bytes())


def computer() -> dict[str, str | int]:
    """What figures depend on."""
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


__all__ = [
    "BenchError",
    "Lab",
    "Machine",
    "Progress",
    "RehearsalError",
    "computer",
    "install_peers",
    "lab",
    "rounds",
    "run",
]
