"""What a site stands: visitors who take their time, or come all at once, a killed worker, full disks, log rotation."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from decant.ssh.client import Session
from tests.support.site import Reply, Site
from tests.support.visitors import Visitors
from tests.support.waiting import PATIENCE, wait_for

KILOBYTE = 1024
PRINT = b"print('x' * 300_000)"  # more than nginx keeps in memory of an answer
SLOW = 350  # of them at once
KINDS = 6  # requests that Visitors have under way at most


async def each(count: int, one: Callable[[int], Awaitable[str]]) -> list[str]:
    """What as many of them at once come to."""
    return await asyncio.gather(*(one(number) for number in range(count)))


# ------------------------------------------------------------------------------------------------ slow visitors


def asked_at_once(site: Site) -> int:
    """Requests that gunicorn has under way."""
    listed = f"ss -xH state established src /run/decant/{site.live}/socket/gunicorn.sock"
    return len(site.machine.run(listed).stdout.splitlines())


@pytest.mark.parametrize(
    ("said", "then"),
    [
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nX-Slow: ", b"x"),
        (b"POST /echo HTTP/1.1\r\nHost: HOST\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nHost: HOST\r\nX-Probe: run\r\nContent-Length: LENGTH\r\n\r\n" + PRINT, b""),
    ],
    ids=["headers", "body", "reading"],
)
def test_those_who_take_their_time_hold_up_nobody(site: Site, said: bytes, then: bytes) -> None:
    """Hundreds of them cost nginx a connection each and gunicorn nothing."""
    first = said.replace(b"HOST", site.address.encode()).replace(b"LENGTH", str(len(PRINT)).encode())
    there, enough = asyncio.Semaphore(0), asyncio.Event()

    async def slow() -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * KILOBYTE)  # the answer does not fit into it
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with contextlib.closing(sock):
            await loop.sock_connect(sock, (site.address, 80))
            await loop.sock_sendall(sock, first)
            there.release()
            while not enough.is_set():
                if then:
                    await loop.sock_sendall(sock, then)
                await asyncio.sleep(0.5)

    async def main() -> list[str]:
        async with asyncio.TaskGroup() as group:  # who is hung up on too early fails it
            for _ in range(SLOW):
                group.create_task(slow())
            for _ in range(SLOW):
                await there.acquire()
            with Visitors(site.address) as visitors:
                await asyncio.to_thread(visitors.more, 100)
                await asyncio.to_thread(wait_for, lambda: asked_at_once(site) <= KINDS, "gunicorn alone with visitors")
            enough.set()
        return visitors.failures

    assert asyncio.run(main()) == []


# ------------------------------------------------------------------------------------------------ slow requests


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How something slow ended, and after how many seconds."""

    what: Any
    seconds: float


def timed(action: Callable[[], Any]) -> Ending:
    started = time.monotonic()
    what = action()
    return Ending(what=what, seconds=time.monotonic() - started)


@pytest.fixture(scope="module")
def slow(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ending]:
    """Slow requests of each kind, all at once, and a release that goes live meanwhile: about 40 s for all of them."""
    before, host = site.live, site.address.encode()

    def work(seconds: int) -> Callable[[], Reply]:
        code = f"import time; time.sleep({seconds}); print('done')".encode()
        return lambda: site.ask("/", method="POST", body=code, headers={"X-Probe": "run"})

    def never_read() -> str:
        """Send a request whose answer is larger than all buffers, and read nothing of it for 20 s."""
        head = f"POST / HTTP/1.1\r\nHost: {site.address}\r\nX-Probe: run\r\nContent-Length: {len(PRINT)}\r\n\r\n"
        with contextlib.closing(socket.socket()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * KILOBYTE)
            sock.connect((site.address, 80))
            sock.sendall(head.encode() + PRINT)
            time.sleep(20)
            try:
                while sock.recv(65536):
                    pass
            except ConnectionResetError:
                return "reset"
            return "closed in order"

    actions: dict[str, Callable[[], Any]] = {
        "20 s": work(20),
        "headers": lambda: site.exchange(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nX-Slow: "),
        "body": lambda: site.exchange(b"POST /echo HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 9\r\n\r\nx"),
        "reading": never_read,
    }
    with ThreadPoolExecutor(len(actions) + 1) as threads:
        futures = {name: threads.submit(timed, action) for name, action in actions.items()}
        wait_for(lambda: asked_at_once(site) >= 1, "the request at the app")
        app = site.variant(tmp_path_factory.mktemp("slow") / "app", {"static/slow.txt": "changed"})
        after = site.release(app)
        assert (site.live, after != before) == (after, True)
        futures["45 s"] = threads.submit(timed, work(45))  # of the release that stays, whose stop does not end it
        endings = {name: future.result() for name, future in futures.items()}
    site.roll_out(before)
    return {**endings, "release": Ending(what=before, seconds=0)}


def test_a_request_of_20_seconds_outlives_a_release(slow: dict[str, Ending]) -> None:
    reply = slow["20 s"].what
    assert (reply.status, reply.body) == (200, b"done\n")
    assert reply.release == slow["release"].what, "of the release that it came to"


def test_a_request_is_ended_after_30_seconds(slow: dict[str, Ending]) -> None:
    """By nginx: gunicorn's own time-out is for workers that hang, and does not end a thread's request."""
    assert slow["45 s"].what.status == 504
    assert 29 <= slow["45 s"].seconds < 34


def test_clients_that_send_nothing_more_are_disconnected(slow: dict[str, Ending]) -> None:
    assert slow["headers"].what == b""
    assert 9 <= slow["headers"].seconds < 14
    assert b" 408 " in slow["body"].what or slow["body"].what == b""
    assert 14 <= slow["body"].seconds < 19


def test_a_client_that_reads_nothing_is_reset(slow: dict[str, Ending]) -> None:
    """And not closed in order, which keeps the unsent answer in memory."""
    assert slow["reading"].what == "reset"


# ------------------------------------------------------------------------------------------------ too many at once


def test_a_crowd_waits_its_turn(site: Site) -> None:
    """More than all workers and threads together, at once and on new connections: nobody gets an error."""
    head = f"GET /request HTTP/1.1\r\nHost: {site.address}\r\nConnection: close\r\n\r\n".encode()

    async def visit(_: int) -> str:
        try:
            reader, writer = await asyncio.open_connection(site.address, 80)
            writer.write(head)
            answer = await asyncio.wait_for(reader.read(), PATIENCE)
            writer.close()
        except OSError as error:
            return repr(error)
        return answer[:12].decode()

    assert Counter(asyncio.run(each(1500, visit))) == {"HTTP/1.1 200": 1500}
    assert site.ask("/healthz").status == 200


# ------------------------------------------------------------------------------------------------ a killed worker


def test_a_worker_that_is_killed_is_replaced(site: Site) -> None:
    """As the kernel does when memory runs out: what it had under way is lost, and nothing else."""
    unit = f"app@{site.live}"
    master = site.machine.run(["systemctl", "show", "--value", "--property=MainPID", unit]).stdout.strip()

    def workers() -> set[str]:
        return set(site.machine.run(f"cat /proc/{master}/task/*/children").stdout.split())

    before = workers()
    with Visitors(site.address) as visitors:
        lost = site.ask("/", method="POST", body=b"import os; os.kill(os.getpid(), 9)", headers={"X-Probe": "run"})
        wait_for(lambda: len(workers() - before) == 1 and len(workers()) == len(before), "another worker")
        at_once = len(visitors.failures)
        visitors.more(100)
    assert lost.status == 502
    assert len(visitors.failures) == at_once <= KINDS, visitors.failures
    assert site.machine.run(["systemctl", "show", "--value", "--property=MainPID,NRestarts", unit]).stdout.split() == [
        master, "0"
    ]  # fmt: skip
    with Session(site.access) as session:
        assert session.run("true").status == 0


def test_a_master_that_is_killed_is_back_at_once(site: Site) -> None:
    unit = f"app@{site.live}"
    show = ["systemctl", "show", "--value", "--property=MainPID", unit]
    master = site.machine.run(show).stdout.strip()
    started = time.monotonic()
    site.machine.run(["kill", "-KILL", master])
    wait_for(lambda: site.machine.run(show).stdout.strip() not in ("0", master), "another master")
    wait_for(lambda: site.ask("/healthz").status == 200, "an answer")
    assert time.monotonic() - started < 10
    assert site.machine.run(["systemctl", "is-active", unit]).stdout == "active\n"


# ------------------------------------------------------------------------------------------------ full disks


@contextlib.contextmanager
def full(site: Site, folder: str, after: str) -> Iterator[None]:
    """Something small and full in a folder's place, with the same folders in it; `after` each change of it."""
    site.machine.run(
        f"mkdir -p /mnt && cp -a --attributes-only {folder}/. /mnt && mount -t tmpfs -o size=64k none {folder}"
        f" && cp -a /mnt/. {folder} && rm -rf /mnt/* && {after}; head -c 1M /dev/zero >{folder}/full || true"
    )
    try:
        yield
    finally:
        site.machine.run(f"umount --lazy {folder} && {after}")


def test_a_full_disk_of_nginx_fails_large_uploads_alone(site: Site) -> None:
    large = b"x" * 200 * KILOBYTE
    with full(site, "/var/lib/nginx", "true"):
        assert site.ask("/echo", method="POST", body=large).status == 500
        assert [site.ask(path).status for path in ("/", "/static/style.css")] == [200, 200]
        assert site.ask("/echo", method="POST", body=b"x" * KILOBYTE).json()["length"] == KILOBYTE
    assert site.ask("/echo", method="POST", body=large).json()["length"] == len(large)


def test_logs_are_rotated_without_losing_a_line(site: Site) -> None:
    """By Debian's own rule for nginx; what rotates them comes with Decant where it was not there."""
    assert site.machine.run("systemctl is-active logrotate.timer").stdout == "active\n"

    async def visit(number: int) -> str:
        return str((await asyncio.to_thread(site.ask, f"/healthz?line={number}")).status)

    async def main() -> list[str]:
        visits = asyncio.create_task(each(300, visit))
        for _ in range(2):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(site.machine.run, "logrotate --force /etc/logrotate.d/nginx")
        return await visits

    assert set(asyncio.run(main())) == {"200"}
    wait_for(lambda: "line=299" in logged(site), "the last line")
    lines = Counter(map(int, re.findall(r"/healthz\?line=(\d+) ", logged(site))))
    assert lines == dict.fromkeys(range(300), 1)


def logged(site: Site) -> str:
    return site.machine.run("zcat -f /var/log/nginx/access.log*").stdout


REOPEN = "kill -USR1 $(cat /run/nginx.pid)"


def test_full_logs_stop_nobody(site: Site) -> None:
    with full(site, "/var/log/nginx", REOPEN), Visitors(site.address) as visitors:
        visitors.more(50)
    assert visitors.failures == []
    # Not at once: nginx tries a full disk once a second.
    wait_for(lambda: site.ask("/healthz?after=full") and "after=full" in logged(site), "a line in the log")
