"""What the app's code can do on the machine if it is taken over, and where its secrets are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.site import CANARY, GREETING, Site

MARK = "canary5b1f"  # how the canary looks however it is quoted
RELEASES = "/var/lib/decant/releases"


def test_env_and_secrets_reach_the_app_to_the_letter(site: Site) -> None:
    said = site.inside("import json, os; print(json.dumps([os.environ['GREETING'], os.environ['API_TOKEN']]))")
    assert json.loads(said) == [GREETING, CANARY]


def test_the_app_can_write_nothing_but_its_data(site: Site) -> None:
    home = f"{RELEASES}/{site.live}"
    barred = [
        f"{home}/app/wsgi.py", f"{home}/app/new", f"{home}/release.json", f"{home}/venv/lib/new", f"{home}/new",
        "/opt/decant/python/new", "/etc/new", "/usr/local/bin/new", "/var/lib/decant/new", "/var/lib/decant/persisted",
        "/run/decant/current", "/run/new", "/root/new", "/home/new", "/dev/shm/../new", "/proc/sys/kernel/hostname",
        "/sys/fs/cgroup/new", "/var/log/new", "/var/lib/decant/app-data/new",
    ]  # fmt: skip
    allowed = ["/var/lib/decant/data/new", f"{home}/app/instance/new", "/tmp/new-from-the-app"]
    code = f"""
for path in {barred + allowed}:
    try:
        open(path, "a").close()
        print(path)
    except OSError:
        pass
"""
    assert site.inside(code).split() == allowed
    assert site.machine.run("ls /tmp").stdout.count("new-from-the-app") == 0, "its /tmp is its own"
    assert site.machine.run("stat -c %U /var/lib/decant/data/new").stdout == "decant\n"
    site.machine.run("rm /var/lib/decant/data/new /var/lib/decant/app-data/instance/new")


def test_the_app_can_read_its_own_code_and_no_secret_file(site: Site) -> None:
    home = f"{RELEASES}/{site.live}"
    paths = [f"{home}/environment.json", "/etc/ssh/ssh_host_ed25519_key", "/root/.ssh/authorized_keys", "/etc/shadow",
             "/proc/1/environ", "/proc/1/cmdline", f"{home}/app/wsgi.py"]  # fmt: skip
    code = f"""
for path in {paths}:
    try:
        print(path, len(open(path).read()) > 0)
    except OSError:
        pass
"""
    assert site.inside(code) == f"{home}/app/wsgi.py True\n"
    owner = site.machine.run(["stat", "-c", "%U %a", f"{home}/environment.json"]).stdout
    assert owner == "root 600\n"


def test_the_app_has_no_privilege(site: Site) -> None:
    code = """
import os, socket, subprocess
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(status["CapBnd"], status["CapEff"], status["NoNewPrivs"], status["Seccomp"], os.getgroups() or "none")
def tries(what, action):
    try:
        action()
        print("could", what)
    except (OSError, subprocess.CalledProcessError):
        pass
tries("open a raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
tries("make a user namespace", lambda: os.unshare(0x10000000) if hasattr(os, "unshare") else subprocess.run(
    ["unshare", "--user", "true"], check=True, capture_output=True))
tries("become root", lambda: os.setuid(0))
tries("make a set-uid file", lambda: (open("/tmp/x", "w").close(), os.chmod("/tmp/x", 0o4755)))
tries("mount", lambda: subprocess.run(["mount", "-t", "tmpfs", "none", "/tmp"], check=True, capture_output=True))
tries("see init", lambda: os.stat("/proc/1"))
"""
    first, *could = site.inside(code).splitlines()
    caps = "0000000000000000"
    group = site.machine.run("id -g decant").stdout.strip()
    assert (first, could) == (f"{caps} {caps} 1 2 [{group}]", [])


def test_the_app_does_not_reach_the_clouds_metadata(site: Site) -> None:
    """An address of the machine's own plays the metadata service, which nginx listens at as at all others."""
    address = "169.254.169.254"
    code = f"""
import socket
try:
    socket.create_connection(("{address}", 80), timeout=1)
    print("reached")
except OSError:
    print("blocked")
"""
    filtered = [
        "systemd-run",
        "--quiet",
        "--wait",
        "--pipe",
        f"--property=IPAddressDeny={address}",
        "python3",
        "-c",
        code,
    ]
    site.machine.run(["ip", "address", "add", f"{address}/32", "dev", "lo"])
    try:
        assert site.machine.run(["python3", "-c", code]).stdout == "reached\n"
        if site.machine.run(filtered).stdout != "blocked\n":
            pytest.skip("this computer's kernel does not let machines filter addresses by unit (BPF)")
        assert site.inside(code) == "blocked\n"
    finally:
        site.machine.run(["ip", "address", "delete", f"{address}/32", "dev", "lo"])


# In place of setuptools, so that nothing is downloaded. What it could do is in the package that it builds.
HOSTILE = """
import os, socket, subprocess, zipfile
could = []
def tries(what, action):
    try:
        action()
        could.append(what)
    except OSError:
        pass
for path in PATHS:
    tries("write " + path, lambda: open(path, "a").close())
tries("read secrets", lambda: open("SECRETS").read())
tries("reach metadata", lambda: socket.create_connection(("169.254.169.254", 80), timeout=1))
tries("become root", lambda: os.setuid(0))
tries("make a set-uid file", lambda: os.chmod(os.open("own", os.O_CREAT), 0o4755))
if "NoNewPrivs:\t1" not in open("/proc/self/status").read():
    could.append("gain privileges")
subprocess.Popen(["sleep", "543"], start_new_session=True, stdout=-3, stderr=-3)
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "hostile-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        writable = zipfile.ZipInfo("hostile.py")
        writable.external_attr = 0o100777 << 16
        wheel.writestr(writable, "could = " + repr(could))
        wheel.writestr("hostile-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: hostile\\nVersion: 1\\n")
        wheel.writestr("hostile-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\nRoot-Is-Purelib: true\\n")
        wheel.writestr("hostile-1.dist-info/RECORD", "")
    return name
"""
METADATA = "169.254.169.254"


def test_a_build_script_can_do_nothing_to_the_machine(site: Site, tmp_path: Path) -> None:
    """Of a package in the requirements: it runs on the machine while the release is staged."""
    paths = ["/opt/decant/python/new", "/opt/decant/bin/new", f"{RELEASES}/new", f"{RELEASES}/{site.live}/app/new",
             "/var/lib/decant/data/new", "/var/lib/decant/venvs/new", "/etc/new", "/usr/local/bin/new",
             "/var/lib/decant/new", "/run/decant/new", "/var/cache/decant/new"]  # fmt: skip
    secrets = f"{RELEASES}/{site.live}/environment.json"
    backend = HOSTILE.replace("PATHS", repr(paths)).replace("SECRETS", secrets)
    pyproject = (
        '[project]\nname = "hostile"\nversion = "1"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    app = tmp_path / "app"
    for name, text in {
        "wsgi.py": "def app(environ, start):\n    start('200 OK', [])\n    return [b'here']\n",
        "requirements.txt": "./hostile\n",
        "hostile/pyproject.toml": pyproject,
        "hostile/backend.py": backend,
    }.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(text)
    site.machine.run(["ip", "address", "add", f"{METADATA}/32", "dev", "lo"])
    try:
        staged = site.stage(app)
    finally:
        site.machine.run(["ip", "address", "delete", f"{METADATA}/32", "dev", "lo"])
    assert staged.status == 0, staged.error
    venv = site.machine.run(["readlink", "-f", f"{RELEASES}/{staged.release}/venv"]).stdout.strip()
    built = site.machine.run(f"cat {venv}/lib/python3*/site-packages/hostile.py").stdout
    assert built == "could = []"
    assert site.machine.run(f"find {venv} ! -user root; find {venv} ! -type l -perm /7022").stdout == ""
    assert site.machine.run(["pgrep", "-f", "sleep 543"], check=False).stdout == "", "what it left running was ended"
    site.machine.run(f"systemctl stop decant-unclaimed-{staged.release}.timer app@{staged.release}")


def test_the_unit_scores_well(site: Site) -> None:
    unit = f"app@{site.live}.service"
    said = site.machine.run(["systemd-analyze", "security", "--no-pager", unit]).stdout
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert score is not None, said
    assert float(score[1]) <= 2.5, said


def test_gunicorn_takes_no_orders_from_a_socket(site: Site) -> None:
    assert site.machine.run("find / -xdev -name '*.ctl'; find /run -name '*.ctl'").stdout == ""
    journal = site.machine.run(["journalctl", "-u", f"app@{site.live}", "--no-pager", "-o", "cat"]).stdout
    assert "Booting worker" in journal
    assert "ontrol server" not in journal


# ------------------------------------------------------------------------------------------------ secrets


def test_secrets_were_in_no_command_line(site: Site) -> None:
    seen = site.command_lines
    for step in (
        "-m decant.ssh.ready",
        "provision.sh",
        "decant-host stage",
        "decant_host lease",
        "-m decant.rollout",
        "gunicorn",
    ):
        assert any(step in line for line in seen), f"the watch saw no {step}, and so proves nothing"
    assert [line for line in seen if MARK in line] == []


def test_secrets_are_in_one_file_that_root_alone_reads(site: Site) -> None:
    upper = site.machine.dir / "upper"
    found = subprocess.run(["grep", "-rlF", MARK, "."], cwd=upper, capture_output=True, text=True, check=False)
    holders = [Path(name) for name in found.stdout.split()]
    assert {path.name for path in holders} == {"environment.json"}
    assert {oct((upper / path).stat().st_mode & 0o777) for path in holders} == {"0o600"}

    held = site.machine.run(f"grep -rlsF {MARK} /run /tmp /dev/shm", check=False).stdout.split()
    # One for each release that runs: the live one, and any that another test has staged or that still drains.
    assert f"/run/credentials/app@{site.live}.service/environment.json" in held
    assert all(re.fullmatch(r"/run/credentials/app@[0-9a-f]{12}\.service/environment\.json", path) for path in held)
    assert set(site.machine.run(["stat", "-c", "%a", *held]).stdout.split()) == {"440"}
    # A process's environment is readable by its own user and root alone (proc(5)); its command line is everybody's.
    others = "runuser -u nobody -- ps axeww"
    said = site.machine.run(f"systemctl show '*' --no-pager; journalctl --no-pager; ps axww; {others}").stdout
    assert f"DECANT_RELEASE={site.live}" in said
    assert MARK not in said.replace(f"grep -rlsF {MARK}", "")


def test_secrets_are_nowhere_where_the_program_ran(site: Site) -> None:
    found = subprocess.run(["grep", "-rlF", MARK, site.project.folder], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")
    assert MARK not in site.first.log
    outputs = {name: value for name, value in site.first.outputs.items() if name != "ssh"}
    assert MARK not in json.dumps(outputs)
