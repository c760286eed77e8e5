"""The real nginx with Decant's configuration, moved to a folder and ports where it needs no root and no machine."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.host_files import HERE, SYSTEM_PATH, program
from tests.support.waiting import wait_for


def move(text: str, folder: Path, port: int, tls_port: int = 18443) -> str:
    """The configuration with every path and port replaced."""
    (folder / "mime.types").write_text("types { text/css css; }\n")
    temporary = "".join(f"{p}_temp_path {folder}/{p};" for p in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    moved = text.replace("/etc/nginx/mime.types", f"{folder}/mime.types").replace("/run/nginx.pid", f"{folder}/pid")
    moved = moved.replace("/var/log/nginx", str(folder)).replace("http {", "http {" + temporary, 1)
    moved = moved.replace("/run/decant", f"{folder}/run")
    moved = moved.replace("/var/lib/decant", f"{folder}/lib")
    moved, ports = re.subn(r"listen (\[::\]:)?80\b", rf"listen \g<1>{port}", moved)
    assert ports in (4, 6)
    moved = re.sub(r"listen (\[::\]:)?443\b", rf"listen \g<1>{tls_port}", moved)
    fitted = folder / "fitted.conf"
    fitted.write_text(moved)
    subprocess.run(["bash", HERE / "scripts" / "fit-nginx.sh", fitted], check=True, env={"PATH": SYSTEM_PATH})
    moved = fitted.read_text()
    if os.geteuid() != 0:
        return moved.replace("user www-data;", "")
    return moved.replace("user www-data;", "user root;")  # the folder of a test is root's alone


@dataclass
class Nginx:
    """A running nginx. Its releases listen in `folder`/run/ID/socket, as on a machine."""

    folder: Path
    port: int
    tls_port: int
    runs: list[str] = field(default_factory=list)

    def release(self, link: str, answer: Callable[[socket.socket, bytes], None] | None) -> None:
        """Let a release answer behind the link `current` or `previous`; with None, one whose socket is not there."""
        name = f"release-{link}"
        (self.folder / "run" / name / "socket").mkdir(parents=True, exist_ok=True)
        (self.folder / "run" / link).symlink_to(name)
        if answer is None:
            return
        runs, respond = self.runs, answer

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += self.request.recv(65536)
                head, _, body = request.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                while length and len(body) < int(length[1]):
                    body += self.request.recv(65536)
                runs.append(f"{link} {head.decode().splitlines()[0].rpartition(' ')[0]} {len(body)}")
                with contextlib.suppress(OSError):
                    respond(self.request, head + b"\r\n\r\n" + body)

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
            request_queue_size = 64

        server = Server(str(self.folder / "run" / name / "socket" / "gunicorn.sock"), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def exchange(self, request: str, *, family: socket.AddressFamily = socket.AF_INET) -> bytes:
        """Send a request and return everything that comes back."""
        with self.connect(family) as sock:
            sock.sendall(request.encode())
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while part := sock.recv(65536):
                    received += part
            return received

    def connect(self, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """A connection to nginx."""
        sock = socket.socket(family)
        sock.settimeout(20)
        sock.connect(("::1" if family == socket.AF_INET6 else "127.0.0.1", self.port))
        return sock

    def ask(
        self, path: str, *, method: str = "GET", host: str = "203.0.113.7", body: str = "", headers: str = ""
    ) -> bytes:
        """One request; its whole answer, head and body."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return self.exchange(
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{headers}\r\n{body}"
        )

    def status(self, path: str, **more: str) -> int:
        """The status of one request; 444 where nginx hangs up."""
        answer = self.ask(path, **more)
        return int(answer.split()[1]) if answer else 444

    def logged(self, what: str) -> bool:
        """Wait until the access log has this text: nginx writes a line after the answer."""
        return bool(wait_for(lambda: what in (self.folder / "access.log").read_text(), what, timeout=5))


def reply(body: str, status: str = "200 OK", *headers: str) -> Callable[[socket.socket, bytes], None]:
    """A release's answer that is always the same."""
    head = "\r\n".join([f"HTTP/1.1 {status}", "X-Release: 0123456789ab", f"Content-Length: {len(body)}", *headers])
    return lambda sock, _: sock.sendall(f"{head}\r\n\r\n{body}".encode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(text: str, folder: Path) -> Iterator[Nginx]:
    """Run nginx with a machine's configuration until the block ends."""
    nginx, port, tls_port = program("nginx"), free_port(), free_port()
    (folder / "run").mkdir()
    file = folder / "nginx.conf"
    file.write_text(move(text, folder, port, tls_port))
    words = [nginx, "-p", str(folder), "-e", str(folder / "errors"), "-c", str(file), "-g", "daemon off;"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None, (folder / "errors").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(listens, "nginx")
        yield Nginx(folder, port, tls_port)
    finally:
        process.terminate()
        process.wait()
