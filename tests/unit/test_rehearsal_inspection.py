"""`make inspect`: what is understood of an app, or refused, without a machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from decant.errors import SettingsError
from rehearsal import __main__ as command
from rehearsal.errors import RehearsalError
from rehearsal.inspection import inspect
from rehearsal.machines.network import Network
from tests.support.app_folders import PLAIN, write
from tests.support.in_memory import HOST_KEY, REPOSITORY

DROPLET = "config:\n  decant:cloud: digitalocean\n"


def project(folder: Path, stack: str = DROPLET, files: dict[str, str] = PLAIN) -> Path:
    write(folder / "app", files)
    return write(folder, {"Pulumi.dev.yaml": stack})


def problems(folder: Path, app: str | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        inspect(folder, "dev", app)
    return [str(problem) for problem in caught.value.problems]


def test_an_app_that_is_served_is_described(tmp_path: Path) -> None:
    text = inspect(project(tmp_path), "dev")
    assert text.splitlines() == [
        "The app in app/:",
        "  entry point  wsgi:app (wsgi.py)",
        "  Python       3.13 (the machines' own)",
        "  packages     requirements.txt, with hashes",
        "  web          gunicorn",
        "  may write    $DATA_DIR, instance",
        "  static       no static folder that nginx could serve",
        "",
        "Nothing of it is refused; 2 files would be shipped. To see it run: make try",
    ]


def test_warnings_and_the_build_are_shown(tmp_path: Path) -> None:
    stack = DROPLET + "  decant:build: npm ci\n"
    text = inspect(project(tmp_path, stack, {**PLAIN, ".env": "GREETING=canary\n"}), "dev")
    assert "  build        npm ci (where pulumi runs)" in text
    assert "  warning: .env stays behind" in text
    assert "canary" not in text


def test_another_folder_is_inspected_before_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = project(tmp_path / "project", files={"wsgi.py": ""})
    write(tmp_path / "shop", PLAIN)
    monkeypatch.chdir(tmp_path)
    text = inspect(here, "dev", "shop")
    assert text.startswith("The app in shop/:")
    assert text.endswith("would be shipped. To see it run: put it into app/, then make try")
    assert inspect(here, "dev", str(tmp_path / "shop")).startswith("The app in shop/:")


def test_all_problems_of_settings_and_app_come_together(tmp_path: Path) -> None:
    found = problems(project(tmp_path, DROPLET + "  decant:workers: 900\n", {"index.html": ""}))
    assert found[0].startswith('decant:workers is "900": must be')
    assert found[1].startswith('decant:app is "app": ')
    assert all("\n      " in problem for problem in found)
    assert len(found) >= 3


def test_what_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    here = project(tmp_path)
    (here / "app" / "out").symlink_to("/etc/passwd")
    (problem,) = problems(here)
    assert "leads out of the folder" in problem


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        inspect(project(tmp_path), "dev", "nowhere")
    assert str(caught.value) == (
        "1 problem with the app in nowhere/:\n"
        '  APP is "nowhere": there is no such folder\n'
        "      make inspect APP=FOLDER"
    )


def test_the_folder_of_the_stack_can_be_named_too(tmp_path: Path) -> None:
    here = project(tmp_path)
    assert inspect(here, "dev", str(here / "app")).endswith("To see it run: make try")


def test_secrets_of_the_local_file_are_no_problem_of_the_settings(tmp_path: Path) -> None:
    here = project(tmp_path)
    write(here, {"rehearsal.local.yaml": "decant:secrets:\n  API_KEY: a-test-key\n"})
    text = inspect(here, "dev")
    assert text.endswith("To see it run: make try")
    assert "a-test-key" not in text


def test_problems_of_settings_and_of_another_folder_have_the_heading_of_the_settings(tmp_path: Path) -> None:
    here = project(tmp_path / "project", DROPLET + "  decant:workers: 900\n")
    write(tmp_path / "shop", {"index.html": ""})
    with pytest.raises(SettingsError, match=r"^\d problems in the settings of stack dev; nothing was changed.\n"):
        inspect(here, "dev", str(tmp_path / "shop"))


def test_encrypted_values_have_stand_ins(tmp_path: Path) -> None:
    host = f"config:\n  decant:cloud: ssh\n  decant:hosts:\n    - address: a.example.com\n      hostKey: {HOST_KEY}\n"
    secrets = "  decant:sshPrivateKey:\n    secure: AAAB\n  decant:secrets:\n    SECRET_KEY:\n      secure: AAAB\n"
    text = inspect(project(tmp_path, host + secrets, {**PLAIN, ".env": "SECRET_KEY=x\n"}), "dev")
    assert "stays behind" not in text, "the stack sets that variable"


def test_a_stack_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match=r"there is no stack other \(Pulumi.other.yaml\); there are: dev"):
        inspect(project(tmp_path), "other")


@pytest.mark.parametrize("stack", ["dev", "staging", "production"])
def test_the_stacks_of_the_repository_pass(stack: str) -> None:
    assert "Nothing of it is refused" in inspect(REPOSITORY, stack)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    here = project(tmp_path)
    monkeypatch.setattr(command, "PROJECT", here)
    monkeypatch.setattr(sys, "argv", ["rehearsal", "inspect"])
    assert command.main() == 0
    assert capsys.readouterr().out.startswith("The app in app/:")
    (here / "app" / "requirements.txt").unlink()
    monkeypatch.setattr(sys, "argv", ["rehearsal", "inspect", "dev", "--app", str(here / "app")])
    assert command.main() == 1
    error = capsys.readouterr().err
    assert f"1 problem with the app in {here}/app/:\n" in error
    assert "Machines" not in error


@pytest.mark.parametrize("booted", [True, False])
def test_machines_are_spoken_of_where_there_are_any(
    booted: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RehearsalError("1 problem in the settings")

    monkeypatch.setattr(command, "up", fail)
    monkeypatch.setattr(Network, "machines", lambda _: ["a machine"] if booted else [])
    monkeypatch.setattr(sys, "argv", ["rehearsal", "up", "dev"])
    assert command.main() == 1
    error = capsys.readouterr().err
    assert "1 problem in the settings" in error
    assert ("Machines that were booted still run" in error) is booted


def test_make_passes_a_folder_with_a_blank(tmp_path: Path) -> None:
    recipe = subprocess.run(
        ["make", "-n", "inspect", f"APP={tmp_path}/my shop"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert '-m rehearsal inspect ${APP:+"--app=$APP"} "$STACK"' in recipe


@pytest.mark.parametrize(
    ("cloud", "page"), [("digitalocean", "docs/go-live.md"), ("aws", "docs/aws.md"), ("ssh", "docs/ssh.md")]
)
def test_the_page_about_the_real_thing_is_that_of_the_cloud(cloud: str, page: str) -> None:
    assert command._page(cloud) == page
    assert (REPOSITORY / page).exists()
