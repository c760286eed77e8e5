"""The validator of a stack's settings: it checks values and the rules across settings, and keeps every problem."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from decant.errors import InvalidValueError, Problem
from decant.settings.model import NAMESPACE, REVIEW_TEMPLATE, Clouds, Host, Review, is_review_stack
from decant.settings.table import Table


class Values(TypedDict):
    """Checked values by the names of their settings; None where the stack leaves a setting out or it is invalid."""

    cloud: str | None
    machines: int | None
    size: str | None
    region: str | None
    image: str | None
    balancer: bool | None
    cpuCredits: str | None
    adminCidrs: tuple[str, ...] | None
    hosts: tuple[Host, ...] | None
    sshPrivateKey: str | None
    harden: bool | None
    trustedProxies: tuple[str, ...] | None
    url: str | None
    domain: str | None
    redirects: tuple[str, ...] | None
    dnsZone: str | None
    https: str | None
    hsts: bool | None
    email: str | None
    acmeServer: str | None
    acmeRoot: str | None
    resolvers: tuple[str, ...] | None
    certificate: str | None
    certificateKey: str | None
    savedCertificate: str | None
    app: str | None
    static: str | None
    wsgiApp: str | None
    python: str | None
    pythonMirror: str | None
    build: str | None
    persistent: tuple[str, ...] | None
    env: dict[str, str] | None
    secrets: dict[str, str] | None
    healthPath: str | None
    healthTimeout: int | None
    maxBody: int | None
    requestTimeout: int | None
    workers: int | None
    threads: int | None
    rollout: str | None
    release: str | None
    review: Review | None


class Validator:
    """Checks the settings of one stack and keeps every problem, so that all are reported at once."""

    def __init__(self, raw: Mapping[str, Any], secret_names: frozenset[str], table: Table) -> None:
        """`raw` maps names to what Pulumi holds; `secret_names` are those that are stored encrypted."""
        self.raw = raw
        self.secret_names = secret_names
        self.table = table
        self.problems: list[Problem] = []
        self.invalid: set[str] = set()
        """The settings that have a problem."""

    def values(self) -> Values:
        """The checked value of every setting. The problem of each invalid one is kept."""
        return cast(Values, {name: self.value(name) for name in self.table})

    def value(self, name: str) -> Any:
        """The setting's checked value; None where it is absent or, with a problem kept, invalid."""
        setting = self.table[name]
        if name not in self.raw:
            return None
        if setting.secret and name not in self.secret_names:
            self.add(name, "", "must be stored encrypted; it is in clear in the stack file", setting.command)
            return None
        if name in self.secret_names and not setting.secret:
            hint = "; secret variables of the app belong in decant:secrets" if name == "env" else ""
            fix = f"pulumi config rm {NAMESPACE}:{name} && {setting.command}"
            self.add(name, "", f"must not be stored encrypted: previews would hide it{hint}", fix)
            return None
        raw = self.raw[name]
        if setting.structured and isinstance(raw, str):
            with contextlib.suppress(ValueError):  # the parser says what is expected
                raw = json.loads(raw)
        try:
            return setting.parse(raw)
        except InvalidValueError as error:
            value = "" if setting.secret else shown(raw) if error.shown is None else error.shown
            item = re.match(r"\[\d+\]", error.at)
            fix = setting.command.replace("[0]", item[0]) if item else setting.command
            self.add(name + error.at, value, f"must be {error.allowed}", fix)
            return None

    def add(self, name: str, value: str, expected: str, fix: str) -> None:
        """Keep a problem. `name` is a setting, or a part of one; a provider's setting comes with its namespace."""
        self.invalid.add(name.partition("[")[0].partition(".")[0])
        whole = name if ":" in name else f"{NAMESPACE}:{name}"
        self.problems.append(Problem(setting=whole, value=value, expected=expected, fix=fix))

    def check_names(self) -> None:
        """Every name that the stack uses is a setting, and one of them is the cloud."""
        by_lower = {name.lower(): name for name in self.table}
        for name in self.raw:
            if name not in self.table:
                near = difflib.get_close_matches(name.lower(), by_lower, n=1)
                hint = f"did you mean {NAMESPACE}:{by_lower[near[0]]}?" if near else "docs/settings.md lists them all"
                self.add(name, "", f"is not a setting; {hint}", f"pulumi config rm {NAMESPACE}:{name}")
        if "cloud" not in self.raw:
            self.add("cloud", "", "is required: " + self.table["cloud"].value, self.table["cloud"].command)

    def check_cloud(self, cloud: str | None, clouds: Clouds, providers: Mapping[str, Any]) -> None:
        """The stack has what its cloud requires and nothing that the cloud has no use for.

        Nothing is checked where the cloud itself is missing or invalid.
        """
        if cloud is None:
            return
        spec = clouds[cloud]
        for name in self.table:
            others = [other for other, its in clouds.items() if name in its.settings]
            if others and cloud not in others and name in self.raw:
                expected = f"does not go with cloud {cloud}, only with {' and '.join(others)}"
                self.add(name, "", expected, f"pulumi config rm {NAMESPACE}:{name}")
        for name in spec.required:
            if name not in self.raw:
                self.add(name, "", f"is required on {cloud}: {self.table[name].value}", self.table[name].command)
        for name, (variables, example) in spec.provider.items():
            self._check_provider(cloud, name, providers.get(name), variables, example)

    def _check_provider(self, cloud: str, name: str, value: Any, variables: Sequence[str], example: str) -> None:
        """The stack itself says where its machines are: with another value, they would be made anew elsewhere."""
        if value is None:
            expected = (
                f"is required on {cloud}, and the environment does not count: the {name.partition(':')[2]} in which"
                " the stack's machines are, or will be"
            )
            self.add(name, "", expected, f"pulumi config set {name} {example}")
        for variable in variables:
            exported = os.environ.get(variable)
            if exported and isinstance(value, str) and exported != value:  # a secret value is no text
                expected = f"{variable} in the environment is {exported}. A stack stays where it is"
                self.add(name, value, expected, f"unset {variable}, or export {variable}={value}")

    def check_balancer(self, values: Values) -> None:
        """More than one machine needs a load balancer that spreads the requests."""
        machines = values["machines"] or 1
        if machines > 1 and values["balancer"] is False:
            expected = f"must be true, or left out, with {machines} machines"
            self.add("balancer", "false", expected, f"pulumi config rm {NAMESPACE}:balancer")

    def check_review(self, stack: str, values: Values) -> None:
        """A review stack is small, has no name in DNS and follows the app folder. No other stack is one.

        Its records in DNS would have no tags: if its state were lost, they would stay and lead to somebody else's
        address.
        """
        if values["review"] is None:
            return
        if stack != REVIEW_TEMPLATE and not is_review_stack(stack):
            expected = f"is for stack {REVIEW_TEMPLATE} and the stacks of pull requests, pr-N; this one is {stack}"
            self.add("review", "", expected, f"pulumi config rm {NAMESPACE}:review --stack {stack}")
        if (values["machines"] or 1) > 1:
            self._add_for_review("machines", str(values["machines"]), "must be 1, or left out,")
        if values["balancer"]:
            self._add_for_review("balancer", "true", "must be false, or left out,")
        for name in ("domain", "dnsZone", "release"):
            if name in self.raw:
                self._add_for_review(name, shown(self.raw[name]), "must be left out")

    def _add_for_review(self, name: str, value: str, allowed: str) -> None:
        fix = f"remove {NAMESPACE}:{name} from Pulumi.{REVIEW_TEMPLATE}.yaml"
        self.add(name, value, f"{allowed} in a stack of a pull request (docs/review.md)", fix)

    def check_variables(self, values: Values) -> None:
        """No variable is both in `env` and in `secrets`."""
        for name in sorted(set(values["env"] or ()) & set(values["secrets"] or ())):
            fix = f"pulumi config rm --path '{NAMESPACE}:env.{name}'"
            self.add(f"env.{name}", "", "is also in decant:secrets: set it in one of them", fix)


def shown(raw: Any) -> str:
    """A value as a problem shows it: as JSON, cut to 60 characters."""
    text = raw if isinstance(raw, str) else json.dumps(raw)
    return json.dumps(text if len(text) <= 60 else text[:57] + "...")
