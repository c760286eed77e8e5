"""A site on a throwaway machine: asking it, looking at its state, and putting releases live without the program."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from decant.app.archive import pack
from decant.app.folder import read_app
from decant.app.model import AppOptions
from decant.app.release_id import app_config, release_id
from decant.host import steps
from decant.rollout.agent_client import MachineAgent
from decant.rollout.attempt import Attempt
from decant.rollout.plan import Plan, PlanData
from decant.rollout.report import RolloutResult
from decant.ssh.client import Access
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from tests.support.project_copy import STACK, Project, Run
from tests.support.waiting import PATIENCE

# Characters that a careless hand-over of a value would break.
CANARY = "canary5b1f'\"e$7c\\d9 ä%s"
GREETING = "hello 'you' \"there\" $HOME \\n"
ENV, SECRETS = {"GREETING": GREETING}, {"API_TOKEN": CANARY}  # of every release, unless a test wants others


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
    """The result of staging an app without the program. `error` is the machine's reason for a refusal."""

    status: int
    release: str
    installed: bool
    error: str


@dataclass(kw_only=True, repr=False)
class Site:
    """A machine with a login, and the app that the program put live on it.

    `first` is the result of the program's first run, and `command_lines` are those of all processes on the machine and
    on this computer during that run. `again` is the result of a second run, with the names of what it changed.
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
            host_key=self.machine.host_key, private_key=self.private_key, setting="decant:hosts[0]",
        )  # fmt: skip

    def config(self, **settings: Any) -> dict[str, Any]:
        """Return the stack's configuration, with more settings of `decant:`."""
        host_setting = {"address": self.address, "hostKey": self.machine.host_key, "name": self.name}
        defaults = {"cloud": "ssh", "hosts": [host_setting], "sshPrivateKey": self.private_key}
        return {f"decant:{name}": value for name, value in {**defaults, **settings}.items()}

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
        """Send one request from outside, on a new connection. The path is sent unchanged."""
        with contextlib.closing(http.client.HTTPConnection(self.address, 80, timeout=PATIENCE)) as connection:
            connection.request(method, path, body=body, headers=dict(headers or {}), encode_chunked=chunked)
            reply = connection.getresponse()
            return Reply(status=reply.status, headers=reply.headers, body=reply.read())

    def exchange(self, sent: bytes) -> bytes:
        """Send bytes and return everything that comes back until the other side closes the connection."""
        with socket.create_connection((self.address, 80), timeout=PATIENCE) as connection:
            received = b""
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(sent)
                while part := connection.recv(65536):
                    received += part
            return received

    def inside(self, code: str) -> str:
        """Run Python code in the app's worker (see app_probe.py) and return what it prints."""
        reply = self.ask("/", method="POST", body=code.encode(), headers={"X-Probe": "run"})
        assert reply.status == 200, reply.body
        return reply.body.decode()

    def status(self) -> dict[str, Any]:
        """Return the output of the machine's program for `status`."""
        found: dict[str, Any] = json.loads(self.machine.run([steps.PROGRAM, "status"]).stdout)
        return found

    @property
    def live(self) -> str:
        return self.ask("/healthz").release

    def on_disk(self) -> dict[str, str]:
        """Return each file of the machine without logs and the app's data: its times of change, mode and owner."""
        left_out = [
            f"-path {path} -prune -o" for path in ("/var/log", "/var/lib/decant/data", "/var/lib/decant/app-data")
        ]
        found = self.machine.run(f"find / -xdev {' '.join(left_out)} -type f -printf '%p\\t%T@ %C@ %m %u\\n'").stdout
        return dict(line.split("\t") for line in found.splitlines())

    def processes(self) -> dict[str, str]:
        """Return the processes of nginx, the app and sshd, and the times when their units started."""
        units = ["nginx", "ssh", f"app@{self.live}"]
        wanted = "--property=MainPID,ActiveEnterTimestampMonotonic,ExecMainStartTimestampMonotonic"
        found = {unit: self.machine.run(["systemctl", "show", wanted, unit]).stdout for unit in units}
        return {**found, "workers": self.machine.run(["pgrep", "-f", "nginx: worker|gunicorn"]).stdout}

    # ---------------------------------------------------------------- releases without the program

    def variant(self, folder: Path, files: Mapping[str, str]) -> Path:
        """Make a copy of the app in `folder`, with more or other files in it."""
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
        options: AppOptions | None = None,
        read_as: Path | None = None,
        **settings: Any,
    ) -> Staged:
        """Stage an app folder with the program's own step but without the program: it takes one second instead of five.

        Settings are those of the live release, except for `settings`. `within` is a command that runs the step,
        `options` say how the folder is read. `read_as` is read in place of an app that would be refused.
        """
        read = replace(read_app(read_as or app, options or AppOptions()), folder=app)
        with tempfile.TemporaryDirectory() as cache:
            packed = pack(read, Path(cache))
            data = packed.path.read_bytes()
        shape = json.loads(self.machine.run(f"cat /var/lib/decant/{self.live_path}/release.json").stdout)
        shape |= {
            **app_config(read), "lock": packed.requirements_hash,
            "secret_names": sorted(secrets), **settings,
        }  # fmt: skip
        for name in ("tar", "staged"):
            del shape[name]
        release = release_id(packed, {**shape, "env": dict(env)}, secrets, "key")
        tar = packed.path.name
        (self.machine.root / steps.incoming(tar).lstrip("/")).write_bytes(data)
        given = steps.stage_input(tar=tar, sha256=packed.sha256, settings=shape, environment={**env, **secrets})
        step = f"{within} {steps.PROGRAM} stage {release}" if within else steps.stage_step(release)
        done = self.machine.run(step, input=given, check=False)
        said = json.loads(done.stdout) if done.returncode == 0 else {}
        return Staged(
            status=done.returncode, release=release, installed=said.get("installed", False), error=done.stderr
        )

    @property
    def live_path(self) -> str:
        return self.machine.run(["readlink", "/var/lib/decant/persisted"]).stdout.strip()

    def plan(self, release: str, **changes: Any) -> PlanData:
        """Return the standard input of the `rollout` step."""
        plan = {
            "url": f"http://{self.address}",
            "address": self.address,
            "domain": None,
            "root": None,
            "batch": 1,
            "machines": [{"tag": f"{self.name}.x", **vars(self.access)}],
            "done": [],
            "balancer": None,
            **changes,
        }
        return cast(PlanData, plan)

    def roll_out(self, release: str) -> RolloutResult:
        """Put a staged release live with the program's own step.

        Raises:
            RolloutError: The release was taken back.
        """
        return Attempt(Plan.from_dict(release, self.plan(release))).run()

    def release(self, app: Path, **settings: Any) -> str:
        """Stage an app folder, put it live, and return the release's id."""
        staged = self.stage(app, **settings)
        assert staged.status == 0, staged.error
        self.roll_out(staged.release)
        return staged.release

    @contextlib.contextmanager
    def offline(self) -> Iterator[None]:
        """Cut the machine off from everything beyond this computer while the block runs."""
        self.machine.run("ip route delete default")
        try:
            yield
        finally:
            self.machine.run(["ip", "route", "add", "default", "via", self.network.gateway])

    @contextlib.contextmanager
    def held(self, owner: str = "test") -> Iterator[MachineAgent]:
        """Hold the machine's lease, so that the test can send single commands."""
        agent = MachineAgent(self.access, "0123456789abcdef", owner)
        try:
            agent.acquire_lease()
            yield agent
        finally:
            agent.close()


def settled(site: Site) -> bool:
    """Whether no lease is held, and the machine serves the release that a boot would bring back, confirmed.

    A staged release may run besides, if a timer will stop it.
    """
    listed = "systemctl list-units --all --plain --no-legend 'decant-*.timer' 'decant-revert-*.service'"
    units = site.machine.run(listed).stdout
    status = site.status()
    others = set(status["running"]) - {status["persisted"]}
    claimed = status["current"] == status["persisted"] in status["running"] and "decant-revert" not in units
    return claimed and status["lease"] is None and all(f"decant-unclaimed-{other}.timer" in units for other in others)
