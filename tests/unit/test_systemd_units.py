"""The units on machines: systemd accepts them, the sandbox option by option, restarts and stops."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from decant.host import render, steps
from decant_host import protocol
from tests.support.host_files import HERE, SHAPES, UNITS, parse, program, section, service

DEBIANS_NGINX = """[Unit]
Description=A high performance web server and a reverse proxy server
[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStartPre=/usr/sbin/nginx -t -q -g 'daemon on; master_process on;'
ExecStart=/usr/sbin/nginx -g 'daemon on; master_process on;'
ExecReload=/usr/sbin/nginx -g 'daemon on; master_process on;' -s reload
ExecStop=-/usr/sbin/nginx -s stop
KillMode=mixed
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system as provision.sh leaves it, with programs that exist and do nothing."""
    units = tmp_path / "etc" / "systemd" / "system"
    for files in UNITS.values():
        for target, source in files.items():
            (units / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / "systemd" / source, units / target)
    (units / "nginx.service").write_text(DEBIANS_NGINX)
    ours = tmp_path / "usr" / "lib" / "systemd" / "system"
    ours.mkdir(parents=True)
    system = next((p for p in map(Path, ("/usr/lib/systemd/system", "/lib/systemd/system")) if p.is_dir()), None)
    for path in [*system.glob("*.target"), *system.glob("*.slice")] if system else ():
        shutil.copy(path, ours / path.name)
    for name in (
        "var/lib/decant/releases/0123456789ab/venv/bin/python",
        "var/lib/decant/releases/0123456789ab/venv/bin/gunicorn",
        "opt/decant/bin/decant-host", "usr/sbin/nft",
        "usr/sbin/nginx",
    ):  # fmt: skip
        stub = tmp_path / name
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text("#!/bin/sh\n")
        stub.chmod(0o755)
    return tmp_path


def analyze(root: Path, verb: str, unit: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [program("systemd-analyze"), verb, f"--root={root}", *words, unit]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit(root: Path, unit: str) -> None:
    done = analyze(root, "verify", unit, "--recursive-errors=no")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "mistake", ["RestartSecs=1\n", "TimeoutStartSec=soon\n", "ExecStartPost=/nowhere/to/be/found\n"]
)
def test_systemd_would_find_a_mistake(root: Path, unit: str, mistake: str) -> None:
    """Else the test above would prove nothing."""
    file = root / "etc" / "systemd" / "system" / list(UNITS[unit])[-1]
    file.write_text(f"{file.read_text()}\n[Service]\n{mistake}")
    done = analyze(root, "verify", unit, "--recursive-errors=no")
    assert done.stderr


@pytest.mark.parametrize("unit", ["app@0123456789ab.service", "release@0123456789ab.service"])
def test_the_sandbox_has_a_good_score(root: Path, unit: str) -> None:
    done = analyze(root, "security", unit, "--offline=true", "--threshold=25", "--no-pager")
    assert done.returncode == 0, done.stdout
    for drop_in in (root / "etc" / "systemd" / "system").glob("*@.service.d/sandbox.conf"):
        drop_in.unlink()
    assert analyze(root, "security", unit, "--offline=true", "--threshold=25").returncode != 0


def test_the_acme_client_has_a_good_score(root: Path) -> None:
    """It is root, which costs points; everything else is taken away."""
    done = analyze(root, "security", "decant-certificate.service", "--offline=true", "--threshold=25", "--no-pager")
    assert done.returncode == 0, done.stdout


FOLDERS = "/var/lib/decant/certbot /var/lib/decant/acme /var/lib/decant/tls"


def test_the_acme_client_reaches_its_own_folders_alone() -> None:
    """tests/hosts/test_https.py shows what these options take away."""
    unit = service("decant-certificate.service")
    assert {name: unit[name] for name in ("BindPaths", "ReadWritePaths")} == {
        "BindPaths": [FOLDERS], "ReadWritePaths": [FOLDERS]
    }  # fmt: skip
    assert unit["TemporaryFileSystem"] == ["/var/lib:ro /var/cache:ro /run:ro"]
    (inaccessible,) = unit["InaccessiblePaths"]
    assert set(inaccessible.split()) == {
        "-/etc/shadow", "-/etc/shadow-", "-/etc/gshadow", "-/etc/gshadow-", "-/etc/ssh", "-/etc/ssl/private",
        "-/var/backups", "-/var/log", "-/srv",
    }  # fmt: skip
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["ProtectHome"] == ["yes"]
    assert unit["CapabilityBoundingSet"] == ["CAP_CHOWN"]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit["ExecStart"] == ["/opt/decant/bin/decant-host certificate-run"]


# Every option, because a score lets one make up for another. tests/hosts/test_sandbox.py shows what they take away.
SANDBOX = {
    "User": ["decant"],
    "Group": ["decant"],
    "UMask": ["0027"],
    "WorkingDirectory": ["/var/lib/decant/releases/%i/app"],
    "StateDirectory": ["decant/data"],
    "StateDirectoryMode": ["0700"],
    "ReadWritePaths": ["-/var/lib/decant/app-data"],
    "LoadCredential": ["environment.json:/var/lib/decant/releases/%i/environment.json"],
    "Environment": [
        "DECANT_RELEASE=%i", "DECANT_MACHINE=%H", "DATA_DIR=/var/lib/decant/data", "HOME=/var/lib/decant/data",
        "PROXY_HOPS=1", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1",
    ],
    "NoNewPrivileges": ["yes"],
    "CapabilityBoundingSet": [""],
    "AmbientCapabilities": [""],
    "ProtectSystem": ["strict"],
    "ProtectHome": ["yes"],
    "PrivateTmp": ["yes"],
    "PrivateDevices": ["yes"],
    "ProtectKernelTunables": ["yes"],
    "ProtectKernelModules": ["yes"],
    "ProtectKernelLogs": ["yes"],
    "ProtectControlGroups": ["yes"],
    "ProtectClock": ["yes"],
    "ProtectHostname": ["yes"],
    "ProtectProc": ["invisible"],
    "RestrictSUIDSGID": ["yes"],
    "RestrictNamespaces": ["yes"],
    "RestrictRealtime": ["yes"],
    "RestrictAddressFamilies": ["AF_UNIX AF_INET AF_INET6"],
    "LockPersonality": ["yes"],
    "RemoveIPC": ["yes"],
    "SystemCallArchitectures": ["native"],
    "SystemCallFilter": ["@system-service", "~@privileged", "@chown setuid setgid"],
    "SystemCallErrorNumber": ["EPERM"],
    "IPAddressDeny": ["169.254.169.254 fd00:ec2::254"],
    "MemoryHigh": ["70%"],
    "MemoryMax": ["80%"],
    "TasksMax": ["60%"],
    "LimitNOFILE": ["65536"],
}  # fmt: skip
APP = {
    "Type": ["notify"],
    "ExecStart": ["/var/lib/decant/releases/%i/venv/bin/python /opt/decant/python/decant_serve.py"],
    "ExecStop": [f"+{steps.PROGRAM} pre-stop %i"],
    "TimeoutStartSec": ["330"],
    "KillMode": ["mixed"],
    "Restart": ["always"],
    "RestartSec": ["250ms"],
    "OOMPolicy": ["continue"],
    "RuntimeDirectory": ["decant/%i/socket"],
    "RuntimeDirectoryMode": ["0750"],
    "RuntimeDirectoryPreserve": ["restart"],
}
RELEASE_COMMAND = {
    "Type": ["oneshot"],
    "ExecStart": ["/var/lib/decant/releases/%i/venv/bin/python /opt/decant/python/release_command.py"],
    "TimeoutStartSec": ["3600"],
    "OOMScoreAdjust": ["300"],
}


def test_the_apps_code_starts_when_the_network_is_there() -> None:
    app, command = (section(unit, "Unit") for unit in ("app@0123456789ab.service", "release@0123456789ab.service"))
    del app["Description"], command["Description"]
    assert app == {
        "After": ["network-online.target nginx.service"],
        "Wants": ["network-online.target"],
        "StartLimitIntervalSec": ["0"],
    }
    assert command == {"After": ["network-online.target"], "Wants": ["network-online.target"]}


@pytest.mark.parametrize(
    ("unit", "own"), [("app@0123456789ab.service", APP), ("release@0123456789ab.service", RELEASE_COMMAND)]
)
def test_the_apps_code_runs_in_this_sandbox(unit: str, own: dict[str, list[str]]) -> None:
    """The app and its release command, option by option."""
    assert service(unit) == {**own, **SANDBOX}


def test_the_app_is_restarted_without_limit_and_without_a_long_wait() -> None:
    """A database that is away for an hour must not end the site for ever, and a dead master is back within 2 s."""
    assert section("app@0123456789ab.service", "Unit")["StartLimitIntervalSec"] == ["0"]
    app = service("app@0123456789ab.service")
    (wait,) = re.fullmatch(r"(\d+)ms", app["RestartSec"][0]).groups()  # type: ignore[union-attr]
    assert int(wait) <= 1000
    assert section("app@0123456789ab.service", "Install") == {}, "the boot unit starts the confirmed release"


def test_a_unit_removes_only_its_own_runtime_directory() -> None:
    """systemd removes it when the unit stops, while another release serves from the folder beside it."""
    (folder,) = service("app@0123456789ab.service")["RuntimeDirectory"]
    assert "%i" in folder


def test_the_balancer_notices_before_the_app_stops() -> None:
    """At a shutdown, too: what starts after nginx stops before it."""
    (stop,) = service("app@0123456789ab.service")["ExecStop"]
    assert stop.startswith("+"), "as root, outside of the app's sandbox"
    assert "nginx.service" in section("app@0123456789ab.service", "Unit")["After"][0].split()


def test_a_release_command_ends_before_the_coordinator_gives_up() -> None:
    (limit,) = service("release@0123456789ab.service")["TimeoutStartSec"]
    assert int(limit) == 3600
    assert int(limit) < protocol.MIGRATE_TIMEOUT <= int(limit) + 600


def test_nginx_reads_only_our_file() -> None:
    nginx = "/usr/sbin/nginx{} -c /etc/decant/nginx.conf -g 'daemon on; master_process on;'{}"
    # An empty line takes the distribution's own back.
    assert service("nginx.service") == {
        "ExecStartPre": ["", nginx.format(" -t -q", "")],
        "ExecStart": ["", nginx.format("", "")],
        "ExecReload": ["", nginx.format("", " -s reload")],
        "LimitNOFILE": ["16384"],
        "Restart": ["on-failure"],
        "RestartSec": ["1"],
    }
    assert section("nginx.service", "Unit") == {"ConditionPathExists": ["/etc/decant/nginx.conf"]}
    (rlimit,) = parse(render.nginx_conf(**SHAPES["plain"])).all("worker_rlimit_nofile")
    assert rlimit.words[1] == "16384"


def test_the_confirmed_release_is_back_before_nginx() -> None:
    unit = section("decant-boot.service", "Unit")
    del unit["Description"]
    assert unit == {
        "After": ["local-fs.target"],
        "Before": ["nginx.service"],
        "ConditionPathExists": ["/var/lib/decant/persisted"],
        "StartLimitIntervalSec": ["0"],
    }
    assert service("decant-boot.service") == {
        "Type": ["oneshot"],
        "RemainAfterExit": ["yes"],
        "ExecStart": [f"{steps.PROGRAM} boot"],
        "Restart": ["on-failure"],
        "RestartSec": ["2s"],
    }
    assert section("decant-boot.service", "Install") == {"WantedBy": ["multi-user.target"]}


def test_the_firewall_is_up_before_the_network() -> None:
    unit = section("decant-firewall.service", "Unit")
    del unit["Description"]
    assert unit == {
        "DefaultDependencies": ["no"],
        "After": ["local-fs.target"],
        "Before": ["network-pre.target shutdown.target"],
        "Wants": ["network-pre.target"],
        "Conflicts": ["shutdown.target"],
    }
    assert service("decant-firewall.service") == {
        "Type": ["oneshot"],
        "RemainAfterExit": ["yes"],
        "ExecStart": ["/usr/sbin/nft -f /etc/decant/firewall.nft"],
        "ExecStop": ["/usr/sbin/nft delete table inet decant"],
    }
    assert section("decant-firewall.service", "Install") == {"WantedBy": ["sysinit.target"]}
