"""Questions to AWS that the program asks before it makes or changes a machine, and the commands that errors name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pulumi

from decant.clouds.look_up import Answer, look_up, look_up_now
from decant.errors import LookUpError
from decant.settings.model import Settings

USUAL_SIZE = "t3.micro"
# A quota of vCPUs for most families: https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
STANDARD_VCPUS = "L-1216C47A"
STANDARD_FAMILIES = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)\d")


def matching(**values: str | Iterable[str]) -> list[dict[str, Any]]:
    """Filters of a look-up: for each name, with _ for -, the value or the values that fit."""
    return [filter_by(name.replace("_", "-"), value) for name, value in values.items()]


def filter_by(name: str, value: str | Iterable[str]) -> dict[str, Any]:
    """One filter of a look-up."""
    return {"name": name, "values": [value] if isinstance(value, str) else list(value)}


class LookUps:
    """The look-ups of one stack. `parent` has the provider that they go through."""

    def __init__(self, settings: Settings, parent: pulumi.Resource) -> None:
        self.settings = settings
        self.options = pulumi.InvokeOptions(parent=parent)
        region = settings.provider.get("region")
        self.region = region if isinstance(region, str) else ""  # not where it is stored as a secret
        self.place = self.region or "the stack's region"

    async def ask(self, function: str, **arguments: Any) -> Answer:
        """The answer to a look-up, such as `ec2/getAmi`. Raises LookUpError."""
        return await look_up(_token(function), self.options, **arguments)

    def ask_now(self, function: str, **arguments: Any) -> Answer:
        """The same for an answer that decides which resources there are. Raises LookUpError."""
        return look_up_now(_token(function), self.options, **arguments)

    async def _quota(self) -> int:
        """How many vCPUs of the standard families may run at once."""
        found = await self.ask("servicequotas/getServiceQuota", serviceCode="ec2", quotaCode=STANDARD_VCPUS)
        return int(found["value"])

    def command(self, words: str) -> str:
        """A command of AWS's own CLI for this stack's region and profile."""
        profile = self.settings.provider.get("profile")
        options = f" --profile {profile}" if isinstance(profile, str) else ""
        options += f" --region {self.region}" if self.region else ""
        return f"aws{options} {words}"

    def _more_vcpus(self, wanted: int) -> str:
        return self.command(
            f"service-quotas request-service-quota-increase --service-code ec2 --quota-code {STANDARD_VCPUS}"
            f" --desired-value {wanted}"
        )

    def _set(self, setting: str, value: str) -> str:
        return f"pulumi config set decant:{setting} {value} --stack {self.settings.stack}"

    def _remove(self, setting: str) -> str:
        return f"pulumi config rm decant:{setting} --stack {self.settings.stack}"

    def _usual_size(self) -> str:
        return self._set("size", USUAL_SIZE)

    def _unanswered(self, what: str, value: str, error: LookUpError) -> pulumi.RunError:
        """What to say where AWS gave another error than that there is no such thing."""
        denied = re.search(r"UnauthorizedOperation|AccessDenied|not authorized", str(error))
        help = "docs/aws.md has the policy that your credentials need" if denied else "run the same command again"
        return pulumi.RunError(f"{what} is {value}, and AWS does not answer a question about it: {error}\n      {help}")


def _token(function: str) -> str:
    return f"aws:{function}:{function.rpartition('/')[2]}"
