"""The application under the server that it really runs on: gunicorn, several workers, one unix socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

APP_FOLDER = Path(__file__).resolve().parents[1]
GUNICORN = [sys.executable, "-m", "gunicorn", "--preload", "--no-control-socket", "--chdir", str(APP_FOLDER)]
LIMIT = 16 * 1024 * 1024  # bytes
PATIENCE = 60  # seconds until a hung server fails the test; nothing waits that long otherwise


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("app.example", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The path of a socket that two workers answer."""
    monkeypatch.setenv("DECANT_RELEASE", "r1")
    monkeypatch.setenv("PROXY_HOPS", "1")
    folder = tmp_path_factory.mktemp("s")  # short: some systems allow 104 bytes for a socket's path
    ready, tell = os.pipe()
    # Each worker says when it has booted. Told to stop any earlier, it would not hear, and be waited for 30 s.
    settings = f"import os\n\ndef post_worker_init(worker):\n    os.write({tell}, b'.')\n"
    (folder / "settings.py").write_text(settings)
    arguments = [f"--config={folder}/settings.py", f"--bind=unix:{folder}/s", "--workers=2", "--threads=2"]
    process = subprocess.Popen([*GUNICORN, *arguments, "wsgi:app"], pass_fds=[tell])
    os.close(tell)
    try:
        for _ in range(2):
            assert os.read(ready, 1) == b".", "gunicorn ended before its workers had booted"
        yield folder / "s"
    finally:
        process.terminate()
        process.wait(PATIENCE)
        os.close(ready)


def post(server: Path, chunks: list[bytes], headers: dict[str, str]) -> tuple[int, int]:
    """Return the status, and the length that the application counted, or that was sent if it refused."""
    connection = UnixConnection(server)
    # Refused before the last byte was sent, the answer is there all the same.
    with contextlib.suppress(ConnectionError):
        chunked = "Transfer-Encoding" in headers
        connection.request("POST", "/echo", iter(chunks), headers, encode_chunked=chunked)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.headers["X-Release"] == "r1"
    return answer.status, json.loads(body)["length"] if answer.status == 200 else sum(map(len, chunks))


def test_answers_carry_the_release_and_share_one_count(server: Path) -> None:
    def visit(_: int) -> int:
        connection = UnixConnection(server)
        connection.request("GET", "/request", headers={"X-Forwarded-For": "198.51.100.7"})
        answer = connection.getresponse()
        seen = json.load(answer)
        connection.close()
        assert answer.status == 200
        assert answer.headers["X-Release"] == "r1"
        assert seen["client"] == "198.51.100.7"
        assert seen["host"] == "app.example"
        return int(seen["visits"])

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(visit, range(40))) == list(range(1, 41))


@pytest.mark.parametrize(("length", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
def test_a_body_may_have_exactly_the_limit(server: Path, length: int, status: int) -> None:
    assert post(server, [b"x" * length], {"Content-Length": str(length)}) == (status, length)


@pytest.mark.parametrize(("mebibytes", "status"), [(15, 200), (17, 413)])
def test_a_body_of_unannounced_length_is_limited_too(server: Path, mebibytes: int, status: int) -> None:
    chunks = [b"x" * 1024 * 1024] * mebibytes
    assert post(server, chunks, {"Transfer-Encoding": "chunked"}) == (status, mebibytes * 1024 * 1024)


def test_a_mistake_in_the_environment_is_told_without_a_traceback(tmp_path: Path) -> None:
    command = [*GUNICORN, f"--bind=unix:{tmp_path}/socket", "wsgi:app"]
    environment = os.environ | {"PROXY_HOPS": "many"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 1
    assert "PROXY_HOPS is 'many'; allowed is" in result.stderr
    assert "Traceback" not in result.stderr
