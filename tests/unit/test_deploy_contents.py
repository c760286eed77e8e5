"""What a release holds, as it is recorded and as a preview tells it."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decant.deploy import contents
from decant.deploy.contents import Preview, Record, decode, encode, key_digest, read_preview
from rehearsal.doubles import key_pair
from tests.support import in_memory
from tests.support.in_memory import APP, DROPLET, HOST, Run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CANARIES = {"SECRET_KEY": "canary-6b1f-key", "MAIL": "canary-7d2e"}
Start = Callable[..., Run]


@pytest.fixture
def last(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The outputs of the stack's last run."""
    found: dict[str, Any] = {}

    async def last_output(name: str) -> Any:
        await asyncio.sleep(0)
        return found.get(name)

    monkeypatch.setattr(contents, "last_output", last_output)
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: dict[str, Any]) -> Start:
    """Run the program once, with an app of `files`."""
    count = iter(range(100))

    def start(
        config: dict[str, Any] = HOST, *, files: dict[str, str] | None = None, preview: bool = False, **more: Any
    ) -> Run:
        folder = in_memory.project(tmp_path / str(next(count)), {**APP, **(files or {})})
        return in_memory.run_program(folder, {**config, **more}, monkeypatch, preview=preview)

    return start


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "told"
    monkeypatch.setenv(contents.PREVIEW_VARIABLE, str(path))
    return path


def record(done: Run) -> Record:
    found = decode(done.exports["contents"].value)
    assert found is not None
    return found


def preview(told: Path) -> Preview:
    found = read_preview(told)
    assert found is not None
    return found


# ------------------------------------------------------------------------------------------------ the record


def test_a_release_is_recorded_as_a_secret(run: Start) -> None:
    done = run(
        files={"Procfile": "release: flask db upgrade\n", ".python-version": "3.13\n"}, env={"A": "1"}, secrets=CANARIES
    )
    assert done.exports["contents"].secret
    made = record(done)
    live = made["live"]
    assert live is not None
    assert (live["release"], live["commit"]) == (done.exports["release"].value, None)
    assert (live["entry"], live["python"], live["release_command"]) == ("wsgi:app", "3.13", "flask db upgrade")
    assert sorted(live["files"]) == sorted({**APP, "Procfile": "", ".python-version": ""})
    assert live["packages"]["flask"]
    assert sorted(live["variables"]) == ["A"]
    assert sorted(live["secrets"]) == ["MAIL", "SECRET_KEY"]
    assert {"gunicorn", "static", "runtime", "debian_packages"} <= live["serving"].keys()
    assert not {"entry", "python", "release_command", "workers", "health_path"} & live["serving"].keys()
    assert sorted(made["settings"]) == ["decant:cloud", "decant:hosts", "decant:sshPrivateKey"]
    assert (made["history"], made["before"]) == ([live["release"]], None)


def test_no_value_is_in_the_record(run: Start) -> None:
    text = json.dumps(record(run(env={"A": "canary-variable"}, secrets=CANARIES)))
    assert "canary" not in text
    assert "PRIVATE" not in text


def test_equal_values_of_two_names_have_different_digests(run: Start) -> None:
    live = record(run(env={"A": "same", "B": "same"}, secrets={"C": "same"}))["live"]
    assert live is not None
    assert len({*live["variables"].values(), *live["secrets"].values()}) == 3


def test_a_digest_needs_the_stacks_key(run: Start, tmp_path: Path) -> None:
    one = record(run(secrets=CANARIES))
    again = record(run(secrets=CANARIES))
    other = record(run(secrets=CANARIES, sshPrivateKey=key_pair()[0]))
    assert one["live"] is not None
    assert other["live"] is not None
    assert one == again
    assert one["key"] != other["key"]
    assert one["live"]["secrets"]["MAIL"] != other["live"]["secrets"]["MAIL"]


def test_a_change_shows_in_its_own_digest_alone(run: Start) -> None:
    one = record(run(env={"A": "1", "B": "2"}, secrets=CANARIES, workers=2))
    two = record(run(env={"A": "1", "B": "3"}, secrets={**CANARIES, "MAIL": "new"}, workers=3))
    assert one["live"] is not None
    assert two["live"] is not None
    for kind in ("variables", "secrets"):
        differ = {name for name in one["live"][kind] if one["live"][kind][name] != two["live"][kind][name]}
        assert differ == {"variables": {"B"}, "secrets": {"MAIL"}}[kind]
    assert {n for n in one["settings"] if one["settings"][n] != two["settings"][n]} == {"decant:workers"}
    assert one["live"]["serving"] == two["live"]["serving"]


# ------------------------------------------------------------------------------------------------ one up after another


def test_the_next_release_keeps_the_one_before(run: Start, last: dict[str, Any]) -> None:
    one = record(run())
    last["contents"] = encode(one)
    two = record(run(files={"new.py": ""}))
    assert two["before"] == one["live"]
    assert two["live"] is not None
    assert two["history"] == [two["live"]["release"], *one["history"]]
    last["contents"] = encode(two)
    assert record(run(files={"new.py": ""})) == two, "the same release changes nothing"


def test_the_commit_is_that_of_the_first_deploy(
    run: Start, last: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that changes nothing of the release would else change the output."""
    monkeypatch.setattr(contents, "commit_of", lambda folder: "first")
    one = record(run())
    last["contents"] = encode(one)
    monkeypatch.setattr(contents, "commit_of", lambda folder: "second")
    assert record(run()) == one
    new = record(run(files={"new.py": ""}))["live"]
    assert new is not None
    assert new["commit"] == "second"


def test_five_releases_are_remembered_and_none_twice(run: Start, last: dict[str, Any]) -> None:
    seen: list[str] = []
    for number in range(6):
        made = record(run(files={"new.py": f"{number}\n"}))
        seen.insert(0, made["history"][0])
        last["contents"] = encode(made)
    assert made["history"] == seen[:5]
    back = record(run(files={"new.py": "3\n"}))
    assert back["history"] == [seen[2], *[one for one in seen[:5] if one != seen[2]]]


def test_going_back_takes_what_was_recorded(run: Start, last: dict[str, Any]) -> None:
    one = record(run())
    last["contents"] = encode(one)
    two = record(run(files={"new.py": ""}))
    last["contents"] = encode(two)
    back = record(run(files={"newest.py": ""}, release=one["history"][0]))
    assert (back["live"], back["before"]) == (one["live"], two["live"])
    assert back["history"] == [one["history"][0], two["history"][0]]
    assert "decant:release" not in back["settings"]


def test_a_release_that_nobody_recorded_stays_unknown(run: Start, last: dict[str, Any]) -> None:
    last["contents"] = encode(record(run()))
    back = record(run(release="0123456789ab"))
    assert back["live"] is None
    assert back["history"][0] == "0123456789ab"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no base64",
        base64.b64encode(b"not compressed").decode(),
        base64.b64encode(zlib.compress(b"[]")).decode(),
        base64.b64encode(zlib.compress(b'{"format": 2}')).decode(),
        {"a": 1},
    ],
)
def test_a_record_that_cannot_be_read_is_none(text: Any) -> None:
    assert decode(text) is None


# ------------------------------------------------------------------------------------------------ the preview


def test_a_preview_tells_the_same_as_the_up_records(run: Start, told: Path) -> None:
    more: dict[str, Any] = {"env": {"A": "1"}, "secrets": CANARIES, "workers": 2}
    done = record(run(**more))
    run(preview=True, **more)
    found = preview(told)
    assert found["contents"] == done["live"]
    assert (found["settings"], found["key"], found["pinned"]) == (done["settings"], done["key"], None)


def test_only_the_user_can_read_what_a_preview_tells(run: Start, told: Path) -> None:
    run(preview=True, secrets=CANARIES)
    assert stat.S_IMODE(told.stat().st_mode) == 0o600
    assert "canary" not in told.read_text()
    assert [path.name for path in told.parent.glob("told*")] == ["told"]


def test_a_new_stack_has_no_key_and_so_no_digests(run: Start, told: Path) -> None:
    run(DROPLET, preview=True, env={"A": "1"}, secrets=CANARIES)
    found = preview(told)
    assert found["key"] == ""
    assert found["contents"]["secrets"] == {"MAIL": "", "SECRET_KEY": ""}
    assert found["contents"]["variables"] == {"A": ""}
    assert found["contents"]["release"] == "", "it depends on the key"
    assert found["cost"] is not None
    assert found["cost"]["usdPerMonth"] == 6.0


def test_without_secrets_a_new_stack_knows_the_release(run: Start, told: Path) -> None:
    done = run(DROPLET)
    run(DROPLET, preview=True)
    assert preview(told)["contents"]["release"] == done.exports["release"].value


def test_a_preview_tells_of_a_pin(run: Start, told: Path) -> None:
    run(preview=True, release="0123456789ab")
    assert preview(told)["pinned"] == "0123456789ab"


def test_an_up_tells_no_file(run: Start, told: Path) -> None:
    run()
    assert not told.exists()


def test_a_preview_without_the_variable_writes_nothing(run: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(contents.PREVIEW_VARIABLE, raising=False)
    monkeypatch.setattr(contents, "_write_preview", lambda *_: pytest.fail("written"))
    run(preview=True)


def test_a_key_digest_reveals_no_key() -> None:
    assert key_digest("a key") == key_digest("a key") != key_digest("another key")
    assert key_digest("") == ""
    assert len(key_digest("a key")) == 16
