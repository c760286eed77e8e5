"""The AWS provider: all settings of the `aws:` namespace, and tags for every resource of the stack."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pulumi

from decant.clouds.base import when_used

if TYPE_CHECKING:
    import pulumi_aws as aws
else:
    aws = when_used("pulumi_aws")


def create_provider(options: Mapping[str, Any], tags: Mapping[str, str]) -> aws.Provider:
    """A provider with the stack's `aws:` settings, which are `options`, and default tags.

    The default provider of Pulumi reads the same settings, but only an explicit one can add default tags.

    Raises:
        pulumi.RunError: an option that the provider does not have, or a value that it cannot take.
    """
    parameters = {_camel_case(name): item for name, item in inspect.signature(aws.ProviderArgs).parameters.items()}
    unknown = [name for name in options if name not in parameters]
    if unknown:
        raise pulumi.RunError("\n".join(_unknown(name, parameters) for name in unknown))
    # Pulumi stores every setting as text. Where a parameter is not text, that text holds JSON.
    text = pulumi.Input[str | None]
    arguments = {
        parameters[name].name: value if parameters[name].annotation == text else _parsed(name, value)
        for name, value in options.items()
    }
    # The documented policy names `tags`, so that the user's must not replace them.
    arguments["default_tags"] = pulumi.Output.from_input(arguments.get("default_tags", {})).apply(
        lambda users: {"tags": {"managed-by": "pulumi", **users.get("tags", {}), **tags}}
    )
    return aws.Provider("aws", **arguments)


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean aws:{near[0]}?" if near else ""
    return f"aws:{name} is not a setting of the AWS provider{hint}\n      pulumi config rm aws:{name}"


def _camel_case(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def _parsed(name: str, value: Any, shown: str | None = None) -> Any:
    if isinstance(value, pulumi.Output):  # a secret: its value must not be in an error
        return value.apply(lambda text: _parsed(name, text, shown="[secret]"))
    try:
        return json.loads(value)
    except ValueError:
        raise pulumi.RunError(
            f"aws:{name} is {shown or json.dumps(value)}: it must be a number, true, false or a list or an object in"
            " JSON\n"
            f"      pulumi config set --path 'aws:{name}...', or pulumi config rm aws:{name}"
        ) from None
