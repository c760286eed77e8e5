"""Where machines come from: one module a cloud, one Protocol between them and the rest.

A cloud module has a class with this shape. To add a cloud, write one, name it in `CLOUDS` and in the settings' table.
"""

from __future__ import annotations

import importlib
from typing import Protocol

import pulumi

from decant.machine import Machine
from decant.settings import Settings


class Cloud(Protocol):
    """What a cloud gives: machines that can be logged in to, and the host names their site answers to."""

    machines: list[Machine]

    def names(self, machine: Machine) -> pulumi.Output[list[str]]:
        """Host names and addresses that visitors use, the public one first."""
        ...

    @property
    def url(self) -> pulumi.Output[str]:
        """The public URL, without a path."""
        ...


CLOUDS = {"digitalocean": "DigitalOcean", "ssh": "Ssh"}


def create(settings: Settings) -> Cloud:
    """The stack's machines. A cloud's packages are imported only when it is chosen."""
    module = importlib.import_module(f"decant.clouds.{settings.cloud}")
    cloud: Cloud = getattr(module, CLOUDS[settings.cloud])("cloud", settings)
    return cloud
