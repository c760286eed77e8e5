"""What an attempt orders on this machine, over one connection that holds its lease meanwhile.

One process for all of an attempt's verbs, because most of what one of them takes is the start of a process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import selectors
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

from decant_host.lease import hold_lease

Do = Callable[[Sequence[str]], int]

HEARTBEAT = 15  # seconds of silence after which a coordinator counts as gone
STDIN = 0


@dataclass
class Order:
    """One that is under way, in a process of its own: what kills it, or holds it up, leaves the lease alone."""

    number: int
    verb: str
    process: int
    answer: bytes = b""


def take_orders(attempt: str, owner: str, do: Do) -> None:
    """Hold this machine for one attempt and do what it orders, as long as its coordinator lives.

    Standard input has lines: an order is a JSON object of `order`, a number, and `words`, a verb's command line; an
    empty line is a sign of life. The first one, of either kind, asks for the lease and gets "held". When an order is
    done, it gets a JSON object of `order`, `status`, `stdout` and `stderr`; a sign of life gets a dot.

    A coordinator that ends, or is cut off for HEARTBEAT seconds, has let go; what it has ordered goes on to its end.
    `do` is the command line's own main function. Raises HostError where somebody else holds the machine.
    """
    heard, unread, under_way = time.monotonic(), b"", dict[int, Order]()
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as events:
        lease: TextIO | None = None
        events.register(STDIN, selectors.EVENT_READ)
        while (patience := heard + HEARTBEAT - time.monotonic()) > 0:
            for source in [key.fd for key, _ in events.select(patience)]:
                data = os.read(source, 1 << 16)
                if source != STDIN:
                    under_way[source].answer += data
                    if not data:
                        events.unregister(source)
                        os.close(source)
                        _say(_outcome(under_way.pop(source)))
                    continue
                if not data:
                    return
                heard = time.monotonic()
                *lines, unread = (unread + data).split(b"\n")
                for line in lines:
                    if lease is None:
                        lease = stack.enter_context(hold_lease(attempt, owner))
                        _say(b"held\n")
                    elif not line:
                        _say(b".\n")
                    if line:
                        answers, order = _begin(json.loads(line), do, lease)
                        under_way[answers] = order
                        events.register(answers, selectors.EVENT_READ)


def _begin(order: dict[str, Any], do: Do, lease: TextIO) -> tuple[int, Order]:
    """A process for an order; where its answer will come from."""
    answers, answer = os.pipe()
    process = os.fork()  # nothing here has threads
    if process == 0:
        _carry_out(order, do, lease, answer)
    os.close(answer)
    return answers, Order(order["order"], order["words"][0], process)


def _say(line: bytes) -> None:
    """To the coordinator, whose connection may be gone."""
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _carry_out(order: dict[str, Any], do: Do, lease: TextIO, answer: int) -> NoReturn:
    """The order's own process, to its end."""
    status, out, error = 1, io.StringIO(), io.StringIO()
    try:
        os.close(lease.fileno())  # the attempt's, not this order's: it ends with the coordinator
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            status = do(order["words"])
    except BaseException:
        error.write(traceback.format_exc())
    with contextlib.suppress(OSError):
        said = {"order": order["order"], "status": status, "stdout": out.getvalue(), "stderr": error.getvalue()}
        with os.fdopen(answer, "w") as pipe:
            pipe.write(json.dumps(said) + "\n")
    os._exit(status)


def _outcome(order: Order) -> bytes:
    """Its answer, or how it ended without one."""
    _, status = os.waitpid(order.process, 0)
    if order.answer.endswith(b"\n"):
        return order.answer
    code = os.waitstatus_to_exitcode(status)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    text = (
        f"{socket.gethostname()}: decant-host {order.verb} {how}. Was it for memory? journalctl -k tells."
        " Run pulumi up again."
    )
    return json.dumps({"order": order.number, "status": 1, "stdout": "", "stderr": text}).encode() + b"\n"
