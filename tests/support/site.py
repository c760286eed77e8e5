"""What tests of real machines share: the program on a copy of the project, a site on a machine, and its visitors."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from decant import bundle, host
from decant.rollout import Attempt, Plan, Target
from decant.session import Access
from rehearsal.machines import Machine, Network

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
STACK = "hosts"
# Of characters that a careless hand-over would stumble on.
CANARY = "canary5b1f'\"e$7c\\d9 ä%s"
GREETING = "hello 'you' \"there\" $HOME \\n"
ENV, SECRETS = {"GREETING": GREETING}, {"API_TOKEN": CANARY}  # of every release, unless a test wants others
PATIENCE = 60.0  # seconds until a test gives up on what has to happen; no test waits for them to pass


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Poll until the condition gives something true, and return that."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
        time.sleep(0.05)
    return found


# ------------------------------------------------------------------------------------------------ the program


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run of the program came to. `error` is what its user reads, `log` all that was printed."""

    status: int
    outputs: dict[str, Any]
    error: str
    log: str

    @property
    def release(self) -> str:
        assert self.status == 0, self.log
        release: str = self.outputs["release"]
        return release


class Project:
    """A copy of the project, whose app a test may change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = folder / "app"
        self._driver: subprocess.Popen[str] | None = None
        folder.mkdir()
        for name in ("app", "infra", "rehearsal"):
            left_out = shutil.ignore_patterns("__pycache__", "instance", ".*_cache")
            shutil.copytree(REPOSITORY / name, folder / name, ignore=left_out)
        (folder / ".venv").symlink_to(Path(sys.prefix))

    def run(self, network: Network, config: Mapping[str, Any], *, stack: str = STACK) -> Run:
        """Run the program to its end, as `make rehearse` does."""
        if self._driver is None:
            self._driver = subprocess.Popen(  # it ends with its standard input, and so with this process
                [sys.executable, "-u", str(HERE / "drive.py"), str(self.folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        given, said = self._driver.stdin, self._driver.stdout
        assert given is not None
        assert said is not None
        encrypted = {"decant:sshPrivateKey", "decant:secrets"}
        request = {
            "network": network.name,
            "stack": stack,
            "config": dict(config),
            "secret_keys": sorted(encrypted & set(config)),
        }
        print(json.dumps(request), file=given, flush=True)
        lines: list[str] = []
        while not (line := said.readline()).startswith("END "):
            assert line, "".join(lines)
            lines.append(line)
        results = [line for line in lines if line.startswith(('{"outputs"', '{"error"'))]
        assert len(results) == 1, "".join(lines)
        result = json.loads(results[0])
        return Run(
            status=int(line.split()[1]),
            outputs=result.get("outputs", {}),
            error=result.get("error", ""),
            log="".join(line for line in lines if line not in results),  # the outputs hold what is for the user alone
        )


# ------------------------------------------------------------------------------------------------ a site


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def release(self) -> str:
        return self.headers.get("X-Release", "")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Staged:
    """What staging an app without the program came to. `error` is what the machine said of a refused one."""

    status: int
    release: str
    installed: bool
    error: str


@dataclass(kw_only=True, repr=False)
class Site:
    """A machine that has a login, and what is live on it.

    `first` is the program's first run on it, `command_lines` are those of all processes, here and there, meanwhile,
    and `again` is a second run with what it changed.
    """

    machine: Machine
    network: Network
    project: Project
    private_key: str
    name: str = "web"
    first: Run = field(init=False)
    command_lines: set[str] = field(init=False)
    again: tuple[Run, list[str]] = field(init=False)

    @property
    def address(self) -> str:
        return self.machine.address

    @property
    def access(self) -> Access:
        assert self.machine.host_key is not None
        return Access(
            name=self.name, address=self.address, port=22, user="root",
            host_key=self.machine.host_key, private_key=self.private_key,
        )  # fmt: skip

    def config(self, **settings: Any) -> dict[str, Any]:
        """The stack's configuration, with these settings of `decant:` besides."""
        one = {"address": self.address, "hostKey": self.machine.host_key, "name": self.name}
        usual = {"cloud": "ssh", "hosts": [one], "sshPrivateKey": self.private_key}
        return {f"decant:{name}": value for name, value in {**usual, **settings}.items()}

    def up(self, *, stack: str = STACK, **settings: Any) -> Run:
        """Run the whole program."""
        return self.project.run(self.network, self.config(**settings), stack=stack)

    # ---------------------------------------------------------------- asking it

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        chunked: bool = False,
    ) -> Reply:
        """One request from outside, on a connection of its own; the path goes out as it is."""
        with contextlib.closing(http.client.HTTPConnection(self.address, 80, timeout=PATIENCE)) as connection:
            connection.request(method, path, body=body, headers=dict(headers or {}), encode_chunked=chunked)
            reply = connection.getresponse()
            return Reply(status=reply.status, headers=reply.headers, body=reply.read())

    def exchange(self, sent: bytes) -> bytes:
        """Send bytes and return all that comes back until the other side closes."""
        with socket.create_connection((self.address, 80), timeout=PATIENCE) as connection:
            received = b""
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(sent)
                while part := connection.recv(65536):
                    received += part
            return received

    def inside(self, code: str) -> str:
        """What Python code prints that runs in the app's worker, as the app's own could (see probe.py)."""
        reply = self.ask("/", method="POST", body=code.encode(), headers={"X-Probe": "run"})
        assert reply.status == 200, reply.body
        return reply.body.decode()

    def status(self) -> dict[str, Any]:
        """What the machine's own program says of it."""
        said: dict[str, Any] = json.loads(self.machine.run([host.PROGRAM, "status"]).stdout)
        return said

    @property
    def live(self) -> str:
        return self.ask("/healthz").release

    def on_disk(self) -> dict[str, str]:
        """Each file of the machine that logs and the app's data are not among: when it changed, its mode and owner."""
        left_out = [f"-path {path} -prune -o" for path in ("/var/log", "/var/lib/decant/data")]
        found = self.machine.run(f"find / -xdev {' '.join(left_out)} -type f -printf '%p\\t%T@ %C@ %m %u\\n'").stdout
        return dict(line.split("\t") for line in found.splitlines())

    def processes(self) -> dict[str, str]:
        """The processes of nginx, the app and sshd, and when their units started."""
        units = ["nginx", "ssh", f"app@{self.live}"]
        wanted = "--property=MainPID,ActiveEnterTimestampMonotonic,ExecMainStartTimestampMonotonic"
        found = {unit: self.machine.run(["systemctl", "show", wanted, unit]).stdout for unit in units}
        return {**found, "workers": self.machine.run(["pgrep", "-f", "nginx: worker|gunicorn"]).stdout}

    # ---------------------------------------------------------------- releases without the program

    def variant(self, folder: Path, files: Mapping[str, str]) -> Path:
        """A copy of the app with other files in it."""
        shutil.copytree(self.project.app, folder, dirs_exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder

    def stage(
        self,
        app: Path,
        *,
        env: Mapping[str, str] = ENV,
        secrets: Mapping[str, str] = SECRETS,
        within: str = "",
        **settings: Any,
    ) -> Staged:
        """Stage an app folder by the step that the program uses, but by hand: a second instead of five.

        Settings are those of the live release unless others are given; `within` is a command to run the step by.
        """
        read = bundle.read_app(app, static=None)
        packed = bundle.pack(read)
        shape = json.loads(self.machine.run(f"cat /var/lib/decant/{self.live_path}/release.json").stdout)
        shape |= {
            "entry": read.entry, "static": read.static, "requirements": read.requirements[0], "locked": read.locked,
            "release_command": read.release_command, "lock": packed.lock, "secret_names": sorted(secrets), **settings,
        }  # fmt: skip
        for name in ("tar", "staged"):
            del shape[name]
        release = bundle.release_id(packed, {**shape, "env": dict(env)}, secrets, "key")
        tar = f"app-{packed.code[:12]}.tar"
        (self.machine.root / host.incoming(tar).lstrip("/")).write_bytes(packed.data)
        given = host.stage_input(tar=tar, sha256=packed.sha256, settings=shape, environment={**env, **secrets})
        step = f"{within} {host.PROGRAM} stage {release}" if within else host.stage_step(release)
        done = self.machine.run(step, input=given, check=False)
        said = json.loads(done.stdout) if done.returncode == 0 else {}
        return Staged(
            status=done.returncode, release=release, installed=said.get("installed", False), error=done.stderr
        )

    @property
    def live_path(self) -> str:
        return self.machine.run(["readlink", "/var/lib/decant/persisted"]).stdout.strip()

    def plan(self, release: str, **changes: Any) -> dict[str, Any]:
        """What the `rollout` step reads."""
        machine = {"mark": f"{self.name}.x"} | {
            f: getattr(self.access, f) for f in ("name", "address", "port", "user", "host_key", "private_key")
        }
        url = f"http://{self.address}"
        return {
            "stack": STACK,
            "url": url,
            "rollout": "serial",
            "machines": [machine],
            "done": [],
            "balancer": None,
            **changes,
        }

    def roll_out(self, release: str) -> dict[str, Any]:
        """Put a staged release live, by the step that the program uses. Raises RolloutError."""
        return Attempt(Plan.read(release, self.plan(release))).run()

    def release(self, app: Path, **settings: Any) -> str:
        """Stage an app folder and put it live."""
        staged = self.stage(app, **settings)
        assert staged.status == 0, staged.error
        self.roll_out(staged.release)
        return staged.release

    @contextlib.contextmanager
    def offline(self) -> Iterator[None]:
        """Nothing beyond this computer can be reached from the machine."""
        self.machine.run("ip route delete default")
        try:
            yield
        finally:
            self.machine.run(["ip", "route", "add", "default", "via", self.network.gateway])

    @contextlib.contextmanager
    def held(self, owner: str = "test") -> Iterator[Target]:
        """The machine's lease, to call single verbs under."""
        target = Target(self.access, "0123456789abcdef", owner)
        try:
            target.hold()
            yield target
        finally:
            target.close()


def settled(site: Site) -> bool:
    """Whether nobody holds the machine and it serves what a boot would bring back, not on trial.

    Besides, there may be a staged release, if that will stop by itself.
    """
    listed = "systemctl list-units --all --plain --no-legend 'decant-*.timer' 'decant-revert-*.service'"
    units = site.machine.run(listed).stdout
    status = site.status()
    others = set(status["running"]) - {status["persisted"]}
    claimed = status["current"] == status["persisted"] in status["running"] and "decant-revert" not in units
    return claimed and status["lease"] is None and all(f"decant-unclaimed-{other}.timer" in units for other in others)


# ------------------------------------------------------------------------------------------------ watching


@contextlib.contextmanager
def command_lines() -> Iterator[set[str]]:
    """The command lines of all processes of this computer, its machines' among them, seen while the block runs."""
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # it ended meanwhile
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(PATIENCE)


def open_ports(address: str, ports: Iterable[int]) -> Iterator[int]:
    """The TCP ports that accept a connection; a few hundred are tried at a time."""
    left, trying = iter(ports), {}
    poll = select.epoll()
    while True:
        for port in left:
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((address, port))
            trying[one.fileno()] = (one, port)
            poll.register(one.fileno(), select.EPOLLOUT)
            if len(trying) >= 500:
                break
        if not trying:
            return
        ready = poll.poll(PATIENCE)
        assert ready, "neither accepted nor refused: this host has no firewall"
        for descriptor, _ in ready:
            one, port = trying.pop(descriptor)
            poll.unregister(descriptor)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                yield port
            one.close()


# ------------------------------------------------------------------------------------------------ visitors


class Visitors:
    """People at a site: GET and POST, on connections that they keep and on new ones, for as long as the block runs.

    `failures` has everything that was not a whole answer with status 200; `releases` who answered, in order.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.failures: list[str] = []
        self.releases: list[str] = []
        self.answers = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        kinds = [("GET", "/", True), ("GET", "/healthz", True), ("POST", "/echo", True)]
        kinds += [("GET", "/request", False), ("POST", "/echo", False), ("GET", "/static/style.css", False)]
        self._threads = [threading.Thread(target=self._visit, args=kind, daemon=True) for kind in kinds]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def more(self, count: int = 30) -> None:
        """Wait for so many more requests of theirs to end."""
        enough = self.answers + len(self.failures) + count
        wait_for(lambda: self.answers + len(self.failures) >= enough, f"{count} more requests")

    def _visit(self, method: str, path: str, keep: bool) -> None:
        body = b"x" * 20_000 if method == "POST" else None
        connection = http.client.HTTPConnection(self.address, 80, timeout=PATIENCE)
        while not self._stop.wait(0.06):
            try:
                connection.request(method, path, body=body, headers={} if keep else {"Connection": "close"})
                reply = connection.getresponse()
                content = reply.read()
                good = reply.status == 200 and (method == "GET" or json.loads(content)["length"] == 20_000)
                failure = "" if good else f"{method} {path}: {reply.status} {content[:200]!r}"
                release = reply.headers.get("X-Release", "")
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure, release = f"{method} {path}: {error!r}", ""
            with self._lock:
                if failure:
                    self.failures.append(failure)
                else:
                    self.answers += 1
                    if release and self.releases[-1:] != [release]:
                        self.releases.append(release)
        connection.close()
