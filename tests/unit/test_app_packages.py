"""The packages of an app: which file is used, and what a machine installs."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from decant.app.folder import read_app
from decant.app.model import AppOptions, Packages
from decant.app.packages import read_packages
from decant.app.release_id import app_config
from decant.errors import AppError
from tests.support.app_folders import LOCKED, WSGI, contents, pack_beside, packed, write

LOCKS = Path(__file__).parents[1] / "support" / "locks"
PROJECT = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["flask>=3", "gunicorn==23.0.0"]\n'
BUILD = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
POETRY = '[tool.poetry.dependencies]\npython = "^3.11"\nflask = "^3"\n'


def lock(kind: str) -> dict[str, str | bytes]:
    return {path.name: path.read_bytes() for path in (LOCKS / kind).iterdir()}


def read(tmp_path: Path, files: dict[str, str | bytes]) -> Packages:
    return read_packages(write(tmp_path / "app", files), AppOptions())


def refused(tmp_path: Path, files: dict[str, str | bytes]) -> tuple[tuple[str, str], ...]:
    with pytest.raises(AppError) as caught:
        read(tmp_path, files)
    return caught.value.problems


ORDER: tuple[tuple[str, dict[str, str | bytes]], ...] = (
    ("requirements.txt", {"requirements.txt": LOCKED}),
    ("uv.lock", lock("uv")),
    ("poetry.lock", lock("poetry")),
    ("Pipfile.lock", lock("pipenv")),
    ("pyproject.toml", {"pyproject.toml": PROJECT}),
    ("setup.py", {"setup.py": "import setuptools\n"}),
    ("setup.cfg", {"setup.cfg": "[options]\ninstall_requires = flask\n"}),
)


@pytest.mark.parametrize("at", range(len(ORDER)))
def test_the_first_of_the_files_is_used_and_the_others_are_named(tmp_path: Path, at: int) -> None:
    name, files = ORDER[at]
    everything = {k: v for _, more in reversed(ORDER[at:]) for k, v in more.items()} | files
    if name == "poetry.lock":
        everything.pop("uv.lock", None)
    made = read(tmp_path, everything)
    assert made.why == name
    others = [other for other, _ in ORDER[at + 1 :] if other in everything]
    if name in ("uv.lock", "poetry.lock"):
        others.remove("pyproject.toml")
    elif at < 4 and "pyproject.toml" not in others:
        others.append("pyproject.toml")
    for other in others:
        assert [other in note for note in made.notes] == [True]
    assert bool(made.notes) == bool(others)


def test_the_note_is_one_sentence(tmp_path: Path) -> None:
    made = read(tmp_path, {"requirements.txt": LOCKED, "pyproject.toml": PROJECT, "setup.py": ""})
    assert made.notes == ("packages come from requirements.txt; pyproject.toml and setup.py are not used for them",)
    (tmp_path / "app" / "setup.py").unlink()
    made = read_packages(tmp_path / "app", AppOptions())
    assert made.notes == ("packages come from requirements.txt; pyproject.toml is not used for them",)


def test_files_of_tools_alone_are_no_source(tmp_path: Path) -> None:
    made = read(
        tmp_path,
        {
            "requirements.txt": LOCKED,
            "pyproject.toml": "[tool.ruff]\n",
            "setup.cfg": "[flake8]\n",
            "Pipfile": "[packages]\n",
        },
    )
    assert [note for note in made.notes if "setup.cfg" in note or "Pipfile" in note] == []


def test_an_empty_requirements_txt_gives_way(tmp_path: Path) -> None:
    assert read(tmp_path, {"requirements.txt": "# none\n", "pyproject.toml": PROJECT}).why == "pyproject.toml"


NOTHING = "has no requirements.txt, pyproject.toml or lock, so nothing says what the app needs"


@pytest.mark.parametrize(
    ("files", "message", "fix"),
    [
        ({}, NOTHING,
         "pip freeze > app/requirements.txt, where the app runs today; or: echo flask > app/requirements.txt"),
        ({"requirements.txt": "\n", "wsgi.py": "from flask import Flask\n"},
         "has an empty requirements.txt, and its code imports flask", "echo flask >> app/requirements.txt"),
        ({"Pipfile": "[packages]\nflask = '*'\n"},
         "has Pipfile, which says what the app needs, but not in a form that machines install",
         "(cd app && pipenv lock)"),
        ({"environment.yml": "name: x\n"},
         "has environment.yml, which says what the app needs, but not in a form that machines install",
         "pip list --format=freeze > app/requirements.txt, in that environment"),
        ({"pdm.lock": ""}, "has pdm.lock, which says what the app needs, but not in a form that machines install",
         "(cd app && pdm export --prod --output requirements.txt)"),
        ({"requirements/dev.txt": "", "requirements/prod.txt": ""},
         "has no requirements.txt; which of these says what the app needs here? requirements/dev.txt,"
         " requirements/prod.txt", "echo '-r requirements/prod.txt' > app/requirements.txt"),
        ({"requirements-dev.txt": "", "dev-requirements.txt": "", "requirements_base.txt": ""},
         "has no requirements.txt; which of these says what the app needs here? dev-requirements.txt,"
         " requirements-dev.txt, requirements_base.txt", "echo '-r requirements_base.txt' > app/requirements.txt"),
        ({"pyproject.toml": POETRY},
         "pyproject.toml names packages in Poetry's form, and neither a lock nor a build-system is there",
         "(cd app && poetry lock)"),
        ({"pyproject.toml": "[project\n"},
         "pyproject.toml is no TOML: Expected ']' at the end of a table declaration (at line 1, column 9)",
         "mend app/pyproject.toml"),
    ],
)  # fmt: skip
def test_a_folder_without_a_usable_file_is_told_what_to_do(
    tmp_path: Path, files: dict[str, str | bytes], message: str, fix: str
) -> None:
    (tmp_path / "app").mkdir()
    assert refused(tmp_path, files) == ((message, fix),)


def test_an_app_that_needs_gunicorn_alone_may_have_empty_requirements(tmp_path: Path) -> None:
    assert read(tmp_path, {"requirements.txt": "", "wsgi.py": WSGI}).install == ("--requirement", "requirements.txt")


def test_options_of_pips_become_arguments_of_uvs(tmp_path: Path) -> None:
    text = "--trusted-host pypi.example.com\n--pre\n--extra-index-url https://pypi.example.com/simple\nflask\n"
    made = read(tmp_path, {"requirements.txt": text})
    assert made.install == (
        "--requirement", "requirements.txt", "--allow-insecure-host", "pypi.example.com", "--prerelease", "allow",
        "--index-strategy", "unsafe-best-match",
    )  # fmt: skip


def test_what_is_editable_is_installed_for_good(tmp_path: Path) -> None:
    """uv takes no repository after -e, and a path would be that of a folder that is gone."""
    text = "-e ./lib[x]\n-e git+https://example.com/a.git#egg=a\nflask\n"
    made = read(tmp_path, {"requirements.txt": text, "lib/setup.py": ""})
    assert made.generated == {"decant-requirements.txt": b"./lib[x]\ngit+https://example.com/a.git#egg=a\nflask\n"}
    assert made.install == ("--requirement", "decant-requirements.txt")
    assert made.local


@pytest.mark.parametrize(
    "line", ["git+https://example.com/a.git", "-e git+https://example.com/a.git#egg=a", "a @ git+https://x.org/a"]
)
def test_git_is_installed_where_a_requirement_needs_it(tmp_path: Path, line: str) -> None:
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": f"{line}\n"}), AppOptions())
    assert (app.packages.debian, app.debian_packages) == (("git",), ("git",))
    assert read(tmp_path, {"requirements.txt": "flask\n"}).debian == ()


def test_a_password_in_a_file_is_warned_about_and_not_shown(tmp_path: Path) -> None:
    made = read(tmp_path, {"requirements.txt": "flask\n-i https://me:hunter2@example.com/simple\n"})
    (warning,) = [w for w in made.warnings if "password" in w]
    assert warning == (
        "line 2 of requirements.txt holds a password that everybody with the code can read:"
        " -i https://...@example.com/simple. Write ${TOKEN} in its place, and:"
        " pulumi config set --secret --path 'decant:secrets.TOKEN'"
    )


def test_the_variables_of_an_index_reach_the_machine(tmp_path: Path) -> None:
    files = {"wsgi.py": WSGI, "requirements.txt": "-i https://${TOKEN}@example.com/simple\nflask\n"}
    app = read_app(write(tmp_path / "app", files), AppOptions(secret_names=frozenset({"TOKEN"})))
    assert app_config(app)["install_variables"] == ["TOKEN"]


def test_a_lock_is_shipped_as_requirements_and_installed_as_it_is(tmp_path: Path) -> None:
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, **lock("uv")}), AppOptions())
    made = app.packages
    assert made.install == ("--no-deps", "--requirement", "decant-requirements.txt")
    assert (made.hashed, made.local, made.project, made.warnings) == (True, False, None, ())
    assert made.files == ("decant-requirements.txt",)
    assert contents(pack_beside(app))["decant-requirements.txt"] == made.generated["decant-requirements.txt"]


def test_a_lock_with_a_build_system_installs_the_project_too(tmp_path: Path) -> None:
    files = lock("uv")
    files["pyproject.toml"] = files["pyproject.toml"] + BUILD.encode()  # type: ignore[operator]
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, **files}), AppOptions())
    assert (app.packages.hashed, app.packages.local, app.packages.project) == (True, True, ".")
    assert app_config(app)["install_project"] == "."


def test_a_problem_in_a_lock_names_the_lock_and_how_to_make_it_again(tmp_path: Path) -> None:
    old = '{"_meta": {}, "default": {"gunicorn": {"version": "==19.9.0"}, "pywin32": {"version": "==306"}}}'
    fix = "change that where the project names it, then: (cd app && pipenv lock)"
    assert refused(tmp_path, {"Pipfile.lock": old}) == (
        ("Pipfile.lock names pywin32==306, which exists for Windows alone", fix),
        ("Pipfile.lock asks for gunicorn==19.9.0; Decant serves with gunicorn 20 or newer", fix),
    )


def test_pyproject_alone_is_installed_and_its_project_if_it_can_be_built(tmp_path: Path) -> None:
    flat = read(tmp_path / "flat", {"pyproject.toml": PROJECT})
    assert (flat.install, flat.project, flat.local) == (("--requirement", "pyproject.toml"), None, False)
    assert flat.warnings == (
        "app/pyproject.toml has no lock: machines may install different versions. To lock them:"
        " .venv/bin/uv lock --directory app",
    )
    built = read(tmp_path / "built", {"pyproject.toml": PROJECT + BUILD})
    assert (built.project, built.local) == (".", True)
    dynamic = read(tmp_path / "dynamic", {"pyproject.toml": '[project]\nname = "a"\ndynamic = ["dependencies"]\n'})
    assert (dynamic.project, dynamic.local) == (None, True)


def test_setup_py_is_installed_with_the_app(tmp_path: Path) -> None:
    made = read(tmp_path, {"setup.py": ""})
    assert (made.install, made.local, made.hashed, made.files) == ((".",), True, False, ("setup.py",))
    assert made.warnings == (
        "app/setup.py has no lock: machines may install different versions. To lock them: .venv/bin/uv pip compile"
        " --generate-hashes --universal --python-version 3.13 app/setup.py -o app/requirements.txt",
    )


def test_commands_name_a_nested_folder_as_they_are_typed_in_the_root(tmp_path: Path) -> None:
    write(tmp_path, {"Pulumi.yaml": ""})
    folder = write(tmp_path / "sites" / "my shop", {"wsgi.py": WSGI, "requirements.txt": "flask\n"})
    (warning,) = read_app(folder, AppOptions()).warnings
    assert warning == (
        "sites/my shop/requirements.txt has no hashes: machines may install different versions. To lock them:"
        " .venv/bin/uv pip compile --generate-hashes --universal --python-version 3.13"
        " 'sites/my shop/requirements.txt' -o 'sites/my shop/requirements.txt'"
    )


def test_a_generated_file_replaces_the_folders_own(tmp_path: Path) -> None:
    files = {"wsgi.py": WSGI, "requirements.txt": "\ufeffflask\n", "decant-requirements.txt": "old\n"}
    app = read_app(write(tmp_path / "app", files), AppOptions())
    made = pack_beside(app)
    assert contents(made)["decant-requirements.txt"] == b"flask\n"
    with tarfile.open(made.path) as tar:
        assert tar.getnames().count("decant-requirements.txt") == 1


def test_a_project_besides_its_packages_is_another_environment(tmp_path: Path) -> None:
    app = read_app(write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": LOCKED}), AppOptions())
    more = replace(app, packages=replace(app.packages, project="."))
    assert pack_beside(app).requirements_hash != pack_beside(more).requirements_hash


def test_installing_the_project_changes_the_requirements_hash(tmp_path: Path) -> None:
    files = {"wsgi.py": WSGI, "pyproject.toml": PROJECT + BUILD}
    before = packed(write(tmp_path / "app", files)).requirements_hash
    write(tmp_path / "app", {"wsgi.py": "app = 2\n"})
    assert packed(tmp_path / "app").requirements_hash != before, "the code is in the environment, too"


def test_what_todays_packages_break_in_a_pinned_flask_is_limited_and_said(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"wsgi.py": WSGI, "requirements.txt": "Flask==2.0.3\n"})
    limited = read_app(app, AppOptions())
    assert limited.packages.generated == {"decant-constraints.txt": b"werkzeug<3\n"}
    assert limited.packages.install == ("--requirement", "requirements.txt", "--constraint", "decant-constraints.txt")
    assert limited.packages.files == ("requirements.txt", "decant-constraints.txt")
    note = "Flask==2.0.3 does not work with werkzeug 3, and nothing limits that in requirements.txt"
    assert f"{note}: machines install werkzeug<3" in limited.notes
    write(app, {"requirements.txt": "Flask==2.0.3\nwerkzeug<3\n"})
    assert read_app(app, AppOptions()).packages.files == ("requirements.txt",)


def test_a_gunicorn_that_cannot_serve_is_replaced_and_that_is_said(tmp_path: Path) -> None:
    made = read(tmp_path, {"requirements.txt": "flask\ngunicorn==19.9.0\n"})
    assert made.generated == {"decant-overrides.txt": b"gunicorn==23.0.0\n"}
    assert made.install == ("--requirement", "requirements.txt", "--override", "decant-overrides.txt")
    assert made.files == ("requirements.txt", "decant-overrides.txt")
    assert made.notes == (
        "line 2 of requirements.txt asks for gunicorn==19.9.0; Decant serves with gunicorn 20 or newer:"
        " machines install gunicorn==23.0.0",
    )
    both = read(tmp_path, {"requirements.txt": "flask==2.0.3\ngunicorn[gevent]<20\n"})
    assert both.generated == {
        "decant-constraints.txt": b"werkzeug<3\n",
        "decant-overrides.txt": b"gunicorn[gevent]==23.0.0\n",
    }
    assert both.install[2:] == (
        "--constraint", "decant-constraints.txt", "--override", "decant-overrides.txt",
    )  # fmt: skip


def test_a_lock_with_such_a_gunicorn_is_refused(tmp_path: Path) -> None:
    hashed = f"gunicorn==19.9.0 --hash=sha256:{'0' * 64}\n"
    assert refused(tmp_path, {"requirements.txt": hashed}) == (
        (
            "line 1 of requirements.txt asks for gunicorn==19.9.0; Decant serves with gunicorn 20 or newer",
            "write gunicorn>=23 in line 1 of requirements.txt",
        ),
    )


def test_limits_stand_beside_the_constraints_of_the_files(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "requirements.txt": "-c limits.txt\n-e .\nFlask==1.1.2\nmarkupsafe==2.0.1\n",
        "limits.txt": "click<8\n",
        "setup.py": "import setuptools\n",
    }
    made = read(tmp_path, files)
    assert made.generated["decant-constraints.txt"] == b"click<8\nwerkzeug<2.1\njinja2<3.1\nitsdangerous<2.1\n"
    assert made.install.count("--constraint") == 1
    assert made.files.count("decant-constraints.txt") == 1


def test_a_pyproject_is_limited_as_well(tmp_path: Path) -> None:
    made = read(tmp_path, {"pyproject.toml": '[project]\nname = "shop"\ndependencies = ["Flask==2.2.2"]\n'})
    assert made.generated == {"decant-constraints.txt": b"werkzeug<3\n"}
    assert made.install == ("--requirement", "pyproject.toml", "--constraint", "decant-constraints.txt")
    assert made.files == ("pyproject.toml", "decant-constraints.txt")


def test_the_extra_that_has_gunicorn_is_installed_and_that_is_said(tmp_path: Path) -> None:
    extras = '[project.optional-dependencies]\nserve = ["gunicorn", "Gevent"]\ntest = ["pytest"]\n'
    made = read(tmp_path, {"pyproject.toml": f'[project]\nname = "shop"\ndependencies = ["flask"]\n{extras}'})
    assert made.install == ("--requirement", "pyproject.toml", "--extra", "serve")
    assert made.notes == ("the extra serve of pyproject.toml has gunicorn, so machines install it",)
    unserved = extras.replace('"gunicorn"', '"gunicorn==19.9.0"')
    made = read(tmp_path, {"pyproject.toml": f'[project]\nname = "shop"\ndependencies = ["flask"]\n{unserved}'})
    assert made.generated == {"decant-overrides.txt": b"gunicorn==23.0.0\n"}


def test_a_lock_that_is_broken_like_that_is_refused(tmp_path: Path) -> None:
    hashed = f"Flask==2.0.3 --hash=sha256:{'0' * 64}\n"
    assert refused(tmp_path, {"requirements.txt": hashed}) == (
        (
            "Flask==2.0.3 does not work with werkzeug 3, and nothing limits that in requirements.txt",
            "echo 'werkzeug<3' >> app/requirements.txt",
        ),
    )


def test_a_package_that_uv_takes_from_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    project = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["flask", "money"]\n'
    sources = '[tool.uv.sources]\nmoney = { path = "../money" }\n'
    app = write(tmp_path / "app", {"wsgi.py": WSGI, "pyproject.toml": project + sources})
    with pytest.raises(AppError) as caught:
        read_app(app, AppOptions())
    assert caught.value.problems == (
        (
            "pyproject.toml takes money from ../money, which is outside of the app folder",
            "delete the line of money below [tool.uv.sources] in app/pyproject.toml",
        ),
    )
    write(app, {"pyproject.toml": project + sources.replace("../money", "money"), "money/pyproject.toml": ""})
    assert read_app(app, AppOptions()).packages.why == "pyproject.toml"
