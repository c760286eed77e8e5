"""Locks of stacks: who holds one, whether that is provably over, and what of them is deleted."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant.ci.runs import Run
from decant.cli import lock
from decant.cli.lock import Lock, judge, let_go_where_over, read_locks, unlock
from decant.cli.pulumi_cli import LOCKED, PulumiCli
from decant.errors import LockedError, StackError
from tests.support.waiting import wait_for

HERE = socket.gethostname()
RUNNER = "decant-github-17321-2-0a1b2c"
CI = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "17400", "GITHUB_RUN_ATTEMPT": "1"}


def told(*lines: str) -> str:
    """Pulumi's words, as its own code makes them."""
    return (
        f"error: {LOCKED} {len(lines)} lock(s). Either wait for the other process(es) to end or delete the lock file"
        " with `pulumi cancel`.\n" + "\n".join(lines)
    )


def line(folder: str, *, host: str = "laptop", pid: int = 4711, name: str = "0a3b", user: str = "carol") -> str:
    path = f"{folder}/.pulumi/locks/organization/decant/dev/{name}.json"
    return f"  {path}: created by {user}@{host} (pid {pid}) at 2026-11-28T14:00:00+01:00"


LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def a_lock(**changes: Any) -> Lock:
    facts = {"url": "file:///state/x.json", "user": "carol", "host": "laptop", "pid": 4711,
             "since": datetime(2026, 11, 28, 13, tzinfo=UTC)}  # fmt: skip
    return Lock(**{**facts, **changes})


@pytest.fixture
def gone() -> int:
    """The number of a process that was here and is not any more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool | datetime | Exception], list[Run]]:
    """What the forge says of each run."""
    asked: list[Run] = []

    def say(answer: bool | datetime | Exception) -> list[Run]:
        def run_ended(run: Run) -> datetime | None:
            asked.append(run)
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, datetime) else LONG_AGO if answer else None

        monkeypatch.setattr(lock, "run_ended", run_ended)
        return asked

    say(AssertionError("nobody should be asked"))
    return say


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stacks whose state is settled."""
    done: list[str] = []
    monkeypatch.setattr(lock, "settle", lambda cli, stack: done.append(stack))
    return done


class Cli(PulumiCli):
    """A CLI that notes what it is asked and answers with one text."""

    def __init__(self, errors: str = "", status: int = 1) -> None:
        self.errors = errors
        self.status = status
        self.asked: list[tuple[str, ...]] = []

    def capture(self, *argv: str) -> subprocess.CompletedProcess[str]:
        self.asked.append(argv)
        return subprocess.CompletedProcess(argv, self.status, "", self.errors)


# ------------------------------------------------------------------------------------------------ reading


def test_pulumis_words_name_each_lock() -> None:
    bucket = line("s3://state/team?region=eu-central-1", host=RUNNER, pid=9, name="ff")
    bucket = bucket.replace("?region=eu-central-1", "", 1).replace(".json:", ".json?region=eu-central-1:")
    first, second = read_locks(told(line("file:///home/carol"), bucket))
    assert first == Lock(
        url="file:///home/carol/.pulumi/locks/organization/decant/dev/0a3b.json",
        user="carol", host="laptop", pid=4711, since=datetime(2026, 11, 28, 13, tzinfo=UTC),
    )  # fmt: skip
    assert second.url == "s3://state/team/.pulumi/locks/organization/decant/dev/ff.json?region=eu-central-1"
    assert (second.host, second.pid) == (RUNNER, 9)
    assert [str(first), str(second)] == [
        "carol@laptop (process 4711), since 2026-11-28 13:00 UTC",
        "run 17321 (attempt 2) on GitHub, since 2026-11-28 13:00 UTC",
    ]


def test_a_domain_user_with_an_at_sign_is_read() -> None:
    (found,) = read_locks(told(line("file:///s", user="carol@example.org")))
    assert (found.user, found.host) == ("carol@example.org", "laptop")


def test_colours_of_a_terminal_are_no_part_of_a_lock() -> None:
    words = f"\x1b[31merror: \x1b[0m{LOCKED} 1 lock(s).\n{line('file:///s')}\x1b[0m\n"
    assert [found.since for found in read_locks(words)] == [datetime(2026, 11, 28, 13, tzinfo=UTC)]


def test_other_errors_name_no_lock() -> None:
    assert read_locks("error: the update failed\n  web-1: created by mistake") == []


# ------------------------------------------------------------------------------------------------ judging


@pytest.mark.parametrize(("answer", "why"), [(True, "it is over"), (False, "it is not over")])
def test_the_forge_is_asked_for_another_runs_lock(over: Any, answer: bool, why: str) -> None:
    asked = over(answer)
    verdict = judge(a_lock(host=RUNNER, url="s3://state/x.json"))
    assert (verdict.over, verdict.why) == (answer, why)
    assert asked == [Run(forge="github", id="17321", attempt="2")]


def test_a_forge_that_cannot_be_asked_proves_nothing(over: Any) -> None:
    over(StackError("GITHUB_TOKEN is not set"))
    verdict = judge(a_lock(host=RUNNER))
    assert (verdict.over, verdict.why) == (False, "whether it is over could not be asked: GITHUB_TOKEN is not set")


def test_a_process_of_this_run_is_looked_for_here(over: Any, gone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run is not over while this one looks, so the forge is not asked."""
    monkeypatch.setattr(socket, "gethostname", lambda: RUNNER)
    verdict = judge(a_lock(host=RUNNER, pid=gone, url="s3://state/x.json"))
    assert (verdict.over, verdict.why) == (True, "that process does not run any more")


def test_a_folders_lock_is_over_when_its_process_is_gone(over: Any, gone: int) -> None:
    assert judge(a_lock(host=HERE, pid=gone)).over


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not tell the names of processes")
def test_a_process_that_runs_holds_its_lock(over: Any, tmp_path: Path) -> None:
    program = tmp_path / "pulumi"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        # The kernel sets the name a moment after Popen has returned.
        wait_for(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "pulumi\n", "the program")
        verdict = judge(a_lock(host=HERE, pid=process.pid))
        assert (verdict.over, verdict.why) == (False, "that process runs")
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not tell the names of processes")
def test_a_number_that_another_program_has_by_now_holds_nothing(over: Any) -> None:
    assert judge(a_lock(host=HERE, pid=os.getpid())).over


@pytest.mark.parametrize(
    "changes",
    [{"host": "laptop"}, {"host": HERE, "url": "s3://state/x.json"}, {"host": HERE, "url": "gs://state/x.json"}],
    ids=["another computer", "a bucket", "another bucket"],
)
def test_what_cannot_be_proven_is_not_over(over: Any, gone: int, changes: dict[str, Any]) -> None:
    """Two computers that share a bucket may have the same name."""
    verdict = judge(a_lock(pid=gone, **changes))
    assert (verdict.over, verdict.why) == (False, "nothing here can tell whether it is over")


# ------------------------------------------------------------------------------------------------ letting go


@pytest.fixture
def left(tmp_path: Path, gone: int) -> tuple[Path, str]:
    """A lock that was left behind in a folder, and Pulumi's words for it."""
    file = tmp_path / "my state" / ".pulumi/locks/organization/decant/dev/0a3b.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    file.with_name("0a3b.json.attrs").write_text("{}")
    folder = f"file://{tmp_path}/my%20state"
    return file, told(line(folder, host=HERE, pid=gone).replace(".json:", ".json?no_tmp_dir=true:"))


def test_ci_lets_go_of_exactly_the_lock_that_was_left(
    over: Any, left: tuple[Path, str], settled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file, words = left
    other = file.with_name("made-meanwhile.json")
    other.write_text("{}")
    cli = Cli()
    let_go_where_over(cli, "dev", LockedError(words), CI)
    assert sorted(path.name for path in file.parent.iterdir()) == ["made-meanwhile.json"]
    assert settled == ["dev"]
    assert cli.asked == [], "`pulumi cancel` deletes all locks, also one that was made meanwhile"
    said = capsys.readouterr().out
    assert f"Stack dev was held by carol@{HERE} (process " in said
    assert "since 2026-11-28 13:00 UTC: that process does not run any more. It is let go." in said


def test_outside_of_ci_a_person_lets_go(over: Any, left: tuple[Path, str]) -> None:
    file, words = left
    with pytest.raises(StackError, match=r"(?s)is held by what is over:\n  carol@.*make unlock STACK=dev$"):
        let_go_where_over(Cli(), "dev", LockedError(words), {})
    assert file.exists()


def test_a_stack_in_use_says_by_whom_and_since_when(over: Any, settled: list[str]) -> None:
    over(False)
    with pytest.raises(StackError) as raised:
        let_go_where_over(Cli(), "dev", LockedError(told(line("s3://state", host=RUNNER))), CI)
    assert str(raised.value) == (
        "Stack dev is in use. It is held by:\n"
        "  run 17321 (attempt 2) on GitHub, since 2026-11-28 13:00 UTC: it is not over\n"
        "  Wait until that has ended, then run the same command again.\n"
        "  Only if you know that it is over: make unlock STACK=dev FORCE=yes"
    )
    assert settled == []


def test_ci_waits_until_a_run_that_has_just_ended_is_over_for_sure(
    over: Any, left: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """GitHub says that a run has ended as soon as its runner is lost, and Pulumi may run on there."""
    file, words = left
    ended = datetime.now(UTC) - timedelta(seconds=30)
    over(ended)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        assert file.exists()
        over(True)

    let_go_where_over(Cli(), "dev", LockedError(words.replace(f"@{HERE} ", f"@{RUNNER} ")), CI, sleep=sleep)
    assert not file.exists()
    assert len(waited) == 1
    assert 85 < waited[0] <= 91
    said = capsys.readouterr().out
    assert f"since 2026-11-28 13:00 UTC: it ended at {ended:%H:%M:%S} UTC, and its Pulumi may run for two" in said
    assert re.search(r"Waiting (8[89]|90) s for its end", said)


@pytest.mark.parametrize("environ", [CI, {}])
def test_a_run_that_goes_on_after_the_wait_keeps_its_lock(
    over: Any, left: tuple[Path, str], environ: dict[str, str]
) -> None:
    file, words = left
    over(datetime.now(UTC) + timedelta(hours=1))
    waited: list[float] = []
    error = LockedError(words.replace(f"@{HERE} ", f"@{RUNNER} "))
    with pytest.raises(StackError, match=r"(?s)Stack dev is in use.*it ended at .*then run the same command again"):
        let_go_where_over(Cli(), "dev", error, environ, sleep=waited.append)
    assert file.exists()
    assert waited == ([121] if environ else []), "a person does not wait without being asked"


def test_one_holder_that_is_not_over_keeps_all_locks(over: Any, left: tuple[Path, str]) -> None:
    file, words = left
    with pytest.raises(StackError, match="Stack dev is in use"):
        let_go_where_over(Cli(), "dev", LockedError(f"{words}\n{line('file:///s', host='laptop')}"), CI)
    assert file.exists()


def test_words_without_a_lock_are_shown_as_they_are(over: Any) -> None:
    with pytest.raises(LockedError, match=r"^the stack is currently locked by something new$"):
        let_go_where_over(Cli(), "dev", LockedError("the stack is currently locked by something new"), CI)


def test_a_lock_in_s3_is_deleted_by_its_key(over: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    over(True)
    calls: list[Any] = []

    class Session:
        def __init__(self, **options: Any) -> None:
            calls.append(options)

        def client(self, service: str, **options: Any) -> Any:
            calls.append((service, options))
            return SimpleNamespace(delete_object=lambda **key: calls.append(key))

    monkeypatch.setattr(lock, "boto3", SimpleNamespace(Session=Session))
    words = (
        line("s3://bucket/team a", host=RUNNER)
        .replace(" a/", "%20a/")
        .replace(".json:", ".json?region=fra1&endpoint=fra1.example.com&awssdk=v2:")
    )
    let_go_where_over(Cli(), "dev", LockedError(told(words)), CI)
    assert calls == [
        {"region_name": "fra1", "profile_name": None},
        ("s3", {"endpoint_url": "https://fra1.example.com"}),
        {"Bucket": "bucket", "Key": "team a/.pulumi/locks/organization/decant/dev/0a3b.json"},
    ]


def test_a_lock_that_cannot_be_deleted_is_named(over: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    over(True)

    def fails(**_: Any) -> None:
        raise ValueError("no credentials")

    monkeypatch.setattr(lock, "boto3", SimpleNamespace(Session=fails))
    with pytest.raises(StackError, match=r"The lock s3://b/.*0a3b.json cannot be deleted: no credentials"):
        let_go_where_over(Cli(), "dev", LockedError(told(line("s3://b", host=RUNNER))), CI)


@pytest.mark.parametrize(("status", "fails"), [(0, False), (1, True)])
def test_in_other_buckets_pulumi_lets_go(over: Any, status: int, fails: bool) -> None:
    over(True)
    cli = Cli("no access", status)
    words = LockedError(told(line("gs://state", host=RUNNER)))
    if fails:
        with pytest.raises(StackError, match="Stack dev cannot be let go: no access"):
            let_go_where_over(cli, "dev", words, CI)
    else:
        let_go_where_over(cli, "dev", words, CI)
    assert cli.asked == [("cancel", "--yes", "--stack", "dev")]


# ------------------------------------------------------------------------------------------------ make unlock


def test_unlock_asks_pulumi_and_settles_what_was_left_in_any_case(
    over: Any, settled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli("error: a stack named dev already exists\n")
    unlock(cli, "dev", force=False)
    assert cli.asked == [("stack", "rename", "dev", "--stack", "dev")]
    assert capsys.readouterr().out == "Nobody holds stack dev.\n"
    assert settled == ["dev"]


def test_unlock_of_a_state_that_cannot_be_read_is_an_error(over: Any) -> None:
    with pytest.raises(StackError, match="Who holds stack dev cannot be read: no such bucket"):
        unlock(Cli("no such bucket"), "dev", force=True)


def test_unlock_lets_go_of_what_is_over_also_outside_of_ci(over: Any, left: tuple[Path, str]) -> None:
    file, words = left
    unlock(Cli(words), "dev", force=False)
    assert list(file.parent.iterdir()) == []


def test_unlock_of_what_may_not_be_over_needs_force(over: Any, tmp_path: Path) -> None:
    file = tmp_path / ".pulumi/locks/organization/decant/dev/0a3b.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    words = told(line(f"file://{tmp_path}", host="laptop"))
    with pytest.raises(StackError, match="make unlock STACK=dev FORCE=yes"):
        unlock(Cli(words), "dev", force=False)
    assert file.exists()
    unlock(Cli(words), "dev", force=True)
    assert not file.exists()


# ------------------------------------------------------------------------------------------------ the CLI


def cli_that(script: str, tmp_path: Path) -> PulumiCli:
    path = tmp_path / "pulumi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return PulumiCli(str(path))


def test_a_refused_command_raises_pulumis_words_and_shows_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = told(line("file:///s"))
    (tmp_path / "words").write_text(words)
    cli = cli_that(f'echo out; cat "{tmp_path}/words" >&2; exit 255', tmp_path)
    with pytest.raises(LockedError) as raised:
        cli.run("up")
    assert str(raised.value) == words.removeprefix("error: ")
    assert capfd.readouterr() == ("out\n", words)


def test_another_failure_is_its_status_alone(tmp_path: Path) -> None:
    assert cli_that("echo boo >&2; exit 7", tmp_path).run("up") == 7


def test_a_success_that_mentions_a_lock_is_a_success(tmp_path: Path) -> None:
    assert cli_that(f"echo '{LOCKED} 1 lock(s)' >&2", tmp_path).run("up") == 0


def test_an_import_that_is_refused_raises_pulumis_words(tmp_path: Path) -> None:
    cli = cli_that(
        f"cat >/dev/null; echo 'error: could not import deployment: {LOCKED} 1 lock(s)' >&2; exit 1", tmp_path
    )
    with pytest.raises(LockedError, match=r"^the stack is currently locked by 1"):
        cli.import_state("dev", {})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_lets_pulumi_end(tmp_path: Path, number: signal.Signals) -> None:
    """A forge stops the first process of a step alone; a Pulumi that is killed with it would leave its lock."""
    said = tmp_path / "said"
    program = tmp_path / "pulumi"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, signal, sys, time\n"
        f"said = pathlib.Path({str(said)!r})\n"
        "def stop(*_):\n    time.sleep(0.5)\n    said.write_text('ended by itself')\n    sys.exit(3)\n"
        "signal.signal(signal.SIGINT, stop)\nsaid.write_text('runs')\ntime.sleep(60)\n"
    )
    program.chmod(0o755)
    code = f"from decant.cli.pulumi_cli import PulumiCli; raise SystemExit(PulumiCli({str(program)!r}).run('up'))"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
    wait_for(lambda: said.exists() and said.read_text() == "runs", "the program")
    process.send_signal(number)
    assert process.wait(30) == 3
    assert said.read_text() == "ended by itself"
