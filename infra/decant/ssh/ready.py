"""The `ready` step: wait until a machine can be logged in to and prepared (`python -m decant.ssh.ready`)."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from decant.errors import HostKeyMismatchError, MachineError, PortClosedError, UnreachableError
from decant.ssh.client import Access, Session
from decant.ssh.host_checks import check_clock, check_disks, sudo_problem
from decant.ssh.machine_client import shell_output_error
from decant.ssh.own_key import make_own_key

# Debian 13's sshd penalises sources that connect without logging in (sshd_config(5), PerSourcePenalties), so try once
# in two seconds. A closed port has no sshd yet.
RETRY_INTERVAL = 2.0
RETRY_INTERVAL_CLOSED = 0.5

CHECK_TIMEOUT = 630
"""Seconds for the check below, which waits up to 600 for cloud-init."""

RECORDED = "PULUMI_COMMAND_STDOUT"
"""The environment variable with what this step printed before. It is set when the step runs again for a machine."""

BEGIN, END = "decant-check-begin", "decant-check-end"
"""Lines around the answer of the check: anything outside of them was printed by the user's login shell."""

# Every login shell understands the command. If it starts another program instead of carrying it out, as `exec zsh` in
# ~/.bashrc does, then that program reads the check and finds no such argument.
_COMMAND = "sh -s decant-check"

# A script for sh, because the machine may have nothing else yet.
# cloud-init exits with 2 when it is done but has warnings, and with 1 when it failed (cloud-init's documentation,
# "Failure states").
_CHECK = f"""echo {BEGIN}
test "$1" = decant-check || echo shell=other
. /etc/os-release; echo "os=$ID $VERSION_ID"
SUDO=; [ "$(id -u)" = 0 ] || SUDO="sudo -n"
if why=$(LC_ALL=C $SUDO true 2>&1); then
    echo root=yes
    for folder in /etc /opt /usr /var; do
        [ ! -d $folder ] || $SUDO test -w $folder || echo "read_only=$folder"
    done
    if command -v cloud-init >/dev/null; then
        $SUDO timeout 600 cloud-init status --wait >/dev/null 2>&1; echo "first_boot=$?"
    fi
    [ -d /run/systemd/system ] && echo systemd=yes || echo systemd=no
else
    echo root=no; echo "why="$why
fi
set -- $(df -Pk . | tail -n 1); echo "home=$4"
echo "clock=$(date +%s)"
echo {END}
"""


def wait_ready(access: Access, *, timeout: float, log: Callable[[str], object] = print) -> None:
    """Wait up to `timeout` seconds for a login, then for cloud-init; check what Decant needs.

    Raises:
        MachineError: the machine cannot be used; the message says what to do.
    """
    started = time.monotonic()
    output = _first_answer(access, timeout=timeout, log=log)
    _check_facts(access, _read_facts(access, output))
    log(f"{access} is ready after {time.monotonic() - started:.1f} s")


def _first_answer(access: Access, *, timeout: float, log: Callable[[str], object]) -> str:
    """Return the output of the check, as soon as a login works."""
    deadline = time.monotonic() + timeout
    logged = ""
    while True:
        try:
            with Session(access) as session:
                return session.run(_COMMAND, stdin=_CHECK, timeout=CHECK_TIMEOUT).stdout
        except UnreachableError as error:
            reason = str(error).removeprefix(f"{access}: ")
            pause = RETRY_INTERVAL_CLOSED if isinstance(error, PortClosedError) else RETRY_INTERVAL
            if time.monotonic() + pause > deadline:
                raise _no_login_error(access, timeout, reason) from None
            if reason != logged:
                log(f"{access}: {reason}; trying until {timeout:.0f} s are over")
                logged = reason
            time.sleep(pause)


def _no_login_error(access: Access, timeout: float, reason: str) -> MachineError:
    if access.setting:
        advice = f"  Is {access.setting}.address right? pulumi config set --path '{access.setting}.address' ADDRESS\n"
    else:
        advice = "  decant:adminCidrs must hold the public address that you deploy from.\n"
    return MachineError(
        f"{access} did not let us in within {timeout:.0f} s: {reason}.\n"
        f"  Is it running, and may this computer reach port {access.port}? Try: "
        f"ssh -p {access.port} {access.user}@{access.address}\n{advice}  Then run pulumi up again."
    )


def _read_facts(access: Access, output: str) -> dict[str, str]:
    """Return the check's `name=value` lines.

    Raises:
        MachineError: the user's login shell prints text of its own, or starts another program.
    """
    before, begin, rest = output.partition(f"{BEGIN}\n")
    answer, end, after = rest.partition(f"{END}\n")
    foreign = (before + after).strip() if end else before.strip()
    if foreign and begin:
        raise shell_output_error(access, foreign)
    facts = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    if not end or "shell" in facts:
        printed = f" It printed {foreign[:200]!r}." if foreign else ""
        raise MachineError(
            f"{access}: the login shell of user {access.user} does not run commands; it starts another program."
            f"{printed}\n"
            "  Take lines such as `exec zsh` out of what it reads, for bash ~/.bashrc. To log in to zsh instead:\n"
            f"  on the machine, as root: chsh -s /bin/zsh {access.user}\n"
            "  Then run pulumi up again."
        )
    return facts


def _check_facts(access: Access, facts: Mapping[str, str]) -> None:
    # A cloud's machine has the image that the settings name; only a host of the user's own may be older.
    supported = ("debian 13", "debian 12") if access.setting else ("debian 13",)
    if facts.get("os") not in supported:
        names = " and ".join(supported)
        advice = "Bring a Debian 13 host." if access.setting else "Use its image: pulumi config rm decant:image"
        raise MachineError(
            f"{access} runs {facts.get('os') or 'an unknown system'}; Decant supports {names}.\n  {advice}"
        )
    if facts.get("root") != "yes":
        raise _no_sudo_error(access, facts.get("why", ""))
    if facts.get("systemd") != "yes":
        raise MachineError(f"{access} is not run by systemd; Decant's services need it. Bring a full Debian 13 host.")
    if facts.get("first_boot") in ("1", "124"):  # 124: `timeout` has ended it
        raise MachineError(
            f"{access}: first boot (cloud-init) failed. See why with: ssh {access.user}@{access.address}"
            " sudo cat /var/log/cloud-init-output.log"
        )
    check_disks(access, facts)
    check_clock(access, facts)


def _no_sudo_error(access: Access, why: str) -> MachineError:
    user = access.user
    if access.setting and (special := sudo_problem(access, why)):
        return special
    if access.setting:
        advice = (
            f"  On the host, as root: echo '{user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{user}\n"
            f"  or log in as root: pulumi config set --path '{access.setting}.user' root"
        )
    else:
        advice = (
            "  The machine's first boot allows it, and somebody has changed that since.\n"
            f"  A new machine in its place: {access.replace_hint}"
        )
    return MachineError(f"{access}: user {user} cannot use sudo without a password.\n{advice}")


def wait_with_own_key(access: Access, recorded: str, *, timeout: float, log: Callable[[str], object]) -> str:
    """Wait as `wait_ready` does, and return the public half of the machine's own host key.

    `recorded` is that key as it was returned before, or empty. It is returned unchanged, whatever the machine says:
    the key of the user data, which `access` has, is trusted until another one is recorded, and never again. It is still
    accepted here, because a run may have been killed before the own key was active, and nothing secret is sent.

    Raises:
        MachineError: the machine cannot be used; the message says what to do.
    """
    if not recorded:
        wait_ready(access, timeout=timeout, log=log)
        return make_own_key(access)
    try:
        wait_ready(replace(access, host_key=recorded), timeout=timeout, log=log)
    except HostKeyMismatchError:
        wait_ready(access, timeout=timeout, log=log)
    return recorded


def main() -> int:
    """Run the step for an `Access` with `timeout` (seconds) and `own_key`, read as JSON from standard input.

    With `own_key`, the machine gets a host key of its own, and the result has its public half.
    """
    data = json.load(sys.stdin)
    access = Access.from_dict(data)

    def log(text: str) -> None:
        print(text, file=sys.stderr)

    result = {"machine": access.name, "ready": True}
    timeout = float(data["timeout"])
    try:
        if data.get("own_key"):
            before = json.loads(os.environ.get(RECORDED) or "{}")
            result["host_key"] = wait_with_own_key(access, before.get("host_key", ""), timeout=timeout, log=log)
        else:
            wait_ready(access, timeout=timeout, log=log)
    except MachineError as error:
        log(str(error))
        return 1
    # Without times: the output of an unchanged machine's step stays the same, so that no later step runs again.
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
