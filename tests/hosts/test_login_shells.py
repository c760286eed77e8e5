"""A login shell that prints text or starts another program: each step says so, and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from decant.errors import MachineError
from decant.ssh.client import Access
from decant.ssh.machine_client import status
from decant.ssh.ready import wait_ready
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


def test_a_bashrc_that_starts_another_program_is_named_by_each_step(site: Site) -> None:
    """`cat` stands for a shell such as zsh, which would read our input as commands."""
    with bashrc(site, "exec cat\n"):
        with pytest.raises(MachineError, match=r"the login shell of user root is .*, or starts one"):
            ready(site.access)
        with pytest.raises(MachineError, match="without any output"):
            status(site.access)
        with pytest.raises(MachineError, match="the login shell of user root"), site.held():
            pass
