"""The outputs of the stack's last run, which the program asks Pulumi for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi


async def last_output(output: str) -> Any:
    """An output of the last run that succeeded, also a secret one; None where there is none.

    The stack's own outputs are asked when they are needed. They are no input of any resource, so another value of them
    changes nothing in the state.
    """
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    try:
        found: Mapping[str, Any] = await pulumi.runtime.invoke_async("pulumi:pulumi:readStackOutputs", {"name": name})
    except Exception as error:  # Pulumi raises nothing more exact
        pulumi.log.debug(f"the outputs of the last run cannot be read: {error}")
        return None
    return pulumi.runtime.rpc.unwrap_rpc_secret((found.get("outputs") or {}).get(output))
