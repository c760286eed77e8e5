"""The certificate that outlives its machine: where it is found, and how it comes to the next machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pulumi
import pytest

from decant.deploy import saved_certificate
from decant.deploy.saved_certificate import CarryOver, find_saved, restore_input
from decant.settings.model import Settings
from tests.support.in_memory import DROPLET, HOST, INSTANCE
from tests.support.in_memory_sshd import Run, Sshd
from tests.support.stack_settings import droplet, read

SAVED = "c2F2ZWQ="


def settings(kept: str | None = None) -> Settings:
    made = read(droplet(domain="example.com"))
    return replace(made, site=replace(made.site, saved_certificate=kept))


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The outputs of the stack's last run; a test may change them, or set `error`."""
    found: dict[str, Any] = {}

    async def invoke(token: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert (token, arguments) == ("pulumi:pulumi:readStackOutputs", {"name": "team/shop/dev"})
        if "error" in found:
            raise found["error"]
        return {"name": "team/shop/dev", "outputs": found}

    monkeypatch.setattr(pulumi.runtime, "invoke_async", invoke)
    for name, value in {"organization": "team", "project": "shop", "stack": "dev"}.items():
        monkeypatch.setattr(pulumi, f"get_{name}", lambda value=value: value)
    return found


def test_what_the_last_machine_saved_comes_before_what_destroy_has_kept(outputs: dict[str, Any]) -> None:
    assert asyncio.run(find_saved(settings())) is None
    assert asyncio.run(find_saved(settings("a2VwdA=="))) == "a2VwdA=="
    outputs["savedCertificate"] = SAVED
    assert asyncio.run(find_saved(settings("a2VwdA=="))) == SAVED


def test_a_secret_output_is_read(outputs: dict[str, Any]) -> None:
    """As Pulumi marks it on the wire."""
    outputs["savedCertificate"] = {
        "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
        "value": SAVED,
    }
    assert asyncio.run(find_saved(settings())) == SAVED


def test_a_stack_whose_outputs_cannot_be_read_has_what_destroy_has_kept(outputs: dict[str, Any]) -> None:
    outputs["error"] = Exception("unknown stack")
    assert asyncio.run(find_saved(settings("a2VwdA=="))) == "a2VwdA=="


def hook(access: Any, kept: str | None = SAVED) -> None:
    """Run both hooks for a machine."""
    plain = {name: getattr(access, name) for name in ("name", "address", "port", "user", "host_key", "private_key")}

    async def run() -> None:
        carry_over, nothing = CarryOver(settings(kept), pulumi.Output.from_input(plain)), cast("Any", None)
        await carry_over.find(nothing)
        await carry_over.restore(nothing)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("config", "more", "hooked"),
    [
        (DROPLET, {}, True), (INSTANCE, {}, True), (HOST, {}, True),
        (DROPLET, {"balancer": True}, False), (DROPLET, {"https": "off"}, False),
    ],
)  # fmt: skip
def test_provisioning_a_machine_that_gets_https_by_itself_has_the_hook(
    start: Callable[..., Any], config: dict[str, Any], more: dict[str, Any], hooked: bool
) -> None:
    run = start(config, **more)
    hooked_steps = [one for one in run.resources.values() if one.after_create]
    assert [one.name.endswith("-provision") for one in hooked_steps] == ([True] if hooked else [])
    # The engine waits for ever where the outputs are read after the step, so they are read before it.
    assert all(one.before_create for one in hooked_steps)


@pytest.mark.usefixtures("outputs")
def test_a_new_machine_gets_the_saved_certificate_by_standard_input() -> None:
    got: list[tuple[str, str]] = []

    def command(run: Run) -> int:
        got.append((run.line, run.read()))
        return 0

    sshd = Sshd(on_command=command)
    with sshd.running():
        hook(sshd.access())
    assert got == [("sudo -n /opt/decant/bin/decant-host certificate-restore", restore_input(SAVED))]
    assert restore_input(SAVED) == '{"saved": "c2F2ZWQ="}'


@pytest.mark.usefixtures("outputs")
def test_without_anything_saved_nobody_logs_in() -> None:
    hook(replace(Sshd().access(), address="192.0.2.1"), kept=None)


@pytest.mark.usefixtures("outputs")
def test_a_machine_that_cannot_take_it_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """It orders a certificate of its own."""
    warned: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warned.append)

    def command(run: Run) -> int:
        run.read()
        run.say("the saved certificate cannot be read\n", error=True)
        return 1

    sshd = Sshd(on_command=command)
    with sshd.running():
        hook(sshd.access())
    assert warned == [
        "the last machine's certificate is not carried over, so a new one is ordered:"
        " the saved certificate cannot be read"
    ]
    assert SAVED not in warned[0]
    assert saved_certificate.OUTPUT == "savedCertificate"
