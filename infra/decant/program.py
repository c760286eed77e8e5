"""Machines from a cloud, the app staged on each of them, and the public URL once it answers."""

import os
import signal

import pulumi

from decant import clouds, fleet, settings

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # When a step fails, Pulumi interrupts this program; its traceback would bury the step's own message.
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))

stack = settings.load()
for warning in stack.warnings:
    pulumi.log.warn(warning)

if stack.release:
    pulumi.log.warn(
        f"decant:release keeps this stack on release {stack.release}: changes in the app folder and its settings wait."
        " To leave it: pulumi config rm decant:release"
    )

cloud = clouds.create(stack)
release = fleet.Release(stack, cloud.machines[0].private_key)
prepared = fleet.prepare(cloud, stack, release)
live = fleet.Rollout("rollout", cloud, stack, release, prepared)

pulumi.export("url", live.url)
pulumi.export("release", live.release)
pulumi.export("machines", live.machines)
pulumi.export("receipt", live.receipt)
pulumi.export("ssh", live.ssh)
