"""What `status`, `ps`, `releases` and `env` print."""

from __future__ import annotations

from typing import Any, cast

import pytest

from decant.verbs.overviews import env_text, ps_text, releases_text, status_text, warnings_of
from decant.verbs.units import duration, moment, size
from decant_host.protocol import Overview

LIVE, NEW, OLD = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
NOW = 1_700_000_000.0
GB = 1 << 30


def process(release: str, state: str, **changes: Any) -> dict[str, Any]:
    usual = {"kind": "web", "release": release, "state": state, "since": NOW - 7200, "memory": 52_428_800, "tasks": 9}
    return {**usual, "restarts": 0, **changes}


def machine(**changes: Any) -> Overview:
    usual: dict[str, Any] = {
        "machine": "web", "current": LIVE, "persisted": LIVE, "running": [LIVE], "releases": [LIVE, OLD],
        "confirmed": [LIVE, OLD], "lease": None, "in_rotation": True, "reverted": None, "time": NOW,
        "booted": NOW - 3 * 86400, "memory_total": 2 * GB, "memory_available": GB,
        "disks": [{"path": "/", "total": 10 * GB, "free": 5 * GB}], "processes": [process(LIVE, "live")],
        "history": [
            {"id": LIVE, "staged": NOW - 100, "confirmed": NOW - 50},
            {"id": OLD, "staged": NOW - 900, "confirmed": NOW - 800},
        ],
        "services": {"nginx.service": "active", "decant-firewall.service": "inactive"},
        "environment": {"KEY": "secret", "GREETING": "plain", "DATA_DIR": "decant"},
    }  # fmt: skip
    return cast(Overview, usual | changes)


def certificate(**changes: Any) -> dict[str, Any]:
    usual = {
        "state": "live",
        "names": ["example.com"],
        "missing": [],
        "not_before": NOW - 86400,
        "cause": "",
        "reason": "",
    }
    return {**usual, "not_after": NOW + 89 * 86400, **changes}


def test_the_status_of_a_healthy_machine() -> None:
    assert status_text({"web-1": machine(https=certificate())}, "https://example.com", "blue").splitlines() == [
        "https://example.com",
        "",
        "web-1",
        "  live         release aaaaaaaaaaaa, its process runs since 2023-11-14 20:13:20Z (2 h)",
        "  rotation     in",
        "  up           3 days, since 2023-11-11 22:13:20Z",
        "  memory       1.0 GB of 2.0 GB available",
        "  disk         /: 5.0 GB of 10.0 GB free",
        "  certificate  example.com until 2024-02-11 22:13:20Z (89 days)",
        "  lease        free",
        "",
        "nothing needs attention",
    ]


def test_the_status_of_a_machine_in_a_rollout() -> None:
    processes = [process(NEW, "unconfirmed"), process(LIVE, "draining"), process(LIVE, "active", kind="run")]
    found = machine(
        current=NEW,
        running=[NEW],
        processes=processes,
        lease={"owner": "carol@laptop", "since": NOW - 5},
        in_rotation=False,
    )
    text = status_text({"web-1": found}, "", "blue")
    assert "release bbbbbbbbbbbb, unconfirmed (confirmed is aaaaaaaaaaaa), its process runs since" in text
    assert "  beside it    aaaaaaaaaaaa draining\n" in text
    assert "  rotation     out\n" in text
    assert "  lease        held by carol@laptop since 2023-11-14 22:13:15Z\n" in text
    assert "none wanted on this machine" in text
    assert "nothing needs attention" in text


WARNINGS: list[tuple[dict[str, Any], str]] = [
    (
        {"current": NEW, "running": [NEW]},
        f"web-1: {NEW} is live and unconfirmed, and no rollout holds the machine. Run: make up STACK=blue",
    ),
    ({"running": []}, "web-1: the live release does not run. See why: fab logs --stack blue --machine web-1"),
    (
        {"reverted": {"from": NEW, "to": LIVE, "because": "no confirm came"}},
        f"web-1 went back from {NEW} to {LIVE}: no confirm came. See: fab logs --stack blue --release {NEW}",
    ),
    ({"disks": [{"path": "/", "total": 100, "free": 20}]}, "web-1: / is 80 % full."),
    (
        {"services": {"nginx.service": "failed"}},
        "web-1: nginx.service is failed. See: fab logs --stack blue --source error --machine web-1",
    ),
    (
        {"https": certificate(state="failed", reason="it was refused")},
        "web-1: there is no certificate (failed): it was",
    ),
    (
        {"https": certificate(not_before=NOW - 61 * 86400, not_after=NOW + 29 * 86400)},
        "the certificate ends in 29 days",
    ),
]


@pytest.mark.parametrize(("changes", "warning"), WARNINGS)
def test_what_needs_attention_is_told(changes: dict[str, Any], warning: str) -> None:
    (found,) = warnings_of({"web-1": machine(**changes)}, "blue")
    assert warning in found
    assert f"warning: {found}" in status_text({"web-1": machine(**changes)}, "", "blue")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"current": None, "persisted": None, "running": []},
        {"disks": [{"path": "/", "total": 100, "free": 21}, {"path": "/x", "total": 0, "free": 0}]},
        {"https": certificate(not_before=NOW - 59 * 86400, not_after=NOW + 31 * 86400)},
        {"https": certificate(state="off")},
    ],
)
def test_what_is_well_is_no_warning(changes: dict[str, Any]) -> None:
    assert list(warnings_of({"web-1": machine(**changes)}, "blue")) == []


def test_machines_that_differ_are_told() -> None:
    found = {"web-1": machine(), "web-2": machine(current=OLD, persisted=OLD, running=[OLD])}
    assert list(warnings_of(found, "blue")) == [
        f"the machines serve different releases: {LIVE}, {OLD}. Run: make up STACK=blue"
    ]


def test_the_processes_of_two_machines() -> None:
    found = {
        "web-1": machine(),
        "web-10": machine(
            processes=[process(OLD, "active", kind="run", since=None, memory=None, tasks=None, restarts=3)]
        ),
    }
    assert ps_text(found).splitlines() == [
        "machine  process  release       state   for  memory  tasks  restarts",
        "web-1    web      aaaaaaaaaaaa  live    2 h  50 MB   9      0",
        "web-10   run      cccccccccccc  active  -    -       -      3",
    ]


def test_the_releases_of_two_machines() -> None:
    staged = {"id": NEW, "staged": NOW, "confirmed": None}
    history = machine()["history"]
    found = {
        "web-1": machine(history=[staged, *history], confirmed=[LIVE, OLD]),
        "web-2": machine(history=history[:1], confirmed=[LIVE]),
    }
    rows = [line.split("  ") for line in releases_text(found).splitlines()]
    states = {row[0]: [cell.strip() for cell in row if cell.strip()][-2:] for row in rows}
    assert states == {
        "release": ["state", "on"],
        NEW: ["never live", "web-1"],
        LIVE: ["live", "all machines"],
        OLD: ["was not live on every machine", "web-1"],
    }
    both = {"web-1": machine(), "web-2": machine(current=OLD, persisted=OLD)}
    assert "live on web-1" in releases_text(both)
    assert "can be gone back to" in releases_text({"web-1": machine()})


def test_variables_have_their_sources() -> None:
    found = {"web-1": machine(), "web-2": machine(environment={"KEY": "secret"})}
    assert env_text(found).splitlines() == [
        "variable  from                         on",
        "DATA_DIR  Decant                       web-1",
        "GREETING  decant:env or the web: line  web-1",
        "KEY       decant:secrets               all machines",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (172_800, "2 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_moments() -> None:
    assert [size(None), size(0), size(999 << 20), size(1000 << 20), size(5 * GB)] == [
        "-",
        "0 MB",
        "999 MB",
        "1.0 GB",
        "5.0 GB",
    ]
    assert (moment(None), moment(0)) == ("-", "1970-01-01 00:00:00Z")
