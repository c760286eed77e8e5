"""Loading of a stack's settings: from Pulumi's configuration to checked settings, or to all of their problems."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pulumi

from decant.app.model import AppOptions
from decant.errors import Problem
from decant.settings.model import NAMESPACE, Clouds, Settings
from decant.settings.site_checks import check_site, site
from decant.settings.table import Table, settings_table
from decant.settings.validator import Validator, Values

_PREFIX = NAMESPACE + ":"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The result of checking a stack's settings: either `settings`, or None and at least one problem.

    `app_folder` and `app` say where the app is and how it is read. They are known although another setting has a
    problem, so that the app's problems can be reported together with those of the settings; `app_folder` is None where
    one of those that they come from is invalid.
    """

    stack: str
    settings: Settings | None
    problems: tuple[Problem, ...]
    app_folder: Path | None
    app: AppOptions


def load(clouds: Clouds, *, example_networks: Sequence[str] = ()) -> Checked:
    """The checked settings of the stack that Pulumi is running."""
    from pulumi.runtime import config as runtime

    everything = stored()
    encrypted = set(runtime.get_config_secret_keys_env())
    secret = {name for name in everything if runtime.is_config_secret(name) or name in encrypted}
    hidden = {
        name: pulumi.Output.secret(value) if name in secret and not name.startswith(_PREFIX) else value
        for name, value in everything.items()
    }
    return check_config(hidden, secret, stack=pulumi.get_stack(), clouds=clouds, example_networks=example_networks)


def check_config(
    config: Mapping[str, Any],
    secret: Collection[str],
    *,
    stack: str,
    clouds: Clouds,
    example_networks: Sequence[str] = (),
) -> Checked:
    """`check` for settings of all namespaces by their whole names, such as `decant:cloud`.

    `secret` are the names of those that are stored encrypted.
    """
    return check(
        {name.removeprefix(_PREFIX): value for name, value in config.items() if name.startswith(_PREFIX)},
        frozenset(name.removeprefix(_PREFIX) for name in secret if name.startswith(_PREFIX)),
        stack=stack,
        clouds=clouds,
        providers={name: value for name, value in config.items() if not name.startswith(_PREFIX)},
        example_networks=example_networks,
    )


def stored() -> dict[str, Any]:
    """All settings of the stack that Pulumi is running, by their whole names, secret ones in clear."""
    from pulumi.runtime import config as runtime

    return {**runtime.get_config_env(), **runtime.CONFIG.get()}


def check(
    raw: Mapping[str, Any],
    secret_names: frozenset[str],
    *,
    stack: str,
    clouds: Clouds,
    providers: Mapping[str, Any] = MappingProxyType({}),
    example_networks: Sequence[str] = (),
) -> Checked:
    """The settings of a stack, or all of their problems.

    `raw` maps the names of settings, without the namespace, to what Pulumi holds: text, and JSON for values with
    structure. `secret_names` are those that are stored encrypted. `providers` are the settings of other namespaces
    by their whole names. `example_networks` are networks that `adminCidrs` takes although they are for examples.
    """
    table = settings_table(clouds, example_networks=example_networks)
    validator = Validator(raw, secret_names, table)
    validator.check_names()
    values = validator.values()
    validator.check_cloud(values["cloud"], clouds, providers)
    validator.check_balancer(values)
    validator.check_variables(values)
    validator.check_review(stack, values)
    check_site(validator, values)
    settings = None
    if not validator.problems and values["cloud"] is not None:
        settings = _settings(stack, values["cloud"], values, clouds, providers, table)
    return Checked(
        stack=stack,
        settings=settings,
        problems=tuple(validator.problems),
        app_folder=None if validator.invalid & _APP_SETTINGS else _app_folder(values),
        app=_app_options(values),
    )


_APP_SETTINGS = {"app", "static", "wsgiApp", "python", "persistent", "env", "secrets"}


def _app_options(values: Values) -> AppOptions:
    return AppOptions(
        static=values["static"],
        wsgi_app=values["wsgiApp"],
        workers=values["workers"],
        python=values["python"],
        persistent=values["persistent"] or (),
        build=values["build"] is not None,
        env=values["env"] or {},
        secret_names=frozenset(values["secrets"] or {}),
    )


def _app_folder(values: Values) -> Path:
    return Path(values["app"] or "app")


def _settings(
    stack: str, cloud: str, values: Values, clouds: Clouds, providers: Mapping[str, Any], table: Table
) -> Settings:
    """Valid values as settings, with the cloud's defaults and those of every cloud filled in."""
    defaults = clouds[cloud].defaults
    values = cast(Values, {k: defaults.get(k) if value is None else value for k, value in values.items()})
    machines = values["machines"] or 1
    return Settings(
        stack=stack,
        cloud=cloud,
        machines=machines,
        balancer=machines > 1 if values["balancer"] is None else values["balancer"],
        size=values["size"] or "",
        region=values["region"] or "",
        image=values["image"] or "",
        cpu_credits=values["cpuCredits"],
        admin_cidrs=values["adminCidrs"] or (),
        hosts=values["hosts"] or (),
        harden=bool(values["harden"]),
        trusted_proxies=values["trustedProxies"] or (),
        url=values["url"],
        site=site(values),
        app_folder=_app_folder(values),
        app=_app_options(values),
        build=values["build"],
        python_mirror=values["pythonMirror"],
        max_body=values["maxBody"] or 16 << 20,
        request_timeout=values["requestTimeout"],
        health_path=values["healthPath"],
        health_timeout=values["healthTimeout"] or 60,
        workers=values["workers"],
        threads=values["threads"],
        rollout=values["rollout"] or "serial",
        release=values["release"],
        review=values["review"],
        warnings=tuple(_warnings(values, table)),
        provider={k.partition(":")[2]: v for k, v in providers.items() if k.startswith(f"{cloud}:")},
        env=values["env"] or {},
        secrets=values["secrets"] or {},
        ssh_private_key=values["sshPrivateKey"],
    )


def _warnings(values: Values, table: Table) -> list[str]:
    hosts = values["hosts"] or ()
    count = max(values["machines"] or 1, len(hosts))
    warnings = []
    if count > 1:
        warnings.append(
            f"{count} machines: what the app writes to $DATA_DIR stays on the machine that wrote it;"
            " keep what all of them need in a database"
        )
    if len(hosts) > 1 and not values["url"]:
        warnings.append(
            f"{len(hosts)} hosts and no {NAMESPACE}:url: the URL is the address of one of them. With a load balancer"
            f" of yours before them: {table['url'].command} and {table['trustedProxies'].command}"
        )
    if (values["url"] or "").startswith("https:") and not values["trustedProxies"]:
        warnings.append(
            f"{NAMESPACE}:url is https and {NAMESPACE}:trustedProxies is empty: the app takes every visit for http."
            f" Name the proxy that ends TLS: {table['trustedProxies'].command}"
        )
    return warnings
