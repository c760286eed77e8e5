"""A server that the user owns (cloud `ssh`): a throwaway machine, its SSH connections, processes and files."""

from __future__ import annotations

import re

from rehearsal.machines.machine import Machine
from tests.support.pulumi_stack import get

# Files that package tools change without a visible effect: caches, the previous version of each register, and ucf's
# register, which keeps every file that a package ever asked it about.
OF_PACKAGE_TOOLS = re.compile(
    r"/var/cache/(apt|debconf|ldconfig)/.*|/etc/\w+-|/var/lib/dpkg/[\w-]+-old|/var/lib/ucf/(registry|\w+\.\d)"
    r"|/var/lib/apt/lists/partial"
)


class Server:
    """A throwaway machine in the state before Decant ever touched it; `changed` compares with that state."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.url = f"http://{machine.address}"
        machine.wait_running()
        machine.run("mkdir -p /etc/ssh/sshd_config.d && echo LogLevel VERBOSE > /etc/ssh/sshd_config.d/10-verbose.conf")
        machine.run("systemctl restart ssh")
        self.untouched = self.contents()

    @property
    def release(self) -> str:
        """The release that it serves, asked from outside."""
        answer = get(self.url)
        assert answer.status == 200, answer
        return answer.release

    def ssh_connections(self) -> int:
        """Return the number of connections to sshd so far, including those without a login."""
        log = self.machine.run("journalctl --sync && journalctl --unit=ssh --output=cat --no-pager").stdout
        return log.count("\nConnection from ")

    def serving(self) -> frozenset[str]:
        """Return the processes of nginx and gunicorn, each with the time when it started."""
        listed = self.machine.run("ps -eo pid,lstart,args --no-headers").stdout.splitlines()
        return frozenset(line for line in listed if "nginx: " in line or "gunicorn" in line)

    def changed(self) -> list[str]:
        """Return what is different from the untouched server, one line for each difference."""
        now = self.contents()
        names = self.untouched.keys() | now.keys()
        both = {name: (self.untouched.get(name), now.get(name)) for name in names}
        return [f"{name}: {old} -> {new}" for name, (old, new) in sorted(both.items()) if old != new]

    def contents(self) -> dict[str, str]:
        """Return its files without logs, and the lists of dpkg and systemd."""
        files = "find / -xdev -path /var/log -prune -o -printf '%p\\t%y %m %u %g %l\\n'"
        sums = "find / -xdev -type f -not -path '/var/log/*' -print0 | xargs -0 sha256sum"
        found = dict(line.split("\t") for line in self.machine.run(files).stdout.splitlines())
        for line in self.machine.run(sums).stdout.splitlines():
            digest, name = line.split(maxsplit=1)
            found[name] += digest
        for what in ("dpkg-query --show", "systemctl list-unit-files --plain", "systemctl --failed --plain"):
            found[what] = self.machine.run(what).stdout
        return {name: facts for name, facts in found.items() if not OF_PACKAGE_TOOLS.fullmatch(name)}
