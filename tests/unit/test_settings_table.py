"""The table of settings: complete, and true for every cloud."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from decant.settings.validator import Validator, Values
from tests.support.certificates import Authority
from tests.support.in_memory import HOST_KEY, PRIVATE
from tests.support.stack_settings import CLOUDS, SECRET_NAMES, TABLE


@pytest.mark.parametrize("name", sorted(CLOUDS))
def test_the_settings_of_each_cloud_are_in_the_table(name: str) -> None:
    spec = CLOUDS[name]
    assert spec.title
    assert set(spec.required) <= set(spec.settings) <= set(TABLE)
    assert set(spec.defaults) <= set(spec.settings) | {"harden"}
    assert isinstance(spec.defaults["harden"], bool), "no other default stands behind this one"
    for setting, (variables, example) in spec.provider.items():
        assert re.fullmatch(rf"{name}:[A-Za-z]+", setting)
        assert all(re.fullmatch(r"[A-Z][A-Z_]+", variable) for variable in variables)
        assert example
    for setting, value in spec.defaults.items():
        text = value if isinstance(value, str) else json.dumps(value)
        assert TABLE[setting].parse(text) == value, f"{name} gives {setting} a value that it would refuse"


SHELL = """
pulumi() { printf '%s\\0' "$@" >>"$OUT"; [ $# -gt 4 ] || command cat >>"$OUT"; printf '\\n\\n' >>"$OUT"; }
curl() { echo 100.64.7.9; }
cat() { command cat "$KEY"; }
"""


@pytest.mark.parametrize("setting", TABLE.values(), ids=lambda setting: str(setting.name))
def test_the_documented_command_sets_a_value_that_is_taken(setting: Any, tmp_path: Path) -> None:
    """The page's commands are run by a real shell, with stand-ins for the programs that they call."""
    key, out = tmp_path / "key", tmp_path / "out"
    issued = Authority().issue("example.com")
    texts = {"certificateKey": issued.key, "certificate": issued.fullchain, "acmeRoot": issued.fullchain,
             "savedCertificate": "c2F2ZWQ="}  # fmt: skip
    key.write_text(texts.get(setting.name, PRIVATE))
    command = setting.command.replace("ssh-ed25519 AAAA...", HOST_KEY)
    environment = {"OUT": str(out), "KEY": str(key), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    subprocess.run(["sh", "-euc", SHELL + command], env=environment, check=True, stdin=subprocess.DEVNULL)
    raw = {setting.name: _as_pulumi_would(out.read_text(), setting)}
    validator = Validator(raw, SECRET_NAMES & {setting.name}, TABLE)
    value = validator.value(setting.name)
    assert not validator.problems
    assert value is not None


def _as_pulumi_would(calls: str, setting: Any) -> Any:
    """The value that `pulumi config set` builds: by path for a list or an object, else the text."""
    built: Any = None
    for call in calls.split("\n\n"):
        if not call.strip():
            continue
        *argv, last = call.split("\0")
        argv += [last] if last else []
        flags = [w for w in argv if w.startswith("--")]
        assert ("--secret" in flags) == setting.secret
        value: Any = argv[-1]
        verb = [w for w in argv if not w.startswith("--")][:2]
        assert verb == ["config", "set"]
        path = next(w for w in argv if w.startswith("decant:"))
        keys = re.findall(r"\w+", path.removeprefix("decant:"))
        assert ("--path" in flags) == (len(keys) > 1)
        assert keys[0] == setting.name
        for part in reversed(keys[1:]):
            value = [value] if part.isdigit() else {part: value}
        if isinstance(built, list):
            built[0].update(value[0])
        else:
            built = value
    return built


def test_checked_values_have_a_type_for_every_setting() -> None:
    assert list(get_type_hints(Values)) == list(TABLE)
