"""An SSH server on the loopback address, in threads: just enough of one to test a client against."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from decant.ssh.client import Access
from rehearsal.doubles import key_pair
from tests.support.in_memory import PRIVATE, PUBLIC

HOST_PRIVATE, _HOST_PUBLIC = key_pair()
SHOWN_KEY = _HOST_PUBLIC.strip()
Command = Callable[["Run"], int]


@dataclass
class Run:
    """One command: its line, and its channel as three streams."""

    line: str
    channel: paramiko.Channel

    def read(self) -> str:
        """All that the client sends until it ends its input."""
        return self.channel.makefile("rb").read().decode()

    def say(self, text: str, *, error: bool = False) -> None:
        """To standard output or standard error."""
        (self.channel.sendall_stderr if error else self.channel.sendall)(text.encode())


@dataclass
class Sshd:
    """A server that lets one user in with one key. `on_command` runs for each command and returns its exit status.

    `hang_up` is "at once", "in login" or, without hanging up, "never answers".
    """

    on_command: Command = lambda run: 0
    user: str = "carol"
    authorized: str = PUBLIC
    host_keys: list[Any] = field(default_factory=lambda: [paramiko.Ed25519Key(file_obj=io.StringIO(HOST_PRIVATE))])
    hang_up: str = ""
    port: int = 0
    lines: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    connections: int = 0
    keepalives: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released once for each keep-alive message of a client."""
    transports: list[paramiko.Transport] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def access(self, **changes: Any) -> Access:
        """How to log in to it."""
        usual = {
            "name": "web-1", "address": "127.0.0.1", "port": self.port, "user": self.user, "host_key": SHOWN_KEY,
            "private_key": PRIVATE,
        }  # fmt: skip
        return Access(**{**usual, **changes})

    @contextlib.contextmanager
    def running(self) -> Iterator[Sshd]:
        """Serve for as long as the block runs."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                self.stopped.set()
                listener.shutdown(socket.SHUT_RDWR)
                for transport in self.transports:
                    transport.close()
                thread.join(timeout=10)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.hang_up == "at once":
                connection.close()
                continue
            transport = paramiko.Transport(connection)
            self.transports.append(transport)
            self._begin(transport, self.host_keys)

    def _begin(self, transport: paramiko.Transport, keys: list[Any]) -> None:
        for key in keys:
            transport.add_server_key(key)
        with contextlib.suppress(paramiko.SSHException, EOFError):
            transport.start_server(server=_Server(self, transport), event=threading.Event())

    def serve_inside(self, run: Run, key: Any) -> int:
        """Be `sshd -i` with a host key: a server whose connection is a command's channel. It ends with the channel."""
        transport = paramiko.Transport(run.channel)
        self._begin(transport, [key])
        transport.join()
        return 0


class _Server(paramiko.ServerInterface):
    def __init__(self, sshd: Sshd, transport: paramiko.Transport) -> None:
        self.sshd = sshd
        self.transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if self.sshd.hang_up == "in login":
            self.transport.close()
        if self.sshd.hang_up == "never answers":
            self.sshd.stopped.wait()
        allowed = username == self.sshd.user and key.get_base64() == self.sshd.authorized.split()[1]
        if allowed:
            self.sshd.logins.append(username)
        return AUTH_SUCCESSFUL if allowed else AUTH_FAILED

    def check_global_request(self, kind: str, msg: paramiko.Message) -> bool:
        if kind == "keepalive@lag.net":
            self.sshd.keepalives.release()
        return False

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        run = Run(line=command.decode(), channel=channel)
        self.sshd.lines.append(run.line)

        def work() -> None:
            # The channel stays open, because closing it here could overtake the answer to the request itself.
            with contextlib.suppress(OSError, EOFError):
                status = self.sshd.on_command(run)
                channel.send_exit_status(status)
                channel.shutdown_write()

        threading.Thread(target=work, daemon=True).start()
        return True
