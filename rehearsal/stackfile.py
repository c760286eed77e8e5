"""Reads a stack's settings file for a rehearsal, with stand-ins for encrypted values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from decant.clouds import specs
from decant.settings.model import NAMESPACE
from decant.settings.table import settings_table
from rehearsal.errors import RehearsalError

OVERRIDES = "rehearsal.local.yaml"


def read(project: Path, stack: str) -> tuple[dict[str, Any], set[str], list[str]]:
    """Return the stack's configuration, the keys that are secret, and a note for every stand-in.

    Encrypted values cannot be read without their passphrase. They are replaced by throwaway values, or by the values in
    the file `rehearsal.local.yaml`, which git ignores. A secret setting in that file counts as encrypted. Encrypted
    certificates are left out, because no throwaway text is a certificate.

    Raises:
        RehearsalError: There is no such stack, or a file cannot be read.
    """
    path = project / f"Pulumi.{stack}.yaml"
    if not path.exists():
        stacks = sorted(p.name.split(".")[1] for p in project.glob("Pulumi.*.yaml"))
        raise RehearsalError(f"there is no stack {stack} ({path.name}); there are: {', '.join(stacks) or 'none'}")
    config: dict[str, Any] = _object(_load(path).get("config"), path)
    overrides: dict[str, Any] = _load(project / OVERRIDES) if (project / OVERRIDES).exists() else {}
    secret, notes = set(), _leave_out_certificates(config, overrides)
    for key, value in list(config.items()):
        if list(_encrypted(value, key)):
            secret.add(key)
            stood_in = [where for where in _encrypted(value, key) if key not in overrides]
            notes += [
                f"{where} is encrypted: a throwaway value stands in (or put one into {OVERRIDES})" for where in stood_in
            ]
            config[key] = _stand_in(value, key)
    config.update(overrides)
    names = {f"{NAMESPACE}:{name}" for name, setting in settings_table(specs()).items() if setting.secret}
    return config, secret | (names & overrides.keys()), notes


def _leave_out_certificates(config: dict[str, Any], overrides: dict[str, Any]) -> list[str]:
    """Take certificates with an encrypted part out of `config`, and return a note for each."""
    saved, own, key = (f"{NAMESPACE}:{name}" for name in ("savedCertificate", "certificate", "certificateKey"))
    notes = []
    if saved not in overrides and list(_encrypted(config.get(saved), saved)):
        del config[saved]
        notes.append(f"{saved} is encrypted: the rehearsal goes without it (or put one into {OVERRIDES})")
    encrypted = [name for name in (key, own) if name not in overrides and list(_encrypted(config.get(name), name))]
    if encrypted:
        for name in (own, key):
            config.pop(name, None)
        notes.append(
            f"{encrypted[0]} is encrypted: the rehearsal's certificate authority issues a certificate in place of"
            f" {own} (or put both into {OVERRIDES})"
        )
    return notes


class _Loader(yaml.SafeLoader):
    """Reads YAML as Pulumi does: 12:30, yes and 2026-11-22 are texts, no number in base 60, truth value and date."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":timestamp", ":int", ":float", ":bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"), list("-+0123456789.")
)


def _load(path: Path) -> dict[str, Any]:
    try:
        # S506 does not see that _Loader is a SafeLoader.
        return _object(yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader), path)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RehearsalError(f"{path.name} cannot be read: {error}") from None


def _object(value: Any, path: Path) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise RehearsalError(f"{path.name} is no stack file: it has {value!r} in place of names and values")
    return value or {}


def has_balancer(config: Mapping[str, Any]) -> bool:
    """Whether a stack of a cloud that makes load balancers has one, as far as its values are valid."""
    return str(config.get("decant:balancer")).lower() == "true" or str(config.get("decant:machines", "1")) != "1"


def as_text(config: dict[str, Any]) -> dict[str, str]:
    """Return values as Pulumi hands them to a program: text, and JSON for lists and objects."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}


def _encrypted(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, dict):
        if set(value) == {"secure"}:
            yield where
        else:
            for key, item in value.items():
                yield from _encrypted(item, f"{where}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _encrypted(item, f"{where}[{i}]")


def _stand_in(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        if set(value) == {"secure"}:
            return {} if where == "decant:secrets" else f"rehearsed-{where.rpartition('.')[2].rpartition(':')[2]}"
        return {key: _stand_in(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_stand_in(item, where) for item in value]
    return value
