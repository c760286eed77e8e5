"""What sshd, the firewall and apt are told on machines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.host_files import (
    HERE,
    program,
)


def test_nft_accepts_the_firewall(tmp_path: Path) -> None:
    nft, unshare = program("nft"), program("unshare")
    inside = [unshare, "--map-root-user", "--net"]  # its own network: nothing of this computer is looked at
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this computer lets nobody but root make a network namespace")
    good, bad = HERE / "nftables" / "firewall.nft", tmp_path / "bad.nft"
    bad.write_text(good.read_text().replace("tcp dport", "tcp doprt"))
    for file, fine in ((good, True), (bad, False)):
        done = subprocess.run([*inside, nft, "--check", "-f", str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == fine, done.stderr


def statements(name: str) -> list[str]:
    """The lines of a file that are no comments."""
    lines = (HERE / name).read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith(("#", "//"))]


def test_the_firewall_has_these_rules() -> None:
    """A table of its own, made anew: `flush ruleset` would delete other programs' tables."""
    assert statements("nftables/firewall.nft") == [
        "table inet decant",
        "delete table inet decant",
        "table inet decant {",
        "chain input {",
        "type filter hook input priority filter; policy drop;",
        "ct state vmap { established : accept, related : accept, invalid : drop }",
        'iifname "lo" accept',
        "meta l4proto { icmp, ipv6-icmp } accept",
        "udp dport { 68, 546 } accept",
        "tcp dport { 22, 80, 443 } accept",
        "}",
        "chain forward {",
        "type filter hook forward priority filter; policy drop;",
        "}",
        "}",
    ]


def test_sshd_accepts_keys_alone_and_forwards_nothing() -> None:
    assert statements("sshd/sshd.conf") == [
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin no",
        "MaxAuthTries 4",
        "LoginGraceTime 30",
        "DisableForwarding yes",
        "X11Forwarding no",
    ]


def test_updates_are_installed_daily_and_never_reboot() -> None:
    assert statements("apt/apt-upgrades.conf") == [
        'APT::Periodic::Update-Package-Lists "1";',
        'APT::Periodic::Unattended-Upgrade "1";',
        'Unattended-Upgrade::Automatic-Reboot "false";',
    ]
