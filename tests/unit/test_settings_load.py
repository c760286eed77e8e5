"""Loading of settings: defaults, warnings, and what Pulumi hands over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest

from decant.errors import SettingsError
from decant.settings import Settings
from decant.settings.load import check, load
from tests.support.in_memory import HOST, PRIVATE
from tests.support.stack_settings import CANARY, CLOUDS, TABLE, droplet, hosts, read, ssh


def test_where_the_app_is_stays_known_beside_other_problems() -> None:
    def checked(**raw: str) -> Any:
        return check({"cloud": "digitalocean", **raw}, frozenset(), stack="paper", clouds=CLOUDS)

    wrong = checked(workers="0", app="shop", static="public")
    assert (wrong.settings, wrong.app_folder, wrong.app.static) == (None, Path("shop"), "public")
    assert [p.setting for p in wrong.problems] == ["decant:workers", "decant:adminCidrs"]
    assert checked().app_folder == Path("app")
    assert checked(app="/srv").app_folder is None
    assert checked(static="..").app_folder is None


def test_the_stacks_name_is_kept() -> None:
    assert read(droplet()).stack == "paper"


def test_any_setting_may_have_a_default_of_the_cloud() -> None:
    spec = CLOUDS["digitalocean"]
    clouds = {**CLOUDS, "digitalocean": replace(spec, defaults={**spec.defaults, "rollout": "parallel", "threads": 4})}
    assert (read(droplet(), clouds=clouds).rollout, read(droplet(), clouds=clouds).threads) == ("parallel", 4)
    assert read(droplet(rollout="serial"), clouds=clouds).rollout == "serial"


def test_one_machine_gives_no_warning() -> None:
    for config in (droplet(), droplet(balancer=True), ssh(), ssh(url="http://www.example.com")):
        assert read(config).warnings == ()


def test_several_machines_are_warned_that_they_share_no_files() -> None:
    for count, config in ((2, droplet(machines=2)), (3, ssh(hosts=hosts("a", "b", "c"), url="http://www.example.com"))):
        (warning,) = read(config).warnings
        assert warning.startswith(f"{count} machines: ")
        assert "$DATA_DIR" in warning
        assert "database" in warning


def test_an_https_url_without_a_proxy_that_says_so_is_warned_of() -> None:
    """nginx takes the visits of a proxy that it does not know for http."""
    (warning,) = read(ssh(url="https://www.example.com")).warnings
    assert warning.startswith("decant:url is https and decant:trustedProxies is empty: ")
    assert warning.endswith("pulumi config set --path 'decant:trustedProxies[0]' 10.0.0.5/32")
    assert read(ssh(url="https://www.example.com", trustedProxies=["10.0.0.5/32"])).warnings == ()
    assert read(ssh(url="http://www.example.com")).warnings == ()


def test_several_hosts_without_a_url_are_warned() -> None:
    data, public = read(ssh(hosts=hosts("a", "b"))).warnings
    assert "$DATA_DIR" in data
    assert public.startswith("2 hosts and no decant:url: the URL is the address of one of them")
    assert TABLE["url"].command in public
    assert TABLE["trustedProxies"].command in public


def test_the_settings_of_a_provider_are_kept_and_not_shown() -> None:
    made = read(droplet(), providers={"digitalocean:token": CANARY, "digitalocean:apiEndpoint": "x"})
    assert made.provider == {"token": CANARY, "apiEndpoint": "x"}
    assert CANARY not in repr(made)


# ------------------------------------------------------------------------------------------------ through Pulumi


def loaded(**options: Any) -> Settings:
    """The settings of the stack that Pulumi is running; it must be right."""
    checked = load(CLOUDS, **options)
    assert checked.settings is not None, checked.problems
    return checked.settings


@pytest.fixture
def pulumi_side(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set a stack's configuration as Pulumi does, and take it back."""
    monkeypatch.setattr(pulumi, "get_stack", lambda: "blue")
    yield pulumi.runtime.set_all_config
    pulumi.runtime.set_all_config({}, [])


def test_load_reads_pulumis_configuration(pulumi_side: Any) -> None:
    pulumi_side(
        {
            "decant:cloud": "ssh",
            "decant:hosts": json.dumps(HOST["hosts"]),
            "decant:sshPrivateKey": PRIVATE,
            "decant:secrets": json.dumps({"KEY": CANARY}),
            "decant:workers": "3",
            "aws:region": "eu-central-1",
            "digitalocean:token": CANARY,
        },
        ["decant:sshPrivateKey", "decant:secrets", "digitalocean:token"],
    )
    made = loaded()
    assert (made.stack, made.cloud, made.workers, made.secrets) == ("blue", "ssh", 3, {"KEY": CANARY})
    assert made.hosts[0].user == "carol"


def test_load_keeps_a_providers_settings_and_their_secrecy(pulumi_side: Any) -> None:
    pulumi_side(
        {
            "decant:cloud": "digitalocean",
            "decant:adminCidrs": '["10.0.0.1/32"]',
            "digitalocean:token": CANARY,
            "digitalocean:apiEndpoint": "https://api.example.com",
            "digitaloceans:token": "another's",
            "aws:region": "eu-central-1",
        },
        ["digitalocean:token"],
    )
    provider = loaded().provider
    assert set(provider) == {"token", "apiEndpoint"}
    assert provider["apiEndpoint"] == "https://api.example.com"
    token = provider["token"]
    assert isinstance(token, pulumi.Output)
    run = asyncio.get_event_loop().run_until_complete
    assert run(token.is_secret())
    assert run(token.future()) == CANARY


def test_load_sees_what_is_stored_in_clear(pulumi_side: Any) -> None:
    pulumi_side({"decant:cloud": "digitalocean", "decant:adminCidrs": '["10.0.0.1/32"]', "decant:secrets": "{}"}, [])
    (problem,) = load(CLOUDS).problems
    assert str(problem).startswith("decant:secrets: must be stored encrypted")


def test_load_reads_the_environment_that_pulumi_sets(pulumi_side: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps({"decant:cloud": "digitalocean", "decant:secrets": '{"K": "v"}'}))
    monkeypatch.setenv("PULUMI_CONFIG_SECRET_KEYS", json.dumps(["decant:secrets"]))
    pulumi_side({"decant:adminCidrs": '["10.0.0.1/32"]'}, [])
    assert loaded().secrets == {"K": "v"}


def test_load_reports_all_problems(pulumi_side: Any) -> None:
    pulumi_side({"decant:workers": "0"}, [])
    checked = load(CLOUDS)
    assert checked.settings is None
    assert [problem.setting for problem in checked.problems] == ["decant:cloud", "decant:workers"]


def test_load_takes_the_networks_of_a_rehearsal(pulumi_side: Any) -> None:
    pulumi_side({"decant:cloud": "digitalocean", "decant:adminCidrs": '["198.51.100.32/27"]'}, [])
    assert load(CLOUDS).settings is None
    assert loaded(example_networks=["198.51.100.32/27"]).admin_cidrs == ("198.51.100.32/27",)


def test_the_error_of_a_stack_has_its_problems() -> None:
    with pytest.raises(SettingsError) as caught:
        read(droplet(workers=0, threads=0))
    assert [problem.setting for problem in caught.value.problems] == ["decant:workers", "decant:threads"]


def test_the_app_is_read_with_the_knowledge_of_a_build() -> None:
    assert read(droplet(build="npm ci")).app.build is True
    assert read(droplet()).app.build is False
