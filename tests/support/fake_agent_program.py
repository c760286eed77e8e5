"""A machine's agent as a command of the in-memory sshd: it speaks the protocol and answers as it is told to."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from decant.host.steps import PROGRAM
from tests.support.in_memory_sshd import Run

Answer = Callable[[list[str]], dict[str, Any]]


def echo_arguments(argv: list[str]) -> dict[str, Any]:
    """Fields of a reply: `confirm` and `revert` fail, any other command gives its arguments back."""
    if argv[0] == "confirm":
        return {"status": 1, "stderr": "web-1: release x is not live here any more\n  Run pulumi up again.\n"}
    return {"status": 3} if argv[0] == "revert" else {"stdout": json.dumps({"arguments": argv[1:]}) + "\n"}


@dataclass
class AgentProgram:
    """The agent's side of the protocol. Its clock goes up by one with each line that it writes.

    `answer` gives the fields of a reply that differ from those of a command without output.
    """

    answer: Answer = echo_arguments
    received: list[dict[str, Any]] = field(default_factory=list)
    """All lines of the coordinator."""
    argvs: list[list[str]] = field(default_factory=list)
    """Command lines of all requests."""
    clock: float = 1000.0
    ended: threading.Event = field(default_factory=threading.Event)

    def __call__(self, run: Run) -> int:
        argv = shlex.split(run.line)
        assert argv[-6:] == [PROGRAM, "lease", "--attempt", "attempt-1", "--owner", "carol@laptop"]
        unread = ""
        while data := run.channel.recv(100).decode():
            *lines, unread = (unread + data).split("\n")
            for line in lines:
                message = json.loads(line)
                self.received.append(message)
                if len(self.received) == 1:
                    self.write(run, {"held": True})
                elif "id" in message:
                    self.handle(run, message)
                else:
                    self.write(run, {})
        self.ended.set()
        return 0

    def handle(self, run: Run, request: dict[str, Any]) -> None:
        """Answer a request."""
        self.argvs.append(request["argv"])
        empty = {"status": 0, "stdout": "", "stderr": ""}
        self.write(run, {**empty, **self.answer(request["argv"]), "id": request["id"]})

    def write(self, run: Run, message: dict[str, Any]) -> None:
        """Write a line in two pieces, as a network may deliver it."""
        self.clock += 1
        line = json.dumps({**message, "clock": self.clock})
        run.say(line[:7])
        run.say(line[7:] + "\n")
