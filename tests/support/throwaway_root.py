"""A machine's file system for the scripts that run on machines, with stand-ins for the commands of the system.

A script runs in a mount namespace of its own, changed into the throwaway root: /usr is this computer's, and everything
that a script writes is below the root. Where a stand-in has the name of a system's command, it comes first, and notes
its command line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from decant.host import manifest
from tests.support.host_files import SHAPES, provision
from tests.support.in_memory import carried

STAND_INS = {
    "systemctl": """
        case "$1" in
            is-active) for unit; do :; done; [ -e "/stub/active/${unit%.service}" ] ;;
            is-enabled)
                for unit; do :; done
                state=disabled
                [ ! -e "/stub/enabled/$unit" ] || state=enabled
                [ "$2" = --quiet ] || echo $state
                [ $state = enabled ] ;;
            enable) for unit; do :; done; touch "/stub/enabled/$unit" ;;
            disable) shift; for unit; do rm -f "/stub/enabled/$unit" "/stub/active/$unit"; done ;;
            restart) touch "/stub/active/$2" ;;
            show) cat /stub/ssh-socket ;;
        esac""",
    "systemd-run": """while [ "$1" != bash ]; do shift; done; exec "$@" """,
    "apt-config": "echo '/usr/sbin/dpkg-preconfigure --apt || true'",
    "dpkg-query": """
        case "$3" in
            *Status*) sed 's/^/ii  /' /stub/installed ;;
            *) cat /stub/installed ;;
        esac""",
    "dpkg": "rm -f /stub/interrupted",
    # As apt does, it gives what it is about to install to the hook before it installs.
    "apt-get": """
        for argument; do case $argument in DPkg::Pre-Install-Pkgs::=*) hook=${argument#*::=} ;; esac; done
        case " $* " in
            *" update "*)
                if [ -s /stub/lists-locked ]; then # as often as it has lines
                    sed -i 1d /stub/lists-locked
                    echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)' >&2
                    exit 100
                fi
                if [ -e /stub/update-fails ]; then cat /stub/update-fails; exit 100; fi
                mkdir -p /var/lib/apt/lists; touch /var/lib/apt/lists/mirror_Packages; rm -f /stub/replaced
                if [ -e /stub/broken-source ]; then cat /stub/broken-source; exit 100; fi ;;
            *" install "*)
                if [ -e /stub/install-fails ]; then cat /stub/install-fails; exit 100; fi
                if [ -e /stub/update-fails ]; then echo 'E: Unable to locate package'; exit 100; fi
                if [ -e /stub/replaced ]; then echo 'E: Failed to fetch: 404 Not Found'; exit 100; fi
                if [ -e /stub/interrupted ]; then
                    echo "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem."
                    exit 100
                fi
                while [ "$1" != --no-install-recommends ]; do shift; done; shift
                for package; do
                    echo "$package - < 1.0 /cache/$package.deb" | sh -c "$hook"
                    echo "$package" >>/stub/installed
                done ;;
            *" --simulate purge "*)
                while [ "$1" != purge ]; do shift; done; shift
                for package; do
                    echo "Purg $package [1.0]"
                    sed -n "s/^$package /Purg /p" /stub/dependants
                done ;;
            *" purge "*)
                while [ "$1" != purge ]; do shift; done; shift
                for package; do sed -i "/^$package\\$/d" /stub/installed; done ;;
        esac""",
    "useradd": """for name; do :; done; echo "$name:x:999:999::/:/" >>/etc/passwd; echo "$name:x:999:" >>/etc/group""",
    "userdel": """sed -i "/^$1:/d" /etc/passwd""",
    "groupdel": """sed -i "/^$1:/d" /etc/group""",
    "gpasswd": """[ "$1" != --add ] || sed -i "s/^$3:.*/&$2/" /etc/group""",
    "nginx": """
        if [ "$1" = -v ]; then echo 'nginx version: nginx/1.26.3 (Debian)' >&2; exit; fi
        if [ "$1" = -V ]; then
            { echo 'nginx version: nginx/1.26.3'; echo 'built with OpenSSL 3.5.4 30 Sep 2025'; } >&2; exit
        fi
        while [ $# -gt 1 ] && [ "$1" != -c ]; do shift; done
        if grep -q REFUSED "${2:-/etc/nginx/nginx.conf}"; then echo 'unknown directive "REFUSED"' >&2; exit 1; fi""",
    "nft": "",
    "sshd": """
        if [ "$1" = -T ]; then cat /stub/sshd-T; exit; fi
        if [ -e /stub/sshd-refuses ]; then echo 'sshd_config line 9: Bad configuration option' >&2; exit 255; fi""",
    "ss": "cat /stub/ss",
    "journalctl": "echo 'its last lines'",
    # A script that waits asks again soon.
    "sleep": "exec /usr/bin/sleep 0.1",
    "decant-host": "",
    # pip, which installs uv.
    "python3": """
        while [ $# -gt 1 ] && [ "$1" != --target ]; do shift; done
        [ $# -le 1 ] || { mkdir -p "$2/bin"; cp /stub/uv "$2/bin/uv"; chmod +x "$2/bin/uv"; }""",
}
# uv, which makes a virtual environment for the ACME client.
UV = """#!/bin/sh
echo "uv $*" >>/stub/calls
[ "$1" = venv ] || exit 0
for folder; do :; done
mkdir -p "$folder/bin"
printf '#!/bin/sh\\n' >"$folder/bin/python"
echo "#!$folder/bin/python" >"$folder/bin/certbot"
chmod +x "$folder/bin/python"
"""
MOUNTS = """set -e
root=$1; shift
mount --rbind /usr "$root/usr"
for folder in usr/sbin usr/local/sbin; do mount --bind "$root/stub/bin" "$root/$folder"; done
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
exec chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/bin "$@"
"""


class ThrowawayRoot:
    """`calls` lists the command lines of all stand-ins, in order."""

    def __init__(self, folder: Path, template: ThrowawayRoot | None = None) -> None:
        self.path = folder / "root"
        self.files = self.path / "root" / "files"
        if template:
            shutil.copytree(template.path, self.path, symlinks=True)
        else:
            self._fill()

    def _fill(self) -> None:
        for name in (
            "usr", "dev", "proc", "etc/systemd/system", "etc/ssh/sshd_config.d", "etc/apt/apt.conf.d", "run", "tmp",
            "var/lib/dpkg", "var/cache", "opt", "root", "stub/bin", "stub/active", "stub/enabled",
        ):  # fmt: skip
            (self.path / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            (self.path / name).symlink_to(f"usr/{name}")
        # /usr/bin/awk leads there, and on from there to what is installed.
        (self.path / "etc" / "alternatives").mkdir()
        (self.path / "etc" / "alternatives" / "awk").symlink_to(Path("/usr/bin/awk").resolve())
        self.write("etc/passwd", "root:x:0:0::/root:/bin/bash\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n")
        self.write("etc/group", "root:x:0:\nwww-data:x:33:\n")
        for name in ("installed", "dependants", "ss", "ssh-socket", "calls"):
            self.write(f"stub/{name}", "")
        self.write("stub/sshd-T", "port 22\nlistenaddress 0.0.0.0:22\nlistenaddress [::]:22\n")
        self.write("stub/uv", UV)
        for name, body in STAND_INS.items():
            self.stand_in(name, body)

    def stand_in(self, name: str, body: str) -> None:
        """Give a command another behaviour."""
        path = self.path / "stub" / "bin" / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>/stub/calls\n{body}\n')
        path.chmod(0o755)

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def read(self, name: str) -> str:
        return (self.path / name.lstrip("/")).read_text()

    def exists(self, name: str) -> bool:
        return (self.path / name.lstrip("/")).exists()

    def mode(self, name: str) -> str:
        return f"{(self.path / name.lstrip('/')).stat().st_mode & 0o7777:04o}"

    @property
    def calls(self) -> list[str]:
        return self.read("stub/calls").splitlines()

    def forget_calls(self) -> None:
        self.write("stub/calls", "")

    def run(self, *command: str, input: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        own = [] if os.geteuid() == 0 else ["--map-root-user"]
        argv = ["unshare", *own, "--mount", "--net", "sh", "-c", MOUNTS, "sh", str(self.path), *command]
        return subprocess.run(argv, input=input, capture_output=True, text=True, check=False, timeout=60)

    def provision(
        self,
        *,
        stack: str = "blue",
        harden: bool = False,
        nginx: str = "",
        files: dict[str, bytes] | None = None,
        within: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run provision.sh as the step's script does, with the real files unless others are given.

        `within` is a command that runs the command line that follows it.
        """
        shutil.rmtree(self.files, ignore_errors=True)
        own = carried(provision(**SHAPES["plain"])[1])
        for name, content in {**manifest.files(), **own, **(files or {})}.items():
            (self.files / name).parent.mkdir(parents=True, exist_ok=True)
            (self.files / name).write_bytes(content)
        if nginx:
            (self.files / "nginx.conf").write_text(nginx)
        hardened = str(harden).lower()
        command = ["bash", "/root/files/scripts/provision.sh", stack, "root", hardened, "0123456789ab"]
        return self.run(*within, *command)

    def remove(self) -> subprocess.CompletedProcess[str]:
        return self.run("bash", "/opt/decant/bin/decant-remove")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ThrowawayRoot:
    """An empty root. Tests get copies of it."""
    made = ThrowawayRoot(tmp_path_factory.mktemp("empty"))
    if (done := made.run("true")).returncode != 0:
        pytest.skip(f"this computer lets nobody but root make a mount namespace: {done.stderr}")
    return made


@pytest.fixture
def root(tmp_path: Path, template: ThrowawayRoot) -> ThrowawayRoot:
    return ThrowawayRoot(tmp_path, template)


@pytest.fixture(scope="module")
def provisioned_template(tmp_path_factory: pytest.TempPathFactory, template: ThrowawayRoot) -> ThrowawayRoot:
    """A root that provision.sh has run in once, which takes far longer than a copy of the result."""
    made = ThrowawayRoot(tmp_path_factory.mktemp("provisioned"), template)
    done = made.provision()
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def provisioned(tmp_path: Path, provisioned_template: ThrowawayRoot) -> ThrowawayRoot:
    return ThrowawayRoot(tmp_path, provisioned_template)
