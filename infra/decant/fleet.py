"""Prepare machines (ready, files, base, upload, stage) and roll out. An unchanged step costs no SSH."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
from pulumi_command import local, remote

from decant import bundle, host
from decant.clouds import Cloud
from decant.machine import Machine, secret
from decant.settings import Settings

# Steps that run where `pulumi` runs start in infra/. No path of this computer goes into them, so that a laptop and
# a CI runner see no difference.
PYTHON = "../.venv/bin/python"
CACHE = "../.decant"


class Release:
    """The release that a stack asks for: its id, and what a machine must be told to stage it."""

    def __init__(self, settings: Settings, key: pulumi.Input[str]) -> None:
        """`key` is one that only the stack has: the id of a release with secrets is made with it."""
        self.settings = settings
        self.bundle = settings.bundle
        self.tar = self.bundle.write(Path(CACHE))
        self.shape = {
            "entry": settings.app.entry,
            "static": settings.app.static,
            "requirements": settings.app.requirements[0],
            "locked": settings.app.locked,
            "release_command": settings.app.release_command,
            "health_path": settings.health_path,
            "health_timeout": settings.health_timeout,
            "workers": settings.workers,
            "threads": settings.threads,
            "runtime": host.runtime_digest(),
        }
        self.id = self._id(pulumi.Output.from_input(key))

    def _id(self, key: pulumi.Output[str]) -> pulumi.Output[str]:
        if self.settings.release:
            return pulumi.Output.from_input(self.settings.release)
        shape = {**self.shape, "env": dict(self.settings.env)}
        if not self.settings.secrets:
            return pulumi.Output.from_input(bundle.release_id(self.bundle, shape, {}, ""))
        made = key.apply(lambda k: bundle.release_id(self.bundle, shape, self.settings.secrets, k))
        # Not a secret: guessing a value against it takes the key.
        return pulumi.Output.unsecret(made)

    def stage_input(self) -> pulumi.Output[str]:
        """What `decant-host stage` reads; secret."""
        if self.settings.release:
            return secret(host.stay_input())
        settings = {
            **self.shape,
            "lock": self.bundle.lock,
            "secret_names": sorted(self.settings.secrets),
        }
        text = host.stage_input(
            tar=self.tar.name,
            sha256=self.bundle.sha256,
            settings=settings,
            environment={**self.settings.env, **self.settings.secrets},
        )
        return secret(text)


class PreparedMachine(pulumi.ComponentResource):
    """A machine with the release staged on it. `done` is what its steps printed, an input of the rollout."""

    def __init__(self, machine: Machine, cloud: Cloud, settings: Settings, release: Release, common: Path) -> None:
        """`common` is the tar of what all machines get."""
        super().__init__(
            "decant:fleet:PreparedMachine", machine.name, None, pulumi.ResourceOptions(parent=machine.parent)
        )
        name = machine.name
        ready = local.Command(
            f"{name}-ready",
            create=f"{PYTHON} -m decant.ssh.ready",
            stdin=secret(pulumi.Output.json_dumps({**machine.access(), "timeout": machine.patience})),
            add_previous_output_in_env=False,
            triggers=machine.triggers(),
            opts=machine.options(self),
        )
        files = remote.CopyToRemote(
            f"{name}-files",
            connection=machine.connection(),
            source=pulumi.FileAsset(f"{CACHE}/{common.name}"),
            remote_path=f"{host.HOME}/{common.name}",
            # It is copied into this user's home.
            triggers=[*machine.triggers(), machine.user],
            opts=machine.options(self, (ready,)),
        )
        step = pulumi.Output.all(cloud.names(machine), _proxy(cloud), machine.mark()).apply(
            lambda known: host.base_step(
                stack=settings.stack,
                machine=known[2],
                user=machine.user,
                harden=settings.harden,
                names=known[0],
                proxy=known[1],
                health_path=settings.health_path,
            )
        )
        base = remote.Command(
            f"{name}-base",
            connection=machine.connection(),
            create=step.apply(lambda s: machine.as_root(s[0])),
            stdin=secret(step.apply(lambda s: s[1])),
            add_previous_output_in_env=False,
            triggers=machine.triggers(),
            opts=machine.options(self, (files,)),
        )
        # Security updates install themselves; no visitor has to wait until they do.
        remote.Command(
            f"{name}-updates",
            connection=machine.connection(),
            create=machine.as_root(host.UPDATES_STEP),
            add_previous_output_in_env=False,
            triggers=machine.triggers(),
            opts=machine.options(self, (base,)),
        )
        # Beside the upload, which it only explains: sftp's own word for a full disk is "Failure".
        room = remote.Command(
            f"{name}-room",
            connection=machine.connection(),
            create=machine.as_root(host.room_step(release.tar.name, len(release.bundle.data))),
            add_previous_output_in_env=False,
            triggers=machine.triggers(),
            opts=machine.options(self, (base,)),
        )
        upload = remote.CopyToRemote(
            f"{name}-upload",
            connection=machine.connection(),
            source=pulumi.FileAsset(f"{CACHE}/{release.tar.name}"),
            remote_path=host.incoming(release.tar.name),
            triggers=machine.triggers(),
            opts=machine.options(self, (base,)),
        )
        stage = remote.Command(
            f"{name}-stage",
            connection=machine.connection(),
            create=release.id.apply(lambda r: machine.as_root(host.stage_step(r))),
            stdin=release.stage_input(),
            add_previous_output_in_env=False,
            triggers=machine.triggers(),
            opts=machine.options(self, (upload,)),
        )
        if cloud.balancer and cloud.balancer.ours:
            _leave_at_the_end(machine, self)
        self.machine = machine
        self.done = pulumi.Output.all(ready.stdout, base.stdout, room.stdout, stage.stdout).apply(_joined)
        self.register_outputs({"done": self.done})


def _proxy(cloud: Cloud) -> pulumi.Output[host.Proxy | None]:
    """The cloud's balancer as nginx has to know it."""
    balancer = cloud.balancer
    if balancer is None:
        return pulumi.Output.from_input(None)
    return pulumi.Output.from_input(balancer.networks).apply(
        lambda networks: host.Proxy(
            networks=tuple(networks), tells_scheme=balancer.tells_scheme, noticed=balancer.noticed
        )
    )


def _leave_at_the_end(machine: Machine, parent: pulumi.Resource) -> None:
    """A step that does nothing until the machine goes: then the balancer takes it out before anything is deleted.

    Deleted first, because it depends on all that makes the machine a target. Not `deleted_with` the machine, or it
    would be left out. A machine that is gone already, or a computer without the program, must not stop a deletion.
    """
    local.Command(
        f"{machine.name}-leave",
        delete=f"if [ -x {PYTHON} ]; then {PYTHON} -m decant.ssh.drain || true; fi",
        stdin=secret(pulumi.Output.json_dumps(machine.access())),
        add_previous_output_in_env=False,
        triggers=machine.triggers(),
        opts=pulumi.ResourceOptions(
            parent=parent,
            depends_on=[*machine.first, *machine.registration, *([machine.resource] if machine.resource else [])],
        ),
    )


def _joined(outputs: list[Any]) -> str:
    return json.dumps(outputs)


def prepare(cloud: Cloud, settings: Settings, release: Release) -> list[PreparedMachine]:
    """All machines at once, each through its own steps."""
    files = host.files_tar()
    common = bundle.keep(Path(CACHE), host.files_name(files), files)
    return [PreparedMachine(machine, cloud, settings, release, common) for machine in cloud.machines]


class Rollout(pulumi.ComponentResource):
    """The staged release, live on all machines and verified at the public URL. Its outputs are the stack's.

    One step for the whole fleet: separate switch and confirm resources would be recorded as done although their
    machines had gone back by themselves. It takes what every step before printed as an input, so that a step that ran
    again makes it run again.
    """

    def __init__(
        self, name: str, cloud: Cloud, settings: Settings, release: Release, prepared: list[PreparedMachine]
    ) -> None:
        super().__init__("decant:fleet:Rollout", name)
        balancer = cloud.balancer
        plan = pulumi.Output.json_dumps(
            {
                "url": cloud.url,
                "balancer": balancer and ("managed" if balancer.ours else "external"),
                "batch": _batch(settings.rollout, len(prepared)),
                "machines": [{**p.machine.access(), "tag": p.machine.mark()} for p in prepared],
                "done": [p.done for p in prepared],
            }
        )
        command = local.Command(
            name,
            create=release.id.apply(lambda r: f"{PYTHON} -m decant.rollout {r}"),
            stdin=secret(plan),
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[
                    *(balancer.first if balancer else ()),
                    *(one for p in prepared for one in p.machine.registration),
                ],
            ),
        )
        # The line holds nothing that came in as a secret.
        result = pulumi.Output.unsecret(command.stdout).apply(_result)
        ids = pulumi.Output.all(*[p.machine.id for p in prepared])
        self.url = result.apply(lambda r: r["url"])
        self.release = result.apply(lambda r: r["release"])
        self.receipt = result.apply(lambda r: r["receipt"])
        self.machines = pulumi.Output.all(result, ids).apply(_with_ids)
        self.ssh = pulumi.Output.secret([p.machine.access() for p in prepared])
        self.register_outputs({"url": self.url, "release": self.release})


def _batch(rollout: str, machines: int) -> int:
    """Return how many machines switch at a time, from the setting `rollout`."""
    return {"serial": 1, "parallel": machines}.get(rollout) or int(rollout)


def _result(line: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(line)
    return result


def _with_ids(parts: list[Any]) -> list[dict[str, Any]]:
    result, ids = parts
    return [{**machine, "id": one} for machine, one in zip(result["machines"], ids, strict=True)]
