"""One attempt to put a staged release live on all machines, or to leave the old one on all of them.

The steps of an attempt: hold every machine's lease; make sure that the release runs and is healthy everywhere; run the
release command on one machine; switch batch by batch; ask the public URL; confirm everywhere. A failure before the
confirms is reverted at once. If this process dies, each machine's own timer reverts it. Behind a load balancer, a
machine gets traffic from its first confirm on, so the attempt ends when every machine has answered through the public
URL.
"""

from __future__ import annotations

import contextlib
import getpass
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from decant.errors import HttpsError, MachineError, NotInRotationError, RolloutError, UnsettledError
from decant.rollout import timeouts
from decant.rollout.agent_client import MachineAgent, run_on_all
from decant.rollout.certificate import Renewal, SiteCertificate, describe
from decant.rollout.http_probe import BY_NAME, routes_to_us, wait_for_release, wait_until_in_rotation
from decant.rollout.plan import Plan
from decant.rollout.prober import Prober
from decant.rollout.report import RolloutResult, log
from decant.rollout.route import https_url, route_to
from decant.rollout.shown_certificate import shown_certificate
from decant.ssh.client import Access
from decant_host import protocol
from decant_host.protocol import Prepared


class Attempt:
    """One try to put a release live on all machines. `confirmed` is true once all machines have confirmed it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.id = secrets.token_hex(8)
        self.owner = f"{getpass.getuser()}@{socket.gethostname()}"
        self.agents: list[MachineAgent] = []
        self.began = time.monotonic()
        self.steps: dict[str, float] = {}
        self.confirmed = False
        self.needs_200 = True
        self.url = plan.url
        self.route = BY_NAME
        self.certificate: SiteCertificate | None = None
        self.saved_certificate: str | None = None

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Log the name of a step, and measure its seconds."""
        started = time.monotonic()
        log(f"{name} ...")
        yield
        self.steps[name] = round(time.monotonic() - started, 2)

    def run(self) -> RolloutResult:
        """Make the attempt.

        Raises:
            RolloutError: the release is not live, and what was live before still is.
            UnsettledError: the release is live, but a machine may still revert by itself.
            NotInRotationError: the release is live, but the load balancer does not use every machine.
            HttpsError: the release is live, but HTTPS does not work.
        """
        try:
            return self._run()
        finally:
            for agent in self.agents:
                agent.close()

    def _run(self) -> RolloutResult:
        plan = self.plan
        with self.step("hold the machines"):
            self._connect()
        with self.step("make sure it is staged"):
            prepared = run_on_all(self.agents, lambda agent: agent.prepare(plan.release))
        self._log_leftovers(prepared)
        served = {p["persisted"] for p in prepared if p["persisted"]}
        self.needs_200 = prepared[0]["needs_200"]
        own_https = prepared[0].get("https")
        self.url = https_url(plan.url) if own_https else plan.url
        self.route = route_to(plan.domain, plan.address, plan.root)
        url = self.url + prepared[0]["health"]
        behind = [
            agent
            for agent, p in zip(self.agents, prepared, strict=True)
            if not p["current"] == p["persisted"] == plan.release
        ]
        answers = self._url_answers(url, prepared, served)
        prober = Prober(url=url, needs_200=self.needs_200, route=self.route)
        with prober.running() if served and answers else contextlib.nullcontext():
            if behind:
                self._migrate(prepared)
                self._switch(behind, url if answers else None)
            # Confirm even where nothing switches: an interrupted confirm may have left the old release running.
            self._confirm()
            if not behind and not plan.balancer:
                with self.step("ask the public URL"):
                    self._wait_for_release(url, timeouts.URL_TIMEOUT)
        if plan.balancer:
            with self.step("wait for the balancer"):
                self._wait_for_balancer(url)
        if plan.renewal:
            self._look_at_certificate(plan.renewal)
        if own_https is not None and plan.orders_certificate:
            with self.step("certificate"):
                self._secure(prepared[0]["health"])
        return self._result(prober, old=min(served, default=None))

    def _result(self, prober: Prober, old: str | None) -> RolloutResult:
        return {
            "url": self.url,
            "certificate": self.certificate,
            "saved_certificate": self.saved_certificate,
            "release": self.plan.release,
            "machines": [{"name": a.access.name, "address": a.access.address} for a in self.agents],
            "receipt": {
                **prober.summary(),
                "from": old,
                "to": self.plan.release,
                "seconds": {**self.steps, "all": round(time.monotonic() - self.began, 2)},
            },
        }

    def _connect(self) -> None:
        """Log in to all machines at once, then take their leases."""

        def connect(access: Access) -> MachineAgent:
            return MachineAgent(access, self.id, self.owner)

        with ThreadPoolExecutor(len(self.plan.machines)) as pool:
            futures = [pool.submit(connect, access) for access in self.plan.machines]
        errors = [str(f.exception()) for f in futures if isinstance(f.exception(), MachineError)]
        self.agents = [f.result() for f in futures if f.exception() is None]
        if errors:
            raise RolloutError("\n".join(errors) + "\nNothing was switched.")
        for future in futures:
            future.result()  # raises an error that is a fault of the program
        # One machine first, and always the same one: of two attempts, only the one that holds it goes on, so that they
        # cannot each hold a part of the fleet.
        first, *others = sorted(self.agents, key=lambda a: a.access.name)
        first.acquire_lease()
        run_on_all(others, lambda agent: agent.acquire_lease())

    def _log_leftovers(self, prepared: Sequence[Prepared]) -> None:
        """Log what an attempt that was cut short has left behind."""
        names = [agent.access.name for agent in self.agents]
        for name, p in zip(names, prepared, strict=True):
            if p["current"] not in (p["persisted"], None):
                log(f"{name}: an interrupted attempt left {p['current']} unconfirmed; this one settles it")
        served = {name: p["persisted"] for name, p in zip(names, prepared, strict=True) if p["persisted"]}
        if len(set(served.values())) > 1:
            each = ", ".join(f"{name} {release}" for name, release in served.items())
            log(f"an attempt was cut short while it confirmed, so the machines differ ({each}); this one settles it")

    def _url_answers(self, url: str, prepared: Sequence[Prepared], served: set[str]) -> bool:
        """Return whether the public URL can be asked before the release is confirmed.

        Without a balancer the URL must always answer. Behind one, it can only if a machine is in rotation already.
        """
        if not self.plan.balancer:
            return True
        return any(p["in_rotation"] for p in prepared) and routes_to_us(
            url, served, timeouts.ROUTING_TIMEOUT, needs_200=self.needs_200, route=self.route
        )

    def _migrate(self, prepared: Sequence[Prepared]) -> None:
        """Run the release command on one machine, unless a machine of this stack has confirmed the release before."""
        if not any(p["release_command"] for p in prepared):
            return
        knowing = [agent for agent, p in zip(self.agents, prepared, strict=True) if p["confirmed"]]
        agent = knowing[0] if knowing else min(self.agents, key=lambda a: a.access.name)
        with self.step("release command"):
            migrated = agent.migrate(self.plan.release)
        if migrated["skipped"] and any(p["persisted"] not in (None, self.plan.release) for p in prepared):
            log("going back: the release command is not run, so the data keeps its newer form")

    def _switch(self, behind: Sequence[MachineAgent], url: str | None) -> None:
        """Switch these machines batch by batch, and ask the URL; revert all of them if anything fails.

        `url` is None where it cannot answer yet.
        """
        try:
            with self.step("switch"):
                for start in range(0, len(behind), self.plan.batch):
                    self._extend()
                    run_on_all(
                        behind[start : start + self.plan.batch],
                        lambda agent: agent.switch(self.plan.release, self.plan.confirm_timeout),
                    )
            if url:
                with self.step("ask the public URL"):
                    self._extend()
                    self._wait_for_release(url, timeouts.URL_TIMEOUT)
            self._extend()
        except BaseException as error:
            self._revert(error)
            raise

    def _extend(self) -> None:
        """Give machines that wait for others more time, so that none reverts while this process lives."""
        now = time.monotonic()
        waiting = [
            agent
            for agent in self.agents
            if agent.revert_timer_set_at is not None and now - agent.revert_timer_set_at > protocol.EXTEND_AFTER
        ]
        run_on_all(waiting, lambda agent: agent.extend(self.plan.release, self.plan.confirm_timeout))

    def _confirm(self) -> None:
        """Confirm on all machines at once.

        Only here can the death of this process leave machines that serve different releases.
        """
        try:
            with self.step("confirm"):
                run_on_all(self.agents, lambda agent: agent.confirm(self.plan.release))
                self.confirmed = True
        except (RolloutError, KeyboardInterrupt) as error:
            raise UnsettledError(str(error) or "interrupted") from None

    def _wait_for_balancer(self, url: str) -> None:
        """Wait until the balancer sends requests to every machine of the stack.

        A balancer of the user's own may choose the machines as it likes: there, one good answer is enough.
        """
        if self.plan.balancer == "managed":
            wait_until_in_rotation(
                url,
                self.plan.release,
                self.plan.tags,
                timeouts.BALANCER_TIMEOUT,
                needs_200=self.needs_200,
                route=self.route,
            )
            return
        try:
            self._wait_for_release(url, timeouts.BALANCER_TIMEOUT)
        except RolloutError as error:
            raise NotInRotationError(str(error)) from None

    def _wait_for_release(self, url: str, timeout: float) -> None:
        wait_for_release(url, self.plan.release, timeout, needs_200=self.needs_200, route=self.route)

    def _secure(self, health: str) -> None:
        """Have the machine get or renew its certificate, and ask the public URL over HTTPS where there is one.

        A name that does not lead here yet, or a certificate authority that is away, is no failure of the rollout: the
        machine goes on by itself.

        Raises:
            HttpsError: there is a certificate, and the public URL does not work with it.
        """
        (agent,) = self.agents
        try:
            certificate = agent.certificate()
            self.certificate = cast("SiteCertificate", certificate)
            self.saved_certificate = agent.save_certificate()
        except (RolloutError, MachineError) as error:
            log(f"HTTPS: {error}\nThe machine tries again by itself.")
            return
        for line in describe(certificate, self.plan.address):
            log(f"HTTPS: {line}")
        if certificate["state"] != "live":
            return
        self.url = https_url(self.plan.url)
        try:
            self._wait_for_release(self.url + health, timeouts.URL_TIMEOUT)
        except RolloutError as error:
            raise HttpsError(f"{error}\n  Plain HTTP leads visitors there already.") from None

    def _look_at_certificate(self, renewal: Renewal) -> None:
        """Log what the load balancer's certificate is like, as visitors get it."""
        self.certificate = shown_certificate(self.plan.address, renewal, self.plan.root)
        if self.certificate is None:
            log(f"HTTPS: {self.plan.address} shows this computer no valid certificate; the URL itself has answered")
            return
        for line in describe(self.certificate, self.plan.address):
            log(f"HTTPS: {line}")

    def _revert(self, error: BaseException) -> None:
        touched = [agent for agent in self.agents if agent.revert_timer_set_at is not None]
        log(f"going back on {', '.join(a.access.name for a in touched)}: {type(error).__name__}")
        try:
            run_on_all(touched, lambda agent: agent.revert("the attempt failed"))
        except RolloutError as failed:
            log(f"{failed}\nWhere this failed, the machine goes back by itself within {self.plan.confirm_timeout} s.")
