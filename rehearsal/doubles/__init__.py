"""Doubles of the resources that the program asks for, which return exactly what the real provider returns.

A double asks a `Backend` for what must really happen, such as booting a machine or running a command. A rehearsal has
throwaway machines as its backend; the unit tests have one in memory. A type without a double is an error.

Each module in this folder is for one provider. `doubles(backend, numbers)` maps types of resources to their doubles.
`calls(backend)`, which not every module has, does the same for look-ups. ENVIRONMENT has the prefixes of the
environment variables that the provider reads; a rehearsal removes those variables, so that it reaches no account.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import grpc
import pulumi
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from rehearsal.backend import Backend
from rehearsal.errors import StepFailedError, UnknownResourceError

SIGNATURE = "4dabf18193072939515e22adb298388d"  # how Pulumi marks special values on the wire
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the mark of a secret, not one

Double = Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]
"""Takes a resource's name and inputs; returns its id and the outputs that the provider computes."""
Call = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes a look-up's arguments; returns its result."""


def revealed(value: Any) -> Any:
    """Return the value with every secret in it unwrapped."""
    if isinstance(value, Mapping):
        if value.get(SIGNATURE) == SECRET:
            return revealed(value["value"])
        return {key: revealed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [revealed(item) for item in value]
    return value


def is_wrapped(value: Any) -> bool:
    """Whether the program marked this whole value as secret."""
    return isinstance(value, Mapping) and value.get(SIGNATURE) == SECRET


def key_pair() -> tuple[str, str]:
    """Return a new ed25519 key: the private half in OpenSSH's format, the public half as one line with its newline."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, public + "\n"


def providers() -> list[ModuleType]:
    """Return the modules of this folder, one for each provider."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def environment() -> tuple[str, ...]:
    """Return the prefixes of the environment variables that providers read."""
    return tuple(prefix for provider in providers() for prefix in getattr(provider, "ENVIRONMENT", ()))


class LookUpRefusal(grpc.RpcError):  # type: ignore[misc]  # grpc has no types
    """How Pulumi's engine tells a program that a provider has no answer to a look-up."""

    def __init__(self, token: str, reason: str) -> None:
        super().__init__(reason)
        self.text = f"invocation of {token} returned an error: invoking {token}: 1 error occurred:\n\t* {reason}\n\n"

    def code(self) -> grpc.StatusCode:
        """Return the kind of the error."""
        return grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        """Return what the program reads."""
        return self.text


class Doubles(pulumi.runtime.Mocks):
    """Pulumi's mocks, with a double for each type of resource that the program uses."""

    def __init__(self, backend: Backend) -> None:
        self.lock = threading.Lock()
        self._numbers = itertools.count(400000001)
        self.doubles: dict[str, Double] = {}
        # A rehearsal has no run before it.
        self.calls: dict[str, Call] = {"pulumi:pulumi:readStackOutputs": lambda asked: {**asked, "outputs": {}}}
        for provider in providers():
            self.doubles |= provider.doubles(backend, self.number)
            self.calls |= provider.calls(backend) if hasattr(provider, "calls") else {}

    def number(self) -> str:
        """Return an id that nothing else has."""
        with self.lock:
            return str(next(self._numbers))

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        """Return a resource's id and outputs, which include its inputs. Secrets stay wrapped.

        Raises:
            UnknownResourceError: The type has no double.
        """
        if not args.custom or args.typ.startswith("pulumi:providers:"):
            return "" if not args.custom else args.name, dict(args.inputs)
        double = self.doubles.get(args.typ)
        if double is None:
            raise UnknownResourceError(f"{args.typ} ({args.name}) has no double in rehearsal/doubles/")
        identity, outputs = double(args.name, revealed(args.inputs))
        return identity, {**args.inputs, **outputs}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]]]:
        """Return the result of a look-up at a cloud.

        Raises:
            UnknownResourceError: The look-up has no double.
            LookUpRefusal: The provider has no answer.
        """
        if args.token not in self.calls:
            raise UnknownResourceError(f"the look-up {args.token} has no double in rehearsal/doubles/")
        try:
            return self.calls[args.token](revealed(args.args)), []
        except StepFailedError as error:
            raise LookUpRefusal(args.token, str(error)) from None
