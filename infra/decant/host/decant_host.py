#!/usr/bin/python3 -I
"""What Decant does on a machine: stage a release beside the live one, switch to it, confirm it or go back.

Runs as root with the system's Python and nothing else. Every verb may be repeated, and killed at any point, after
which repeating it converges. A verb ends with one line of JSON on standard output, or exits 1 with the reason and
the way out on standard error. `docs/design.md` tells the protocol; the numbers behind it are named where they are used.

    /var/lib/decant/incoming/      tars as they were copied
    /var/lib/decant/releases/ID/   app/ (the code), venv -> ../../venvs/KEY, release.json, environment.json (root only)
    /var/lib/decant/venvs/KEY/     one per set of requirements, shared by releases
    /var/lib/decant/data/          the app's own data: $DATA_DIR
    /var/lib/decant/persisted      -> releases/ID, the confirmed release: what a boot or a revert brings back
    /run/decant/ID/                socket/gunicorn.sock, static -> the release's static files
    /run/decant/current, previous  -> ID; nginx goes through these
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import grp
import hashlib
import http.client
import json
import os
import platform
import pwd
import re
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASE = Path("/var/lib/decant")
RUN = Path("/run/decant")
OPT = Path("/opt/decant")
SETTINGS = Path("/etc/decant/settings.json")
CACHE = Path("/var/cache/decant")
RELEASES, VENVS, INCOMING = BASE / "releases", BASE / "venvs", BASE / "incoming"
PERSISTED = BASE / "persisted"
CURRENT, PREVIOUS = RUN / "current", RUN / "previous"

KEPT = 5  # releases that one can go back to
UNCLAIMED = 15 * 60  # seconds that a staged release waits for its switch
HEARTBEAT = 15  # seconds of silence after which a coordinator counts as gone
PROBES = 3  # healthy answers in a row before a release is believed
SWITCH_PROBES = 5
BUILDER = "decant-build"  # installs requirements: their build scripts run neither as root nor as the app


class HostError(Exception):
    """Something the user has to know: what happened, and what to do."""


# ------------------------------------------------------------------------------------------------ small tools


def run(*command: str, check: bool = True, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """A program's output as text; HostError with its last words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise HostError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return done


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Verbs that change something wait for each other."""
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def link(path: Path, target: str) -> None:
    """Point `path` at `target` in one atomic step that a power cut leaves either undone or done."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(target)
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def linked(path: Path) -> str | None:
    """The release that a link names, None where there is none."""
    return path.readlink().name if path.is_symlink() else None


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """A file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), mode)
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is no file."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return data


def unit(release: str) -> str:
    """The systemd unit that runs a release."""
    return f"app@{release}.service"


def unit_state(name: str) -> dict[str, str]:
    """What systemd says of a unit: ActiveState, SubState, Result, NRestarts, ..."""
    wanted = "ActiveState,SubState,Result,NRestarts,ExecMainStatus,ExecMainCode"
    lines = run("systemctl", "show", name, f"--property={wanted}").stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def is_active(release: str) -> bool:
    """Is the release's gunicorn up?"""
    return unit_state(unit(release)).get("ActiveState") == "active"


def running_releases() -> list[str]:
    """Releases whose unit is loaded in any living or failed state."""
    listing = run("systemctl", "list-units", "app@*.service", "--all", "--plain", "--no-legend").stdout
    return [m[1] for m in re.finditer(r"^\s*(?:\S\s+)?app@([0-9a-f]{12})\.service", listing, re.MULTILINE)]


# ------------------------------------------------------------------------------------------------ asking a release


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer to a probe; `status` 0 means that none came, and `body` then says why."""

    status: int
    release: str
    body: str

    def __str__(self) -> str:
        if not self.status:
            return self.body
        return f"status {self.status}" + (f", body: {self.body[:300]!r}" if self.body else "")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(path: str, *, through: Path | None, timeout: float = 5.0) -> Reply:
    """GET a path as the site's own name: through a gunicorn socket, or through nginx (`through` None)."""
    connection: http.client.HTTPConnection
    if through is None:
        connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=timeout)
    else:
        connection = _UnixConnection(through, timeout)
    name = read_json(SETTINGS).get("name", "localhost")
    headers = {"Host": name, "User-Agent": "decant", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http"}
    try:
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        body = reply.read(2000).decode(errors="replace").strip()
        return Reply(status=reply.status, release=reply.getheader("X-Release", ""), body=body)
    except TimeoutError:
        return Reply(status=0, release="", body=f"no answer within {timeout:.0f} s")
    except (OSError, http.client.HTTPException) as error:
        return Reply(status=0, release="", body=f"no answer: {error or type(error).__name__}")
    finally:
        connection.close()


def socket_of(release: str) -> Path:
    """Where a release's gunicorn listens."""
    return RUN / release / "socket" / "gunicorn.sock"


# ------------------------------------------------------------------------------------------------ staging


def stage(release: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Make a release ready beside the live one: unpacked, installed, started, healthy on its own socket.

    `spec` is what the coordinator sends (see `host.stage_input`); without a tar in it, the release must still be here.
    """
    started = time.monotonic()
    with one_at_a_time():
        if spec.get("tar"):
            unpack(release, spec)
        elif not is_complete(release):
            raise HostError(
                f"release {release} is not on this machine any more; here are: {', '.join(complete_releases()) or 'none'}.\n"
                "  Leave it with: pulumi config rm decant:release"
            )
        installed = install(release)
        prepared = time.monotonic()
        health = start(release)
        if release not in (linked(CURRENT), linked(PERSISTED)):
            stop_later(release)
    return {
        "release": release,
        "machine": socket.gethostname(),
        "health": health,
        "installed": installed,
        "seconds": {"prepare": round(prepared - started, 2), "start": round(time.monotonic() - prepared, 2)},
        # The rollout takes this as an input: a stage that ran again makes it run again.
        "nonce": secrets.token_hex(8),
    }


def is_complete(release: str) -> bool:
    """Is everything of the release here but its virtual environment, which can be made again?"""
    return (RELEASES / release / "release.json").exists()


def complete_releases() -> list[str]:
    """Releases on this machine, the newest first."""
    found = [p for p in RELEASES.glob("[0-9a-f]*") if is_complete(p.name)]
    return [p.name for p in sorted(found, key=lambda p: (p / "release.json").stat().st_mtime, reverse=True)]


def unpack(release: str, spec: Mapping[str, Any]) -> None:
    """Put the release's files in place, from the copied tar; nothing to do where they are."""
    if is_complete(release):
        return
    archive = INCOMING / Path(spec["tar"]).name
    if not archive.exists():
        raise HostError(f"{archive} is not here. Copy it again: pulumi up --replace '**upload**'")
    folder, unfinished = RELEASES / release, RELEASES / f".{release}"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    RELEASES.mkdir(mode=0o755, parents=True, exist_ok=True)
    app_group = grp.getgrnam("decant").gr_gid
    unfinished.mkdir(mode=0o750)
    os.chown(unfinished, 0, app_group)
    # Read once and check what was read: whoever logged in to copy the file could still write to it.
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != spec["sha256"]:
        raise HostError(f"{archive} did not arrive whole. Copy it again: pulumi up --replace '**upload**'")
    private = unfinished / "app.tar"
    private.write_bytes(content)
    with tarfile.open(private) as tar:
        tar.extractall(unfinished / "app", filter="data")
    private.unlink()
    for root, folders, files in os.walk(unfinished / "app"):
        os.chown(root, 0, app_group)
        Path(root).chmod(0o750)
        for name in files + [f for f in folders if (Path(root) / f).is_symlink()]:
            path = Path(root) / name
            os.chown(path, 0, app_group, follow_symlinks=False)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o750)
                # nginx makes ETags of time and size: a time out of the content is the same on every machine, and
                # another for a changed file of the same size.
                stamp = 1_000_000_000 + zlib.crc32(path.read_bytes()) % 600_000_000
                os.utime(path, (stamp, stamp))
    # PEP 552 unchecked: a file's time says nothing here, and the app cannot write the folder anyway.
    run(
        sys.executable,
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        str(unfinished / "app"),
        check=False,
    )
    give_group(unfinished / "app", app_group)
    write(unfinished / "environment.json", json.dumps(spec["environment"]), mode=0o600)
    settings = dict(spec["settings"], tar=archive.name, staged=time.time())
    write(unfinished / "release.json", json.dumps(settings), mode=0o640)
    os.chown(unfinished / "release.json", 0, app_group)
    os.sync()
    unfinished.rename(folder)


def give_group(folder: Path, group: int) -> None:
    """Compiled files too are root's, readable by the app's group."""
    for path in folder.rglob("__pycache__"):
        os.chown(path, 0, group)
        path.chmod(0o750)
        for compiled in path.iterdir():
            os.chown(compiled, 0, group)
            compiled.chmod(0o640)


def install(release: str) -> bool:
    """The release's virtual environment: linked where its requirements are installed, else made. True when made."""
    folder = RELEASES / release
    settings = read_json(folder / "release.json")
    gunicorn = (OPT / "gunicorn-requirements.txt").read_bytes()
    identity = [settings["lock"], hashlib.sha256(gunicorn).hexdigest(), platform.python_version(), platform.machine()]
    venv = VENVS / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    made = not (venv / ".complete").exists()
    if made:
        build_environment(venv, folder / "app", settings)
    if linked(folder / "venv") != venv.name:
        link(folder / "venv", f"../../venvs/{venv.name}")
    return made


def build_environment(venv: Path, app: Path, settings: Mapping[str, Any]) -> None:
    """Install the requirements into a new virtual environment that is root's and that the app can only read."""
    builder, app_group = pwd.getpwnam(BUILDER), grp.getgrnam("decant").gr_gid
    # No release uses a half-made one: they are linked to it when it is complete.
    shutil.rmtree(venv, ignore_errors=True)
    VENVS.mkdir(mode=0o755, parents=True, exist_ok=True)
    venv.mkdir(mode=0o750)
    work = CACHE / "work"
    shutil.rmtree(work, ignore_errors=True)
    # A copy, because building a package writes into its folder.
    shutil.copytree(app, work, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (CACHE, work, *work.rglob("*"), venv):
        os.chown(path, builder.pw_uid, builder.pw_gid, follow_symlinks=False)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(CACHE),
        "UV_CACHE_DIR": str(CACHE / "uv"),
        "UV_SYSTEM_CERTS": "1",  # the machine's own certificates, to which a company may have added its own
        "UV_NO_PROGRESS": "1",
        "UV_LINK_MODE": "copy",  # a hard link into the cache would stay the builder's
        "UV_PYTHON_DOWNLOADS": "never",
        **proxy_settings(),
    }

    def uv(*words: str) -> None:
        done = subprocess.run(
            [str(OPT / "uv" / "bin" / "uv"), "--quiet", *words],
            cwd=work, env=environment, user=builder.pw_uid, group=builder.pw_gid, extra_groups=[],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise HostError(explain_install(done.stderr))

    try:
        uv("venv", "--python", "/usr/bin/python3", "--allow-existing", str(venv))
        to = ("pip", "install", "--python", str(venv / "bin" / "python"), "--compile-bytecode")
        hashes = ("--require-hashes",) if settings["locked"] else ()
        uv(*to, *hashes, "--requirement", settings["requirements"])
        if not list(venv.glob("lib/python*/site-packages/gunicorn/__init__.py")):
            shutil.copy(OPT / "gunicorn-requirements.txt", work / ".decant-gunicorn.txt")
            uv(*to, "--require-hashes", "--requirement", ".decant-gunicorn.txt")
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for root, folders, files in os.walk(venv):
        os.chown(root, 0, app_group)
        for name in folders + files:
            os.chown(Path(root) / name, 0, app_group, follow_symlinks=False)
    os.sync()
    (venv / ".complete").touch()


def proxy_settings() -> dict[str, str]:
    """The machine's own way out, where it has one: what /etc/environment says of proxies and package indexes."""
    names = re.compile(r"(UV_\w+|PIP_INDEX_URL|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY)")
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/etc/environment").read_text(encoding="utf-8").splitlines():
            name, equals, value = line.partition("=")
            if equals and names.fullmatch(name.strip()):
                found[name.strip()] = value.strip().strip("\"'")
    return found


def explain_install(output: str) -> str:
    """A failed installation in words, with uv's own at the end."""
    said = output.strip()[-1500:]
    if re.search(r"[Hh]ash mismatch|hashes? (is|are) missing|require-hashes|must have a hash", said):
        cause = "requirements.txt does not match its hashes. Lock it again: uv pip compile --generate-hashes"
    elif re.search(r"No space left", said):
        cause = "the disk is full. See what fills it: df -h; du -xh / | sort -h | tail"
    elif re.search(r"dns error|error sending request|Connection refused|timed out|Failed to fetch", said):
        cause = "the package index cannot be reached from the machine"
    elif re.search(r"command '\S*(cc|gcc|c\+\+|g\+\+|cargo|rustc)|[Uu]nknown compiler|Failed to build", said):
        cause = "a package has no wheel for Python 3.13 and cannot be built here. Choose a version that has one"
    elif re.search(r"No solution found|not found in the package registry|no versions", said):
        cause = "the requirements cannot be met on Python 3.13"
    else:
        cause = "the requirements could not be installed"
    return f"{cause}.\n{said}"


def start(release: str) -> str:
    """Start the release beside whatever runs and wait until it is healthy; the health path it answered on.

    A release that does not get there is stopped again, and HostError says why. Nothing else is touched.
    """
    settings = read_json(RELEASES / release / "release.json")
    runtime = RUN / release
    runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    if settings["static"]:
        link(runtime / "static", str(RELEASES / release / "app" / settings["static"]))
    began = time.time()
    was_active = is_active(release)
    if not was_active:
        run("systemctl", "reset-failed", unit(release), check=False)
        run("systemctl", "start", "--no-block", unit(release))
    try:
        path = wait_healthy(release, settings)
        write(runtime / "health", path)
        return path
    except HostError as error:
        log = journal(unit(release), since=began if not was_active else began - 5)
        masked = mask(release, f"{error}\n{log}")
        if release != linked(CURRENT):
            stop(release)
        cause = explain_start(masked, settings)
        raise HostError(f"release {release} does not serve: {cause}\n{masked}") from None


def wait_healthy(release: str, settings: Mapping[str, Any]) -> str:
    """Until the release answered its health path PROBES times in a row. Raises HostError at the first hopeless sign."""
    patience = float(settings["health_timeout"])
    deadline = time.monotonic() + patience
    path, fallback = settings["health_path"] or "/healthz", not settings["health_path"]
    good, last = 0, Reply(status=0, release="", body="it did not start")
    while good < PROBES:
        state = unit_state(unit(release))
        if state["ActiveState"] == "failed" or state["SubState"] == "auto-restart" or state["NRestarts"] != "0":
            raise HostError(f"it stopped by itself ({state['Result']}, exit status {state['ExecMainStatus']})")
        if time.monotonic() > deadline:
            raise HostError(f"not healthy within {patience:.0f} s at {path}: {last}")
        if not socket_of(release).exists():
            time.sleep(0.02)
            continue
        last = ask(path, through=socket_of(release), timeout=min(5.0, patience))
        if last.status == 200 and last.release == release:
            good += 1
            continue
        good = 0
        if last.status == 404 and fallback and path != "/":
            path = "/"  # an app without a health path of its own is judged by its first page
        elif last.status in (404, 401, 403):
            raise HostError(f"its health path {path} answered {last}")
        else:
            time.sleep(0.1)
    return path


def explain_start(text: str, settings: Mapping[str, Any]) -> str:
    """A named cause for a release that does not serve, with what to do."""
    entry, path = settings["entry"], settings["health_path"] or "/healthz"
    name = r"['\"]?([\w.-]+)['\"]?"
    causes: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (rf"No module named {name}", lambda m: f"the module {m[1]} is not there. Add it to requirements.txt (or to the app folder)"),
        (rf"Failed to find attribute {name}", lambda m: f"{entry} names {m[1]}, which its module does not have"),
        (r"(SyntaxError|IndentationError): (.*)", lambda m: f"the code is not valid Python 3.13: {m[2]}"),
        (rf"KeyError: {name}", lambda m: f"KeyError {m[1]}: if that is a variable, set it: pulumi config set --path 'decant:env.{m[1]}' VALUE"),
        (r"No space left on device", lambda m: "the disk is full. See what fills it: df -h"),
        (r"(oom-kill|signal, 9|signal 9|out of memory|MemoryError)", lambda m: "out of memory: choose a larger decant:size or fewer decant:workers"),
        (r"answered status 404", lambda m: f"nothing answers at {path}. Set decant:healthPath to a path that answers 200"),
        (r"answered status 40[13]", lambda m: f"{path} asks for a login. Set decant:healthPath to a path that answers 200 to anybody"),
        (r"healthz?.*status 5\d\d|status 5\d\d", lambda m: "the health path answers with an error; the log below says which"),
        (r"status 30\d", lambda m: "the health path redirects. Set decant:healthPath to a path that answers 200 itself"),
        (r"status 400", lambda m: "the app refuses the site's own name: does it set TRUSTED_HOSTS? Its Host is "
         + str(read_json(SETTINGS).get("name"))),
        (r"no answer within", lambda m: f"the health path does not answer in time. decant:healthTimeout is {settings['health_timeout']} s"),
        (r"it stopped by itself", lambda m: "it crashes when it starts; the log below says where"),
        (r"not healthy within", lambda m: f"it takes longer to start than decant:healthTimeout, {settings['health_timeout']} s"),
    ]  # fmt: skip
    for pattern, say in causes:
        match = re.search(pattern, text)
        if match:
            return say(match)
    return "the reason is below"


def mask(release: str, text: str) -> str:
    """The text without any value of the release's environment that was given as a secret."""
    hidden = read_json(RELEASES / release / "environment.json")
    names = read_json(RELEASES / release / "release.json").get("secret_names", [])
    for name in names:
        value = hidden.get(name, "")
        if len(value) >= 4:
            for shown in {value, repr(value)[1:-1], json.dumps(value)[1:-1]}:
                text = text.replace(shown, f"[{name}]")
    return text


def journal(name: str, *, since: float) -> str:
    """The last lines that a unit wrote."""
    done = run(
        "journalctl",
        "--unit",
        name,
        "--since",
        f"@{since:.3f}",
        "--output=cat",
        "--no-pager",
        "--lines=40",
        check=False,
    )
    return "\n".join("    " + line for line in done.stdout.strip().splitlines())


def stop(release: str, *, wait: bool = True) -> None:
    """Stop a release: it answers what it has taken in. Its socket goes, its static files stay reachable."""
    run("systemctl", "stop", *([] if wait else ["--no-block"]), unit(release), check=False)


def stop_later(release: str) -> None:
    """Stop a staged release by itself if nobody switches to it."""
    name = f"decant-unclaimed-{release}"
    run("systemctl", "stop", f"{name}.timer", check=False)
    run(
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={name}",
        f"--on-active={UNCLAIMED}",
        str(OPT / "bin/decant-host"),
        "reap",
        release,
    )


def reap(release: str) -> dict[str, Any]:
    """The end of a staged release that nobody switched to."""
    with one_at_a_time():
        unclaimed = release not in (linked(CURRENT), linked(PERSISTED))
        if unclaimed and lease_holder():
            stop_later(release)
        elif unclaimed:
            stop(release)
    return {"release": release, "stopped": unclaimed}


# ------------------------------------------------------------------------------------------------ the lease


def lease_holder() -> dict[str, Any] | None:
    """Who is releasing on this machine right now, if anybody: `attempt`, `owner`, `since`."""
    path = RUN / "lease"
    try:
        with path.open() as lease:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return read_json(path)
    return None


def hold_lease(attempt: str, owner: str) -> None:
    """Hold this machine for one attempt, as long as its coordinator lives.

    The lease is a lock that this process holds while lines keep coming on standard input: a coordinator that dies,
    or is cut off for HEARTBEAT seconds, has let go, and no stale lease is ever left behind.
    """
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (RUN / "lease").open("a+", encoding="utf-8") as lease:
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = read_json(RUN / "lease")
            since = time.strftime("%H:%M:%S", time.localtime(holder.get("since", 0)))
            raise HostError(
                f"another release is being rolled out by {holder.get('owner', 'somebody')} since {since} (machine's time).\n"
                "  Wait for it to end, then run pulumi up again."
            ) from None
        lease.truncate(0)
        lease.write(json.dumps({"attempt": attempt, "owner": owner, "since": time.time()}))
        lease.flush()
        print("held", flush=True)
        while select.select([sys.stdin], [], [], HEARTBEAT)[0]:
            if not os.read(sys.stdin.fileno(), 4096):
                return


def need_lease(attempt: str) -> None:
    """Refuse a verb whose attempt does not hold this machine."""
    holder = lease_holder()
    if not holder or holder.get("attempt") != attempt:
        who = f"{holder.get('owner')} holds it" if holder else "the lease lapsed"
        raise HostError(f"this attempt does not hold the machine any more: {who}. Run pulumi up again.")


# ------------------------------------------------------------------------------------------------ the rollout's verbs


def ensure(release: str, attempt: str) -> dict[str, Any]:
    """The release is here, running and healthy; started again where it was stopped in the meantime."""
    with one_at_a_time():
        need_lease(attempt)
        if not is_complete(release):
            raise HostError(
                f"release {release} is not on this machine; here are: {', '.join(complete_releases()) or 'none'}"
            )
        run("systemctl", "stop", f"decant-unclaimed-{release}.timer", check=False)
        install(release)
        health = start(release)
        return {"release": release, "health": health, "current": linked(CURRENT), "persisted": linked(PERSISTED)}


def migrate(release: str, attempt: str) -> dict[str, Any]:
    """Run the Procfile's release command, once for a release and never for one that was live before."""
    settings = read_json(RELEASES / release / "release.json")
    need_lease(attempt)
    ran = False
    was_live = (RELEASES / release / "confirmed").exists()
    if settings.get("release_command") and not was_live:
        began = time.time()
        name = f"release@{release}.service"
        if run("systemctl", "start", name, check=False).returncode:
            log = mask(release, journal(name, since=began))
            raise HostError(f"the release command failed: {settings['release_command']}\n{log}")
        ran = True
    return {"release": release, "migrated": ran, "skipped": bool(settings.get("release_command")) and was_live}


def switch(release: str, attempt: str, deadline: int) -> dict[str, Any]:
    """Give the release this machine's traffic, on trial: without a confirm it goes back after `deadline` seconds."""
    with one_at_a_time():
        need_lease(attempt)
        before = linked(CURRENT)
        arm_revert(deadline)
        if before != release:
            if before:
                link(PREVIOUS, before)
            link(CURRENT, release)
        path = (RUN / release / "health").read_text(encoding="utf-8")
        for _ in range(SWITCH_PROBES):
            reply = ask(path, through=None)
            if reply.status != 200 or reply.release != release:
                go_back()
                raise HostError(
                    f"release {release} answered {reply} through nginx at {path}; went back to {linked(CURRENT)}"
                )
    return {"release": release, "previous": before}


def arm_revert(deadline: int) -> None:
    """The dead man's switch: only `confirm` or a revert stops it, so a coordinator that dies changes nothing."""
    disarm_revert()
    run(
        "systemd-run", "--quiet", "--collect", "--unit=decant-revert", f"--on-active={deadline}",
        "--timer-property=AccuracySec=100ms", str(OPT / "bin/decant-host"), "revert", "--because", "nobody confirmed it",
    )  # fmt: skip


def disarm_revert() -> None:
    """Stop the timer; a revert that has begun is waited for by the lock."""
    run("systemctl", "stop", "decant-revert.timer", check=False)


def go_back() -> str | None:
    """Traffic to the persisted release, which is started where it does not run. Call with the lock held."""
    target, abandoned = linked(PERSISTED), linked(CURRENT)
    disarm_revert()
    if target is None:
        CURRENT.unlink(missing_ok=True)
    elif target != abandoned:
        start(target)
        if abandoned:
            link(PREVIOUS, abandoned)
        link(CURRENT, target)
    for release in running_releases():
        if release != target:
            stop(release, wait=False)
    return target


def revert(attempt: str | None, because: str) -> dict[str, Any]:
    """Back to the persisted release. `attempt` None is the timer, which needs no lease."""
    with one_at_a_time():
        if attempt:
            need_lease(attempt)
        abandoned = linked(CURRENT)
        target = go_back()
        if abandoned != target:
            write(
                RUN / "reverted.json",
                json.dumps({"from": abandoned, "to": target, "because": because, "at": time.time()}),
            )
    return {"release": target, "reverted": abandoned}


def confirm(release: str, attempt: str) -> dict[str, Any]:
    """Keep what was switched to: from now on a boot brings it back. The old release finishes its work and stops."""
    with one_at_a_time():
        need_lease(attempt)
        if linked(CURRENT) != release:
            raise HostError(f"release {release} is not live here any more: {linked(CURRENT)} is. Run pulumi up again.")
        old = linked(PERSISTED)
        link(PERSISTED, f"releases/{release}")
        disarm_revert()
        (RELEASES / release / "confirmed").touch()
        (RUN / "reverted.json").unlink(missing_ok=True)
        for other in running_releases():
            if other != release:
                drain(other)
                stop(other, wait=False)
        pruned = prune()
    return {"release": release, "previous": old, "pruned": pruned}


def drain(release: str, patience: float = 5.0) -> None:
    """Wait until nobody queues at the old release's socket: sync workers drop their queue when they are told to stop."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and socket_of(release).exists():
        listing = run("ss", "-xlH", "src", str(socket_of(release)), check=False).stdout.split()
        if len(listing) < 3 or listing[2] == "0":
            return
        time.sleep(0.05)


def prune() -> list[str]:
    """Remove what nobody can go back to: releases beyond the last KEPT, then environments and tars without a release."""
    needed = {linked(CURRENT), linked(PERSISTED), linked(PREVIOUS)}
    removed = [r for r in complete_releases()[KEPT:] if r not in needed]
    for release in removed:
        shutil.rmtree(RELEASES / release, ignore_errors=True)
        shutil.rmtree(RUN / release, ignore_errors=True)
    kept = complete_releases()
    venvs = {linked(RELEASES / r / "venv") for r in kept}
    tars = {read_json(RELEASES / r / "release.json").get("tar") for r in kept}
    for path in VENVS.glob("*"):
        if path.name not in venvs:
            shutil.rmtree(path, ignore_errors=True)
    for path in INCOMING.glob("*.tar"):
        if path.name not in tars:
            path.unlink(missing_ok=True)
    return removed


def boot() -> dict[str, Any]:
    """After a reboot: the links that lived in memory, and the confirmed release."""
    with one_at_a_time():
        release = linked(PERSISTED)
        if release:
            settings = read_json(RELEASES / release / "release.json")
            (RUN / release).mkdir(mode=0o755, parents=True, exist_ok=True)
            if settings["static"]:
                link(RUN / release / "static", str(RELEASES / release / "app" / settings["static"]))
            link(CURRENT, release)
            run("systemctl", "start", "--no-block", unit(release))
    return {"release": release}


def status() -> dict[str, Any]:
    """What is live, what would come back after a boot, what is here, and who is releasing."""
    return {
        "machine": socket.gethostname(),
        "current": linked(CURRENT),
        "persisted": linked(PERSISTED),
        "running": [r for r in running_releases() if is_active(r)],
        "releases": complete_releases(),
        "lease": lease_holder(),
        "reverted": read_json(RUN / "reverted.json") or None,
    }


# ------------------------------------------------------------------------------------------------ command line


def main() -> int:
    """Run one verb."""
    parser = argparse.ArgumentParser(prog="decant-host", description="Releases of the app on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, *, release: bool = True, attempt: bool = False) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        if release:
            sub.add_argument("release", help="release id")
        if attempt:
            sub.add_argument("--attempt", required=True, help="the rollout that holds this machine's lease")
        return sub

    verb("stage", "make a release ready beside the live one; its description is JSON on standard input")
    verb("ensure", "start a staged release again where it was stopped", attempt=True)
    verb("migrate", "run the release command, once for a release", attempt=True)
    verb("switch", "give a release the traffic, on trial", attempt=True).add_argument(
        "--deadline", type=int, required=True
    )
    verb("confirm", "keep the release that is on trial", attempt=True)
    back = verb("revert", "go back to the confirmed release", release=False)
    back.add_argument("--attempt", help="the rollout that asks; left out by the timer")
    back.add_argument("--because", default="it was asked for")
    hold = verb("lease", "hold this machine while standard input keeps coming", release=False, attempt=True)
    hold.add_argument("--owner", required=True)
    verb("reap", "stop a staged release that nobody switched to")
    verb("boot", "bring the confirmed release back", release=False)
    verb("status", "what is live here", release=False)
    words = parser.parse_args()
    if getattr(words, "release", None) and not re.fullmatch(r"[0-9a-f]{12}", words.release):
        parser.error(f"{words.release!r} is not a release id (12 hexadecimal digits)")
    try:
        if words.verb == "lease":
            hold_lease(words.attempt, words.owner)
            return 0
        print(json.dumps(_call(words)))
    except HostError as error:
        print(f"{socket.gethostname()}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != 28:
            raise
        print(f"{socket.gethostname()}: the disk is full ({error.filename}). See what fills it: df -h", file=sys.stderr)
        return 1
    return 0


def _call(words: argparse.Namespace) -> dict[str, Any]:
    calls: dict[str, Callable[[], dict[str, Any]]] = {
        "stage": lambda: stage(words.release, json.load(sys.stdin)),
        "ensure": lambda: ensure(words.release, words.attempt),
        "migrate": lambda: migrate(words.release, words.attempt),
        "switch": lambda: switch(words.release, words.attempt, words.deadline),
        "confirm": lambda: confirm(words.release, words.attempt),
        "revert": lambda: revert(words.attempt, words.because),
        "reap": lambda: reap(words.release),
        "boot": boot,
        "status": status,
    }
    return calls[words.verb]()


if __name__ == "__main__":
    sys.exit(main())
