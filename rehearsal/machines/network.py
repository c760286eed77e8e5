"""A network of throwaway machines on this computer: a bridge with its addresses, machines and firewall rules.

All that a network consists of is written down under STATE, so that any process can find it and take it down, also after
a crash or a restart of this computer.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from rehearsal.errors import RehearsalError
from rehearsal.machines import cgroups, firewall, seed
from rehearsal.machines.image import Flavour, base_image
from rehearsal.machines.machine import Machine, machines_folder
from rehearsal.this_host import (
    STATE,
    Say,
    adjust_kernel,
    boot_id,
    command,
    locked,
    remove_empty,
    restore_kernel,
    succeeds,
)

SPACE = ipaddress.IPv4Network("198.51.100.0/24")  # TEST-NET-2 of RFC 5737, for documentation: no real host has these
SLOTS = list(SPACE.subnets(new_prefix=27))
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A bridge with machines on it, in 198.51.100.x/27. They reach the outside; only this computer reaches them.

    `name` is 1 to 32 of a-z, 0-9 and hyphen. Up to eight networks exist at once. `try` always has the same addresses.
    """

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RehearsalError(f"network name {self.name!r}: 1 to 32 of a-z, 0-9 and hyphen are allowed")

    @property
    def is_up(self) -> bool:
        """Whether `up` has been called, and this computer has not restarted since."""
        flags = Path(f"/sys/class/net/{_bridge(self._slot())}/flags") if self._is_known else Path()
        # `up` switches the bridge on as its last step, so a bridge that is off comes from an `up` that was killed.
        return flags.is_file() and int(flags.read_text(), 16) & 1 == 1 and self._facts()["boot"] == boot_id()

    @property
    def cidr(self) -> str:
        """Its addresses, such as 198.51.100.0/27."""
        return str(SLOTS[self._slot()])

    @property
    def gateway(self) -> str:
        """The address that its machines see this computer at."""
        return str(SLOTS[self._slot()][1])

    def machines(self) -> list[Machine]:
        """Return the machines that were booted here, on or off, sorted by name."""
        files = sorted(machines_folder(self.name).glob("*/machine.json"))
        return [Machine(**json.loads(file.read_text())) for file in files]

    def up(self) -> None:
        """Make the bridge and let its machines reach the outside. Nothing happens when it is up already.

        Raises:
            RehearsalError: Eight networks exist, the addresses are in use, or a command failed.
        """
        if self.is_up:
            return
        self.down()  # removes what a crash or a restart of this computer left
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
        """Make a machine and start it; returns as soon as its init process runs, long before sshd does.

        A `cloud` machine runs cloud-init with `user_data`, and gets `authorized_key` as metadata, as in a cloud. A
        `bare` or `bookworm` machine lets root log in with `authorized_key`. `address` is one of `cidr`, by default the
        first free one. `files` maps names without the first slash to texts, and is written before the machine starts.

        Raises:
            RehearsalError: The name or address is taken, the network is down or full, or the machine does not start.
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
                login = seed.root_login(folder, authorized_key) if flavour in ("bare", "bookworm") else {}
                machine = Machine(
                    network=self.name, name=name, address=chosen, flavour=flavour, image=str(image),
                    bridge=_bridge(self._slot()),
                    host_key=login.get("etc/ssh/ssh_host_ed25519_key.pub", "").strip() or None,
                )  # fmt: skip
                _write_json(folder / "machine.json", asdict(machine))
            own = seed.identity(name, chosen, self.gateway, SLOTS[0].prefixlen) | seed.package_sources() | login
            if flavour == "cloud":
                own |= seed.first_boot(name, user_data, authorized_key)
            seed.write_files(folder / "upper", image, {**own, **files})
            machine.start(lock, timeout=60)
        return machine

    def down(self) -> None:
        """Remove the machines, their disks, the bridge and its firewall rules. Boots under way end first.

        Also removes what a crash or a restart of this computer left. Nothing happens when there is nothing.
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
                    cgroups.remove_parent()

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
        folder = machines_folder(self.name) / name
        if (folder / "machine.json").exists():
            raise RehearsalError(f"machine {name} exists already on network {self.name}")
        if folder.exists():  # left by a boot that was killed before it started anything
            shutil.rmtree(folder)
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        return folder

    def _choose_address(self, wanted: str | None) -> str:
        taken = {machine.address for machine in self.machines()}
        allowed = [str(host) for host in list(SLOTS[self._slot()].hosts())[1:]]  # the first one is this computer's
        free = [host for host in allowed if host not in taken]
        if wanted is None and not free:
            raise RehearsalError(f"network {self.name} is full: it has {len(allowed)} machines")
        if wanted is not None and wanted not in free:
            raise RehearsalError(f"address {wanted} is taken, or not one of {allowed[0]} to {allowed[-1]}")
        return wanted or free[0]


def known_networks() -> list[Network]:
    """Return all networks that have anything on disk, up or not, sorted by name."""
    return [Network(name=folder.name) for folder in sorted(STATE.glob("*/")) if _NAME.fullmatch(folder.name)]


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


def _write_json(file: Path, value: dict[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.rename(file)  # another process sees all of it or nothing
