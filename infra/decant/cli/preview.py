"""`make preview`: Pulumi's own preview, and what it means in words, for the terminal and for a comment."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from decant.cli.pulumi_cli import PulumiCli
from decant.deploy.contents import OUTPUT, PREVIEW_VARIABLE, Record, decode, read_preview
from decant.errors import StackError
from decant.preview import markdown, terminal
from decant.preview.events import Diagnostic, Events, read_events
from decant.preview.summary import Previewed, Summary, summarize
from decant.settings.model import NAMESPACE
from decant.settings.project import PROJECT

HIDDEN = "[secret]"
CREDENTIALS = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSPHRASE|_KEY)$")
"""Variables of the environment with credentials, such as DIGITALOCEAN_TOKEN. A forge masks them in logs, and not in
comments."""
SHORTEST = 6
"""Characters of a secret that is looked for in what is shown. A shorter one would be found inside of words."""


def preview(cli: PulumiCli, stack: str, extra: Sequence[str], file: str | None) -> int:
    """Run Pulumi's preview, print the summary, and return Pulumi's exit status.

    `file` gets the same as Markdown, with what Pulumi printed. Without it, Pulumi has the terminal for itself.

    Raises:
        StackError: the state or the settings cannot be read, or the file cannot be written.
    """
    if {"--json", "-j"} & set(extra):  # for a program, which reads nothing else
        return cli.run("preview", "--stack", stack, *extra)
    settings, outputs, record = cli.read_config(stack), cli.outputs(stack), _record(cli, stack)
    secrets = _secrets(settings)
    with tempfile.TemporaryDirectory() as folder:
        events, told = Path(folder) / "events", Path(folder) / "told"
        # Pulumi has the option --event-log only with this variable; its Automation API sets both.
        cli.environment |= {"PULUMI_DEBUG_COMMANDS": "true", PREVIEW_VARIABLE: str(told)}
        argv = ("preview", "--stack", stack, "--event-log", str(events))
        if file is None:
            status, output = cli.run(*argv, *extra), ""
        else:
            status, output = cli.run_and_keep(*argv, "--diff", *extra, hide=lambda line: _hide(line, secrets))
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
        write(file, markdown.render(summary, _hide(output, secrets)))
    return status


def tell_failure(stack: str, file: str, error: str) -> None:
    """Write the Markdown of a preview that could not begin. A file that cannot be written is told, too."""
    failed = Diagnostic(severity="error", message=error)
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


def _secrets(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All secret texts of the stack's settings and of the environment, the longest first. None of them may be shown."""
    values = [entry.get("value") for entry in settings.values() if entry.get("secret")]
    values += [value for name, value in os.environ.items() if CREDENTIALS.search(name)]
    texts = {text for value in values for text in _texts(value)}
    lines = {line for text in texts for line in text.splitlines()}
    return sorted((text for text in texts | lines if len(text) >= SHORTEST), key=len, reverse=True)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a setting's value, which is JSON where it has structure."""
    if isinstance(value, str):
        yield value.strip()
        try:
            inner = json.loads(value)
        except ValueError:
            return
        if not isinstance(inner, str):
            yield from _texts(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _hide(text: str, secrets: Sequence[str]) -> str:
    """A text without secrets. Pulumi hides what it knows to be secret; this is for what it does not know of."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def _hidden(summary: Summary, secrets: Sequence[str]) -> Summary:
    sections = (
        replace(
            section,
            lines=tuple(_hide(line, secrets) for line in section.lines),
            blocks=tuple(_hide(block, secrets) for block in section.blocks),
        )
        for section in summary.sections
    )
    return replace(summary, sections=tuple(sections))
