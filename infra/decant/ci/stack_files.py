"""The stacks that CI is for, as their files describe them, and the key in those files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decant import clouds
from decant.errors import StackError
from decant.settings.model import NAMESPACE
from decant.settings.project import PASSPHRASE, read_stack_file, stack_file, stack_names
from decant.settings.site_checks import site
from decant.settings.table import settings_table
from decant.settings.validator import Validator

CREDENTIALS = ("digitalocean:token", "digitalocean:spacesSecretKey", "aws:accessKey", "aws:secretKey", "aws:token")
NAMES = ("domain", "redirects", "dnsZone")
MOVE = """Stack {stack} has a passphrase, and perhaps a state elsewhere. Move both, with the passphrase set, while
nobody deploys:
    pulumi stack change-secrets-provider '{key}' --stack {stack}
    pulumi stack export --stack {stack} --file {stack}.state.json
    pulumi login '{backend}'
    pulumi stack init {stack} --secrets-provider '{key}'
    pulumi stack import --stack {stack} --file {stack}.state.json && rm {stack}.state.json"""


@dataclass(frozen=True, kw_only=True)
class StackFile:
    """One stack's file: the cloud that it names, and what encrypts its secrets."""

    stack: str
    cloud: str
    key: str
    has_passphrase: bool
    names_in_zone: tuple[str, ...]
    """The names of the site whose records are in the stack's `decant:dnsZone`."""
    credentials: tuple[str, ...]
    """Settings of the stack that hold a cloud's credentials. Every job that reads the stack's secrets has them."""


def read(stack: str) -> StackFile:
    """What a stack's file says. Raises StackError where there is none, or a name in it is none."""
    if not stack_file(stack).exists():
        there = stack_names()
        raise StackError(
            f"STACKS has {stack}, and there is no {stack_file(stack).name}; there are: {', '.join(there) or 'none'}."
            f" Name those that CI deploys: make ci-init STACKS='{' '.join(there[-2:]) or 'production'}'"
        )
    found = read_stack_file(stack)
    config = found.get("config") or {}
    named = str(found.get("secretsprovider") or "")
    return StackFile(
        stack=stack,
        cloud=str(config.get("decant:cloud", "")),
        key="" if named in PASSPHRASE else named,
        has_passphrase="encryptionsalt" in found,
        names_in_zone=_names_in_zone(stack, config),
        credentials=tuple(name for name in CREDENTIALS if name in config),
    )


def _names_in_zone(stack: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names whose records the stack keeps, as its program reads them. Raises StackError."""
    given = {name: config[f"{NAMESPACE}:{name}"] for name in NAMES if f"{NAMESPACE}:{name}" in config}
    validator = Validator(given, frozenset(), settings_table(clouds.specs()))
    found = site(validator.values())
    for problem in validator.problems:
        raise StackError(f"{stack_file(stack).name}: {problem} --stack {stack}")
    return tuple(found.names_in_zone)


def region_of(stack: str) -> str:
    """The region of a stack on AWS; "" where its file names none."""
    return str((read_stack_file(stack).get("config") or {}).get("aws:region", ""))


def set_key(stack: str, key: str) -> None:
    """Put a key into the file of a stack that has none. Pulumi adds the encrypted data key when it makes the stack."""
    path = stack_file(stack)
    path.write_text(f"secretsprovider: {key}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
