"""The validator: names, secrets, and the rules across settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from decant.errors import SettingsError
from tests.support.certificates import Authority
from tests.support.in_memory import HOST, PRIVATE, PUBLIC
from tests.support.stack_settings import (
    CANARY,
    CLOUDS,
    SECRET_NAMES,
    SITE_SETTINGS,
    TABLE,
    droplet,
    host,
    read,
    refused,
    ssh,
)  # fmt: skip

REQUIRED: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"cloud"}),
    ({"cloud": "digitalocean"}, {"adminCidrs"}),
    ({"cloud": "ssh"}, {"hosts", "sshPrivateKey"}),
    ({"cloud": "ssh", "hosts": host()}, {"sshPrivateKey"}),
    ({"cloud": "ssh", "sshPrivateKey": PRIVATE}, {"hosts"}),
]


@pytest.mark.parametrize(("config", "missing"), REQUIRED)
def test_a_setting_that_the_cloud_requires_is_missed(config: dict[str, Any], missing: set[str]) -> None:
    problems = refused(config)
    assert {p.split(":")[1] for p in problems} == missing
    for problem in problems:
        assert " is required" in problem
        assert "pulumi config set" in problem


def only(word: str) -> str:
    """The clouds that take a setting, as a problem names them."""
    return " and ".join(name for name, spec in sorted(CLOUDS.items()) if word in spec.settings)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        *[
            (ssh(**{name: value}), name)
            for name, value in {
                "size": "s-1vcpu-1gb", "region": "fra1", "image": "debian-13-x64", "machines": 2,
                "adminCidrs": ["10.0.0.1/32"], "balancer": True,
            }.items()
        ],
        (ssh(balancer=False), "balancer"),
        (ssh(machines=1), "machines"),
        *[
            (droplet(**{name: value}), name)
            for name, value in {
                "hosts": HOST["hosts"], "sshPrivateKey": PRIVATE, "trustedProxies": ["10.0.0.1/32"],
                "url": "http://www.example.com",
            }.items()
        ],
    ],
)  # fmt: skip
def test_a_setting_that_the_cloud_has_no_use_for_is_refused(config: dict[str, Any], name: str) -> None:
    (problem,) = refused(config)
    cloud = config["cloud"]
    assert only(name)
    assert cloud not in only(name)
    assert problem == (
        f"decant:{name}: does not go with cloud {cloud}, only with {only(name)}\n      pulumi config rm decant:{name}"
    )


@pytest.mark.parametrize(
    ("key", "near"),
    [("worker", "workers"), ("adminCIDRs", "adminCidrs"), ("sshprivatekey", "sshPrivateKey"), ("regoin", "region"),
     ("healthpath", "healthPath"), ("Cloud", "cloud"), ("trustedProxy", "trustedProxies")],
)  # fmt: skip
def test_an_unknown_setting_is_refused_with_the_nearest_name(key: str, near: str) -> None:
    (problem,) = refused(droplet(**{key: CANARY}))
    assert (
        problem == f"decant:{key}: is not a setting; did you mean decant:{near}?\n      pulumi config rm decant:{key}"
    )


@pytest.mark.parametrize("name", ["zzz", "volumes", "database"])
def test_an_unknown_setting_like_no_other_is_refused_with_the_documentation(name: str) -> None:
    (problem,) = refused(droplet(**{name: CANARY}))
    assert problem.startswith(f"decant:{name}: is not a setting; ")
    assert problem.endswith(f"pulumi config rm decant:{name}")
    assert CANARY not in problem
    assert "docs/settings.md" in problem
    assert "did you mean" not in problem


def test_a_variable_in_env_and_in_secrets_is_refused() -> None:
    both = droplet(env={"A": "1", "B": "2", "KEY": "3"}, secrets={"KEY": CANARY, "B": CANARY, "C": "x"})
    problems = refused(both)
    assert [p.split(": ")[0] for p in problems] == ["decant:env.B", "decant:env.KEY"]
    for problem, name in zip(problems, ("B", "KEY"), strict=True):
        assert "is also in decant:secrets" in problem
        assert problem.endswith(f"pulumi config rm --path 'decant:env.{name}'")


def test_all_problems_are_reported_at_once() -> None:
    config = {
        "cloud": "digitalocean", "wrokers": 1, "workers": 0, "threads": 0, "size": "X!", "secrets": "{", "env": "{",
        "adminCidrs": ["::/0"], "url": "http://x.example.com", "database": "managed", "machines": 99, "app": "/srv",
    }  # fmt: skip
    problems = refused(config)
    assert {re.match(r"decant:(\w+)", p)[1] for p in problems} == set(config) - {"cloud"}  # type: ignore[index]


def test_nothing_is_concluded_from_a_cloud_that_is_wrong() -> None:
    problems = refused({"cloud": "azure", "url": "http://x.example.com", "region": "fra1"})
    assert len(problems) == 1


# ------------------------------------------------------------------------------------------------ fleets


def test_several_machines_without_a_balancer_are_refused_with_the_fix() -> None:
    (problem,) = refused(droplet(machines=3, balancer=False))
    assert problem == (
        "decant:balancer is false: must be true, or left out, with 3 machines\n      pulumi config rm decant:balancer"
    )
    (problem,) = refused(droplet(machines="many", balancer=False))
    assert problem.startswith("decant:machines is"), "the rule needs a valid number"


# ------------------------------------------------------------------------------------------------ a provider's own


def test_a_setting_that_the_provider_needs_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = ("PAPER_CLOUD_REGION", "PAPER_CLOUD_DEFAULT_REGION")
    spec = replace(CLOUDS["digitalocean"], provider={"digitalocean:region": (variables, "eu-central-1")})
    clouds = {**CLOUDS, "digitalocean": spec}
    expected = (
        "digitalocean:region: is required on digitalocean, and the environment does not count: the region in which the"
        " stack's machines are, or will be\n      pulumi config set digitalocean:region eu-central-1"
    )
    for variable in variables:
        monkeypatch.delenv(variable, raising=False)
    assert refused(droplet(), clouds=clouds) == [expected]
    assert refused(droplet(), clouds=clouds, providers={"region": "fra1", "aws:region": "fra1"}) == [expected]
    several = refused(droplet(workers=0), clouds=clouds)
    assert (len(several), several[1]) == (2, expected), "reported with all others, at once"
    made = read(droplet(), clouds=clouds, providers={"digitalocean:region": "fra1"})
    assert made.provider == {"region": "fra1"}
    assert read(ssh(), clouds=clouds).provider == {}, "another cloud's provider needs nothing here"
    for variable in variables:
        monkeypatch.setenv(variable, "nyc3")
        assert refused(droplet(), clouds=clouds) == [expected]
        assert refused(droplet(), clouds=clouds, providers={"digitalocean:region": "fra1"}) == [
            f"digitalocean:region is fra1: {variable} in the environment is nyc3. A stack stays where it is\n"
            f"      unset {variable}, or export {variable}=fra1"
        ]
        monkeypatch.setenv(variable, "fra1")
        read(droplet(), clouds=clouds, providers={"digitalocean:region": "fra1"})
        monkeypatch.setenv(variable, "")
        read(droplet(), clouds=clouds, providers={"digitalocean:region": "fra1"})


# ------------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize(("name", "value"), [("secrets", {"KEY": CANARY}), ("sshPrivateKey", PRIVATE + CANARY)])
def test_a_secret_in_clear_is_refused_and_not_shown(name: str, value: Any) -> None:
    (problem,) = refused((ssh if name == "sshPrivateKey" else droplet)(**{name: value}), SECRET_NAMES - {name})
    assert problem.startswith(f"decant:{name}: must be stored encrypted; it is in clear in the stack file")
    assert "pulumi config set --secret" in problem
    assert CANARY not in problem


ROOT = Authority().root
PLAIN = {
    "cloud": "digitalocean", "machines": "1", "size": "s-1vcpu-1gb", "region": "fra1", "image": "debian-13-x64",
    "cpuCredits": "standard", "balancer": "false", "adminCidrs": ["10.0.0.1/32"], "hosts": HOST["hosts"],
    "harden": "true",
    "trustedProxies": ["10.0.0.1/32"], "url": "http://www.example.com",
    "domain": "example.com", "redirects": ["www.example.com"], "dnsZone": "example.com", "https": "auto",
    "hsts": "true", "email": "ann@example.com", "acmeServer": "staging", "acmeRoot": ROOT, "certificate": ROOT,
    "resolvers": ["10.0.0.2"],
    "app": "app", "static": "static", "wsgiApp": "shop:app", "python": "3.12",
    "pythonMirror": "https://mirror.example.com", "build": "make", "persistent": ["uploads"], "maxBody": "1g",
    "requestTimeout": "60",
    "env": {"A": "b"}, "healthPath": "/healthz", "healthTimeout": "15", "workers": "1", "threads": "1",
    "rollout": "serial", "release": "0123456789ab", "review": {"days": 7},
}  # fmt: skip


def test_plain_names_every_setting_that_is_no_secret() -> None:
    assert set(PLAIN) | SECRET_NAMES == set(TABLE)
    assert {n for n, setting in TABLE.items() if setting.secret} == SECRET_NAMES


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_a_setting_that_is_no_secret_must_not_be_encrypted(name: str) -> None:
    site = {"domain": "example.com"} if name in SITE_SETTINGS else {}
    base = ssh() if name in ("hosts", "trustedProxies", "url") else droplet(**site)
    base = {"cloud": "aws"} if name == "cpuCredits" else base
    problems = refused({**base, name: PLAIN[name]}, SECRET_NAMES | {name})
    (problem,) = [p for p in problems if p.startswith(f"decant:{name}:")]
    assert "must not be stored encrypted: previews would hide it" in problem
    assert f"pulumi config rm decant:{name} && pulumi config set " in problem
    assert ("belong in decant:secrets" in problem) == (name == "env")


def wrong_with_canary(name: str) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Stacks in which a setting holds a secret value in the wrong way."""
    values: list[Any] = [
        CANARY, f'{{"A": "{CANARY}"', f'{{"A": ["{CANARY}"]}}', f'{{"A": {{"B": "{CANARY}"}}}}', f'["{CANARY}"]',
        f'{{"{CANARY[:6]} x": "{CANARY}"}}', f'{{"PORT": "{CANARY}"}}', json.dumps({"A": CANARY + "\0"}),
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----\n",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n", f"PRIVATE KEY-----{CANARY}",
        f'[{{"address": "{CANARY}", "hostKey": "{CANARY}"}}]', f"http://{CANARY}@x/", f"{CANARY}\n{CANARY}",
    ]  # fmt: skip
    for value in values:
        base = ssh() if name in ("sshPrivateKey", "hosts", "trustedProxies", "url") else droplet()
        config = {**base, name: value}
        yield config, SECRET_NAMES | {name}
        if name in SECRET_NAMES:
            yield config, SECRET_NAMES - {name}
            yield {**config, "cloud": "azure"}, SECRET_NAMES
            yield {**config, "env": {"A": "1"}}, SECRET_NAMES


@pytest.mark.parametrize("name", [*sorted(TABLE), "sshPrivateKye", "unknown"])
def test_no_problem_shows_a_secret(name: str) -> None:
    count = 0
    for config, secret in wrong_with_canary(name):
        try:
            made = read(config, secret)
        except SettingsError as error:
            said = str(error)
        else:
            said = repr(made)
        assert CANARY not in said
        count += 1
    assert count >= 14


def test_a_public_key_in_place_of_the_private_one_is_not_shown() -> None:
    (problem,) = refused(ssh(sshPrivateKey=PUBLIC))
    assert PUBLIC.split()[1] not in problem


def test_the_repr_of_settings_shows_no_secret() -> None:
    made = read(ssh(secrets={"KEY": CANARY}))
    assert made.secrets == {"KEY": CANARY}
    middle = PRIVATE.splitlines()[2]
    for text in (repr(made), str(made), f"{made}"):
        assert CANARY not in text
        assert middle not in text
