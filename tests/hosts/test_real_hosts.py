"""Hosts that are in use, or were interrupted: what a first `up` finds there, leaves alone, and mends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from decant.errors import MachineError
from decant.host import manifest
from decant.host.render import HostSite
from decant.host.steps import HOME, provision_step, remove_step
from decant.ssh.client import Access, CommandResult, Session
from rehearsal.doubles import key_pair
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from tests.support.host_files import LIMITS
from tests.support.project_copy import STACK
from tests.support.waiting import PATIENCE, wait_for

DEBIAN_PACKAGES = "DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y"


class Host:
    """A bare machine that runs no stack, and single steps on it over SSH."""

    def __init__(self, hosts: Network, name: str) -> None:
        private, public = key_pair()
        self.machine: Machine = hosts.boot(name, flavour="bare", authorized_key=public.strip(), say=print)
        self.machine.wait_running()
        assert self.machine.host_key is not None
        self.access = Access(
            name="web", address=self.machine.address, port=22, user="root",
            host_key=self.machine.host_key, private_key=private,
        )  # fmt: skip

    def provision(self, *, harden: bool = False) -> CommandResult:
        """The steps `files` and `provision`."""
        tar = manifest.files_tar()
        folder = self.machine.root / "root" / HOME
        folder.mkdir(exist_ok=True)
        (folder / manifest.files_name(tar)).write_bytes(tar)
        line, script = provision_step(
            stack=STACK, machine="web.x", user="root", harden=harden, site=HostSite(names=(self.machine.address,)),
            proxy=None, health_path=None, limits=LIMITS,
        )  # fmt: skip
        with Session(self.access) as session:
            return session.run(line, stdin=script, timeout=300)

    def remove(self) -> None:
        with Session(self.access) as session:
            done = session.run(remove_step("web"), timeout=300)
        assert (done.status, done.stderr) == (0, "")

    def say(self, command: str) -> str:
        """What a command prints, whatever its status."""
        return self.machine.run(command, check=False).stdout

    def traces(self) -> str:
        """What Decant has left there."""
        return self.say("ls -d /etc/decant /opt/decant /var/lib/decant /etc/systemd/system/*decant* 2>/dev/null")

    def packages(self) -> str:
        return self.say("dpkg-query -W -f '${Package} ${db:Status-Abbrev}\\n'")


# ------------------------------------------------------------------------------------------------ nginx of the owner's


def test_an_nginx_with_sites_of_its_own_keeps_them(hosts: Network) -> None:
    """Before, during and after: as long as it may serve them, Decant is refused, and nothing is put on the machine."""
    host = Host(hosts, "sites")
    host.machine.run(f"apt-get -qq update && {DEBIAN_PACKAGES} nginx curl >/dev/null 2>&1")
    site = "server { listen 8080; return 200 theirs; }\n"
    host.machine.run("rm /etc/nginx/sites-enabled/default; cat >/etc/nginx/sites-enabled/theirs", input=site)
    host.machine.run("systemctl restart nginx")
    ask = "curl -sS http://localhost:8080/"
    assert host.say(ask) == "theirs"
    for change in ("true", "systemctl stop nginx"):
        host.machine.run(change)
        done = host.provision()
        assert done.status == 1
        assert "nginx is set up on this machine with a configuration of its own" in done.stderr
        assert "systemctl disable --now nginx" in done.stderr
        assert host.traces() == ""
    host.machine.run("systemctl start nginx")
    assert host.say(ask) == "theirs"

    host.machine.run("systemctl disable --now nginx")  # as the message says
    assert host.provision().status == 0
    assert host.provision().status == 0, "what Decant has enabled is no reason to refuse"
    host.remove()
    assert host.traces() == ""
    assert host.say("systemctl is-enabled nginx; systemctl is-active nginx") == "disabled\ninactive\n"
    host.machine.run("systemctl start nginx")
    assert host.say(ask) == "theirs"


# ------------------------------------------------------------------------------------------------ sshd of the owner's


def test_harden_keeps_the_port_that_systemd_listens_at_for_sshd(hosts: Network) -> None:
    host = Host(hosts, "socket")
    section = "[Socket]\nListenStream=\nListenStream=0.0.0.0:2222\n"
    folder = "/etc/systemd/system/ssh.socket.d"
    host.machine.run(f"mkdir {folder} && cat >{folder}/port.conf && systemctl daemon-reload", input=section)
    host.machine.run("systemctl disable --now ssh.service && systemctl enable --now ssh.socket")
    host.access = replace(host.access, port=2222)
    done = host.provision(harden=True)
    assert done.status == 0, done.stderr
    assert "tcp dport { 22, 80, 443, 2222 } accept" in host.say("nft list ruleset")

    def hardened() -> bool:
        with Session(host.access) as session:
            return "\npasswordauthentication no\n" in session.run("/usr/sbin/sshd -T").stdout

    assert hardened()
    host.machine.reboot()
    host.machine.wait_running()
    assert hardened()
    host.remove()
    assert not hardened()


def test_harden_does_not_close_a_port_by_a_reload(hosts: Network) -> None:
    """Somebody has written another port into sshd's settings, and sshd has not read them yet."""
    host = Host(hosts, "moved")
    host.machine.run("echo Port 2222 >/etc/ssh/sshd_config.d/10-port.conf")
    done = host.provision(harden=True)
    assert done.status == 1
    assert "sshd listens at port 22, which its settings on the disk do not name any more" in done.stderr
    assert host.say("ls /etc/ssh/sshd_config.d; command -v nft && nft list ruleset") == "10-port.conf\n/usr/sbin/nft\n"
    host.machine.run("echo Port 22 >>/etc/ssh/sshd_config.d/10-port.conf")
    assert host.provision(harden=True).status == 0
    with Session(host.access) as session:
        assert "tcp dport { 22, 80, 443, 2222 } accept" in session.run("nft list ruleset").stdout


# ------------------------------------------------------------------------------------------------ interrupted dpkg


def cut_off_inside_dpkg(host: Host, step: Callable[[], object], seconds: float) -> None:
    """Run a step, and cut the machine's power so many seconds after dpkg has started."""

    def work() -> None:
        with contextlib.suppress(MachineError, AssertionError):
            step()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_for(lambda: host.machine.run("pgrep -x dpkg", check=False).returncode == 0, "dpkg runs")
    time.sleep(seconds)
    host.machine.power_off()
    thread.join(timeout=PATIENCE)
    host.machine.boot_again()
    host.machine.wait_running()


def test_a_power_cut_inside_dpkg_heals_by_itself(hosts: Network) -> None:
    """During an installation, with another one or a removal next; and during a removal."""
    host = Host(hosts, "power")
    before = set(host.packages().splitlines())
    cut_off_inside_dpkg(host, host.provision, 0.3)
    done = host.provision()
    assert done.status == 0, done.stderr
    assert [line for line in host.packages().splitlines() if not line.endswith(" ii ")] == []

    cut_off_inside_dpkg(host, host.remove, 0.3)
    host.remove()
    assert (host.traces(), host.say("dpkg --audit"), set(host.packages().splitlines()) ^ before) == ("", "", set())

    cut_off_inside_dpkg(host, host.provision, 0.5)
    host.remove()
    assert (host.traces(), host.say("dpkg --audit"), set(host.packages().splitlines()) ^ before) == ("", "", set())
