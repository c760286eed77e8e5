"""What `make up` prints after Pulumi has run: the summary, or what to do after a failure."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from decant.cli.https import certificate_lines, current_certificate, route
from decant.cli.pulumi_cli import PulumiCli
from decant.cli.summary import summary
from decant.errors import NotServingError, StackError
from decant.rollout.certificate import ending_soon

GONE_HELP = """If a host is gone for good, its cleanup cannot run. These two commands take it out of the state:
    pulumi state delete --stack {stack} --target-dependents --yes '{urn}'
    make {verb} STACK={stack}"""


def show_summary(cli: PulumiCli, stack: str, seconds: float, before: Mapping[str, Any]) -> None:
    """Ask the stack's URL and print what answered. `before` are the stack's outputs before the command.

    Raises:
        StackError: the URL does not give the release that the stack's outputs name, or its certificate ends soon; the
            message says what to do.
    """
    outputs = cli.outputs(stack)
    certificate = current_certificate(cli, stack, outputs)
    lines = [
        *certificate_lines(certificate, outputs),
        *cost_line(outputs, before),
        ("log in", f"pulumi stack output ssh --show-secrets --stack {stack}   (docs/ssh.md)"),
        ("go back", f"make rollback STACK={stack}   (RELEASE=id for an older one)"),
        ("destroy", f"make destroy STACK={stack}"),
    ]
    try:
        way = route(cli, stack, outputs)
        print(summary(outputs=outputs, title=f"Stack {stack} is live.", lines=lines, seconds=seconds, route=way))
    except NotServingError as error:
        if error.release:
            fix = (
                "  Pulumi compares with its own record alone, and what is live was changed elsewhere: from another\n"
                f"  state, or by hand. To put yours live again: make up STACK={stack} ARGS=\"--replace '**rollout'\""
            )
        else:
            fix = (
                "  Is the URL open to this computer? Does the front page answer within 5 s?\n"
                f"  To ask again: make up STACK={stack}"
            )
        raise StackError(f"{error}.\n{fix}") from None
    ending = ending_soon(certificate)
    if ending and ending.fails:
        raise StackError(ending.text)


def cost_line(outputs: Mapping[str, Any], before: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The summary's line on what the stack costs, with what it cost before; none where a cloud costs nothing."""
    cost = outputs.get("cost")
    if not cost:
        return []
    now, then = cost["usdPerMonth"], (before.get("cost") or {}).get("usdPerMonth")
    text = f"about {now:.2f} USD a month" if now is not None else "a sum that is not in the price list"
    if now is not None and then is not None and now != then:
        text += f", {now - then:+.2f} by this up"
    return [("cost", f"{text} (list prices of {cost['pricesOf']}; make check-account has the details)")]


def explain_failure(cli: PulumiCli, stack: str, verb: str) -> None:
    """After `up` or `destroy` has failed: print how to let go of a host that does not answer any more.

    After a failed `up` this concerns only hosts that have gone from `decant:hosts`.
    """
    try:
        resources = cli.resources(stack)
    except StackError:
        return
    kept: set[str] = set()
    if verb != "destroy":
        result = cli.capture("config", "get", "decant:hosts", "--stack", stack)
        hosts = json.loads(result.stdout or "[]") if result.returncode == 0 else []
        kept = {f"{host.get('name', host.get('address'))}-cleanup" for host in hosts}
    for urn in (resource["urn"] for resource in resources if resource["urn"].endswith("-cleanup")):
        if urn.rpartition("::")[2] not in kept:
            print(f"\n{GONE_HELP.format(stack=stack, urn=urn, verb=verb)}", file=sys.stderr)
