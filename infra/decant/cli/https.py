"""HTTPS around Pulumi's own commands: what the machine's certificate is like now, and keeping it over a destroy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from decant.cli.pulumi_cli import PulumiCli, accesses
from decant.errors import MachineError, StackError
from decant.rollout.certificate import SiteCertificate, describe, ending_soon
from decant.rollout.route import Route, route_to
from decant.rollout.shown_certificate import shown_certificate
from decant.settings.model import NAMESPACE
from decant.ssh.machine_client import save_certificate, status

KEPT = f"{NAMESPACE}:savedCertificate"
"""The setting that keeps a certificate from one machine to the next."""


def current_certificate(cli: PulumiCli, stack: str, outputs: Mapping[str, Any]) -> SiteCertificate | None:
    """What the site's certificate is like now: the machine says it, and a load balancer shows it.

    Both renew by themselves, so the outputs may be months old; they are the answer where nobody else gives one. None:
    the site gets no certificate.
    """
    recorded: SiteCertificate | None = outputs.get("certificate")
    if recorded is None:
        return None
    if renewal := recorded.get("renewal"):
        return shown_certificate(outputs["dns"]["value"], renewal, _private_root(cli, stack)) or recorded
    try:
        (machine,) = accesses(cli, stack)
        found = status(machine).get("https")
    except (StackError, MachineError, ValueError):
        return recorded
    return cast("SiteCertificate", found) if found else recorded


def notice_https(cli: PulumiCli, stack: str, outputs: Mapping[str, Any]) -> list[str]:
    """The options of an `up` that runs the rollout again because HTTPS has come since the last one.

    The stack's `url` is then the one that was asked over HTTPS. `outputs` are the stack's, before the `up`.
    """
    if not str(outputs.get("url", "")).startswith("http://"):
        return []
    found = current_certificate(cli, stack, outputs)
    if found is None or found["state"] != "live":
        return []
    print("HTTPS works now: the rollout asks the site over it, and the stack's url becomes https.", flush=True)
    return ["--replace", "**rollout"]


def route(cli: PulumiCli, stack: str, outputs: Mapping[str, Any]) -> Route:
    """The way to the stack's URL: pinned until the site's name leads there, with the root of a private authority."""
    return site_route(outputs, _private_root(cli, stack) if outputs.get("dns") else None)


def _private_root(cli: PulumiCli, stack: str) -> str | None:
    """The PEM of a private authority's root; None where there is none."""
    root: str | None = cli.settings(stack).get(f"{NAMESPACE}:acmeRoot")
    return root


def site_route(outputs: Mapping[str, Any], root: str | None) -> Route:
    """The same for outputs whose private root is known."""
    records = outputs.get("dns")
    return route_to(records["names"][0], records["value"], root) if records else Route(root=root)


def certificate_lines(found: SiteCertificate | None, outputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows of a summary about HTTPS; none where the site gets no certificate."""
    if found is None:
        return []
    address = (outputs.get("dns") or {}).get("value") or outputs["machines"][0]["address"]
    lines = describe(found, address)
    if ending := ending_soon(found):
        lines.append(ending.text)
    return [("https" if first else "", line) for first, line in zip([True, *[False] * len(lines)], lines, strict=False)]


def find_to_keep(cli: PulumiCli, stack: str) -> str | None:
    """The machine's certificate with its key, for `keep`; else what the last rollout saved; None for neither.

    A load balancer's is the cloud's: it goes with the balancer.
    """
    known: SiteCertificate | None = cli.outputs(stack).get("certificate")
    if known is None or "renewal" in known:
        return None
    try:
        (machine,) = accesses(cli, stack)
        return save_certificate(machine)
    except (StackError, MachineError, ValueError):
        recorded = cli.capture("stack", "output", "savedCertificate", "--show-secrets", "--stack", stack)
        return recorded.stdout.strip() or None if recorded.returncode == 0 else None


def keep(cli: PulumiCli, stack: str, saved: str | None) -> None:
    """Keep a certificate, encrypted, in the stack's settings, and say so. Raises StackError."""
    if not saved:
        return
    cli.set_secret(stack, KEPT, saved)
    print(
        f"\nThe site's certificate is kept, encrypted, as {KEPT} in Pulumi.{stack}.yaml: the next `make up` goes on"
        f" with it.\nTo forget it: pulumi config rm {KEPT} --stack {stack}"
    )
