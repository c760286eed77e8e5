"""Runs the program of a copy of the project on throwaway machines, as a rehearsal does, once for each request.

    PYTHONPATH=COPY/infra:COPY python program_server.py

Each line of standard input is a request in JSON: network, stack, config, secret_keys. A run changes the current folder
and owns an event loop, so each is a process of its own, forked from this one after the imports. The output of a run
ends with a line of JSON that has either `outputs` or `error`, the text for the program's user. A line with END and the
run's exit status follows.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def run(request: dict[str, Any]) -> int:
    from rehearsal import stackfile
    from rehearsal.errors import RehearsalError
    from rehearsal.machines.network import Network
    from rehearsal.progress import Progress
    from rehearsal.runner import run_program
    from rehearsal.throwaway_backend import ThrowawayBackend

    network = Network(name=request["network"])
    backend = ThrowawayBackend(network, Progress())
    try:
        outputs = run_program(request["stack"], stackfile.as_text(request["config"]), request["secret_keys"], backend)
    except RehearsalError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps({"outputs": outputs}))
    return 0


def main() -> None:
    import decant.clouds.ssh
    import decant.program  # noqa: F401 - imported once, here, and not in each run
    from rehearsal.runner import finish

    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 70  # for an unexpected error, which Python prints
            try:
                code = run(json.loads(line))
            finally:
                finish(code)
        _, status = os.waitpid(child, 0)
        print(f"END {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
