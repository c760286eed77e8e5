"""Stacks whose secrets a key of the cloud encrypts, with the real `pulumi`: no passphrase anywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kms
from tests.support.kms import Kms
from tests.support.pulumi_stack import LONGEST, Stack, missing

KEY = "awskms://alias/decant-state?region=eu-central-1&context_stack="
SECRET = "canary-of-the-app"


@pytest.fixture
def keys() -> Iterator[Kms]:
    with kms.serving() as made:
        yield made


@pytest.fixture
def stack(keys: Kms, tmp_path: Path) -> Stack:
    lacking = missing()
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    return Stack.create(
        tmp_path,
        AWS_ENDPOINT_URL_KMS=keys.url,
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_EC2_METADATA_DISABLED="true",
    )


def run(stack: Stack, *argv: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """A program with the stack's environment, but for the passphrase."""
    process = stack.process(*argv)
    env = {name: value for name, value in process["env"].items() if "PASSPHRASE" not in name}
    changed = {**process, "env": env, "stdin": None, "input": given, "cwd": stack.project}
    return subprocess.run(**changed, timeout=LONGEST, check=False)


def test_a_new_stack_has_the_key_of_its_file_and_its_secrets_open_with_it_alone(stack: Stack, keys: Kms) -> None:
    file = stack.project / "Pulumi.qa.yaml"
    file.write_text(f"secretsprovider: {KEY}qa\nconfig:\n  decant:cloud: digitalocean\n")
    done = run(stack, sys.executable, "-m", "decant.cli", "check-account", "qa")
    assert f"Stack qa is new; its settings are in Pulumi.qa.yaml. Its secrets are encrypted by {KEY}qa." in done.stdout
    assert "decant:adminCidrs" in done.stdout, "the check goes on to the settings"
    assert ("encrypt", "alias/decant-state", {"stack": "qa"}) in keys.asked
    assert "encryptedkey: " in file.read_text()

    set_secret = ("pulumi", "config", "set", "--secret", "--path", "decant:secrets.KEY", "--stack", "qa")
    assert run(stack, *set_secret, given=SECRET).returncode == 0
    assert SECRET not in file.read_text()
    shown = run(stack, "pulumi", "config", "--show-secrets", "--stack", "qa", "--non-interactive")
    assert SECRET in shown.stdout
    assert keys.asked[-1] == ("decrypt", "", {"stack": "qa"}), "the ciphertext names its key"

    file.write_text(file.read_text().replace("context_stack=qa", "context_stack=production"))
    refused = run(stack, "pulumi", "config", "--show-secrets", "--stack", "qa", "--non-interactive")
    assert refused.returncode != 0
    assert SECRET not in refused.stdout


def test_a_new_stack_without_a_file_gets_the_key_of_the_others(stack: Stack, keys: Kms) -> None:
    (stack.project / "Pulumi.engine.yaml").unlink()
    (stack.project / "Pulumi.staging.yaml").write_text(f"secretsprovider: {KEY}staging\n")
    run(stack, sys.executable, "-m", "decant.cli", "check-account", "qa")
    assert f"secretsprovider: {KEY}qa\n" in (stack.project / "Pulumi.qa.yaml").read_text()
    assert {context["stack"] for _, _, context in keys.asked} == {"qa"}
