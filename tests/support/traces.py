"""What this computer holds of a network of throwaway machines: interfaces, mounts, rules, files and processes."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
from pathlib import Path

from rehearsal.machines.network import SLOTS, Network
from rehearsal.this_host import STATE


def traces(network: Network) -> dict[str, set[str]]:
    """Return everything that the network could have made, by kind, without what belongs to other networks."""

    def lines(*argv: str) -> set[str]:
        return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines())

    others = _names_of_others(network)
    found = {
        "links": {line.split(": ")[1] for line in lines("ip", "-oneline", "link")},
        "mounts": lines("cat", "/proc/self/mounts"),
        "tables": lines("nft", "list", "tables"),
        "rules": {line for line in lines("nft", "--stateless", "list", "ruleset") if "comment" in line},
        "files": {
            f"{root}/{name}" for root, folders, files in os.walk(STATE / network.name) for name in folders + files
        },
        "processes": {str(pid) for pid in processes(network)},
        "groups": {
            # Machines have such units, too, whose names have no number.
            Path(path).name
            for path in _below(Path("/sys/fs/cgroup"))
            if re.search(r"/decant-\d+\.service$", path)
        },
    }
    others |= _names_of_others(network)  # other networks come and go meanwhile
    names = re.compile(r"decant-br\d|decant-\d+")
    return {
        kind: {line for line in lines if not others.intersection(names.findall(line))} for kind, lines in found.items()
    }


def _below(folder: Path) -> set[str]:
    """All paths in a folder, which may be removed meanwhile: os.walk() passes over what is gone."""
    return {f"{root}/{name}" for root, folders, files in os.walk(folder) for name in folders + files}


def _names_of_others(network: Network) -> set[str]:
    networks = [Network(name=file.parent.name) for file in STATE.glob("*/network.json")]
    machines = [machine for other in networks if other != network for machine in other.machines()]
    short = {f"decant-{machine.address.rsplit('.', 1)[1]}" for machine in machines}
    bridges = {f"decant-br{SLOTS.index(ipaddress.IPv4Network(other.cidr))}" for other in networks if other != network}
    return short | bridges


def processes(network: Network) -> list[int]:
    """Return the ids of the processes whose command line names the network's folder."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if str(STATE / network.name) + "/" in command_line(pid)]


def command_line(pid: int) -> str:
    """Return the command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
