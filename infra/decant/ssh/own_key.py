"""A machine's own host key, which replaces the one of its user data (`python -m decant.ssh.own_key` is the step).

The user data holds a private host key, and others can read it: depending on the cloud, everybody with read access to
the account, or every process on the machine that reaches the metadata service. So that key is good for the first login
alone. The step `ready` then has the machine make a key of its own, which never leaves the machine, and
Pulumi records its public half. Only after that does the step `own-key` put it in the place of the first one. So a run
that is killed anywhere leaves a machine whose key is known.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

from decant.errors import HostKeyError, HostKeyMismatchError, MachineError, UnreachableError
from decant.ssh.client import Access, OuterLogin, Session
from decant.ssh.keys import check_host_key, fingerprint
from decant.ssh.machine_client import as_root

RELOAD_TIMEOUT = 10.0
"""Seconds until sshd shows the new key at the latest."""

RETRY_INTERVAL = 0.5
"""Seconds between two logins while sshd reads its new key."""

ACTIVE = "/etc/ssh/ssh_host_ed25519_key"
WAITING = "/etc/ssh/decant_new_host_key"

# Prints the machine's own public key. $1 is the first key. A run that was killed may have made the own key already, or
# made it active.
_MAKE = f"""set -eu
umask 077
if [ ! -e {WAITING} ] && [ "$(ssh-keygen -y -f {ACTIVE} | cut -d ' ' -f 2)" = "$1" ]; then
    rm -f {WAITING}.tmp {WAITING}.tmp.pub
    ssh-keygen -q -t ed25519 -N '' -C '' -f {WAITING}.tmp
    sync {WAITING}.tmp
    mv {WAITING}.tmp {WAITING}
    rm -f {WAITING}.tmp.pub
fi
if [ -e {WAITING} ]; then ssh-keygen -y -f {WAITING}; else ssh-keygen -y -f {ACTIVE}; fi
"""

# Renames are atomic, and each line may be the last that runs: the next attempt goes on from there.
_ACTIVATE = f"""set -eu
if [ -e {WAITING} ]; then
    ssh-keygen -y -f {WAITING} >{ACTIVE}.pub.tmp
    chmod 644 {ACTIVE}.pub.tmp
    mv {ACTIVE}.pub.tmp {ACTIVE}.pub
    mv {WAITING} {ACTIVE}
    sync /etc/ssh
fi
systemctl try-reload-or-restart ssh
"""


def make_own_key(access: Access) -> str:
    """Return the public half of the machine's own host key, which is made unless there is one. It is not active yet.

    Raises:
        MachineError: the machine cannot be reached, or cannot make a key.
    """
    with Session(access) as session:
        first = access.host_key.split()[1]
        result = session.run(as_root(access.user, f"sh -s {first}"), stdin=_MAKE)
    try:
        return check_host_key(result.stdout)
    except HostKeyError as error:
        raise MachineError(
            f"{access} could not make a host key of its own: {result.stderr.strip() or error}\n"
            f"  A new machine in its place: {access.replace_hint}"
        ) from None


def under_own_key(access: Access) -> Access:
    """The login to a machine under its own host key while `access`, under the first one, is still what sshd shows.

    The key is made unless there is one. Nothing becomes active: a second sshd serves this one connection, as the
    command of a login under the first key, and has the own key. So whoever has read the user data, and comes in between
    later than now, sees no more of what is sent than of any other SSH connection.

    Raises:
        MachineError: the machine cannot be reached, or cannot make a key.
    """
    command = as_root(access.user, f"/usr/sbin/sshd -i -h {WAITING}")
    return replace(
        access, host_key=make_own_key(access), through=OuterLogin(host_key=access.host_key, command=command)
    )  # fmt: skip


def activate(access: Access, first_key: str) -> None:
    """Make the own key `access.host_key` the one that sshd shows. `first_key` is the key of the user data.

    It ends with a login that only the machine with the own key can answer: the first key proves nothing any more.

    Raises:
        MachineError: the machine cannot be reached, or shows neither key.
    """
    try:
        with Session(replace(access, host_key=first_key)) as session:
            result = session.run(as_root(access.user, "sh -s"), stdin=_ACTIVATE)
    except HostKeyMismatchError:
        pass  # the own key is active already, as the login below checks
    else:
        if result.status != 0:
            raise MachineError(f"{access}: its own host key could not be made active: {result.stderr.strip()}")
    deadline = time.monotonic() + RELOAD_TIMEOUT
    while True:
        try:
            Session(access).close()
        except (HostKeyMismatchError, UnreachableError):
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_INTERVAL)
        else:
            return


def main() -> int:
    """Run the step for an `Access` with `first_key`, read as JSON from standard input."""
    data = json.load(sys.stdin)
    access = Access.from_dict(data)
    try:
        activate(access, data["first_key"])
    except MachineError as error:
        print(str(error), file=sys.stderr)
        return 1
    print(json.dumps({"machine": access.name, "host_key": fingerprint(access.host_key)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
