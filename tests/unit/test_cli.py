"""`make up`, `make preview`, `make destroy`: what they ask of the Pulumi CLI, and the summary at the end."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from decant.cli import __main__ as cli
from decant.cli import rollback, summary
from decant.cli.pulumi_cli import PulumiCli, check_state, find_cli
from decant.errors import NoRollbackError, NotServingError, StackError
from decant.rollout.http_probe import ProbeResult
from decant.rollout.route import Route
from decant.settings import project
from decant.settings.project import PROJECT
from decant.ssh.drain import SKIP_VARIABLE

RELEASE = "0123456789ab"
OUTPUTS = {
    "url": "http://203.0.113.7",
    "release": RELEASE,
    "machines": [{"name": "web-1", "address": "203.0.113.7", "id": "4"}],
    "ssh": "[secret]",
}
LOCAL = '{"user": "carol", "url": "file://~"}'
KEY = "awskms://alias/decant-state?region=eu-central-1&context_stack="
SERVICE = '{"user": "carol", "url": "https://app.pulumi.com/carol"}'


class Pulumi:
    """A stand-in for the CLI: a script that notes its words and answers from files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "pulumi"
        self.path.write_text(
            '#!/bin/sh\necho "$@" >>"$0.said"\n'
            '[ "$1" = -C ] && shift 2; [ "$1" = --non-interactive ] && shift\n'
            'key=$(echo "$1 $2" | tr -c "a-z\\n" -)\n'
            '[ -e "$0.$key" ] || [ -e "$0.$key.fails" ] || key=$1\n'
            '[ -e "$0.$key" ] && cat "$0.$key"\n'
            '[ -e "$0.$key.fails" ] && { cat "$0.$key.fails" >&2; exit 7; }\nexit 0\n'
        )
        self.path.chmod(0o755)
        self.answer("version", "v3.265.0\n")
        self.answer("whoami", SERVICE)
        self.answer("stack-ls", json.dumps([{"name": "organization/decant/dev"}, {"name": "prod"}]))
        self.answer("stack-output", json.dumps(OUTPUTS))
        self.answer("stack-export", json.dumps({"deployment": {}}))
        self.answer("config", "{}")

    def answer(self, verb: str, text: str, *, fails: bool = False) -> None:
        (self.folder / f"pulumi.{verb}{'.fails' if fails else ''}").write_text(text)

    @property
    def said(self) -> list[str]:
        """Each call without the project's folder."""
        file = self.folder / "pulumi.said"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.removeprefix(f"-C {PROJECT} ").removeprefix("--non-interactive ") for line in lines]


@pytest.fixture
def pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pulumi:
    made = Pulumi(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return made


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the public URL gives."""

    def set_answer(status: int = 200, release: str = RELEASE, why: str = "") -> None:
        seen = ProbeResult(
            status=status, release=release, machine="", why=why or f"status {status}", at=0.0, seconds=0.0123
        )
        monkeypatch.setattr(summary, "probe", lambda url, route: seen)

    set_answer()
    return set_answer


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(pulumi: Pulumi, answering: object, capfd: pytest.CaptureFixture[str]) -> Say:
    def run(*words: str) -> tuple[int, str, str]:
        status = cli.main(words)
        return (status, *capfd.readouterr())

    return run


# ------------------------------------------------------------------------------------------------ the CLI


def test_find_cli_takes_the_one_on_path_or_in_its_usual_place(
    pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert find_cli() == str(pulumi.path)
    usual = tmp_path / "home" / ".pulumi" / "bin"
    usual.mkdir(parents=True)
    there = Pulumi(usual)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert find_cli() == str(there.path)


@pytest.mark.parametrize(
    "version", ["v3.200.0", "v3.265.1", "3.300.0", "v4.0.0", "v3.999.0-alpha.1+abc", "v3.201.0+dirty"]
)
def test_find_cli_takes_versions_that_are_new_enough(pulumi: Pulumi, version: str) -> None:
    pulumi.answer("version", version + "\n")
    assert find_cli() == str(pulumi.path)


def test_find_cli_takes_a_version_that_it_cannot_read(pulumi: Pulumi) -> None:
    pulumi.answer("version", "dev build\n")
    assert find_cli() == str(pulumi.path)


def test_pulumi_finds_its_plugins_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of an installation in ~/.pulumi need not be on PATH."""
    monkeypatch.setenv("PATH", "/usr/bin")
    assert PulumiCli(str(tmp_path / "bin" / "pulumi")).environment["PATH"] == f"{tmp_path}/bin:/usr/bin"


def test_a_command_whose_output_is_read_asks_nothing(pulumi: Pulumi) -> None:
    """Nobody would see the question."""
    PulumiCli(str(pulumi.path)).capture("whoami")
    assert (pulumi.folder / "pulumi.said").read_text() == f"-C {PROJECT} --non-interactive whoami\n"


@pytest.mark.parametrize("version", ["v3.199.9", "v2.25.0", "v3.99.0-alpha.1"])
def test_find_cli_refuses_old_versions_with_the_way_to_install(pulumi: Pulumi, version: str) -> None:
    pulumi.answer("version", version + "\n")
    with pytest.raises(StackError, match=rf"(?s)is Pulumi {version}; Decant needs 3\.200\.0 or newer.*docs/install"):
        find_cli()


def test_an_installer_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pulumi.automation

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("\n\nno route to host\nmore")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(pulumi.automation.PulumiCommand, "install", fails)
    with pytest.raises(StackError, match=r"could not be installed \(no route to host\)\.\nInstall it as https"):
        find_cli()


# ------------------------------------------------------------------------------------------------ state


def test_up_without_a_login_explains_where_state_may_live(pulumi: Pulumi, say: Say) -> None:
    pulumi.answer("whoami", "not logged in", fails=True)
    status, _, err = say("up", "dev")
    assert status == 1
    for word in ("pulumi login --local", "pulumi login s3://", "docs/state.md"):
        assert word in err
    assert not any(line.startswith("up") for line in pulumi.said)


@pytest.mark.parametrize("variable", ["", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
@pytest.mark.parametrize("where", [LOCAL, SERVICE])
def test_a_passphrase_is_needed_where_pulumi_keeps_no_keys(
    pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch, where: str, variable: str
) -> None:
    pulumi.answer("whoami", where)
    if variable:
        monkeypatch.setenv(variable, "")  # an empty passphrase is one
    if where == SERVICE or variable:
        check_state(PulumiCli(str(pulumi.path)), "dev")
    else:
        with pytest.raises(StackError, match="PULUMI_CONFIG_PASSPHRASE"):
            check_state(PulumiCli(str(pulumi.path)), "dev")


def test_a_stack_whose_secrets_a_key_encrypts_needs_no_passphrase(
    pulumi: Pulumi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pulumi.answer("whoami", LOCAL)
    monkeypatch.setattr(project, "PROJECT", tmp_path)
    (tmp_path / "Pulumi.dev.yaml").write_text(f"secretsprovider: {KEY}dev\n")
    (tmp_path / "Pulumi.old.yaml").write_text("encryptionsalt: v1:abc\n")
    check_state(PulumiCli(str(pulumi.path)), "dev")
    with pytest.raises(StackError, match=r"(?s)PULUMI_CONFIG_PASSPHRASE.*make ci-init"):
        check_state(PulumiCli(str(pulumi.path)), "old")


def test_a_new_stack_is_made_with_the_key_in_its_file(
    pulumi: Pulumi, say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`pulumi stack init` takes a passphrase where it is told of nothing else, whatever the file says."""
    monkeypatch.setattr(project, "PROJECT", tmp_path)
    (tmp_path / "Pulumi.qa.yaml").write_text(f"secretsprovider: {KEY}qa\n")
    _, out, _ = say("preview", "qa")
    assert f"stack init qa --no-select --secrets-provider={KEY}qa" in pulumi.said
    assert f"Stack qa is new; its settings are in Pulumi.qa.yaml. Its secrets are encrypted by {KEY}qa." in out
    say("preview", "qb")
    assert f"stack init qb --no-select --secrets-provider={KEY}qb" in pulumi.said


def test_a_new_stack_without_a_key_is_made_as_ever(
    pulumi: Pulumi, say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(project, "PROJECT", tmp_path)
    _, out, _ = say("preview", "qa")
    assert "stack init qa --no-select" in pulumi.said
    assert out.startswith("Stack qa is new; its settings are in Pulumi.qa.yaml.\n")


# ------------------------------------------------------------------------------------------------ the verbs


def test_up_of_a_known_stack_ends_with_the_summary(pulumi: Pulumi, say: Say) -> None:
    status, out, _ = say("up", "dev", "--", "--yes", "--skip-preview")
    assert status == 0
    assert pulumi.said[-2:] == ["up --stack dev --yes --skip-preview", "stack output --json --stack dev"]
    assert not any("init" in line for line in pulumi.said)
    for word in ("Stack dev is live", "http://203.0.113.7/", f"release {RELEASE}", "web-1 (203.0.113.7)", "12 ms",
                 "make destroy STACK=dev", "make rollback STACK=dev"):  # fmt: skip
        assert word in out
    assert "[secret]" not in out


@pytest.mark.parametrize("verb", ["up", "preview"])
def test_up_and_preview_make_a_new_stack(pulumi: Pulumi, say: Say, verb: str) -> None:
    status, out, _ = say(verb, "staging")
    assert status == 0
    assert "stack init staging --no-select" in pulumi.said
    assert "Stack staging is new; its settings are in Pulumi.staging.yaml." in out


def test_a_stack_that_cannot_be_made_is_named(pulumi: Pulumi, say: Say) -> None:
    pulumi.answer("stack-init", "names may only contain", fails=True)
    status, _, err = say("up", "no good")
    assert status == 1
    assert "Stack no good could not be made: names may only contain" in err


def test_destroy_makes_no_stack(pulumi: Pulumi, say: Say) -> None:
    status, _, err = say("destroy", "staging")
    assert status == 1
    assert "There is no stack staging in this state; there are: dev, prod." in err
    assert not any("init" in line or line.startswith("destroy") for line in pulumi.said)


@pytest.mark.parametrize(("verb", "told"), [("destroy", "yes"), ("up", "")])
def test_only_a_destroy_sets_the_skip_variable(pulumi: Pulumi, say: Say, verb: str, told: str) -> None:
    pulumi.path.write_text(
        pulumi.path.read_text().replace("#!/bin/sh\n", f'#!/bin/sh\necho "${SKIP_VARIABLE}" >"$0.env"\n')
    )
    say(verb, "dev")
    env = (pulumi.folder / "pulumi.env").read_text().strip()
    assert env == told
    if verb == "destroy":
        assert "destroy --stack dev --refresh" in pulumi.said


def test_a_state_that_cannot_be_read_is_an_error_without_a_traceback(pulumi: Pulumi, say: Say) -> None:
    pulumi.answer("stack-ls", "403 Forbidden", fails=True)
    pulumi.answer("stack-output", "403 Forbidden", fails=True)
    status, _, err = say("up", "dev")
    assert status == 1
    assert "Pulumi cannot read its state: 403 Forbidden" in err
    assert "pulumi login" in err


def test_outputs_that_cannot_be_read_are_an_error_without_a_traceback(pulumi: Pulumi, say: Say) -> None:
    pulumi.answer("stack-output", "no such backend", fails=True)
    (pulumi.folder / "pulumi.stack-output").unlink()
    status, _, err = say("up", "dev")
    assert (status, err.strip()) == (1, "no such backend")


def test_a_failure_is_not_buried_under_that_of_its_explanation(pulumi: Pulumi, say: Say) -> None:
    pulumi.answer("destroy", "its own reason", fails=True)
    pulumi.answer("stack-export", "no such backend", fails=True)
    (pulumi.folder / "pulumi.stack-export").unlink()
    status, _, err = say("destroy", "dev")
    assert (status, err.strip()) == (7, "its own reason")


def test_settings_that_cannot_be_read_are_an_error_without_a_traceback(pulumi: Pulumi, say: Say) -> None:
    pulumi.answer("config", "incorrect passphrase", fails=True)
    (pulumi.folder / "pulumi.config").unlink()
    status, _, err = say("destroy", "dev")
    assert (status, err.strip()) == (1, "The settings of stack dev cannot be read: incorrect passphrase")
    assert not any(line.startswith("destroy") for line in pulumi.said)


def test_preview_and_destroy_show_no_summary(pulumi: Pulumi, say: Say) -> None:
    for verb in ("preview", "destroy"):
        status, out, _ = say(verb, "dev")
        assert status == 0
        assert "is live" not in out
    # A preview compares with what is live. Before a destroy, the certificate is asked for.
    assert [line for line in pulumi.said if "output" in line] == [
        "stack output --json --stack dev",
        "stack output contents --show-secrets --stack dev",
        "stack output --json --stack dev",
    ]


def test_a_command_whose_output_is_kept_asks_nothing_and_is_shown(
    pulumi: Pulumi, capfd: pytest.CaptureFixture[str]
) -> None:
    pulumi.answer("preview", "one\n\u2192 two\n")
    pulumi.answer("preview", "to standard error\n", fails=True)
    status, kept = PulumiCli(str(pulumi.path)).run_and_keep(
        "preview", "--diff", hide=lambda line: line.replace("two", "[secret]")
    )
    assert (status, kept) == (7, "one\n\u2192 [secret]\nto standard error\n")
    assert capfd.readouterr() == (kept, "")
    said = (pulumi.folder / "pulumi.said").read_text()
    assert said == f"-C {project.PROJECT} --non-interactive preview --diff --color never\n"


def test_a_broken_state_of_another_stack_stops_no_command(pulumi: Pulumi, say: Say) -> None:
    """A job of any branch may write the state of a review stack, and `pulumi stack ls` reads all."""
    pulumi.answer("stack-ls", "error: place 1: invalid character 'b'", fails=True)
    pulumi.answer("stack-output", json.dumps({"release": "0" * 12}))
    assert say("destroy", "dev")[0] == 0
    pulumi.answer("stack-output", "error: no stack named 'dev' found", fails=True)
    status, _, err = say("destroy", "dev")
    assert status == 1
    assert "Pulumi cannot read its state: error: place 1" in err


def test_a_preview_that_cannot_begin_is_written_as_markdown(pulumi: Pulumi, say: Say, tmp_path: Path) -> None:
    pulumi.answer("stack-ls", "403 Forbidden <b>", fails=True)
    pulumi.answer("stack-output", "403 Forbidden <b>", fails=True)
    file = tmp_path / "preview.md"
    status, _, err = say("--markdown", str(file), "preview", "dev")
    assert status == 1
    assert "Pulumi cannot read its state: 403 Forbidden <b>" in err
    text = file.read_text()
    assert text.startswith("## Preview of stack `dev`\n\n**The preview failed.")
    assert "\n```text\nPulumi cannot read its state: 403 Forbidden <b>\n" in text


def test_markdown_that_cannot_be_written_is_told(pulumi: Pulumi, say: Say, tmp_path: Path) -> None:
    status, _, err = say("--markdown", str(tmp_path / "missing" / "preview.md"), "preview", "dev")
    assert status == 1
    assert err.count("preview.md: it cannot be written (No such file or directory).") == 2
    assert "Traceback" not in err


def test_a_failed_verb_exits_with_pulumis_status(pulumi: Pulumi, say: Say) -> None:
    for verb in ("up", "preview", "destroy"):
        pulumi.answer(verb, "", fails=True)
        status, out, _ = say(verb, "dev")
        assert status == 7
        assert "is live" not in out


def test_a_failed_destroy_prints_how_to_let_go_of_a_host(pulumi: Pulumi, say: Say) -> None:
    urn = "urn:pulumi:dev::decant::decant:clouds:Ssh$x$command:remote:Command::shop-cleanup"
    others = [{"urn": urn.replace("-cleanup", "-provision")}, {"urn": urn}]
    pulumi.answer("destroy", "", fails=True)
    pulumi.answer("stack-export", json.dumps({"deployment": {"resources": others}}))
    _, _, err = say("destroy", "dev")
    assert f"pulumi state delete --stack dev --target-dependents --yes '{urn}'" in err
    assert "make destroy STACK=dev" in err
    assert "-provision" not in err


# ------------------------------------------------------------------------------------------------ going back

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


def machines(**confirmed: list[str]) -> dict[str, dict[str, Any]]:
    """What machines say: their confirmed releases, of which the first is live."""
    return {name: {"confirmed": list(ids), "persisted": ids[0] if ids else None} for name, ids in confirmed.items()}


@pytest.mark.parametrize(
    ("told", "wanted", "chosen"),
    [
        (machines(a=[C, B, A]), None, B),
        (machines(a=[C, B, A]), A, A),
        (machines(a=[C, B, A]), C, C),
        (machines(a=[C, B, A], b=[C, A]), None, A),
        (machines(a=[C, B, A], b=[C, A]), A, A),
    ],
)
def test_rollback_chooses_the_last_release_that_all_machines_had_live(
    told: dict[str, Any], wanted: str | None, chosen: str
) -> None:
    assert rollback._choose(told, wanted) == chosen


@pytest.mark.parametrize(
    ("told", "wanted", "text"),
    [
        (machines(a=[C]), None, "No machine had another release live before this one"),
        (machines(a=[C, B], b=[C]), None, f"a: {C}, {B}; live is {C}\n  b: {C}; live is {C}"),
        (machines(a=[C, B], b=[C]), B, f"Release {B} was not live on every machine"),
        (machines(a=[C, B], b=[]), B, "b: none; live is none"),
        (machines(a=[C, "--x; echo"]), None, "No machine had another release live"),
    ],
)
def test_rollback_names_releases_that_exist(told: dict[str, Any], wanted: str | None, text: str) -> None:
    with pytest.raises(NoRollbackError) as caught:
        rollback._choose(told, wanted)
    assert text in str(caught.value)


def test_rollback_sets_the_release_and_runs_up(
    pulumi: Pulumi, say: Say, monkeypatch: pytest.MonkeyPatch, answering: object
) -> None:
    keys = {"user": "deploy", "port": 22.0, "host_key": "ssh-ed25519 AAAA", "private_key": "k"}
    pulumi.answer("stack-output", json.dumps([{"name": "web-1", "address": "203.0.113.7", **keys}]))
    asked: list[Any] = []

    def choose(found: Any, wanted: str | None) -> str:
        asked.append(([m.name for m in found], wanted))
        pulumi.answer("stack-output", json.dumps(OUTPUTS))
        return RELEASE

    monkeypatch.setattr(rollback, "choose", choose)
    status, out, _ = say("--release", RELEASE, "rollback", "dev", "--", "--yes")
    assert status == 0
    assert asked == [(["web-1"], RELEASE)]
    assert "stack output ssh --json --show-secrets --stack dev" in pulumi.said
    assert pulumi.said[-3:-1] == [f"config set decant:release {RELEASE} --stack dev", "up --stack dev --yes"]
    assert "pulumi config rm decant:release --stack dev && make up STACK=dev" in out
    assert "Stack dev is live" in out


def test_a_refused_rollback_changes_nothing(pulumi: Pulumi, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(found: Any, wanted: str | None) -> str:
        raise NoRollbackError("nothing to go back to")

    pulumi.answer("stack-output", "[]")
    monkeypatch.setattr(rollback, "choose", none)
    status, _, err = say("rollback", "dev")
    assert (status, "nothing to go back to" in err) == (1, True)
    assert not any(line.startswith(("config", "up")) for line in pulumi.said)


def test_a_rollback_before_the_first_release_is_refused(pulumi: Pulumi, say: Say) -> None:
    pulumi.answer("stack-output", "current stack does not have output property", fails=True)
    status, _, err = say("rollback", "dev")
    assert status == 1
    assert "Nothing was released in stack dev yet: current stack does not have" in err


def test_a_rollback_whose_release_cannot_be_set_stops(
    pulumi: Pulumi, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `up` without it would release what the app folder holds."""
    pulumi.answer("stack-output", "[]")
    pulumi.answer("config-set", "the stack file cannot be written", fails=True)
    monkeypatch.setattr(rollback, "choose", lambda found, wanted: RELEASE)
    status, _, err = say("rollback", "dev")
    assert (status, err.strip()) == (1, "the stack file cannot be written")
    assert not any(line.startswith("up") for line in pulumi.said)


# ------------------------------------------------------------------------------------------------ replacing

DROPLET = "urn:pulumi:dev::decant::decant:clouds:X$digitalocean:index/droplet:Droplet::web-1"


STEP = "urn:pulumi:dev::decant::decant:clouds:X$decant:deploy:MachineSteps$command:local:Command::"


def keep(pulumi: Pulumi, *resources: dict[str, Any]) -> None:
    """Make these the resources of the state."""
    pulumi.answer("stack-export", json.dumps({"deployment": {"resources": resources}}))


def droplet(identity: str = "4") -> tuple[dict[str, Any], ...]:
    """A machine in the state, another thing of its name, and a step on it. `identity` is the droplet's id."""
    return (
        {"urn": "urn:pulumi:dev::decant::x:y:MachineSteps::web-1"},
        {"urn": DROPLET, "id": identity, "type": "digitalocean:index/droplet:Droplet"},
        {"urn": f"{STEP}web-1-ready", "deletedWith": DROPLET, "id": "a"},
    )


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("identity", ["4", "5"])
def test_a_machine_is_replaced_by_its_name(pulumi: Pulumi, say: Say, identity: str) -> None:
    """After an `up` that failed, the outputs show the id of the machine before."""
    keep(pulumi, *droplet(identity))
    pulumi.path.write_text(
        pulumi.path.read_text().replace("#!/bin/sh\n", '#!/bin/sh\n[ "$3" = up ] && echo "$DECANT_REPLACE" >"$0.env"\n')
    )
    status, out, _ = say("--machine", "web-1", "replace", "dev", "--", "--yes")
    assert status == 0
    changes = [line for line in pulumi.said if line.startswith(("refresh", "up", "state", "stack import"))]
    assert changes == ["refresh --yes --skip-preview --stack dev", f"up --stack dev --replace {DROPLET} --yes"]
    assert "Stack dev is live" in out
    assert (pulumi.folder / "pulumi.env").read_text() == "web-1\n"


@pytest.mark.usefixtures("answering")
def test_a_machine_that_the_state_has_no_more_is_made_by_a_plain_up(pulumi: Pulumi, say: Say) -> None:
    keep(pulumi, {"urn": f"{STEP}web-1-ready", "id": "a"})
    assert say("--machine", "web-1", "replace", "dev", "--", "--yes")[0] == 0
    assert "up --stack dev --yes" in pulumi.said


def test_nothing_is_replaced_where_the_cloud_cannot_be_asked(pulumi: Pulumi, say: Say) -> None:
    keep(pulumi, *droplet())
    pulumi.answer("refresh", "401 Unable to authenticate you", fails=True)
    status, out, _ = say("--machine", "web-1", "replace", "dev", "--", "--yes")
    assert status == 7
    assert "is live" not in out
    assert not any(line.startswith("up") for line in pulumi.said)


@pytest.mark.parametrize("name", ["web-2", "web", ""])
def test_replace_names_machines_that_exist(pulumi: Pulumi, say: Say, name: str) -> None:
    keep(pulumi, *droplet())
    status, _, err = say("--machine", name, "replace", "dev")
    assert status == 1
    assert f"There is no machine {name!r} in stack dev; there are: web-1." in err
    assert not any(line.startswith(("refresh", "up")) for line in pulumi.said)


def test_a_host_of_the_users_cannot_be_replaced(pulumi: Pulumi, say: Say) -> None:
    keep(pulumi, {"urn": f"{STEP}web-1-ready"}, {"urn": f"{STEP}web-1-cleanup"})
    status, _, err = say("--machine", "web-1", "replace", "dev")
    assert status == 1
    assert "web-1 is a host of your own, so no cloud can replace it" in err
    assert not any(line.startswith(("refresh", "up")) for line in pulumi.said)


def test_a_failed_up_prints_how_to_let_go_of_a_host_that_left_the_list(pulumi: Pulumi, say: Say) -> None:
    urn = "urn:pulumi:dev::decant::decant:clouds:Ssh$x$command:remote:Command::"
    resources = [{"urn": f"{urn}{name}-cleanup"} for name in ("gone", "shop", "203.0.113.9")]
    pulumi.answer("up", "", fails=True)
    pulumi.answer("stack-export", json.dumps({"deployment": {"resources": resources}}))
    hosts = [{"address": "203.0.113.8", "name": "shop"}, {"address": "203.0.113.9"}]
    pulumi.answer("config-get", json.dumps(hosts))
    _, _, err = say("up", "dev")
    assert f"pulumi state delete --stack dev --target-dependents --yes '{urn}gone-cleanup'" in err
    assert "make up STACK=dev" in err
    assert err.count("pulumi state delete") == 1


def test_an_interruption_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(["up", "dev"]) == 130, "as a shell ends after SIGINT"


@pytest.mark.parametrize("words", [[], ["up"], ["fly", "dev"]])
def test_unknown_verbs_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(words)


# ------------------------------------------------------------------------------------------------ the summary


def show(outputs: Mapping[str, Any] = OUTPUTS) -> str:
    return summary.summary(
        outputs=outputs, title="Title", lines=[("log in", "ssh"), ("a longer label", "x")], seconds=12.34
    )


def test_the_summary_asks_the_front_page(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Route]] = []

    def probe(url: str, route: Route) -> ProbeResult:
        asked.append((url, route))
        return ProbeResult(status=200, release=RELEASE, machine="", why="status 200", at=0.0, seconds=0.0)

    monkeypatch.setattr(summary, "probe", probe)
    show()
    assert asked == [("http://203.0.113.7/", Route())]


def test_the_summary_has_the_records_that_the_user_sets(answering: object) -> None:
    records = [
        {"name": "www.example.com", "type": "CNAME", "value": "b.elb.amazonaws.com"},
        {"name": "_x.www.example.com", "type": "CNAME", "value": "_y.acm-validations.aws"},
    ]
    rows = show({**OUTPUTS, "recordsToSet": records}).splitlines()
    start = next(number for number, row in enumerate(rows) if row.startswith("  set in DNS"))
    assert [row[2:].strip() for row in rows[start : start + 2]] == [
        "set in DNS      www.example.com     CNAME  b.elb.amazonaws.com",
        "_x.www.example.com  CNAME  _y.acm-validations.aws",
    ]
    assert "set in DNS" not in show()


def test_the_summarys_columns_are_aligned(answering: object) -> None:
    rows = show().splitlines()
    assert rows[1] == "  Title"
    ends = {re.match(r"  \S.*?\s{2,}", row).end() for row in rows[3:-1]}  # type: ignore[union-attr]
    assert ends == {2 + len("a longer label") + 2}
    assert rows[-2].split()[-2:] == ["12.3", "s"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            {"release": "aaaaaaaaaaaa"},
            f"http://203.0.113.7/ gave status 200 from release aaaaaaaaaaaa, not release {RELEASE}",
        ),
        ({"status": 502, "release": ""}, f"gave status 502, not release {RELEASE}"),
        ({"status": 0, "release": "", "why": "timed out"}, f"gave timed out, not release {RELEASE}"),
    ],
)
def test_a_url_that_answers_otherwise_is_no_success(
    answering: Callable[..., None], say: Say, answer: dict[str, Any], text: str
) -> None:
    answering(**answer)
    with pytest.raises(NotServingError, match=text):
        show()
    status, _, err = say("up", "dev")
    assert status == 1
    assert text in err
    way = "ARGS=\"--replace '**rollout'\"" if answer["release"] else "Is the URL open"
    assert way in err
    assert "make up STACK=dev" in err


# ------------------------------------------------------------------------------------------------ the Makefile


@pytest.mark.parametrize(
    ("goals", "words"),
    [
        (["replace", "STACK=dev", "MACHINE=web-2"], ["--machine=web-2", "replace", "dev", "--"]),
        (["rollback", "STACK=dev"], ["rollback", "dev", "--"]),
        (["rollback", "STACK=dev", f"RELEASE={RELEASE}"], [f"--release={RELEASE}", "rollback", "dev", "--"]),
        (["up", "ARGS=--yes --diff"], ["up", "dev", "--", "--yes", "--diff"]),
        (["up", "CHECK=no"], ["--no-check", "up", "dev", "--"]),
        (["up", "CHECK=yes"], ["up", "dev", "--"]),
        (["check-account", "STACK=prod"], ["check-account", "prod"]),
        (["up", "STACK=a; touch pwned"], ["up", "a; touch pwned", "--"]),
        (["rehearse", "STACK=`touch pwned`"], ["up", "`touch pwned`"]),
        (["try"], ["up", "dev"]),
        (["rollback", "RELEASE=x' -y; touch pwned"], ["--release=x' -y; touch pwned", "rollback", "dev", "--"]),
        (["replace", "MACHINE='; touch pwned; '"], ["--machine='; touch pwned; '", "replace", "dev", "--"]),
        (["preview", "MARKDOWN='; touch pwned; '", "ARGS=--refresh"],
         ["--markdown='; touch pwned; '", "preview", "dev", "--", "--refresh"]),
        (["ci-comment", "STACK=prod", "MARKDOWN=p.md"],
         ["comment", "--stack=prod", "--key=", "--markdown=p.md", "--pr="]),
        (["ci-comment", "KEY='; touch pwned; '", "PR=`touch pwned`"],
         ["comment", "--stack=dev", "--key='; touch pwned; '", "--markdown=", "--pr=`touch pwned`"]),
        (["ci-stale", "STACK=-h; touch pwned"], ["stale", "--stack=-h; touch pwned"]),
        (["ci-issue", "TITLE=\"; touch pwned", "BODY=b.md"], ["issue", "--title=\"; touch pwned", "--body=b.md"]),
        (["ci-issue-done", "TITLE=`touch pwned`"], ["issue-done", "--title=`touch pwned`"]),
        (["ssh-open", "STACK=`touch pwned`", "ADDRESS=`touch pwned`", "MINUTES=;touch pwned"],
         ["ssh-open", "`touch pwned`"]),
        (["ssh-close"], ["ssh-close", "dev"]),
        (["unlock", "FORCE=$(touch pwned)"], ["unlock", "dev"]),
        (["ci-host-name"], [""]),
    ],
)  # fmt: skip
def test_make_passes_values_on_without_a_shell_reading_them(tmp_path: Path, goals: list[str], words: list[str]) -> None:
    (tmp_path / "Makefile").write_bytes((PROJECT / "Makefile").read_bytes())
    for name, text in {".venv/bin/python": 'shift 2; printf "%s\\n" "$@"', "tools/install.sh": ":"}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name
        not in (
            "STACK",
            "RELEASE",
            "MACHINE",
            "ARGS",
            "CHECK",
            "MARKDOWN",
            "KEY",
            "PR",
            "TITLE",
            "BODY",
            "ADDRESS",
            "MINUTES",
            "FORCE",
            "CARD",
        )
    }
    command = ["make", "--no-print-directory", "-C", str(tmp_path), *goals]
    done = subprocess.run(command, capture_output=True, text=True, env=kept, check=False)
    assert done.stdout.splitlines() == words, done.stderr
    assert not list(tmp_path.rglob("pwned"))


def test_make_passes_on_what_a_workflow_has_in_its_environment(tmp_path: Path) -> None:
    """Such a value may hold text of a stranger, and is read neither by make nor by a shell."""
    (tmp_path / "Makefile").write_bytes((PROJECT / "Makefile").read_bytes())
    for name, text in {".venv/bin/python": 'shift 2; printf "%s\\n" "$@"', "tools/install.sh": ":"}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    value = "$(shell touch pwned) $$(touch pwned) `touch pwned` \"'; touch pwned"
    environment = {**os.environ, "TITLE": value, "BODY": "b.md"}
    command = ["make", "--no-print-directory", "-C", str(tmp_path), "ci-issue"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.splitlines() == ["issue", f"--title={value}", "--body=b.md"], done.stderr
    assert not list(tmp_path.rglob("pwned"))
