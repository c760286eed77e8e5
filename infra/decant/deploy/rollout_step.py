"""The step that puts the staged release live on all machines, and the stack's outputs."""

from __future__ import annotations

import json
from typing import Any, NotRequired, TypedDict

import pulumi
from pulumi_command import local

from decant.clouds.base import AccessInputs, Cloud, secret
from decant.deploy.release import Release
from decant.deploy.steps import PYTHON, MachineSteps
from decant.rollout.certificate import Renewal
from decant.settings.model import Settings


class MachinePlan(AccessInputs):
    """A machine in the plan: its login, and the tag that distinguishes it from an earlier machine of the same name."""

    tag: pulumi.Input[str]


class Plan(TypedDict):
    """The standard input of `python -m decant.rollout`, before Pulumi resolves its outputs and writes it as JSON."""

    url: pulumi.Input[str]
    address: pulumi.Input[str]
    domain: str | None
    root: str | None
    renewal: NotRequired[Renewal]
    balancer: str | None
    """"managed" if the stack creates the balancer, "external" if it does not, None if there is no balancer."""
    batch: int
    """How many machines switch at a time."""
    machines: list[MachinePlan]
    done: list[pulumi.Input[str]]


class Rollout(pulumi.ComponentResource):
    """The staged release, live on all machines and verified at the public URL. Its outputs are the stack's outputs.

    It is one step for all machines. With a resource per switch and per confirm, the state would record a switch as
    done after its machine had gone back to the old release by itself.
    """

    def __init__(
        self, name: str, cloud: Cloud, settings: Settings, release: Release, prepared: list[MachineSteps]
    ) -> None:
        super().__init__(
            "decant:deploy:Rollout",
            name,
            None,
            # The type's name until version 0.6.
            pulumi.ResourceOptions(aliases=[pulumi.Alias(type_="decant:fleet:Rollout")]),
        )
        balancer = cloud.balancer
        command = local.Command(
            name,
            create=release.id.apply(lambda known: f"{PYTHON} -m decant.rollout {known}"),
            stdin=secret(pulumi.Output.json_dumps(_plan(cloud, settings, prepared))),
            # Pulumi shows what a command prints. Of this one, standard output holds a certificate's private key.
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                additional_secret_outputs=["stdout"],
                depends_on=[
                    *cloud.records,
                    *(balancer.prerequisites if balancer else ()),
                    *(attachment for steps in prepared for attachment in steps.machine.target_attachment),
                ],
            ),
        )
        # Of its secret input, the command's output contains the saved certificate alone.
        whole = command.stdout.apply(_result)
        result = pulumi.Output.unsecret(whole.apply(_public))
        ids = pulumi.Output.all(*[steps.machine.id for steps in prepared])
        self.url = result.apply(lambda known: known["url"])
        self.release = result.apply(lambda known: known["release"])
        self.receipt = result.apply(lambda known: known["receipt"])
        self.certificate = result.apply(lambda known: known.get("certificate"))
        self.saved_certificate = pulumi.Output.secret(whole.apply(lambda known: known.get("saved_certificate")))
        self.machines = pulumi.Output.all(result, ids).apply(_with_ids)
        self.ssh = pulumi.Output.secret([steps.machine.access() for steps in prepared])
        self.register_outputs({"url": self.url, "release": self.release})


def _plan(cloud: Cloud, settings: Settings, prepared: list[MachineSteps]) -> Plan:
    balancer = None
    if cloud.balancer:
        balancer = "managed" if cloud.balancer.managed else "external"
    plan: Plan = {
        "url": cloud.url,
        "address": cloud.address,
        "domain": settings.site.domain,
        "root": settings.site.acme_root,
        "balancer": balancer,
        "batch": _batch(settings.rollout, len(prepared)),
        "machines": [{**steps.machine.access(), "tag": steps.machine.tag()} for steps in prepared],
        "done": [steps.done for steps in prepared],
    }
    if cloud.balancer and cloud.balancer.renewal:
        plan["renewal"] = cloud.balancer.renewal
    return plan


def _batch(rollout: str, machines: int) -> int:
    """The setting `rollout` as a number of machines."""
    return {"serial": 1, "parallel": machines}.get(rollout) or int(rollout)


def _result(line: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(line)
    return result


def _public(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "saved_certificate"}


def _with_ids(parts: list[Any]) -> list[dict[str, Any]]:
    result, ids = parts
    return [{**machine, "id": identity} for machine, identity in zip(result["machines"], ids, strict=True)]
