"""One throwaway Debian machine on this computer, booted by systemd-nspawn.

A machine is a supervisor (supervisor.sh) and its descendants, all in one control group that is named after the
machine's address. Nothing else is ever in that group, so all of its processes may be killed. No process id is kept on
disk, because another process could have it by the time it is read.

Tested on Debian 13 with systemd (control groups of version 2), where machines enforce all settings of units, and on
Debian 12 without systemd (versions 1 and 2 mixed), where machines do not enforce MemoryMax, TasksMax and CPUWeight.
Machines run on this computer's kernel, so they cannot change sysctl settings outside `net`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rehearsal.errors import RehearsalError
from rehearsal.machines.cgroups import ControlGroup
from rehearsal.machines.image import Flavour
from rehearsal.this_host import STATE, has_systemd, last_lines, locked, remove_empty, succeeds, wait

_SUPERVISOR = Path(__file__).with_name("supervisor.sh")


def machines_folder(network: str) -> Path:
    """The folder that holds one folder for each machine of a network."""
    return STATE / network / "machines"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One throwaway machine. While it is off, `pid` and everything that needs it raise RehearsalError."""

    network: str
    name: str
    address: str
    flavour: Flavour
    image: str
    bridge: str
    host_key: str | None
    """The public host key (`ssh-ed25519 AAAA...`) of a bare machine; None where the first-boot data brings the key."""

    @property
    def dir(self) -> Path:
        """Its folder: console.log, machine.json and the overlay's upper folder, which has the files that it changed."""
        return machines_folder(self.network) / self.name

    @property
    def pid(self) -> int:
        """The id, on this computer, of its init process."""
        pid = self._group.init()
        if pid is None:
            raise RehearsalError(
                f"machine {self.name} is off; the last output of its console is in {self.dir / 'console.log'}"
            )
        return pid

    @property
    def root(self) -> Path:
        """Its file system while it runs. Absolute symlinks in it lead out of it, so prefer `run`."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def is_on(self) -> bool:
        """Whether its init process runs."""
        return self._group.init() is not None

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: str | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root on the machine, without SSH. A string is run by the shell, a list without one.

        Raises:
            RehearsalError: The command took more than `timeout` seconds, or failed while `check` is True.
        """
        wanted = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        shown = command if isinstance(command, str) else " ".join(command)
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        argv = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        argv += ["/usr/bin/env", "-i", "--chdir=/root", path, "HOME=/root", "LANG=C.UTF-8"]
        try:
            done = subprocess.run(
                [*argv, *wanted], input=input or "", capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RehearsalError(f"{self.name}: `{shown}` took longer than {timeout} s") from error
        if check and done.returncode != 0:
            said = last_lines(done.stdout + done.stderr)
            raise RehearsalError(f"{self.name}: `{shown}` exited with {done.returncode}:\n{said}")
        return done

    def wait_running(self, timeout: float = 60) -> str:
        """Wait until all units of the boot have started; returns `running`, or `degraded` when one of them failed.

        Raises:
            RehearsalError: The machine is still starting after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        state = "off"
        while time.monotonic() < deadline:
            # systemctl waits by itself; without an init process, as right after a reboot, it fails at once.
            with contextlib.suppress(RehearsalError):
                left = max(0.1, deadline - time.monotonic())
                asked = self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=left)
                state = asked.stdout.strip() or "starting"
                if state in ("running", "degraded"):
                    return state
            time.sleep(0.05)
        jobs = self.run(["systemctl", "list-jobs"], check=False).stdout if self.is_on else "its init does not run"
        raise RehearsalError(f"{self.name} is {state} after {timeout} s:\n{jobs}")

    def processor_seconds(self) -> float:
        """The processor time that the machine has used since it was started."""
        return self._group.processor_seconds()

    def pin(self, core: int) -> None:
        """Leave the machine one core of this computer, as a small server has."""
        self._group.pin(core)

    def add_address(self, interface: str) -> None:
        """Add an address with its network, such as 10.0.0.2/16. The machine has it again after a reboot."""
        self._configure(f"[Network]\nAddress={interface}\n")
        self.run(f"ip address replace {interface} dev host0")

    def add_route(self, network: str, source: str) -> None:
        """Reach a private network directly from the address `source`, also after a reboot."""
        self._configure(f"[Route]\nDestination={network}\nPreferredSource={source}\nScope=link\n")
        self.run(f"ip route replace {network} dev host0 scope link src {source}")

    def _configure(self, section: str) -> None:
        """Add a section to networkd's configuration, and wait until networkd has set the link up.

        While it does that, networkd removes addresses and routes that it has no configuration for.
        """
        folder = "/etc/systemd/network/10-host0.network.d"
        name = hashlib.sha256(section.encode()).hexdigest()[:12]
        self.run(f"mkdir -p {folder} && cat >{folder}/{name}.conf", input=section)
        shown = "ip -4 -oneline address show dev host0"
        wait(lambda: f" {self.address}/" in self.run(shown).stdout, 30, f"{self.name} has no network")

    def reboot(self, timeout: float = 120) -> None:
        """Shut down cleanly and start again; returns when the new init process runs. The disk stays as it is."""
        before = self.pid
        os.kill(before, signal.SIGRTMIN + 5)  # systemd(1): start reboot.target
        wait(lambda: self._group.init() not in (None, before), timeout, f"{self.name} did not come back from a reboot")

    def power_off(self) -> None:
        """Kill every process of the machine, as a power cut does. Nothing happens when it is off already."""
        group = self._group
        # When init is gone, systemd-nspawn tidies up and ends, and the supervisor with it ...
        group.kill("machine/payload")
        with contextlib.suppress(RehearsalError):
            wait(lambda: not group.members(), 5, "")
        # ... unless it was starting init again at that moment, or the supervisor was killed before.
        group.kill()
        wait(lambda: not group.members(), 20, f"processes in {group.path} do not end")
        group.remove()
        # The kernel removes the link a moment after the last process that holds its other end; the next start needs
        # the name at once.
        succeeds("ip", "link", "delete", f"vb-{self._short}")
        remove_empty(Path("/run/systemd/nspawn/propagate") / self._short)

    def boot_again(self, timeout: float = 60) -> None:
        """Start the machine after it was powered off; returns when its init process runs.

        Raises:
            RehearsalError: It is on already or does not start.
        """
        with locked(f"network-{self.network}", shared=True) as lock:
            if self.is_on:
                raise RehearsalError(f"machine {self.name} is on already")
            self.power_off()
            self.start(lock, timeout)

    def start(self, lock: int, timeout: float) -> None:
        """Start the supervisor; for `Network.boot` and `boot_again`, which hold the network's lock.

        The supervisor inherits the lock, which `Network.down` waits for, until its control group shows where it is.
        """
        group, log, ended = self._group, self.dir / "console.log", self.dir / "ended"
        ended.unlink(missing_ok=True)
        nspawn = [
            "systemd-nspawn", "--quiet", "--boot", "--settings=no", "--register=no", "--keep-unit",
            f"--directory={self.dir / 'root'}", f"--machine={self._short}", f"--hostname={self.name}",
            f"--network-bridge={self.bridge}", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            "--console=read-only", "--capability=CAP_BPF", "--system-call-filter=bpf",
        ]  # fmt: skip
        supervisor = ["unshare", "--mount", "--propagation", "slave", "sh", str(_SUPERVISOR)]
        supervisor += [str(self.dir), self.image, str(group.path)]
        if has_systemd():
            # There systemd owns the control groups. A unit gets one of its own and outlives the login session.
            argv = ["systemd-run", "--quiet", "--collect", f"--unit={group.name}", "--service-type=exec"]
            argv += ["--property=Delegate=yes", "--property=TasksMax=infinity"]
        else:
            argv = ["setsid", "--fork"]  # Ctrl-C in our terminal does not reach another session
            group.make()
        with log.open("a") as output:
            done = subprocess.run([*argv, *supervisor, *nspawn], stdin=lock, stdout=output, stderr=output, check=False)
        if done.returncode == 0:
            wait(lambda: self.is_on or ended.exists(), timeout, f"{self.name} did not start; its console: {log}")
        if not self.is_on:
            raise RehearsalError(f"{self.name} did not start:\n{last_lines(log.read_text(errors='replace'))}")

    @property
    def _short(self) -> str:
        """Its name for systemd-nspawn. The network link is named `vb-` and this, in at most 15 characters."""
        return f"decant-{self.address.rsplit('.', 1)[1]}"

    @property
    def _group(self) -> ControlGroup:
        return ControlGroup(name=f"{self._short}.service")
