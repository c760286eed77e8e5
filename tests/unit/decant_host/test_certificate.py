"""The machine's certificate: when it is ordered and renewed, what pauses orders, and what the status says."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from decant_host import (
    certificate,
    certificate_archive,
    certificate_checks,
    certificate_files,
    certificate_order,
    paths,
)
from decant_host.certificate_checks import CAUSES, Problem
from decant_host.certificate_order import Failure
from decant_host.errors import HostError
from decant_host.protocol import CertificateStatus, HttpsSettings
from tests.support.certificates import Authority, Issued

NAME, WWW = "app.test", "www.app.test"
DAY = 86400.0
MODULES = (paths, certificate, certificate_archive, certificate_checks, certificate_files, certificate_order)


@dataclass
class Client:
    """The ACME client and what it is told, in memory. It keeps a certificate that is for the same names."""

    authority: Authority = field(default_factory=Authority)
    issued: Issued | None = None
    names: list[str] = field(default_factory=list)
    calls: list[tuple[list[str], bool]] = field(default_factory=list)
    new_keys: list[bool] = field(default_factory=list)
    failure: Failure | None = None
    problems: dict[str, Problem] = field(default_factory=dict)
    days: float = 60
    begins: float = 30
    key: Any = None

    def check(self, settings: HttpsSettings, names: Sequence[str]) -> dict[str, Problem]:
        return {name: problem for name, problem in self.problems.items() if name in names}

    def order(self, settings: HttpsSettings, names: Sequence[str], *, renew: bool, new_key: bool) -> Failure | None:
        self.calls.append((list(names), renew))
        self.new_keys.append(new_key)
        if self.failure:
            return self.failure
        if renew or list(names) != self.names:
            self.names = list(names)
            self.issued = self.authority.issue(*names, days=self.days, begins=self.begins)
            live = paths.ACME_DATA / "live" / "site"
            live.parent.mkdir(parents=True, exist_ok=True)
            self.issued.write(live)
            conf = paths.ACME_DATA / "renewal" / "site.conf"
            conf.parent.mkdir(exist_ok=True)
            conf.write_text(f"[renewalparams]\nserver = {settings['server']}\n")
        return None


@dataclass
class Clock:
    now: float = field(default_factory=time.time)

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (certificate, certificate_files, certificate_order):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=made.time, strptime=time.strptime))
    return made


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Client:
    """A machine where a release is live, and whose ACME client is in memory."""
    for module in MODULES:
        for name, value in list(vars(module).items()):
            if isinstance(value, Path) and value.is_absolute() and name.isupper():
                monkeypatch.setattr(module, name, tmp_path / value.relative_to("/"))
    for folder in (paths.TLS, paths.RUN, paths.SETTINGS.parent, paths.ACME_DATA):
        folder.mkdir(parents=True)
    paths.CURRENT.symlink_to("aaaaaaaaaaaa")
    made = Client()
    monkeypatch.setattr(certificate, "order", made.order)
    monkeypatch.setattr(certificate, "check_names", made.check)
    monkeypatch.setattr(certificate_files, "_let_nginx_read", lambda path, mode: path.chmod(mode))
    configure()
    return made


def configure(**changes: Any) -> None:
    https = {
        "names": [NAME, WWW], "by_address": False, "own": False, "server": "https://ca.test/dir", "root": False,
        "profile": "classic", "email": None, "resolvers": [], "hsts": None, **changes,
    }  # fmt: skip
    paths.SETTINGS.write_text(json.dumps({"name": NAME, "https": https}))


def run() -> CertificateStatus:
    certificate.certificate_run()
    return certificate.certificate_status()


def serial() -> str:
    return paths.LIVE_CERTIFICATE.readlink().name


# ---------------------------------------------------------------- whether something is ordered


def test_a_machine_without_https_does_nothing(client: Client) -> None:
    paths.SETTINGS.write_text(json.dumps({"name": NAME, "https": None}))
    assert run()["state"] == "off"
    assert client.calls == []
    assert certificate.has_valid_certificate() is None


def test_settings_of_a_release_before_have_no_https(client: Client) -> None:
    paths.SETTINGS.write_text(json.dumps({"name": NAME}))
    assert run()["state"] == "off"


def test_nothing_is_ordered_before_a_release_is_live(client: Client) -> None:
    paths.CURRENT.unlink()
    status = run()
    assert (status["state"], status["cause"], client.calls) == ("waiting", "no-release", [])


def test_the_first_order_is_for_all_names_that_lead_here(client: Client, clock: Clock) -> None:
    status = run()
    assert client.calls == [([NAME, WWW], False)]
    assert (status["state"], status["names"], status["missing"]) == ("live", [NAME, WWW], [])
    assert (status["issued"], status["renewed"], status["cause"]) == (clock.now, None, "")
    assert certificate.has_valid_certificate() is True


def test_nobody_is_asked_for_six_hours_after_that(client: Client, clock: Clock) -> None:
    run()
    clock.now += 6 * 3600 - 1
    run()
    assert len(client.calls) == 1
    clock.now += 2
    run()
    assert client.calls[1:] == [([NAME, WWW], False)]


def test_a_certificate_of_few_days_is_asked_for_more_often(client: Client, clock: Clock) -> None:
    client.days, client.begins = 1, 0
    run()
    clock.now += DAY / 30 - 1
    run()
    assert len(client.calls) == 1
    clock.now += 2
    run()
    assert len(client.calls) == 2


def test_other_names_are_ordered_at_once(client: Client) -> None:
    run()
    configure(names=[NAME])
    assert run()["names"] == [NAME]
    assert client.calls[1:] == [([NAME], False)]


def test_another_authority_is_asked_at_once(client: Client) -> None:
    run()
    before = serial()
    configure(server="https://other.test/dir")
    assert run()["state"] == "live"
    assert client.calls[1:] == [([NAME, WWW], True)]
    assert serial() != before


def test_a_problem_of_the_sites_name_orders_nothing(client: Client) -> None:
    client.problems = {NAME: Problem("elsewhere", "it leads elsewhere.")}
    status = run()
    assert (status["state"], status["cause"], status["reason"]) == ("waiting", "elsewhere", "it leads elsewhere.")
    assert client.calls == []


def test_a_redirect_with_a_problem_is_left_out_and_named(client: Client) -> None:
    client.problems = {WWW: Problem("no-record", "www leads nowhere.")}
    status = run()
    assert client.calls == [([NAME], False)]
    assert (status["state"], status["missing"], status["reason"]) == ("live", [WWW], "www leads nowhere.")
    run()
    assert len(client.calls) == 1
    client.problems = {}
    assert run()["missing"] == []
    assert client.calls[1:] == [([NAME, WWW], False)]


def test_a_name_of_the_certificate_stays_until_two_thirds_are_over(client: Client, clock: Clock) -> None:
    run()  # 90 days, of which 30 are over
    client.problems = {WWW: Problem("elsewhere", "it leads elsewhere.")}
    clock.now += 29 * DAY
    run()
    assert client.calls[-1] == ([NAME, WWW], False)
    clock.now += 2 * DAY
    run()
    assert client.calls[-1] == ([NAME], False)


def test_the_key_changes_only_where_a_person_asks(client: Client, clock: Clock) -> None:
    run()
    clock.now += DAY
    run()
    configure(server="https://other.test/dir")
    run()
    paths.RENEW_NOW.touch()
    run()
    clock.now += DAY
    run()
    assert [renew for _, renew in client.calls] == [False, False, True, True, False]
    assert client.new_keys == [False, False, False, True, False]


def test_renew_orders_in_any_case(client: Client) -> None:
    run()
    before = serial()
    paths.RENEW_NOW.touch()
    run()
    assert client.calls[-1] == ([NAME, WWW], True)
    assert serial() != before
    assert not paths.RENEW_NOW.exists()


class Systemctl:
    """`systemctl start`, which runs what the unit runs, or takes too long."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.hangs = hangs
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *command: str, check: bool = True, timeout: float | None = None) -> None:
        self.calls.append(command)
        if self.hangs:
            raise subprocess.TimeoutExpired(command, timeout or 0)
        certificate.certificate_run()


def test_the_command_runs_the_unit(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = Systemctl()
    monkeypatch.setattr(certificate, "run", systemctl)
    assert certificate.certificate()["state"] == "live"
    assert systemctl.calls == [("systemctl", "start", "decant-certificate.service")]
    certificate.certificate(renew=True)
    assert client.calls == [([NAME, WWW], False), ([NAME, WWW], True)]


def test_the_command_does_not_wait_for_ever(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "run", Systemctl(hangs=True))
    assert certificate.certificate()["state"] == "waiting"


def test_the_command_starts_nothing_without_https(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = Systemctl()
    monkeypatch.setattr(certificate, "run", systemctl)
    paths.SETTINGS.write_text("{}")
    assert certificate.certificate(renew=True)["state"] == "off"
    assert systemctl.calls == []
    assert not paths.RENEW_NOW.exists()


# ---------------------------------------------------------------- a certificate of the user's own


def test_a_certificate_of_the_users_own(client: Client, clock: Clock) -> None:
    configure(own=True, server="")
    status = run()
    assert (status["state"], status["cause"]) == ("failed", "own-invalid")
    own = client.authority.issue(NAME, WWW)
    paths.OWN_CERTIFICATE.write_text(own.fullchain)
    paths.OWN_KEY.write_text(own.key)
    status = run()
    assert (status["state"], status["names"], status["issued"]) == ("live", [NAME, WWW], clock.now)
    assert (serial().lstrip("0"), client.calls) == (f"{own.serial:x}", [])
    clock.now += 21 * DAY
    status = run()
    assert (status["state"], status["cause"]) == ("failed", "own-invalid")
    assert not paths.LIVE_CERTIFICATE.is_symlink()
    configure()
    clock.now -= 21 * DAY
    assert run()["state"] == "live"
    assert client.calls == [([NAME, WWW], False)]


# ---------------------------------------------------------------- pauses


@pytest.mark.parametrize(
    ("cause", "pauses"),
    [
        ("refused", [900, 1800, 3600, 7200, 14400, 28800, 43200, 43200]),
        ("away", [300, 600, 1200, 2400, 4800, 9600, 19200, 21600]),
        ("rate-limited", [3 * 3600] * 3),
    ],
)
def test_each_failure_makes_the_pause_longer(client: Client, clock: Clock, cause: str, pauses: list[int]) -> None:
    client.failure = Failure(cause, "why")
    for number, pause in enumerate(pauses, 1):
        status = run()
        assert len(client.calls) == number
        assert (status["state"], status["cause"], status["last_try"]) == ("failed", cause, clock.now)
        assert status["next_try"] == clock.now + pause
        clock.now += pause - 1
        assert run() == status
        assert len(client.calls) == number
        clock.now += 1
    client.failure = None
    status = run()
    assert (status["state"], status["cause"], status["next_try"]) == ("live", "", None)


@pytest.mark.parametrize(("said", "kept"), [(DAY, DAY), (30 * DAY, 8 * DAY), (-DAY, 900)])
def test_a_rate_limit_ends_when_the_authority_says(client: Client, clock: Clock, said: float, kept: float) -> None:
    client.failure = Failure("rate-limited", "why", clock.now + said)
    assert run()["next_try"] == clock.now + kept


def test_other_settings_end_the_pause(client: Client) -> None:
    client.failure = Failure("refused", "why")
    run()
    configure(names=[NAME])
    client.failure = None
    assert run()["state"] == "live"


def test_a_pause_by_a_wrong_clock_does_not_count(client: Client, clock: Clock) -> None:
    clock.now += 400 * DAY
    client.failure = Failure("away", "why")
    run()
    clock.now -= 400 * DAY
    client.failure = None
    assert run()["state"] == "live"


def test_a_failed_renewal_leaves_the_certificate(client: Client, clock: Clock) -> None:
    run()
    before = serial()
    clock.now += DAY
    client.failure = Failure("away", "why")
    status = run()
    assert (status["state"], status["cause"], status["reason"]) == ("live", "away", "why")
    assert serial() == before


# ---------------------------------------------------------------- validity


def test_an_ended_certificate_is_withdrawn(client: Client, clock: Clock) -> None:
    run()
    client.failure = Failure("away", "why")
    clock.now += 60 * DAY - 1
    assert run()["state"] == "live"
    clock.now += 2
    assert certificate.has_valid_certificate() is False
    assert run()["state"] == "failed"
    assert not paths.LIVE_CERTIFICATE.is_symlink()


def test_what_has_ended_is_said_where_nothing_else_is_known(client: Client, clock: Clock) -> None:
    run()
    clock.now += 61 * DAY
    paths.CURRENT.unlink()
    assert run()["cause"] == "no-release"


def test_a_certificate_that_is_not_valid_here_is_not_served(client: Client, clock: Clock) -> None:
    clock.now += 61 * DAY
    status = run()
    assert (status["state"], status["cause"]) == ("failed", "invalid")
    assert not paths.LIVE_CERTIFICATE.is_symlink()
    assert status["next_try"] == clock.now + DAY


def test_a_machine_whose_clock_is_slow_serves_its_certificate(client: Client, clock: Clock) -> None:
    clock.now -= 400 * DAY
    assert run()["state"] == "live"
    clock.now -= DAY
    assert run()["state"] == "live"


# ---------------------------------------------------------------- HSTS


@pytest.mark.parametrize(("hsts", "first", "renewed"), [(None, False, True), (True, True, True), (False, False, False)])
def test_browsers_are_told_after_the_first_renewal(
    client: Client, hsts: bool | None, first: bool, renewed: bool
) -> None:
    configure(hsts=hsts)
    run()
    assert paths.HSTS.exists() == first
    paths.RENEW_NOW.touch()
    assert run()["renewed"] is not None
    assert paths.HSTS.exists() == renewed


def test_browsers_are_told_nothing_for_an_address(client: Client) -> None:
    configure(names=["203.0.113.7"], by_address=True, hsts=True)
    assert run()["names"] == ["203.0.113.7"]
    assert not paths.HSTS.exists()


# ---------------------------------------------------------------- files


def test_two_certificates_are_kept(client: Client) -> None:
    seen = []
    for _ in range(4):
        paths.RENEW_NOW.touch()
        run()
        seen.append(serial())
    kept = {path.name for path in paths.TLS.iterdir() if path.is_dir() and not path.is_symlink()}
    assert kept == set(seen[-2:])
    modes = [f"{(paths.LIVE_CERTIFICATE / name).stat().st_mode & 0o777:o}" for name in ("fullchain.pem", "privkey.pem")]
    assert modes == ["640", "640"]


def test_what_a_killed_command_left_is_removed(client: Client) -> None:
    left = paths.TLS / ".live.4711"
    left.symlink_to("gone")
    run()
    assert not left.is_symlink()


def test_the_journal_has_what_changes(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    client.problems = {NAME: Problem("elsewhere", "it leads elsewhere.")}
    run()
    assert capsys.readouterr().out == "it leads elsewhere.\n"
    run()
    assert capsys.readouterr().out == ""
    client.problems = {}
    run()
    assert capsys.readouterr().out == f"a certificate for {NAME}, {WWW} is served from now on.\n"


def test_a_key_that_is_not_the_certificates_is_not_served(client: Client) -> None:
    one, other = client.authority.issue(NAME), client.authority.issue(NAME)
    folder = paths.TLS / "x"
    Issued(fullchain=one.fullchain, key=other.key, serial=1).write(folder)
    found = certificate_files.read_certificate(folder / "fullchain.pem", folder / "privkey.pem")
    assert found is not None
    assert not found.key_fits
    assert not found.is_valid(NAME)
    (folder / "fullchain.pem").write_text("broken")
    assert certificate_files.read_certificate(folder / "fullchain.pem", folder / "privkey.pem") is None


@pytest.mark.parametrize(
    ("names", "name", "covered"),
    [
        ([NAME], NAME, True),
        (["*.app.test"], WWW, True),
        (["*.app.test"], NAME, False),
        (["*.app.test"], "a.www.app.test", False),
        (["203.0.113.7"], "203.0.113.7", True),
        (["2001:db8::7"], "2001:db8::7", True),
    ],
)
def test_names_of_a_certificate(client: Client, names: list[str], name: str, covered: bool) -> None:
    client.authority.issue(*names).write(paths.TLS / "x")
    found = certificate_files.read_certificate(paths.TLS / "x" / "fullchain.pem", paths.TLS / "x" / "privkey.pem")
    assert found is not None
    assert found.covers(name) == covered


def test_a_broken_state_file_counts_as_none(client: Client) -> None:
    paths.CERTIFICATE_STATE.write_text("{")
    assert run()["state"] == "live"


def test_every_waiting_cause_is_one_of_the_list() -> None:
    assert set(certificate.WAITING) - {""} <= set(CAUSES)


# ---------------------------------------------------------------- save and restore


def saved_with(client: Client) -> Any:
    """What a machine saves that got its certificate just now."""
    run()
    account = paths.ACME_DATA / "accounts" / "ca.test" / "dir" / "0a1b"
    account.mkdir(parents=True)
    (account / "private_key.json").write_text("{}")
    live, archive = paths.ACME_DATA / "live" / "site", paths.ACME_DATA / "archive" / "site"
    archive.mkdir(parents=True)
    for name in ("fullchain", "privkey"):
        (archive / f"{name}1.pem").write_text("old")
        (live / f"{name}.pem").rename(archive / f"{name}2.pem")
        (live / f"{name}.pem").symlink_to(f"../../archive/site/{name}2.pem")
    return certificate_archive.save_certificate()


def forget() -> None:
    import shutil

    for folder in (paths.TLS, paths.ACME_DATA):
        shutil.rmtree(folder)
        folder.mkdir()


def test_a_restored_certificate_is_served_and_not_ordered(client: Client, clock: Clock) -> None:
    saved, before = saved_with(client), serial()
    issued = certificate.certificate_status()["issued"]
    forget()
    assert certificate_archive.restore_certificate(saved) == {"restored": True, "reason": ""}
    assert serial() == before
    status = certificate.certificate_status()
    assert (status["state"], status["issued"]) == ("live", issued)
    found = sorted(str(path.relative_to(paths.ACME_DATA)) for path in paths.ACME_DATA.rglob("*") if not path.is_dir())
    assert found == [
        "accounts/ca.test/dir/0a1b/private_key.json", "archive/site/fullchain2.pem", "archive/site/privkey2.pem",
        "live/site/fullchain.pem", "live/site/privkey.pem", "renewal/site.conf",
    ]  # fmt: skip


def test_the_clients_folder_stays_when_a_certificate_is_restored(client: Client) -> None:
    """The client's unit, which may wait for the lock, has it mounted."""
    saved = saved_with(client)
    before = paths.ACME_DATA.stat().st_ino
    forget()
    folder = paths.ACME_DATA.stat().st_ino
    (paths.ACME_DATA / "work").mkdir()
    assert certificate_archive.restore_certificate(saved)["restored"]
    assert paths.ACME_DATA.stat().st_ino == folder
    assert not (paths.ACME_DATA / "work").exists()
    assert before


def test_nothing_is_saved_where_there_is_nothing(client: Client) -> None:
    assert certificate_archive.save_certificate() == {"saved": None}
    assert not certificate_archive.restore_certificate({"saved": None})["restored"]


def test_an_older_certificate_is_not_restored(client: Client) -> None:
    saved = saved_with(client)
    forget()
    paths.RENEW_NOW.touch()
    client.begins = 10
    run()
    before = serial()
    assert certificate_archive.restore_certificate(saved) == {
        "restored": False, "reason": "the machine's own is as new"
    }  # fmt: skip
    assert serial() == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"names": ["other.test"]}, "what was saved is not valid for other.test now"),
        ({"server": "https://other.test/dir"}, "what was saved is not from https://other.test/dir"),
        ({"own": True}, "this machine gets no certificate by itself"),
    ],
)
def test_a_certificate_that_does_not_fit_is_not_restored(client: Client, changes: Any, reason: str) -> None:
    saved = saved_with(client)
    forget()
    configure(**changes)
    assert certificate_archive.restore_certificate(saved) == {"restored": False, "reason": reason}
    assert not paths.LIVE_CERTIFICATE.is_symlink()


def test_an_ended_certificate_is_not_restored(client: Client, clock: Clock) -> None:
    saved = saved_with(client)
    forget()
    clock.now += 61 * DAY
    assert certificate_archive.restore_certificate(saved)["reason"] == f"what was saved is not valid for {NAME} now"


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("accounts/../../x/private_key.json", None),
        ("/etc/passwd", None),
        ("renewal-hooks/deploy/x.sh", None),
        ("live/site/privkey.pem", "/etc/shadow"),
        ("live/site/privkey.pem", "../../archive/site/../../../x1.pem"),
        ("accounts", "/etc"),
        ("archive/site/privkey1.pem", "/etc/shadow"),
        ("../../../made/x", None),
        ("{tmp}/made/one/x", None),
    ],
)
def test_an_archive_writes_nothing_else(client: Client, tmp_path: Path, name: str, link: str | None) -> None:
    import base64
    import io
    import tarfile

    name = name.replace("{tmp}", str(tmp_path))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        tar.addfile(info, io.BytesIO())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(HostError, match="which no certificate needs"):
        certificate_archive.restore_certificate({"saved": base64.b64encode(buffer.getvalue()).decode()})
    assert sorted(set(tmp_path.rglob("*")) - {paths.TLS / ".lock"}) == before


@pytest.mark.parametrize("text", ["?", "bm8=", ""])
def test_a_broken_archive_is_refused(client: Client, text: str) -> None:
    with pytest.raises(HostError, match="the saved certificate cannot be read"):
        certificate_archive.restore_certificate({"saved": text})


@pytest.mark.parametrize(
    "text",
    ["serial=../../../x", "serial=00", "notAfter=Jan  1 00:00:00 2050 GMT", "notBefore=Jan  1 00:00:00 2001 GMT"],
)
def test_a_name_in_a_certificate_changes_no_other_field_of_it(client: Client, tmp_path: Path, text: str) -> None:
    issued = client.authority.issue(NAME, f"x.test\n{text}\n")
    issued.write(tmp_path)
    found = certificate_files.read_certificate(tmp_path / "fullchain.pem", tmp_path / "privkey.pem")
    assert found is not None
    certificates = x509.load_pem_x509_certificates((tmp_path / "fullchain.pem").read_bytes())
    assert int(found.serial, 16) == certificates[0].serial_number
    assert found.not_before == certificates[0].not_valid_before_utc.timestamp()
    assert found.not_after == certificates[0].not_valid_after_utc.timestamp()
    assert found.key_fits


def test_a_key_in_a_name_of_a_certificate_does_not_fit_it(client: Client, tmp_path: Path) -> None:
    client.authority.issue(NAME).write(tmp_path)
    key = load_pem_private_key((tmp_path / "privkey.pem").read_bytes(), None)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    client.authority.issue(NAME, f"x.test\n{public}").write(tmp_path / "forged")
    found = certificate_files.read_certificate(tmp_path / "forged" / "fullchain.pem", tmp_path / "privkey.pem")
    assert found is not None
    assert not found.key_fits


@pytest.mark.parametrize("shown", ["serial=../x", "serial=-1", "serial=", ""])
def test_a_serial_that_is_no_number_is_no_certificate(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    client.authority.issue(NAME).write(tmp_path)
    real = certificate_files._openssl

    def openssl(*options: str) -> str:
        return re.sub(r"(?m)^serial=.*$", shown, real(*options))

    monkeypatch.setattr(certificate_files, "_openssl", openssl)
    assert certificate_files.read_certificate(tmp_path / "fullchain.pem", tmp_path / "privkey.pem") is None
