"""The release that a stack asks for: its id, and what a machine needs to stage it."""

from __future__ import annotations

import pulumi

from decant.app.model import App, Bundle, WebProcess
from decant.app.release_id import app_config, release_id
from decant.clouds.base import secret
from decant.host.manifest import runtime_digest
from decant.host.steps import reuse_staged_input, stage_input
from decant.settings.model import Settings
from decant_host.protocol import LONGEST_REQUEST_TIMEOUT, REQUEST_TIMEOUT

CACHE = "../.decant"  # the folder of the tars, seen from infra/, where Pulumi runs the program and the local steps


def request_timeout(settings: Settings, web: WebProcess) -> int:
    """The seconds that the app has to answer: the setting, else the web line's `--timeout` where that is longer.

    With a `--timeout` of 0, gunicorn sets no limit; nginx and a load balancer still need one.
    """
    if settings.request_timeout is not None:
        return settings.request_timeout
    said = web.gunicorn.get("timeout", REQUEST_TIMEOUT) or LONGEST_REQUEST_TIMEOUT
    return min(max(REQUEST_TIMEOUT, int(said)), LONGEST_REQUEST_TIMEOUT)


class Release:
    """The app, packed, with the settings that serve it. Its id changes with anything that serves a request."""

    def __init__(self, settings: Settings, app: App, bundle: Bundle, key: pulumi.Input[str]) -> None:
        """`key` is a secret of the stack, which the id's HMAC is made with."""
        self.settings = settings
        self.env = {**app.web.env, **settings.env}
        self.bundle = bundle
        self.tar = bundle.path
        self.request_timeout = request_timeout(settings, app.web)
        self.config = {
            **app_config(app),
            "request_timeout": self.request_timeout,
            "health_path": settings.health_path,
            "health_timeout": settings.health_timeout,
            "workers": settings.workers,
            "threads": settings.threads,
            "runtime": runtime_digest(),
        }
        self.id = self._id(pulumi.Output.from_input(key))

    def _id(self, key: pulumi.Output[str]) -> pulumi.Output[str]:
        if self.settings.release:
            return pulumi.Output.from_input(self.settings.release)
        config = {**self.config, "env": self.env}
        secrets = self.settings.secrets
        if not secrets:
            return pulumi.Output.from_input(release_id(self.bundle, config, {}, ""))
        made = key.apply(lambda known: release_id(self.bundle, config, secrets, known))
        # Safe to show: the id contains an HMAC, so checking a guessed secret needs the stack's key.
        return pulumi.Output.unsecret(made)

    def stage_input(self) -> pulumi.Output[str]:
        """The standard input of `decant-host stage`. It is a secret."""
        if self.settings.release:
            return secret(reuse_staged_input())
        settings = {
            **self.config,
            "lock": self.bundle.requirements_hash,
            # Not a part of the id: another source of the same Python.
            "python_mirror": self.settings.python_mirror,
            # For the command in an error that makes one more path writable: the index in the list of the setting.
            "next_persistent": len(self.settings.app.persistent),
            "secret_names": sorted(self.settings.secrets),
        }
        text = stage_input(
            tar=self.tar.name,
            sha256=self.bundle.sha256,
            settings=settings,
            environment={**self.env, **self.settings.secrets},
        )
        return secret(text)
