"""A droplet as its first-boot data and the program make it: its own sshd and firewall settings besides the cloud's."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from decant.errors import HostKeyMismatchError, MachineError
from decant.rollout.http_probe import probe
from decant.ssh.client import Access, Session
from decant.ssh.own_key import under_own_key
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from tests.support.project_copy import Project, Run
from tests.support.waiting import PATIENCE
from tests.support.watching import open_ports


@dataclass(frozen=True, kw_only=True)
class Droplet:
    """`access` is what `fabfile.py` logs in with: the output `ssh`."""

    machine: Machine
    access: Access
    run: Run


@pytest.fixture(scope="module")
def droplet(hosts: Network, folder: Path) -> Droplet:
    run = Project(folder / "cloud").run(
        hosts, {"decant:cloud": "digitalocean", "decant:adminCidrs": [hosts.cidr]}, stack="cloud"
    )
    assert run.status == 0, run.error + run.log
    access = Access.from_dict(run.outputs["ssh"][0])
    machine = next(machine for machine in hosts.machines() if machine.flavour == "cloud")
    return Droplet(machine=machine, access=access, run=run)


@pytest.fixture
def session(droplet: Droplet) -> Iterator[Session]:
    with Session(droplet.access) as session:
        yield session


def test_the_public_address_answers_and_the_machines_own_does_not(droplet: Droplet) -> None:
    url = droplet.run.outputs["url"]
    assert url == f"http://{droplet.access.address}"
    seen = probe(f"{url}/")
    assert (seen.status, seen.release) == (200, droplet.run.outputs["release"])
    assert droplet.machine.address != droplet.access.address
    assert probe(f"http://{droplet.machine.address}/").status == 0, "which no visitor knows"


def test_a_deployer_logs_in_and_nobody_with_a_password(droplet: Droplet, session: Session) -> None:
    assert session.run("id -un; sudo -n id -un; cat /etc/debian_version").stdout.split()[:2] == ["deploy", "root"]
    values = dict(line.split(" ", 1) for line in session.run("sudo -n /usr/sbin/sshd -T").stdout.splitlines())
    wanted = {
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        "permitrootlogin": "no",
        "maxauthtries": "4",
        "logingracetime": "30",
        "disableforwarding": "yes",
        "x11forwarding": "no",
    }
    assert {name: values[name] for name in wanted} == wanted

    session.run("echo 'deploy:a-password' | sudo -n chpasswd")
    tried = subprocess.run(
        ["ssh", "-v", "-F", "none", "-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=no",
         "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", f"deploy@{droplet.access.address}", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Permission denied (publickey)" in tried.stderr


def test_root_is_refused_even_with_a_key(droplet: Droplet) -> None:
    machine, access = droplet.machine, droplet.access
    machine.run("install -d -m 0700 /root/.ssh && cp ~deploy/.ssh/authorized_keys /root/.ssh/authorized_keys")
    root = Access(
        name="root", address=access.address, port=22, user="root",
        host_key=access.host_key, private_key=access.private_key,
    )  # fmt: skip
    with pytest.raises(MachineError, match="refused the login"):
        Session(root)


def test_its_only_host_key_is_its_own_and_stays_roots(droplet: Droplet, session: Session) -> None:
    keys = session.run("cat /etc/ssh/ssh_host_*_key.pub").stdout.splitlines()
    assert [key.split()[:2] for key in keys] == [droplet.access.host_key.split()[:2]]
    first_boot = session.run("sudo -n cat /var/lib/cloud/instance/user-data.txt").stdout
    assert "ssh-ed25519 AAAA" in first_boot
    assert droplet.access.host_key.split()[1] not in first_boot
    # User data brought another one, and is kept by cloud-init and by the cloud.
    search = "grep -rlsF 'OPENSSH PRIVATE KEY' /etc /var /run /home /root /opt"
    assert "/etc/ssh/ssh_host_ed25519_key" in session.run(f"sudo -n {search}").stdout
    assert session.run(f"sudo -n -u decant {search}").stdout == ""


def test_a_login_under_a_key_that_is_not_active_is_a_login_like_any_other(droplet: Droplet, session: Session) -> None:
    """As while a machine takes over an address: sshd still shows the first key."""
    own = under_own_key(droplet.access)
    try:
        assert own.host_key != droplet.access.host_key
        with Session(own) as inner:
            assert inner.run("id -un; sudo -n id -un").stdout.split() == ["deploy", "root"]
            much = "secret\n" * 300_000
            done = inner.run("cat; echo end >&2; exit 7", stdin=much)
            assert (done.status, done.stdout == much, done.stderr) == (7, True, "end\n")
            with contextlib.closing(inner.client.open_sftp()) as sftp, sftp.open("by-sftp", "w") as file:
                file.write("text")
            assert inner.run("cat by-sftp").stdout == "text"
            active = inner.run("cat /etc/ssh/ssh_host_ed25519_key.pub").stdout
            assert active.split()[:2] == droplet.access.host_key.split()[:2]
        with pytest.raises(HostKeyMismatchError, match="so nothing was sent to it"):
            Session(replace(own, host_key=droplet.access.host_key))
    finally:
        session.run("sudo -n rm -f /etc/ssh/decant_new_host_key")
    wait = "until [ $(pgrep -c -x -f '/usr/sbin/sshd -i.*') = 0 ]; do sleep 0.1; done; echo none"
    assert session.run(wait).stdout == "none\n", "the server inside ends with its login"


def test_the_firewall_lets_ssh_http_and_pings_in(droplet: Droplet, session: Session) -> None:
    rules = session.run("sudo -n nft list ruleset").stdout
    assert re.search(r"hook input priority filter; policy drop;", rules), rules
    assert re.search(r"tcp dport \{ 22, 80, 443 \} accept", rules), rules
    # Somebody opens another door, which the firewall keeps shut.
    session.run("sudo -n systemd-run --unit=other-door python3 -m http.server 8080")
    inside = "import socket; socket.create_connection(('127.0.0.1', 8080), timeout=60)"
    wait = f'until python3 -c "{inside}" 2>/dev/null; do sleep 0.1; done; echo open'
    assert session.run(wait).stdout == "open\n"
    address = droplet.access.address
    assert list(open_ports(address, [80])) == [80]
    with contextlib.closing(socket.socket()) as connection:
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.connect((address, 8080))
    assert answers_a_ping(address)


def answers_a_ping(address: str) -> bool:
    """Whether an ICMP echo comes back, which is asked for by hand: not every computer has `ping`."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)) as raw:
        raw.settimeout(PATIENCE)
        raw.sendto(struct.pack("!BBHHH", 8, 0, 0xFFFF ^ (0x0800 + 0x1234), 0x1234, 0), (address, 0))
        while True:
            packet, (sender, _) = raw.recvfrom(1024)
            if sender == address and packet[20] == 0:
                return True


def test_updates_install_themselves(session: Session) -> None:
    timers = session.run("systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer").stdout
    assert timers.split() == ["enabled", "enabled"]
    said = session.run("sudo -n apt-config dump").stdout
    assert 'APT::Periodic::Unattended-Upgrade "1"' in said
    assert 'Unattended-Upgrade::Automatic-Reboot "false"' in said


def test_a_reboot_brings_firewall_and_site_back(droplet: Droplet) -> None:
    droplet.machine.reboot()
    assert droplet.machine.wait_running() == "running"
    seen = probe(droplet.run.outputs["url"] + "/", timeout=PATIENCE)
    assert (seen.status, seen.release) == (200, droplet.run.outputs["release"])
    assert "policy drop" in droplet.machine.run("nft list ruleset").stdout
