"""The takeover of the site's address: what a new machine does before the address moves to it, and what stops it."""

from __future__ import annotations

import asyncio
import http.client
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from decant.clouds.base import AddressMove
from decant.deploy import steps, takeover
from decant.deploy.takeover import Command, Copy, Takeover, take_over
from decant.errors import HostKeyMismatchError, MachineError, RolloutError, TakeoverError
from decant.rollout.plan import Plan
from decant.ssh.client import Access, OuterLogin
from rehearsal.doubles import key_pair
from tests.support.in_memory import DROPLET, INSTANCE, Run, carried, reveal, server_names
from tests.support.in_memory_sshd import SHOWN_KEY, Sshd
from tests.support.in_memory_sshd import Run as Line

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RELEASE = "0123456789ab"
ADDRESS = "203.0.113.77"
SITE = "http://example.com"
INSIDE = "sudo -n /usr/sbin/sshd -i -h /etc/ssh/decant_new_host_key"
OWN_KEY = paramiko.Ed25519Key(file_obj=io.StringIO(key_pair()[0]))

Start = Callable[..., Run]


class World:
    """What a takeover meets: whether the site answers, and the machine. `done` is what it did, in order."""

    def __init__(self) -> None:
        self.answers = True
        self.failing = ""
        self.done: list[Any] = []
        self.sshd = Sshd(on_command=self.command)

    def asked(self, address: str, name: str) -> bool:
        self.done.append(("asked", address, name))
        return self.answers

    def wait_ready(self, access: Access, *, timeout: float, log: Callable[[str], object]) -> None:
        self.done.append(("ready", access.host_key, timeout))

    def make_own_key(self, access: Access) -> str:
        self.done.append(("own key", access.host_key))
        return f"ssh-ed25519 {OWN_KEY.get_base64()}"

    def command(self, run: Line) -> int:
        if run.line == INSIDE:
            return self.sshd.serve_inside(run, OWN_KEY)
        self.done.append((run.line, run.read()))
        if run.line == self.failing:
            run.say("no space left on device\n", error=True)
        return int(run.line == self.failing)

    def attempt(self, plan: Plan) -> SimpleNamespace:
        self.done.append(plan)
        return SimpleNamespace(run=lambda: self.done.append("live"))

    def takeover(self, *todo: Command | Copy) -> Takeover:
        return Takeover(
            access=self.sshd.access(), tag="web-1.ab", site=SITE, site_address=ADDRESS, root="PEM", release=RELEASE,
            steps=todo, timeout=300,
        )  # fmt: skip


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(takeover, "_answers", made.asked)
    monkeypatch.setattr(takeover, "wait_ready", made.wait_ready)
    monkeypatch.setattr("decant.ssh.own_key.make_own_key", made.make_own_key)
    monkeypatch.setattr(takeover, "Attempt", made.attempt)
    monkeypatch.setattr(Takeover, "_copy", lambda self, session, step: made.done.append(step))
    return made


STEPS = (
    Copy(source=Path("files.tar"), target=".decant/files.tar"),
    Command("provision", "sudo -n sh -s provision", "script"),
    Copy(source=Path("app.tar"), target="/var/lib/decant/incoming/app.tar"),
    Command("stage", "sudo -n stage", "secrets"),
)


def test_a_machine_does_all_steps_and_goes_live_at_its_own_address(world: World) -> None:
    """The first key is good for the first login: what follows is told to whoever has the machine's own one."""
    with world.sshd.running():
        work = world.takeover(*STEPS)
        work.run()
    own = replace(
        work.access,
        host_key=f"ssh-ed25519 {OWN_KEY.get_base64()}",
        through=OuterLogin(host_key=SHOWN_KEY, command=INSIDE),
    )
    plan = Plan(
        release=RELEASE, machines=(own,), url=SITE, address="127.0.0.1", domain="example.com", root="PEM",
        orders_certificate=False, batch=1, tags=frozenset({"web-1.ab"}),
    )  # fmt: skip
    assert world.done == [
        ("asked", ADDRESS, "example.com"),
        ("ready", SHOWN_KEY, 300),
        ("own key", SHOWN_KEY),
        STEPS[0],
        ("sudo -n sh -s provision", "script"),
        STEPS[2],
        ("sudo -n stage", "secrets"),
        plan,
        "live",
    ]


def test_whoever_has_only_the_first_key_gets_none_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = paramiko.Ed25519Key(file_obj=io.StringIO(key_pair()[0]))
    monkeypatch.setattr(world.sshd, "serve_inside", lambda run, _: Sshd.serve_inside(world.sshd, run, foreign))
    with world.sshd.running(), pytest.raises(HostKeyMismatchError):
        world.takeover(*STEPS).run()
    assert world.done[-1] == ("own key", SHOWN_KEY)
    assert world.sshd.lines == [INSIDE]


def test_a_command_does_not_show_its_input() -> None:
    assert repr(STEPS[3]) == "Command(step='stage', line='sudo -n stage')"


def test_nothing_is_done_where_nobody_serves_the_site(world: World) -> None:
    """The stack is new, or its machine is dead: the steps in the state begin at once."""
    world.answers = False
    world.takeover(*STEPS).run()
    assert world.done == [("asked", ADDRESS, "example.com")]


@pytest.mark.parametrize("status", [200, 308, 404, 502])
def test_a_site_that_answers_anything_is_served(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Also with a redirect to HTTPS, whose certificate may be the fault that the new machine is to mend."""
    connected: list[tuple[str, int]] = []

    class Connection:
        def __init__(self, address: str, port: int, timeout: float) -> None:
            connected.append((address, port))

        def request(self, method: str, path: str, headers: dict[str, str]) -> None:
            assert (method, path, headers["Host"]) == ("GET", "/", "example.com")

        def getresponse(self) -> SimpleNamespace:
            return SimpleNamespace(status=status)

        def close(self) -> None:
            pass

    monkeypatch.setattr(http.client, "HTTPConnection", Connection)
    assert takeover._answers(ADDRESS, "example.com")
    assert connected == [(ADDRESS, 80)]


def test_a_site_where_nothing_listens_is_not_served() -> None:
    assert not takeover._answers("127.0.0.254", "example.com")


def test_the_site_of_an_address_is_asked_at_the_machines_own(world: World) -> None:
    """The certificate is for the site's address, so requests go to the machine's own under that name."""
    with world.sshd.running():
        replace(world.takeover(), site=f"http://{ADDRESS}").run()
    plan = world.done[-2]
    assert (plan.url, plan.address, plan.domain) == (f"http://{ADDRESS}", "127.0.0.1", ADDRESS)


def test_a_step_that_fails_ends_it(world: World) -> None:
    world.failing = "sudo -n sh -s provision"
    with (
        world.sshd.running(),
        pytest.raises(MachineError, match=r"provision failed on web-1 .*:\nno space left on dev"),
    ):
        world.takeover(*STEPS).run()
    assert not [step for step in world.done if isinstance(step, Plan)]


def test_a_file_that_cannot_be_copied_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    work = replace(world.takeover(), steps=())
    session: Any = SimpleNamespace(client=SimpleNamespace(open_sftp=lambda: (_ for _ in ()).throw(OSError("Failure"))))
    with pytest.raises(MachineError, match=r"/there/app\.tar could not be copied to web-1 .*: Failure"):
        work._copy(session, Copy(source=Path("app.tar"), target="/there/app.tar"))


@pytest.mark.parametrize("error", [MachineError("it is gone"), RolloutError("it is gone")])
def test_the_error_says_who_serves_the_site_and_what_to_do(world: World, error: Exception) -> None:
    def fails(_: Takeover) -> None:
        raise error

    with pytest.raises(TakeoverError) as told:
        asyncio.run(take_over(world.takeover(), fails))
    assert str(told.value) == (
        f"web-1 does not take over {SITE}, which its predecessor still serves: it is gone\n"
        "  Mend that, then run pulumi up again: it goes on with the new machine."
    )


# ------------------------------------------------------------------------------------------------ in the program


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[Takeover]:
    """The takeovers that the program would run, each as soon as its address is about to move."""
    found: list[Takeover] = []
    made: list[AddressMove] = []
    begin = AddressMove.__init__

    def remember(self: AddressMove, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        made.append(self)

    monkeypatch.setattr(AddressMove, "__init__", remember)
    monkeypatch.setattr("decant.deploy.steps.take_over", lambda work: _keep(found, work))

    export = steps.MachineSteps.register_outputs

    def register(self: Any, outputs: Any) -> None:
        export(self, outputs)
        for move in made:
            assert move.prepare
            asyncio.ensure_future(move._before(None))  # type: ignore[arg-type] # noqa: RUF006

    monkeypatch.setattr(steps.MachineSteps, "register_outputs", register)
    return found


async def _keep(found: list[Takeover], work: Takeover) -> None:
    found.append(work)


@pytest.mark.parametrize("stack", [DROPLET, INSTANCE], ids=["digitalocean", "aws"])
def test_a_machine_alone_is_prepared_through_its_own_address(
    start: Start, prepared: list[Takeover], stack: dict[str, Any]
) -> None:
    run = start(stack, secrets={"SECRET_KEY": "canary"})
    (work,) = prepared
    hooked = {one.short: one.before_create for one in run.resources.values() if one.before_create}
    moving = {"digitalocean": "ReservedIpAssignment", "aws": "EipAssociation"}[stack["cloud"]]
    assert hooked == {
        f"{moving} web-1-address": ("preparation of web-1",),
        "Command web-1-provision": ("saved certificate for web-1",),
    }
    (access,) = run.exports["ssh"].value
    own, site = work.access.address, access["address"]
    assert (work.site, work.site_address, site) == (f"http://{site}", site, ADDRESS)
    assert own.startswith("10.9.8."), "as all addresses of machines here"
    first_key = run.states[run.one("PrivateKey web-1-host-key").urn]["publicKeyOpenssh"].strip()
    assert (work.access.host_key, work.access.user) == (first_key, "deploy"), "the machine makes its own key later"
    assert work.release == run.exports["release"].value
    files, provision, upload, stage = work.steps
    assert isinstance(files, Copy)
    assert isinstance(upload, Copy)
    assert isinstance(provision, Command)
    assert isinstance(stage, Command)
    assert files.target == run.world.copies["web-1-files"][0]
    assert upload.target == run.world.copies["web-1-upload"][0]
    done = {step: (line, stdin) for step, line, stdin in run.world.steps}
    assert (stage.line, stage.stdin) == done["web-1-stage"]
    assert "canary" in stage.stdin
    ahead, recorded = (
        carried(script)["nginx.conf"].decode() for script in (provision.stdin, done["web-1-provision"][1])
    )
    assert server_names(ahead) == [site, own]
    assert server_names(recorded) == [site]
    assert reveal(run.one("Command web-1-provision").inputs["stdin"]) == done["web-1-provision"][1]


def test_behind_a_balancer_no_address_moves(start: Start, prepared: list[Takeover]) -> None:
    run = start(DROPLET, balancer=True)
    assert prepared == []
    assert not [one for one in run.resources.values() if one.before_create]


@pytest.mark.parametrize("saved", [None, "c2F2ZWQ="])
def test_a_certificate_is_carried_over_before_the_release_is_staged(
    start: Start, prepared: list[Takeover], monkeypatch: pytest.MonkeyPatch, saved: str | None
) -> None:
    async def found(_: Any) -> str | None:
        return saved

    monkeypatch.setattr("decant.deploy.steps.find_saved", found)
    run = start(DROPLET, domain="example.com", redirects=[])
    (work,) = prepared
    names = [step.step for step in work.steps if isinstance(step, Command)]
    assert names == ["provision", *(["certificate-restore"] if saved else []), "stage"]
    if saved:
        (restore,) = [step for step in work.steps if isinstance(step, Command) and step.step == "certificate-restore"]
        assert restore.line == "sudo -n /opt/decant/bin/decant-host certificate-restore || true"
        assert restore.stdin == '{"saved": "c2F2ZWQ="}'
    assert (work.site, work.site_address) == ("http://example.com", ADDRESS)
    (provision,) = [step for step in work.steps if isinstance(step, Command) and step.step == "provision"]
    ahead = server_names(carried(provision.stdin)["nginx.conf"].decode())
    assert ahead == ["example.com", ADDRESS, work.access.address]
    assert run.exports["url"].value == "http://example.com"
