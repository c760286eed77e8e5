"""Runs the stack's program in this process, with doubles for the cloud's resources and real machines and commands."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pulumi
from pulumi.runtime.stack import run_pulumi_func

from decant import program
from rehearsal.doubles import Doubles, environment
from rehearsal.errors import RehearsalError, StepFailedError, StoppedError, UnknownResourceError
from rehearsal.progress import Progress
from rehearsal.throwaway_backend import PROJECT, ThrowawayBackend

# The number of steps that can run side by side: a step holds a thread while its double works, not while it waits.
THREADS = 64

TUNNEL_NAMES = ("localhost", "127.0.0.1")
"""What a browser on another computer calls the site through a tunnel (README.md)."""


def run_program(
    stack: str, config: Mapping[str, str], secret_keys: list[str], backend: ThrowawayBackend
) -> dict[str, Any]:
    """Run Decant's program to its end and return the stack's outputs.

    Changes this process: it leaves the clouds' variables out of the environment, so that a rehearsal reaches no cloud,
    and changes the current folder.

    Raises:
        RehearsalError: Settings are wrong or steps failed; the text has all of them.
        KeyboardInterrupt: A signal ended the run; the steps under way have ended, too.
    """
    for name in [n for n in os.environ if n.startswith(environment())]:
        del os.environ[name]
    os.chdir(PROJECT / "infra")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    pulumi.runtime.set_all_config(dict(config), secret_keys)
    logger = _logger(backend.progress)
    pulumi.runtime.set_mocks(Doubles(backend), project="decant", stack=stack, preview=False, logger=logger)

    async def body() -> None:
        program.run(example_networks=[backend.network.cidr], extra_names=TUNNEL_NAMES)

    task = loop.create_task(run_pulumi_func(body))
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            backend.stopping.set()
            names = ", ".join(backend.progress.running) or "nothing"
            backend.progress.say(f"interrupted; still running, waiting for: {names}")
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        loop.run_until_complete(task)
        return loop.run_until_complete(_outputs())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except pulumi.RunError as error:
        raise RehearsalError(str(error)) from None
    except (StepFailedError, StoppedError, UnknownResourceError) as error:
        backend.stopping.set()
        loop.run_until_complete(loop.shutdown_default_executor())
        raise RehearsalError("\n\n".join(backend.failures) or str(error)) from None
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())


def _logger(progress: Progress) -> logging.Logger:
    """Shows what the program logs among the lines of the rehearsal, as `pulumi up` shows it among its own."""
    logger = logging.Logger("rehearsal", logging.INFO)
    handler = logging.Handler()

    def emit(record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        progress.say(prefix + record.getMessage())

    handler.emit = emit  # type: ignore[method-assign]
    logger.addHandler(handler)
    return logger


async def _outputs() -> dict[str, Any]:
    root: Any = pulumi.runtime.settings.get_root_resource()
    values: dict[str, Any] = {}
    for name, value in root.outputs.items():
        values[name] = await pulumi.Output.from_input(value).future()
    return values


def finish(code: int) -> None:
    """End the process without the messages that Pulumi's event loops print when Python tidies up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
