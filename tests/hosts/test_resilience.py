"""What a site stands: visitors who take their time, or come all at once, a killed worker, full disks, log rotation."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from decant.session import Session
from tests.support.site import Site
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


@pytest.mark.thorough  # it takes ten seconds
def test_an_unfinished_request_is_hung_up_on(site: Site) -> None:
    assert site.exchange(b"GET / HTTP/1.1\r\nHost: ") == b""


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
