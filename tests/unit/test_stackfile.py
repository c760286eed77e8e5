"""A stack's file as a rehearsal reads it: stand-ins for encrypted values, and everything else as Pulumi reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decant.app.archive import pack
from decant.app.folder import read_app
from decant.settings import Settings
from rehearsal import stackfile
from rehearsal.errors import RehearsalError
from tests.support.in_memory import HOST_KEY, PRIVATE, REPOSITORY, project
from tests.support.stack_settings import parse

STACK = """
encryptionsalt: v1:abc
config:
  decant:cloud: ssh
  decant:workers: 3
  decant:harden: true
  decant:healthPath: /healthz
  decant:hosts:
    - address: server.example.com
      hostKey: HOSTKEY
      port: 2222
  decant:env:
    GREETING: hello
    DEBUG: false
    RATIO: 1.5
  decant:secrets:
    SECRET_KEY:
      secure: AAABADe+
    MAIL_PASSWORD:
      secure: AAABAGx+
  decant:sshPrivateKey:
    secure: AAABAHs+
  digitalocean:token:
    secure: AAABAHt+
""".replace("HOSTKEY", HOST_KEY)


def read(folder: Path, text: str = STACK, overrides: str | None = None) -> tuple[dict[str, Any], set[str], list[str]]:
    (folder / "Pulumi.blue.yaml").write_text(text)
    if overrides is not None:
        (folder / "rehearsal.local.yaml").write_text(overrides)
    return stackfile.read(folder, "blue")


def test_plain_values_stay_as_they_are(tmp_path: Path) -> None:
    config, _, _ = read(tmp_path)
    assert config["decant:cloud"] == "ssh"
    assert config["decant:workers"] == 3
    assert config["decant:hosts"] == [{"address": "server.example.com", "hostKey": HOST_KEY, "port": 2222}]
    assert config["decant:env"] == {"GREETING": "hello", "DEBUG": False, "RATIO": 1.5}


def test_encrypted_values_are_replaced_by_throwaway_ones(tmp_path: Path) -> None:
    config, secret, notes = read(tmp_path)
    assert secret == {"decant:secrets", "decant:sshPrivateKey", "digitalocean:token"}
    assert config["decant:secrets"] == {
        "SECRET_KEY": "rehearsed-SECRET_KEY", "MAIL_PASSWORD": "rehearsed-MAIL_PASSWORD",
    }  # fmt: skip
    assert config["decant:sshPrivateKey"] == "rehearsed-sshPrivateKey"
    assert config["digitalocean:token"] == "rehearsed-token"
    assert [note.split(" ")[0] for note in notes] == [
        "decant:secrets.SECRET_KEY", "decant:secrets.MAIL_PASSWORD", "decant:sshPrivateKey", "digitalocean:token",
    ]  # fmt: skip
    assert all("throwaway value" in note and "rehearsal.local.yaml" in note for note in notes)
    assert "AAABA" not in str(config)
    assert "secure" not in str(config)


def test_secrets_that_are_encrypted_as_a_whole_become_an_empty_object(tmp_path: Path) -> None:
    config, secret, notes = read(tmp_path, "config:\n  decant:secrets:\n    secure: AAAB\n")
    assert (config, secret, len(notes)) == ({"decant:secrets": {}}, {"decant:secrets"}, 1)


def test_encrypted_items_of_lists(tmp_path: Path) -> None:
    text = "config:\n  decant:hosts:\n    - address: a.example.com\n      hostKey: {secure: AAAB}\n    - secure: AAAC\n"
    config, secret, notes = read(tmp_path, text)
    assert secret == {"decant:hosts"}
    assert [note.split(" ")[0] for note in notes] == ["decant:hosts[0].hostKey", "decant:hosts[1]"]
    assert config["decant:hosts"][0] == {"address": "a.example.com", "hostKey": "rehearsed-hostKey"}
    assert isinstance(config["decant:hosts"][1], str)


def test_an_object_with_more_than_the_key_secure_is_not_encrypted(tmp_path: Path) -> None:
    config, secret, notes = read(tmp_path, "config:\n  decant:env:\n    secure: a\n    MORE: b\n")
    assert (config["decant:env"], secret, notes) == ({"secure": "a", "MORE": "b"}, set(), [])


def test_the_users_own_values_win_without_a_note(tmp_path: Path) -> None:
    mine = "decant:secrets: {SECRET_KEY: mine}\ndecant:workers: 7\ndecant:threads: 2\n"
    config, secret, notes = read(tmp_path, overrides=mine)
    assert config["decant:secrets"] == {"SECRET_KEY": "mine"}
    assert (config["decant:workers"], config["decant:threads"]) == (7, 2)
    assert "decant:secrets" in secret, "it stays a secret"
    assert not any(note.startswith("decant:secrets") for note in notes)
    assert any(note.startswith("decant:sshPrivateKey") for note in notes)


@pytest.mark.parametrize("overrides", ["", "# nothing\n"])
def test_an_empty_file_of_own_values_changes_nothing(tmp_path: Path, overrides: str) -> None:
    assert read(tmp_path, overrides=overrides) == read(tmp_path)


@pytest.mark.parametrize("text", ["", "encryptionsalt: v1:abc\n", "config:\n", "config: {}\n"])
def test_an_empty_stack_file_has_no_settings(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == ({}, set(), [])


def test_a_missing_stack_is_an_error_that_lists_the_others(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match=r"there is no stack blue \(Pulumi.blue.yaml\); there are: none"):
        stackfile.read(tmp_path, "blue")
    for name in ("dev", "staging"):
        (tmp_path / f"Pulumi.{name}.yaml").touch()
    (tmp_path / "Pulumi.yaml").touch()
    with pytest.raises(RehearsalError, match=r"there are: dev, staging$"):
        stackfile.read(tmp_path, "blue")


def test_values_become_the_text_that_pulumi_hands_to_a_program() -> None:
    given = {"a": "text", "b": 3, "c": True, "d": 1.5, "e": ["x", 1], "f": {"k": "ü", "n": None}, "g": ""}
    assert stackfile.as_text(given) == {
        "a": "text", "b": "3", "c": "true", "d": "1.5", "e": '["x", 1]', "f": '{"k": "\\u00fc", "n": null}', "g": "",
    }  # fmt: skip


def checked(folder: Path, text: str, **changes: Any) -> Settings:
    """What the program would make of a stack file."""
    config, secret, _ = read(folder, text)
    config = {**config, **{f"decant:{k}": v for k, v in changes.items()}}
    values = {k.removeprefix("decant:"): v for k, v in stackfile.as_text(config).items() if k.startswith("decant:")}
    keys = frozenset(k.removeprefix("decant:") for k in secret)
    return parse(values, keys, stack="blue")


def test_what_was_read_passes_the_checks(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    made = checked(folder, STACK, sshPrivateKey=PRIVATE)
    assert made.env == {"GREETING": "hello", "DEBUG": "false", "RATIO": "1.5"}
    assert made.secrets == {"SECRET_KEY": "rehearsed-SECRET_KEY", "MAIL_PASSWORD": "rehearsed-MAIL_PASSWORD"}
    assert (made.workers, made.harden, made.hosts[0].port) == (3, True, 2222)


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("Pulumi.*.yaml")), ids=lambda p: p.name)
def test_the_program_accepts_the_projects_own_stacks(path: Path, tmp_path: Path) -> None:
    """With what a rehearsal adds to them: an administrator's network."""
    name = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
    config, secret, _ = stackfile.read(REPOSITORY, name)
    if config["decant:cloud"] != "ssh":
        config["decant:adminCidrs"] = [*config.get("decant:adminCidrs", []), "100.64.7.0/27"]
    values = {k.removeprefix("decant:"): v for k, v in stackfile.as_text(config).items() if k.startswith("decant:")}
    keys = frozenset(k.removeprefix("decant:") for k in secret)
    others = {k: v for k, v in stackfile.as_text(config).items() if not k.startswith("decant:")}
    settings = parse(values, keys, stack=name, providers=others)
    assert pack(read_app(REPOSITORY / settings.app_folder, settings.app), tmp_path).files


# The text that Pulumi 3.260 hands to a program for these words, seen with its CLI. go-yaml reads them unlike PyYAML.
PULUMIS_OWN = {
    "true": "true", "TRUE": "true", "y": "y", "12:30": "12:30", "3": "3", "+1": "1", "0.5": "0.5", "1.50": "1.5",
}  # fmt: skip
PULUMIS_OWN |= {"yes": "yes", "no": "no", "on": "on", "off": "off", "Yes": "Yes"}


@pytest.mark.parametrize(("word", "value"), PULUMIS_OWN.items())
def test_words_are_read_as_pulumi_reads_them(tmp_path: Path, word: str, value: str) -> None:
    folder = project(tmp_path / "project")
    text = f"config:\n  decant:cloud: digitalocean\n  decant:env:\n    WORD: {word}\n"
    assert checked(folder, text, adminCidrs=["10.0.0.1/32"]).env == {"WORD": value}


@pytest.mark.parametrize("text", ["config:\n  decant:env: {A: b\n", "config: [a]\n", "- a\n"])
def test_an_unreadable_stack_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(RehearsalError, match=r"Pulumi\.blue\.yaml"):
        read(tmp_path, text)


def test_a_secret_setting_of_the_local_file_alone_counts_as_secret(tmp_path: Path) -> None:
    plain = "config:\n  decant:cloud: digitalocean\n  decant:sshPrivateKey: plain\n"
    local = "decant:secrets:\n  API_KEY: a-test-key\ndecant:workers: 2\n"
    config, secret, _ = read(tmp_path, plain, local)
    assert config["decant:secrets"] == {"API_KEY": "a-test-key"}
    assert secret == {"decant:secrets"}, "what stands in the stack's own file in plain text stays refused"
    _, secret, _ = read(tmp_path, plain, "decant:sshPrivateKey: other\n")
    assert secret == {"decant:sshPrivateKey"}


SITE = "config:\n  decant:cloud: digitalocean\n  decant:domain: app.example.com\n"


def test_a_saved_certificate_that_is_encrypted_is_left_out(tmp_path: Path) -> None:
    text = f"{SITE}  decant:savedCertificate:\n    secure: AAAB\n"
    config, secret, notes = read(tmp_path, text)
    assert config == {"decant:cloud": "digitalocean", "decant:domain": "app.example.com"}
    assert secret == set()
    assert notes == [
        "decant:savedCertificate is encrypted: the rehearsal goes without it (or put one into rehearsal.local.yaml)"
    ]
    made = checked(project(tmp_path / "project"), text, adminCidrs=["10.0.0.1/32"])
    assert made.site.saved_certificate is None


@pytest.mark.parametrize("certificate", ["PEM", "{secure: AAAC}"])
def test_a_certificate_whose_key_is_encrypted_is_left_out(tmp_path: Path, certificate: str) -> None:
    text = f"{SITE}  decant:certificate: {certificate}\n  decant:certificateKey: {{secure: AAAB}}\n"
    config, secret, notes = read(tmp_path, text)
    assert config == {"decant:cloud": "digitalocean", "decant:domain": "app.example.com"}
    assert secret == set()
    assert notes == [
        "decant:certificateKey is encrypted: the rehearsal's certificate authority issues a certificate in place of"
        " decant:certificate (or put both into rehearsal.local.yaml)"
    ]
    made = checked(project(tmp_path / "project"), text, adminCidrs=["10.0.0.1/32"])
    assert (made.site.certificate, made.site.certificate_key) == (None, None)
    assert made.site.acme_server, "so that the rehearsal starts an authority"


def test_own_values_of_certificates_are_not_left_out(tmp_path: Path) -> None:
    text = (
        f"{SITE}  decant:certificate: PEM\n  decant:certificateKey: {{secure: AAAB}}\n"
        "  decant:savedCertificate: {secure: AAAB}\n"
    )
    mine = "decant:certificate: mine\ndecant:certificateKey: its key\ndecant:savedCertificate: saved\n"
    config, secret, notes = read(tmp_path, text, mine)
    assert config["decant:certificate"] == "mine"
    assert config["decant:certificateKey"] == "its key"
    assert config["decant:savedCertificate"] == "saved"
    assert (secret, notes) == ({"decant:certificateKey", "decant:savedCertificate"}, [])


def test_a_certificate_with_a_plain_key_stays_for_the_program_to_refuse(tmp_path: Path) -> None:
    text = f"{SITE}  decant:certificate: PEM\n  decant:certificateKey: plain\n  decant:savedCertificate: plain\n"
    config, secret, notes = read(tmp_path, text)
    assert {key for key in config if "ertificate" in key} == {
        "decant:certificate", "decant:certificateKey", "decant:savedCertificate",
    }  # fmt: skip
    assert (secret, notes) == (set(), [])
