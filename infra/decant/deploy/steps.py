"""The steps that prepare a machine and stage the release on it.

A step whose inputs are unchanged does not connect.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi
from pulumi_command import local, remote

from decant.app.archive import cache_file
from decant.clouds.base import Cloud, Machine, secret
from decant.deploy.release import CACHE, Release
from decant.host import manifest, steps
from decant.host.render import Limits, Proxy
from decant.settings.model import Settings
from decant.ssh import setting_paths

# Local steps start in infra/. Paths in inputs are relative, so that a laptop and a CI runner have the same inputs.
PYTHON = "../.venv/bin/python"


class MachineSteps(pulumi.ComponentResource):
    """The steps of one machine: ready, files, provision, updates, check-space, upload, stage and drain.

    `done` is what the steps printed. The rollout takes it as an input, so that it runs after a step that ran again.
    """

    def __init__(self, machine: Machine, cloud: Cloud, settings: Settings, release: Release, files: Path) -> None:
        """`files` is the tar of the files that are the same on all machines."""
        super().__init__(
            "decant:deploy:MachineSteps",
            machine.name,
            None,
            # The type's name until version 0.6.
            pulumi.ResourceOptions(parent=machine.parent, aliases=[pulumi.Alias(type_="decant:fleet:PreparedMachine")]),
        )
        self.machine = machine
        ready = self._ready()
        common = self._copy("files", files, f"{steps.HOME}/{files.name}", after=ready, triggers=(machine.user,))
        limits = Limits(request_timeout=release.request_timeout, max_body=settings.max_body)
        provision = self._provision(cloud, settings, limits, after=common)
        self._on_machine("updates", machine.as_root(steps.UPDATES_STEP), after=provision)
        space = self._check_space(release, after=provision)
        upload = self._copy("upload", release.tar, steps.incoming(release.tar.name), after=provision)
        stage = self._stage(release, after=upload)
        if cloud.balancer and cloud.balancer.managed:
            self._drain()
        self.done = pulumi.Output.all(ready.stdout, provision.stdout, space.stdout, stage.stdout).apply(_as_json)
        self.register_outputs({"done": self.done})

    # ----------------------------------------------------------------------------------------- the steps, in order

    def _ready(self) -> local.Command:
        """Wait until the machine accepts the login and its first boot is over."""
        access = pulumi.Output.json_dumps({**self.machine.access(), "timeout": self.machine.timeout})
        return local.Command(
            self._step_name("ready"),
            create=f"{PYTHON} -m decant.ssh.ready",
            stdin=secret(access),
            add_previous_output_in_env=False,
            triggers=self.machine.triggers(),
            opts=self._step_options(),
        )

    def _provision(self, cloud: Cloud, settings: Settings, limits: Limits, after: pulumi.Resource) -> remote.Command:
        """Install nginx, Python and Decant's own program, and configure the machine."""
        machine = self.machine
        step = pulumi.Output.all(cloud.names(machine), _proxy(cloud), machine.tag(), cloud.url).apply(
            lambda known: steps.provision_step(
                stack=settings.stack,
                machine=known[2],
                user=machine.user,
                harden=settings.harden,
                names=[*known[0], *settings.extra_names],
                scheme=urlsplit(known[3]).scheme,
                proxy=known[1],
                health_path=settings.health_path,
                limits=limits,
            )
        )
        line = step.apply(lambda made: machine.as_root(made[0]))
        script = secret(step.apply(lambda made: made[1]))
        return self._on_machine("provision", line, after=after, stdin=script, was="base")

    def _check_space(self, release: Release, after: pulumi.Resource) -> remote.Command:
        """Check that the disk has enough space for the release.

        It runs in parallel with the upload, only to give a readable error: SFTP reports a full disk as "Failure".
        """
        line = self.machine.as_root(steps.check_space_step(release.tar.name, release.bundle.size))
        return self._on_machine("check-space", line, after=after, was="room")

    def _stage(self, release: Release, after: pulumi.Resource) -> remote.Command:
        """Unpack the release, install its requirements and start it beside the live one."""
        line = release.id.apply(lambda known: self.machine.as_root(steps.stage_step(known)))
        return self._on_machine("stage", line, after=after, stdin=release.stage_input())

    def _drain(self) -> None:
        """A step that runs when the machine is about to be deleted: it takes the machine out of rotation.

        It depends on everything that makes the machine a target, so the engine deletes it before them. It is not
        `deleted_with` the machine, because the engine would skip it then. It never fails: a machine that is gone
        already, or a computer without Decant's virtual environment, must not block the deletion.
        """
        machine = self.machine
        local.Command(
            self._step_name("drain"),
            delete=f"if [ -x {PYTHON} ]; then {PYTHON} -m decant.ssh.drain || true; fi",
            stdin=secret(pulumi.Output.json_dumps(machine.access())),
            add_previous_output_in_env=False,
            triggers=machine.triggers(),
            opts=pulumi.ResourceOptions(
                parent=self,
                # The trigger is an output of the machine's resource, so the step depends on that one, too.
                depends_on=[*machine.prerequisites, *machine.target_attachment],
                aliases=[pulumi.Alias(name=self._step_name("leave"))],
            ),
        )

    # ----------------------------------------------------------------------------------------- what steps share

    def _step_name(self, step: str) -> str:
        return f"{self.machine.name}-{step}"

    def _step_options(self, after: pulumi.Resource | None = None, was: str | None = None) -> pulumi.ResourceOptions:
        """A step's options. `was` is the step's name until version 0.6: the alias keeps a rename from replacing it."""
        aliases = (pulumi.Alias(name=self._step_name(was)),) if was else ()
        return self.machine.options(self, (after,) if after else (), aliases)

    def _on_machine(
        self,
        step: str,
        line: pulumi.Input[str],
        *,
        after: pulumi.Resource,
        stdin: pulumi.Input[str] | None = None,
        was: str | None = None,
    ) -> remote.Command:
        """A step that runs a shell line on the machine."""
        return remote.Command(
            self._step_name(step),
            connection=self.machine.connection(),
            create=line,
            stdin=stdin,
            add_previous_output_in_env=False,
            triggers=self.machine.triggers(),
            opts=self._step_options(after, was),
        )

    def _copy(
        self,
        step: str,
        tar: Path,
        target: str,
        *,
        after: pulumi.Resource,
        triggers: tuple[str, ...] = (),
    ) -> remote.CopyToRemote:
        """A step that copies a tar from the cache to the machine.

        A relative `target` is in the home of the user that logs in, which is then one of the `triggers`.
        """
        return remote.CopyToRemote(
            self._step_name(step),
            connection=self.machine.connection(),
            source=pulumi.FileAsset(f"{CACHE}/{tar.name}"),
            remote_path=target,
            triggers=[*self.machine.triggers(), *triggers],
            opts=self._step_options(after),
        )


def prepare(cloud: Cloud, settings: Settings, release: Release) -> list[MachineSteps]:
    """The steps of every machine. Machines do not wait for each other."""
    data = manifest.files_tar()
    files = cache_file(Path(CACHE), manifest.files_name(data), data)
    # Only hosts of the user's own have a path, and their keys are plain texts.
    setting_paths.write({str(machine.host_key): machine.setting for machine in cloud.machines if machine.setting})
    return [MachineSteps(machine, cloud, settings, release, files) for machine in cloud.machines]


def _proxy(cloud: Cloud) -> pulumi.Output[Proxy | None]:
    """The cloud's balancer, as nginx's configuration needs it."""
    balancer = cloud.balancer
    if balancer is None:
        return pulumi.Output.from_input(None)
    return pulumi.Output.from_input(balancer.networks).apply(
        lambda networks: Proxy(
            networks=tuple(networks),
            trusts_forwarded_proto=balancer.trusts_forwarded_proto,
            drain_seconds=balancer.drain_seconds,
            idle_timeout=balancer.idle_timeout,
        )
    )


def _as_json(outputs: list[Any]) -> str:
    return json.dumps(outputs)
