"""A client for WebSockets, as small as tests need it: a handshake, and text in single frames (RFC 6455)."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
from collections.abc import Mapping

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: str) -> str:
    """What a server must answer to a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1((key + MAGIC).encode()).digest()).decode()


def frame(payload: bytes, *, opcode: int = 1, mask: bytes = b"") -> bytes:
    """One whole frame; a client must mask its own."""
    size = len(payload)
    flag = 0x80 if mask else 0
    length = bytes([flag | size]) if size < 126 else bytes([flag | 126]) + struct.pack("!H", size)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if mask else payload
    return bytes([0x80 | opcode]) + length + mask + body


class WebSocket:
    """An open WebSocket. `status` is 101, or that of the refusal; then there is no WebSocket."""

    def __init__(
        self, address: str, path: str, *, host: str = "", headers: Mapping[str, str] | None = None, timeout: float = 10
    ) -> None:
        self.sock = socket.create_connection((address, 80), timeout=timeout)
        self._open(host or address, path, headers or {})

    @classmethod
    def over(cls, sock: socket.socket, path: str, *, host: str, headers: Mapping[str, str] | None = None) -> WebSocket:
        """Open one on a connection that exists."""
        made = cls.__new__(cls)
        made.sock = sock
        made._open(host, path, headers or {})
        return made

    def _open(self, host: str, path: str, headers: Mapping[str, str]) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        sent = {"Host": host, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": key,
                "Sec-WebSocket-Version": "13", **headers}  # fmt: skip
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self.sock.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        self.stream = self.sock.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        self.headers: dict[str, str] = {}
        while line := self.stream.readline().strip():
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value
        if self.status == 101:
            assert self.headers["sec-websocket-accept"] == accept_key(key)

    def send(self, text: str) -> None:
        """Send one message."""
        self.sock.sendall(frame(text.encode(), mask=os.urandom(4)))

    def receive(self) -> str | None:
        """Return the next message, or None where the other side has ended the WebSocket."""
        try:
            head = self.stream.read(2)
            if len(head) < 2 or head[0] & 0x0F == 8:
                return None
            size = head[1] & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", self.stream.read(2))
            return self.stream.read(size).decode()
        except ConnectionError:
            return None

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
