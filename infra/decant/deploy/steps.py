"""The steps that prepare a machine and stage the release on it.

A step whose inputs are unchanged does not connect.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi
from pulumi_command import local, remote

from decant.app.archive import cache_file
from decant.clouds.base import AddressMove, Cloud, Machine, secret
from decant.deploy.release import CACHE, Release
from decant.deploy.saved_certificate import CarryOver, find_saved, restore_input, restore_line
from decant.deploy.site import host_site, orders_certificate
from decant.deploy.takeover import Command, Copy, Takeover, take_over
from decant.host import manifest, steps
from decant.host.render import Limits, Proxy, server_name
from decant.settings.model import Settings
from decant.ssh import setting_paths
from decant.ssh.client import Access

# Local steps start in infra/. Paths in inputs are relative, so that a laptop and a CI runner have the same inputs.
PYTHON = "../.venv/bin/python"


class MachineSteps(pulumi.ComponentResource):
    """The steps of one machine: ready, own-key, files, provision, updates, check-space, upload, stage and drain.

    `machine` has the host key that is pinned from the second login on.

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
        self.cloud, self.settings, self.release, self.files = cloud, settings, release, files
        if machine.move:
            machine.move.prepare = self._takeover(machine.move)
        ready = first = self._ready()
        if machine.makes_own_key:
            first_key = machine.host_key
            self.machine = machine = replace(machine, host_key=_own_key(ready, first_key))
            first = self._own_key(first_key)
        common = self._copy("files", files, self._files_path, after=first, triggers=(machine.user,))
        line, script = self._provision(cloud.names(machine), cloud.url)
        provision = self._on_machine(
            "provision", line, after=common, stdin=script, was="base", hooks=self._hooks_of_provision()
        )
        self._on_machine("updates", machine.as_root(steps.UPDATES_STEP), after=provision)
        space = self._check_space(after=provision)
        upload = self._copy("upload", release.tar, steps.incoming(release.tar.name), after=provision)
        stage = self._on_machine("stage", self._stage_line(), after=upload, stdin=release.stage_input())
        if cloud.balancer and cloud.balancer.managed:
            self._drain()
        self.done = pulumi.Output.all(ready.stdout, provision.stdout, space.stdout, stage.stdout).apply(_as_json)
        self.register_outputs({"done": self.done})

    # ----------------------------------------------------------------------------------------- the steps, in order

    def _ready(self) -> local.Command:
        """Wait until the machine accepts the login and its first boot is over, and has made a host key of its own."""
        machine = self.machine
        wanted: dict[str, Any] = {**machine.access(), "timeout": machine.timeout}
        if machine.makes_own_key:
            wanted["own_key"] = True
        return local.Command(
            self._step_name("ready"),
            create=f"{PYTHON} -m decant.ssh.ready",
            stdin=secret(pulumi.Output.json_dumps(wanted)),
            # When it runs again, it must expect the key that it has returned before.
            add_previous_output_in_env=machine.makes_own_key,
            triggers=machine.triggers(),
            opts=self._step_options(),
        )

    def _own_key(self, first_key: pulumi.Input[str]) -> local.Command:
        """Make the machine's own host key the active one; `first_key` is that of the user data.

        It is a step after `ready`, because the key must be recorded before a later login depends on it.
        """
        wanted = {**self.machine.access(), "first_key": first_key}
        return local.Command(
            self._step_name("own-key"),
            create=f"{PYTHON} -m decant.ssh.own_key",
            stdin=secret(pulumi.Output.json_dumps(wanted)),
            add_previous_output_in_env=False,
            triggers=self.machine.triggers(),
            opts=self._step_options(),
        )

    def _provision(
        self, names: pulumi.Input[list[str]], url: pulumi.Input[str]
    ) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """The shell line and the input that install nginx, Python and Decant's own program, and configure them."""
        machine, settings = self.machine, self.settings
        limits = Limits(request_timeout=self.release.request_timeout, max_body=settings.max_body)
        step = pulumi.Output.all(names, _proxy(self.cloud), machine.tag(), url).apply(
            lambda known: steps.provision_step(
                stack=settings.stack,
                machine=known[2],
                user=machine.user,
                harden=settings.harden,
                site=host_site(settings, known[0], urlsplit(known[3]).scheme, proxied=known[1] is not None),
                proxy=known[1],
                health_path=settings.health_path,
                limits=limits,
            )
        )
        return step.apply(lambda made: machine.as_root(made[0])), secret(step.apply(lambda made: made[1]))

    def _hooks_of_provision(self) -> pulumi.ResourceHookBinding | None:
        """A new machine that gets HTTPS by itself goes on with the certificate of the last one."""
        if not orders_certificate(self.settings, self.cloud):
            return None
        access = pulumi.Output.from_input(dict(self.machine.access()))
        return CarryOver(self.settings, access).hooks(self.machine.name)

    def _check_space(self, after: pulumi.Resource) -> remote.Command:
        """Check that the disk has enough space for the release.

        It runs in parallel with the upload, only to give a readable error: SFTP reports a full disk as "Failure".
        """
        release = self.release
        line = self.machine.as_root(steps.check_space_step(release.tar.name, release.bundle.size))
        return self._on_machine("check-space", line, after=after, was="room")

    def _stage_line(self) -> pulumi.Output[str]:
        """The shell line that unpacks the release, installs its requirements and starts it beside the live one."""
        machine = self.machine
        return self.release.id.apply(lambda known: machine.as_root(steps.stage_step(known)))

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

    def _takeover(self, move: AddressMove) -> Callable[[], Awaitable[None]]:
        """What makes this machine serve the release at its own address, before the site's address moves to it."""
        settings, domain = self.settings, self.settings.site.domain
        addresses = pulumi.Output.all(move.site_address, move.own_address)
        names = addresses.apply(lambda both: [*([domain] if domain else []), *map(server_name, both)])
        site = names.apply(lambda known: f"http://{known[0]}")
        line, script = self._provision(names, site)
        known = pulumi.Output.all(
            access=replace(self.machine, address=move.own_address).access(),
            tag=self.machine.tag(),
            site=site,
            site_address=move.site_address,
            release=self.release.id,
            provision=[line, script],
            stage=[self._stage_line(), self.release.stage_input()],
        )
        tar, timeout = self.release.tar, float(self.machine.timeout)

        async def prepare() -> None:
            values = await known.future() or {}
            access = Access.from_dict(values["access"])
            saved = await find_saved(settings)
            # What does not fit the new machine is left out there; nothing of it stops the takeover.
            restore = Command("certificate-restore", f"{restore_line(access.user)} || true", restore_input(saved or ""))
            todo: tuple[Command | Copy, ...] = (
                Copy(source=self.files, target=self._files_path),
                Command("provision", *values["provision"]),
                *([restore] if saved else []),
                Copy(source=tar, target=steps.incoming(tar.name)),
                Command("stage", *values["stage"]),
            )
            await take_over(
                Takeover(
                    access=access,
                    tag=values["tag"],
                    site=values["site"],
                    site_address=values["site_address"],
                    root=settings.site.acme_root,
                    release=values["release"],
                    steps=todo,
                    timeout=timeout,
                )
            )

        return prepare

    # ----------------------------------------------------------------------------------------- what steps share

    @property
    def _files_path(self) -> str:
        return f"{steps.HOME}/{self.files.name}"

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
        hooks: pulumi.ResourceHookBinding | None = None,
    ) -> remote.Command:
        """A step that runs a shell line on the machine."""
        return remote.Command(
            self._step_name(step),
            connection=self.machine.connection(),
            create=line,
            stdin=stdin,
            add_previous_output_in_env=False,
            triggers=self.machine.triggers(),
            opts=pulumi.ResourceOptions.merge(self._step_options(after, was), pulumi.ResourceOptions(hooks=hooks)),
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


def _own_key(ready: local.Command, first_key: pulumi.Input[str]) -> pulumi.Output[str]:
    """The host key that a machine has made for itself, from what `ready` printed. It is public.

    A `ready` that ran before there were such keys, and that `--target` leaves alone, has printed none.
    """
    printed = pulumi.Output.unsecret(ready.stdout)
    return pulumi.Output.all(printed, first_key).apply(_recorded_key)


def _recorded_key(parts: list[str]) -> str:
    printed, first_key = parts
    return str(json.loads(printed).get("host_key", first_key))


def _as_json(outputs: list[Any]) -> str:
    return json.dumps(outputs)
