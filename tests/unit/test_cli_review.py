"""`make review-up`, `review-down` and `review-reap` without an engine: settings, times, secrets, what is left alone."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from decant import clouds
from decant.cli import pulumi_cli, review, review_settings
from decant.cli.pulumi_cli import PulumiCli
from decant.clouds.reviews import ReviewStack, texts
from decant.errors import CloudApiError, StackError
from decant.settings import project as settings_project

NOW = datetime(2026, 12, 1, 12, 0, 30, tzinfo=UTC)
DAY = timedelta(days=1)
CANARY = "canary-5b0e7d"


class Cli(PulumiCli):
    """A CLI with stacks in memory: the ids in the state of each, and its settings."""

    def __init__(self, stacks: dict[str, list[str]], config: dict[str, dict[str, Any]] | None = None) -> None:
        super().__init__("pulumi")
        self.stacks = stacks
        self.config = config or {}
        self.said: list[tuple[str, ...]] = []
        self.broken: set[str] = set()
        """Stacks whose states are no JSON: Pulumi lists none then."""
        self.unreadable: set[str] = set()
        """Stacks whose states Pulumi cannot export, which these are, too."""

    def capture(self, *argv: str) -> subprocess.CompletedProcess[str]:
        self.said.append(argv)
        out = ""
        if argv[:2] == ("stack", "ls"):
            if self.broken:
                return subprocess.CompletedProcess(argv, 1, "", "error: place 1: unexpected end of JSON input")
            out = json.dumps([{"name": name} for name in self.stacks])
        elif argv[:2] == ("stack", "output"):
            return subprocess.CompletedProcess(argv, int(argv[-1] in self.broken or argv[-1] not in self.stacks))
        elif argv[:2] == ("stack", "init"):
            self.stacks[argv[2]] = []
        elif argv[:2] == ("stack", "rm"):
            del self.stacks[argv[2]]
        else:
            assert argv[:2] == ("config", "set")
        return subprocess.CompletedProcess(argv, 0, stdout=out, stderr="")

    def resources(self, stack: str) -> list[dict[str, Any]]:
        if stack in self.unreadable or stack not in self.stacks:
            raise StackError("error: failed to load checkpoint")
        return [{"id": one} for one in self.stacks[stack]]

    def read_config(self, stack: str) -> dict[str, dict[str, Any]]:
        if stack not in self.config:
            raise StackError("incorrect passphrase")
        return self.config[stack]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pulumi_cli, "PROJECT", tmp_path)
    monkeypatch.setattr(settings_project, "PROJECT", tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("name: decant\n")
    return tmp_path


def template(project: Path, text: str = "config:\n  decant:cloud: digitalocean\n") -> None:
    (project / "Pulumi.review.yaml").write_text(text)


# ------------------------------------------------------------------------------------------------ settings


def test_settings_are_the_templates_to_the_last_character(project: Path) -> None:
    """PyYAML would read `yes` as true and 12:30 as 750, unlike Pulumi. The salt decrypts what is encrypted."""
    text = "encryptionsalt: v1:abc\nconfig:\n  decant:env: {A: yes, B: 12:30}  # why\n"
    template(project, text)
    review_settings.write_settings("pr-7")
    assert (project / "Pulumi.pr-7.yaml").read_text() == text


def test_the_time_is_added_by_pulumi() -> None:
    cli = Cli({"pr-7": []})
    review_settings.set_expiry(cli, "pr-7", datetime(2026, 12, 5, 18, 30, tzinfo=UTC))
    assert cli.said == [
        ("config", "set", "--path", "decant:review.expires", "2026-12-05T18:30Z", "--stack", "pr-7"),
    ]


@pytest.mark.parametrize(
    ("left", "moves"),
    [(None, True), (7 * DAY, False), (3.6 * DAY, False), (3.4 * DAY, True), (-DAY, True), (8 * DAY, True)],
)
def test_the_time_moves_when_less_than_half_of_it_is_left(left: timedelta | None, moves: bool) -> None:
    until = None if left is None else NOW + left
    expected = datetime(2026, 12, 8, 12, 0, tzinfo=UTC) if moves else until
    assert review_settings.next_expiry(NOW, 7, until) == expected


def test_a_missing_template_is_told_with_the_commands() -> None:
    with pytest.raises(StackError) as told:
        review_settings.read_template()
    assert "pulumi stack init review\n" in str(told.value)


@pytest.mark.parametrize("text", ["- a", "config: [", "\x00"])
def test_a_template_that_is_none_is_told(project: Path, text: str) -> None:
    template(project, text)
    with pytest.raises(StackError, match=r"^Pulumi\.review\.yaml"):
        review_settings.read_template()


def test_a_wrong_limit_is_told(project: Path) -> None:
    template(project, "config:\n  decant:review: {atOnce: many}\n")
    with pytest.raises(StackError, match=r"^decant:review\.atOnce in Pulumi\.review\.yaml must be a whole number"):
        review_settings.template_review()


def test_the_key_of_the_template_is_that_of_the_new_stack(project: Path) -> None:
    template(project, "secretsprovider: awskms://alias/review\nconfig: {}\n")
    cli = Cli({})
    review._init(cli, "pr-7")
    assert cli.said == [
        ("stack", "init", "pr-7", "--no-select", "--secrets-provider", "awskms://alias/review"),
    ]


# ------------------------------------------------------------------------------------------------ secrets


def secret(value: Any) -> dict[str, Any]:
    return {"value": value if isinstance(value, str) else json.dumps(value), "secret": True}


def check(project: Path, own: dict[str, Any], other: dict[str, Any] | None, name: str = "production") -> None:
    template(project)
    (project / f"Pulumi.{name}.yaml").write_text("config: {}\n")
    config = {"pr-7": own, **({name: other} if other is not None else {})}
    review_settings.check_secrets(Cli({}, config), "pr-7", [name, "pr-7"])


@pytest.mark.parametrize("name", ["production", "live", "staging", "dev"])
def test_a_secret_of_another_stack_is_refused_and_not_shown(
    project: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"decant:secrets": secret({"A": "its-own-one", "B": CANARY})}
    with pytest.raises(StackError) as told:
        check(project, own, {"decant:secrets": secret({"C": CANARY})}, name)
    assert str(told.value).startswith(
        f"decant:secrets.B in Pulumi.review.yaml is the same secret as decant:secrets.C of stack {name}.\n"
    )
    assert CANARY not in str(told.value) + "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({"decant:secrets": secret({"A": "1"})}, {"decant:secrets": secret({"A": "1"})}),
        ({"digitalocean:token": secret(CANARY)}, {"digitalocean:token": secret(CANARY)}),
        ({"decant:env": {"value": json.dumps({"A": CANARY})}}, {"decant:env": {"value": json.dumps({"A": CANARY})}}),
        ({"decant:secrets": secret({"A": CANARY})}, {"decant:env": {"value": json.dumps({"A": CANARY})}}),
        ({"decant:secrets": secret({"A": CANARY})}, None),
    ],
    ids=["short", "the account's", "in clear", "in clear there", "a stack with a key of its own"],
)
def test_what_is_no_secret_of_both_apps_is_taken(project: Path, own: dict[str, Any], other: dict[str, Any]) -> None:
    check(project, own, other)


def test_a_key_that_opens_another_stacks_secrets_is_warned_of(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(project, {"decant:secrets": secret({"A": "its-own-one"})}, {"decant:secrets": secret({"A": CANARY})})
    said = capsys.readouterr().err
    assert "Warning: the key of this job also decrypts the secrets of production" in said
    assert CANARY not in said
    check(project, {}, None)
    assert capsys.readouterr().err == ""


def test_encrypted_text_of_another_stack_is_refused_without_its_key(project: Path) -> None:
    text = "config:\n  decant:sshPrivateKey: {secure: AAABcd}\n"
    (project / "Pulumi.production.yaml").write_text(text)
    (project / "Pulumi.pr-8.yaml").write_text("config:\n  decant:secrets: {A: {secure: AAABef}}\n")
    template(project, "config:\n  decant:secrets:\n    A: {secure: AAABef}\n")
    review_settings.check_secrets(Cli({}, {"pr-7": {}}), "pr-7", ["pr-7"])
    template(project, "config:\n  decant:secrets:\n    A: {secure: AAABcd}\n")
    with pytest.raises(StackError, match=r"^decant:secrets\.A in .* as decant:sshPrivateKey of stack production"):
        review_settings.check_secrets(Cli({}, {"pr-7": {}}), "pr-7", ["pr-7"])


# ------------------------------------------------------------------------------------------------ the reaper


def found(stack: str, expires: datetime, *ids: str) -> ReviewStack:
    return ReviewStack(stack=stack, expires=expires, ids=frozenset(ids))


class World:
    """What is asked of Pulumi and of the cloud."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tagged: list[ReviewStack]) -> None:
        self.destroyed: list[str] = []
        self.closed: list[str] = []
        self.removed: list[ReviewStack] = []
        self.others: set[str] = set()
        self.fails: set[str] = set()
        self.cli = Cli({})

        def remove(cloud: str, account: Any, one: ReviewStack, others: Any) -> list[str]:
            if {one.stack, *one.ids} & self.fails:
                raise CloudApiError("not today")
            self.removed.append(one)
            self.others = set(others)
            return ["droplet web-1 (4)"]

        monkeypatch.setattr(clouds, "find_reviews", lambda cloud, account: tagged)
        monkeypatch.setattr(clouds, "remove_review", remove)
        monkeypatch.setattr(review, "run_verb", self._run)

    def _run(self, words: list[str]) -> int:
        if words[0] == "ssh-close":
            assert settings_project.stack_file(words[1]).exists(), "its settings say which account it is in"
            self.closed.append(words[1])
            return 1 if words[1] in self.fails else 0
        assert words == ["destroy", words[1], "--", "--yes", "--skip-preview"]
        if words[1] in self.fails:
            return 1
        self.destroyed.append(words[1])
        self.cli.stacks[words[1]] = []
        return 0

    def reap(self, stacks: dict[str, list[str]]) -> int:
        self.cli.stacks = stacks
        return review.reap(self.cli, NOW)


def test_only_what_has_expired_is_removed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template(project)
    lost = found("pr-3", NOW - DAY, "c")
    world = World(
        monkeypatch,
        [
            found("pr-1", NOW - DAY, "a"),
            found("pr-2", NOW + DAY, "b"),
            lost,
            found("pr-4", NOW + DAY, "d"),
            found("pr-5", NOW - DAY, "e1"),
            found("pr-5", NOW + DAY, "e2"),
        ],
    )
    stacks = {"pr-1": ["a"], "pr-2": ["b"], "pr-5": ["e1", "e2"], "pr-6": ["f"], "pr-8": [], "production": ["p"]}
    assert world.reap(stacks) == 0
    assert world.destroyed == ["pr-1"]
    assert world.removed == [lost]
    assert world.others == {"a", "b", "e1", "e2", "f", "p"}
    assert sorted(world.cli.stacks) == ["pr-2", "pr-5", "pr-6", "production"]


def test_ssh_that_a_killed_job_left_open_is_closed_every_night(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nightly job for deploys names no stack of a pull request, and a pull request may stand still for a week."""
    template(project)
    world = World(monkeypatch, [found("pr-1", NOW - DAY, "a"), found("pr-2", NOW + DAY, "b")])
    assert world.reap({"pr-1": ["a"], "pr-2": ["b"], "production": ["p"]}) == 0
    assert (world.destroyed, world.closed) == (["pr-1"], ["pr-2"])
    world.fails = {"pr-2"}
    assert world.reap({"pr-2": ["b"]}) == 1


def test_a_stack_that_is_being_made_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template(project)
    world = World(monkeypatch, [found("pr-1", NOW + DAY, "a")])
    assert world.reap({"pr-1": []}) == 0
    assert world.cli.stacks == {"pr-1": []}


def test_one_that_cannot_be_removed_does_not_keep_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    template(project)
    last = found("pr-3", NOW - DAY, "c")
    forged = found("pr-3", NOW - DAY, "forged")
    world = World(monkeypatch, [found("pr-1", NOW - DAY, "a"), found("pr-2", NOW - DAY, "b"), forged, last])
    world.fails = {"pr-1", "pr-2", "forged"}
    assert world.reap({"pr-1": ["a"]}) == 1
    assert world.removed == [last]
    assert world.cli.stacks == {"pr-1": ["a"]}, "a failed destroy keeps its state"
    assert capsys.readouterr().err == (
        "\nDigitalOcean did not delete all of stack pr-2: not today\n"
        "  What is left keeps its tags. To try again: make review-reap\n"
        "\nDigitalOcean did not delete all of stack pr-3: not today\n"
        "  What is left keeps its tags. To try again: make review-reap\n"
    )


def test_a_time_that_nobody_sets_keeps_no_stack(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs of every branch may write the tags of review stacks."""
    template(project)
    lost, latest = found("pr-3", datetime(9999, 12, 31, tzinfo=UTC), "c"), found("pr-2", NOW + 90 * DAY, "b")
    world = World(monkeypatch, [found("pr-1", NOW + 92 * DAY, "a"), latest, lost])
    assert world.reap({"pr-1": ["a"], "pr-2": ["b"]}) == 0
    assert world.destroyed == ["pr-1"]
    assert [one.stack for one in world.removed] == ["pr-3"]
    assert sorted(world.cli.stacks) == ["pr-2"]
    assert (
        "Stack pr-3 has a tag that says 9999-12-31T00:00Z, which is more than 90 days away." in capsys.readouterr().out
    )


@pytest.mark.parametrize("listed", [True, False])
def test_a_broken_state_does_not_keep_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], listed: bool
) -> None:
    template(project)
    (project / "Pulumi.production.yaml").write_text("config: {}\n")
    past = NOW - DAY
    lost = found("pr-3", past, "c")
    world = World(monkeypatch, [found("pr-1", past, "a"), found("pr-2", past, "b"), lost])
    world.cli.unreadable = {"pr-1"}
    world.cli.broken = set() if listed else {"pr-1"}
    assert world.reap({"pr-1": ["a"], "pr-2": ["b"], "production": ["p"]}) == 1
    assert world.destroyed == ["pr-2"]
    assert listed or ("stack", "output", "--json", "--stack", "production") in world.cli.said
    assert world.removed == ([lost] if listed else []), "what is in no state may be that of a stack that is not listed"
    said = capsys.readouterr().err
    assert "The state of stack pr-1 cannot be read, so it stays: error: failed to load checkpoint" in said
    assert ("unexpected end of JSON input" in said) is not listed


def test_a_broken_state_of_another_stack_ends_the_reaper(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template(project)
    world = World(monkeypatch, [found("pr-1", NOW - DAY, "a")])
    world.cli.unreadable = {"production"}
    with pytest.raises(StackError, match="failed to load checkpoint"):
        world.reap({"pr-1": ["a"], "production": ["p"]})
    assert (world.destroyed, world.removed) == ([], [])


def test_what_the_state_has_is_no_part_of_what_is_lost(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS has one set of tags for a stack that was lost and for the one that was made anew."""
    world = World(monkeypatch, [])
    review._remove_found("aws", None, found("pr-1", NOW, "old", "new"), {"pr-1": frozenset({"new"})})  # type: ignore[arg-type]
    assert world.removed == [found("pr-1", NOW, "old")]
    world.removed.clear()
    review._remove_found("aws", None, found("pr-1", NOW, "new"), {"pr-1": frozenset({"new"})})  # type: ignore[arg-type]
    assert world.removed == []


def test_a_project_that_never_had_any_is_no_failure_every_night(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The template comes with the project, and the job may have no credentials for its cloud."""
    assert review.reap(Cli({"production": ["p"]}), NOW) == 0
    assert "There is no Pulumi.review.yaml" in capsys.readouterr().out
    template(project)

    def find(cloud: str, account: Any) -> list[ReviewStack]:
        raise CloudApiError("there is no token")

    monkeypatch.setattr(clouds, "find_reviews", find)
    assert review.reap(Cli({"production": ["p"]}), NOW) == 0
    assert "No stack of a pull request was made with this state." in capsys.readouterr().out
    for name in ("review", "pr-7"):
        with pytest.raises(StackError, match="there is no token"):
            review.reap(Cli({name: ["a"]}, {"review": {"decant:cloud": {"value": "digitalocean"}}}), NOW)


def test_texts_are_the_ids_and_all_outputs() -> None:
    resources = [
        {"id": "4", "outputs": {"arn": "x", "list": [{"a": "y"}, 7], "none": None}},
        {"urn": "urn::web-1", "inputs": {"a": "no"}},
    ]
    assert texts(resources) == {"4", "x", "y"}


# ------------------------------------------------------------------------------------------------ the rest


@pytest.mark.parametrize("number", ["", "0", "07", "-1", "1.5", "7\n", "7; rm -rf /", "../x", "1" * 12])
def test_the_number_of_a_pull_request_is_one(number: str) -> None:
    with pytest.raises(StackError, match=r"it must be the number of a pull request"):
        review.stack_of(number)


def test_a_stack_is_named_by_its_number() -> None:
    assert review.stack_of("12") == "pr-12"


def test_what_failed_stays_within_its_block() -> None:
    assert review._failed("pr-7", "is not live", "a\n```\n# b") == (
        "## Review stack `pr-7` is not live\n\n````text\na\n```\n# b\n````\n"
    )


@pytest.mark.parametrize("cloud", ["ssh", "", "x"])
def test_a_cloud_without_an_account_is_refused(cloud: str) -> None:
    with pytest.raises(StackError, match=r"need one of aws, digitalocean, which can make machines"):
        review._account({"decant:cloud": cloud})


def test_encrypted_settings_are_left_to_the_environment_where_the_template_has_no_stack(project: Path) -> None:
    template(project, "config:\n  digitalocean:token: {secure: AAAB}\n  decant:cloud: digitalocean\n")
    assert review._settings_of_account(Cli({}), ["dev"]) == {"decant:cloud": "digitalocean"}
    cli = Cli({}, {"review": {"digitalocean:token": secret("t")}})
    assert review._settings_of_account(cli, ["review"]) == {"digitalocean:token": "t"}


# ------------------------------------------------------------------------------------------------ in CI


def run_verbs(monkeypatch: pytest.MonkeyPatch, *failing: str) -> list[list[str]]:
    """Keep what is run of the other commands."""
    ran: list[list[str]] = []

    def run(words: list[str]) -> int:
        ran.append(words)
        return 7 if words[0] in failing else 0

    monkeypatch.setattr(review, "run_verb", run)
    for name in ("GITHUB_ACTIONS", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    return ran


UP = ["up", "pr-7", "--", "--yes", "--skip-preview"]


def test_a_computer_of_ones_own_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run_verbs(monkeypatch)
    assert review._put_live("pr-7") == 0
    assert ran == [UP]


@pytest.mark.parametrize(("failing", "between", "status"), [((), [UP], 0), (("up",), [UP], 7), (("ssh-open",), [], 7)])
def test_a_run_of_ci_is_let_in_meanwhile(
    monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...], between: list[list[str]], status: int
) -> None:
    ran = run_verbs(monkeypatch, *failing)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_RUN_ID", "41")
    assert review._put_live("pr-7") == status
    assert ran == [["ssh-open", "pr-7"], *between, ["ssh-close", "pr-7"]]


@pytest.mark.parametrize(
    ("fails", "status", "comment"),
    [
        (False, 0, "## Review stack `pr-7` is removed\n"),
        (True, 1, "## Review stack `pr-7` is not removed\n\n```text\nThe job's log says why.\n```\n"),
    ],
)
def test_the_comment_at_the_end_says_whether_it_is_removed(
    project: Path, monkeypatch: pytest.MonkeyPatch, fails: bool, status: int, comment: str
) -> None:
    template(project)
    world = World(monkeypatch, [])
    world.fails = {"pr-7"} if fails else set()
    world.cli.stacks = {"pr-7": ["a"]}
    assert review.down(world.cli, "pr-7", project / "comment.md") == status
    assert (project / "comment.md").read_text() == comment
    assert (world.cli.stacks == {}) == (not fails)


def test_no_credential_is_in_a_comment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "token-canary")
    review._write(project / "comment.md", review._failed("pr-7", "is not live", "401 for token-canary"))
    assert "401 for [secret]" in (project / "comment.md").read_text()


def test_the_comment_of_an_error_has_its_words(project: Path) -> None:
    with pytest.raises(StackError):
        review.down(Cli({}), "pr-7", project / "comment.md")
    assert (
        (project / "comment.md")
        .read_text()
        .startswith("## Review stack `pr-7` is not removed\n\n```text\nThere is no Pulumi.review.yaml")
    )
