"""Questions to a cloud that the program asks through Pulumi's provider."""

from __future__ import annotations

import re
from typing import Any

import pulumi

from decant.errors import LookUpError

Answer = dict[str, Any]
"""What a look-up returns: its results by Pulumi's names for them."""


async def look_up(token: str, options: pulumi.InvokeOptions, **arguments: Any) -> Answer:
    """The answer to a look-up, whose arguments have Pulumi's own names.

    The functions of the clouds' own packages do not fit: an error of theirs ends the program also where it is handled.

    Raises:
        LookUpError: the cloud or its provider gave an error instead.
    """
    try:
        answer: Answer = await pulumi.runtime.invoke_async(token, arguments, options)
    except Exception as error:  # Pulumi raises nothing more exact
        raise _refusal(error) from None
    return answer


def look_up_now(token: str, options: pulumi.InvokeOptions, **arguments: Any) -> Answer:
    """The same for a question whose answer decides which resources there are.

    Raises:
        LookUpError: the cloud or its provider gave an error instead.
    """
    try:
        answer: Answer = pulumi.runtime.invoke(token, arguments, options).value
    except Exception as error:  # Pulumi raises nothing more exact
        raise _refusal(error) from None
    return answer


def _refusal(error: Exception) -> LookUpError:
    return LookUpError(re.split(r"\n\s*\* |returned an error: |failed: ", str(error))[-1].strip())
