"""`make ci-login`: a job's token for an hour's credentials, which reach a file and nothing else."""

from __future__ import annotations

import base64
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from decant.ci import login as module
from decant.ci.login import MARK, login, subject_of
from decant.errors import StackError

ROLE = "arn:aws:iam::123456789012:role/decant-ci-staging"
SUBJECT = "repo:octo@11/shop@22:environment:staging"
SECRETS = ("canary-session-key", "canary-session-token", "canary-request-token")


def jwt(subject: str) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"sub": subject}).encode()).decode().rstrip("=")
    return f"e30.{body}.canary-signature"


class Servers:
    """The forge that gives tokens, and STS, on one port."""

    def __init__(self) -> None:
        self.token = jwt(SUBJECT)
        self.status = 200
        self.refused = ""
        self.asked: list[tuple[str, dict[str, list[str]], str]] = []

    def answer(self, method: str, path: str, form: dict[str, list[str]], authorization: str) -> tuple[int, str]:
        self.asked.append((method, form, authorization))
        if method == "GET":
            return self.status, json.dumps({"value": self.token})
        if self.refused:
            return 403, (
                f"<ErrorResponse><Error><Code>AccessDenied</Code><Message>{self.refused}</Message></Error></ErrorResponse>"
            )
        return 200, (
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            "<AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>canary-session-key</SecretAccessKey>"
            "<SessionToken>canary-session-token</SessionToken><Expiration>2026-11-28T16:00:00Z</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    made = Servers()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def _reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length).decode() if length else urllib.parse.urlsplit(self.path).query
            status, body = made.answer(
                self.command, self.path, urllib.parse.parse_qs(text), self.headers.get("Authorization", "")
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = _reply

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    made.url = f"http://127.0.0.1:{server.server_port}/token?api-version=2"  # type: ignore[attr-defined]
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def job(servers: Servers, tmp_path: Path) -> dict[str, str]:
    """The variables of a job of GitHub that may have a token."""
    return {
        "AWS_ROLE": ROLE,
        "HOME": str(tmp_path),
        "GITHUB_RUN_ID": "77",
        "PULUMI_BACKEND_URL": "s3://bucket?region=eu-central-1",
        "ACTIONS_ID_TOKEN_REQUEST_URL": servers.url,  # type: ignore[attr-defined]
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "canary-request-token",
    }


def test_the_jobs_token_is_exchanged_for_credentials_in_a_file(
    job: dict[str, str], servers: Servers, tmp_path: Path
) -> None:
    said = login(job)
    assert said == f"This job has the role {ROLE} for an hour."
    file = tmp_path / ".aws" / "credentials"
    assert file.read_text() == (
        f"{MARK}\n[default]\naws_access_key_id = ASIA1\naws_secret_access_key = canary-session-key\n"
        "aws_session_token = canary-session-token\n"
    )
    assert file.stat().st_mode & 0o777 == 0o600
    (forge, sts) = servers.asked
    assert forge[1] == {"api-version": ["2"], "audience": ["sts.amazonaws.com"]}
    assert forge[2] == "bearer canary-request-token"
    asked = {name: values[0] for name, values in sts[1].items()}
    assert (asked["RoleArn"], asked["RoleSessionName"], asked["DurationSeconds"]) == (ROLE, "decant-ci-77", "3600")
    assert asked["WebIdentityToken"] == servers.token
    assert sts[2] == "", "the exchange needs no other credentials"


def test_a_second_login_of_a_job_replaces_the_first(job: dict[str, str], tmp_path: Path) -> None:
    login(job)
    login(job)
    assert sorted(path.name for path in (tmp_path / ".aws").iterdir()) == ["credentials"]


def test_credentials_of_somebody_else_are_not_replaced(job: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    file.write_text("[default]\naws_access_key_id = AKIAMINE\n")
    with pytest.raises(StackError, match=rf"{file} has credentials that make ci-login did not write"):
        login(job)
    assert "AKIAMINE" in file.read_text()
    job["AWS_SHARED_CREDENTIALS_FILE"] = str(tmp_path / "here" / "keys")
    login(job)
    assert (tmp_path / "here" / "keys").read_text().startswith(MARK)


def test_a_job_of_gitlab_has_its_token_already(job: dict[str, str], servers: Servers) -> None:
    del job["ACTIONS_ID_TOKEN_REQUEST_URL"]
    job["DECANT_ID_TOKEN"] = jwt("project_path:octo/shop:ref_type:branch:ref:main")
    login(job)
    (sts,) = servers.asked
    assert sts[1]["WebIdentityToken"] == [job["DECANT_ID_TOKEN"]]


def test_a_job_that_may_have_no_token_is_told_what_it_needs(job: dict[str, str]) -> None:
    del job["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
    with pytest.raises(StackError, match=r"(?s)nothing to exchange.*id-token: write.*forks never.*DECANT_ID_TOKEN"):
        login(job)


@pytest.mark.parametrize("address", ["http://token.example/", "http://127.0.0.1:80@token.example/"])
def test_a_token_is_asked_for_by_tls_alone(job: dict[str, str], address: str) -> None:
    job["ACTIONS_ID_TOKEN_REQUEST_URL"] = address
    with pytest.raises(StackError, match="nothing to exchange"):
        login(job)


def test_a_role_that_does_not_trust_the_job_is_told_with_the_jobs_subject(
    job: dict[str, str], servers: Servers
) -> None:
    servers.refused = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    with pytest.raises(StackError) as raised:
        login(job)
    said = str(raised.value)
    assert f"AWS does not give this job the role {ROLE}: Not authorized" in said
    assert f"The job's token says of itself: {SUBJECT}\n" in said
    assert said.endswith("make ci-init SUBJECT='repo:octo@11/shop@22'")
    assert "canary-signature" not in said


def test_a_subject_with_characters_for_a_shell_is_in_no_command(job: dict[str, str], servers: Servers) -> None:
    servers.token, servers.refused = jwt("repo:o'$(id)/x:environment:staging"), "no"
    with pytest.raises(StackError, match=r"make ci-init$"):
        login(job)


def test_a_forge_that_gives_no_token_is_named_without_the_request(job: dict[str, str], servers: Servers) -> None:
    servers.status = 500
    with pytest.raises(StackError) as raised:
        login(job)
    assert str(raised.value) == "The forge did not give this job a token (status 500). Run the job again."


def test_without_a_role_there_is_nothing_to_do(job: dict[str, str], tmp_path: Path, servers: Servers) -> None:
    job["AWS_ROLE"] = " "
    assert login(job).startswith("AWS_ROLE is not set: this job has no role on AWS.")
    assert not (tmp_path / ".aws").exists()
    assert servers.asked == []


def test_the_keys_of_spaces_are_stored_for_the_state(tmp_path: Path) -> None:
    keys = {"HOME": str(tmp_path), "SPACES_ACCESS_KEY_ID": "DO00", "SPACES_SECRET_ACCESS_KEY": "canary\n"}
    assert login(keys) == "This job has the keys of Spaces, for the state."
    assert (tmp_path / ".aws" / "credentials").read_text() == (
        f"{MARK}\n[default]\naws_access_key_id = DO00\naws_secret_access_key = canary\n"
    )


def test_a_folder_that_cannot_be_written_is_named(job: dict[str, str], tmp_path: Path) -> None:
    job["AWS_SHARED_CREDENTIALS_FILE"] = str(tmp_path / "file" / "keys")
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match=rf"cannot be stored in {tmp_path}/file/keys: File exists"):
        login(job)


@pytest.mark.parametrize("token", ["", "abc", "a.!!!.c", "a.e30.c", "a.bnVsbA.c"])
def test_a_token_that_cannot_be_read_has_no_subject(token: str) -> None:
    assert subject_of(token) == "nothing that can be read"


def test_nothing_secret_is_printed(
    job: dict[str, str], servers: Servers, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert module.main() == 0
    servers.refused = "no"
    assert module.main() == 1
    printed = "".join(capfd.readouterr())
    assert "for an hour" in printed
    for canary in (*SECRETS, servers.token, "canary-signature"):
        assert canary not in printed
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") is None
