"""`logs` from where the user is: all machines at once, each line marked, against SSH servers in memory."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from decant.host.steps import PROGRAM
from decant.ssh.client import Access
from decant.verbs import logs
from decant.verbs.logs import show_logs
from tests.support.in_memory_sshd import Run, Sshd

OLD = "aaaaaaaaaaaa"
ARGV = ["--source", "app", "--lines", "5"]


def line(time: float | None, text: str) -> str:
    return json.dumps({"time": time, "release": OLD, "source": "web", "text": text}) + "\n"


def machine(stack: ExitStack, name: str, output: str, *, code: int = 0, error: str = "") -> Access:
    def command(run: Run) -> int:
        run.say(output)
        run.say(error, error=True)
        return code

    return stack.enter_context(Sshd(on_command=command).running()).access(name=name)


def test_the_lines_of_all_machines_are_in_order_and_marked(capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        machines = [
            machine(stack, "web-1", line(1_700_000_000.0, "one") + line(1_700_000_002.0, "three\nlines")),
            machine(stack, "web-10", line(1_700_000_001.0, "two")),
        ]
        assert show_logs(machines, ARGV, follow=False, as_json=False) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"web-1  | 2023-11-14 22:13:20Z {OLD} web: one",
        f"web-10 | 2023-11-14 22:13:21Z {OLD} web: two",
        f"web-1  | 2023-11-14 22:13:22Z {OLD} web: three",
        f"web-1  | 2023-11-14 22:13:22Z {OLD} web: lines",
    ]


def test_nginxs_lines_are_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        show_logs([machine(stack, "web", line(None, '"GET / HTTP/1.1" 200'))], ARGV, follow=False, as_json=False)
    assert capsys.readouterr().out == 'web | "GET / HTTP/1.1" 200\n'


def test_json_has_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        show_logs([machine(stack, "web", line(1.5, "one"))], ARGV, follow=False, as_json=True)
    expected = {"machine": "web", "time": 1.5, "release": OLD, "source": "web", "text": "one"}
    assert json.loads(capsys.readouterr().out) == expected


@pytest.mark.parametrize("follow", [False, True])
def test_a_machine_that_fails_is_told_and_the_others_go_on(capsys: pytest.CaptureFixture[str], follow: bool) -> None:
    with ExitStack() as stack:
        machines = [
            machine(stack, "web-1", "", code=1, error="web-1: no such release\n"),
            machine(stack, "web-2", line(1.0, "here")),
            machine(stack, "web-3", "", code=2, error="usage: decant-host"),
        ]
        assert show_logs(machines, ARGV, follow=follow, as_json=False) == 1
    out, err = capsys.readouterr()
    assert out == f"web-2 | 1970-01-01 00:00:01Z {OLD} web: here\n"
    assert "web-1: no such release" in err
    assert "Renew it: make up STACK=..." in err


def test_following_shows_lines_as_they_come_and_sends_signs_of_life(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "PING_INTERVAL", 0.05)
    pings: list[bytes] = []

    def command(run: Run) -> int:
        text = line(1.0, "half")
        run.say(text[:10])
        pings.append(run.channel.recv(1))
        run.say(text[10:])
        pings.append(run.channel.recv(1))
        return 0

    with Sshd(on_command=command).running() as sshd:
        assert show_logs([sshd.access()], ARGV, follow=True, as_json=False) == 0
        assert sshd.lines == [f"sudo -n {PROGRAM} logs --source app --lines 5 --follow"]
    assert pings == [b"\n", b"\n"]
    assert capsys.readouterr().out.endswith("web: half\n")


def test_a_connection_that_breaks_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PING_INTERVAL", 0.05)

    def breaking(run: Run) -> int:
        run.say(line(1.0, "here"))
        run.channel.recv(1)
        run.channel.get_transport().close()
        return 0

    with Sshd(on_command=breaking).running() as sshd:
        assert show_logs([sshd.access()], ARGV, follow=True, as_json=False) == 1
    out, err = capsys.readouterr()
    assert out.endswith("web: here\n")
    assert err.startswith("web-1 (carol@127.0.0.1 port")
    assert err.endswith("while its log was read\n")


def test_text_of_the_login_shell_is_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        show_logs([machine(stack, "web", "Welcome!\n" + line(1.0, "here"))], ARGV, follow=False, as_json=False)
    assert capsys.readouterr().out.count("\n") == 1
