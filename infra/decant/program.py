"""Decant's Pulumi program: from the settings and the app to machines, a rollout and the stack's outputs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pulumi

from decant import clouds
from decant.app.archive import pack
from decant.app.build import built_app
from decant.app.folder import read_app
from decant.app.model import App, Bundle
from decant.app.summary import describe
from decant.clouds.costs import Cost
from decant.deploy.contents import OUTPUT, read_contents, recorded, tell_preview
from decant.deploy.release import CACHE, Release, request_timeout
from decant.deploy.rollout_step import Rollout
from decant.deploy.site import orders_certificate
from decant.deploy.steps import prepare
from decant.errors import AppError, DecantError, Problem, SettingsError
from decant.rollout.certificate import record_type
from decant.settings.load import Checked, load, stored
from decant.settings.model import NAMESPACE, Settings
from decant.settings.site import is_apex
from decant.settings.validator import shown

# Pulumi starts the program in infra/ (see `main` in Pulumi.yaml); the project is the folder above.
PROJECT = ".."


def run(*, example_networks: Sequence[str] = (), extra_names: Sequence[str] = ()) -> None:
    """Run the program for the stack that Pulumi has selected. The current folder is the project's infra/.

    `example_networks` are networks reserved for examples that `decant:adminCidrs` takes all the same: a rehearsal's
    machines have such addresses. `extra_names` are host names that machines answer to besides those of the site.

    Raises:
        pulumi.RunError: in place of every DecantError, because Pulumi prints its text without a traceback.
    """
    _exit_quietly_on_interrupt()
    try:
        settings, app, bundle = read_stack(example_networks)
        settings = replace(settings, extra_names=tuple(extra_names))
        cost = clouds.monthly_cost(settings)
        _report(settings, app, cost)
        _deploy(settings, app, bundle, cost)
    except DecantError as error:
        raise pulumi.RunError(str(error)) from None


def read_stack(example_networks: Sequence[str] = ()) -> tuple[Settings, App, Bundle]:
    """The stack's settings and its app. Nothing is registered with Pulumi yet.

    Raises:
        SettingsError: with the problems of the settings and of the app together.
    """
    checked = load(clouds.specs(), example_networks=example_networks)
    problems = list(checked.problems)
    app, bundle = None, None
    if checked.app_folder is not None:
        try:
            app = read_app(_app_folder(checked, checked.app_folder), checked.app)
            bundle = pack(app, Path(CACHE))
        except AppError as error:
            problems += app_problems(error, str(checked.app_folder))
    if app is not None and checked.settings is not None:
        problems += _slower_than_the_balancer(checked.settings, app)
        problems += _without_certificate(checked.settings)
    if problems or checked.settings is None or app is None or bundle is None:
        raise SettingsError(checked.stack, problems)
    return checked.settings, app, bundle


def app_problems(error: AppError, folder: str) -> list[Problem]:
    """The problems of an app folder as those of the setting that names it."""
    name = f"{NAMESPACE}:{error.setting}"
    return [Problem(setting=name, value=shown(folder), expected=text, fix=fix) for text, fix in error.problems]


def _slower_than_the_balancer(settings: Settings, app: App) -> list[Problem]:
    """A time-out for requests that the cloud's load balancer does not wait for: visitors would see its 504 before."""
    longest = clouds.specs()[settings.cloud].longest_balanced_request
    seconds = request_timeout(settings, app.web)
    if not settings.balancer or longest is None or seconds <= longest:
        return []
    name = f"{NAMESPACE}:requestTimeout"
    allowed = f"the load balancer of {settings.cloud} waits {longest} seconds at most"
    return [Problem(setting=name, value=str(seconds), expected=allowed, fix=f"pulumi config set {name} {longest}")]


def _without_certificate(settings: Settings) -> list[Problem]:
    """Names for which the cloud's load balancer gets no certificate, because their DNS is not the cloud's."""
    site, spec = settings.site, clouds.specs()[settings.cloud]
    if not spec.certificates_need_zone or not settings.balancer or not site.https or site.certificate:
        return []
    outside = site.names_outside_zone
    if not outside:
        return []
    own = f"with a certificate of yours: set {NAMESPACE}:certificate and {NAMESPACE}:certificateKey"
    reason = f"the load balancer of {settings.cloud} gets certificates only for names in the cloud's own DNS"
    if site.dns_zone is None:
        fix = f"pulumi config set {NAMESPACE}:dnsZone ZONE, where the account has it; or {own}"
        return [Problem(setting=f"{NAMESPACE}:domain", value=shown(outside[0]), expected=reason, fix=fix)]
    fix = f"pulumi config set {NAMESPACE}:redirects '[...]' without {' and '.join(outside)}; or {own}"
    value = json.dumps(outside) if len(outside) > 1 else shown(outside[0])
    expected = f"must be in {NAMESPACE}:dnsZone {site.dns_zone}: {reason}"
    return [Problem(setting=f"{NAMESPACE}:redirects", value=value, expected=expected, fix=fix)]


def _apex_without_address(settings: Settings) -> list[str]:
    """A warning of a name that can lead to the cloud's load balancer at few DNS hosts only."""
    site = settings.site
    if not site.domain or site.in_zone(site.domain) or not settings.balancer or not is_apex(site.domain):
        return []
    if not clouds.specs()[settings.cloud].balancer_has_no_address:
        return []
    return [
        f"{NAMESPACE}:domain is {site.domain}: the load balancer of {settings.cloud} has a name and no fixed address,"
        " and most DNS hosts let a domain itself lead to addresses alone. Where yours has no ALIAS or ANAME records:"
        f" pulumi config set {NAMESPACE}:domain www.{site.domain} --stack {settings.stack}"
    ]


def _app_folder(checked: Checked, folder: Path) -> Path:
    """The app folder, or a copy in which decant:build has run. A build waits until the settings are right."""
    project = Path(PROJECT).resolve()
    command = checked.settings.build if checked.settings else None
    if command is None or not (project / folder).is_dir():
        return project / folder
    return built_app(project / folder, command, checked.app, project / ".decant", pulumi.log.info)


def _report(settings: Settings, app: App, cost: Cost | None) -> None:
    """Say what was understood of the app, and warn of what may be wrong."""
    if not settings.release:  # else another release than the folder's is served
        pulumi.log.info("\n".join(describe(app, build=settings.build)))
    for warning in (*app.warnings, *settings.warnings, *_apex_without_address(settings)):
        pulumi.log.warn(warning)
    if cost and pulumi.runtime.is_dry_run():
        pulumi.log.info(f"The stack costs {cost}")
    if settings.release:
        pulumi.log.warn(
            f"decant:release keeps this stack on release {settings.release}: changes in the app folder and its"
            " settings wait. To deploy them: pulumi config rm decant:release"
        )


def _deploy(settings: Settings, app: App, bundle: Bundle, cost: Cost | None) -> None:
    cloud = clouds.create(settings)
    key = cloud.machines[0].private_key
    release = Release(settings, app, bundle, key)
    contents = read_contents(app, release, stored())
    tell_preview(contents, key, cost.output() if cost else None)
    prepared = prepare(cloud, settings, release)
    live = Rollout("rollout", cloud, settings, release, prepared)
    pulumi.export("url", live.url)
    pulumi.export("release", live.release)
    pulumi.export("machines", live.machines)
    pulumi.export("receipt", live.receipt)
    if settings.site.domain:
        pulumi.export("dns", cloud.address.apply(partial(_dns, settings)))
    itself = orders_certificate(settings, cloud)
    if itself or (cloud.balancer and cloud.balancer.renewal):
        pulumi.export("certificate", live.certificate)
    if itself:
        pulumi.export("savedCertificate", live.saved_certificate)
    if cloud.missing_records:
        pulumi.export("recordsToSet", cloud.missing_records)
    pulumi.export("ssh", live.ssh)
    pulumi.export(OUTPUT, recorded(contents, key, live.release))
    if cost:
        pulumi.export("cost", cost.output())


def _dns(settings: Settings, address: str) -> dict[str, Any]:
    """The DNS records that lead the site's names to the stack."""
    return {"names": list(settings.site.names), "type": record_type(address), "value": address}


def _exit_quietly_on_interrupt() -> None:
    """When a step fails, Pulumi interrupts this program; a traceback would hide the step's own message."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(1))
