"""The scripts that run on machines, run in a throwaway root with stand-ins for the system's commands."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from decant.host import manifest, render, steps
from tests.support import throwaway_root
from tests.support.host_files import (
    BIN,
    HTTPS_SHAPES,
    SHAPES,
    program,
    provision,
)
from tests.support.in_memory import REPOSITORY, carried
from tests.support.throwaway_root import STAND_INS, ThrowawayRoot

root, template = throwaway_root.root, throwaway_root.template
provisioned, provisioned_template = throwaway_root.provisioned, throwaway_root.provisioned_template


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
        "remove": steps.remove_step("web-1"),
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
    """On a machine without HTTPS of its own."""
    kinds = ("always", "harden") if harden else ("always",)
    return {file.path: file.mode for file in manifest.FILES if file.when in kinds}


def left(root: ThrowawayRoot) -> list[str]:
    """Files and folders below the places that scripts write to."""
    paths = [path for top in ("etc", "opt", "var", "run") for path in (root.path / top).rglob("*")]
    return sorted(str(path.relative_to(root.path)) for path in paths)


@pytest.mark.parametrize("harden", [False, True])
def test_provision_installs_what_the_table_says(root: ThrowawayRoot, harden: bool) -> None:
    done = root.provision(harden=harden)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout).keys() == {"provision", "nginx", "nonce"}
    assert json.loads(done.stdout)["nginx"] == "1.26.3"
    assert installed(root) == wanted(harden=harden)
    for file in manifest.FILES:
        if file.source not in (
            "nginx.conf",
            "settings.json",
            "stop-timeout.conf",
            "acme-root.pem",
            "certificate.pem",
            "certificate-key.pem",
            "nftables/firewall.nft",
            "sshd/sshd.conf",
        ):
            left_out = file.path not in wanted(harden=harden)
            assert left_out or root.read(file.path).encode() == manifest.read(file.source)
    assert [name for name in left(root) if "decant-new" in name or "candidate" in name or ".before" in name] == []


def test_users_cannot_log_in_and_folders_have_these_modes(provisioned: ThrowawayRoot) -> None:
    line = "useradd --system --user-group --home-dir {} --no-create-home --shell /usr/sbin/nologin {}"
    assert [call for call in provisioned.calls if call.startswith("useradd")] == [
        line.format("/var/lib/decant/data", "decant"),
        line.format("/var/cache/decant", "decant-build"),
    ]
    assert provisioned.read("var/lib/decant/users-added").split() == ["decant", "decant-build"]
    folders = {
        "var/lib/decant": "0755", "var/lib/decant/releases": "0755", "var/lib/decant/venvs": "0755",
        "var/lib/decant/incoming": "0700", "var/cache/decant": "0755", "opt/decant": "0755", "opt/decant/bin": "0755",
        "opt/decant/python": "0755", "opt/decant/python/decant_host": "0755", "etc/decant": "0755",
        "var/lib/decant/tls": "0750", "var/lib/decant/acme/.well-known/acme-challenge": "0755",
    }  # fmt: skip
    assert {name: provisioned.mode(name) for name in folders} == folders
    assert "gpasswd --add www-data decant" in provisioned.calls


def test_provision_again_changes_nothing(provisioned: ThrowawayRoot) -> None:
    before = left(provisioned)
    provisioned.forget_calls()
    assert provisioned.provision().returncode == 0
    changing = ("daemon-reload", "enable ", "restart", "reload", "install", "useradd", "gpasswd", "python3", "update")
    assert [call for call in provisioned.calls if any(word in call for word in changing)] == []
    assert left(provisioned) == before


def test_a_mode_that_was_changed_by_hand_is_restored(provisioned: ThrowawayRoot) -> None:
    (provisioned.path / "opt/decant/bin/decant-host").chmod(0o777)
    assert provisioned.provision().returncode == 0
    assert installed(provisioned) == wanted(harden=False)


@pytest.mark.parametrize("harden", [False, True])
def test_services_are_enabled_and_nginx_runs(root: ThrowawayRoot, harden: bool) -> None:
    """What is not enabled is missing after a reboot."""
    assert root.provision(harden=harden).returncode == 0
    firewall = ["decant-firewall"] * harden
    assert sorted(path.name for path in (root.path / "stub/enabled").iterdir()) == ["decant-boot", *firewall, "nginx"]
    assert sorted(path.name for path in (root.path / "stub/active").iterdir()) == [*firewall, "nginx"]
    for unit in [*firewall, "nginx"]:
        (root.path / "stub/active" / unit).unlink()
    root.forget_calls()
    assert root.provision(harden=harden).returncode == 0
    restarts = [call for call in root.calls if call.startswith("systemctl restart")]
    assert restarts == [f"systemctl restart {unit}" for unit in [*firewall, "nginx"]], "what has stopped is started"


def test_nginx_is_reloaded_when_it_joins_the_apps_group(provisioned: ThrowawayRoot) -> None:
    """Its processes have the groups that they were started with, and could not reach the app's socket."""
    group = provisioned.read("etc/group")
    provisioned.write("etc/group", group.replace("decant:x:999:www-data", "decant:x:999:"))
    provisioned.forget_calls()
    assert provisioned.provision().returncode == 0
    assert "gpasswd --add www-data decant" in provisioned.calls
    assert "systemctl reload nginx" in provisioned.calls


def test_each_provisioning_has_another_nonce(provisioned: ThrowawayRoot) -> None:
    """The rollout asks the URL again after a change of the machine."""
    nonces = {json.loads(provisioned.provision().stdout)["nonce"] for _ in range(2)}
    assert len(nonces) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", nonce) for nonce in nonces)


def test_a_machine_without_ipv6_gets_a_site_without_it(root: ThrowawayRoot) -> None:
    """nginx does not start where it cannot listen."""
    script = manifest.read("scripts/fit-nginx.sh").decode().replace("/proc/net/if_inet6", "/proc/net/nothing")
    assert root.provision(files={"scripts/fit-nginx.sh": script.encode()}).returncode == 0
    lines = [line for line in PLAIN.splitlines() if "listen [::]" not in line]
    assert root.read("/etc/decant/nginx.conf").splitlines() == lines


@pytest.mark.parametrize(
    ("nginx", "openssl", "listen", "groups", "caches"),
    [
        ("1.30.0", "3.5.4", ["listen 443 ssl;", "http2 on;"], "X25519MLKEM768:X25519", True),
        ("1.27.4", "3.5.4", ["listen 443 ssl;", "http2 on;"], "X25519MLKEM768:X25519", True),
        ("1.27.3", "3.5.4", ["listen 443 ssl;", "http2 on;"], "X25519MLKEM768:X25519", False),
        ("1.26.3", "3.5.4", ["listen 443 ssl;", "http2 on;"], "X25519MLKEM768:X25519", False),
        ("1.25.1", "3.5.0", ["listen 443 ssl;", "http2 on;"], "X25519MLKEM768:X25519", False),
        ("1.22.1", "3.0.18", ["listen 443 ssl http2;"], "X25519", False),
        ("1.25.0", "3.4.9", ["listen 443 ssl http2;"], "X25519", False),
    ],
)
def test_an_older_nginx_gets_what_it_understands(
    root: ThrowawayRoot, nginx: str, openssl: str, listen: list[str], groups: str, caches: bool
) -> None:
    root.stand_in("nginx", STAND_INS["nginx"].replace("1.26.3", nginx).replace("3.5.4", openssl))
    assert root.provision(nginx=render.nginx_conf(**HTTPS_SHAPES["https"])).returncode == 0
    lines = [line.strip() for line in root.read("/etc/decant/nginx.conf").splitlines()]
    assert [line for line in lines if line.startswith("listen 443") or line == "http2 on;"][-len(listen) :] == listen
    assert f"ssl_ecdh_curve {groups}:prime256v1:secp384r1;" in lines
    assert ("http2 on;" in lines) == ("http2 on;" in listen)
    assert ("ssl_certificate_cache max=100 valid=10s;" in lines) is caches


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
    assert pip == (
        "python3 -P -m pip --no-cache-dir --disable-pip-version-check install --quiet --no-deps --no-compile"
        " --require-hashes --only-binary :all: --root-user-action ignore --target /opt/decant/uv.new"
        " -r /root/files/scripts/uv-requirements.txt"
    )
    assert provisioned.exists("/opt/decant/uv/bin/uv")
    # Of an installation that was cut short, and of the version before.
    for name in ("uv.new", "uv"):
        provisioned.write(f"opt/decant/{name}/stale", "")
    for changes, again in (({}, 0), ({"scripts/uv-requirements.txt": b"uv==1\n"}, 1)):
        provisioned.forget_calls()
        assert provisioned.provision(files=changes).returncode == 0
        assert len([call for call in provisioned.calls if "-m pip" in call]) == again
    assert [path.name for path in (provisioned.path / "opt/decant/uv").iterdir()] == ["bin"]
    assert not [name for name in left(provisioned) if name.startswith(("opt/decant/uv.new", "opt/decant/pip"))]

    (provisioned.path / "opt/decant/uv/bin/uv").unlink()
    assert provisioned.provision(files={"scripts/uv-requirements.txt": b"uv==1\n"}).returncode == 0
    assert provisioned.exists("/opt/decant/uv/bin/uv")


def with_https(*, own: bool = False) -> dict[str, bytes]:
    """The settings file that the step sends to a machine with HTTPS; `own`: with a certificate of the user's."""
    settings = carried(provision(**HTTPS_SHAPES["https"])[1])["settings.json"]
    assert b'"own": false' in settings
    return {"settings.json": settings.replace(b'"own": false', f'"own": {json.dumps(own)}'.encode())}


def certbot_calls(root: ThrowawayRoot) -> list[str]:
    return [call for call in root.calls if call.startswith("uv ")]


def test_the_acme_client_is_installed_where_the_machine_orders(provisioned: ThrowawayRoot) -> None:
    assert not provisioned.exists("/opt/decant/certbot-requirements.txt")
    provisioned.forget_calls()
    assert provisioned.provision(files=with_https()).returncode == 0
    assert certbot_calls(provisioned) == [
        "uv venv --quiet --python /usr/bin/python3 /opt/decant/certbot.new",
        "uv pip install --quiet --no-deps --require-hashes --only-binary :all:"
        " --python /opt/decant/certbot.new/bin/python -r /root/files/acme/certbot-requirements.txt",
    ]
    assert provisioned.read("/opt/decant/certbot/bin/certbot") == "#!/opt/decant/certbot/bin/python\n"
    assert not provisioned.exists("/opt/decant/certbot.new")
    assert provisioned.mode("/opt/decant/certbot-requirements.txt") == "0644"
    assert "systemctl enable --quiet --now decant-certificate.timer" in provisioned.calls
    assert provisioned.mode("/var/lib/decant/certbot") == "0700"

    provisioned.write("stub/active/decant-certificate.timer", "")
    provisioned.forget_calls()
    assert provisioned.provision(files=with_https()).returncode == 0
    assert certbot_calls(provisioned) == []
    assert not [call for call in provisioned.calls if call.startswith("systemctl enable")]

    # A Python that came with an upgrade of the system does not run what the one before had.
    provisioned.write("opt/decant/certbot/bin/python", "#!/bin/false\n")
    assert provisioned.provision(files=with_https()).returncode == 0
    assert len(certbot_calls(provisioned)) == 2


def test_the_acme_client_goes_where_the_machine_orders_no_more(provisioned: ThrowawayRoot) -> None:
    assert provisioned.provision(files=with_https()).returncode == 0
    assert provisioned.provision(files=with_https(own=True)).returncode == 0
    assert not provisioned.exists("/opt/decant/certbot")
    assert not provisioned.exists("/opt/decant/certbot-requirements.txt")
    assert provisioned.exists("stub/enabled/decant-certificate.timer")
    assert provisioned.provision().returncode == 0
    assert "systemctl disable --quiet --now decant-certificate.timer" in provisioned.calls
    assert not provisioned.exists("stub/enabled/decant-certificate.timer")


def test_an_acme_client_that_cannot_be_installed_stops_and_is_tried_again(provisioned: ThrowawayRoot) -> None:
    works = provisioned.read("opt/decant/uv/bin/uv")
    provisioned.write("opt/decant/uv/bin/uv", "#!/bin/sh\necho 'no such index' >&2\nexit 2\n")
    done = provisioned.provision(files=with_https())
    assert done.returncode == 1
    assert "the ACME client could not be installed: no such index" in done.stderr
    assert "Can the machine reach its Python package index?" in done.stderr
    assert not provisioned.exists("/opt/decant/certbot-requirements.txt")
    provisioned.write("opt/decant/uv/bin/uv", works)
    assert provisioned.provision(files=with_https()).returncode == 0
    assert provisioned.exists("/opt/decant/certbot-requirements.txt")


def test_uv_that_cannot_be_installed_stops_and_is_tried_again(root: ThrowawayRoot) -> None:
    works = root.read("stub/bin/python3")
    root.stand_in("python3", "case \"$*\" in *' pip '*) echo 'no such index'; exit 1 ;; esac")
    done = root.provision()
    assert done.returncode == 1
    assert "uv could not be installed: no such index" in done.stderr
    assert "Can the machine reach its Python package index?" in done.stderr
    assert not root.exists("/opt/decant/uv-requirements.txt")
    root.write("stub/bin/python3", works)
    assert root.provision().returncode == 0
    assert root.exists("/opt/decant/uv/bin/uv")


def test_files_of_the_release_before_are_removed(provisioned: ThrowawayRoot) -> None:
    old = "/etc/systemd/system/decant-old.timer"
    provisioned.write(old.lstrip("/"), "[Timer]\n")
    line = f"0644 reload-systemd always {old} systemd/decant-old.timer\n"
    provisioned.write("opt/decant/manifest", manifest.manifest_text() + line)
    provisioned.forget_calls()
    assert provisioned.provision().returncode == 0
    assert not provisioned.exists(old)
    assert installed(provisioned) == wanted(harden=False)
    assert "systemctl daemon-reload" in provisioned.calls


def test_an_upgrade_that_was_cut_short_still_removes_old_files(provisioned: ThrowawayRoot) -> None:
    """The second attempt finds a newer manifest installed, and the old one where the first attempt has kept it."""
    old = "/etc/systemd/system/decant-old.timer"
    provisioned.write(old.lstrip("/"), "[Timer]\n")
    line = f"0644 reload-systemd always {old} systemd/decant-old.timer\n"
    provisioned.write("opt/decant/manifest.before", manifest.manifest_text() + line)
    provisioned.write("opt/decant/manifest", manifest.manifest_text() + "0644 nothing always /opt/decant/x x\n")
    assert provisioned.provision().returncode == 0
    assert not provisioned.exists(old)
    assert not provisioned.exists("/opt/decant/manifest.before")


def test_a_machine_from_before_there_was_a_table_loses_its_old_modules(provisioned: ThrowawayRoot) -> None:
    (provisioned.path / "opt/decant/manifest").unlink()
    provisioned.write("opt/decant/python/decant_host/ancient.py", "")
    assert provisioned.provision().returncode == 0
    assert not provisioned.exists("/opt/decant/python/decant_host/ancient.py")
    assert installed(provisioned) == wanted(harden=False)


def nothing_changed(root: ThrowawayRoot) -> bool:
    return left(root) == left(ThrowawayRoot(root.path.parent / "other"))


@pytest.mark.parametrize("state", ["active", "enabled"])
def test_a_host_whose_nginx_serves_other_sites_is_refused_before_anything_changes(
    root: ThrowawayRoot, state: str
) -> None:
    """On whatever port: ours would take its place at the next restart or boot, and destroy would stop it."""
    root.write(f"stub/{state}/nginx", "")
    done = root.provision()
    assert done.returncode == 1
    assert "nginx is set up on this machine with a configuration of its own" in done.stderr
    assert "systemctl disable --now nginx" in done.stderr
    assert nothing_changed(root)


@pytest.mark.parametrize("made", ["nginx-was-enabled", "nginx.conf"])
def test_nginx_of_a_provisioning_that_was_cut_short_is_not_taken_for_theirs(root: ThrowawayRoot, made: str) -> None:
    root.write("stub/enabled/nginx", "")
    root.write("etc/decant/nginx.conf" if made == "nginx.conf" else f"var/lib/decant/{made}", "")
    root.write("var/lib/decant/stack", "blue\n")
    done = root.provision()
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        ("etc/systemd/system/app@.service", "there is a unit app@.service already that is not Decant's"),
        ("etc/systemd/system/release@.service", "there is a unit release@.service already"),
        ("etc/passwd", "there is a user decant already that is not Decant's"),
        ("etc/passwd", "there is a user decant-build already that is not Decant's"),
    ],
)
def test_what_is_not_decants_is_refused_before_anything_changes(root: ThrowawayRoot, taken: str, message: str) -> None:
    user = "decant-build" if "decant-build" in message else "decant"
    root.write(taken, f"root:x:0:0::/root:/bin/sh\n{user}:x:1000:1000::/:/bin/sh\n")
    done = root.provision()
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert not root.exists("/var/lib/decant")


LISTEN = """
import socket, subprocess, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))):
    sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("port", ["80", "443"])
def test_a_port_that_another_program_holds_is_refused(request: pytest.FixtureRequest, port: str, ours: bool) -> None:
    """Also where our nginx is installed and does not run at the moment."""
    host: ThrowawayRoot = request.getfixturevalue("provisioned" if ours else "root")
    (host.path / "stub/active/nginx").unlink(missing_ok=True)
    before = left(host)
    done = host.provision(within=["/usr/bin/python3", "-c", LISTEN, port])
    assert done.returncode == 1
    assert f"port {port} is held by python3, and nginx needs it" in done.stderr
    assert left(host) == before


def test_ports_that_others_use_to_connect_are_free(root: ThrowawayRoot) -> None:
    assert root.provision(within=["/usr/bin/python3", "-c", LISTEN, "8080"]).returncode == 0


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
    assert work_folders(root) == []
    (run,) = [call for call in root.calls if call.startswith("systemd-run")]
    assert run.startswith("systemd-run --wait --pipe --collect --quiet --unit=decant-provision bash -c ")


def work_folders(root: ThrowawayRoot) -> list[str]:
    return [name for name in left(root) if name.startswith("run/decant-provision.") and "lock" not in name]


def test_the_step_fails_where_the_script_fails(root: ThrowawayRoot, copied: Path) -> None:
    root.stand_in("df", "printf ' Avail\\n 299\\n'")
    done = run_step(root)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert work_folders(root) == []


@pytest.mark.parametrize("home", [True, False])
@pytest.mark.parametrize("program", [True, False])
def test_the_remove_step_cleans_the_home_and_runs_the_program(
    root: ThrowawayRoot, copied: Path, home: bool, program: bool
) -> None:
    """A machine that was never provisioned has no program; neither is there always a copied tar."""
    if not home:
        copied.unlink()
        copied.parent.rmdir()
    if program:
        root.write("opt/decant/bin/decant-remove", '#!/bin/sh\necho removed "$@"\nexit 3\n').chmod(0o755)
    done = root.run("sh", "-c", f"cd /root && {steps.remove_step('web-1')}")
    assert (done.returncode, done.stdout) == ((3, "removed web-1\n") if program else (0, ""))
    assert not copied.parent.exists()


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
    assert work_folders(root) == []


@pytest.mark.parametrize("unit", ["decant-provision", "decant-base"])
def test_a_provisioning_that_runs_already_is_waited_for(root: ThrowawayRoot, copied: Path, unit: str) -> None:
    """Its connection may have ended; `decant-base` is its name in the release before."""
    root.write(f"stub/active/{unit}", "")
    done = run_step(root, f"(/usr/bin/sleep 1; echo ended >>/stub/calls; rm /stub/active/{unit}) & ")
    assert done.returncode == 0
    assert root.calls.index("ended") < root.calls.index("systemctl daemon-reload")


def test_two_steps_do_not_provision_at_once(root: ThrowawayRoot, copied: Path) -> None:
    """Both would leave the wait for the unit together, and one would fail to start it."""
    lock = "exec 8>/run/decant-provision.lock; flock 8; (/usr/bin/sleep 1; echo released >>/stub/calls) & exec 8>&-; "
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
        # A process chooses its own name. ss shows the owner of a socket that is not root's.
        (
            "listenaddress 0.0.0.0:22\n",
            "",
            'LISTEN 0 128 0.0.0.0:4477 0.0.0.0:* users:(("sshd-app",pid=9,fd=3)) uid:998 ino:1 sk:1 <->\n',
            "22",
        ),
    ],
    ids=["usual", "two ports", "ssh.socket", "session", "port of the app"],
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
    assert f"tcp dport {{ {ports}, 80, 443 }} accept" in root.read("/etc/decant/firewall.nft")
    (check,) = [
        n for n, call in enumerate(root.calls) if re.fullmatch(r"nft --check -f \S+/nftables/firewall\.nft", call)
    ]
    assert check < root.calls.index("systemctl restart decant-firewall")


def test_a_firewall_that_nft_refuses_is_not_installed(root: ThrowawayRoot) -> None:
    """If it were, the next run would find the file unchanged and report success."""
    root.stand_in("nft", "echo 'Error: syntax error' >&2; exit 1")
    for _ in range(2):
        done = root.provision(harden=True)
        assert (done.returncode, done.stderr) == (1, "Error: syntax error\n")
        assert not root.exists("/etc/decant/firewall.nft")
    assert not [call for call in root.calls if re.match("systemctl (restart|enable)", call)]


def test_sshd_is_asked_with_the_folder_that_it_needs(root: ThrowawayRoot) -> None:
    """Where systemd listens for sshd, nothing has made that folder since the boot."""
    needs = '[ -d /run/sshd ] || { echo "Missing privilege separation directory: /run/sshd" >&2; exit 255; }'
    root.stand_in("sshd", f'{needs}; [ "$1" != -T ] || cat /stub/sshd-T')
    done = root.provision(harden=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_sshd_is_reloaded_under_either_name_of_its_unit(root: ThrowawayRoot) -> None:
    without = '[ "$1 $2" != "try-reload-or-restart ssh.service" ] || exit 5'
    root.stand_in("systemctl", without + throwaway_root.STAND_INS["systemctl"])
    assert root.provision(harden=True).returncode == 0
    assert "systemctl try-reload-or-restart sshd.service" in root.calls


def test_a_port_that_a_reload_of_sshd_would_close_is_kept(root: ThrowawayRoot) -> None:
    """Somebody has changed sshd's port and not reloaded it: the stack's own connections would not come in any more."""
    line = 'LISTEN 0 128 {}:{} 0.0.0.0:* users:(("{}",pid=1,fd=3)){}\n'
    others = line.format("0.0.0.0", 8080, "other", "") + line.format("[::]", 4477, "sshd", " uid:998 ino:1")
    first_boots = root.write("etc/ssh/sshd_config.d/00-decant.conf", "PermitRootLogin no\n")
    for address in ("0.0.0.0", "[::]"):
        root.write("stub/ss", others + line.format(address, 2222, "sshd", ""))
        done = root.provision(harden=True)
        assert done.returncode == 1
        assert "sshd listens at port 2222, which its settings on the disk do not name any more" in done.stderr
        assert "pulumi config set --path 'decant:hosts[0].port' 2222" in done.stderr
        assert first_boots.read_text() == "PermitRootLogin no\n"
        assert not [call for call in root.calls if "ssh.service" in call or call.startswith("nft")]
    root.write("stub/ss", others + line.format("0.0.0.0", 22, "sshd", ""))
    assert root.provision(harden=True).returncode == 0


@pytest.mark.parametrize("socket", [True, False])
def test_an_sshd_that_systemd_listens_for_is_restarted(root: ThrowawayRoot, socket: bool) -> None:
    """After a reload it would end with "Cannot bind any address"."""
    if socket:
        root.write("stub/active/ssh.socket", "")
        root.write("stub/ssh-socket", "0.0.0.0:2222 (Stream)\n")
        root.write(
            "stub/ss", 'LISTEN 0 128 0.0.0.0:2222 0.0.0.0:* users:(("sshd",pid=9,fd=3),("systemd",pid=1,fd=4))\n'
        )
    call = f"systemctl {'try-restart' if socket else 'try-reload-or-restart'} ssh.service"
    for harden in (True, False, True, None):
        root.forget_calls()
        done = root.remove() if harden is None else root.provision(harden=harden)
        assert (done.returncode, done.stderr) == (0, "")
        assert [c for c in root.calls if re.search(r"try-.* sshd?\.service", c)] == [call]


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


@pytest.mark.parametrize("harden", [False, True])
def test_apt_is_called_with_these_options(root: ThrowawayRoot, harden: bool) -> None:
    """It waits for another apt, keeps the owner's files, asks nothing, and downloads to a place of its own."""
    settings = ' echo "with $DEBIAN_FRONTEND $LC_ALL" >>/stub/calls\n'
    text = root.read("stub/bin/apt-get").replace("#!/bin/sh\n", f"#!/bin/sh\n{settings}")
    root.write("stub/bin/apt-get", text)
    assert root.provision(harden=harden).returncode == 0
    always = (
        "apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold"
        " -o Dir::Cache=/var/cache/decant-apt -o Acquire::Languages=none"
        " -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o APT::Update::Error-Mode=any"
        " -o APT::Cmd::Pattern-Only=true "
    )
    hook = "awk '$2 == \"-\" && $5 ~ /[.]deb$/ { print $1 }' >>/var/lib/decant/packages-added || true"
    install = (
        f"{always}--config-file=/var/cache/decant-apt/apt.conf -o DPkg::Pre-Install-Pkgs::={hook}"
        " -o DPkg::Tools::Options::awk::Version=2 install --no-install-recommends "
    )
    services = "iproute2 nftables nginx" if harden else "iproute2 nginx"
    assert [call for call in root.calls if call.startswith("apt-get")] == [
        f"{always}update",
        f"{install}ca-certificates python3 python3-pip-whl",
        f"{install}{services}",
    ]
    assert {call for call in root.calls if call.startswith("with")} == {"with noninteractive C"}
    assert not root.exists("/var/cache/decant-apt")


def test_all_of_apts_calls_together_have_one_time_limit(root: ThrowawayRoot) -> None:
    late = manifest.read("scripts/packages.sh").decode().replace("apt_seconds=1500", "apt_seconds=1500 SECONDS=1000")
    root.stand_in("timeout", 'shift; exec "$@"')
    assert root.provision(files={"scripts/packages.sh": late.encode()}).returncode == 0
    limits = [int(call.split()[1]) for call in root.calls if call.startswith("timeout")]
    assert len(limits) == 3
    assert all(400 < limit <= 500 for limit in limits)


def test_the_wait_for_a_lock_does_not_count_for_that_limit(root: ThrowawayRoot) -> None:
    root.write("stub/lists-locked", "\n" * 50)
    root.stand_in("sleep", "")
    root.stand_in("timeout", 'shift; exec "$@"')
    assert root.provision().returncode == 0
    limits = [int(call.split()[1]) for call in root.calls if call.startswith("timeout")]
    assert len(limits) == 53
    assert all(1500 + 50 - 30 < limit <= 1500 + 50 for limit in limits[-3:])


@pytest.mark.parametrize(
    ("hooks", "config"),
    [
        ("/usr/sbin/dpkg-preconfigure --apt || true", "#clear DPkg::Pre-Install-Pkgs;\n"),
        ("/usr/sbin/dpkg-preconfigure --apt || true\n/usr/local/bin/theirs", ""),
        ("", ""),
    ],
    ids=["debconf alone", "the owner's too", "none"],
)
def test_only_debconfs_hook_is_left_out(root: ThrowawayRoot, hooks: str, config: str) -> None:
    root.write("stub/hooks", hooks)
    root.stand_in("apt-config", "cat /stub/hooks")
    copy = "cp /var/cache/decant-apt/apt.conf /stub/apt.conf 2>/dev/null\n"
    root.write("stub/bin/apt-get", root.read("stub/bin/apt-get").replace("#!/bin/sh\n", f"#!/bin/sh\n{copy}"))
    assert root.provision().returncode == 0
    assert root.read("stub/apt.conf") == config


def test_no_package_is_installed_that_lay_in_the_download_folder(root: ThrowawayRoot) -> None:
    """apt trusts a file there that has the right size."""
    root.write("var/cache/decant-apt/archives/nginx_1.0_amd64.deb", "")
    look = "ls /var/cache/decant-apt/archives >>/stub/archives\n"
    root.write("stub/bin/apt-get", root.read("stub/bin/apt-get").replace("#!/bin/sh\n", f"#!/bin/sh\n{look}"))
    assert root.provision().returncode == 0
    assert set(root.read("stub/archives").split()) == {"partial"}


@pytest.mark.parametrize(("hours", "updates"), [(23, 0), (49, 1)])
def test_package_lists_are_updated_when_they_are_old(provisioned: ThrowawayRoot, hours: int, updates: int) -> None:
    made = time.time() - hours * 3600
    os.utime(provisioned.path / "var/lib/apt/lists/mirror_Packages", (made, made))
    provisioned.forget_calls()
    assert provisioned.run("bash", "/opt/decant/bin/decant-packages", "logrotate").returncode == 0
    assert len(apt_calls(provisioned, "update")) == updates
    assert "logrotate" in provisioned.read("stub/installed").split()


def test_lists_that_name_replaced_packages_are_updated(provisioned: ThrowawayRoot) -> None:
    provisioned.write("stub/replaced", "")
    provisioned.forget_calls()
    done = provisioned.run("bash", "/opt/decant/bin/decant-packages", "logrotate")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(apt_calls(provisioned, "update")) == 1
    assert "logrotate" in provisioned.read("stub/installed").split()


def test_a_package_of_which_only_the_configuration_is_left_is_installed(root: ThrowawayRoot) -> None:
    root.stand_in("dpkg-query", "echo 'rc  nginx'; sed 's/^/ii  /' /stub/installed")
    assert root.provision().returncode == 0
    assert "nginx" in root.read("stub/installed").split()


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
    root.write("stub/lists-locked", "\n")
    done = root.provision()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(apt_calls(root, "update")) == 2


HOLD = """
import fcntl, subprocess, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""
DPKG_LOCKED = {
    "lock-frontend": "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another",
    "lock": "E: Unable to lock the administration directory (/var/lib/dpkg/), is another process using it?",
}


@pytest.mark.parametrize("lock", ["/var/lib/apt/lists/lock", "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"])
def test_who_does_not_let_go_of_a_lock_is_named(root: ThrowawayRoot, lock: str) -> None:
    (root.path / "var/lib/apt/lists").mkdir(parents=True)
    if "apt" in lock:
        root.write("stub/lists-locked", "\n" * 9)
    else:
        root.write("stub/install-fails", DPKG_LOCKED[Path(lock).name] + "\n")
    impatient = manifest.read("scripts/packages.sh").decode().replace("lock_wait=300 ", "lock_wait=0 ")
    within = ["/usr/bin/python3", "-c", HOLD, lock]
    done = root.provision(files={"scripts/packages.sh": impatient.encode()}, within=within)
    assert done.returncode == 1
    assert re.search(rf"python3\S* \(process \d+\) has held the lock {lock} for 0 minutes", done.stderr), done.stderr
    assert "mirror" not in done.stderr
    assert len(apt_calls(root, "update") + apt_calls(root, "install")) == (1 if "apt" in lock else 2)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("Failed to fetch http://mirror/x  Could not connect to mirror:80", "does not reach its package mirror"),
        ("Failed to fetch http://mirror/x  Connection failed", "does not reach its package mirror"),
        ("Failed to fetch http://mirror/x  Could not resolve 'mirror'", "The machine cannot look up names"),
        ("Release file for http://x is not valid yet (invalid for another 2h)", "Is the clock of the machine right?"),
        ("Release file for http://x is expired (invalid since 9d)", "Is the clock of the machine right?"),
        ("The repository 'http://x' does not have a Release file.", "Correct that entry in /etc/apt/sources.list"),
        ("write (28: No space left on device)", "The disk is full"),
        ("open (30: Read-only file system)", "mounted read-only"),
        ("Something else", "Try on the machine: apt-get update"),
    ],
)
def test_the_cause_of_lists_that_cannot_be_read_is_told_once(root: ThrowawayRoot, said: str, advice: str) -> None:
    root.write("stub/update-fails", f"W: noise\nE: {said}\n")
    done = root.provision()
    assert done.returncode == 1
    assert f"apt-get update failed: E: {said}\n" in done.stderr
    assert advice in done.stderr
    assert "run pulumi up again" in done.stderr
    assert ("mirror." in done.stderr) == ("reach" in advice)
    assert len(apt_calls(root, "update")) == 1


WARNING = (
    "{}: warning: apt-get update failed, so packages may be older than their security updates: E: {}\n"
    "  Correct that entry in /etc/apt/sources.list or /etc/apt/sources.list.d, or remove it.\n"
)


def test_a_broken_source_of_the_owners_stops_nothing_and_is_told(root: ThrowawayRoot) -> None:
    root.write("stub/broken-source", "W: x\nE: The repository 'http://theirs' does not have a Release file.\n")
    done = root.provision()
    warning = WARNING.format(socket.gethostname(), "The repository 'http://theirs' does not have a Release file.")
    assert (done.returncode, done.stderr) == (0, warning)
    assert "nginx" in root.read("stub/installed").split()


def test_lists_that_could_not_be_updated_are_told_once_where_the_old_ones_are_enough(root: ThrowawayRoot) -> None:
    """As with a false signature: apt keeps the lists of before, and each installation tries again."""
    said = "The repository 'http://mirror' is not signed."
    root.write("stub/bin/apt-get", root.read("stub/bin/apt-get").replace("mkdir -p /var/lib/apt/lists; touch", "true"))
    root.write("stub/broken-source", f"E: {said}\n")
    done = root.provision()
    assert (done.returncode, done.stderr) == (0, WARNING.format(socket.gethostname(), said))
    assert len(apt_calls(root, "update")) == 2
    alone = root.run("bash", "/opt/decant/bin/decant-packages", "logrotate")
    assert (alone.returncode, alone.stderr) == (0, WARNING.format(socket.gethostname(), said))
    (root.path / "stub/broken-source").unlink()
    assert root.run("bash", "/opt/decant/bin/decant-packages", "cron").stderr == ""


def test_a_failed_installation_is_told_with_its_own_words(root: ThrowawayRoot) -> None:
    root.write("stub/install-fails", "E: nginx has unmet dependencies\n")
    done = root.provision()
    assert done.returncode == 1
    assert (
        "apt-get install ca-certificates python3 python3-pip-whl failed: E: nginx has unmet dependencies" in done.stderr
    )
    assert "Try on the machine: apt-get install ca-certificates python3 python3-pip-whl\n" in done.stderr


def test_an_interrupted_dpkg_is_finished_first(root: ThrowawayRoot) -> None:
    root.write("stub/interrupted", "")
    done = root.provision()
    assert (done.returncode, done.stderr) == (0, "")
    assert "dpkg --force-confold --configure -a" in root.calls


HALF_UNPACKED = "rm -f /stub/interrupted; echo 'dpkg: error processing package libffi8 (--configure):'; exit 1"


def test_a_package_that_was_half_unpacked_is_left_to_apt(root: ThrowawayRoot) -> None:
    """dpkg does not configure it, and apt unpacks it again."""
    root.write("stub/interrupted", "")
    root.stand_in("dpkg", HALF_UNPACKED)
    known = """case "$3" in *Eflag*) echo 'ok adduser'; echo 'reinstreq libffi8' ;;"""
    root.stand_in(
        "dpkg-query", known + """ *Status*) sed 's/^/ii  /' /stub/installed ;; *) cat /stub/installed ;; esac"""
    )
    done = root.provision()
    assert (done.returncode, done.stderr) == (0, "")
    mended = root.calls.index("dpkg --force-confold --configure -a")
    again, *others = [call for call in root.calls[mended:] if " install " in call]
    words = " install --reinstall --no-install-recommends ca-certificates python3 python3-pip-whl libffi8"
    assert again.endswith(words)
    assert not [call for call in others if "--reinstall" in call]


def test_an_interrupted_dpkg_that_apt_cannot_mend_is_told(root: ThrowawayRoot) -> None:
    root.write("stub/interrupted", "")
    root.stand_in("dpkg", f"echo 'E: no archive' >/stub/install-fails; {HALF_UNPACKED}")
    done = root.provision()
    assert done.returncode == 1
    assert "dpkg was interrupted here before, and cannot go on: dpkg: error processing package libffi8" in done.stderr
    assert "Try on the machine: dpkg --configure -a\n" in done.stderr


def test_a_mirror_that_hangs_times_out(root: ThrowawayRoot) -> None:
    """With all of apt's calls together."""
    slow = manifest.read("scripts/packages.sh").decode().replace("apt_seconds=1500", "apt_seconds=1")
    root.stand_in("apt-get", "exec /usr/bin/sleep 30")
    done = root.provision(files={"scripts/packages.sh": slow.encode()})
    assert done.returncode == 1
    assert "installing packages was given up after" in done.stderr


def test_two_installations_do_not_run_at_once(provisioned: ThrowawayRoot) -> None:
    lock = "exec 9>/run/decant-packages.lock; flock 9; (/usr/bin/sleep 1; echo released >>/stub/calls) & exec 9>&-; "
    provisioned.forget_calls()
    assert provisioned.run("bash", "-c", lock + "bash /opt/decant/bin/decant-packages logrotate").returncode == 0
    calls = provisioned.calls
    (install,) = [at for at, call in enumerate(calls) if call.endswith(" logrotate")]
    assert calls.index("released") < install


# ------------------------------------------------------------------------------------------------ remove.sh


@pytest.mark.parametrize("harden", [False, True])
def test_remove_takes_away_all_that_provision_brought(root: ThrowawayRoot, harden: bool) -> None:
    before, passwd, group = left(root), root.read("etc/passwd"), root.read("etc/group")
    assert root.provision(harden=harden).returncode == 0
    root.forget_calls()
    done = root.remove()
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"removed": true}\n', "")
    kept = {"var/lib/apt", "var/lib/apt/lists", "run/sshd"}
    assert sorted(set(left(root)) - set(before) - kept) == []
    assert (root.read("etc/passwd"), root.read("etc/group")) == (passwd, group)
    assert root.read("stub/installed") == ""
    assert ("systemctl try-reload-or-restart ssh.service" in root.calls) == harden
    for call in ("systemctl stop nginx", "systemctl disable --quiet nginx", "systemctl daemon-reload"):
        assert call in root.calls


def test_remove_stops_and_purges_in_this_order(provisioned: ThrowawayRoot) -> None:
    """The boot unit and timers before what they would start again."""
    provisioned.forget_calls()
    assert provisioned.remove().returncode == 0
    verbs = ("stop", "disable", "reset-failed", "daemon-reload", "try-reload-or-restart")
    assert [call for call in provisioned.calls if call.startswith("systemctl") and call.split()[1] in verbs] == [
        "systemctl stop decant-*.timer decant-revert-*.service decant-unclaimed-*.service decant-certificate",
        "systemctl disable --quiet --now decant-boot decant-firewall decant-certificate.timer",
        "systemctl stop app@*.service release@*.service decant-run-*.service",
        "systemctl reset-failed app@*.service release@*.service decant-*",
        "systemctl stop nginx",
        "systemctl disable --quiet nginx",
        "systemctl daemon-reload",
    ]
    assert apt_calls(provisioned, "purge")[1:] == [
        "apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-remove-reinstreq"
        " -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
        " purge ca-certificates iproute2 nginx python3 python3-pip-whl"
    ]


def test_remove_disables_nginx_that_came_with_decant_after_many_provisionings(provisioned: ThrowawayRoot) -> None:
    """Whether it was enabled counts from before the first one."""
    assert provisioned.provision().returncode == 0
    provisioned.forget_calls()
    assert provisioned.remove().returncode == 0
    assert "systemctl disable --quiet nginx" in provisioned.calls


def test_remove_says_which_packages_stay_and_may_be_repeated(provisioned: ThrowawayRoot) -> None:
    works = provisioned.read("stub/bin/apt-get")
    provisioned.write(
        "stub/bin/apt-get",
        works.replace('*" purge "*)', '*" -qq "*" purge "*) echo "E: it is held" >&2; exit 100 ;; x)'),
    )
    done = provisioned.remove()
    assert done.returncode == 1
    assert "could not remove all of: ca-certificates iproute2 nginx python3 python3-pip-whl" in done.stderr
    assert "E: it is held\n" in done.stderr
    assert provisioned.read("var/lib/decant/packages-added"), "the next run needs it"
    provisioned.write("stub/bin/apt-get", works)
    again = provisioned.remove()
    assert (again.returncode, again.stdout, again.stderr) == (0, '{"removed": true}\n', "")
    assert provisioned.read("stub/installed") == ""
    assert [name for name in left(provisioned) if "decant" in name] == []


def test_remove_finishes_what_was_cut_short_at_its_very_end(provisioned: ThrowawayRoot) -> None:
    provisioned.run("rm", "-rf", "/var/lib/decant")
    provisioned.forget_calls()
    assert provisioned.remove().returncode == 0
    assert not provisioned.exists("/opt/decant")
    assert [call for call in provisioned.calls if "nginx" in call] == [], "it is somebody else's by then"


def test_remove_finishes_an_interrupted_dpkg_first(provisioned: ThrowawayRoot) -> None:
    provisioned.forget_calls()
    assert provisioned.remove().returncode == 0
    calls = provisioned.calls
    (purge,) = apt_calls(provisioned, "-qq -o DPkg::Lock::Timeout=300")
    assert calls.index("dpkg --force-confold --configure -a") < calls.index(purge)


def test_remove_takes_what_packages_leave_behind_and_no_file_of_others(provisioned: ThrowawayRoot) -> None:
    packages = "nginx-common\nunattended-upgrades\nlogrotate\npython3-minimal\n"
    for name in ("stub/installed", "var/lib/decant/packages-added"):
        provisioned.write(name, provisioned.read(name) + packages)
    gone = [
        "var/log/nginx/access.log.1", "var/log/nginx/error.log", "var/www/html/index.nginx-debian.html",
        "var/lib/systemd/timers/stamp-logrotate.timer", "run/unattended-upgrades.lock",
        "var/log/unattended-upgrades/unattended-upgrades.log", "stub/usr/lib/python3/apt/__pycache__/x.pyc",
        "var/lib/ucf/hashfile.0", "var/lib/ucf/registry.2", "var/cache/debconf/config.dat-old",
    ]  # fmt: skip
    kept = [
        "var/log/nginx/theirs.log", "var/log/unattended-upgrades/theirs.log", "stub/usr/lib/python3/theirs/x.py",
        "var/lib/ucf/hashfile", "var/cache/debconf/theirs.dat", "var/lib/apt/lists/lock",
    ]  # fmt: skip
    for name in [*gone, *kept]:
        provisioned.write(name, "")
    script = provisioned.read("/opt/decant/bin/decant-remove")
    provisioned.write("opt/decant/bin/decant-remove", script.replace(" /usr/lib/python3 ", " /stub/usr/lib/python3 "))
    assert script.count(" /usr/lib/python3 ") == 1, "that of this computer stays as it is"
    provisioned.forget_calls()
    done = provisioned.remove()
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in gone if provisioned.exists(name)] == []
    assert [name for name in kept if not provisioned.exists(name)] == []
    assert not provisioned.exists("var/www")
    assert not provisioned.exists("stub/usr/lib/python3/apt")
    assert "systemctl stop unattended-upgrades" in provisioned.calls


def test_remove_keeps_backups_that_were_there_before(root: ThrowawayRoot) -> None:
    theirs, ours = root.write("var/lib/ucf/hashfile.0", ""), root.path / "var/lib/ucf/hashfile.1"
    backup = "mkdir -p /var/lib/ucf; touch /var/lib/ucf/hashfile.1\n"
    root.write("stub/bin/apt-get", root.read("stub/bin/apt-get").replace("#!/bin/sh\n", f"#!/bin/sh\n{backup}"))
    assert root.provision().returncode == 0
    assert ours.exists()
    assert root.remove().returncode == 0
    assert (theirs.exists(), ours.exists()) == (True, False)


def test_remove_takes_the_machine_out_of_rotation_first(provisioned: ThrowawayRoot) -> None:
    provisioned.write("opt/decant/bin/decant-host", '#!/bin/sh\necho "decant-host $*" >>/stub/calls\n')
    provisioned.forget_calls()
    assert provisioned.remove().returncode == 0
    calls = provisioned.calls
    stop = calls.index("systemctl stop app@*.service release@*.service decant-run-*.service")
    assert calls.index("decant-host drain") < stop


def test_remove_leaves_a_host_alone_that_has_another_name_by_now(provisioned: ThrowawayRoot) -> None:
    """It was renamed in `decant:hosts`: it is set up under its new name before the clean-up of the old one runs."""
    settings = provisioned.path / "etc/decant/settings.json"
    settings.write_text(settings.read_text().replace('"machine": "web-2"', '"machine": "web-2.0a1b2c3d"'))
    provisioned.forget_calls()
    done = provisioned.run("bash", "/opt/decant/bin/decant-remove", "web-20")
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"removed": false}\n', "")
    assert provisioned.calls == []
    assert provisioned.exists("var/lib/decant/releases")
    done = provisioned.run("bash", "/opt/decant/bin/decant-remove", "web-2")
    assert (done.returncode, done.stdout) == (0, '{"removed": true}\n')
    assert not provisioned.exists("var/lib/decant")


def test_remove_may_be_repeated(provisioned: ThrowawayRoot) -> None:
    script = provisioned.write("root/remove.sh", provisioned.read("/opt/decant/bin/decant-remove"))
    assert provisioned.run("bash", f"/root/{script.name}").returncode == 0
    provisioned.forget_calls()
    assert provisioned.run("bash", f"/root/{script.name}").returncode == 0
    (start,) = provisioned.calls
    assert start.startswith("systemd-run"), "what the machine has got since is left alone"


def test_remove_waits_for_an_installation_that_is_under_way(provisioned: ThrowawayRoot) -> None:
    lock = "exec 9>/run/decant-packages.lock; flock 9; (/usr/bin/sleep 1; echo released >>/stub/calls) & exec 9>&-; "
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
    assert root.provision().returncode == 0
    root.forget_calls()
    assert root.remove().returncode == 0
    assert root.read("stub/installed").split() == ["nginx", "ca-certificates"]
    assert "systemctl disable --quiet nginx" in root.calls, "it was not enabled before"
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


def test_the_program_passes_on_what_it_says_and_its_status(provisioned: ThrowawayRoot) -> None:
    code = "import sys\nprint('why', file=sys.stderr)\nsys.exit(7)\n"
    provisioned.write("opt/decant/python/decant_host/__main__.py", code)
    done = provisioned.run("sh", steps.PROGRAM, "status")
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "why\n")


def test_the_program_imports_nothing_of_the_current_folder_or_the_home(provisioned: ThrowawayRoot) -> None:
    """A user who may run it as root must not choose what root runs."""
    provisioned.write("opt/decant/python/decant_host/__main__.py", "print('ours')\n")
    wrong = "print('wrong')\n"
    provisioned.write("tmp/decant_host/__init__.py", "")
    provisioned.write("tmp/decant_host/__main__.py", wrong)
    provisioned.write("tmp/runpy.py", wrong)
    where = ("/usr/bin/python3", "-c", "import site; print(site.getusersitepackages())")
    site = provisioned.run(*where).stdout.strip()
    assert site.startswith("/root/")
    provisioned.write(f"{site[1:]}/usercustomize.py", wrong)
    done = provisioned.run("sh", "-c", f"cd /tmp && sh {steps.PROGRAM} status")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ours\n", "")


def test_only_stage_gives_way_to_the_app_that_serves(provisioned: ThrowawayRoot) -> None:
    code = """
import os, pathlib
group = pathlib.Path("/proc/self/autogroup")
print(os.nice(0), group.read_text().split()[-1] if group.exists() else None)
"""
    provisioned.write("opt/decant/python/decant_host/__main__.py", code)
    # A session of its own has a group of its own.
    found = [
        provisioned.run("setsid", "--wait", "sh", steps.PROGRAM, command).stdout.split()
        for command in ("stage", "status")
    ]
    grouped = Path("/proc/self/autogroup").exists()
    assert found == [["10", "10" if grouped else "None"], [str(os.nice(0)), "0" if grouped else "None"]]


def test_packages_that_are_being_downloaded_by_another_instance_stay(provisioned: ThrowawayRoot) -> None:
    """The steps `updates` and `stage` install at the same time."""
    provisioned.write("var/cache/decant-apt/archives/partial/x.deb", "")
    line = "exec 9>/run/decant-packages.lock; flock 9; /opt/decant/bin/decant-packages nginx 9>&-"
    assert provisioned.run("bash", "-c", line).returncode == 0
    assert provisioned.exists("var/cache/decant-apt/archives/partial/x.deb")
    assert provisioned.run("/opt/decant/bin/decant-packages", "nginx").returncode == 0
    assert not provisioned.exists("var/cache/decant-apt")
