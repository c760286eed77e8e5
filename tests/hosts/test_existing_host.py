"""A server that is somebody's already: what is refused, apps that never heard of Decant, and leaving it again."""

from __future__ import annotations

import filecmp
import hashlib
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, replace
from difflib import unified_diff
from fnmatch import fnmatch
from pathlib import Path

import pytest

from decant.errors import MachineError, RolloutError
from decant.host.render import HostSite
from decant.host.steps import provision_step, remove_step
from decant.ssh.client import Access, Session
from decant.ssh.keys import fingerprint
from decant.ssh.ready import wait_ready
from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from tests.support.host_files import LIMITS
from tests.support.project_copy import STACK, Project
from tests.support.site import SECRETS, Site
from tests.support.waiting import PATIENCE

APPS = Path(__file__).with_name("apps")

# What tells of what happened, and what the system's own tools keep of their last steps. Not here anyway: what is
# mounted, such as /run and /tmp.
FLEETING = ["var/tmp/*", "var/log/*", "var/lib/systemd/*", "etc/*-", "var/lib/dpkg/*-old", "var/lib/ucf/*",
            "var/cache/debconf/*", "var/cache/apt/*.bin", "var/cache/apt/archives/partial",
            "var/lib/apt/lists/partial", "var/cache/ldconfig/aux-cache"]  # fmt: skip

HOOK = "/run/owners-hook"  # what the owner has apt do before it installs anything


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a machine consists of. `files` maps each path to its kind, mode, owner and content."""

    files: dict[str, str]
    packages: str
    units: str
    running: str
    listening: str
    sshd: str


def take_snapshot(site: Site) -> Snapshot:
    run, upper, image = site.machine.run, site.machine.dir / "upper", Path(site.machine.image)
    listing = run(["find", "/", "-xdev", "-printf", "%P\\t%M %U %G %l\\n"]).stdout
    files = dict(line.split("\t", 1) for line in listing.splitlines())
    for name in files:
        # Only what was written since is read: the rest is the image's.
        written, original = upper / name, image / name
        if files[name].startswith("-") and written.exists():
            same = original.is_file() and filecmp.cmp(written, original, shallow=False)
            files[name] += "" if same else hashlib.sha256(written.read_bytes()).hexdigest()
    units = run(
        "systemctl list-units --type=service,timer,socket,path --state=active,failed --plain --no-legend"
    ).stdout
    return Snapshot(
        files={n: d for n, d in files.items() if not any(fnmatch(n, pattern) for pattern in FLEETING)},
        packages=run(["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\\n"]).stdout,
        units=run("systemctl list-unit-files --no-legend").stdout,
        # But for logins, and what the system starts when it is asked for.
        running="\n".join(
            sorted(u for u in re.findall(r"(?m)^\S+", units) if not re.match("user|session|systemd-", u))
        ),
        listening=run("cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\" { print $2 }' | sort").stdout,
        sshd=run("/usr/sbin/sshd -T").stdout,
    )


@pytest.fixture(scope="module")
def server(hosts: Network, folder: Path) -> Site:
    """A bare Debian host that runs nothing yet."""
    private, public = key_pair()
    machine = hosts.boot("server", flavour="bare", authorized_key=public.strip(), say=print)
    assert machine.wait_running() == "running"
    machine.run("useradd --create-home plain && cp -r /root/.ssh ~plain/ && chown -R plain: ~plain")
    machine.run(f"echo 'DPkg::Pre-Install-Pkgs {{ \"cat >{HOOK}\"; }};' >/etc/apt/apt.conf.d/99owner")
    project = Project(folder / "server")
    for name in ("shop", "sealed"):
        shutil.copytree(APPS / name, project.folder / name)
    return Site(machine=machine, network=hosts, project=project, private_key=private)


@pytest.fixture(scope="module")
def before(server: Site) -> Snapshot:
    return take_snapshot(server)


@pytest.fixture(scope="module")
def shop(server: Site, before: Snapshot) -> Site:
    """The server with the shop on it."""
    server.first = server.up(app="shop", secrets=SECRETS)
    assert server.first.status == 0, server.first.error + server.first.log
    return server


# ------------------------------------------------------------------------------------------------ refusals


def ready(access: Access) -> None:
    wait_ready(access, timeout=3, log=print)


def test_a_host_with_another_key_is_not_logged_in_to(server: Site, before: Snapshot) -> None:
    config = server.config(app="shop")
    other = key_pair()[1].strip()
    config["decant:hosts"][0]["hostKey"] = other
    run = server.project.run(server.network, config)
    assert run.status == 1
    assert run.error.startswith(f"web-ready failed:\nweb (root@{server.address}) shows another host key than the one")
    assert f"pinned: ssh-ed25519 {fingerprint(other)}" in run.error
    assert f"shown:  ssh-ed25519 {fingerprint(server.access.host_key)}" in run.error
    assert "pulumi config set --path 'decant:hosts[0].hostKey'" in run.error


def test_a_refused_login_is_not_tried_again(server: Site, before: Snapshot) -> None:
    with pytest.raises(MachineError, match="refused the login: this key is not allowed for user root") as caught:
        ready(replace(server.access, private_key=key_pair()[0]))
    assert "authorized_keys" in str(caught.value)
    assert "pulumi config set --secret decant:sshPrivateKey" in str(caught.value)


def test_a_host_that_does_not_answer_is_given_up_in_time(server: Site, before: Snapshot) -> None:
    with pytest.raises(MachineError, match=r"did not let us in within 3 s: .*(refused|connect)") as caught:
        ready(replace(server.access, port=2222))
    assert f"ssh -p 2222 root@{server.address}" in str(caught.value)


def test_a_login_that_cannot_become_root_is_refused(server: Site, before: Snapshot) -> None:
    with pytest.raises(MachineError, match="user plain cannot use sudo without a password") as caught:
        ready(replace(server.access, user="plain"))
    assert "/etc/sudoers.d/plain" in str(caught.value)


def test_another_system_is_refused(server: Site, before: Snapshot) -> None:
    file = "/usr/lib/os-release"
    server.machine.run(f"sed s/13/11/ {file} >/run/other-release && mount --bind /run/other-release {file}")
    try:
        with pytest.raises(MachineError, match="runs debian 11; Decant supports debian 13 and debian 12"):
            ready(server.access)
    finally:
        server.machine.run(f"umount {file} && rm /run/other-release")


def test_a_port_in_use_is_left_to_who_uses_it(server: Site, before: Snapshot) -> None:
    server.machine.run("systemd-run --unit=other-web systemd-socket-activate --accept --inetd --listen=80 cat")
    try:
        run = server.up(app="shop")
        assert run.status == 1
        assert run.error.startswith("web-provision failed:\nserver: port 80 is held by systemd-socket-")
        assert "ss -ltnp 'sport = :80'" in run.error
        with socket.create_connection((server.address, 80), timeout=PATIENCE) as connection:
            connection.sendall(b"still here\n")
            assert connection.recv(100) == b"still here\n"
    finally:
        server.machine.run("systemctl stop other-web")


def test_a_full_disk_is_told_before_anything_is_put_on_it(server: Site, before: Snapshot) -> None:
    server.machine.run("mount -t tmpfs -o size=50m none /var")
    try:
        run = server.up(app="shop")
    finally:
        server.machine.run("umount /var")
    assert run.status == 1
    assert "server: the disk is full: 50 MB are free under /var, 300 MB are needed" in run.error
    assert "du -xh" in run.error


def test_what_is_refused_is_left_as_it_was(server: Site, before: Snapshot) -> None:
    """But for the copied files, which wait for the next try or for destroy."""
    left = differences(before, take_snapshot(server)).splitlines()
    assert [line for line in left if not line.startswith("root/.decant")] == []


def differences(one: Snapshot, other: Snapshot) -> str:
    names = sorted(one.files.keys() | other.files.keys())
    found = [(name, one.files.get(name), other.files.get(name)) for name in names]
    listed = [f"{name}: {was}, now {now}" for name, was, now in found if was != now]
    for field in ("packages", "units", "running", "listening", "sshd"):
        lines = unified_diff(getattr(one, field).splitlines(), getattr(other, field).splitlines(), field, n=0)
        listed += list(lines)
    return "\n".join(listed)


# ------------------------------------------------------------------------------------------------ unknown apps


def test_a_factory_with_a_database_file_is_served(shop: Site) -> None:
    assert "shop/requirements.txt has no hashes" in shop.first.log
    assert shop.ask("/").json() == {"items": []}
    added = shop.ask("/", method="POST", body="name=tea", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (added.status, added.body) == (200, b"added")
    assert shop.ask("/").json() == {"items": ["tea"]}
    assert shop.ask("/").release == shop.first.release
    assert shop.machine.run(["stat", "-c", "%U", "/var/lib/decant/data/shop.db"]).stdout == "decant\n"


def migrations(site: Site) -> list[str]:
    """The releases whose release command ran, in order."""
    code = "import sqlite3; print(*sqlite3.connect('/var/lib/decant/data/shop.db').execute('select * from migrations'))"
    return re.findall(r"\w{12}", site.machine.run(["python3", "-c", code]).stdout)


def test_the_release_command_runs_once_for_each_release(
    shop: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, app = shop.live, shop.project.folder / "shop"
    assert migrations(shop) == [shop.first.release]
    second = shop.release(app, env={"NUMBER": "2"})
    assert migrations(shop) == [first, second]
    assert shop.ask("/").json()["items"] is not None, "what the old release kept is there"

    shop.roll_out(first)
    assert shop.live == first
    assert "going back: the release command is not run" in capsys.readouterr().err
    assert migrations(shop) == [first, second]

    failing = shop.stage(app, env={"MIGRATION": "fails"})
    with pytest.raises(RolloutError, match=r"the release command failed: python migrate\.py") as caught:
        shop.roll_out(failing.release)
    assert "no migration today: [API_TOKEN]" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert shop.live == first
    assert shop.status()["current"] == shop.status()["persisted"] == first


def test_compiled_dependencies_work_in_the_sandbox(shop: Site) -> None:
    sealed = shop.release(shop.project.folder / "sealed")
    answer = shop.ask("/")
    assert (answer.status, answer.body, answer.release) == (200, b"a secret, kept", sealed)


def test_updates_install_themselves(shop: Site) -> None:
    assert shop.machine.run("dpkg-query -W -f '${Status}' unattended-upgrades").stdout == "install ok installed"


def test_what_the_owner_has_apt_do_is_done(shop: Site) -> None:
    assert "unattended-upgrades" in shop.machine.run(["cat", HOOK]).stdout


def test_another_stack_does_not_take_the_machine_over(shop: Site) -> None:
    live = shop.live
    run = shop.up(stack="other", app="shop")
    assert run.status == 1
    assert f"server: this machine already serves stack {STACK}, not other" in run.error
    assert f"pulumi destroy --stack {STACK}" in run.error
    assert shop.live == live


def hold_locks(site: Site, seconds: float) -> subprocess.Popen[str]:
    """Another apt: it has the locks of the package lists and of dpkg for a while. Returns when it has them."""
    code = (
        "import fcntl, time\n"
        "files = [open(f, 'w') for f in ('/var/lib/apt/lists/lock', '/var/lib/dpkg/lock-frontend')]\n"
        "for file in files: fcntl.lockf(file, fcntl.LOCK_EX)\n"
        f"print('held', flush=True); time.sleep({seconds})\n"
    )
    argv = ["nsenter", f"--target={site.machine.pid}", "--mount", "--pid", "python3", "-c", code]
    holder = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_another_apt_is_waited_for(shop: Site) -> None:
    """As that of a machine's first boot; here it has both locks, and the lists are so old that they are read anew."""
    shop.machine.run("find /var/lib/apt/lists -name '*Packages*' -exec touch -d '2 days ago' {} +")
    started = time.monotonic()
    with hold_locks(shop, 4):
        done = shop.machine.run(["/opt/decant/bin/decant-packages", "ed"], check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - started >= 4
    assert shop.machine.run("command -v ed").stdout
    assert "ed" in shop.machine.run("cat /var/lib/decant/packages-added").stdout.split(), "destroy takes it away"


def test_apt_says_what_else_a_removal_takes_with_it(shop: Site) -> None:
    """remove.sh goes by that: a package that something installed since depends on stays."""
    build = (
        "set -e; cd $(mktemp -d); mkdir -p x/DEBIAN\n"
        "printf 'Package: needs-nginx\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.com>\n"
        "Description: x\nDepends: nginx\n' >x/DEBIAN/control\n"
        "dpkg-deb --build x x.deb >/dev/null; dpkg -i x.deb >/dev/null\n"
    )
    shop.machine.run(build)
    try:
        said = shop.machine.run("apt-get -qq --simulate purge nginx").stdout
        assert re.findall(r"(?m)^(?:Purg|Remv) (\S+)", said) == ["needs-nginx", "nginx"], said
    finally:
        shop.machine.run("dpkg --purge needs-nginx")


# ------------------------------------------------------------------------------------------------ leaving


def test_sshd_and_packets_are_treated_as_before(shop: Site, before: Snapshot) -> None:
    """Without `decant:harden`, which is off where the machine is not ours."""
    assert shop.machine.run("/usr/sbin/sshd -T").stdout == before.sshd
    assert shop.machine.run("cat /proc/net/ip_tables_names 2>/dev/null; command -v nft", check=False).stdout == ""


def test_a_bad_sshd_configuration_is_not_made_worse_by_harden(shop: Site, before: Snapshot) -> None:
    """sshd runs on with what it read; our file on top would lock everybody out at its next restart."""
    file = "/etc/ssh/sshd_config"
    shop.machine.run(f"cp -p {file} /run/sshd_config.good && echo 'NoSuchOption yes' >>{file}")
    line, script = provision_step(
        stack=STACK,
        machine="web.x",
        user="root",
        harden=True,
        site=HostSite(names=(shop.address,)),
        proxy=None,
        health_path=None,
        limits=LIMITS,
    )
    try:
        done = shop.machine.run(line, input=script, check=False)
    finally:
        shop.machine.run(f"cp -p /run/sshd_config.good {file}")
    assert done.returncode == 1
    assert "sshd refuses its new settings, so the old ones stay" in done.stderr, done.stderr
    assert "NoSuchOption" in done.stderr
    assert shop.machine.run("/usr/sbin/sshd -T").stdout == before.sshd
    assert shop.machine.run("ls /etc/decant /etc/ssh/sshd_config.d").stdout.count("decant.conf") == 0
    assert shop.machine.run("nft list ruleset").stdout == ""
    with Session(shop.access) as session:
        assert session.run("true").status == 0


def test_destroy_takes_all_away_and_may_be_repeated(shop: Site, before: Snapshot) -> None:
    grown = differences(before, take_snapshot(shop))
    for trace in ("etc/decant", "nginx.service", "usr/sbin/nginx", "var/lib/decant", ":0050", "etc/group"):
        assert trace in grown, f"{trace} is not looked at"
    for _ in range(2):
        with Session(shop.access) as session:
            done = session.run(remove_step(shop.name), timeout=300)
        assert (done.status, done.stderr) == (0, "")
    assert differences(before, take_snapshot(shop)) == ""
    assert shop.machine.run("ls -d /run/decant* /opt/decant /var/log/nginx", check=False).stdout == ""
    assert (
        shop.machine.run("ps -eo user=,args= | grep -E 'decant|gunicorn|nginx' | grep -v grep", check=False).stdout
        == ""
    )
