"""`make preview`: Pulumi's own preview, and what it means in words, for the terminal and for a comment."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from decant.cli.hiding import hide, secret_texts
from decant.cli.pulumi_cli import PulumiCli
from decant.deploy.contents import OUTPUT, PREVIEW_VARIABLE, Record, decode, read_preview
from decant.errors import StackError
from decant.preview import markdown, terminal
from decant.preview.events import Diagnostic, Events, read_events
from decant.preview.summary import Previewed, Summary, summarize
from decant.settings.model import NAMESPACE
from decant.settings.project import PROJECT


def preview(cli: PulumiCli, stack: str, extra: Sequence[str], file: str | None) -> int:
    """Run Pulumi's preview, print the summary, and return Pulumi's exit status.

    `file` gets the same as Markdown, with what Pulumi printed. Without it, Pulumi has the terminal for itself.

    Raises:
        StackError: the state or the settings cannot be read, or the file cannot be written.
    """
    if {"--json", "-j"} & set(extra):  # for a program, which reads nothing else
        return cli.run("preview", "--stack", stack, *extra)
    settings, outputs, record = cli.read_config(stack), cli.outputs(stack), _record(cli, stack)
    secrets = secret_texts(settings)
    with tempfile.TemporaryDirectory() as folder:
        events, told = Path(folder) / "events", Path(folder) / "told"
        # Pulumi has the option --event-log only with this variable; its Automation API sets both.
        cli.environment |= {"PULUMI_DEBUG_COMMANDS": "true", PREVIEW_VARIABLE: str(told)}
        argv = ("preview", "--stack", stack, "--event-log", str(events))
        if file is None:
            status, output = cli.run(*argv, *extra), ""
        else:
            status, output = cli.run_and_keep(*argv, "--diff", *extra, hide=lambda line: hide(line, secrets))
        known = Previewed(
            stack=stack,
            cloud=str(settings.get(f"{NAMESPACE}:cloud", {}).get("value", "")),
            failed=status != 0,
            output=output,
            events=read_events(events),
            preview=read_preview(told),
            record=record,
            live=outputs.get("release"),
            cost=outputs.get("cost"),
        )
    summary = _hidden(summarize(known), secrets)
    print(f"\n{terminal.render(summary)}", flush=True)
    if file is not None:
        write(file, markdown.render(summary, output))
    return status


def tell_failure(stack: str, file: str, error: str) -> None:
    """Write the Markdown of a preview that could not begin. A file that cannot be written is told, too."""
    failed = Diagnostic(severity="error", message=hide(error, secret_texts({})))
    known = Previewed(
        stack=stack, cloud="", failed=True, output="", events=Events(diagnostics=(failed,)), preview=None, record=None,
        live=None,
    )  # fmt: skip
    try:
        write(file, markdown.render(summarize(known)))
    except StackError as unwritten:
        print(f"\n{unwritten}", file=sys.stderr)


def write(file: str, text: str) -> None:
    """Write the file, whose path is relative to the project. Raises StackError."""
    try:
        (PROJECT / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StackError(
            f"MARKDOWN is {file}: it cannot be written ({error.strerror or error}).\n"
            "  Name a file in a folder that exists: make preview MARKDOWN=preview.md"
        ) from None


def _record(cli: PulumiCli, stack: str) -> Record | None:
    """What the last `up` has recorded of the release; None where it recorded nothing."""
    result = cli.capture("stack", "output", OUTPUT, "--show-secrets", "--stack", stack)
    return decode(result.stdout.strip()) if result.returncode == 0 else None


def _hidden(summary: Summary, secrets: Sequence[str]) -> Summary:
    sections = (
        replace(
            section,
            lines=tuple(hide(line, secrets) for line in section.lines),
            blocks=tuple(hide(block, secrets) for block in section.blocks),
        )
        for section in summary.sections
    )
    return replace(summary, sections=tuple(sections))
