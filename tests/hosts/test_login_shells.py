"""A login shell that prints text or starts another program: each step says so, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from decant.errors import MachineError
from decant.host.steps import UPDATES_STEP, check_space_step, reuse_staged_input, stage_input, stage_step
from decant.ssh.client import Access, Session
from decant.ssh.machine_client import status
from decant.ssh.ready import wait_ready
from decant_host.protocol import OTHER_SHELL
from tests.support.site import Site


@contextlib.contextmanager
def bashrc(site: Site, text: str) -> Iterator[None]:
    """While the block runs, this is what bash reads for each command over SSH."""
    site.machine.run("mv /root/.bashrc /root/.bashrc.kept 2>/dev/null; cat >/root/.bashrc", input=text)
    try:
        yield
    finally:
        site.machine.run("rm /root/.bashrc; mv /root/.bashrc.kept /root/.bashrc 2>/dev/null; true")


def ready(access: Access) -> None:
    wait_ready(access, timeout=5, log=print)


def test_bash_runs_our_commands_with_a_silent_bashrc(site: Site) -> None:
    with bashrc(site, "case $- in *i*) ;; *) return ;; esac\necho Welcome\n"):
        ready(site.access)
        assert status(site.access)["machine"]
        with site.held():
            pass


def test_a_bashrc_that_prints_text_is_named_by_each_step(site: Site) -> None:
    with bashrc(site, "echo Welcome to the shop\n"):
        for step in (ready, status):
            with pytest.raises(MachineError, match=r"login shell of user root prints text .*Welcome to the shop"):
                step(site.access)
        with pytest.raises(MachineError, match=r"login shell of user root prints text .*Welcome"), site.held():
            pass


@pytest.fixture(scope="module")
def shells(site: Site) -> None:
    site.machine.run(
        "apt-get -qq update && apt-get -qq install --no-install-recommends -y zsh fish tcsh ksh93u+m >/dev/null 2>&1"
    )


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh", "ksh93"])
def test_every_login_shell_runs_our_commands(site: Site, shells: None, shell: str) -> None:
    site.machine.run(f"usermod --shell /usr/bin/{shell} root")
    try:
        ready(site.access)
        assert status(site.access)["machine"]
        with site.held():
            pass
        with Session(site.access) as session:
            for line in (check_space_step("a.tar", 3), UPDATES_STEP):
                done = session.run(line)
                assert (done.status, done.stderr) == (0, ""), line
            done = session.run(stage_step("0123456789ab"), stdin=reuse_staged_input())
            assert (done.status, done.stdout) == (1, "")
            assert "release 0123456789ab is not on this machine" in done.stderr
    finally:
        site.machine.run("usermod --shell /bin/bash root")


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh", "ksh93", "bash --norc", "python3"])
def test_no_shell_that_bashrc_starts_gets_secrets_as_commands(site: Site, shells: None, shell: str) -> None:
    environment = {"KEY": "canary; touch /tmp/owned", "LINE": "\ntouch /tmp/owned\n"}
    given = stage_input(tar="a.tar", sha256="b", settings={}, environment=environment)
    with bashrc(site, f"exec {shell}\n"):
        with pytest.raises(MachineError, match="the login shell of user root does not run commands"):
            ready(site.access)
        with Session(site.access) as session:
            done = session.run(stage_step("0123456789ab"), stdin=given)
    assert done.status == (1 if shell == "python3" else 97)
    assert OTHER_SHELL in done.stdout + done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert site.machine.run("ls /tmp/owned", check=False).stdout == ""


def test_a_bashrc_that_starts_another_program_is_named_by_each_step(site: Site) -> None:
    with bashrc(site, "exec cat\n"):
        with pytest.raises(MachineError, match="the login shell of user root prints text when it runs a command"):
            ready(site.access)
        with pytest.raises(MachineError, match="without any output"):
            status(site.access)
        with pytest.raises(MachineError, match="the login shell of user root"), site.held():
            pass
