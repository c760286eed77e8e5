"""`make drift`: whether what runs is what the state says, the stack can be deployed, and its certificate lasts."""

from __future__ import annotations

import datetime
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from decant.app.files import escaped
from decant.cli.check_account import check_account, table
from decant.cli.hiding import hide, secret_texts
from decant.cli.https import current_certificate, route
from decant.cli.pulumi_cli import PulumiCli, accesses
from decant.clouds.checks import Check
from decant.errors import DecantError, MachineError, StackError
from decant.rollout.certificate import ending_soon
from decant.rollout.http_probe import port_of, probe
from decant.rollout.route import Route
from decant.ssh.machine_client import status

LONGEST_DIFF = 30_000
"""Characters of Pulumi's own diff in the report. A forge takes 65,536 for an issue."""

FEWEST_DAYS = 14
"""With fewer days left, a certificate is reported; a short one with a third of its lifetime left, as it is due then."""

TLS_TIMEOUT = 15.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found. `diff` is what Pulumi says of resources that differ from the state; empty where none does."""

    stack: str
    checks: tuple[Check, ...]
    diff: str

    @property
    def wrong(self) -> list[str]:
        """The subjects of all answers that are "no"."""
        return [check.subject for check in self.checks if check.blocks]

    @property
    def text(self) -> str:
        """The report for a terminal."""
        return table(f"Stack {self.stack}, compared with its state", self.checks, None)

    @property
    def markdown(self) -> str:
        """The report for an issue."""
        lines = [f"## Stack {self.stack}", "", self.verdict, "", *_block(self.text)]
        if self.diff:
            shown = self.diff[:LONGEST_DIFF]
            lines += ["", "<details><summary>What differs, in Pulumi's words</summary>", "", *_block(shown)]
            if len(self.diff) > len(shown):
                lines += ["", f"{len(self.diff) - len(shown)} more characters are left out: `make drift` shows them."]
            lines += ["", "</details>"]
        return "\n".join([*lines, ""])

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.wrong:
            return f"Stack {self.stack} is as its state says, and can be deployed."
        return f"Stack {self.stack} is not as its state says, or cannot be deployed: see {', '.join(self.wrong)}."


def drift(cli: PulumiCli, stack: str, markdown: Path | None, *, reads_only: bool = False) -> None:
    """Print what differs from the stack's state, and write the same as Markdown to a file. Changes nothing.

    `reads_only`: the credentials may read alone, so only that is asked of the account.

    Raises:
        StackError: something differs or ends soon, or nothing was released yet.
    """
    outputs = cli.outputs(stack)
    if "release" not in outputs:
        raise StackError(f"Stack {stack} has no release in its state, so nothing can differ: make up STACK={stack}")
    resources, diff = _compare_resources(cli, stack)
    way = route(cli, stack, outputs)
    checks = (
        resources,
        _account(cli, stack, reads_only=reads_only),
        _site(stack, outputs, way),
        *_machines(cli, stack, str(outputs["release"])),
        *_certificate(cli, stack, outputs, way),
    )
    # The cloud's own values come without the marks by which Pulumi knows secrets.
    secrets = secret_texts(cli.read_config(stack))
    checks = tuple(replace(check, detail=hide(check.detail, secrets)) for check in checks)
    report = Report(stack=stack, checks=checks, diff=hide(diff, secrets))
    print(f"{report.diff}\n{report.text}" if report.diff else report.text, flush=True)
    if markdown:
        markdown.write_text(report.markdown, encoding="utf-8")
    if report.wrong:
        raise StackError(report.verdict)


def _compare_resources(cli: PulumiCli, stack: str) -> tuple[Check, str]:
    """Whether the clouds have what the state says, and Pulumi's diff if not."""
    # A preview of a refresh reads the resources, runs nothing of the program, and writes no state.
    command = ("refresh", "--preview-only", "--expect-no-changes", "--diff", "--suppress-progress", "--color=never")
    done = cli.capture(*command, "--stack", stack)
    if done.returncode == 0:
        return Check(subject="resources", answer="yes", detail="each is as in the state"), ""
    said = f"{done.stdout.strip()}\n{done.stderr.strip()}".strip()
    if "no changes were expected" not in said:  # Pulumi's own words for --expect-no-changes
        last = said.splitlines()[-1].strip() if said else f"exit status {done.returncode}"
        detail = f"they could not be read: {escaped(last)}"
        return Check(subject="resources", answer="no", detail=detail, fix=f"pulumi refresh --stack {stack}"), said
    counted = re.findall(r"^ *[-+~]+ (\d+) to (\w+)", said, re.MULTILINE)
    found = ", ".join(f"{number} to {verb}" for number, verb in counted) or "changes"
    return Check(
        subject="resources",
        answer="no",
        detail=f"they are not as in the state: {found}. Somebody changed them elsewhere; the diff shows what",
        fix=f"make up STACK={stack} ARGS=--refresh   (puts back what the settings say)",
    ), said


def _account(cli: PulumiCli, stack: str, *, reads_only: bool) -> Check:
    """Whether the account can still make the stack. The details are printed."""
    try:
        check_account(cli, stack, reads_only=reads_only)
    except DecantError as error:
        detail = " ".join(escaped(line).strip() for line in str(error).splitlines())
        return Check(subject="account", answer="no", detail=detail, fix=f"make check-account STACK={stack}")
    return Check(subject="account", answer="yes", detail="the stack can be deployed")


def _site(stack: str, outputs: Mapping[str, Any], way: Route) -> Check:
    """Whether the public URL gives the release that the state names."""
    url, release = str(outputs["url"]), str(outputs["release"])
    result = probe(url + "/", route=way)
    if result.release == release:
        return Check(subject="site", answer="yes", detail=f"{url}/ gives release {release}")
    source = f" from release {escaped(result.release)}" if result.release else ""
    return Check(
        subject="site",
        answer="no",
        detail=f"{url}/ gives {escaped(result.why)}{source}, not release {release}",
        fix=f"make up STACK={stack} ARGS=\"--replace '**rollout'\"",
    )


def _machines(cli: PulumiCli, stack: str, release: str) -> Iterator[Check]:
    """Whether each machine lets us log in, and has the release live and for its next boot."""
    for access in accesses(cli, stack):
        try:
            found = status(access)
        except (MachineError, ValueError) as error:
            fix = "is SSH open to this computer (decant:adminCidrs, or make ssh-open in CI)? docs/ssh.md"
            yield Check(subject=access.name, answer="no", detail=escaped(str(error)), fix=fix)
            continue
        parts = {"live": found["current"], "for the next boot": found["persisted"]}
        others = [f"{value or 'nothing'} is {part}" for part, value in parts.items() if value != release]
        if found["lease"] is not None:
            yield Check(subject=access.name, answer="unknown", detail="a deploy is under way")
        elif others:
            detail = f"{' and '.join(others)}, not release {release}"
            fix = f"make up STACK={stack} ARGS=\"--replace '**rollout'\""
            yield Check(subject=access.name, answer="no", detail=detail, fix=fix)
        else:
            yield Check(subject=access.name, answer="yes", detail=f"release {release} is live and for the next boot")


def _certificate(cli: PulumiCli, stack: str, outputs: Mapping[str, Any], way: Route) -> Iterator[Check]:
    """Whether the certificate lasts; nothing for a site over plain HTTP."""
    fix = f"docs/domain.md; then make up STACK={stack}"
    overdue = ending_soon(current_certificate(cli, stack, outputs))
    if overdue:
        yield Check(subject="renewal", answer="no", detail=escaped(overdue.text), fix=fix)
    url = str(outputs["url"])
    if not url.startswith("https://"):
        return
    try:
        begins, ends = served_certificate(url, way)
    except OSError as error:
        yield Check(subject="certificate", answer="no", detail=f"{url} shows none: {escaped(str(error))}", fix=fix)
        return
    now = datetime.datetime.now(datetime.UTC)
    days, lifetime = (ends - now).days, (ends - begins).days
    enough = days >= min(FEWEST_DAYS, lifetime / 3)
    detail = f"valid for {days} days, until {ends:%Y-%m-%d}"
    yield Check(subject="certificate", answer="yes" if enough else "no", detail=detail, fix="" if enough else fix)


def served_certificate(url: str, way: Route) -> tuple[datetime.datetime, datetime.datetime]:
    """From when until when the certificate is valid that a URL shows.

    Raises:
        OSError: nobody answers, or the certificate is not valid for the URL's name.
    """
    name = urlsplit(url).hostname or ""
    context = ssl.create_default_context()
    if way.root:
        context.load_verify_locations(cadata=way.root)
    with (
        socket.create_connection((way.connect_to or name, port_of(url)), timeout=TLS_TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        shown: Mapping[str, Any] = secured.getpeercert() or {}
    begins, ends = (
        datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown[key])), datetime.UTC)
        for key in ("notBefore", "notAfter")
    )
    return begins, ends


def _block(text: str) -> list[str]:
    """A code block that holds any text: its fence is longer than each row of backticks in it."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return [fence, text, fence]
