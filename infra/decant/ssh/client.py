"""An SSH connection to a machine, verified by the pinned host key. Knows nothing of Pulumi, so that it starts fast.

`python -m decant.session` is the `ready` step: it waits until a machine lets us in, by the wall clock.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from decant.errors import HostKeyError, MachineError, PortClosedError, UnreachableError

# Debian 13's sshd penalises a source that knocks without logging in: one honest try every two seconds. A port that is
# closed has no sshd yet to annoy.
TRY_EVERY = 2.0
TRY_CLOSED_EVERY = 0.5
CONNECT_TIMEOUT = 15.0
ED25519 = "ssh-ed25519"


def check_host_key(text: object) -> str:
    """`ssh-ed25519 AAAA...` without its comment. Raises HostKeyError.

    Only ed25519: the Pulumi command provider offers exactly the pinned key's type, and an RSA pin would mean
    the legacy ssh-rsa signature that sshd refuses.
    """
    if not isinstance(text, str) or not text.strip():
        raise HostKeyError("it is missing")
    kind, _, rest = text.strip().partition(" ")
    blob = rest.split(" ")[0]
    if kind != ED25519:
        raise HostKeyError("it does not begin with ssh-ed25519")
    try:
        raw = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        raise HostKeyError("its second word is not base64") from None
    # RFC 8709: the kind and the key, each behind its length.
    if len(raw) != 51 or not raw.startswith(b"\0\0\0\x0b" + ED25519.encode() + b"\0\0\0\x20"):
        raise HostKeyError("it is cut short or altered")
    return f"{ED25519} {blob}"


def fingerprint(host_key: str) -> str:
    """The `SHA256:...` form that ssh itself shows."""
    digest = hashlib.sha256(base64.b64decode(host_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def check_private_key(value: object) -> str:
    """The key's text, ending in a newline as ssh wants it. Raises ValueError without the key in it."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    if not isinstance(value, str) or "PRIVATE KEY-----" not in value:
        raise ValueError("it does not begin with -----BEGIN ... PRIVATE KEY-----")
    text = value.strip() + "\n"
    if "-----BEGIN PRIVATE KEY-----" in text:
        raise ValueError("it is in PKCS#8 form; ssh-keygen -p -f KEYFILE rewrites it")
    if text.count("\n") < 3:
        raise ValueError("it cannot be read: its line ends are lost; give the file itself")
    load = load_ssh_private_key if "OPENSSH" in text else load_pem_private_key
    try:
        load(text.encode(), password=None)
    except TypeError:
        raise ValueError("it has a passphrase") from None
    except Exception as error:
        passphrase = "password" in str(error).lower()
        raise ValueError("it has a passphrase" if passphrase else "it cannot be read") from None
    return text


@dataclass(frozen=True, kw_only=True)
class Access:
    """What it takes to log in to one machine."""

    name: str
    address: str
    port: int
    user: str
    host_key: str
    private_key: str = field(repr=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Access:
        """From JSON: numbers may come as floats, which is how Pulumi carries them."""
        fields = {f: data[f] for f in ("name", "address", "user", "host_key", "private_key")}
        return cls(port=int(data["port"]), **fields)

    def __str__(self) -> str:
        port = "" if self.port == 22 else f" port {self.port}"
        return f"{self.name} ({self.user}@{self.address}{port})"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command on a machine came to."""

    status: int
    stdout: str
    stderr: str


class Session:
    """An SSH connection with the pinned host key; use it as a context manager."""

    def __init__(self, access: Access) -> None:
        """Log in. Raises UnreachableError (try again) or MachineError (trying again will not help)."""
        import paramiko

        self.access = access
        self.client = paramiko.SSHClient()
        kind, blob = access.host_key.split()[:2]
        name = access.address if access.port == 22 else f"[{access.address}]:{access.port}"
        pinned = paramiko.Ed25519Key(data=base64.b64decode(blob))
        self.client.get_host_keys().add(name, kind, pinned)
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            self.client.connect(
                access.address,
                port=access.port,
                username=access.user,
                pkey=_load_key(access.private_key),
                timeout=CONNECT_TIMEOUT,
                banner_timeout=CONNECT_TIMEOUT,
                auth_timeout=CONNECT_TIMEOUT,
                look_for_keys=False,
                allow_agent=False,
            )
        except paramiko.BadHostKeyException as error:
            shown = f"{error.key.get_name()} SHA256:" + base64.b64encode(
                hashlib.sha256(error.key.asbytes()).digest()
            ).decode().rstrip("=")
            raise MachineError(
                f"{access} shows another host key than the one that is pinned, so nothing was sent to it.\n"
                f"  pinned: ssh-ed25519 {fingerprint(access.host_key)}\n"
                f"  shown:  {shown}\n"
                "  If the server was reinstalled, read its key on its console: cat /etc/ssh/ssh_host_ed25519_key.pub\n"
                "  and set it: pulumi config set --path 'decant:hosts[0].hostKey' 'ssh-ed25519 AAAA...'\n"
                "  If it was not, somebody else may be answering at this address."
            ) from None
        except paramiko.AuthenticationException as error:
            # paramiko calls these by the same name, but a server that hung up or fell silent has refused nobody.
            if "EOF" in str(error):
                raise UnreachableError(f"{access}: the connection closed during the login") from None
            if "timeout" in str(error).lower():
                raise UnreachableError(f"{access}: no answer during the login") from None
            raise MachineError(
                f"{access} refused the login: this key is not allowed for user {access.user}.\n"
                f"  On cloud ssh, add the public half of decant:sshPrivateKey to ~{access.user}/.ssh/authorized_keys\n"
                "  on the host, or set the right key: cat KEYFILE | pulumi config set --secret decant:sshPrivateKey"
            ) from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            self.client.close()
            raise (PortClosedError if _refused(error) else UnreachableError)(f"{access}: {_reason(error)}") from None
        # Kept, because the client forgets it when another thread hangs up.
        transport: Any = self.client.get_transport()
        transport.set_keepalive(5)
        self._transport = transport

    def open(self, command: str, timeout: float | None = None) -> Any:
        """Begin a shell line and return its channel. Raises UnreachableError when the connection breaks."""
        import paramiko

        try:
            channel = self._transport.open_session(timeout=timeout)
            channel.settimeout(timeout)
            channel.exec_command(command)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise UnreachableError(f"{self.access}: {_reason(error)} while running {command}") from None
        return channel

    def run(self, command: str, *, stdin: str = "", timeout: float = 120.0) -> Answer:
        """Run a shell line and wait. Raises UnreachableError when the connection breaks or `timeout` seconds pass."""
        import paramiko

        channel = self.open(command, timeout)
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
        return Answer(status=status, stdout=stdout, stderr=stderr)

    def close(self) -> None:
        """Hang up."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _load_key(text: str) -> Any:
    """Whatever kind of private key it is; paramiko asks for the class by name."""
    import paramiko

    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.SSHException:
            continue
    raise MachineError("the SSH private key is of a kind that is not supported: use ed25519 (ssh-keygen -t ed25519)")


def _refused(error: BaseException) -> bool:
    """paramiko wraps the refusals of all of a name's addresses into one error."""
    each = getattr(error, "errors", {None: error})
    return all(isinstance(e, ConnectionRefusedError) for e in each.values())


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, socket.gaierror):
        return "the name is not known"
    text = str(error) or type(error).__name__
    return text.removeprefix("[Errno None] ")


# ------------------------------------------------------------------------------------------------ the ready step

# One line of shell, sent as it is: the machine may have nothing but a shell yet.
# cloud-init exits 2 when it is done with a warning, 1 when it failed.
_CHECK = """
. /etc/os-release; echo "os=$ID $VERSION_ID"
SUDO=; [ "$(id -u)" = 0 ] || SUDO="sudo -n"
if $SUDO true 2>/dev/null; then echo root=yes; else echo root=no; exit 0; fi
if command -v cloud-init >/dev/null; then
    $SUDO timeout 600 cloud-init status --wait >/dev/null 2>&1; echo "first_boot=$?"
fi
[ -d /run/systemd/system ] && echo systemd=yes || echo systemd=no
"""


def wait_ready(access: Access, *, patience: float, say: Any = print) -> None:
    """Wait up to `patience` seconds for a login, then for first boot. Raises MachineError with the way out."""
    deadline = time.monotonic() + patience
    started = time.monotonic()
    last = ""
    while True:
        try:
            with Session(access) as session:
                answer = session.run(_CHECK, timeout=630)
            break
        except UnreachableError as error:
            why = str(error).removeprefix(f"{access}: ")
            pause = TRY_CLOSED_EVERY if isinstance(error, PortClosedError) else TRY_EVERY
            if time.monotonic() + pause > deadline:
                raise MachineError(
                    f"{access} did not let us in within {patience:.0f} s: {why}.\n"
                    f"  Is it running, and may this computer reach port {access.port}? Try: "
                    f"ssh -p {access.port} {access.user}@{access.address}\n"
                    "  On a cloud, decant:adminCidrs must hold the public address that you deploy from; on cloud ssh,"
                    " decant:hosts\n  the right address. Then run pulumi up again."
                ) from None
            if why != last:
                say(f"{access}: {why}; trying until {patience:.0f} s are over")
                last = why
            time.sleep(pause)
    _accept(access, dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line))
    say(f"{access} is ready after {time.monotonic() - started:.1f} s")


def _accept(access: Access, facts: Mapping[str, str]) -> None:
    if facts.get("os") != "debian 13":
        raise MachineError(
            f"{access} runs {facts.get('os', 'an unknown system')}; Decant supports debian 13.\n"
            "  On a cloud: pulumi config rm decant:image. On cloud ssh: bring a Debian 13 host."
        )
    if facts.get("root") != "yes":
        raise MachineError(
            f"{access}: user {access.user} cannot use sudo without a password.\n"
            f"  On the host, as root: echo '{access.user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{access.user}\n"
            "  or log in as root: pulumi config set --path 'decant:hosts[0].user' root"
        )
    if facts.get("systemd") != "yes":
        raise MachineError(f"{access} is not run by systemd; Decant's services need it. Bring a full Debian 13 host.")
    if facts.get("first_boot") in ("1", "124"):
        raise MachineError(
            f"{access}: first boot (cloud-init) failed. See why with: ssh {access.user}@{access.address}"
            " sudo cat /var/log/cloud-init-output.log"
        )


def main() -> int:
    """The `ready` step: an `Access` plus `patience` (seconds) as JSON on standard input."""
    data = json.load(sys.stdin)
    access = Access.from_dict(data)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        wait_ready(access, patience=float(data["patience"]), say=say)
    except MachineError as error:
        say(str(error))
        return 1
    print(json.dumps({"machine": access.name, "ready": True}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
