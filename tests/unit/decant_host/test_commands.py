"""The command line."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from decant_host import commands, paths, protocol, releases
from tests.unit.decant_host.machine import MODULES, NEW, OLD, Machine

INFRA = Path(commands.__file__).parents[1]


def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["decant-host", *argv])
    status = commands.main()
    out, err = capsys.readouterr()
    return status, out, err


def test_a_command_prints_one_line_of_json(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add(OLD, confirmed=True)
    machine.serve(OLD)
    status, out, err = run_main(monkeypatch, capsys, "status")
    assert (status, err, out.count("\n")) == (0, "", 1)
    output = json.loads(out)
    assert (output["current"], output["persisted"], output["running"], output["releases"]) == (OLD, OLD, [OLD], [OLD])
    assert (output["lease"], output["reverted"], output["in_rotation"]) == (None, None, False)


def test_a_host_error_is_printed_without_traceback(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run_main(monkeypatch, capsys, "confirm", NEW, "--attempt", "x")
    assert (status, out) == (1, "")
    assert re.match(r"\S+: this attempt does not hold the machine any more", err)


@pytest.mark.parametrize("release", ["latest", "0123456789AB", "../../etc", "0123456789abc"])
def test_only_release_ids_are_accepted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], release: str
) -> None:
    with pytest.raises(SystemExit):
        run_main(monkeypatch, capsys, "expire", release)


@pytest.mark.parametrize("guard", [protocol.SHELL_GUARD, ""], ids=["guarded", "of the version before"])
def test_stage_reads_a_description_with_and_without_its_guard(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], guard: str
) -> None:
    given: list[object] = []

    def stage(*arguments: object) -> dict[str, bool]:
        given.extend(arguments)
        return {"staged": True}

    monkeypatch.setattr(commands, "stage", stage)
    monkeypatch.setattr("sys.stdin", io.StringIO(guard + '{"tar": "app.tar"}'))
    assert run_main(monkeypatch, capsys, "stage", OLD)[0] == 0
    assert given == [OLD, {"tar": "app.tar"}]


# It would name the folder of all releases, which `unpack` removes first.
def test_an_empty_release_id_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add(OLD)
    monkeypatch.setattr("sys.stdin", io.StringIO('{"tar": "app.tar", "sha256": "x"}'))
    (paths.INCOMING / "app.tar").touch()
    with contextlib.suppress(SystemExit, KeyError):
        run_main(monkeypatch, capsys, "stage", "")
    assert releases.complete_releases() == [OLD]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "the disk is full (/var/lib/decant/x). See what fills it"),
        (errno.EROFS, "the disk is mounted read-only (/var/lib/decant/x)."),
        (errno.EIO, None),
    ],
)
def test_a_full_or_read_only_disk_gets_an_error_without_traceback(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    text: str | None,
) -> None:
    def fail(release: str) -> None:
        raise OSError(number, "x", "/var/lib/decant/x")

    monkeypatch.setattr(commands, "expire", fail)
    if text is None:
        with pytest.raises(OSError, match="x"):
            run_main(monkeypatch, capsys, "expire", NEW)
    else:
        status, out, err = run_main(monkeypatch, capsys, "expire", NEW)
        assert (status, out) == (1, "")
        assert text in err


def test_a_full_disk_is_explained_although_the_error_names_no_file(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a write to an open file fails."""

    def fail(release: str) -> None:
        raise OSError(errno.ENOSPC, "x")

    monkeypatch.setattr(commands, "expire", fail)
    _, _, err = run_main(monkeypatch, capsys, "expire", NEW)
    assert "the disk is full (/var or /run)." in err


def test_the_help_lists_every_command_and_no_old_name() -> None:
    """Names as the coordinator, the steps and the units use them."""
    argv = [sys.executable, "-P", "-s", "-m", "decant_host", "--help"]
    done = subprocess.run(argv, env={"PYTHONPATH": str(INFRA)}, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^    ([a-z-]+)(?: |$)", done.stdout, re.MULTILINE)) == {
        "stage", "check-space", "prepare", "migrate", "switch", "extend", "confirm", "revert", "lease", "expire",
        "end-draining", "pre-stop", "drain", "boot", "status", "certificate", "certificate-run", "certificate-save",
        "certificate-restore", "logs", "overview", "run",
    }  # fmt: skip
    assert not re.search(r"\b(reap|close|leave|room)\b", done.stdout)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("reap", NEW), ("expire", NEW)),
        (("close", NEW), ("pre-stop", NEW)),
        (("leave",), ("drain",)),
        (("room", "1"), ("check-space", "1")),
    ],
    ids=["reap", "close", "leave", "room"],
)
def test_names_of_the_release_before_still_work(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: tuple[str, ...],
    new: tuple[str, ...],
) -> None:
    """Timers and units that an earlier version has set call them."""
    monkeypatch.setattr("decant_host.balancer.time.monotonic", lambda: 0.0)
    machine.add(NEW)
    assert run_main(monkeypatch, capsys, *old) == run_main(monkeypatch, capsys, *new)
    assert run_main(monkeypatch, capsys, *old)[0] == 0


def test_the_machine_in_memory_knows_every_module_and_path(machine: Machine) -> None:
    assert {p.stem for p in (INFRA / "decant_host").glob("*.py")} - {"__init__", "__main__"} == {
        module.__name__.rpartition(".")[2] for module in MODULES
    }
    found = {str(v) for m in MODULES for n, v in vars(m).items() if isinstance(v, Path) and n.isupper()}
    assert len(found) >= 10
    assert all(path.startswith(str(machine.root)) for path in found)
