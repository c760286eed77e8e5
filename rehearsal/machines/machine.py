"""Throwaway Debian machines on this computer: booted by systemd-nspawn, on a network bridge of their own.

Everything that a network and its machines consist of is on disk under STATE, so that any process, also after a crash or
a restart of this computer, finds it and takes it down. A machine is a keeper (keeper.sh) and what descends from it, all
in one control group named after the machine's address. Nothing else ever is in there, so that all of it may be killed:
no process id is kept anywhere, which could be another process's by then.

Tried on Debian 13 with systemd (control groups of version 2), where all settings of units are enforced in machines, and
on Debian 12 without systemd (versions 1 and 2 mixed), where MemoryMax, TasksMax and CPUWeight are not; all others are,
IPAddressDeny and SystemCallFilter among them. The kernel is this computer's: sysctl settings outside `net` cannot be
changed in a machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from rehearsal import disk, firewall, groups
from rehearsal.computer import (
    STATE,
    RehearsalError,
    Say,
    adjust_kernel,
    boot_id,
    command,
    has_systemd,
    last_lines,
    locked,
    remove_empty,
    restore_kernel,
    succeeds,
    wait,
)
from rehearsal.groups import Group
from rehearsal.image import Flavour, base_image

SPACE = ipaddress.IPv4Network("198.51.100.0/24")  # for documentation (RFC 5737): no real host has such an address
SLOTS = list(SPACE.subnets(new_prefix=27))
_KEEPER = Path(__file__).with_name("keeper.sh")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One throwaway machine. It may be off; `pid` and what needs it then raise RehearsalError."""

    network: str
    name: str
    address: str
    flavour: Flavour
    image: str
    bridge: str
    host_key: str | None
    """`ssh-ed25519 AAAA...` of a bare machine; None when the first-boot data decides."""

    @property
    def dir(self) -> Path:
        """Where its state is: console.log, machine.json and the overlay's upper folder (what it changed)."""
        return _machines_dir(self.network) / self.name

    @property
    def pid(self) -> int:
        """The process id, on this computer, of its init."""
        pid = self._group.init()
        if pid is None:
            raise RehearsalError(f"machine {self.name} is off; what it said last is in {self.dir / 'console.log'}")
        return pid

    @property
    def root(self) -> Path:
        """Its file system, while it runs. Absolute symlinks in it lead out of it: prefer `run`."""
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
        """Run a command as root inside, without SSH: a list as it is, a string by the shell.

        Raises RehearsalError when it exits other than 0 (unless `check` is False) or takes more than `timeout` seconds.
        """
        inside = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        shown = command if isinstance(command, str) else " ".join(command)
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        argv = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        argv += ["/usr/bin/env", "-i", "--chdir=/root", path, "HOME=/root", "LANG=C.UTF-8"]
        try:
            done = subprocess.run(
                [*argv, *inside], input=input or "", capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RehearsalError(f"{self.name}: `{shown}` took longer than {timeout} s") from error
        if check and done.returncode != 0:
            said = last_lines(done.stdout + done.stderr)
            raise RehearsalError(f"{self.name}: `{shown}` exited with {done.returncode}:\n{said}")
        return done

    def wait_running(self, timeout: float = 60) -> str:
        """Wait until all that starts at boot has started; returns `running`, or `degraded` when a unit failed."""
        deadline = time.monotonic() + timeout
        state = "off"
        while time.monotonic() < deadline:
            # Fails at once while there is no init to ask yet, as right after a reboot; else it waits itself.
            with contextlib.suppress(RehearsalError):
                left = max(0.1, deadline - time.monotonic())
                asked = self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=left)
                state = asked.stdout.strip() or "starting"
                if state in ("running", "degraded"):
                    return state
            time.sleep(0.05)
        jobs = self.run(["systemctl", "list-jobs"], check=False).stdout if self.is_on else "its init does not run"
        raise RehearsalError(f"{self.name} is {state} after {timeout} s:\n{jobs}")

    def add_address(self, interface: str) -> None:
        """One more address on its network, such as 10.0.0.2/16; it is there again after a reboot."""
        self._configure(f"[Network]\nAddress={interface}\n")
        self.run(f"ip address replace {interface} dev host0")

    def add_route(self, network: str, source: str) -> None:
        """A private network is reached directly, from the address `source`; also after a reboot."""
        self._configure(f"[Route]\nDestination={network}\nPreferredSource={source}\nScope=link\n")
        self.run(f"ip route replace {network} dev host0 scope link src {source}")

    def _configure(self, more: str) -> None:
        """Add to what networkd knows; it takes away what it does not know when it sets a link up, so wait for that."""
        folder = "/etc/systemd/network/10-host0.network.d"
        name = hashlib.sha256(more.encode()).hexdigest()[:12]
        self.run(f"mkdir -p {folder} && cat >{folder}/{name}.conf", input=more)
        shown = "ip -4 -oneline address show dev host0"
        wait(lambda: f" {self.address}/" in self.run(shown).stdout, 30, f"{self.name} has no network")

    def reboot(self, timeout: float = 120) -> None:
        """Shut down cleanly and start again; returns when the new init runs. What is on its disk stays."""
        before = self.pid
        os.kill(before, signal.SIGRTMIN + 5)  # systemd(1): start reboot.target
        wait(lambda: self._group.init() not in (None, before), timeout, f"{self.name} did not come back from a reboot")

    def power_off(self) -> None:
        """Cut the power: every process of it is killed. Nothing happens when it is off already."""
        group = self._group
        # When init is gone, systemd-nspawn tidies up and ends, and the keeper with it ...
        group.kill("machine/payload")
        with contextlib.suppress(RehearsalError):
            wait(lambda: not group.members(), 5, "")
        # ... unless it was just starting init anew, or somebody killed the keeper.
        group.kill()
        wait(lambda: not group.members(), 20, f"processes in {group.path} do not end")
        group.remove()
        # The link goes with the last process that holds its other end, but the next start wants the name at once.
        succeeds("ip", "link", "delete", f"vb-{self._short}")
        remove_empty(Path("/run/systemd/nspawn/propagate") / self._short)

    def boot_again(self, timeout: float = 60) -> None:
        """Start it after `power_off` or after it powered itself off; returns when its init runs."""
        with locked(f"network-{self.network}", shared=True) as lock:
            if self.is_on:
                raise RehearsalError(f"machine {self.name} is on already")
            self.power_off()
            self._start(lock, timeout)

    def _start(self, lock: int, timeout: float) -> None:
        """Start the keeper, which holds the lock that `down` wants until it can be found by its control group."""
        group, log, ended = self._group, self.dir / "console.log", self.dir / "ended"
        ended.unlink(missing_ok=True)
        nspawn = [
            "systemd-nspawn", "--quiet", "--boot", "--settings=no", "--register=no", "--keep-unit",
            f"--directory={self.dir / 'root'}", f"--machine={self._short}", f"--hostname={self.name}",
            f"--network-bridge={self.bridge}", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            "--console=read-only", "--capability=CAP_BPF", "--system-call-filter=bpf",
        ]  # fmt: skip
        keeper = ["unshare", "--mount", "--propagation", "slave", "sh", str(_KEEPER)]
        keeper += [str(self.dir), self.image, str(group.path)]
        if has_systemd():
            # There systemd owns the control groups; a unit may have one to itself, and outlives a login session.
            argv = ["systemd-run", "--quiet", "--collect", f"--unit={group.name}", "--service-type=exec"]
            argv += ["--property=Delegate=yes", "--property=TasksMax=infinity"]
        else:
            argv = ["setsid", "--fork"]  # not our child, and deaf to Ctrl-C in our terminal
            group.make()
        with log.open("a") as output:
            done = subprocess.run([*argv, *keeper, *nspawn], stdin=lock, stdout=output, stderr=output, check=False)
        if done.returncode == 0:
            wait(lambda: self.is_on or ended.exists(), timeout, f"{self.name} did not start; its console: {log}")
        if not self.is_on:
            raise RehearsalError(f"{self.name} did not start:\n{last_lines(log.read_text(errors='replace'))}")

    @property
    def _short(self) -> str:
        """Its name for systemd-nspawn: short, because `vb-` and it name the network link (15 characters)."""
        return f"decant-{self.address.rsplit('.', 1)[1]}"

    @property
    def _group(self) -> Group:
        return Group(name=f"{self._short}.service")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A bridge with machines on it: 198.51.100.x/27, which reach the outside and are reached from this computer only.

    `name`: 1 to 32 of a-z, 0-9 and hyphen. Up to eight networks exist at once; `try` always has the same addresses.
    """

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RehearsalError(f"network name {self.name!r}: 1 to 32 of a-z, 0-9 and hyphen are allowed")

    @property
    def is_up(self) -> bool:
        """Whether `up` was called and this computer has not restarted since."""
        flags = Path(f"/sys/class/net/{_bridge(self._slot())}/flags") if self._is_known else Path()
        # The bridge is switched on last: one that is off was left by an `up` that was killed.
        return flags.is_file() and int(flags.read_text(), 16) & 1 == 1 and self._facts()["boot"] == boot_id()

    @property
    def cidr(self) -> str:
        """Its addresses, such as 198.51.100.0/27."""
        return str(SLOTS[self._slot()])

    @property
    def gateway(self) -> str:
        """The address of this computer as its machines see it."""
        return str(SLOTS[self._slot()][1])

    def machines(self) -> list[Machine]:
        """The machines that were booted here, on or off, by name."""
        files = sorted(_machines_dir(self.name).glob("*/machine.json"))
        return [Machine(**json.loads(file.read_text())) for file in files]

    def up(self) -> None:
        """Make the bridge and let its machines reach the outside. Nothing happens when it is up already.

        Raises RehearsalError when eight networks exist, when the addresses are in use, or when a command fails.
        """
        if self.is_up:
            return
        self.down()  # what was left by a crash, or by a restart of this computer
        with locked("networks"):
            slot = _free_slot(self.name)
            _check_unused(self.name, SLOTS[slot])
            STATE.mkdir(mode=0o700, parents=True, exist_ok=True)  # machines' secrets are in there
            _write_json(_network_file(self.name), {"slot": slot, "boot": boot_id()})
            bridge = _bridge(slot)
            adjust_kernel()
            firewall.open_for(bridge, str(SLOTS[slot]), str(SPACE))
            command("ip", "link", "add", bridge, "type", "bridge")
            command("ip", "address", "add", f"{SLOTS[slot][1]}/{SLOTS[slot].prefixlen}", "dev", bridge)
            command("ip", "link", "set", bridge, "up")

    def boot(
        self,
        name: str,
        *,
        flavour: Flavour = "cloud",
        user_data: str | None = None,
        authorized_key: str | None = None,
        address: str | None = None,
        files: Mapping[str, str] = MappingProxyType({}),
        say: Say = lambda _: None,
    ) -> Machine:
        """Make a machine and start it; returns as soon as its init process runs, well before sshd.

        `cloud` runs cloud-init with `user_data`; an `authorized_key` reaches it as a cloud's own metadata would bring
        it. `bare` lets root in with `authorized_key`. `address` is one of `cidr`, by default the first free one.
        `files` are there before it starts, by their names without the first slash.
        """
        if not _NAME.fullmatch(name):
            raise RehearsalError(f"machine name {name!r}: 1 to 32 of a-z, 0-9 and hyphen are allowed")
        if flavour != "cloud" and user_data is not None:
            raise RehearsalError(f"machine {name}: a {flavour} machine has no cloud-init to read first-boot data")
        image = base_image(flavour, say)
        with locked(f"network-{self.name}", shared=True) as lock:
            with locked("networks"):
                if not self.is_up:
                    raise RehearsalError(f"network {self.name} is down, so machine {name} cannot start on it")
                folder = self._claim_folder(name)
                chosen = self._choose_address(address)
                login = disk.root_login(folder, authorized_key) if flavour == "bare" else {}
                machine = Machine(
                    network=self.name, name=name, address=chosen, flavour=flavour, image=str(image),
                    bridge=_bridge(self._slot()),
                    host_key=login.get("etc/ssh/ssh_host_ed25519_key.pub", "").strip() or None,
                )  # fmt: skip
                _write_json(folder / "machine.json", asdict(machine))
            own = disk.identity(name, chosen, self.gateway, SLOTS[0].prefixlen) | disk.package_sources() | login
            if flavour == "cloud":
                own |= disk.first_boot(name, user_data, authorized_key)
            disk.write_files(folder / "upper", image, {**own, **files})
            machine._start(lock, timeout=60)
        return machine

    def down(self) -> None:
        """Remove the machines, their disks, the bridge and its firewall rules; waits for boots under way first.

        Works on whatever is there: nothing, what a crash left, or what was there before this computer restarted.
        """
        with locked(f"network-{self.name}"):
            for machine in self.machines():
                machine.power_off()
            with locked("networks"):
                if self._is_known:
                    succeeds("ip", "link", "delete", _bridge(self._slot()))
                    firewall.close_for(_bridge(self._slot()))
                if (STATE / self.name).exists():
                    shutil.rmtree(STATE / self.name)
                if not list(STATE.glob("*/network.json")):
                    restore_kernel()
                    remove_empty(STATE)
                    groups.remove_parent()

    @property
    def _is_known(self) -> bool:
        return _network_file(self.name).exists()

    def _facts(self) -> dict[str, object]:
        try:
            facts: dict[str, object] = json.loads(_network_file(self.name).read_text())
        except FileNotFoundError as error:
            raise RehearsalError(f"network {self.name} is down") from error
        return facts

    def _slot(self) -> int:
        return int(str(self._facts()["slot"]))

    def _claim_folder(self, name: str) -> Path:
        folder = _machines_dir(self.name) / name
        if (folder / "machine.json").exists():
            raise RehearsalError(f"machine {name} exists already on network {self.name}")
        if folder.exists():  # of a boot that was killed before it started anything
            shutil.rmtree(folder)
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        return folder

    def _choose_address(self, wanted: str | None) -> str:
        taken = {machine.address for machine in self.machines()}
        allowed = [str(host) for host in list(SLOTS[self._slot()].hosts())[1:]]  # the first is this computer's
        free = [host for host in allowed if host not in taken]
        if wanted is None and not free:
            raise RehearsalError(f"network {self.name} is full: it has {len(allowed)} machines")
        if wanted is not None and wanted not in free:
            raise RehearsalError(f"address {wanted} is taken, or not one of {allowed[0]} to {allowed[-1]}")
        return wanted or free[0]


def _free_slot(name: str) -> int:
    taken = {json.loads(file.read_text())["slot"]: file.parent.name for file in STATE.glob("*/network.json")}
    free = [slot for slot in range(1, len(SLOTS)) if slot not in taken]
    if name == "try":
        return 0
    if not free:
        raise RehearsalError(f"no addresses are left for network {name}: take one of {', '.join(taken.values())} down")
    return free[0]


def _check_unused(name: str, subnet: ipaddress.IPv4Network) -> None:
    for link in json.loads(command("ip", "-json", "-4", "address")):
        for address in link["addr_info"]:
            other = ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}").network
            if subnet.overlaps(other):
                raise RehearsalError(
                    f"network {name} needs {subnet}, which interface {link['ifname']} has ({address['local']}); "
                    f"remove it: ip link delete {link['ifname']}"
                )


def _bridge(slot: int) -> str:
    return f"decant-br{slot}"


def _network_file(name: str) -> Path:
    return STATE / name / "network.json"


def _machines_dir(network: str) -> Path:
    return STATE / network / "machines"


def _write_json(file: Path, value: dict[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.rename(file)  # another process sees all of it or nothing
