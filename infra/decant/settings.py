"""What a stack may say: every setting, typed and checked. The only reader of `pulumi.Config` and the only gate.

`SETTINGS` is the one table: the checks here, the "did you mean" of an unknown key and `docs/settings.md`
(`python -m decant.settings`) all come from it. Every problem of a stack is found before any is reported.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import pulumi

from decant import bundle, clouds, errors
from decant.errors import HostKeyError, InvalidValueError, SettingsError
from decant.ssh.keys import check_host_key, check_private_key

NAMESPACE = "decant"
KINDS = clouds.kinds()
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 5737 and RFC 3849: addresses of examples. Copied from a document, they would lock the user out.
DOCUMENTATION_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)
_rehearsal_networks: list[Network] = []


@dataclass(frozen=True, kw_only=True)
class Host:
    """A server that exists already: where it is, who logs in, and the ed25519 host key it must show."""

    address: str
    host_key: str
    user: str
    port: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One stack's settings after the gate: complete, typed, consistent. Secrets do not show in its repr."""

    stack: str
    cloud: str
    machines: int
    balancer: bool
    size: str
    region: str
    image: str
    admin_cidrs: tuple[str, ...]
    hosts: tuple[Host, ...]
    harden: bool
    trusted_proxies: tuple[str, ...]
    url: str | None
    app: bundle.App
    bundle: bundle.Bundle
    health_path: str | None
    health_timeout: int
    workers: int | None
    threads: int | None
    rollout: str
    release: str | None
    warnings: tuple[str, ...]
    env: Mapping[str, str]
    provider: Mapping[str, Any] = field(repr=False)
    """Settings of the cloud's own Pulumi provider (`<cloud>:...`), secrets marked as such."""
    secrets: Mapping[str, str] = field(repr=False)
    ssh_private_key: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A row of the table: what `docs/settings.md` says of a setting and how its text becomes a value."""

    name: str
    kind: str
    default: str
    meaning: str
    example: str
    parse: Callable[[Any], Any]
    secret: bool = False
    structured: bool = False
    later: bool = False

    @property
    def command(self) -> str:
        """The command that gives the setting a valid value."""
        if " | " in self.example:  # a secret comes by a pipe: what stands in a command line, others can read
            return self.example
        flags = ("--secret " if self.secret else "") + ("--path " if self.structured else "")
        return f"pulumi config set {flags}{self.example}"


# ------------------------------------------------------------------------------------------------ kinds of value


def _text(pattern: str, allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise InvalidValueError(allowed)
        return value

    return parse


def _one_of(*words: str) -> Callable[[Any], str]:
    return _text("|".join(map(re.escape, words)), "one of " + ", ".join(words))


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if not re.fullmatch(r"-?\d{1,9}", str(value)) or not low <= int(value) <= high:
            raise InvalidValueError(f"a whole number from {low} to {high}")
        return int(value)

    return parse


def _boolean(value: Any) -> bool:
    if str(value) not in ("true", "false", "True", "False"):
        raise InvalidValueError("true or false")
    return str(value).lower() == "true"


def _network(value: Any, at: str) -> Network:
    try:
        if "%" in str(value):
            raise ValueError("an address without a zone is wanted")  # noqa: TRY301 - Python takes any text for a zone
        network = ipaddress.ip_network(str(value))
        if network.prefixlen == 0:
            raise ValueError("not the whole world")  # noqa: TRY301
    except ValueError as error:
        allowed = f"an address or a network in CIDR form such as 10.1.2.3/32 ({error})"
        raise InvalidValueError(allowed, at=at, shown=value if isinstance(value, str) else json.dumps(value)) from None
    return network


def _networks(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidValueError("a list of networks in CIDR form, at least one")
    return tuple(str(_network(v, f"[{i}]")) for i, v in enumerate(value))


_NEVER_THE_WORLD = "your own address or network: SSH is never open to the world"


def _admin_networks(value: Any) -> tuple[str, ...]:
    if isinstance(value, list):
        for i, item in enumerate(value):
            if str(item).endswith("/0"):
                raise InvalidValueError(_NEVER_THE_WORLD, at=f"[{i}]", shown=str(item))
    networks = _networks(value)
    for i, text in enumerate(networks):
        network = ipaddress.ip_network(text)
        if network.prefixlen < (8 if network.version == 4 else 16):
            raise InvalidValueError(_NEVER_THE_WORLD, at=f"[{i}]", shown=text)
        example = any(network.version == d.version and network.overlaps(d) for d in DOCUMENTATION_NETWORKS)
        rehearsed = any(network.version == r.version and network.subnet_of(r) for r in _rehearsal_networks)  # type: ignore[arg-type]
        if example and not rehearsed:
            raise InvalidValueError("your own address; this one is reserved for examples", at=f"[{i}]", shown=text)
    return networks


_ADDRESS = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def _is_address(text: str) -> bool:
    if "%" in text:
        return False  # a zone, for which Python takes any text
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # An all-numeric name is a mistyped address, never a host name (RFC 1123, 2.1).
        return bool(_ADDRESS.fullmatch(text)) and not re.fullmatch(r"[\d.]+", text)
    return True


def _host(value: Any, at: str) -> Host:
    known = ("address", "hostKey", "user", "port", "name")
    if not isinstance(value, dict):
        raise InvalidValueError("an object with address and hostKey", at=at, shown=str(value)[:60])
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidValueError(f"one of {', '.join(known)}{hint}", at=f"{at}.{key}")
    address = value.get("address")
    if not isinstance(address, str) or not _is_address(address):
        raise InvalidValueError("an IP address or a host name", at=f"{at}.address", shown=str(address))
    try:
        host_key = check_host_key(value.get("hostKey"))
    except HostKeyError as error:
        raise InvalidValueError(
            f'the host\'s ed25519 public key, "ssh-ed25519 AAAA..." ({error}); on the host itself:'
            " cat /etc/ssh/ssh_host_ed25519_key.pub",
            at=f"{at}.hostKey",
            shown=str(value.get("hostKey"))[:60],
        ) from None
    try:
        user = _text(r"(?!decant(-build)?$)[a-z_][a-z0-9_-]{0,31}", "a login name")(value.get("user", "root"))
    except InvalidValueError as error:
        raise InvalidValueError(error.allowed, at=f"{at}.user", shown=str(value.get("user"))) from None
    try:
        port = _integer(1, 65535)(value.get("port", 22))
    except InvalidValueError as error:
        raise InvalidValueError(error.allowed, at=f"{at}.port", shown=str(value.get("port"))) from None
    name = value.get("name", address)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,62}", name):
        raise InvalidValueError("letters, digits and . : _ -, 63 at most", at=f"{at}.name", shown=str(name))
    return Host(address=address, host_key=host_key, user=user, port=port, name=name)


def _hosts(value: Any) -> tuple[Host, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidValueError("a list of hosts, each with address and hostKey")
    hosts = tuple(_host(v, f"[{i}]") for i, v in enumerate(value))
    for what in ("name", "address"):
        seen = [getattr(h, what) for h in hosts]
        for i, one in enumerate(seen):
            if one in seen[:i]:
                raise InvalidValueError(f"different from every other host's {what}", at=f"[{i}].{what}", shown=one)
    return hosts


# Variables that belong to the chain itself: another value would break it, not configure the app.
_RESERVED_ENV = ("DATA_DIR", "DECANT_RELEASE", "DECANT_MACHINE", "PROXY_HOPS", "CREDENTIALS_DIRECTORY", "PORT")


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidValueError("an object of names and values")
    result: dict[str, str] = {}
    for name, item in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InvalidValueError("named with letters, digits and _", at=f".{name}", shown="")
        if name in _RESERVED_ENV or name.startswith("GUNICORN_"):
            raise InvalidValueError("left out: Decant sets this variable itself", at=f".{name}", shown="")
        if isinstance(item, dict | list) or item is None:
            raise InvalidValueError("text, a number or a boolean", at=f".{name}", shown="")
        text = item if isinstance(item, str) else json.dumps(item)  # true, 1.5: as YAML writes them
        if "\0" in text:
            raise InvalidValueError("text without NUL characters", at=f".{name}", shown="")
        result[name] = text
    return result


def _private_key(value: Any) -> str:
    try:
        return check_private_key(value)
    except ValueError as error:
        raise InvalidValueError(f"a private key in OpenSSH form without a passphrase ({error})") from None


def _url(value: Any) -> str:
    wanted = InvalidValueError("http://NAME or https://NAME, without a path")
    try:
        parts = urlsplit(str(value))
        name, port = parts.hostname, parts.port
    except ValueError:
        raise wanted from None
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not name or port == 0 or not plain or not _is_address(name):
        raise wanted
    return f"{parts.scheme}://{parts.netloc}"


def _app_folder(value: Any) -> str:
    text = str(value)
    if not text or text.startswith("/") or ".." in Path(text).parts:
        raise InvalidValueError("a folder of this project, relative to Pulumi.yaml")
    return text


def _subfolder(value: Any) -> str:
    text = str(value).strip("/")
    if not Path(text).parts or ".." in Path(text).parts or not re.fullmatch(r"[A-Za-z0-9._/-]+", text):
        raise InvalidValueError("a folder inside the app, such as static or shop/static")
    return text


# ------------------------------------------------------------------------------------------------ the table


def _defaults(name: str) -> str:
    """What a setting is on each cloud where the stack does not say."""
    shown = {cloud: kind.defaults[name] for cloud, kind in KINDS.items() if name in kind.defaults}
    return ", ".join(f"`{v if isinstance(v, str) else json.dumps(v)}` on {cloud}" for cloud, v in shown.items())


def _elsewhere(ending: str) -> str:
    """Where a cloud's own provider has the setting."""
    return ", ".join(
        f"on {cloud} say `{n}`" for cloud, kind in KINDS.items() for n in kind.provider if n.endswith(ending)
    )


def _required(name: str) -> str:
    return "required on " + " and ".join(cloud for cloud, kind in KINDS.items() if name in kind.requires)


_SLUG = _text(r"[a-z0-9][a-z0-9._-]*", "a name of the cloud's: lower-case letters, digits, . _ and -")
_DOMAIN = _text(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", "a domain name such as example.com")

SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="cloud",
        kind=", ".join(f"`{name}`" for name in KINDS),
        default="required",
        meaning="Where machines come from: "
        + ", ".join(f"`{name}` ({kind.title})" for name, kind in KINDS.items())
        + ".",
        example=f"decant:cloud {next(name for name, kind in KINDS.items() if 'region' in kind.takes)}",
        parse=_one_of(*KINDS),
    ),
    Setting(
        name="machines",
        kind="1 to 50",
        default="1",
        meaning="How many machines. Two or more stand behind a balancer.",
        example="decant:machines 2",
        parse=_integer(1, 50),
    ),
    Setting(
        name="size",
        kind="the cloud's own word",
        default=_defaults("size"),
        meaning="What kind of machine. Two releases run side by side during a release: 1 GB is the least.",
        example="decant:size s-1vcpu-2gb",
        parse=_SLUG,
    ),
    Setting(
        name="region",
        kind="the cloud's own word",
        default=_defaults("region"),
        meaning=f"Where the machines stand; {_elsewhere(':region')}.",
        example="decant:region nyc3",
        parse=_SLUG,
    ),
    Setting(
        name="image",
        kind="the cloud's own word",
        default=_defaults("image"),
        meaning="What a new machine runs. Anything but Debian 13 is refused at first login.",
        example="decant:image debian-13-x64",
        parse=_SLUG,
    ),
    Setting(
        name="balancer",
        kind="boolean",
        default="`true` where `machines` is more than 1",
        meaning="The cloud's load balancer before the machines. With it, one machine can be replaced without a pause.",
        example="decant:balancer true",
        parse=_boolean,
    ),
    Setting(
        name="adminCidrs",
        kind="list of CIDRs",
        default=_required("adminCidrs"),
        meaning="Who may SSH, at the cloud's firewall. The whole world and example networks are refused."
        " Include the address `pulumi up` runs from.",
        example="'decant:adminCidrs[0]' \"$(curl -fsS4 https://checkip.amazonaws.com)/32\"",
        parse=_admin_networks,
        structured=True,
    ),
    Setting(
        name="hosts",
        kind="list of `{address, hostKey, user, port, name}`",
        default=_required("hosts"),
        meaning="The servers. `hostKey` is the line of `/etc/ssh/ssh_host_ed25519_key.pub` on the host. `user` is root"
        " or one with passwordless sudo; `port` is 22; `name` is the address.",
        example="'decant:hosts[0].address' server.example.com && pulumi config set --path"
        " 'decant:hosts[0].hostKey' 'ssh-ed25519 AAAA...'",
        parse=_hosts,
        structured=True,
    ),
    Setting(
        name="sshPrivateKey",
        kind="secret text",
        default=_required("sshPrivateKey"),
        meaning="The key that logs in to `hosts`. The clouds make a key per stack.",
        example="cat ~/.ssh/id_ed25519 | pulumi config set --secret decant:sshPrivateKey",
        parse=_private_key,
        secret=True,
    ),
    Setting(
        name="harden",
        kind="boolean",
        default=_defaults("harden"),
        meaning="Set the host's firewall and sshd strictly, or leave them as found.",
        example="decant:harden true",
        parse=_boolean,
    ),
    Setting(
        name="trustedProxies",
        kind="list of CIDRs",
        default="none",
        meaning="A proxy or balancer of your own in front of `ssh` hosts: its client address and scheme are believed.",
        example="'decant:trustedProxies[0]' 10.0.0.5/32",
        parse=_networks,
        structured=True,
    ),
    Setting(
        name="url",
        kind="`http://NAME` or `https://NAME`",
        default="`http://ADDRESS` of the host, of the first by name where there are several",
        meaning="The public URL of `ssh` hosts, where it is not their address (a name, a balancer of your own).",
        example="decant:url http://www.example.com",
        parse=_url,
    ),
    Setting(
        name="domain",
        kind="name",
        default="none",
        meaning="The public name; TLS and `www` follow from it. Not yet.",
        example="decant:domain example.com",
        parse=_DOMAIN,
        later=True,
    ),
    Setting(
        name="dnsZone",
        kind="name",
        default="none",
        meaning="The zone that `domain` is in. Not yet.",
        example="decant:dnsZone example.com",
        parse=_DOMAIN,
        later=True,
    ),
    Setting(
        name="email",
        kind="address",
        default="none",
        meaning="The contact for certificates. Not yet.",
        example="decant:email you@example.com",
        parse=_text(r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address"),
        later=True,
    ),
    Setting(
        name="database",
        kind="`none`, `managed` (not yet)",
        default="`none`",
        meaning="A managed PostgreSQL whose `DATABASE_URL` reaches the app as a secret.",
        example="decant:database none",
        parse=_one_of("none", "managed"),
    ),
    Setting(
        name="app",
        kind="folder",
        default="`app`",
        meaning="The Flask app. Entry point `wsgi:app`, or the application argument of gunicorn in its `Procfile`.",
        example="decant:app app",
        parse=_app_folder,
    ),
    Setting(
        name="static",
        kind="folder in the app",
        default="`static`, where there is one",
        meaning="Served by nginx under `/static/`.",
        example="decant:static static",
        parse=_subfolder,
    ),
    Setting(
        name="env",
        kind="object",
        default="empty",
        meaning="The app's environment. Values become text as YAML writes them.",
        example="'decant:env.GREETING' hello",
        parse=_environment,
        structured=True,
    ),
    Setting(
        name="secrets",
        kind="secret object",
        default="empty",
        meaning="The app's secret environment: encrypted in the stack file, handed to the app alone.",
        example="python3 -c 'import secrets; print(secrets.token_hex(32))' | pulumi config set --secret --path"
        " 'decant:secrets.SECRET_KEY'",
        parse=_environment,
        secret=True,
        structured=True,
    ),
    Setting(
        name="healthPath",
        kind="path",
        default="`/healthz`, or `/` where the app answers 404 to that",
        meaning="Must answer 200 before a release gets traffic.",
        example="decant:healthPath /healthz",
        parse=_text(r"/[A-Za-z0-9._~/-]*(\?[A-Za-z0-9._~=&-]*)?", "a path that starts with /, such as /healthz"),
    ),
    Setting(
        name="healthTimeout",
        kind="1 to 300 seconds",
        default="15",
        meaning="How long a new release may take to answer healthily.",
        example="decant:healthTimeout 30",
        parse=_integer(1, 300),
    ),
    Setting(
        name="workers",
        kind="1 to 64",
        default="from cores and memory",
        meaning="gunicorn's worker processes.",
        example="decant:workers 3",
        parse=_integer(1, 64),
    ),
    Setting(
        name="threads",
        kind="1 to 128",
        default="8",
        meaning="Threads of each worker: how many requests it answers at once.",
        example="decant:threads 16",
        parse=_integer(1, 128),
    ),
    Setting(
        name="rollout",
        kind="`serial`, `parallel` or a batch size",
        default="`serial`",
        meaning="How the switch goes through a fleet. One machine is one batch.",
        example="decant:rollout serial",
        parse=_text(r"serial|parallel|[1-9]\d?", "serial, parallel or a batch size from 1 to 99"),
    ),
    Setting(
        name="release",
        kind="release id",
        default="what the app folder holds",
        meaning="Stay on a release that is still on the machines (the last five are).",
        example="decant:release 1f0c9ab27d3e",
        parse=_text(bundle.RELEASE_ID, "a release id: 12 hexadecimal digits, as the output `release` shows"),
    ),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


# ------------------------------------------------------------------------------------------------ the gate


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with a stack's settings."""

    setting: str
    given: str
    expected: str
    fix: str

    def __str__(self) -> str:
        given = f" is {self.given}" if self.given else ""
        return f"{self.setting}{given}: {self.expected}\n      {self.fix}"


class Gate:
    """Reads values one by one and keeps every problem, so that all are reported at once."""

    def __init__(self, values: Mapping[str, Any], secret_keys: frozenset[str]) -> None:
        self.values = values
        self.secret_keys = secret_keys
        self.problems: list[Problem] = []
        self.failed: set[str] = set()

    def problem(self, name: str, given: str, expected: str, fix: str) -> None:
        """Keep a problem, and the setting's name so that nothing is concluded from its value."""
        self.failed.add(name.partition("[")[0].partition(".")[0])
        whole = name if ":" in name else f"{NAMESPACE}:{name}"
        self.problems.append(Problem(setting=whole, given=given, expected=expected, fix=fix))

    def has(self, name: str) -> bool:
        """Does the stack say anything for the setting?"""
        return name in self.values

    def get(self, name: str, default: Any = None) -> Any:
        """The setting's checked value, or the default where it is absent or (with a problem kept) invalid."""
        setting = BY_NAME[name]
        if name not in self.values:
            return default
        if setting.secret and name not in self.secret_keys:
            self.problem(name, "", "must be stored encrypted; it is in clear in the stack file", setting.command)
            return default
        if name in self.secret_keys and not setting.secret:
            where = "; secret variables of the app belong in decant:secrets" if name == "env" else ""
            fix = f"pulumi config rm {NAMESPACE}:{name} && {setting.command}"
            self.problem(name, "", f"must not be stored encrypted: previews would hide it{where}", fix)
            return default
        raw = self.values[name]
        if setting.structured and isinstance(raw, str):
            with contextlib.suppress(ValueError):  # the kind's own check words what is expected
                raw = json.loads(raw)
        try:
            return setting.parse(raw)
        except InvalidValueError as error:
            given = "" if setting.secret else _shown(raw) if error.shown is None else error.shown
            item = re.match(r"\[\d+\]", error.at)
            fix = setting.command.replace("[0]", item[0]) if item else setting.command
            self.problem(name + error.at, given, f"must be {error.allowed}", fix)
            return default


def _shown(raw: Any) -> str:
    text = raw if isinstance(raw, str) else json.dumps(raw)
    return json.dumps(text if len(text) <= 60 else text[:57] + "...")


def parse(
    values: Mapping[str, Any],
    secret_keys: frozenset[str],
    *,
    stack: str,
    project: Path,
    providers: Mapping[str, Any] = MappingProxyType({}),
) -> Settings:
    """The settings of a stack, or one SettingsError that lists all problems.

    `values` maps setting names (without the namespace) to what Pulumi holds: text, structured values as JSON.
    `secret_keys` names those stored encrypted. `project` is the folder that holds Pulumi.yaml. `providers` are the
    settings of other namespaces, whole names and all.
    """
    gate = Gate(values, secret_keys)
    _unknown_keys(gate)
    cloud = gate.get("cloud")
    if not gate.has("cloud"):
        gate.problem("cloud", "", "is required: " + BY_NAME["cloud"].kind, BY_NAME["cloud"].command)
    parsed = {s.name: gate.get(s.name) for s in SETTINGS if s.name != "cloud"}
    _not_yet(gate, parsed)
    _per_cloud(gate, cloud, providers)
    _fleet(gate, parsed)
    _same_variable_twice(gate, parsed)
    read = _read_app(gate, parsed, project)
    if gate.problems or read is None:
        raise SettingsError(_report(gate.problems, stack))
    for name, value in KINDS[cloud].defaults.items():
        if parsed[name] is None:
            parsed[name] = value
    machines = parsed["machines"] or 1
    return Settings(
        stack=stack,
        cloud=cloud,
        machines=machines,
        balancer=machines > 1 if parsed["balancer"] is None else parsed["balancer"],
        size=parsed["size"] or "",
        region=parsed["region"] or "",
        image=parsed["image"] or "",
        admin_cidrs=parsed["adminCidrs"] or (),
        hosts=parsed["hosts"] or (),
        harden=parsed["harden"],
        trusted_proxies=parsed["trustedProxies"] or (),
        url=parsed["url"],
        app=read[0],
        bundle=read[1],
        health_path=parsed["healthPath"],
        health_timeout=parsed["healthTimeout"] or 15,
        workers=parsed["workers"],
        threads=parsed["threads"],
        rollout=parsed["rollout"] or "serial",
        release=parsed["release"],
        warnings=(*read[0].warnings, *_warnings(cloud, parsed)),
        provider={k.partition(":")[2]: v for k, v in providers.items() if k.startswith(f"{cloud}:")},
        env=parsed["env"] or {},
        secrets=parsed["secrets"] or {},
        ssh_private_key=parsed["sshPrivateKey"],
    )


def _unknown_keys(gate: Gate) -> None:
    for name in gate.values:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name.lower(), {n.lower(): n for n in BY_NAME}, n=1)
            known = next((n for n in BY_NAME if near and n.lower() == near[0]), None)
            hint = f"; did you mean {NAMESPACE}:{known}?" if known else "; docs/settings.md lists them all"
            gate.problem(name, "", f"is not a setting{hint}", f"pulumi config rm {NAMESPACE}:{name}")


def _not_yet(gate: Gate, parsed: Mapping[str, Any]) -> None:
    for setting in SETTINGS:
        if setting.later and parsed[setting.name] not in (None, False):
            remove = f"pulumi config rm {NAMESPACE}:{setting.name}"
            gate.problem(setting.name, _shown(gate.values[setting.name]), "not yet: Decant cannot do this", remove)
    if parsed["database"] == "managed":
        gate.problem("database", '"managed"', "not yet: only none is", BY_NAME["database"].command)


def _per_cloud(gate: Gate, cloud: str | None, providers: Mapping[str, Any]) -> None:
    """What one cloud needs and another has no use for; nothing is concluded while the cloud is not known."""
    if cloud not in KINDS:
        return
    kind = KINDS[cloud]
    for name in BY_NAME:
        others = [other for other, its in KINDS.items() if name in its.takes]
        if others and cloud not in others and gate.has(name):
            only = f"does not go with cloud {cloud}, only with {' and '.join(others)}"
            gate.problem(name, "", only, f"pulumi config rm {NAMESPACE}:{name}")
    for name in kind.requires:
        if not gate.has(name):
            setting = BY_NAME[name]
            gate.problem(name, "", f"is required on {cloud}: {setting.kind}", setting.command)
    for name, (variable, example) in kind.provider.items():
        if name not in providers and not os.environ.get(variable):
            fix = f"pulumi config set {name} {example}"
            gate.problem(name, "", f"is required on {cloud}, here or in the environment as {variable}", fix)


def _fleet(gate: Gate, parsed: Mapping[str, Any]) -> None:
    """More than one machine need something that spreads requests over them."""
    if (parsed["machines"] or 1) > 1 and parsed["balancer"] is False:
        gate.problem(
            "balancer",
            "false",
            f"must be true, or left out, with {parsed['machines']} machines",
            f"pulumi config rm {NAMESPACE}:balancer",
        )


def _warnings(cloud: str, parsed: Mapping[str, Any]) -> list[str]:
    hosts = parsed["hosts"] or ()
    several = max(parsed["machines"] or 1, len(hosts))
    warnings = []
    if several > 1:
        warnings.append(
            f"{several} machines: what the app writes to $DATA_DIR stays on the machine that wrote it;"
            " keep what all need in a database"
        )
    if len(hosts) > 1 and not parsed["url"]:
        warnings.append(
            f"{len(hosts)} hosts and no {NAMESPACE}:url: the URL is the address of one of them. With a balancer of"
            f" yours before them: {BY_NAME['url'].command} and {BY_NAME['trustedProxies'].command}"
        )
    return warnings


def _same_variable_twice(gate: Gate, parsed: Mapping[str, Any]) -> None:
    for name in sorted(set(parsed["env"] or ()) & set(parsed["secrets"] or ())):
        gate.problem(
            f"env.{name}",
            "",
            "is also in decant:secrets: say it once",
            f"pulumi config rm --path '{NAMESPACE}:env.{name}'",
        )


def _read_app(gate: Gate, parsed: Mapping[str, Any], project: Path) -> tuple[bundle.App, bundle.Bundle] | None:
    if gate.failed & {"app", "static"}:
        return None
    folder = parsed["app"] or "app"
    try:
        app = bundle.read_app(project / folder, static=parsed["static"])
        return app, bundle.pack(app)
    except errors.AppError as error:
        for message, fix in error.problems:
            gate.problem(error.setting, _shown(folder), message, fix)
        return None


def _report(problems: list[Problem], stack: str) -> str:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines = "\n".join(f"  {problem}" for problem in problems)
    return f"{count} in the settings of stack {stack}; nothing was changed.\n{lines}"


# ------------------------------------------------------------------------------------------------ Pulumi's side


def load() -> Settings:
    """The settings of the stack that Pulumi is running. Raises SettingsError."""
    from pulumi.runtime import config as runtime

    everything = {**runtime.get_config_env(), **runtime.CONFIG.get()}
    prefix = NAMESPACE + ":"
    values = {key.removeprefix(prefix): v for key, v in everything.items() if key.startswith(prefix)}
    encrypted = set(runtime.get_config_secret_keys_env())

    def is_secret(key: str) -> bool:
        return runtime.is_config_secret(key) or key in encrypted

    secret_keys = frozenset(n for n in values if is_secret(prefix + n))
    others = {k: v for k, v in everything.items() if not k.startswith(prefix)}
    return parse(
        values,
        secret_keys,
        stack=pulumi.get_stack(),
        project=Path(__file__).resolve().parents[2],
        providers={k: pulumi.Output.secret(v) if is_secret(k) else v for k, v in others.items()},
    )


def rehearse_on(network: str) -> None:
    """Let `adminCidrs` name this one example network: a rehearsal's machines live there and nowhere else."""
    _rehearsal_networks.append(ipaddress.ip_network(network))


def document() -> str:
    """The text of docs/settings.md."""
    head = (
        "# Settings\n\n"
        "A stack's settings live in `Pulumi.<stack>.yaml` and are set with `pulumi config set`. They are checked\n"
        "before anything is touched; every problem is reported at once. This page is made from the program's own\n"
        "table: `make docs`.\n\n"
        "| setting | value | default | meaning |\n|---|---|---|---|\n"
    )
    rows = "".join(f"| `{s.name}` | {s.kind} | {s.default} | {s.meaning} |\n" for s in SETTINGS)
    commands = "".join(f"# {s.name}\n{s.command}\n" for s in SETTINGS)
    return f"{head}{rows}\n## The exact command of each\n\n```sh\n{commands}```\n"


if __name__ == "__main__":
    print(document(), end="")
