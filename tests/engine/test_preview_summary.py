"""`make preview` with the real engine: what the comment says of each kind of change, and that no secret is anywhere.

The stack has everything but machines. The tests follow one another, as commits do.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from decant.deploy.contents import Record, decode
from tests.engine.test_preview import CANARY, Previewed, on_aws
from tests.support.app_folders import git, use_plain_git
from tests.support.pulumi_stack import STACK, Stack

NEW_CANARY = "canary-in-a-secret-9c27"
VALUE = "canary-of-a-variable-1d"
UNCHANGED = "No machine, port, name or certificate changes."
DISK = (
    "what the app has written to its disk is deleted with it, `$DATA_DIR` and the paths of decant:persistent included."
)


@dataclass(kw_only=True)
class Comment:
    """What a preview wrote for a pull request."""

    text: str
    said: str
    status: int
    verdict: str = field(init=False)
    sections: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        summary = self.text.partition("<details>")[0]
        (self.verdict,) = re.findall(r"\A## Preview of stack `engine`\n\n\*\*(.*)\*\*\n", summary)
        self.sections = dict(re.findall(r"^- \*\*(.+?)\*\*:((?: |\n  - ).*(?:\n  - .*)*)", summary, re.MULTILINE))
        self.sections |= dict(re.findall(r"^### (.+)\n\n((?:.+\n)+)", summary, re.MULTILINE))
        self.sections = {title: text.strip() for title, text in self.sections.items()}


@dataclass(kw_only=True)
class Site:
    """The stack, its repository, and every comment that was written."""

    previewed: Previewed
    comments: list[Comment] = field(default_factory=list)

    @property
    def stack(self) -> Stack:
        return self.previewed.stack

    def preview(self, *extra: str) -> Comment:
        """Run what `make preview STACK=engine MARKDOWN=... ARGS=...` runs."""
        file = self.previewed.folder / "comment.md"
        file.unlink(missing_ok=True)
        words = ["-m", "decant.cli", "--markdown", str(file), "preview", STACK, "--", *extra]
        process = self.stack.process(sys.executable, *words)
        process["env"]["TMPDIR"] = str(self.previewed.folder / "tmp")
        done = subprocess.run(**{**process, "cwd": self.stack.project / "infra"}, timeout=900, check=False)
        comment = Comment(text=file.read_text(), said=done.stdout, status=done.returncode)
        assert len(comment.text) <= 60_000
        self.comments.append(comment)
        return comment

    def commit(self) -> str:
        """Commit everything; the commit as a comment shows it."""
        git(self.stack.project, "add", "-A")
        git(self.stack.project, "commit", "-q", "--allow-empty", "-m", "more")
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=self.stack.project, capture_output=True, text=True, check=True
        )
        return head.stdout[:9]

    def record(self) -> Record:
        found = decode(self.stack.revealed("contents"))
        assert found is not None
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("summary")
    with pytest.MonkeyPatch.context() as patch:
        use_plain_git(patch, folder / "home")
        with on_aws(folder, {"machines": "2", "env.GREETING": VALUE}) as previewed:
            git(previewed.stack.project, "init", "-q")
            (folder / "tmp").mkdir()
            yield Site(previewed=previewed)


def test_the_first_preview_of_a_new_stack(site: Site) -> None:
    commit = site.commit()
    comment = site.preview()
    assert comment.status == 0
    assert comment.verdict == "The first release goes live. 2 changes of machines, 5 changes of open ports."
    found = comment.sections
    assert re.fullmatch(
        rf"One whose id is not known yet \(commit `{commit}`\): \d+ files, \d+ packages\.", found["Release"]
    )
    assert "web-1 is made (t3.micro). The site is new." in found["Machines"]
    assert found["Cost"].startswith("53.73 USD a month, at list prices of ")
    assert found["To undo this"].startswith("There is no release to go back to yet; `make destroy STACK=engine`")
    assert "+ aws:ec2/instance:Instance: (create)" in comment.text.partition("<details>")[2]
    assert "  Preview of stack engine\n" in comment.said


def test_an_up_records_the_release_as_a_secret(site: Site) -> None:
    ran = site.stack.up()
    assert "    contents: [secret]\n" in ran.said
    record = site.record()
    assert record["live"] is not None
    assert record["history"] == [site.stack.outputs()["release"]] == [record["live"]["release"]]
    assert sorted(record["live"]["secrets"]) == ["CANARY"]
    assert record["live"]["packages"]["flask"] == "3.1.3"
    assert site.stack.up().counts.keys() == {"unchanged"}
    assert site.record() == record


def test_nothing_changes(site: Site) -> None:
    comment = site.preview()
    assert comment.verdict == "Nothing changes."
    assert set(comment.sections) == {"Release", "Cost", "Warnings"}
    assert comment.sections["Release"].endswith(" stays.")
    assert comment.sections["Cost"].startswith("53.73 USD a month, as before")


def test_a_change_of_code(site: Site) -> None:
    live = site.stack.outputs()["release"]
    site.stack.edit("app/hello/templates/index.html", "<main>", "<main><!-- edited -->")
    (site.stack.project / "app/@team <b>.txt").write_text("a name that would notify people\n")
    commit = site.commit()
    comment = site.preview()
    assert comment.verdict == f"A new release goes live. {UNCHANGED} Visitors notice nothing."
    found = comment.sections
    assert re.fullmatch(rf"`{live}` \(commit `\w{{9}}`\) → `[0-9a-f]{{12}}` \(commit `{commit}`\)\.", found["Release"])
    assert found["App files"] == "1 changed: `hello/templates/index.html`; 1 added: `@team <b>.txt`"
    assert found["To undo this"] == (
        f"`make rollback STACK=engine` puts `{live}` live again, with its code, packages, variables and secrets."
    )
    assert set(found) == {"Release", "App files", "Cost", "To undo this", "Warnings"}


def test_packages_are_added_and_upgraded(site: Site) -> None:
    site.stack.edit("app/requirements.txt", "flask==3.1.3", "flask==3.2.0")
    lock = site.stack.project / "app/requirements.txt"
    lock.write_text(lock.read_text() + "zipp==3.20 --hash=sha256:" + 64 * "0" + "\n")
    assert site.preview().sections["Packages"] == "1 changed: `flask 3.1.3 → 3.2.0`; 1 added: `zipp 3.20`"


def test_a_secret_changes_and_a_variable_is_added(site: Site) -> None:
    site.stack.set_secret("secrets.CANARY", NEW_CANARY)
    site.stack.set({"env.COLOR": VALUE})
    found = site.preview().sections
    assert found["Secrets"] == "1 changed: `CANARY`"
    assert found["Variables"] == "1 added: `COLOR`"
    assert "Settings" not in found


def test_a_release_command_is_added(site: Site) -> None:
    (site.stack.project / "app/Procfile").write_text(f"web: gunicorn wsgi:app\nrelease: KEY={VALUE} flask db upgrade\n")
    found = site.preview().sections
    assert found["Release command"].startswith(
        "`KEY=... flask db upgrade` runs once, before the release gets visitors."
    )
    assert found["How it is served"] == "the release command none → `KEY=... flask db upgrade`"
    assert found["To undo this"].endswith("It does not undo what the release command does to the data.")
    site.commit()
    site.stack.up()
    assert site.preview().verdict == "Nothing changes."


def test_a_machine_is_added(site: Site) -> None:
    site.stack.set({"machines": "3"})
    comment = site.preview()
    assert comment.verdict == "1 change of machines. Visitors notice nothing."
    found = comment.sections
    assert found["Machines"].startswith("web-3 is made (t3.micro).")
    assert found["Settings"] == "1 changed: `decant:machines`"
    assert "53.73 USD → 67.10 USD a month (+13.37)" in found["Cost"]
    assert found["Release"].endswith(" stays. It is checked again on all machines.")
    assert "Release command" not in found


def test_a_machine_is_replaced(site: Site) -> None:
    site.stack.set({"machines": "2"})
    comment = site.preview("--replace", site.previewed.urn("Instance web-2"))
    assert comment.verdict == "Data is at risk. 1 change of machines. Visitors notice nothing."
    found = comment.sections
    assert found["Data at risk"] == f"- **web-2: {DISK} Copy it first.**"
    assert comment.text.index("### Data at risk") < comment.text.index("- **Machines**")
    assert found["Machines"].startswith("web-2 is replaced by a new machine")
    assert found["To undo this"].endswith("Nothing of this brings back the data at risk.")


def test_all_machines_are_replaced_by_larger_ones(site: Site) -> None:
    site.stack.set({"size": "t3.small"})
    found = site.preview().sections
    site.stack.unset("size")
    assert found["Machines"].count("is replaced by a new machine (t3.micro before, t3.small afterwards)") == 2
    assert found["Release command"] == (
        "`KEY=... flask db upgrade` runs again, on a new machine: none is left that has run it."
    )


def test_somebody_goes_back(site: Site) -> None:
    live, before = site.record()["history"]
    site.stack.set({"release": before})
    comment = site.preview()
    site.stack.unset("release")
    assert comment.verdict == (f"The stack goes back to release `{before}`. {UNCHANGED} Visitors notice nothing.")
    found = comment.sections
    assert f"`{live}`" in found["Release"]
    assert "`pulumi config rm decant:release --stack engine`" in found["Release"]
    assert found["Packages"] == "1 changed: `flask 3.2.0 → 3.1.3` (older); 1 removed: `zipp 3.20`"
    assert found["Secrets"] == "1 changed: `CANARY`"
    assert "Release command" not in found, "the old release has none"


def test_settings_are_wrong(site: Site) -> None:
    site.stack.set({"machines": "many", "size": VALUE})
    comment = site.preview()
    site.stack.set({"machines": "2"})
    site.stack.unset("size")
    assert comment.status != 0
    assert comment.verdict == "The preview failed. As things are, `make up STACK=engine` would fail, too."
    wrong = comment.sections["What is wrong"]
    assert "in the settings of stack engine; nothing was changed." in wrong
    assert 'decant:machines is "many": must be a whole number from 1 to 50' in wrong
    assert "an unhandled error" not in wrong


def test_a_stack_that_a_former_release_made(site: Site) -> None:
    """Its state has no record."""
    state = json.loads(site.stack.export())
    (root,) = [one for one in state["deployment"]["resources"] if one["type"] == "pulumi:pulumi:Stack"]
    record = root["outputs"].pop("contents")
    site.stack.pulumi("stack", "import", stdin=None, input=json.dumps(state))
    comment = site.preview()
    assert comment.verdict == "Nothing changes."
    assert comment.sections["Not compared"].startswith("What is live was released by a Decant that did not record")
    root["outputs"]["contents"] = record
    site.stack.pulumi("stack", "import", stdin=None, input=json.dumps(state))
    assert "Not compared" not in site.preview().sections


def test_no_secret_and_no_value_is_in_a_comment_a_log_or_the_state(site: Site) -> None:
    said = [text for comment in site.comments for text in (comment.text, comment.said)]
    stored = [path.read_text(errors="replace") for path in site.stack.backend.rglob("*") if path.is_file()]
    assert len(said) > 20
    assert len(stored) > 3
    for text in [*said, *stored, *site.stack.said]:
        assert CANARY not in text
        assert NEW_CANARY not in text
        assert "PRIVATE KEY" not in text
    for comment in site.comments:
        assert VALUE not in comment.text.replace(f'"{VALUE}"', ""), "a wrong setting's value alone is shown"
        assert "@team" not in re.sub(r"`[^`]*`", "", comment.text.partition("<details>")[0])


def test_a_preview_leaves_the_comment_alone(site: Site) -> None:
    """The log of the events, and what the program told, are gone."""
    left = [path for path in (site.previewed.folder / "tmp").rglob("*") if path.is_file()]
    assert not [path for path in left if path.name in ("events", "told")]
    assert not [path for path in left if "canary" in path.read_text(errors="replace")]
