"""The coordinator's side of the protocol: one machine's agent, called over one SSH connection."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

from decant.errors import MachineError, RolloutError, UnreachableError
from decant.rollout import timeouts
from decant.ssh.client import Access, Session
from decant.ssh.machine_client import decant_host_command, parse_object, shell_output_error
from decant_host import protocol
from decant_host.protocol import CertificateStatus, Confirmed, Migrated, Prepared, Reply, Reverted, Switched

T = TypeVar("T")

_TRY_AGAIN = "Run pulumi up again."


class MachineAgent:
    """A machine in an attempt: its SSH connection, and the agent there that holds its lease and carries out commands.

    `decant_host.protocol` describes what goes over the connection.
    """

    def __init__(self, access: Access, attempt: str, owner: str) -> None:
        """Log in and start the agent.

        Raises:
            UnreachableError, MachineError: the login failed.
        """
        self.access = access
        self.attempt = attempt
        self.revert_timer_set_at: float | None = None
        """When the machine's timer was last set (monotonic), once a switch was requested."""
        self._closing = threading.Event()
        self._end = ""  # why the connection ended
        self._ids = itertools.count(1)
        self._pending: dict[int, Future[Reply]] = {}
        self._clock = 0.0  # the newest clock value of the machine, which every line to it echoes
        self._unread = b""
        self._sending = threading.Lock()
        argv = ["lease", "--attempt", attempt, "--owner", owner]
        self.session = Session(access)
        try:
            self.channel = self.session.start(decant_host_command(access.user, argv))
        except BaseException:
            self.session.close()
            raise

    # ------------------------------------------------------------------------------------------------ the lease

    def acquire_lease(self) -> None:
        """Take the machine's lease, and keep it until `close` or the end of this process.

        Raises:
            RolloutError: another attempt holds it; the message says whose.
            UnreachableError: no answer came.
            MachineError: the user's login shell prints text of its own.
        """
        self.channel.settimeout(timeouts.LEASE_REPLY_TIMEOUT)
        with contextlib.suppress(OSError):  # the agent has ended already; what it printed says why
            self._send({})
        try:
            while b"\n" not in self._unread and (data := self.channel.recv(1 << 16)):
                self._unread += data
        except TimeoutError:
            raise UnreachableError(f"{self.access}: no answer to the request for its lease") from None
        line, newline, self._unread = self._unread.partition(b"\n")
        if not newline:
            refusal = self.channel.makefile_stderr("rb").read().decode(errors="replace").strip()
            raise RolloutError(refusal or f"{self.access} gave no lease and no reason")
        text = (line + newline).decode(errors="replace")
        held = parse_object(self.access, text)
        if not held.get("held"):
            raise shell_output_error(self.access, text)
        self._clock = float(held["clock"])
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        """Give the lease back and close the connection."""
        self._closing.set()
        with contextlib.suppress(OSError, EOFError):
            self.channel.shutdown_write()
            self.channel.status_event.wait(timeouts.CLOSE_TIMEOUT)  # a machine that fell silent does not answer
        self.session.close()

    # ------------------------------------------------------------------------------------------------ commands

    def prepare(self, release: str) -> Prepared:
        """Make sure that a staged release runs and is healthy."""
        return cast(Prepared, self.call("prepare", release))

    def migrate(self, release: str) -> Migrated:
        """Run the release command."""
        return cast(Migrated, self.call("migrate", release))

    def switch(self, release: str, confirm_timeout: int) -> Switched:
        """Give the release this machine's traffic. Without a confirm within the time, the machine reverts by itself."""
        self.revert_timer_set_at = time.monotonic()  # even a switch that fails may have set it
        return cast(Switched, self.call("switch", release, "--deadline", str(confirm_timeout)))

    def extend(self, release: str, confirm_timeout: int) -> Switched:
        """Set the timer of an unconfirmed release anew."""
        self.revert_timer_set_at = time.monotonic()
        return cast(Switched, self.call("extend", release, "--deadline", str(confirm_timeout)))

    def confirm(self, release: str) -> Confirmed:
        """Keep the release: from now on, a boot brings it back."""
        return cast(Confirmed, self.call("confirm", release))

    def certificate(self) -> CertificateStatus:
        """Do what is due for the machine's certificate: ask for one, or renew it."""
        return cast(CertificateStatus, self.call("certificate"))

    def save_certificate(self) -> str | None:
        """The machine's certificate with its key and its account at the authority; None where it has none."""
        saved = self.call("certificate-save")["saved"]
        return str(saved) if saved else None

    def revert(self, because: str) -> Reverted:
        """Go back to the confirmed release."""
        return cast(Reverted, self.call("revert", "--because", because))

    def call(self, command: str, *arguments: str) -> dict[str, Any]:
        """Have the agent carry out a command of decant-host, and return the JSON object that it printed.

        Raises:
            RolloutError: the command failed; the message is what it printed to standard error.
            UnreachableError: no reply within `protocol.reply_timeout`, or the connection is gone.
        """
        number, future, timeout = next(self._ids), Future[Reply](), protocol.reply_timeout(command)
        self._pending[number] = future
        try:
            self._send({"id": number, "argv": [command, *arguments, "--attempt", self.attempt]})
            reply = future.result(timeout)
        except TimeoutError:
            reason = f"no answer within {timeout:.0f} s. {_TRY_AGAIN}"
            raise UnreachableError(f"{self.access}, during {command}: {reason}") from None
        except OSError:
            reason = self._end or f"the connection closed. {_TRY_AGAIN}"
            raise UnreachableError(f"{self.access}, during {command}: {reason}") from None
        if reply["status"] != 0:
            raise RolloutError(reply["stderr"].strip() or f"{self.access}: {command} failed and gave no reason")
        result: dict[str, Any] = json.loads(reply["stdout"])
        return result

    # ------------------------------------------------------------------------------------------------ the connection

    def _send(self, message: dict[str, Any]) -> None:
        """Send a request, or a heartbeat (an empty message), with the echo of the machine's clock."""
        with self._sending:
            line = json.dumps({**message, "clock": self._clock})
            self.channel.sendall(line.encode() + b"\n")

    def _read(self) -> None:
        """Reader thread: hands replies to waiting calls and sends heartbeats.

        When the machine falls silent or the connection ends, every pending call fails.
        """
        try:
            self._end = self._read_until_end()
        except (OSError, EOFError) as error:
            self._end = f"the connection broke ({error}). {_TRY_AGAIN}"
        if not self._closing.is_set():
            self.session.close()
        for future in list(self._pending.values()):
            future.set_exception(ConnectionError())

    def _read_until_end(self) -> str:
        """Read lines until no more come, and return why that is."""
        received, sent = time.monotonic(), 0.0
        while (now := time.monotonic()) < received + protocol.REPLY_TIMEOUT:
            if now >= sent + protocol.HEARTBEAT_INTERVAL:
                self._send({})
                sent = now
            if b"\n" not in self._unread:
                self.channel.settimeout(max(0.001, sent + protocol.HEARTBEAT_INTERVAL - now))
                try:
                    data = self.channel.recv(1 << 16)
                except TimeoutError:
                    continue
                if not data:
                    return self._last_words() or f"the connection closed. {_TRY_AGAIN}"
                received = time.monotonic()
                self._unread += data
            *lines, self._unread = self._unread.split(b"\n")
            for line in lines:
                try:
                    self._handle(json.loads(line))
                except (ValueError, LookupError, TypeError, AttributeError):
                    return f"it sent a line that is no reply: {line[:200].decode(errors='replace')!r}. {_TRY_AGAIN}"
        return f"no sign of life any more. {_TRY_AGAIN}"

    def _handle(self, message: dict[str, Any]) -> None:
        self._clock = max(self._clock, float(message["clock"]))
        if "id" in message:
            self._pending.pop(message["id"]).set_result(cast(Reply, message))

    def _last_words(self) -> str:
        """Return what the agent printed to standard error before it ended."""
        if not self.channel.recv_stderr_ready():
            return ""
        return str(self.channel.recv_stderr(1 << 12).decode(errors="replace").strip())


def run_on_all(agents: Sequence[MachineAgent], action: Callable[[MachineAgent], T]) -> list[T]:
    """Run the action for all machines at once and return its results in their order.

    Raises:
        RolloutError: it failed on some; the message has each machine's reason. All have ended by then.
    """
    if not agents:
        return []
    with ThreadPoolExecutor(len(agents)) as pool:
        futures = [pool.submit(action, agent) for agent in agents]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, RolloutError | MachineError):
            raise error
    if errors:
        raise RolloutError("\n".join(dict.fromkeys(str(error) for error in errors)))
    return [future.result() for future in futures]
