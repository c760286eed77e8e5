"""An SSH connection to one machine, verified by the pinned host key.

This module knows nothing of Pulumi and imports paramiko only when it connects, so that the steps that use it start
quickly.
"""

from __future__ import annotations

import base64
import io
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict, cast

from decant.errors import HostKeyMismatchError, MachineError, PortClosedError, UnreachableError
from decant.ssh import setting_paths
from decant.ssh.keys import ED25519, fingerprint, fingerprint_of_bytes

CONNECT_TIMEOUT = 15.0
"""Seconds for each of: the TCP connection, the server's banner, the login."""

KEEPALIVE_INTERVAL = 5
"""Seconds between two SSH keep-alive messages: a firewall on the way does not drop a connection that is silent for
minutes, and a connection to a machine that is gone ends when TCP gives these messages up."""


class AccessData(TypedDict):
    """An `Access` as JSON, in the input of steps and in the stack's output `ssh`. Pulumi carries numbers as floats."""

    name: str
    address: str
    port: float
    user: str
    host_key: str
    private_key: str
    setting: NotRequired[str | None]


@dataclass(frozen=True, kw_only=True)
class OuterLogin:
    """A login to the same machine under another host key, and the command there that is an SSH server by itself."""

    host_key: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Access:
    """What it takes to log in to one machine.

    `setting` is the path of this host's own settings, such as `decant:hosts[1]`, for error messages that advise
    `pulumi config set`. It is None on clouds, where a machine has no settings of its own. With `through`, the
    connection goes through that login, and `host_key` is the key of the server that its command is.
    """

    name: str
    address: str
    port: int
    user: str
    host_key: str
    private_key: str = field(repr=False)
    setting: str | None = None
    through: OuterLogin | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Access:
        """Read an `AccessData`; other keys are ignored. Raises KeyError where one is missing."""
        access = cast(AccessData, data)
        return cls(
            name=access["name"],
            address=access["address"],
            port=int(access["port"]),
            user=access["user"],
            host_key=access["host_key"],
            private_key=access["private_key"],
            # A stack's output from before this field has none.
            setting=setting_paths.exact(access.get("setting"), access["host_key"]),
        )

    def __str__(self) -> str:
        port = "" if self.port == 22 else f" port {self.port}"
        return f"{self.name} ({self.user}@{self.address}{port})"

    @property
    def replace_hint(self) -> str:
        """The command that puts a new machine in the place of this one, which only a cloud can do."""
        return f"make replace STACK=... MACHINE={self.name}"


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """How a command on a machine ended: its exit status and its output as text."""

    status: int
    stdout: str
    stderr: str


class Session:
    """An SSH connection with the pinned host key; use it as a context manager."""

    def __init__(self, access: Access) -> None:
        """Log in.

        Raises:
            UnreachableError: nobody answered, or the connection broke; another try may help.
            HostKeyMismatchError: another host key than the pinned one was shown.
            MachineError: the login is wrong; another try will not help.
        """
        import paramiko

        self.access = access
        self.client = paramiko.SSHClient()
        kind, blob = access.host_key.split()[:2]
        known_name = access.address if access.port == 22 else f"[{access.address}]:{access.port}"
        self.client.get_host_keys().add(known_name, kind, paramiko.Ed25519Key(data=base64.b64decode(blob)))
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self._outer: Session | None = None
        try:
            self._login(self._start_inner(access.through) if access.through else None)
        except BaseException:
            self.close()
            raise
        # Keep our own reference: SSHClient.close() in another thread sets the client's transport to None.
        transport: Any = self.client.get_transport()
        transport.set_keepalive(KEEPALIVE_INTERVAL)
        self._transport = transport

    def _start_inner(self, through: OuterLogin) -> Any:
        """The channel of the server that runs inside another login."""
        self._outer = Session(replace(self.access, host_key=through.host_key, through=None))
        return self._outer.start(through.command, CONNECT_TIMEOUT)

    def _login(self, channel: Any) -> None:
        """Connect through a channel, or without one to the machine's port, and log in."""
        import paramiko

        access = self.access
        try:
            self.client.connect(
                access.address,
                port=access.port,
                username=access.user,
                pkey=_load_key(access.private_key),
                timeout=CONNECT_TIMEOUT,
                banner_timeout=CONNECT_TIMEOUT,
                auth_timeout=CONNECT_TIMEOUT,
                # The user's own keys would be offered first and could use up the server's MaxAuthTries.
                look_for_keys=False,
                allow_agent=False,
                sock=channel,
            )
        except paramiko.BadHostKeyException as error:
            raise _host_key_error(access, error.key) from None
        except paramiko.AuthenticationException as error:
            # paramiko raises the same class for a server that hung up or fell silent, which has refused nobody.
            if "EOF" in str(error):
                raise UnreachableError(f"{access}: the connection closed during the login") from None
            if "timeout" in str(error).lower():
                raise UnreachableError(f"{access}: no answer during the login") from None
            raise _login_error(access) from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise (PortClosedError if _refused(error) else UnreachableError)(f"{access}: {_reason(error)}") from None

    def start(self, command: str, timeout: float | None = None) -> Any:
        """Start a shell command and return its paramiko channel, whose operations time out after `timeout` seconds.

        Raises:
            UnreachableError: the connection broke.
        """
        import paramiko

        try:
            channel = self._transport.open_session(timeout=timeout)
            channel.settimeout(timeout)
            channel.exec_command(command)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise UnreachableError(f"{self.access}: {_reason(error)} while running {command}") from None
        return channel

    def run(self, command: str, *, stdin: str = "", timeout: float = 120.0) -> CommandResult:
        """Run a shell command to its end.

        Raises:
            UnreachableError: the connection broke, or nothing came for `timeout` seconds.
        """
        import paramiko

        channel = self.start(command, timeout)
        try:
            channel.sendall(stdin.encode())
            channel.shutdown_write()
            stdout = channel.makefile("rb").read().decode(errors="replace")
            stderr = channel.makefile_stderr("rb").read().decode(errors="replace")
            status = channel.recv_exit_status()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise UnreachableError(f"{self.access}: {_reason(error)} while running {command}") from None
        if status < 0:
            raise UnreachableError(f"{self.access}: the connection closed while running {command}")
        return CommandResult(status=status, stdout=stdout, stderr=stderr)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()
        if self._outer:
            self._outer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _host_key_error(access: Access, shown: Any) -> HostKeyMismatchError:
    if access.setting:
        advice = (
            "  If the server was reinstalled, read its key on its console: cat /etc/ssh/ssh_host_ed25519_key.pub\n"
            f"  and set it: pulumi config set --path '{access.setting}.hostKey' '{ED25519} AAAA...'\n"
            "  If it was not, somebody else may be answering at this address."
        )
    else:
        advice = (
            "  Somebody has changed the machine's key since the stack recorded it, or rebuilt the machine, or another\n"
            f"  machine answers at this address. A new machine in its place: {access.replace_hint}"
        )
    return HostKeyMismatchError(
        f"{access} shows another host key than the one that is pinned, so nothing was sent to it.\n"
        f"  pinned: {ED25519} {fingerprint(access.host_key)}\n"
        f"  shown:  {shown.get_name()} {fingerprint_of_bytes(shown.asbytes())}\n{advice}"
    )


def _login_error(access: Access) -> MachineError:
    keys = f"~{access.user}/.ssh/authorized_keys"
    if access.setting:
        advice = (
            f"  Add the public half of decant:sshPrivateKey to {keys} on the host,\n"
            "  or set the right key: cat KEYFILE | pulumi config set --secret decant:sshPrivateKey\n"
            f"  or the right user: pulumi config set --path '{access.setting}.user' NAME"
        )
    else:
        advice = (
            f"  The machine got the stack's key at its first boot, and {keys} has changed since.\n"
            f"  A new machine in its place: {access.replace_hint}"
        )
    return MachineError(f"{access} refused the login: this key is not allowed for user {access.user}.\n{advice}")


def _load_key(text: str) -> Any:
    """Load a private key of any kind; paramiko has one class for each and does not choose by itself."""
    import paramiko

    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.SSHException:
            continue
    raise MachineError("the SSH private key is of a kind that is not supported: use ed25519 (ssh-keygen -t ed25519)")


def _refused(error: BaseException) -> bool:
    """Return whether every address of the name refused; paramiko raises one error for all of them."""
    errors = getattr(error, "errors", {None: error})
    return all(isinstance(e, ConnectionRefusedError) for e in errors.values())


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, socket.gaierror):
        return "the name is not known"
    text = str(error) or type(error).__name__
    return text.removeprefix("[Errno None] ")
