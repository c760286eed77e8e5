"""The command line of the verbs, `ssh`, and Fabric's tasks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decant.errors import MachineError, UnreachableError
from decant.settings.project import PROJECT
from decant.ssh.client import Access
from decant.verbs import __main__ as verbs
from decant.verbs import ssh_login
from tests.support.in_memory import PRIVATE
from tests.support.in_memory_sshd import SHOWN_KEY
from tests.unit.test_verbs_overviews import LIVE, machine

WEB_1 = Access(name="web-1", address="203.0.113.7", port=22, user="admin", host_key=SHOWN_KEY, private_key=PRIVATE)
WEB_2 = Access(name="web-2", address="203.0.113.8", port=2222, user="admin", host_key=SHOWN_KEY, private_key=PRIVATE)


class Cli:
    """What the verbs ask Pulumi."""

    def __init__(self, path: str) -> None:
        assert path == "/usr/bin/pulumi"

    def outputs(self, stack: str) -> dict[str, Any]:
        return {"url": f"https://{stack}.example.com"} if stack != "empty" else {}


@pytest.fixture(autouse=True)
def pulumi(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two machines, and what the verbs did with them."""
    done: list[Any] = []
    monkeypatch.setattr(verbs, "find_cli", lambda: "/usr/bin/pulumi")
    monkeypatch.setattr(verbs, "PulumiCli", Cli)
    monkeypatch.setattr(verbs, "check_state", lambda cli, stack: done.append(("state", stack)))
    monkeypatch.setattr(verbs, "select_stack", lambda cli, stack, create: done.append(("select", stack, create)))
    monkeypatch.setattr(verbs, "accesses", lambda cli, stack: [WEB_1, WEB_2])

    def note(name: str, status: int) -> Any:
        def call(*words: Any, **options: Any) -> int:
            done.append((name, words, options))
            return status

        return call

    for name, status in (("show_logs", 3), ("run_command", 7), ("ssh", 9)):
        monkeypatch.setattr(verbs, name, note(name, status))
    return done


def test_status_asks_all_machines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(verbs, "overview", lambda access: machine())
    assert verbs.main(["status", "prod"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("https://prod.example.com\n\nweb-1\n")
    assert "\nweb-2\n" in out


def test_a_machine_that_does_not_answer_is_told_beside_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def overview(access: Access) -> Any:
        if access is WEB_2:
            raise UnreachableError("web-2: no answer")
        return machine()

    monkeypatch.setattr(verbs, "overview", overview)
    for verb in ("status", "ps", "releases", "env"):
        assert verbs.main([verb, "prod"]) == 1
        out, err = capsys.readouterr()
        assert err == "web-2: no answer\n"
        assert len(out.splitlines()) > 1
    assert verbs.main(["status", "prod", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["web-1"]["current"], found["web-2"]) == (LIVE, {"error": "web-2: no answer"})


def test_logs_have_their_options(pulumi: list[Any]) -> None:
    assert verbs.main(["logs", "prod"]) == 3
    words = ["--source", "app", "--lines", "100"]
    assert pulumi == [
        ("state", "prod"), ("select", "prod", False),
        ("show_logs", ([WEB_1, WEB_2], words), {"follow": False, "as_json": False}),
    ]  # fmt: skip
    options = ["--machine=web-2", f"--release={LIVE}", "--source=access", "--lines=7", "--follow", "--json"]
    assert verbs.main(["logs", "prod", *options]) == 3
    words = ["--source", "access", "--lines", "7", "--release", LIVE]
    assert pulumi[-1] == ("show_logs", ([WEB_2], words), {"follow": True, "as_json": True})


def test_run_and_console_take_one_machine(pulumi: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.main(["run", "prod", "--command=flask db current"]) == 7
    assert pulumi[-1] == ("run_command", (WEB_1, "flask db current", None), {})
    assert capsys.readouterr().err == "on web-1 (choose another one by its name: web-2)\n"
    assert verbs.main(["console", "prod", "--machine=web-2", f"--release={LIVE}"]) == 7
    assert pulumi[-1] == ("run_command", (WEB_2, None, LIVE), {})
    assert capsys.readouterr().err == ""


def test_what_cannot_be_is_refused_before_anything_is_asked(
    pulumi: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verbs.main(["run", "prod", "--command= "]) == 1
    assert "make run COMMAND='flask db current'" in capsys.readouterr().err
    assert verbs.main(["logs", "prod", "--release=latest"]) == 1
    assert "'latest' is not a release id" in capsys.readouterr().err
    assert pulumi == []
    assert verbs.main(["ssh", "prod", "--machine=web-9"]) == 1
    assert capsys.readouterr().err == "There is no machine web-9 in this stack; there are: web-1, web-2\n"


def test_open_prints_the_url(capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.main(["open", "prod"]) == 0
    assert capsys.readouterr().out == "https://prod.example.com\n"
    assert verbs.main(["open", "empty"]) == 1
    assert "make up STACK=empty" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ ssh


def test_ssh_trusts_the_pinned_key_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh"
    program.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/words\nfor word; do case $word in UserKnownHostsFile=*) cat "${{word#*=}}"'
        f" >{tmp_path}/known ;; esac; done\nwhile [ $# -gt 0 ]; do [ $1 = -i ] && {{ cat $2; stat -c %a $2; }}"
        f" >{tmp_path}/key; shift; done\nexit 5\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert ssh_login.ssh(WEB_2) == 5
    assert (tmp_path / "known").read_text() == f"[203.0.113.8]:2222 {SHOWN_KEY}\n"
    assert (tmp_path / "key").read_text() == PRIVATE.rstrip("\n") + "\n600\n"
    words = (tmp_path / "words").read_text()
    assert "StrictHostKeyChecking=yes" in words
    assert words.endswith(" -p 2222 admin@203.0.113.8\n")
    key = Path(re.search(r" -i (\S+)", words)[1])  # type: ignore[index]
    assert not key.parent.exists(), "the key is on the disk for as long as ssh runs"


def test_a_computer_without_ssh_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="apt-get install openssh-client"):
        ssh_login.ssh(WEB_1)
    assert ssh_login.known_host(WEB_1) == f"203.0.113.7 {SHOWN_KEY}\n"


# ------------------------------------------------------------------------------------------------ fab and make

FAB = Path(sys.executable).with_name("fab")
VERBS = ["console", "env", "logs", "open", "ps", "releases", "run", "ssh", "status"]
STUB = """
import sys
from decant.verbs import __main__
__main__.main = lambda words: print(words) or 7
from fabric.main import program
program.run()
"""


def fab(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", STUB, *words], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_fab_lists_the_verbs() -> None:
    done = subprocess.run([FAB, "--list"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert re.findall(r"(?m)^  (\w+)   ", done.stdout) == VERBS


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ([ "status"], ["status", "dev", "--machine="]),
        (["ps", "--stack", "prod", "--json"], ["ps", "prod", "--machine=", "--json"]),
        (["run", "flask 'x y'", "--machine", "web-2"],
         ["run", "dev", "--machine=web-2", "--release=", "--command=flask 'x y'"]),
        (["ssh", "web-2", "--stack", "prod"], ["ssh", "prod", "--machine=web-2"]),
        (["logs", "--follow", "--lines", "7", "--source", "error"],
         ["logs", "dev", "--machine=", "--release=", "--source=error", "--lines=7", "--follow"]),
    ],
)  # fmt: skip
def test_fab_passes_words_and_the_status_on(words: list[str], passed: list[str]) -> None:
    assert fab(*words) == (7, f"{passed}\n")


@pytest.mark.parametrize("verb", VERBS)
def test_make_has_the_same_verbs(verb: str, tmp_path: Path) -> None:
    odd = 'echo "it\'s" $(id) `id` \\'
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport sys, json\nprint(json.dumps(sys.argv[1:]))\n")
    python.chmod(0o755)
    text = (PROJECT / "Makefile").read_text().replace("python := .venv/bin/python", f"python := {python}")
    (tmp_path / "Makefile").write_text(text.replace("@tools/install.sh program", "@true"))
    environment = os.environ | {"COMMAND": odd, "MACHINE": "web 2", "RELEASE": LIVE, "LINES": "7", "SOURCE": "access"}
    words = ["make", "-s", verb, "STACK=prod", "FOLLOW=yes", "JSON=yes"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [
        "-m", "decant.verbs", verb, "prod", "--machine=web 2", f"--release={LIVE}", f"--command={odd}",
        "--source=access", "--lines=7", "--follow", "--json",
    ]  # fmt: skip
