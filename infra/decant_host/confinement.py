"""Security modules that confine nginx: a profile of the owner's may keep it from the sockets of releases."""

from __future__ import annotations

from pathlib import Path

from decant_host.processes import run

PROC = Path("/proc")


def confinement_hint() -> str:
    """What to do where AppArmor or SELinux confines nginx; an empty text where neither does."""
    pid = run("systemctl", "show", "nginx.service", "--property=MainPID", "--value", check=False).stdout.strip()
    try:
        label = (PROC / pid / "attr" / "current").read_text(encoding="utf-8").strip().rstrip("\0")
    except OSError:  # there is no such module, or nginx does not run
        return ""
    if label.endswith("(enforce)"):
        profile = label.removesuffix("(enforce)").strip()
        return (
            f"\n  AppArmor's profile {profile} confines nginx, and may keep it from the app's socket in /run/decant."
            " See what it denied: journalctl -k --grep DENIED\n"
            "  Allow it by a line `/run/decant/** rw,` in the profile, or end its enforcement: aa-complain"
            f" {profile}. Then run pulumi up again."
        )
    if label.count(":") >= 3 and ":unconfined_" not in label:
        domain = label.split(":")[2]
        return (
            f"\n  SELinux runs nginx in the domain {domain}, and may keep it from the app's socket in /run/decant."
            " See what it denied: ausearch -m AVC -c nginx\n"
            f"  Let it through: semanage permissive -a {domain}. Then run pulumi up again."
        )
    return ""
