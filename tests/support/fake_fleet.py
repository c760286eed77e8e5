"""A public URL and a fleet of machines, in memory: what an attempt talks to in tests."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from decant.errors import RolloutError
from decant.rollout.agent_client import MachineAgent
from decant.rollout.attempt import Attempt
from decant.rollout.plan import Balancer, Plan
from decant.ssh.client import Access
from tests.support.in_memory import PRIVATE
from tests.support.in_memory_sshd import SHOWN_KEY

OLD, NEW = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


# ------------------------------------------------------------------------------------------------ a public URL


@dataclass
class Site:
    """What visitors see: a local web server whose answers name a release.

    `fault` is a way to answer badly: "silent", "garbage", "cut short", "trickling", "trickling chunks", "trickling to
    the end" or "trickling redirect".
    """

    release: str = OLD
    status: int = 200
    fault: str = ""
    paths: list[str] = field(default_factory=list)
    """Of all requests, in order."""
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Site]:
        """Serve while the block runs."""
        handler = type("Handler", (_Handler,), {"site": self})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.handle_error = lambda *_: None  # type: ignore[method-assign]
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                self.over.set()
                server.shutdown()
                thread.join(timeout=10)


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.paths.append(self.path)
        if site.fault == "silent":
            return
        if site.fault == "garbage":
            self.wfile.write(b"no HTTP at all\r\n\r\n")
            return
        redirected = self.path == "/there"
        if site.fault == "trickling redirect" and not redirected:
            self.send_response(302)
            self.send_header("Location", "/there")
        else:
            self.send_response(site.status)
        if site.release and not (site.fault == "trickling redirect" and not redirected):
            self.send_header("X-Release", site.release)
        if site.fault == "trickling chunks":
            self.send_header("Transfer-Encoding", "chunked")
        elif site.fault != "trickling to the end":
            self.send_header("Content-Length", "200" if site.fault and not redirected else "2")
        self.end_headers()
        if site.fault.startswith("trickling") and not redirected:
            self._trickle(b"1\r\n.\r\n" if site.fault == "trickling chunks" else b".")
        else:
            self.wfile.write(b"ok")

    def _trickle(self, piece: bytes) -> None:
        """Send 199 pieces, each of which comes in time, and never the last one."""
        with contextlib.suppress(OSError):
            for _ in range(199):
                self.wfile.write(piece)
                if self.site.over.wait(0.05):
                    return
        self.site.over.wait(60)

    def log_message(self, *_: Any) -> None:
        pass


# ------------------------------------------------------------------------------------------------ machines


@dataclass
class Fleet:
    """Machines in memory that share one site: the one that switched last is what visitors see."""

    site: Site
    current: dict[str, str | None] = field(default_factory=dict)
    persisted: dict[str, str | None] = field(default_factory=dict)
    log: list[tuple[str, ...]] = field(default_factory=list)
    """Name of a machine, command and arguments, in the order in which they came."""
    faults: dict[tuple[str, str], BaseException | Callable[[FakeAgent], Any]] = field(default_factory=dict)
    """By name and command: an error to raise, or a function to call first."""
    connections: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    """Machines whose lease is held."""
    in_rotation: set[str] = field(default_factory=set)
    confirmed: dict[str, set[str]] = field(default_factory=dict)
    """Machines that ever confirmed a release, by release."""
    release_command: bool = True
    needs_200: bool = True
    https: bool | None = None
    certificate: dict[str, Any] = field(default_factory=dict)
    saved_certificate: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def calls(self, *commands: str) -> list[tuple[str, ...]]:
        """Machine and command of all calls of these commands, in order."""
        return [entry[:2] for entry in self.log if entry[1] in commands]

    def touched(self, command: str) -> list[str]:
        """The machines that got this command."""
        return [name for name, got, *_ in self.log if got == command]


class FakeAgent(MachineAgent):
    """A machine's agent in memory, with the same promises as the real one."""

    fleet: Fleet

    def __init__(self, access: Access, attempt: str, owner: str) -> None:
        self.access = access
        self.attempt = attempt
        self.owner = owner
        self.revert_timer_set_at: float | None = None
        self._log("connect")
        self.fleet.connections.add(access.name)

    def _log(self, command: str, *arguments: str) -> None:
        with self.fleet.lock:
            self.fleet.log.append((self.access.name, command, *arguments))
        fault = self.fleet.faults.get((self.access.name, command))
        if isinstance(fault, BaseException):
            raise fault
        if fault is not None:
            fault(self)

    def acquire_lease(self) -> None:
        self._log("acquire lease", self.owner)
        self.fleet.held.add(self.access.name)

    def close(self) -> None:
        self._log("close")
        self.fleet.held.discard(self.access.name)
        self.fleet.connections.discard(self.access.name)

    def call(self, command: str, *arguments: str, timeout: float = 60.0) -> dict[str, Any]:
        fleet, name = self.fleet, self.access.name
        assert name in fleet.held, f"{command} on {name} without its lease"
        self._log(command, *arguments)
        if command == "certificate":
            return fleet.certificate
        if command == "certificate-save":
            return {"saved": fleet.saved_certificate}
        release = arguments[0]
        if command == "prepare":
            return {
                "release": release,
                "health": "/healthz",
                "needs_200": fleet.needs_200,
                "current": fleet.current.get(name),
                "persisted": fleet.persisted.get(name),
                "confirmed": name in fleet.confirmed.get(release, set()),
                "release_command": fleet.release_command,
                "in_rotation": name in fleet.in_rotation,
                "https": fleet.https,
            }
        if command == "migrate":
            skipped = name in fleet.confirmed.get(release, set())
            return {"release": release, "migrated": not skipped, "skipped": skipped}
        if command == "revert":
            fleet.current[name] = fleet.persisted.get(name)
            fleet.site.release = fleet.persisted.get(name) or ""
            return {"release": fleet.persisted.get(name), "reverted": None}
        if command == "switch":
            fleet.current[name] = fleet.site.release = release
        elif command == "extend":
            assert fleet.current[name] == release
        elif command == "confirm":
            assert fleet.current[name] == release
            fleet.persisted[name] = release
            fleet.confirmed.setdefault(release, set()).add(name)
            with fleet.lock:
                fleet.in_rotation.add(name)
        return {"release": release}


NO_CERTIFICATE: dict[str, Any] = {
    "state": "waiting", "names": [], "missing": ["example.com"], "not_before": None, "not_after": None, "issued": None,
    "renewed": None, "last_try": None, "next_try": None, "cause": "", "reason": "",
}  # fmt: skip


def access(name: str, **changes: Any) -> Access:
    """How to log in to a machine that does not exist."""
    usual = {"name": name, "address": f"203.0.113.{ord(name[-1]) % 100}", "port": 22, "user": "deploy",
             "host_key": SHOWN_KEY, "private_key": PRIVATE}  # fmt: skip
    return Access(**{**usual, **changes})


def make_attempt(
    fleet: Fleet,
    names: str = "abc",
    batch: int = 1,
    release: str = NEW,
    old: str | None = OLD,
    balancer: Balancer | None = None,
) -> Attempt:
    """An attempt on machines that all serve `old`."""
    for name in names:
        if name not in fleet.persisted and old:
            fleet.in_rotation.add(name)
            fleet.confirmed.setdefault(old, set()).add(name)
        fleet.current.setdefault(name, old)
        fleet.persisted.setdefault(name, old)
    machines = tuple(access(name) for name in names)
    plan = Plan(
        release=release, machines=machines, url=fleet.site.url, batch=batch, balancer=balancer, tags=frozenset(names)
    )
    return Attempt(plan)


def failure(made: Attempt, error: type[BaseException] = RolloutError) -> str:
    """The text with which an attempt fails."""
    with pytest.raises(error) as caught:
        made.run()
    return str(caught.value)
