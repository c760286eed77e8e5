"""The scripts that run on machines, run in a throwaway root with stand-ins for the system's commands."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from decant.host import manifest, render, steps
from tests.support import throwaway_root
from tests.support.host_files import (
    BIN,
    SHAPES,
    program,
    provision,
)
from tests.support.in_memory import REPOSITORY
from tests.support.throwaway_root import ThrowawayRoot

root = throwaway_root.root


def ours(pattern: str) -> list[Path]:
    """The repository's own files, environments and caches left aside."""
    tops = [p for p in REPOSITORY.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "node_modules"]
    found = [path for top in tops for path in top.rglob(pattern)]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(REPOSITORY).parts))


def shellcheck(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    tool = program(str(BIN / "shellcheck"))
    return subprocess.run([tool, *words], input=text, capture_output=True, text=True, check=False)


def test_there_are_scripts() -> None:
    assert {"provision.sh", "remove.sh"} <= {p.name for p in ours("*.sh")}


@pytest.mark.parametrize("path", ours("*.sh"), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_shellcheck(path: Path) -> None:
    done = shellcheck(str(path))
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_of_lines_inside_python() -> None:
    _, script = provision()
    lines = {
        "provision": re.sub(r"<<'END'\n.*?\nEND\n", "<<'END'\nx\nEND\n", script, flags=re.DOTALL),
        "remove": steps.REMOVE_STEP,
        "updates": steps.UPDATES_STEP,
        "stage": steps.stage_step("0" * 12),
    }
    for name, text in lines.items():
        done = shellcheck("-s", "sh", "-", text=text + "\n")
        # SC1091: /etc/os-release is the machine's. SC2016: what is in single quotes is for the inner shell.
        assert set(re.findall(r"SC\d+", done.stdout)) <= {"SC1091", "SC2016"}, f"{name}: {done.stdout}"
    assert "SC2086" in shellcheck("-s", "sh", "-", text="rm $1\n").stdout, "this check cannot fail"


# ------------------------------------------------------------------------------------------------ provision.sh

PLAIN = render.nginx_conf(**SHAPES["plain"])


def installed(root: ThrowawayRoot) -> dict[str, str]:
    """Each file of the table that is there, and its mode."""
    return {file.path: root.mode(file.path) for file in manifest.FILES if root.exists(file.path)}


def wanted(*, harden: bool) -> dict[str, str]:
    return {file.path: file.mode for file in manifest.FILES if harden or file.when == "always"}


def left(root: ThrowawayRoot) -> list[str]:
    """Files and folders below the places that scripts write to."""
    paths = [path for top in ("etc", "opt", "var", "run") for path in (root.path / top).rglob("*")]
    return sorted(str(path.relative_to(root.path)) for path in paths)


@pytest.fixture
def provisioned(root: ThrowawayRoot) -> ThrowawayRoot:
    done = root.provision()
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("harden", [False, True])
def test_provision_installs_what_the_table_says(root: ThrowawayRoot, harden: bool) -> None:
    done = root.provision(harden=harden)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout).keys() == {"provision", "nginx", "nonce"}
    assert json.loads(done.stdout)["nginx"] == "1.26.3"
    assert installed(root) == wanted(harden=harden)
    for file in manifest.FILES:
        if file.source not in ("nginx.conf", "settings.json", "nftables/firewall.nft", "sshd/sshd.conf"):
            assert harden < (file.when == "harden") or root.read(file.path).encode() == manifest.read(file.source)
    assert [name for name in left(root) if "decant-new" in name or "candidate" in name or ".before" in name] == []


def test_users_cannot_log_in_and_folders_have_these_modes(provisioned: ThrowawayRoot) -> None:
    users = [call for call in provisioned.calls if call.startswith("useradd")]
    assert [call.split()[-1] for call in users] == ["decant", "decant-build"]
    for call in users:
        assert "--system --user-group" in call
        assert "--no-create-home --shell /usr/sbin/nologin" in call
    assert provisioned.read("var/lib/decant/users-added").split() == ["decant", "decant-build"]
    folders = {"": "0755", "/releases": "0755", "/venvs": "0755", "/incoming": "0700"}
    assert {name: provisioned.mode(f"var/lib/decant{name}") for name in folders} == folders
    assert "gpasswd --add www-data decant" in provisioned.calls


def test_provision_again_changes_nothing(provisioned: ThrowawayRoot) -> None:
    before = left(provisioned)
    provisioned.forget_calls()
    assert provisioned.provision().returncode == 0
    changing = ("daemon-reload", "enable ", "restart", "reload", "install", "useradd", "gpasswd", "python3", "update")
    assert [call for call in provisioned.calls if any(word in call for word in changing)] == []
    assert left(provisioned) == before


def test_units_are_known_to_systemd_before_nginx_is_installed(provisioned: ThrowawayRoot) -> None:
    """The package starts nginx, which without our drop-in serves the distribution's site."""
    calls = provisioned.calls
    (reload,) = [at for at, call in enumerate(calls) if call == "systemctl daemon-reload"]
    installs = [at for at, call in enumerate(calls) if call.endswith(" nginx") and call.startswith("apt-get")]
    assert reload < min(installs)


def test_a_changed_unit_is_reloaded_and_a_changed_site_too(provisioned: ThrowawayRoot) -> None:
    provisioned.forget_calls()
    unit = manifest.read("systemd/decant-boot.service") + b"# changed\n"
    assert (
        provisioned.provision(nginx=PLAIN + "# changed\n", files={"systemd/decant-boot.service": unit}).returncode == 0
    )
    assert "systemctl daemon-reload" in provisioned.calls
    assert "systemctl reload nginx" in provisioned.calls
    assert provisioned.read("/etc/decant/nginx.conf").endswith("# changed\n")
    assert provisioned.read("/etc/systemd/system/decant-boot.service").endswith("# changed\n")


def test_nginx_checks_the_new_site_and_keeps_the_old_one_where_it_is_refused(provisioned: ThrowawayRoot) -> None:
    provisioned.forget_calls()
    done = provisioned.provision(nginx=PLAIN + "REFUSED;\n")
    assert done.returncode == 1
    assert 'nginx refuses the new site, so the old one stays: unknown directive "REFUSED"' in done.stderr
    assert "REFUSED" not in provisioned.read("/etc/decant/nginx.conf")
    assert not provisioned.exists("/etc/decant/nginx.conf.candidate")
    assert [call for call in provisioned.calls if re.match("systemctl (restart|reload)", call)] == []


def test_uv_is_installed_by_hash_and_again_only_when_it_changes(provisioned: ThrowawayRoot) -> None:
    (pip,) = [call for call in provisioned.calls if call.startswith("python3 -P -m pip")]
    assert "--require-hashes --only-binary :all:" in pip
    assert pip.endswith("-r /root/files/scripts/uv-requirements.txt")
    assert provisioned.exists("/opt/decant/uv/bin/uv")
    for changes, again in (({}, 0), ({"scripts/uv-requirements.txt": b"uv==1\n"}, 1)):
        provisioned.forget_calls()
        assert provisioned.provision(files=changes).returncode == 0
        assert len([call for call in provisioned.calls if "-m pip" in call]) == again


def test_files_of_the_release_before_are_removed(provisioned: ThrowawayRoot) -> None:
    old = "/etc/systemd/system/decant-old.timer"
    provisioned.write(old.lstrip("/"), "[Timer]\n")
    line = f"0644 reload-systemd always {old} systemd/decant-old.timer\n"
    provisioned.write("opt/decant/manifest", manifest.manifest_text() + line)
    assert provisioned.provision().returncode == 0
    assert not provisioned.exists(old)
    assert installed(provisioned) == wanted(harden=False)


def test_a_machine_from_before_there_was_a_table_loses_its_old_modules(provisioned: ThrowawayRoot) -> None:
    (provisioned.path / "opt/decant/manifest").unlink()
    provisioned.write("opt/decant/python/decant_host/ancient.py", "")
    assert provisioned.provision().returncode == 0
    assert not provisioned.exists("/opt/decant/python/decant_host/ancient.py")
    assert installed(provisioned) == wanted(harden=False)


def nothing_changed(root: ThrowawayRoot) -> bool:
    return left(root) == left(ThrowawayRoot(root.path.parent / "other"))


def test_a_host_whose_nginx_serves_other_sites_is_refused_before_anything_changes(root: ThrowawayRoot) -> None:
    """On whatever port: ours would take its place at the next restart, and destroy would stop it."""
    root.write("stub/active/nginx", "")
    done = root.provision()
    assert done.returncode == 1
    assert "nginx already runs on this machine with a configuration of its own" in done.stderr
    assert "systemctl disable --now nginx" in done.stderr
    assert nothing_changed(root)


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        ("etc/systemd/system/app@.service", "there is a unit app@.service already that is not Decant's"),
        ("etc/systemd/system/release@.service", "there is a unit release@.service already"),
        ("etc/passwd", "there is a user decant already that is not Decant's"),
    ],
)
def test_what_is_not_decants_is_refused_before_anything_changes(root: ThrowawayRoot, taken: str, message: str) -> None:
    root.write(taken, "root:x:0:0::/root:/bin/sh\ndecant:x:1000:1000::/:/bin/sh\n")
    done = root.provision()
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert not root.exists("/var/lib/decant")


@pytest.mark.parametrize(("free", "status"), [(299, 1), (300, 0)])
def test_a_full_disk_is_refused_before_anything_changes(root: ThrowawayRoot, free: int, status: int) -> None:
    root.stand_in("df", f"printf ' Avail\\n {free}\\n'")
    done = root.provision()
    assert done.returncode == status, done.stderr
    if status:
        assert "the disk is full: 299 MB are free under /var, 300 MB are needed" in done.stderr
        assert nothing_changed(root)


def test_another_stacks_machine_is_refused(provisioned: ThrowawayRoot) -> None:
    done = provisioned.provision(stack="green")
    assert done.returncode == 1
    assert "this machine already serves stack blue, not green" in done.stderr


# ------------------------------------------------------------------------------------------------ the provision step


def run_step(root: ThrowawayRoot, before: str = "") -> subprocess.CompletedProcess[str]:
    """The step as Pulumi runs it in the login user's home, after another command."""
    line, script = provision(harden=False, user="root")
    return root.run("sh", "-c", f"{before}cd /root && {line}", input=script)


@pytest.fixture
def copied(root: ThrowawayRoot) -> Path:
    """The tar of what all machines get, as the step before has copied it."""
    tar = manifest.files_tar()
    path = root.path / "root" / steps.HOME / manifest.files_name(tar)
    path.parent.mkdir()
    path.write_bytes(tar)
    return path


def test_the_step_provisions_from_the_copied_tar_and_removes_older_ones(root: ThrowawayRoot, copied: Path) -> None:
    old = copied.with_name("files-0123456789ab.tar")
    old.write_text("")
    done = run_step(root)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["provision"] == provision(harden=False, user="root")[0].split()[-1]
    assert installed(root) == wanted(harden=False)
    assert root.read("/etc/decant/nginx.conf") == PLAIN
    assert (copied.exists(), old.exists()) == (True, False)
    assert [name for name in left(root) if name.startswith("run/decant-provision.") and "lock" not in name] == []


@pytest.mark.parametrize("data", [None, b"", b"changed"])
def test_a_tar_that_is_missing_or_changed_is_refused(root: ThrowawayRoot, copied: Path, data: bytes | None) -> None:
    """Whoever logged in to copy it could write to it; the step runs as root."""
    if data is None:
        copied.unlink()
    else:
        copied.write_bytes(copied.read_bytes() + data if data else data)
    done = run_step(root)
    assert done.returncode == 1
    assert f"{steps.HOME}/{copied.name} is missing or incomplete" in done.stderr
    assert "pulumi up --replace '**files'" in done.stderr
    assert not root.exists("/var/lib/decant")
    assert not root.exists("/opt/decant")


@pytest.mark.parametrize("unit", ["decant-provision", "decant-base"])
def test_a_provisioning_that_runs_already_is_waited_for(root: ThrowawayRoot, copied: Path, unit: str) -> None:
    """Its connection may have ended; `decant-base` is its name in the release before."""
    root.write(f"stub/active/{unit}", "")
    done = run_step(root, f"(sleep 1; echo ended >>/stub/calls; rm /stub/active/{unit}) & ")
    assert done.returncode == 0
    assert root.calls.index("ended") < root.calls.index("systemctl daemon-reload")


def test_two_steps_do_not_provision_at_once(root: ThrowawayRoot, copied: Path) -> None:
    """Both would leave the wait for the unit together, and one would fail to start it."""
    lock = "exec 8>/run/decant-provision.lock; flock 8; (sleep 1; echo released >>/stub/calls) & exec 8>&-; "
    done = run_step(root, lock)
    assert done.returncode == 0
    assert root.calls.index("released") < root.calls.index("systemctl daemon-reload")


# ------------------------------------------------------------------------------------------------ decant:harden


def test_a_bad_sshd_configuration_leaves_sshd_as_it_was(root: ThrowawayRoot) -> None:
    root.write("stub/sshd-refuses", "")
    done = root.provision(harden=True)
    assert done.returncode == 1
    assert "sshd refuses its new settings, so the old ones stay: sshd_config line 9" in done.stderr
    assert "pulumi config set decant:harden false" in done.stderr
    assert not root.exists("/etc/ssh/sshd_config.d/00-decant.conf"), "the next restart of sshd would lock everybody out"
    assert not [call for call in root.calls if "ssh.service" in call or call.startswith("nft")]

    first_boots = root.write("etc/ssh/sshd_config.d/00-decant.conf", "PermitRootLogin no\n")
    assert root.provision(harden=True).returncode == 1
    assert first_boots.read_text() == "PermitRootLogin no\n"


@pytest.mark.parametrize(
    ("told", "socket", "sockets", "ports"),
    [
        ("listenaddress 0.0.0.0:22\nlistenaddress [::]:22\n", "", "", "22"),
        ("listenaddress 0.0.0.0:2222\nlistenaddress [::]:22\n", "", "", "22, 2222"),
        # systemd listens for sshd, which still believes that its port is 22.
        ("listenaddress 0.0.0.0:22\n", "0.0.0.0:2200 (Stream)\n[::]:2200 (Stream)\n", "", "22, 2200"),
        # So does another program; a session is open. A forwarded connection has a port that nobody listens at.
        (
            "listenaddress 0.0.0.0:22\n",
            "",
            'LISTEN 0 128 0.0.0.0:2022 0.0.0.0:* users:(("inetd",pid=1,fd=3))\n'
            'LISTEN 0 128 0.0.0.0:8080 0.0.0.0:* users:(("other",pid=2,fd=3))\n'
            'ESTAB 0 0 192.0.2.1:2022 192.0.2.9:51000 users:(("sshd-session",pid=9,fd=4))\n'
            'ESTAB 0 0 127.0.0.1:40000 127.0.0.1:5432 users:(("sshd",pid=9,fd=7))\n',
            "22, 2022",
        ),
    ],
    ids=["usual", "two ports", "ssh.socket", "session"],
)
def test_the_firewall_opens_every_port_that_sshd_uses(
    root: ThrowawayRoot, told: str, socket: str, sockets: str, ports: str
) -> None:
    """A port that is missing locks everybody out."""
    root.write("stub/sshd-T", told)
    root.write("stub/ss", sockets)
    if socket:
        root.write("stub/ssh-socket", socket)
        root.write("stub/active/ssh.socket", "")
    assert root.provision(harden=True).returncode == 0
    assert f"tcp dport {{ {ports}, 80 }} accept" in root.read("/etc/decant/firewall.nft")
    check = root.calls.index("nft --check -f /etc/decant/firewall.nft")
    assert check < root.calls.index("systemctl restart decant-firewall")


def test_without_a_known_port_there_is_no_firewall(root: ThrowawayRoot) -> None:
    root.write("stub/sshd-T", "")
    done = root.provision(harden=True)
    assert done.returncode == 1
    assert "the port at which sshd listens is unknown" in done.stderr
    assert not root.exists("/etc/decant/firewall.nft")


def test_hardening_is_taken_back_when_it_is_switched_off(root: ThrowawayRoot) -> None:
    assert root.provision(harden=True).returncode == 0
    assert "PermitRootLogin prohibit-password" in root.read("/etc/ssh/sshd_config.d/00-decant.conf"), (
        "root logs in here"
    )
    root.forget_calls()
    assert root.provision(harden=False).returncode == 0
    assert installed(root) == wanted(harden=False)
    calls = root.calls
    assert calls.index("systemctl disable --quiet --now decant-firewall") < calls.index("systemctl daemon-reload")
    assert "systemctl try-reload-or-restart ssh.service" in calls


# ------------------------------------------------------------------------------------------------ packages.sh


def apt_calls(root: ThrowawayRoot, verb: str) -> list[str]:
    return [call for call in root.calls if call.startswith("apt-get") and f" {verb} " in f"{call} "]


def test_apt_waits_for_another_apt_and_keeps_the_owners_files(provisioned: ThrowawayRoot) -> None:
    calls = [*apt_calls(provisioned, "update"), *apt_calls(provisioned, "install")]
    assert len(calls) == 3
    for call in calls:
        assert "-o DPkg::Lock::Timeout=300 " in call
        assert "-o Dpkg::Options::=--force-confold " in call
        assert "-o Dir::Cache=/var/cache/decant-apt " in call
    assert all("--no-install-recommends" in call for call in apt_calls(provisioned, "install"))
    assert not provisioned.exists("/var/cache/decant-apt")


def test_packages_that_came_with_decant_are_recorded_before_they_are_installed(root: ThrowawayRoot) -> None:
    """Upgrades of what was there are not among them."""
    root.write("stub/installed", "ca-certificates\niproute2\n")
    root.write("stub/bin/apt-get", root.read("stub/bin/apt-get").replace(
        "for package; do\n                    echo", "echo 'tzdata 1.0 < 1.1 /cache/tzdata.deb' | sh -c \"$hook\"\n"
        "                for package; do\n                    echo",
    ))  # fmt: skip
    assert root.provision().returncode == 0
    assert sorted(root.read("var/lib/decant/packages-added").split()) == ["nginx", "python3", "python3-pip-whl"]


def test_the_lock_of_the_package_lists_is_waited_for(root: ThrowawayRoot) -> None:
    """apt's own time-out does not cover it: apt-get update fails at once."""
    root.write("stub/lists-locked", "")
    done = root.provision()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(apt_calls(root, "update")) == 2


def test_a_mirror_that_cannot_be_reached_is_not_tried_again(root: ThrowawayRoot) -> None:
    root.write("stub/no-mirror", "")
    done = root.provision()
    assert done.returncode == 1
    assert "apt-get update failed: E: Failed to fetch http://mirror" in done.stderr
    assert len(apt_calls(root, "update")) == 1


def test_an_interrupted_dpkg_is_finished_first(root: ThrowawayRoot) -> None:
    root.write("stub/interrupted", "")
    done = root.provision()
    assert (done.returncode, done.stderr) == (0, "")
    assert "dpkg --force-confold --configure -a" in root.calls


def test_a_mirror_that_hangs_times_out(root: ThrowawayRoot) -> None:
    """With all of apt's calls together."""
    slow = manifest.read("scripts/packages.sh").decode().replace("apt_seconds=1500", "apt_seconds=1")
    root.stand_in("apt-get", "exec sleep 30")
    done = root.provision(files={"scripts/packages.sh": slow.encode()})
    assert done.returncode == 1
    assert "installing packages was given up after" in done.stderr


def test_two_installations_do_not_run_at_once(provisioned: ThrowawayRoot) -> None:
    lock = "exec 9>/run/decant-packages.lock; flock 9; (sleep 1; echo released >>/stub/calls) & exec 9>&-; "
    provisioned.forget_calls()
    assert provisioned.run("bash", "-c", lock + "bash /opt/decant/bin/decant-packages logrotate").returncode == 0
    calls = provisioned.calls
    (install,) = [at for at, call in enumerate(calls) if call.endswith(" logrotate")]
    assert calls.index("released") < install


# ------------------------------------------------------------------------------------------------ remove.sh


@pytest.mark.parametrize("harden", [False, True])
def test_remove_takes_away_all_that_provision_brought(root: ThrowawayRoot, harden: bool) -> None:
    before, passwd = left(root), root.read("etc/passwd")
    assert root.provision(harden=harden).returncode == 0
    root.forget_calls()
    done = root.remove()
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"removed": true}\n', "")
    kept = {"var/lib/apt", "var/lib/apt/lists", "run/sshd"}
    assert sorted(set(left(root)) - set(before) - kept) == []
    assert root.read("etc/passwd") == passwd
    assert root.read("stub/installed") == ""
    assert ("systemctl try-reload-or-restart ssh.service" in root.calls) == harden
    for call in ("systemctl stop nginx", "systemctl disable --quiet nginx", "systemctl daemon-reload"):
        assert call in root.calls


def test_remove_takes_the_machine_out_of_rotation_first(provisioned: ThrowawayRoot) -> None:
    provisioned.write("opt/decant/bin/decant-host", '#!/bin/sh\necho "decant-host $*" >>/stub/calls\n')
    provisioned.forget_calls()
    assert provisioned.remove().returncode == 0
    calls = provisioned.calls
    assert calls.index("decant-host drain") < calls.index("systemctl stop app@*.service release@*.service")


def test_remove_may_be_repeated(provisioned: ThrowawayRoot) -> None:
    script = provisioned.write("root/remove.sh", provisioned.read("/opt/decant/bin/decant-remove"))
    for _ in range(2):
        assert provisioned.run("bash", f"/root/{script.name}").returncode == 0


def test_remove_waits_for_an_installation_that_is_under_way(provisioned: ThrowawayRoot) -> None:
    lock = "exec 9>/run/decant-packages.lock; flock 9; (sleep 1; echo released >>/stub/calls) & exec 9>&-; "
    provisioned.forget_calls()
    assert provisioned.run("bash", "-c", lock + "bash /opt/decant/bin/decant-remove").returncode == 0
    calls = provisioned.calls
    (purge,) = apt_calls(provisioned, "--simulate purge")
    assert calls.index("released") < calls.index("systemctl stop nginx") < calls.index(purge)


def test_remove_keeps_packages_that_others_need(provisioned: ThrowawayRoot) -> None:
    """Purging nginx would take their program with it."""
    provisioned.write("stub/installed", provisioned.read("stub/installed") + "certbot-nginx\n")
    provisioned.write("stub/dependants", "nginx certbot-nginx [1.0]\n")
    assert provisioned.remove().returncode == 0
    assert provisioned.read("stub/installed").split() == ["nginx", "certbot-nginx"]


def test_remove_takes_only_packages_that_came_with_decant(root: ThrowawayRoot) -> None:
    root.write("stub/installed", "nginx\nca-certificates\n")
    root.write("stub/enabled/nginx", "")
    assert root.provision().returncode == 0
    root.forget_calls()
    assert root.remove().returncode == 0
    assert root.read("stub/installed").split() == ["nginx", "ca-certificates"]
    assert not [call for call in root.calls if call.startswith("systemctl disable") and "nginx" in call]
    assert apt_calls(root, "purge"), "python3 was purged"


def test_remove_keeps_what_others_put_beside_our_files(provisioned: ThrowawayRoot) -> None:
    theirs = provisioned.write("etc/systemd/system/nginx.service.d/theirs.conf", "[Service]\n")
    assert provisioned.remove().returncode == 0
    assert theirs.exists()
    assert not provisioned.exists("/etc/systemd/system/app@.service.d")


def test_remove_takes_files_of_an_upgrade_that_was_cut_short(provisioned: ThrowawayRoot) -> None:
    old = "/etc/systemd/system/decant-old.timer"
    provisioned.write(old.lstrip("/"), "[Timer]\n")
    provisioned.write("opt/decant/manifest.before", f"0644 reload-systemd always {old} systemd/decant-old.timer\n")
    assert provisioned.remove().returncode == 0
    assert not provisioned.exists(old)


# ------------------------------------------------------------------------------------------------ decant-host.sh


@pytest.mark.parametrize("command", ["pre-stop", "close"])
def test_a_release_without_visitors_stops_without_a_wait(provisioned: ThrowawayRoot, command: str) -> None:
    (provisioned.path / "run" / "decant").mkdir()
    (provisioned.path / "run" / "decant" / "current").symlink_to("0123456789ab")
    provisioned.write("opt/decant/python/decant_host/__main__.py", "import sys\nprint(*sys.argv[1:])\n")
    for release, said in (("ba9876543210", ""), ("0123456789ab", f"{command} 0123456789ab\n")):
        done = provisioned.run("sh", steps.PROGRAM, command, release)
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_the_error_of_a_killed_program_names_the_signal(provisioned: ThrowawayRoot) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    provisioned.write("opt/decant/python/decant_host/__main__.py", code)
    done = provisioned.run("sh", steps.PROGRAM, "status")
    assert done.returncode == 128 + 9
    assert "decant-host status was killed by signal 9. Did the machine run out of memory?" in done.stderr
    assert "Killed" not in done.stderr, "the shell's own line"
