"""Runs the program of a copy of the project against throwaway machines, as a rehearsal does.

    python drive.py COPY

Each line of standard input asks for one run, as JSON: network, stack, config, secret_keys. Each runs in a process of
its own, since the program changes the current folder and owns an event loop; they are forks of this one, which has done
the imports. What a run prints ends with a line of JSON: `outputs`, or `error`, which is what the program's user would
read; then comes its exit status, after the word END.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def run(request: dict[str, Any]) -> int:
    from decant import settings
    from rehearsal import stackfile
    from rehearsal.computer import RehearsalError
    from rehearsal.machines import Network
    from rehearsal.runner import Progress, ThrowawayWorld, run_program

    network = Network(name=request["network"])
    settings.rehearse_on(network.cidr)
    world = ThrowawayWorld(network, Progress())
    try:
        outputs = run_program(request["stack"], stackfile.as_text(request["config"]), request["secret_keys"], world)
    except RehearsalError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps({"outputs": outputs}))
    return 0


def main() -> None:
    copy = Path(sys.argv[1])
    sys.path[:0] = [str(copy), str(copy / "infra")]
    import decant.clouds.ssh
    import decant.fleet  # noqa: F401 - done once, here
    from rehearsal.runner import finish

    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 70  # a fault of this file, or one that the program does not expect: Python prints it
            try:
                code = run(json.loads(line))
            finally:
                finish(code)
        _, status = os.waitpid(child, 0)
        print(f"END {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
