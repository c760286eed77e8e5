"""Throwaway machines behave as real ones, and `Network.down` leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rehearsal.errors import RehearsalError
from rehearsal.machines.image import missing_needs
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from rehearsal.machines.reaper import owned_network
from rehearsal.this_host import STATE, wait
from tests.support.project_copy import REPOSITORY
from tests.support.traces import command_line, processes, traces

_MISSING = missing_needs()
pytestmark = pytest.mark.skipif(
    bool(_MISSING), reason="needs " + ", ".join(f"{need.what} ({need.command})" for need in _MISSING)
)


@dataclass(frozen=True, kw_only=True)
class Keys:
    folder: Path
    client_public: str
    host_private: str
    host_public: str

    def ssh(self, user: str, machine: Machine, pin: str, command: str) -> subprocess.CompletedProcess[str]:
        pins = self.folder / "known_hosts"
        pins.write_text(f"{machine.address} {pin}\n")
        options = ["-F", "none", "-i", str(self.folder / "client"), "-o", f"UserKnownHostsFile={pins}"]
        for option in (
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "HostKeyAlgorithms=ssh-ed25519",
            "ConnectTimeout=20",
        ):
            options += ["-o", option]
        return subprocess.run(
            ["ssh", *options, f"{user}@{machine.address}", command], capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("client", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name], check=True)
    return Keys(
        folder=folder,
        client_public=(folder / "client.pub").read_text().strip(),
        host_private=(folder / "host").read_text(),
        host_public=(folder / "host.pub").read_text().strip(),
    )


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with owned_network("machines") as network:
        yield network


@pytest.fixture(scope="module")
def cloud(network: Network, keys: Keys) -> Machine:
    user = {
        "name": "deploy",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [keys.client_public],
    }
    host_keys = {"ed25519_private": keys.host_private, "ed25519_public": keys.host_public}
    user_data = "#cloud-config\n" + json.dumps({"users": [user], "ssh_keys": host_keys})
    machine = network.boot("cloud", user_data=user_data, say=print)
    assert machine.wait_running() == "running"
    return machine


@pytest.fixture(scope="module")
def bare(network: Network, keys: Keys) -> Machine:
    machine = network.boot("bare", flavour="bare", authorized_key=keys.client_public, say=print)
    assert machine.wait_running() == "running"
    return machine


def test_cloud_machine_is_what_its_first_boot_data_says(cloud: Machine, keys: Keys) -> None:
    done = keys.ssh("deploy", cloud, keys.host_public, "hostname && sudo -n id -un && cloud-init status --wait")
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["cloud", "root"]), done.stderr
    assert cloud.run("ls /etc/ssh/ssh_host_*_key").stdout.split() == ["/etc/ssh/ssh_host_ed25519_key"]
    assert cloud.run(["passwd", "--status", "root"]).stdout.split()[1] == "L"
    assert cloud.run("command -v nginx; ls /var/lib/apt/lists/*Packages", check=False).stdout == ""


def test_bare_machine_has_neither_python_nor_cloud_init(bare: Machine, keys: Keys) -> None:
    assert bare.host_key is not None
    done = keys.ssh("root", bare, bare.host_key, "command -v python3 cloud-init; hostname")
    assert (done.returncode, done.stdout) == (0, "bare\n"), done.stderr


def test_another_host_key_than_the_pinned_one_is_refused(bare: Machine, keys: Keys) -> None:
    done = keys.ssh("root", bare, keys.host_public, "true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_machines_reach_each_other_and_the_package_mirror(cloud: Machine, bare: Machine) -> None:
    banner = bare.run(["bash", "-c", f"exec 3<>/dev/tcp/{cloud.address}/22 && head -c 4 <&3"]).stdout
    assert banner == "SSH-"
    bare.run(["apt-get", "-qq", "update"], timeout=120)
    candidate = bare.run("LC_ALL=C apt-cache policy nginx | grep Candidate").stdout.split()[-1]
    assert candidate != "(none)", "the lists of packages came from the mirror"


def test_nothing_outside_reaches_a_machine(bare: Machine) -> None:
    """A namespace with a link to this computer plays a neighbour in its network, with a route to the machines."""
    space, link = "decant-outside", "decant-out0"
    ip = ["ip", "netns", "exec", space, "ip"]
    try:
        for argv in (
            ["ip", "netns", "add", space],
            ["ip", "link", "add", link, "type", "veth", "peer", "name", "outside", "netns", space],
            ["ip", "address", "add", "203.0.113.1/30", "dev", link],
            ["ip", "link", "set", link, "up"],
            [*ip, "address", "add", "203.0.113.2/30", "dev", "outside"],
            [*ip, "link", "set", "outside", "up"],
            [*ip, "route", "add", "default", "via", "203.0.113.1"],
        ):
            subprocess.run(argv, check=True)
        banner = "exec 3<>/dev/tcp/{}/22 && head -c 4 <&3"
        outside = ["ip", "netns", "exec", space, "timeout", "2", "bash", "-c"]
        here = subprocess.run(["bash", "-c", banner.format(bare.address)], capture_output=True, text=True, check=False)
        assert here.stdout == "SSH-", "this computer reaches it"
        done = subprocess.run([*outside, banner.format(bare.address)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (124, ""), "this computer drops the packets"
    finally:
        subprocess.run(["ip", "link", "delete", link], check=False)
        subprocess.run(["ip", "netns", "delete", space], check=False)


def test_disk_survives_a_reboot_and_a_power_cut(bare: Machine, keys: Keys) -> None:
    def boot() -> str:
        return bare.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout

    boots = [boot()]
    bare.run("echo kept > /root/file && sync /root/file")
    bare.reboot()
    bare.wait_running()
    boots.append(boot())

    bare.power_off()
    assert not bare.is_on
    with pytest.raises(RehearsalError, match="bare is off"):
        bare.run("true")
    bare.boot_again()
    bare.wait_running()
    boots.append(boot())

    assert len(set(boots)) == 3
    assert bare.host_key is not None
    assert keys.ssh("root", bare, bare.host_key, "cat file").stdout == "kept\n"


def test_sandboxed_units_start_and_are_held_to_it(bare: Machine) -> None:
    tries = f"""
        touch /usr/file && echo wrote to /usr
        echo > /dev/udp/{bare.address}/9 && echo sent to itself
        echo > /dev/udp/127.0.0.1/9 && echo sent to localhost
        mount -t tmpfs none /mnt && echo mounted
        ls /root && echo saw /root
        touch /tmp/file "$RUNTIME_DIRECTORY/file" && cat "$CREDENTIALS_DIRECTORY/name"
    """
    settings = [
        "LoadCredential=name:/etc/hostname", "DynamicUser=yes", "RuntimeDirectory=sandboxed", "ProtectSystem=strict",
        "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "ProtectKernelTunables=yes", "ProtectProc=invisible",
        "ProtectControlGroups=yes", "RestrictAddressFamilies=AF_UNIX AF_INET", "RestrictNamespaces=yes", "UMask=0077",
        "NoNewPrivileges=yes", "CapabilityBoundingSet=", "SystemCallFilter=@system-service", "MemoryMax=200M",
        "SystemCallErrorNumber=EPERM", "IPAddressDeny=any", "IPAddressAllow=localhost",
    ]  # fmt: skip
    properties = [f"--property={setting}" for setting in settings]
    done = bare.run(["systemd-run", "--quiet", "--wait", "--pipe", *properties, "bash", "-c", tries], timeout=60)
    assert done.stdout.splitlines() == ["sent to localhost", "bare"], done.stderr


def test_addresses_are_the_networks_own(network: Network, bare: Machine) -> None:
    with pytest.raises(RehearsalError, match=f"{bare.address} is taken"):
        network.boot("second", flavour="bare", address=bare.address)
    with pytest.raises(RehearsalError, match="bare exists already"):
        network.boot("bare", flavour="bare")
    with owned_network("machines-other") as other:
        assert other.cidr != network.cidr
    with pytest.raises(RehearsalError, match="network machines-other is down"):
        other.boot("late", flavour="bare")


@pytest.fixture
def foreign_firewall() -> Iterator[None]:
    """Another program's firewall, in which machines need an exception."""
    table = "inet decant-tests"
    chain = f"table {table} {{ chain forward {{ type filter hook forward priority 0; policy accept; }}; }}"
    subprocess.run(["nft", chain], check=True)
    yield
    subprocess.run(["nft", "delete", "table", *table.split()], check=True)


@pytest.mark.usefixtures("foreign_firewall")
@pytest.mark.parametrize("victim", ["creator", "supervisor", "bridge"])
def test_down_leaves_nothing_also_after_a_crash(victim: str) -> None:
    network = Network(name="machines-crash")
    network.down()
    before, settings = traces(network), _kernel_settings(network)

    program = f"""
import sys
from rehearsal.machines.network import Network
network = Network(name={network.name!r})
network.up()
network.boot("one", flavour="bare")
sys.stdin.read()  # it ends with the test
"""
    creator = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdin=subprocess.PIPE)
    try:

        def came_up() -> bool:
            assert creator.poll() is None, "the creator failed"
            return [machine.is_on for machine in network.machines()] == [True]

        wait(came_up, 300, "no machine came up")
        (machine,) = network.machines()
        during = traces(network)
    finally:
        creator.kill()
        creator.wait()
    assert machine.is_on, "a machine outlives the process that made it"
    if victim == "supervisor":
        supervisors = [pid for pid in processes(network) if "supervisor.sh" in command_line(pid)]
        assert len(supervisors) == 1
        os.kill(supervisors[0], signal.SIGKILL)
    elif victim == "bridge":  # as after a restart of the computer, when only files are left
        machine.power_off()
        subprocess.run(["ip", "link", "delete", machine.bridge], check=True)

    network.down()
    after = traces(network)
    grown = {kind for kind in before if during[kind] - before[kind]}
    assert grown == {"links", "tables", "rules", "files", "processes", "groups"}, (
        "every kind of trace that a machine makes is looked at"
    )
    assert {kind: after[kind] - before[kind] for kind in before} == {kind: set() for kind in before}
    assert None in (settings, _kernel_settings(network)) or settings == _kernel_settings(network)
    network.down()  # nothing is left to remove, which is no error


def _kernel_settings(network: Network) -> list[str] | None:
    """Return the settings that must be as before; None while another network needs them."""
    if any(file.parent.name != network.name for file in STATE.glob("*/network.json")):
        return None
    names = ("net/ipv4/ip_forward", "fs/inotify/max_user_instances")
    return [Path("/proc/sys", name).read_text() for name in names]
