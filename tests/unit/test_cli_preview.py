"""`make preview`: what it asks of Pulumi, what it shows and writes, and that no secret is in it."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, cast

import pytest

from decant.cli.preview import preview
from decant.cli.pulumi_cli import PulumiCli
from decant.deploy.contents import encode
from tests.support import preview_data as data
from tests.support.preview_data import LIVE, NEXT, cost

CANARY = "canary-\nin-two-lines"
STACK_URN = "urn:pulumi:dev::shop::pulumi:pulumi:Stack::shop-dev"


class Pulumi:
    """A stand-in for the CLI. Its preview writes the events and what the program tells."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.ran: list[tuple[str, tuple[str, ...]]] = []
        self.status = 0
        self.told: Mapping[str, Any] | None = data.preview(data.release(NEXT), cost=cost(12.0))
        self.messages: list[tuple[str, str]] = []
        self.printed = "+ something\n"
        self.folders: list[Path] = []
        self.config: dict[str, dict[str, Any]] = {
            "decant:cloud": {"value": "digitalocean"},
            "decant:secrets": {"value": json.dumps({"KEY": CANARY, "SHORT": "abc"}), "secret": True},
            "digitalocean:token": {"value": "dop_v1_canary", "secret": True},
        }

    def run(self, *argv: str) -> int:
        self._preview("run", argv)
        return self.status

    def run_and_keep(self, *argv: str, hide: Callable[[str], str]) -> tuple[int, str]:
        self._preview("keep", argv)
        kept = [hide(line) for line in self.printed.splitlines(keepends=True)]
        print("".join(kept), end="")
        return self.status, "".join(kept)

    def _preview(self, how: str, argv: tuple[str, ...]) -> None:
        self.ran.append((how, argv))
        if "--event-log" not in argv:
            return
        events = Path(argv[argv.index("--event-log") + 1])
        self.folders.append(events.parent)
        assert stat.S_IMODE(events.parent.stat().st_mode) == 0o700
        messages = [
            {"diagnosticEvent": {"severity": severity, "message": message, "urn": STACK_URN}}
            for severity, message in self.messages
        ]
        events.write_text("".join(json.dumps(message) + "\n" for message in messages))
        if self.told is not None:
            Path(self.environment["DECANT_PREVIEW_FILE"]).write_text(json.dumps(self.told))

    def outputs(self, stack: str) -> dict[str, Any]:
        assert stack == "dev"
        return {"release": LIVE, "cost": cost(6.0)}

    def read_config(self, stack: str) -> dict[str, dict[str, Any]]:
        assert stack == "dev"
        return self.config

    def capture(self, *argv: str) -> CompletedProcess[str]:
        assert argv == ("stack", "output", "contents", "--show-secrets", "--stack", "dev")
        return CompletedProcess(argv, 0, encode(data.record()) + "\n", "")


@pytest.fixture
def pulumi() -> Pulumi:
    return Pulumi()


def run(pulumi: Pulumi, *extra: str, file: Path | None = None) -> int:
    return preview(cast(PulumiCli, pulumi), "dev", extra, str(file) if file else None)


def test_pulumi_has_the_terminal_and_the_summary_follows(pulumi: Pulumi, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pulumi, "--refresh") == 0
    ((how, argv),) = pulumi.ran
    assert how == "run"
    assert argv[:4] == ("preview", "--stack", "dev", "--event-log")
    assert argv[5:] == ("--refresh",)
    assert pulumi.environment["PULUMI_DEBUG_COMMANDS"] == "true", "without it, Pulumi has no --event-log"
    out = capsys.readouterr().out
    assert "  Preview of stack dev\n" in out
    assert f"{LIVE} → {NEXT}" in out
    assert "6.00 USD → 12.00 USD a month (+6.00)" in out
    assert not pulumi.folders[0].exists(), "the log is not kept"


def test_markdown_holds_the_summary_and_pulumis_diff(
    pulumi: Pulumi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "preview.md"
    assert run(pulumi, "--refresh", file=file) == 0
    ((how, argv),) = pulumi.ran
    assert (how, argv[5:]) == ("keep", ("--diff", "--refresh"))
    text = file.read_text()
    assert text.startswith("## Preview of stack `dev`\n\n**A new release goes live.")
    assert f"`{LIVE}` → `{NEXT}`" in text
    assert "\n```text\n+ something\n```\n" in text
    assert "Preview of stack dev" in capsys.readouterr().out


def test_a_failed_preview_keeps_its_status_and_is_told(
    pulumi: Pulumi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pulumi.status, pulumi.told, pulumi.messages = 255, None, [("error", "1 problem in the settings")]
    file = tmp_path / "preview.md"
    assert run(pulumi, file=file) == 255
    for text in (file.read_text(), capsys.readouterr().out):
        assert "The preview failed." in text
        assert "1 problem in the settings" in text


def test_no_secret_is_shown_or_written(pulumi: Pulumi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Pulumi hides what it knows to be secret. A program's or provider's message may hold more."""
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "passphrase-canary")
    said = "refused: canary-\nin-two-lines, in-two-lines, dop_v1_canary, passphrase-canary; abc"
    pulumi.status, pulumi.printed, pulumi.messages = 1, said, [("error", said), ("warning", said)]
    file = tmp_path / "preview.md"
    run(pulumi, file=file)
    for text in (file.read_text(), capsys.readouterr().out):
        assert "canary" not in text
        assert "in-two-lines" not in text
        assert "refused: [secret], [secret], [secret], [secret]; abc" in text.replace("\\[", "[").replace("\\]", "]")


@pytest.mark.parametrize(
    "name", ["DIGITALOCEAN_TOKEN", "GITHUB_TOKEN", "AWS_SESSION_TOKEN", "AWS_SECRET_ACCESS_KEY",
             "SPACES_SECRET_ACCESS_KEY", "PULUMI_ACCESS_TOKEN", "DECANT_ID_TOKEN"],
)  # fmt: skip
def test_no_credential_of_the_environment_is_shown_or_written(
    pulumi: Pulumi, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A forge masks its secrets in the log and not in a comment; and what a role's login made, it does not know."""
    monkeypatch.setenv(name, "canary-of-ci")
    said = "401: Bearer canary-of-ci\n"
    pulumi.status, pulumi.printed, pulumi.messages = 1, said, [("error", said)]
    file = tmp_path / "preview.md"
    run(pulumi, file=file)
    for text in (file.read_text(), capsys.readouterr().out):
        assert "canary" not in text
        assert "401: Bearer [secret]" in text


def test_a_program_that_reads_json_gets_nothing_else(pulumi: Pulumi, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pulumi, "--json") == 0
    assert pulumi.ran == [("run", ("preview", "--stack", "dev", "--json"))]
    assert capsys.readouterr().out == ""


def test_a_stack_without_a_record(pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    failed: CompletedProcess[str] = CompletedProcess((), 1, "", "no output")
    monkeypatch.setattr(pulumi, "capture", lambda *argv: failed)
    run(pulumi)
    assert "Not compared" in capsys.readouterr().out
