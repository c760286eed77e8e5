"""A server of one's own through its life under the real `pulumi`: each test goes on where the one before ended."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from decant.ssh.keys import fingerprint
from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from rehearsal.this_host import wait
from tests.support.pulumi_stack import STACK, Stack, get
from tests.support.server import Server
from tests.support.visitors import Visitors

CANARY = "5b1e4cf7-canary-that-nobody-may-see"
PAGE = "app/hello/templates/index.html"
RELEASE_STEPS = {"Command box-check-space", "CopyToRemote box-upload", "Command box-stage", "Command rollout"}
UP = ("pulumi", "up", "--yes", "--skip-preview", "--non-interactive")
COPIES = {"CopyToRemote box-files", "CopyToRemote box-upload"}
SILENT = {"Command box-cleanup", "Command box-updates", *COPIES}
STEPS = {"Command box-ready", "Command box-provision", *SILENT, *RELEASE_STEPS}


class Front:
    """A public URL of the user's own before the server. While it is shut it answers 503: a rollout waits for it."""

    def __init__(self, behind: str) -> None:
        front = self
        self.behind = behind
        self.shut = False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, release, body = 503, "", b""
                if not front.shut:
                    answer = get(front.behind + self.path)
                    status, release, body = answer.status, answer.release, answer.body.encode()
                self.send_response(status)
                self.send_header("X-Release", release)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def login() -> tuple[str, str]:
    """A key pair: private, public."""
    return key_pair()


@pytest.fixture(scope="module")
def box(network: Network, login: tuple[str, str]) -> Server:
    return Server(network.boot("box", flavour="bare", authorized_key=login[1].strip(), say=print))


@pytest.fixture(scope="module")
def stack(box: Server, login: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    stack = Stack.create(tmp_path_factory.mktemp("box"))
    host = {"address": box.machine.address, "hostKey": box.machine.host_key or "", "name": "box"}
    stack.set({"cloud": "ssh", **{f"hosts[0].{key}": value for key, value in host.items()}})
    stack.set_secret("sshPrivateKey", login[0])
    stack.set_secret("secrets.CANARY", CANARY)
    return stack


@pytest.fixture(scope="module")
def front(box: Server, stack: Stack) -> Iterator[Front]:
    front = Front(box.url)
    stack.set({"url": front.url})
    stack.up()
    yield front
    front.server.shutdown()


def test_a_preview_shows_every_step_and_connects_nowhere(stack: Stack, box: Server) -> None:
    before = box.ssh_connections()
    preview = stack.pulumi("preview")
    assert preview.operations == dict.fromkeys(STEPS, "create")
    assert box.ssh_connections() == before


def test_the_first_up_ends_with_an_answering_url(stack: Stack, box: Server) -> None:
    before = box.ssh_connections()
    ran = stack.up()
    assert ran.operations == dict.fromkeys(STEPS, "created")
    outputs = stack.outputs()
    assert outputs["url"] == box.url
    assert outputs["release"] == box.release == outputs["receipt"]["to"]
    assert box.ssh_connections() > before, "connections are counted"


def test_outputs_are_readable_and_the_key_among_them_is_secret(
    stack: Stack, box: Server, login: tuple[str, str]
) -> None:
    outputs = stack.outputs()
    assert set(outputs) == {"url", "release", "machines", "receipt", "savedCertificate", "ssh", "contents"}
    assert box.machine.host_key
    identity = fingerprint(box.machine.host_key)
    assert outputs["machines"] == [{"name": "box", "address": box.machine.address, "id": identity}]
    assert outputs["ssh"] == outputs["savedCertificate"] == "[secret]"
    (access,) = stack.revealed("ssh")
    assert access["private_key"].strip() == login[0].strip()
    said = stack.pulumi("stack", "output").said
    assert all(outputs[name] in said for name in ("url", "release"))


def test_what_steps_print_is_stored_in_clear_and_what_they_are_fed_is_not(stack: Stack) -> None:
    resources = stack.resources()
    assert resources.keys() >= STEPS
    for name in STEPS - SILENT - {"Command rollout"}:
        assert json.loads(resources[name]["outputs"]["stdout"]), name
    # What the rollout prints holds the key of the site's certificate.
    assert "ciphertext" in resources["Command rollout"]["outputs"]["stdout"]
    for name in STEPS:
        for which in ("inputs", "outputs"):
            fed = {k: v for k, v in resources[name][which].items() if k in ("stdin", "connection")}
            assert fed.keys() or name == "Command box-check-space", name
            assert all("ciphertext" in value for value in fed.values()), name


def assert_nothing_is_left_to_do(stack: Stack, box: Server) -> None:
    before = box.ssh_connections()
    assert stack.up().counts.keys() == {"unchanged"}, stack.said[-1]
    assert box.ssh_connections() == before


def test_an_up_without_a_change_connects_nowhere(stack: Stack, box: Server) -> None:
    before = box.ssh_connections()
    for ran in (stack.up(), stack.pulumi("refresh", "--yes"), stack.up()):
        assert ran.counts.keys() == {"unchanged"}, ran.said
    assert box.ssh_connections() == before


def test_make_up_asks_the_url_also_when_nothing_changed(stack: Stack, box: Server) -> None:
    done = stack.make("up")
    assert done.returncode == 0, done.stdout
    assert f"status 200, release {box.release}" in done.stdout
    box.machine.run("systemctl stop nginx")
    done = stack.make("up")
    box.machine.run("systemctl start nginx")
    assert done.returncode == 1, done.stdout
    assert f"{box.url}/ gave " in done.stdout
    assert "Traceback" not in done.stdout


def test_an_edit_is_a_new_release_in_the_preview_and_then_live(stack: Stack, box: Server) -> None:
    old = box.release
    stack.edit(PAGE, "<main>", "<main><!-- edited -->")
    preview = stack.pulumi("preview", "--diff").said
    changes = [line for line in preview.splitlines() if "=>" in line and old in line]
    assert len(changes) == 2, preview
    assert "stage" in changes[0]
    assert "rollout" in changes[1]
    assert "box-provision" not in preview
    ran = stack.up()
    assert ran.operations == dict.fromkeys(RELEASE_STEPS, "updated")
    new = box.release
    assert new != old
    assert all(f'{old}" => ' in line and line.endswith(f'{new}"') for line in changes), "what was shown was done"
    assert "<!-- edited -->" in get(box.url).body
    assert stack.outputs()["release"] == new
    staged = json.loads(stack.resources()["Command box-stage"]["outputs"]["stdout"])
    assert (staged["release"], staged["installed"]) == (new, False)


def test_another_secret_is_another_release(stack: Stack, box: Server) -> None:
    old = box.release
    stack.set_secret("secrets.CANARY", CANARY[::-1])
    ran = stack.up()
    assert ran.operations == dict.fromkeys(("Command box-stage", "Command rollout"), "updated")
    assert box.release not in (old, "")
    stack.set_secret("secrets.CANARY", CANARY)
    stack.up()
    assert box.release == old, "the same content has the same id"


def test_a_broken_app_keeps_the_old_release_and_explains_why(stack: Stack, box: Server) -> None:
    old = box.release
    # What a traceback shows may be a secret.
    fault = (
        """raise ModuleNotFoundError("No module named 'no_such_module', told " + __import__("os").environ["CANARY"])"""
    )
    stack.edit("app/wsgi.py", "from hello import", f"{fault}\nfrom hello import")
    ran = stack.up(fails=True)
    assert "the module no_such_module is not there" in ran.said
    assert "told [CANARY]" in ran.said
    assert ran.operations["Command box-stage"] == "failed"
    assert "Command rollout" not in ran.operations
    assert box.release == stack.outputs()["release"] == old
    stack.edit("app/wsgi.py", fault, "# mended")
    stack.up()
    assert box.release == stack.outputs()["release"] != old


def test_going_back_needs_no_upload_and_shows_in_the_preview(stack: Stack, box: Server) -> None:
    newest, old = box.release, stack.outputs()["receipt"]["from"]
    stack.set({"release": old})
    preview = stack.pulumi("preview", "--diff").said
    assert preview.count(f'{newest}" => ') == preview.count(f' {old}"') == 2, preview
    assert f"decant:release keeps this stack on release {old}" in preview
    ran = stack.up()
    assert ran.operations == dict.fromkeys(("Command box-stage", "Command rollout"), "updated")
    assert box.release == old
    assert json.loads(stack.resources()["Command box-stage"]["outputs"]["stdout"])["installed"] is False
    stack.unset("release")
    stack.up()
    assert box.release == newest


def test_another_host_key_than_the_pinned_one_changes_nothing(stack: Stack, box: Server) -> None:
    _, other = key_pair()
    right = box.machine.host_key
    assert right
    before = (box.release, stack.outputs())
    stack.set({"hosts[0].hostKey": other.strip()})
    ran = stack.up(fails=True)
    assert ran.operations == {"Command box-cleanup": "updated", "Command box-ready": "failed"}
    assert f"pinned: ssh-ed25519 {fingerprint(other)}" in ran.said
    assert f"shown:  ssh-ed25519 {fingerprint(right)}" in ran.said
    assert (box.release, stack.outputs()) == before
    stack.set({"hosts[0].hostKey": right})
    ran = stack.up()
    assert ran.operations == {"Command box-cleanup": "updated"}


def session(leader: int) -> dict[int, str]:
    """The processes that a command started, and it, with their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    return found


def interrupted_up(stack: Stack, at: str, stop: Callable[[int], None]) -> str:
    """Start an `up`, stop it when it says `at`, and return what it said once nothing of it runs any more."""
    process = stack.process(*UP)
    said = []
    with subprocess.Popen(**process, start_new_session=True) as running:
        assert running.stdout
        for line in running.stdout:
            said.append(line)
            if at in line:
                stop(running.pid)
                break
        else:
            pytest.fail(f"it never said {at!r}:\n{''.join(said)}")
        said.extend(running.stdout)
    stack.said.append("".join(said))
    assert running.returncode != 0
    wait(lambda: not any("decant." in line for line in session(running.pid).values()), 120, "the rollout runs on")
    power_fails(running.pid)  # Pulumi's host of the program outlives an engine that is killed
    return stack.said[-1]


def terminal_interrupts(leader: int) -> None:
    os.killpg(leader, signal.SIGINT)


def pulumi_is_killed(leader: int) -> None:
    os.kill(leader, signal.SIGKILL)


def power_fails(leader: int) -> None:
    for process in session(leader):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("stop", [terminal_interrupts, pulumi_is_killed, power_fails])
def test_an_up_that_is_stopped_in_the_middle_goes_back_and_the_next_converges(
    stop: Callable[[int], None], stack: Stack, box: Server, front: Front
) -> None:
    old = box.release
    stack.edit(PAGE, "<main>", f"<main><!-- {stop.__name__} -->")
    front.shut = True
    seen = []

    def look_and_stop(leader: int) -> None:
        seen.append(box.release)
        stop(leader)

    interrupted_up(stack, "ask the public URL", look_and_stop)
    front.shut = False
    assert seen != [old], "it was switched when it was stopped"
    wait(lambda: get(box.url).release == old, 90, "the machine did not go back by itself")
    assert stack.outputs()["release"] == old
    if stop is not terminal_interrupts:
        assert "pulumi cancel" in stack.up(fails=True).said, "a state that was left locked says how to go on"
        stack.pulumi("cancel", "--yes", STACK)
    ran = stack.up()
    assert ran.operations == {"Command rollout": "updated"}
    assert box.release == stack.outputs()["release"] == seen[0]
    assert_nothing_is_left_to_do(stack, box)


@pytest.mark.parametrize("stop", [pulumi_is_killed, power_fails])
def test_rollback_works_after_an_up_that_was_killed(
    stop: Callable[[int], None], stack: Stack, box: Server, front: Front
) -> None:
    old = box.release
    stack.edit(PAGE, "<main>", f"<main><!-- not after {stop.__name__} -->")
    front.shut = True
    with Visitors(box.machine.address) as visitors:
        interrupted_up(stack, "ask the public URL", stop)
        front.shut = False
        stack.pulumi("cancel", "--yes", STACK)
        stack.set({"release": old})
        ran = stack.up()  # at once, while a machine whose coordinator lost its power is on trial still
        assert ran.operations.keys() <= {"Command box-stage", "Command rollout"}
        assert box.release == stack.outputs()["release"] == old
        assert_nothing_is_left_to_do(stack, box)
        stack.unset("release")
        stack.up()
        assert box.release == stack.outputs()["release"] != old
    assert visitors.failures == []


def test_the_second_of_two_concurrent_ups_is_refused_and_can_run_later(
    stack: Stack, box: Server, front: Front, tmp_path: Path
) -> None:
    """Each has a copy of the project and a state, so no lock of Pulumi's keeps them apart: the machine does."""
    colleague = Stack.create(tmp_path)
    shutil.copy(stack.project / f"Pulumi.{STACK}.yaml", colleague.project)
    colleague.up()
    both = [stack, colleague]
    front.shut = True  # whoever comes first waits there until the other one has been refused
    with Visitors(box.machine.address) as visitors:
        for one in both:
            one.edit(PAGE, "<main>", f"<main><!-- {both.index(one)} was here -->")
        ups = [subprocess.Popen(**one.process(*UP)) for one in both]
        wait(lambda: any(up.poll() is not None for up in ups), 60, "nobody was refused")
        front.shut = False
        said = [up.communicate(timeout=60)[0] for up in ups]
        stack.said += said
        refused = next(n for n, up in enumerate(ups) if up.returncode)
        loser, winner = both[refused], both[1 - refused]
        assert ups[1 - refused].returncode == 0, said[1 - refused]
        who = re.escape(f"{getpass.getuser()}@{socket.gethostname()}")
        assert re.search(rf"{who} is rolling out a release here since \d\d:\d\d:\d\d", said[refused]), said[refused]
        assert "Wait for it to end, then run pulumi up again." in said[refused]
        assert box.release == winner.outputs()["release"]
        loser.up()
        assert box.release == loser.outputs()["release"] != winner.outputs()["release"]
        winner.edit(PAGE, "<main>", "<main><!-- the last word -->")
        winner.up()
        assert box.release == winner.outputs()["release"]
    assert visitors.failures == []
    stack.edit(PAGE, "<main>", "<main><!-- this stack's -->")
    stack.up()  # what comes next goes on with this one
    assert_nothing_is_left_to_do(stack, box)


def test_all_bad_settings_are_reported_at_once(stack: Stack, box: Server) -> None:
    settings = stack.project / f"Pulumi.{STACK}.yaml"
    good, before = settings.read_text(), box.ssh_connections()
    stack.set({"hoosts": "x", "workers": "many", "healthPath": "healthz", "size": "s-1", "env.PORT": "80"})
    for ran in (stack.pulumi("preview", fails=True), stack.up(fails=True)):
        assert "5 problems in the settings of stack engine; nothing was changed." in ran.said
        for line in (
            "decant:hoosts: is not a setting; did you mean decant:hosts?",
            'decant:workers is "many": must be a whole number from 1 to 64',
            'decant:healthPath is "healthz": must be a path that starts with /, such as /healthz',
            "decant:size: does not go with cloud ssh, only with aws and digitalocean",
            "decant:env.PORT: must be left out: Decant sets this variable itself",
        ):
            assert ran.said.count(line) >= 1, ran.said
        assert "Traceback" not in ran.said
    settings.write_text(good)
    assert box.ssh_connections() == before
    assert stack.up().counts.keys() == {"unchanged"}


def test_destroy_leaves_the_server_as_it_was(stack: Stack, box: Server) -> None:
    stack.destroy()
    changed = box.changed()
    assert not changed, "\n".join(changed)
    assert stack.resources() == {}


def test_a_first_up_that_is_killed_while_it_installs_is_finished_by_the_next(stack: Stack, box: Server) -> None:
    def installing() -> bool:
        return "apt-get" in box.machine.run("ps -eo args", check=False).stdout

    def kill_when_installing(leader: int) -> None:
        wait(installing, 120, "it never began to install")
        power_fails(leader)

    interrupted_up(stack, "box-provision creating", kill_when_installing)
    stack.pulumi("cancel", "--yes", STACK)
    stack.up()
    assert box.release == stack.outputs()["release"]
    assert_nothing_is_left_to_do(stack, box)


def test_a_server_that_is_gone_can_be_removed_with_two_commands(stack: Stack, box: Server, tmp_path: Path) -> None:
    old = box.release
    box.machine.power_off()
    newcomer = Stack.create(tmp_path)
    shutil.copy(stack.project / f"Pulumi.{STACK}.yaml", newcomer.project)
    # A new stack waits a minute for its server: the other commands fit in.
    with subprocess.Popen(**newcomer.process(*UP)) as waiting:
        stack.edit(PAGE, "<main>", "<main><!-- to nobody -->")
        ran = stack.up(fails=True)
        assert set(ran.operations.values()) == {"failed"}, ran.said
        assert box.machine.address in ran.said
        assert stack.outputs()["release"] == old
        before = shutil.copytree(stack.backend, tmp_path / "before")
        ran = stack.destroy(fails=True)
        assert ran.operations["Command box-cleanup"] == "failed"
        assert box.machine.address in ran.said
        leave_in_two_commands(stack)
        shutil.rmtree(stack.backend)
        shutil.copytree(before, stack.backend)
        leave_in_two_commands(stack)  # without a try at destroying it first
        assert waiting.stdout
        said = waiting.stdout.read()
    assert waiting.returncode != 0
    assert f"box (root@{box.machine.address}) did not let us in within 60 s: " in said
    assert f"Try: ssh -p 22 root@{box.machine.address}" in said


def leave_in_two_commands(stack: Stack) -> None:
    """What docs/ssh.md says of a host that is gone for good."""
    stack.forget("box")
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    assert stack.resources() == {}


def test_no_secret_was_ever_said_or_stored_in_clear(stack: Stack, login: tuple[str, str]) -> None:
    key = "".join(login[0].split("\n")[1:3])
    assert len(key) > 100
    secrets = [CANARY, CANARY[::-1], *login[0].split("\n")[1:3]]
    stored = [path.read_text(errors="replace") for path in stack.backend.rglob("*") if path.is_file()]
    stored += [(stack.project / f"Pulumi.{STACK}.yaml").read_text()]
    assert len(stored) > 10
    told = [secret for secret in secrets for text in stack.said + stored if secret in text]
    assert told == []
