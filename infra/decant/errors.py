"""Every error that Decant raises on purpose.

    DecantError
      SettingsError          what is wrong with a stack's settings, all of it at once
      InvalidValueError      one value that a setting does not take
      AppError               an app folder that cannot be served
      HostKeyError           text that is not an ed25519 host key
      MachineError           a machine that cannot be used
        HostKeyMismatchError a machine that shows another host key than the one that is pinned
        UnreachableError     nobody answered, or the connection broke: another try may help
          PortClosedError    the machine answers, but nothing listens at the SSH port (yet)
      LookUpError            a cloud that does not answer a question about it
      DelegationError        a DNS zone that the world does not ask
      RecordExistsError      a DNS record that somebody else has made
      RolloutError           a release that did not go live
        UnsettledError       the release is live, but a machine may still go back by itself
        HttpsError           the release is live, but HTTPS does not work, or its certificate ends soon
        NotInRotationError   the release is live, but the load balancer does not use every machine
      TakeoverError          a new machine that does not serve the release, so the site's address stays with the old one
      NoRollbackError        there is no release to go back to
      NotServingError        the public URL does not give the release that it should
      StackError             something is missing before Pulumi can run
      CloudApiError          a cloud's API refused a question, or did not answer
      CiError                something is missing for a command that runs in CI
      ForgeError             GitHub or GitLab refused a request, or did not answer
        UnclearWriteError    its answer got lost, so what was asked for may have been done

An error's message names the setting or the machine, the value, what is allowed and the command that fixes it: it is
printed as it is, without a traceback. This module imports nothing of Decant, so that every other module can import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class DecantError(Exception):
    """The base of all of Decant's own errors; its text is written for the user."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a stack's settings.

    `setting` is the setting's whole name (`decant:hosts[0].port`), `value` its value as the message shows it. It
    is empty where the value is secret or absent. `expected` says what is allowed, `fix` is the command that mends it.
    """

    setting: str
    value: str
    expected: str
    fix: str

    def __str__(self) -> str:
        value = f" is {self.value}" if self.value else ""
        return f"{self.setting}{value}: {self.expected}\n      {self.fix}"


class SettingsError(DecantError):
    """Everything that is wrong with a stack's settings, or with the app that they name: see `problems`."""

    def __init__(self, stack: str, problems: Sequence[Problem], *, heading: str | None = None) -> None:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{heading or f'{count} in the settings of stack {stack}; nothing was changed.'}\n{lines}")
        self.problems = tuple(problems)


class InvalidValueError(DecantError):
    """One value that a setting does not take.

    `allowed` completes the sentence "must be ...". `at` is the place inside a structured value, such as `[0].port`.
    `shown` replaces the whole value in the message, where only a part of it is wrong.
    """

    def __init__(self, allowed: str, *, at: str = "", shown: str | None = None) -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.at = at
        self.shown = shown


class AppError(DecantError):
    """Why an app folder cannot be served: pairs of a message and the command that fixes it."""

    def __init__(self, setting: str, *problems: tuple[str, str]) -> None:
        super().__init__("; ".join(message for message, _ in problems))
        self.setting = setting
        self.problems = problems


class HostKeyError(DecantError, ValueError):
    """Text that is not an ed25519 host key."""


class MachineError(DecantError):
    """A machine that cannot be used; the message names it and says what to do."""


class HostKeyMismatchError(MachineError):
    """A machine that shows another host key than the one that is pinned. Nothing was sent to it."""


class UnreachableError(MachineError):
    """Nobody answered, or the connection broke. Another try may help."""


class PortClosedError(UnreachableError):
    """The machine answers, but nothing listens at the SSH port (yet)."""


class LookUpError(DecantError):
    """A cloud's answer to a look-up is an error; the text is the reason that the cloud gives."""


class DelegationError(DecantError):
    """A zone's records would be seen by nobody; the text names the name servers to set at the registrar."""


class RecordExistsError(DecantError):
    """A name of the site leads somewhere by a record that is not the stack's."""


class RolloutError(DecantError):
    """Why the release is not live. The release before it still is, where there was one."""


class UnsettledError(RolloutError):
    """Confirming was cut short: the release is live, but a machine may still go back to the old one by itself."""


class HttpsError(RolloutError):
    """The release is live and confirmed, but HTTPS does not work, or its certificate ends soon."""


class NotInRotationError(RolloutError):
    """The release is live and confirmed everywhere, but the load balancer does not send visitors to all machines."""


class TakeoverError(DecantError):
    """A new machine that does not serve the release, so the site's address stays with the old one."""


class NoRollbackError(DecantError):
    """There is no release to go back to; the message lists those that exist."""


class NotServingError(DecantError):
    """The URL of a stack does not give the release that it should; `release` is the one that it gives, if any."""

    def __init__(self, text: str, release: str) -> None:
        super().__init__(text)
        self.release = release


class StackError(DecantError):
    """What is missing before Pulumi can run, and how to get it."""


class CloudApiError(DecantError):
    """A cloud's API refused a question, or did not answer. The message is the API's own where it gave one.

    `status` is the answer's HTTP status, 0 where there was none. `code` is the API's name for the refusal, such as
    `UnauthorizedOperation`; it is empty where the API gave none.
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class CiError(DecantError):
    """What is missing for a command that runs in CI, and how to get it."""


class ForgeError(DecantError):
    """GitHub or GitLab refused a request, or did not answer. The message is the forge's own where it gave one.

    `status` is the answer's HTTP status, 0 where there was none.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class UnclearWriteError(ForgeError):
    """The answer to a request that makes something got lost: it may have been made, or not."""
