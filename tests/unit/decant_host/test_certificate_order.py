"""Orders: the ACME client's command line, and causes out of what it and the authority say."""

from __future__ import annotations

import calendar
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant_host import certificate_order
from decant_host.certificate_checks import CAUSES
from decant_host.certificate_order import explain, order
from decant_host.protocol import HttpsSettings

NAMES = ["app.test", "www.app.test"]
SETTINGS: HttpsSettings = {
    "names": NAMES, "by_address": False, "own": False, "server": "https://ca.test/dir", "root": False,
    "profile": "classic", "email": None, "resolvers": [], "hsts": None,
}  # fmt: skip
SAVING = "Saving debug log to /var/lib/decant/certbot/logs/letsencrypt.log\n"
HELP = "Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile ...\n"


def problem(kind: str) -> str:
    """The part of the client's log with the authority's answer."""
    return f'HTTP 400\nRetry-After: 7200\n\n{{\n  "type": "urn:ietf:params:acme:error:{kind}",\n  "status": 400\n}}\n'


def unexpected(text: str) -> str:
    """What certbot 5.8 prints for an error of the protocol."""
    return f"{SAVING}An unexpected error occurred:\n{text}\n{HELP}"


def challenge_failed(kind: str, detail: str) -> str:
    """What certbot 5.8 prints for a challenge that failed."""
    return (
        f"{SAVING}Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority"
        f" reported these problems:\n  Identifier: app.test\n  Type:   {kind}\n  Detail: {detail}\n\nHint: ...\n"
        f"Some challenges have failed.\n{HELP}"
    )


RATE_LIMIT = (
    "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after"
    " 2026-11-29 10:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/"
)


@pytest.mark.parametrize(
    ("output", "log", "cause", "text"),
    [
        (unexpected(RATE_LIMIT), problem("rateLimited"), "rate-limited",
         f"the certificate authority takes no further order for app.test now: {RATE_LIMIT}"),
        (challenge_failed("connection", "1.2.3.4: Timeout during connect"), problem("connection"), "port-closed",
         "the certificate authority does not reach app.test at port 80. Open port 80 to everybody, in every firewall:"
         " 1.2.3.4: Timeout during connect"),
        (challenge_failed("unauthorized", "1.2.3.4: Invalid response: 404"), problem("unauthorized"), "elsewhere",
         "the certificate authority gets another server's answer for app.test. Correct the DNS records:"
         " 1.2.3.4: Invalid response: 404"),
        (challenge_failed("dns", "NXDOMAIN looking up A"), problem("dns"), "no-record",
         "the certificate authority finds no address of app.test. Correct the DNS records: NXDOMAIN looking up A"),
        (challenge_failed("caa", "CAA record for app.test prevents issuance"), problem("caa"), "caa",
         "a CAA record forbids the certificate authority to issue for app.test. Remove it or add another one:"
         " CAA record for app.test prevents issuance"),
        (unexpected('forbidden by policy: "app.test"'), problem("rejectedIdentifier"), "refused",
         'the certificate authority issues nothing for app.test: forbidden by policy: "app.test"'),
        (unexpected("The server experienced an internal error"), problem("serverInternal"), "away",
         "the certificate authority has a fault of its own. It is asked again later:"
         " The server experienced an internal error"),
        (unexpected("Profile unknown"), problem("invalidProfile"), "refused",
         "the certificate authority refuses the order for app.test: Profile unknown"),
        (unexpected("acme.errors.ClientError: <Response [503]>"), "", "away",
         "the certificate authority does not answer at https://ca.test/dir. It is asked again later:"
         " acme.errors.ClientError: <Response [503]>"),
        (unexpected("requests.exceptions.ConnectionError: HTTPSConnectionPool(...)"), "", "away",
         "the certificate authority does not answer at https://ca.test/dir. It is asked again later:"
         " requests.exceptions.ConnectionError: HTTPSConnectionPool(...)"),
        (unexpected("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] self-signed'))"), "",
         "untrusted",
         "the certificate of https://ca.test/dir is not trusted. For a private certificate authority: pulumi config set"
         " decant:acmeRoot -- \"$(cat root.pem)\":"
         " SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] self-signed'))"),
        (unexpected("OSError: [Errno 28] No space left on device"), "", "disk-full",
         "the disk is full. See what fills it: du -xh / | sort -h | tail: OSError: [Errno 28] No space left on device"),
        (f"{SAVING}Another instance of Certbot is already running.\n", "", "client",
         "the ACME client failed: Another instance of Certbot is already running. Its log on the machine:"
         " /var/lib/decant/certbot/logs/letsencrypt.log"),
        ("", "", "client",
         "the ACME client failed: it says nothing. Its log on the machine:"
         " /var/lib/decant/certbot/logs/letsencrypt.log"),
    ],
)  # fmt: skip
def test_causes(output: str, log: str, cause: str, text: str) -> None:
    failure = explain(output, log, "app.test", "https://ca.test/dir")
    assert (failure.cause, failure.reason) == (cause, text)
    assert failure.cause in CAUSES


def test_a_long_reason_is_cut() -> None:
    assert len(explain(unexpected("x" * 5000), "", "app.test", "https://ca.test/dir").reason) < 600


def test_reasons_hold_no_control_characters_of_the_authority() -> None:
    detail = "\x1b[2Jbad\x07 record\x9b1m\u202e"
    for output in (challenge_failed("caa", detail), unexpected(detail), f"{detail}\n"):
        assert explain(output, problem("caa"), "app.test", "").reason == (
            "a CAA record forbids the certificate authority to issue for app.test. Remove it or add another one:"
            r" bad\x07 record\x9b1m\u202e"
        )


def test_the_end_of_a_rate_limit_is_read_from_the_text() -> None:
    failure = explain(unexpected(RATE_LIMIT), problem("rateLimited"), "app.test", "")
    assert failure.retry_at == calendar.timegm((2026, 11, 29, 10, 0, 0))


def test_the_end_of_a_rate_limit_is_read_from_the_header() -> None:
    failure = explain(unexpected("slow down"), problem("rateLimited"), "app.test", "")
    assert failure.retry_at == pytest.approx(time.time() + 7200, abs=5)
    assert explain(unexpected("slow down"), "urn:ietf:params:acme:error:rateLimited", "app.test", "").retry_at is None


def test_the_last_problem_of_the_log_counts() -> None:
    log = problem("badNonce") + problem("caa")
    assert explain(unexpected("x"), log, "app.test", "").cause == "caa"


# ---------------------------------------------------------------- the client


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An ACME client whose runs end as `results` say, with a text for its log."""
    made = SimpleNamespace(commands=[], environments=[], results=[], data=tmp_path)
    monkeypatch.setattr(certificate_order, "ACME_DATA", tmp_path)
    monkeypatch.setattr(certificate_order, "LOG", tmp_path / "letsencrypt.log")

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> Any:
        made.commands.append(command)
        made.environments.append(env)
        status, output, log = made.results.pop(0)
        if log:
            (tmp_path / "letsencrypt.log").write_text(log)
        return SimpleNamespace(returncode=status, stdout=output, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    return made


def test_the_command_line(client: SimpleNamespace) -> None:
    client.results = [(0, "", "")]
    assert order(SETTINGS, NAMES, renew=False, new_key=False) is None
    data = str(client.data)
    assert client.commands == [[
        "/opt/decant/certbot/bin/certbot", "certonly", "--non-interactive", "--agree-tos",
        "--register-unsafely-without-email", "--server", "https://ca.test/dir", "--cert-name", "site",
        "--domain", "app.test", "--domain", "www.app.test", "--config-dir", data, "--work-dir", f"{data}/work",
        "--logs-dir", f"{data}/logs", "--max-log-backups", "10", "--webroot", "--webroot-path", "/var/lib/decant/acme",
        "--keep-until-expiring", "--key-type", "ecdsa", "--elliptic-curve", "secp256r1", "--reuse-key",
        "--preferred-profile", "classic",
    ]]  # fmt: skip
    assert client.environments[0]["REQUESTS_CA_BUNDLE"] == "/etc/ssl/certs/ca-certificates.crt"


def test_the_command_line_for_an_address(client: SimpleNamespace) -> None:
    client.results = [(0, "", "")]
    settings: HttpsSettings = {
        **SETTINGS, "by_address": True, "profile": "shortlived", "email": "ann@app.test"
    }  # fmt: skip
    order(settings, ["[2001:db8::7]"], renew=True, new_key=False)
    command = " ".join(client.commands[0])
    assert "--ip-address 2001:db8::7" in command
    assert "--required-profile shortlived" in command
    assert "--email ann@app.test" in command
    assert "--force-renewal" in command
    assert "--keep-until-expiring" not in command
    assert "without-email" not in command


def test_a_new_key_is_made_this_one_time(client: SimpleNamespace) -> None:
    """certbot makes a new key with --new-key, and keeps that one over later renewals with --reuse-key."""
    client.results = [(1, unexpected("Account not found"), problem("accountDoesNotExist")), (0, "", ""), (0, "", "")]
    assert order(SETTINGS, NAMES, renew=True, new_key=True) is None
    assert order(SETTINGS, NAMES, renew=True, new_key=False) is None
    assert [[part for part in command if part.endswith("-key")] for command in client.commands] == [
        ["--reuse-key", "--new-key"], ["--reuse-key", "--new-key"], ["--reuse-key"],
    ]  # fmt: skip


def test_a_private_authoritys_root_is_trusted(
    client: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from decant_host import certificate_checks

    root = tmp_path / "root.pem"
    monkeypatch.setattr(certificate_checks, "ACME_ROOT", root)
    for content, trusted in (("", "/etc/ssl/certs/ca-certificates.crt"), ("PEM", str(root))):
        root.write_text(content)
        client.results = [(0, "", "")]
        order(SETTINGS, NAMES, renew=False, new_key=False)
        assert client.environments[-1]["REQUESTS_CA_BUNDLE"] == trusted


def test_a_forgotten_account_is_registered_anew(client: SimpleNamespace) -> None:
    account = client.data / "accounts" / "x"
    account.mkdir(parents=True)
    client.results = [(1, unexpected("Account not found"), problem("accountDoesNotExist")), (0, "", "")]
    assert order(SETTINGS, NAMES, renew=False, new_key=False) is None
    assert len(client.commands) == 2
    assert not account.exists()


def test_a_forgotten_account_is_registered_once(client: SimpleNamespace) -> None:
    client.results = [(1, unexpected("Account not found"), problem("accountDoesNotExist"))] * 2
    failure = order(SETTINGS, NAMES, renew=False, new_key=False)
    assert failure is not None
    assert failure.cause == "refused"
    assert client.results == []


def test_a_log_of_a_run_before_does_not_count(client: SimpleNamespace) -> None:
    (client.data / "letsencrypt.log").write_text(problem("caa"))
    client.results = [(1, unexpected("acme.errors.ClientError: <Response [503]>"), "")]
    failure = order(SETTINGS, NAMES, renew=False, new_key=False)
    assert failure is not None
    assert failure.cause == "away"


def test_a_client_that_is_missing_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(certificate_order, "ACME_CLIENT", tmp_path / "certbot")
    monkeypatch.setattr(certificate_order, "LOG", tmp_path / "letsencrypt.log")
    failure = order(SETTINGS, NAMES, renew=False, new_key=False)
    assert failure is not None
    assert failure.cause == "client"
    assert "No such file or directory" in failure.reason


@pytest.mark.parametrize(
    ("text", "server"), [("[renewalparams]\nserver = https://ca.test/dir\n", "https://ca.test/dir"), (None, "")]
)
def test_the_authority_of_the_certificate(client: SimpleNamespace, text: str | None, server: str) -> None:
    if text:
        (client.data / "renewal").mkdir()
        (client.data / "renewal" / "site.conf").write_text(text)
    assert certificate_order.ordered_from() == server
