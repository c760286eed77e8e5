"""The files that make one throwaway machine different from its image: name, network, keys and first-boot data."""

from __future__ import annotations

import configparser
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from rehearsal.errors import RehearsalError
from rehearsal.this_host import command

# First-boot data holds private keys, the address of a package index may hold a password.
_PRIVATE = ("var/lib/cloud/seed/nocloud/user-data", "root/.ssh/authorized_keys", "etc/ssh/ssh_host_ed25519_key")


def write_files(upper: Path, image: Path, files: dict[str, str]) -> None:
    """Write files into the upper layer of a machine that is off. Their names have no first slash."""
    for name, text in files.items():
        # A folder in the upper layer hides the image's folder with its mode, so copy the mode.
        for part in [*reversed(Path(name).parent.parents), Path(name).parent]:
            if not (upper / part).exists():
                (upper / part).mkdir(mode=0o700 if part.name == ".ssh" else 0o755)
                if (image / part).exists():
                    shutil.copystat(image / part, upper / part)
        (upper / name).write_text(text)
        (upper / name).chmod(0o600 if name in _PRIVATE else 0o644)


def identity(name: str, address: str, gateway: str, prefix: int) -> dict[str, str]:
    """Return the files that give a machine its name, its address and its gateway."""
    return {
        "etc/machine-id": secrets.token_hex(16) + "\n",
        "etc/hostname": name + "\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/resolv.conf": _name_servers(),
        # Waiting for an IPv6 link-local address would add 1.6 s to each boot.
        "etc/systemd/network/10-host0.network": (
            f"[Match]\nName=host0\n\n[Link]\nMTUBytes={_uplink_mtu()}\n\n"
            f"[Network]\nAddress={address}/{prefix}\nGateway={gateway}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        ),
    }


def first_boot(name: str, user_data: str | None, authorized_key: str | None) -> dict[str, str]:
    """Return the files that cloud-init reads (its NoCloud data source)."""
    metadata: dict[str, object] = {"instance-id": f"i-{secrets.token_hex(8)}", "local-hostname": name}
    if authorized_key is not None:
        metadata["public-keys"] = [authorized_key.strip()]
    seed = "var/lib/cloud/seed/nocloud"
    return {f"{seed}/meta-data": json.dumps(metadata), f"{seed}/user-data": user_data or "#cloud-config\n{}\n"}


def root_login(folder: Path, authorized_key: str | None) -> dict[str, str]:
    """Return a new host key and root's authorized key as files. `folder` is used for temporary files."""
    key = folder / "host_key"
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key))
    public = key.with_suffix(".pub")
    files = {"etc/ssh/ssh_host_ed25519_key": key.read_text(), "etc/ssh/ssh_host_ed25519_key.pub": public.read_text()}
    key.unlink()
    public.unlink()
    if authorized_key is not None:
        files["root/.ssh/authorized_keys"] = authorized_key.strip() + "\n"
    return files


def package_sources() -> dict[str, str]:
    """Return settings of apt, pip and uv for the proxy, the package index and the certificates of this computer."""
    files = {}
    if (proxy := apt_proxy()) and "//127." not in proxy and "//localhost" not in proxy:
        files["etc/apt/apt.conf.d/90-proxy"] = proxy + "\n"
    pip, uv = [], []
    if extra_certificates():
        pip.append("cert = /etc/ssl/certs/ca-certificates.crt")
        uv.append("native-tls = true")  # uv trusts a list of its own otherwise
    index = next(_indexes(), None)
    if index is not None:
        pip.append(f"index-url = {index}")
        uv.append(f"[[index]]\nurl = {json.dumps(index)}\ndefault = true")
    if pip:
        files |= {"etc/pip.conf": "\n".join(["[global]", *pip, ""]), "etc/uv/uv.toml": "\n".join([*uv, ""])}
    return files


def apt_proxy() -> str:
    """Return the line that sets apt's proxy on this computer; empty without a proxy or without apt."""
    if shutil.which("apt-config") is None:
        return ""
    proxy = command("apt-config", "dump", "--format=%v", "Acquire::http::Proxy").strip()
    return f'Acquire::http::Proxy "{proxy}";' if proxy else ""


def extra_certificates() -> list[Path]:
    """Return the certificates that were added to this computer's usual ones, such as those of a company's proxy."""
    return sorted(Path("/usr/local/share/ca-certificates").glob("**/*.crt"))


def _indexes() -> Iterator[str]:
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if os.environ.get(variable):
            yield os.environ[variable]
    homes = [Path(f"~{os.environ.get('SUDO_USER', '')}").expanduser(), Path("~").expanduser()]  # sudo changes HOME
    for file in [*(home / name for home in homes for name in (".config/pip/pip.conf", ".pip/pip.conf")),
                 Path("/etc/pip.conf")]:  # fmt: skip
        settings = configparser.RawConfigParser()
        try:
            settings.read(file)
        except configparser.Error:
            continue  # pip itself reports a broken file
        if settings.has_option("global", "index-url"):
            yield settings.get("global", "index-url")


def _name_servers() -> str:
    """Return a resolv.conf with this computer's name servers, without those that only this computer can reach."""
    for file in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"):
        try:
            lines = [line.split() for line in Path(file).read_text().splitlines()]
        except FileNotFoundError:
            continue
        servers = [fields[1] for fields in lines if fields[:1] == ["nameserver"] and len(fields) > 1]
        reachable = [server for server in servers if not server.startswith("127.") and ":" not in server]
        if reachable:
            kept = [" ".join(fields) for fields in lines if fields[:1] in (["search"], ["options"])]
            return "\n".join([*(f"nameserver {server}" for server in reachable), *kept, ""])
    raise RehearsalError(
        "the machines would have no name server: /etc/resolv.conf names none with an IPv4 address that they can reach; "
        "add a line such as: nameserver 192.168.1.1"
    )


def _uplink_mtu() -> int:
    """Return the packet size, in bytes, of this computer's uplink. A tunnel's is often below the usual 1500."""
    routes = json.loads(command("ip", "-json", "-4", "route", "show", "default"))
    mtus = [int(Path(f"/sys/class/net/{route['dev']}/mtu").read_text()) for route in routes if "dev" in route]
    return min([1500, *mtus])
