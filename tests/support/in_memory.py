"""The whole program, run in this process on paper machines: what it asks Pulumi for is recorded to the letter.

A run gets an event loop and mocks of its own, and hands back plain data only, so that no test can disturb another.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import re
import runpy
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
from google.protobuf import json_format
from pulumi.runtime import mocks
from pulumi.runtime.stack import run_pulumi_func

from decant.ssh.client import Access, CommandResult
from rehearsal.accounts.base import Account
from rehearsal.backend import Check, Entrance
from rehearsal.doubles import Doubles, is_wrapped, key_pair
from rehearsal.issuer import Issuer

REPOSITORY = Path(__file__).resolve().parents[2]
SIGNATURE = "4dabf18193072939515e22adb298388d"  # Pulumi's wire format; spelled out, so that no constant checks itself
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
OWN_KEYS = {f"web-{number}": key_pair()[1].strip() for number in range(1, 5)}
"""The host keys that machines make for themselves."""
STACK_TYPE = "pulumi:pulumi:Stack"


# ------------------------------------------------------------------------------------------------ paper machines


@dataclass
class InMemoryBackend:
    """A world without machines: every step succeeds at once and says what the real one would say."""

    steps: list[tuple[str, str, str]] = field(default_factory=list)
    copies: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    accesses: dict[str, Access] = field(default_factory=dict)
    booted: dict[str, str] = field(default_factory=dict)
    assigned: dict[str, str] = field(default_factory=dict)
    networks: dict[str, list[str]] = field(default_factory=dict)
    balancers: dict[str, tuple[str, Check]] = field(default_factory=dict)
    targeted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    entrances: dict[str, list[Entrance]] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    issuer: Issuer = field(default_factory=Issuer)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def boot(self, name: str, user_data: str) -> str:
        """An address of the cloud's own."""
        with self.lock:
            self.booted[name] = user_data
            return f"10.9.8.{len(self.booted)}"

    def reserve(self) -> str:
        """An address that stays."""
        return "203.0.113.77"

    def assign_address(self, reserved: str, machine: str) -> None:
        """Only a machine that was booted, or a balancer that was started, can be given an address."""
        assert machine.startswith("10.9.8.") or machine in self.balancers
        self.assigned[reserved] = machine

    def attach_to_network(self, machine: str, network: str) -> str:
        """Only a machine that was booted has an address inside; the network's first is the router's."""
        assert machine.startswith("10.9.8.")
        with self.lock:
            members = self.networks.setdefault(network, [])
            members.append(machine)
            return str(ipaddress.ip_network(network)[1 + len(members)])

    def create_load_balancer(self, name: str, network: str, check: Check) -> str:
        """A public address; `balancers` has what was asked for."""
        with self.lock:
            address = f"203.0.113.{100 + len(self.balancers)}"
            self.balancers[address] = (network, check)
            return address

    def set_entrance(self, balancer: str, entrance: Entrance) -> None:
        """Only a balancer that was started has an entrance; `entrances` has what was asked for, in order."""
        assert balancer in self.balancers
        self.entrances.setdefault(balancer, []).append(entrance)

    def set_targets(self, balancer: str, machines: Sequence[str]) -> None:
        """Only a balancer that was started has targets, and all of them in the network that its own is a part of."""
        own = ipaddress.ip_network(self.balancers[balancer][0])
        if machines:
            (network,) = [n for n in map(ipaddress.ip_network, self.networks) if own.subnet_of(n)]  # type: ignore[arg-type]
            assert all(ipaddress.ip_address(machine) in network for machine in machines)
        self.targeted[balancer] = tuple(machines)

    def local(self, step: str, command: str, stdin: str) -> CommandResult:
        """The local steps, told apart by their module; they end their line, as a real program does."""
        self._did(step, command, stdin)
        given = json.loads(stdin)
        module, *words = re.fullmatch(r"\S+ -m (\S+)((?: \S+)*)", command).groups()  # type: ignore[union-attr]
        if module == "decant.ssh.ready":
            own = {"host_key": OWN_KEYS[given["name"]]} if given.get("own_key") else {}
            return self._says({"machine": given["name"], "ready": True, **own})
        if module == "decant.ssh.own_key":
            return self._says({"machine": given["name"], "host_key": "SHA256:of-its-own-key"})
        assert module == "decant.rollout", command
        result = {
            "url": given["url"],
            "release": words[0].strip(),
            "machines": [{"name": m["name"], "address": m["address"]} for m in given["machines"]],
            "receipt": {"requests": 12, "failed": 0},
        }
        return self._says(result)

    def remote(self, step: str, access: Access, command: str, stdin: str) -> CommandResult:
        """A step on a machine."""
        self._did(step, command, stdin)
        self.accesses[step] = access
        return self._says({"step": step, "nonce": "0123456789abcdef"})

    def copy(self, step: str, access: Access, source: Path, target: str) -> None:
        """Reads the file as the real provider would: relative to the program's folder."""
        self.accesses[step] = access
        self.copies[step] = (target, source.read_bytes())

    def _did(self, step: str, command: str, stdin: str) -> None:
        with self.lock:
            self.steps.append((step, command, stdin))

    @staticmethod
    def _says(result: Mapping[str, Any]) -> CommandResult:
        return CommandResult(status=0, stdout=json.dumps(result) + "\n", stderr="")


def carried(script: str) -> dict[str, bytes]:
    """The files in the standard input of a `provision` step: those that belong to one machine."""
    found = re.findall(r"base64 -d >\"\$folder/(\S+)\" <<'END'\n(.*?)END\n", script, flags=re.DOTALL)
    return {name: base64.b64decode(encoded) for name, encoded in found}


def server_names(conf: str) -> list[str]:
    """The names of the site in nginx's configuration."""
    (names,) = re.findall(r"^ *server_name (?!_;)(.*);$", conf, re.MULTILINE)
    return str(names).split()


class Forecast(Doubles):
    """A preview: the provider computes nothing, so whatever the program did not give is unknown."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        """The inputs back, for the types that have a double; the others fail as in a run."""
        if args.custom and args.typ not in self.doubles:
            return super().new_resource(args)
        return None if args.custom else "", dict(args.inputs)


# ------------------------------------------------------------------------------------------------ the record


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A resource as the program asked the engine for it: options and inputs in wire form, secrets still wrapped."""

    urn: str
    type: str
    name: str
    custom: bool
    parent: str
    dependencies: tuple[str, ...]
    deleted_with: str
    ignore_changes: tuple[str, ...]
    replace_on_changes: tuple[str, ...]
    delete_before_replace: bool | None
    """None leaves it to the provider, which may delete first what has a name of the program's choice."""
    protect: bool
    timeouts: Mapping[str, str]
    """What the program allows an operation instead of the provider's own limit."""
    provider: str
    before_create: tuple[str, ...]
    """The names of the hooks that run before it is created."""
    after_create: tuple[str, ...]
    """The same for hooks that run after it."""
    secret_outputs: tuple[str, ...]
    """Outputs that are stored encrypted although the provider does not mark them."""
    aliases: tuple[tuple[str, str], ...]
    """Former types and names; an empty text is the type or name of today."""
    inputs: Mapping[str, Any]

    @property
    def short(self) -> str:
        """Type without its package and module, and name."""
        return f"{self.type.rpartition(':')[2]} {self.name}"


@dataclass(frozen=True)
class LookUp:
    """Something that the program asked a cloud."""

    token: str
    provider: str
    arguments: Mapping[str, Any]


class Recorder(mocks.MockMonitor):
    """The mock engine, with a memory for whole requests."""

    def __init__(self, doubles: Doubles) -> None:
        super().__init__(doubles)
        self.lock = threading.Lock()
        self.registered: dict[str, Registered] = {}
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.states: dict[str, Mapping[str, Any]] = {}
        self.ids: dict[str, str] = {}
        self.asked: list[LookUp] = []

    def Invoke(self, request: Any) -> Any:
        """Keep the look-up, then answer it."""
        with self.lock:
            self.asked.append(LookUp(request.tok, request.provider, json_format.MessageToDict(request.args)))
        return super().Invoke(request)  # type: ignore[no-untyped-call]

    def RegisterResource(self, request: Any) -> Any:
        """Keep the request, then answer it."""
        urn = self.make_urn(request.parent, request.type, request.name)
        one = Registered(
            urn=urn,
            type=request.type,
            name=request.name,
            custom=request.custom,
            parent=request.parent,
            dependencies=tuple(request.dependencies),
            deleted_with=request.deletedWith,
            ignore_changes=tuple(request.ignoreChanges),
            replace_on_changes=tuple(request.replaceOnChanges),
            delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
            protect=request.protect,
            timeouts=json_format.MessageToDict(request.customTimeouts),
            provider=request.provider,
            before_create=tuple(request.hooks.before_create),
            after_create=tuple(request.hooks.after_create),
            secret_outputs=tuple(request.additionalSecretOutputs),
            aliases=tuple((alias.spec.type, alias.spec.name) for alias in request.aliases),
            inputs=json_format.MessageToDict(request.object),
        )
        with self.lock:
            assert urn not in self.registered, f"{urn} is registered twice"
            self.registered[urn] = one
        response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        with self.lock:
            self.states[urn] = json_format.MessageToDict(response.object)
            self.ids[urn] = response.id
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:
        """Keep a component's outputs; the stack's are its exports."""
        with self.lock:
            assert request.urn not in self.outputs, f"{request.urn} registers its outputs twice"
            self.outputs[request.urn] = json_format.MessageToDict(request.outputs)
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True)
class Export:
    """One output of the stack."""

    value: Any
    known: bool
    secret: bool


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run of the program came to."""

    resources: Mapping[str, Registered]
    outputs: Mapping[str, Mapping[str, Any]]
    states: Mapping[str, Mapping[str, Any]]
    ids: Mapping[str, str]
    asked: tuple[LookUp, ...]
    exports: Mapping[str, Export]
    world: InMemoryBackend
    warnings: tuple[str, ...]
    infos: tuple[str, ...]

    def one(self, short: str) -> Registered:
        """The only resource with this short name (`Command web-1-provision`)."""
        found = [r for r in self.resources.values() if r.short == short]
        assert len(found) == 1, f"{short}: {len(found)} of {sorted(r.short for r in self.resources.values())}"
        return found[0]

    def of_type(self, word: str) -> list[Registered]:
        """All resources whose type ends like this."""
        return [r for r in self.resources.values() if r.type.endswith(word)]

    def text(self, short: str, key: str) -> str:
        """An input as text, unwrapped."""
        return str(reveal(self.one(short).inputs[key]))


def provisioned(run: Run, machine: str) -> tuple[str, dict[str, Any]]:
    """The nginx configuration and the settings file that a machine's `provision` step installs."""
    files = carried(run.text(f"Command {machine}-provision", "stdin"))
    return files["nginx.conf"].decode(), json.loads(files["settings.json"])


def requested(run: Run) -> dict[str, Registered]:
    """Everything that the program asks the engine for, with the dependencies in a fixed order."""
    return {urn: replace(one, dependencies=tuple(sorted(one.dependencies))) for urn, one in run.resources.items()}


STEPS = ("ready", "files", "provision", "updates", "check-space", "upload", "stage")  # of every machine


def reveal(value: Any) -> Any:
    """A wire value with its secrets unwrapped."""
    if is_wrapped(value):
        return reveal(value["value"])
    if isinstance(value, dict):
        return {k: reveal(v) for k, v in value.items()}
    if isinstance(value, list):
        return [reveal(v) for v in value]
    return value


def in_clear(value: Any) -> Iterator[str]:
    """Every text of a wire value that is not inside a secret's wrapper, keys included."""
    if is_wrapped(value):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from in_clear(item)
    elif isinstance(value, list):
        for item in value:
            yield from in_clear(item)
    else:
        yield str(value)


# ------------------------------------------------------------------------------------------------ a project


PRIVATE, PUBLIC = key_pair()
_, HOST_KEY = key_pair()
HOST_KEY = HOST_KEY.strip()

APP = {
    "wsgi.py": "from flask import Flask\n\napp = Flask(__name__)\n",
    "requirements.txt": "flask==3.1.3 \\\n    --hash=sha256:" + "0" * 64 + "\n",
    "static/style.css": "body { margin: 0 }\n",
}

DROPLET: dict[str, Any] = {"cloud": "digitalocean", "adminCidrs": ["100.64.7.0/24", "fd00:7::/64"]}
INSTANCE: dict[str, Any] = {
    "cloud": "aws",
    "adminCidrs": ["100.64.7.0/24", "fd00:7::/64"],
    "aws:region": "eu-central-1",
}
HOST: dict[str, Any] = {
    "cloud": "ssh",
    "hosts": [{"address": "server.example.com", "hostKey": HOST_KEY, "user": "carol", "port": 2222, "name": "shop"}],
    "sshPrivateKey": PRIVATE,
}
# The least that a stack of each cloud must say; the conformance suite runs it on every cloud there is.
STACKS: dict[str, dict[str, Any]] = {"aws": INSTANCE, "digitalocean": DROPLET, "ssh": HOST}
SECRETS = frozenset({"secrets", "sshPrivateKey", "certificateKey", "savedCertificate"})


def project(folder: Path, app: Mapping[str, str] = APP) -> Path:
    """A checkout with an app of its own; the program is the real one."""
    (folder / "infra" / "decant").mkdir(parents=True)
    for name, text in app.items():
        path = folder / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def run_program(
    folder: Path,
    config: Mapping[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    preview: bool = False,
    stack: str = "paper",
    program: Path = REPOSITORY / "infra" / "__main__.py",
    world: InMemoryBackend | None = None,
) -> Run:
    """infra/__main__.py from its first line to its last export, for the project in `folder`.

    `config` maps settings without their namespace to plain values; those of a provider have theirs (`aws:region`).
    `world` may have accounts at clouds that differ from the usual one. Raises what the program raises.
    """
    monkeypatch.setenv("PULUMI_ERROR_OUTPUT_STRING", "1")  # text made of an output is a mistake, not a warning
    monkeypatch.chdir(folder / "infra")
    text = {
        key if ":" in key else f"decant:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in config.items()
    }
    world = world or InMemoryBackend()
    doubles = (Forecast if preview else Doubles)(world)
    recorder = Recorder(doubles)
    log = _Log()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(ThreadPoolExecutor(16))
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        pulumi.runtime.reset_options()
        pulumi.runtime.set_all_config(text, [f"decant:{k}" for k in SECRETS & config.keys()])
        pulumi.runtime.set_mocks(
            doubles, project="decant", stack=stack, preview=preview, monitor=recorder, logger=log.logger
        )

        async def body() -> None:
            runpy.run_path(str(program), run_name="__main__")

        loop.run_until_complete(run_pulumi_func(body))
        exports = loop.run_until_complete(_exports())
    finally:
        signal.signal(signal.SIGINT, interrupt)  # the program sets one that ends the process
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        asyncio.set_event_loop(None)
        pulumi.runtime.set_all_config({}, [])
        pulumi.runtime.reset_options()
    return Run(
        resources=recorder.registered,
        outputs=recorder.outputs,
        states=recorder.states,
        ids=recorder.ids,
        asked=tuple(recorder.asked),
        exports=exports,
        world=world,
        warnings=tuple(log.warnings),
        infos=tuple(log.infos),
    )


async def _exports() -> dict[str, Export]:
    root: Any = pulumi.runtime.settings.get_root_resource()
    result = {}
    for name, value in root.outputs.items():
        output = pulumi.Output.from_input(value)
        known = await output.is_known()
        result[name] = Export(
            value=await output.future() if known else None, known=known, secret=await output.is_secret()
        )
    return result


class _Log:
    """Pulumi's own log: what it only tells, and warnings and worse."""

    def __init__(self) -> None:
        import logging

        self.warnings: list[str] = []
        self.infos: list[str] = []
        self.logger = logging.Logger("paper")
        handler = logging.Handler()
        handler.emit = lambda record: (  # type: ignore[method-assign]
            self.warnings if record.levelno >= logging.WARNING else self.infos
        ).append(record.getMessage())
        handler.setLevel(logging.INFO)
        self.logger.addHandler(handler)
