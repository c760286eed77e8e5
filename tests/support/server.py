"""A server of one's own: a throwaway machine that tells who knocked, what runs and what is on it."""

from __future__ import annotations

import re

from rehearsal.machines import Machine
from tests.engine.project import get

# What package tools keep for themselves, and what comes back as it likes: caches, the version before of each register,
# and ucf's, which forgets no file that a package ever asked it about.
OF_PACKAGE_TOOLS = re.compile(
    r"/var/cache/(apt|debconf|ldconfig)/.*|/etc/\w+-|/var/lib/dpkg/[\w-]+-old|/var/lib/ucf/(registry|\w+\.\d)"
    r"|/var/lib/apt/lists/partial"
)


class Box:
    """The server: a throwaway machine that tells who knocked and what is on it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.url = f"http://{machine.address}"
        machine.wait_running()
        machine.run("mkdir -p /etc/ssh/sshd_config.d && echo LogLevel VERBOSE > /etc/ssh/sshd_config.d/10-verbose.conf")
        machine.run("systemctl restart ssh")
        self.untouched = self.contents()

    @property
    def release(self) -> str:
        """What it serves, asked from outside."""
        answer = get(self.url)
        assert answer.status == 200, answer
        return answer.release

    def knocks(self) -> int:
        """How many connections sshd has seen, whatever became of them."""
        log = self.machine.run("journalctl --sync && journalctl --unit=ssh --output=cat --no-pager").stdout
        return log.count("\nConnection from ")

    def serving(self) -> frozenset[str]:
        """Which processes serve, or are ready to, each with the moment it started."""
        told = self.machine.run("ps -eo pid,lstart,args --no-headers").stdout.splitlines()
        return frozenset(line for line in told if "nginx: " in line or "gunicorn" in line)

    def changed(self) -> list[str]:
        """What is different from before it was ever touched."""
        now = self.contents()
        names = self.untouched.keys() | now.keys()
        both = {name: (self.untouched.get(name), now.get(name)) for name in names}
        return [f"{name}: {old} -> {new}" for name, (old, new) in sorted(both.items()) if old != new]

    def contents(self) -> dict[str, str]:
        """Its disk without logs, and what dpkg and systemd know: what an administrator would notice."""
        files = "find / -xdev -path /var/log -prune -o -printf '%p\\t%y %m %u %g %l\\n'"
        sums = "find / -xdev -type f -not -path '/var/log/*' -print0 | xargs -0 sha256sum"
        found = dict(line.split("\t") for line in self.machine.run(files).stdout.splitlines())
        for line in self.machine.run(sums).stdout.splitlines():
            digest, name = line.split(maxsplit=1)
            found[name] += digest
        for what in ("dpkg-query --show", "systemctl list-unit-files --plain", "systemctl --failed --plain"):
            found[what] = self.machine.run(what).stdout
        return {name: facts for name, facts in found.items() if not OF_PACKAGE_TOOLS.fullmatch(name)}
