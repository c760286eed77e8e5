"""Take a machine out of its balancer before it is deleted. Runs where `pulumi` runs: `python -m decant.leave`.

Never fails: whatever keeps a machine from leaving in good order must not keep the user from deleting it.
"""

from __future__ import annotations

import json
import os
import sys

from decant.errors import MachineError
from decant.host import PROGRAM
from decant.session import Access, Session

LONGEST = 180.0  # seconds; a balancer notices within 30, a request ends within 35
ALL_GO = "DECANT_ALL_MACHINES_GO"  # in the environment when nobody is left to take over: there is nothing to wait for


def main() -> int:
    """The `leave` step: an `Access` as JSON on standard input."""
    if os.environ.get(ALL_GO):
        return 0
    access = Access.from_dict(json.load(sys.stdin))
    sudo = "" if access.user == "root" else "sudo -n "
    try:
        with Session(access) as session:
            answer = session.run(f"{sudo}{PROGRAM} leave", timeout=LONGEST)
        trouble = "" if answer.status == 0 else answer.stderr.strip() or f"exit status {answer.status}"
    except MachineError as error:
        trouble = str(error)
    if trouble:
        print(f"{access} goes without leaving its balancer first: {trouble}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
