"""The table of machines' files, what travels to them, and the steps that prepare them."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import decant_host
from decant.host import manifest, render, steps
from decant_host import protocol
from tests.support.host_files import (
    ADDRESS,
    CLOUDS,
    HERE,
    OWN,
    RELEASE,
    SHAPES,
    provision,
)
from tests.support.in_memory import carried


def common() -> dict[str, bytes]:
    """The files that every machine gets."""
    with tarfile.open(fileobj=io.BytesIO(manifest.files_tar())) as tar:
        assert all(m.isfile() and m.mtime == 0 and m.uid == 0 and not m.uname for m in tar.getmembers())
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def real_files() -> set[str]:
    """Every file of the folder that is no Python of this computer's own part, by its name in the tar."""
    files = {str(p.relative_to(HERE)) for p in HERE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    return {name for name in files if "/" in name and name != TEMPLATE}


TEMPLATE = "nginx/nginx.conf.j2"
CERTIFICATES = ("acme-root.pem", "certificate.pem", "certificate-key.pem")


def test_every_real_file_is_in_the_table_or_installs_the_others() -> None:
    program = {f"decant_host/{path.name}" for path in Path(decant_host.__file__).parent.glob("*.py")}
    assert {"decant_host/__main__.py", "decant_host/protocol.py"} <= program
    listed = {file.source for file in manifest.FILES if not file.generated}
    assert listed | {*manifest.INSTALLER} == real_files() | program
    generated = {file.source for file in manifest.FILES if file.generated}
    assert generated == {"manifest", "nginx.conf", "settings.json", "stop-timeout.conf", *CERTIFICATES}


def test_each_file_has_a_path_of_its_own() -> None:
    paths = [file.path for file in manifest.FILES]
    assert len(set(paths)) == len(paths)
    for path in paths:
        folders = ("/opt/decant/", "/etc/decant/", "/etc/systemd/system/", "/etc/apt/apt.conf.d/", "/etc/ssh/")
        assert path.startswith(folders), path


def test_the_table_says_modes_and_what_a_change_makes_necessary() -> None:
    """All but the modules of decant_host and of gunicorn, which are alike."""
    lines = [line.split() for line in manifest.manifest_text().splitlines()]
    python = [line for line in lines if line[4].endswith(".py")]
    assert {tuple(line[:3]) for line in python} == {("0644", "nothing", "always")}
    unit = "/etc/systemd/system"
    assert {line[3]: " ".join(line[:3]) for line in lines if line not in python} == {
        "/opt/decant/manifest": "0644 nothing always",
        "/opt/decant/bin/decant-remove": "0755 nothing always",
        "/opt/decant/bin/decant-packages": "0755 nothing always",
        "/etc/systemd/system/app@.service.d/stop-timeout.conf": "0644 reload-systemd always",
        "/opt/decant/bin/decant-host": "0755 nothing always",
        "/opt/decant/gunicorn-requirements.txt": "0644 nothing always",
        "/opt/decant/gunicorn-old-requirements.txt": "0644 nothing always",
        "/opt/decant/packaging-requirements.txt": "0644 nothing always",
        "/opt/decant/pkg-resources-requirements.txt": "0644 nothing always",
        "/opt/decant/uv-requirements.txt": "0644 install-uv always",
        "/opt/decant/certbot-requirements.txt": "0644 install-certbot orders",
        "/etc/decant/settings.json": "0644 nothing always",
        **{f"/etc/decant/{name}": "0600 nothing always" for name in CERTIFICATES},
        "/etc/decant/nginx.conf": "0644 reload-nginx always",
        "/etc/decant/firewall.nft": "0600 restart-firewall harden",
        "/etc/apt/apt.conf.d/52decant-upgrades": "0644 nothing always",
        "/etc/ssh/sshd_config.d/00-decant.conf": "0644 reload-sshd harden",
        f"{unit}/app@.service": "0644 reload-systemd always",
        f"{unit}/app@.service.d/sandbox.conf": "0644 reload-systemd always",
        f"{unit}/release@.service": "0644 reload-systemd always",
        f"{unit}/release@.service.d/sandbox.conf": "0644 reload-systemd always",
        f"{unit}/decant-boot.service": "0644 reload-systemd always",
        f"{unit}/decant-certificate.service": "0644 reload-systemd always",
        f"{unit}/decant-certificate.timer": "0644 reload-systemd always",
        f"{unit}/nginx.service.d/decant.conf": "0644 reload-systemd always",
        f"{unit}/decant-firewall.service": "0644 reload-systemd harden",
    }


def test_what_is_needed_to_remove_is_installed_first_and_the_program_before_what_calls_it() -> None:
    sources = [file.source for file in manifest.FILES]
    assert sources[:2] == ["manifest", "scripts/remove.sh"]
    modules = [source for source in sources if source.startswith("decant_host/")]
    assert modules[-1] == "decant_host/__main__.py", "it must not run before the modules that it imports are there"
    for caller in ("scripts/decant-host.sh", "settings.json", "systemd/app@.service", "systemd/decant-boot.service"):
        assert sources.index(caller) > sources.index("decant_host/__main__.py")


def test_provision_brings_every_file_along() -> None:
    line, script = provision()
    files = carried(script)
    assert set(files) == {"nginx.conf", "settings.json", "stop-timeout.conf", *CERTIFICATES}
    assert common() == manifest.files()
    assert set(common()) | set(files) == {file.source for file in manifest.FILES} | {*manifest.INSTALLER}
    assert common()["systemd/app@.service"] == (HERE / "systemd" / "app@.service").read_bytes()
    assert common()["manifest"].decode() == manifest.manifest_text()
    assert files["nginx.conf"].decode() == render.nginx_conf(**SHAPES["plain"])
    assert json.loads(files["settings.json"]) == {
        "stack": "blue", "machine": "web-2", "name": "203.0.113.7", "scheme": "http", "https": None, "drain_seconds": 0,
        "request_timeout": 30,
    }  # fmt: skip
    assert re.fullmatch(r"sh -s provision [0-9a-f]{12}", line)
    assert script.rstrip().endswith(f"blue deploy true {line.split()[-1]}")


def test_provision_writes_the_drain_seconds_of_the_balancer() -> None:
    settings = json.loads(carried(provision(proxy=CLOUDS)[1])["settings.json"])
    assert settings["drain_seconds"] == 25


def test_provision_says_how_visitors_come_and_how_long_they_wait() -> None:
    """decant-host speaks the scheme of the public URL, and waits for requests; systemd waits longer than gunicorn."""
    files = carried(
        provision(site=replace(ADDRESS, scheme="https"), limits=render.Limits(request_timeout=120, max_body=1))[1]
    )
    settings = json.loads(files["settings.json"])
    assert (settings["scheme"], settings["request_timeout"]) == ("https", 120)
    assert files["stop-timeout.conf"].decode().splitlines()[1:] == ["[Service]", "TimeoutStopSec=130"]
    assert (
        b"TimeoutStopSec=40\n"
        in carried(provision(limits=render.Limits(request_timeout=1, max_body=1))[1])["stop-timeout.conf"]
    )


def test_provision_is_the_same_each_time() -> None:
    assert provision() == provision()
    assert manifest.files_tar() == manifest.files_tar()


def test_the_state_stays_small() -> None:
    """It holds each step's input twice for each machine, and is written after each step."""
    assert len(provision()[1]) < 20_000


@pytest.mark.parametrize(
    "change",
    [{"stack": "green"}, {"user": "root"}, {"harden": False}, {"machine": "web-3"},
     {"site": replace(ADDRESS, names=("203.0.113.8",))}, {"site": replace(ADDRESS, certificate_key="another")},
     {"proxy": CLOUDS}, {"health_path": "/up"}, {"proxy": replace(OWN, drain_seconds=26)},
     {"proxy": replace(OWN, trusts_forwarded_proto=False)}, {"proxy": replace(OWN, networks=("10.0.0.6/32",))}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_changes_a_machine_changes_the_line(change: dict[str, Any]) -> None:
    before: dict[str, Any] = {"proxy": OWN}
    assert provision(**{**before, **change})[0] != provision(**before)[0]


def test_a_health_path_changes_nginx_only_behind_a_proxy() -> None:
    assert provision(health_path="/up") == provision()


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder's files where a test may change them."""
    shutil.copytree(HERE, tmp_path / "host", ignore=shutil.ignore_patterns("__pycache__"))
    for module in (manifest, render):
        monkeypatch.setattr(module, "HERE", tmp_path / "host")
    return tmp_path / "host"


@pytest.mark.parametrize("name", [*sorted(real_files()), TEMPLATE])
def test_a_changed_file_runs_provision_again(copied: Path, name: str) -> None:
    before = provision()[0]
    with (copied / name).open("a") as file:
        file.write("# changed\n")
    assert provision()[0] != before


SERVING = {
    "systemd/app@.service", "systemd/sandbox.conf", "gunicorn/gunicorn_settings.py", "gunicorn/release_environment.py",
    "gunicorn/decant_entry.py", "gunicorn/decant_serve.py", "gunicorn/gunicorn-requirements.txt",
    "gunicorn/gunicorn-old-requirements.txt", "gunicorn/packaging-requirements.txt",
    "gunicorn/pkg-resources-requirements.txt",
}  # fmt: skip


@pytest.mark.parametrize("name", [*sorted(real_files()), TEMPLATE])
def test_the_release_id_covers_the_serving_files_only(copied: Path, name: str) -> None:
    before = manifest.runtime_digest()
    with (copied / name).open("a") as file:
        file.write("# changed\n")
    assert (manifest.runtime_digest() != before) == (name in SERVING)


def test_stage_has_the_secrets_in_its_input_and_only_the_id_in_its_line() -> None:
    assert steps.stage_step(RELEASE) == (
        "systemd-run --wait --pipe --collect --quiet --property=MemoryMax=50% --property=OOMScoreAdjust=500"
        f" {steps.PROGRAM} stage {RELEASE}"
    )
    text = steps.stage_input(tar="a.tar", sha256="b", settings={"entry": "x:y"}, environment={"KEY": "canary"})
    assert text.startswith(protocol.SHELL_GUARD)
    assert json.loads(protocol.unguarded(text)) == {
        "tar": "a.tar", "sha256": "b", "settings": {"entry": "x:y"}, "environment": {"KEY": "canary"},
    }  # fmt: skip
    assert steps.reuse_staged_input() == protocol.SHELL_GUARD + '{"tar": null}'
    assert steps.incoming("a.tar") == "/var/lib/decant/incoming/a.tar"


def test_check_space_runs_once_for_each_tar() -> None:
    assert steps.check_space_step("a.tar", 3) == f"{steps.PROGRAM} check-space 3 # a.tar"
    assert steps.check_space_step("a.tar", 3) != steps.check_space_step("b.tar", 3)


def test_updates_are_set_up_at_the_lowest_priority() -> None:
    """The release goes live at the same time."""
    assert steps.UPDATES_STEP.split() == [
        "systemd-run", "--wait", "--pipe", "--collect", "--quiet", "--nice=19", "/opt/decant/bin/decant-packages",
        "unattended-upgrades", "logrotate",
    ]  # fmt: skip
