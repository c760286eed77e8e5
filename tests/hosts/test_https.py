"""A machine gets its certificate, renews and keeps it, and names the reason where it cannot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from decant.host import steps
from rehearsal.authority import IDENTITY, Authority
from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from tests.support import certificates
from tests.support.https_site import DATA, NAME, TIMER, UNIT, WWW, HttpsSite
from tests.support.project_copy import Project
from tests.support.site import Site
from tests.support.waiting import wait_for

DAY = 86400


@pytest.fixture(scope="module")
def secure(hosts: Network, folder: Path) -> HttpsSite:
    """A machine with a live release that gets HTTPS from an authority of its own."""
    private, public = key_pair()
    authority = Authority.start(hosts, "https-authority", say=print)
    machine = hosts.boot("https", flavour="bare", authorized_key=public.strip(), say=print)
    plain = Site(machine=machine, network=hosts, project=Project(folder / "https"), private_key=private)
    first = plain.up()
    assert first.status == 0, first.error + first.log
    machine.run("DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes faketime >/dev/null 2>&1")
    made = HttpsSite(machine=machine, authority=authority)
    made.provision()
    return made


@pytest.fixture(autouse=True)
def afresh(secure: HttpsSite) -> Iterator[None]:
    secure.start_over()
    yield
    secure.authority.set_fault("")


def nginx_workers(site: HttpsSite) -> str:
    return site.machine.run(["pgrep", "-x", "nginx"]).stdout


# ---------------------------------------------------------------- the first certificate


def test_a_name_that_leads_nowhere_orders_nothing_and_the_site_is_served(secure: HttpsSite) -> None:
    before = secure.orders()
    status = secure.certificate()
    assert (status["state"], status["cause"], status["missing"]) == ("waiting", "no-record", [NAME, WWW])
    assert status["reason"] == f"{NAME} leads nowhere: set an A record for it, with the address of this machine."
    assert secure.orders() == before
    assert secure.get("http").status == 200
    assert secure.refuses_https()


def test_a_name_that_leads_here_has_its_certificate_without_a_reload(secure: HttpsSite) -> None:
    workers, before = nginx_workers(secure), secure.orders()
    secure.lead_here(NAME, WWW)
    status = secure.certificate()
    assert (status["state"], status["names"], status["missing"]) == ("live", [NAME, WWW], [])
    assert (status["cause"], status["reason"], status["renewed"]) == ("", "", None)
    assert status["not_after"] is not None
    assert status["not_after"] - time.time() == pytest.approx(90 * DAY, abs=300)
    assert status["issued"] == pytest.approx(time.time(), abs=60)
    assert secure.orders() == before + 1
    assert secure.get().status == 200
    moved = secure.get("http", path="/a/b?c=d")
    assert (moved.status, moved.headers["location"]) == (308, f"https://{NAME}/a/b?c=d")
    assert secure.get(name=WWW).headers["location"] == f"https://{NAME}/healthz"
    assert nginx_workers(secure) == workers
    # Nothing is due any more: nothing is ordered, and nobody is asked.
    secure.authority.set_records({})
    assert secure.certificate() == status
    assert secure.orders() == before + 1


def test_only_root_and_nginx_read_the_keys(secure: HttpsSite) -> None:
    secure.lead_here(NAME, WWW)
    secure.certificate()
    found = secure.machine.run(
        f"cd {DATA}; stat -c '%a %U:%G %n'"
        " certbot certbot/accounts tls tls/live tls/live/ tls/live/*.pem tls/state.json acme"
    ).stdout.splitlines()
    assert found == [
        "700 root:root certbot",
        "700 root:root certbot/accounts",
        "750 root:www-data tls",
        "777 root:root tls/live",
        "750 root:www-data tls/live/",
        "640 root:www-data tls/live/fullchain.pem",
        "640 root:www-data tls/live/privkey.pem",
        "600 root:root tls/state.json",
        "755 root:root acme",
    ]
    loose = secure.machine.run(f"find {DATA}/certbot {DATA}/tls -type f -perm /o+rwx").stdout
    assert loose == ""
    assert secure.machine.run(f"ls {DATA}/acme/.well-known/acme-challenge").stdout == ""


def test_a_redirect_that_does_not_lead_here_yet_is_added_later(secure: HttpsSite) -> None:
    secure.lead_here(NAME)
    status = secure.certificate()
    assert (status["state"], status["names"], status["missing"]) == ("live", [NAME], [WWW])
    assert (status["cause"], WWW in status["reason"]) == ("no-record", True)
    before = secure.orders()
    assert secure.certificate()["names"] == [NAME]
    assert secure.orders() == before
    secure.lead_here(NAME, WWW)
    status = secure.certificate()
    assert (status["names"], status["missing"], status["cause"]) == ([NAME, WWW], [], "")
    assert status["renewed"] is None  # another name is no renewal
    assert secure.orders() == before + 1


def test_the_timer_goes_on_by_itself(secure: HttpsSite) -> None:
    fast = f"mkdir -p /run/systemd/system/{TIMER}.d && printf '[Timer]\\nOnUnitInactiveSec=2s\\nAccuracySec=100ms\\n'"
    secure.machine.run(f"{fast} >/run/systemd/system/{TIMER}.d/fast.conf; systemctl daemon-reload")
    try:
        secure.machine.run(["systemctl", "start", TIMER])
        wait_for(lambda: secure.status()["cause"] == "no-record", "the timer looks")
        secure.lead_here(NAME, WWW)
        wait_for(lambda: secure.status()["state"] == "live", "the timer orders")
    finally:
        secure.machine.run(f"systemctl stop {TIMER}; rm -r /run/systemd/system/{TIMER}.d; systemctl daemon-reload")
    assert secure.get().status == 200


# ---------------------------------------------------------------- reasons


def test_a_name_that_leads_to_another_machine_orders_nothing(secure: HttpsSite) -> None:
    before, other = secure.orders(), secure.authority.machine.address
    secure.authority.set_records({NAME: [other], WWW: [secure.address]})
    status = secure.certificate()
    assert (status["state"], status["cause"]) == ("waiting", "elsewhere")
    assert status["reason"] == (
        f"{NAME} leads to {other}, where another server answers. Let its A record lead to this machine."
    )
    secure.authority.set_records({NAME: ["198.51.100.254"]})
    status = secure.certificate()
    assert (status["state"], status["cause"]) == ("waiting", "unreachable")
    assert status["reason"].startswith(f"{NAME} leads to 198.51.100.254, where nothing answers at its port 80 (")
    assert secure.orders() == before


def test_an_ipv6_address_elsewhere_orders_nothing(secure: HttpsSite) -> None:
    before = secure.orders()
    secure.authority.set_records({NAME: [secure.address, "2001:db8::9"]})
    status = secure.certificate()
    assert (status["state"], status["cause"]) == ("waiting", "ipv6-elsewhere")
    assert status["reason"].startswith(
        f"{NAME} has the AAAA record 2001:db8::9, where nothing answers at its port 80 ("
    )
    assert status["reason"].endswith("Remove that record, or let it lead to this machine.")
    assert secure.orders() == before


def test_a_caa_record_that_forbids_the_authority_orders_nothing(secure: HttpsSite) -> None:
    before = secure.orders()
    secure.authority.set_records({NAME: [secure.address], WWW: [secure.address]}, caa={NAME: "other.example"})
    status = secure.certificate()
    assert (status["state"], status["cause"]) == ("waiting", "caa")
    assert status["reason"] == (
        f"a CAA record of {NAME} or of the name above it lets other.example issue certificates. Add the record:"
        f' CAA 0 issue "{IDENTITY}"'
    )
    assert secure.orders() == before
    secure.authority.set_records({NAME: [secure.address], WWW: [secure.address]}, caa={NAME: IDENTITY})
    assert secure.certificate()["state"] == "live"


@pytest.mark.parametrize(
    ("fault", "cause", "text", "pause"),
    [
        ("away", "away", "the certificate authority does not answer at https://", 300),
        ("overloaded", "away", "the certificate authority does not answer at https://", 300),
        ("rate-limited", "rate-limited", "the certificate authority takes no further order for app.test, www", 3 * DAY),
    ],
)  # fmt: skip
def test_a_failed_order_is_not_repeated_at_once(
    secure: HttpsSite, fault: str, cause: str, text: str, pause: float
) -> None:
    secure.lead_here(NAME, WWW)
    until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + pause))
    secure.authority.set_fault(fault, until=until)  # type: ignore[arg-type]
    status = secure.certificate()
    assert (status["state"], status["cause"]) == ("failed", cause)
    assert status["reason"].startswith(text)
    assert status["next_try"] == pytest.approx(time.time() + pause, abs=60)
    secure.authority.set_fault("")
    before = secure.orders()
    assert secure.certificate() == status
    assert secure.orders() == before
    assert secure.get("http").status == 200
    assert secure.certificate("--renew")["state"] == "live"


def test_an_authority_that_has_forgotten_the_account_gets_a_new_one(secure: HttpsSite) -> None:
    secure.lead_here(NAME, WWW)
    first = secure.certificate()
    secure.authority.forget()
    secure.provision()  # with the authority's new root
    second = secure.certificate("--renew")
    assert (second["state"], second["cause"]) == ("live", "")
    assert second["not_before"] != first["not_before"]


def test_an_order_that_is_killed_is_made_again(secure: HttpsSite) -> None:
    secure.lead_here(NAME, WWW)
    before = secure.orders()
    secure.machine.run(["systemctl", "start", "--no-block", UNIT])
    wait_for(lambda: secure.orders() > before, "an order")
    secure.machine.run(["systemctl", "kill", "--signal=KILL", UNIT])
    assert secure.certificate()["state"] == "live"
    assert secure.get().status == 200


# ---------------------------------------------------------------- renewals


def test_a_renewal_that_is_asked_for_has_a_new_key_and_reloads_nothing(secure: HttpsSite) -> None:
    secure.lead_here(NAME, WWW)
    secure.certificate()
    workers, keys = nginx_workers(secure), [secure.machine.run(f"cat {DATA}/tls/live/privkey.pem").stdout]
    first = secure.get()
    assert "strict-transport-security" not in first.headers
    serials = [first.serial]
    for _ in range(3):
        status = secure.certificate("--renew")
        assert status["renewed"] == pytest.approx(time.time(), abs=60)
        reply = secure.get()
        assert reply.headers["strict-transport-security"] == "max-age=63072000"
        serials.append(reply.serial)
        keys.append(secure.machine.run(f"cat {DATA}/tls/live/privkey.pem").stdout)
    assert len(set(serials)) == len(set(keys)) == 4
    folders = secure.machine.run(f"cd {DATA}/tls; ls -d */ | grep -v live").stdout.splitlines()
    assert {name.strip("/").lstrip("0") for name in folders} == set(serials[-2:])
    assert nginx_workers(secure) == workers


def test_a_renewal_comes_at_a_third_of_the_lifetime(secure: HttpsSite) -> None:
    secure.lead_here(NAME, WWW)
    first = secure.certificate()
    before = secure.orders()
    assert secure.at(days=50)["not_before"] == first["not_before"]
    assert secure.orders() == before
    second = secure.at(days=62)
    assert second["not_before"] != first["not_before"]
    assert secure.orders() == before + 1
    assert secure.get().status == 200


def test_the_old_certificate_goes_on_while_the_authority_is_away(secure: HttpsSite) -> None:
    secure.lead_here(NAME, WWW)
    first = secure.certificate()
    secure.authority.set_fault("away")
    status = secure.at(days=62)
    assert (status["state"], status["cause"], status["not_after"]) == ("live", "away", first["not_after"])
    assert secure.get().status == 200


def test_an_ended_certificate_is_withdrawn_and_comes_back(secure: HttpsSite) -> None:
    secure.lead_here(NAME, WWW)
    secure.certificate()
    secure.authority.set_fault("away")
    status = secure.at(days=91)
    assert (status["state"], status["cause"], status["names"]) == ("failed", "away", [])
    assert secure.get("http").status == 200
    assert secure.refuses_https()
    secure.authority.set_fault("")
    assert secure.certificate()["state"] == "live"  # what was far ahead by the wrong clock does not count
    assert secure.get().status == 200


def test_a_wrong_clock_orders_once(secure: HttpsSite) -> None:
    secure.lead_here(NAME, WWW)
    before = secure.orders()
    assert secure.at(days=100)["cause"] == "invalid"
    assert secure.at(days=100)["cause"] == "invalid"
    assert secure.orders() == before + 1


def test_a_name_that_is_gone_is_left_out_of_the_renewal(secure: HttpsSite) -> None:
    secure.lead_here(NAME, WWW)
    secure.certificate()
    secure.lead_here(NAME)
    status = secure.at(days=62)
    assert (status["state"], status["names"], status["missing"]) == ("live", [NAME], [WWW])


# ---------------------------------------------------------------- another machine


def test_a_new_machine_goes_on_with_the_old_ones_certificate(secure: HttpsSite, hosts: Network) -> None:
    assert json.loads(secure.machine.run([steps.PROGRAM, "certificate-save"]).stdout) == {"saved": None}
    secure.lead_here(NAME, WWW)
    secure.certificate()
    old = secure.certificate("--renew")
    serial = secure.get().serial
    saved = secure.machine.run([steps.PROGRAM, "certificate-save"]).stdout
    assert len(json.loads(saved)["saved"]) < 10000

    _, public = key_pair()
    machine = hosts.boot("https-2", flavour="bare", authorized_key=public.strip(), say=print)
    machine.wait_running()
    new = HttpsSite(machine=machine, authority=secure.authority)
    new.provision()
    restored = machine.run([steps.PROGRAM, "certificate-restore"], input=saved)
    assert json.loads(restored.stdout) == {"restored": True, "reason": ""}
    assert new.get().serial == serial
    again = machine.run([steps.PROGRAM, "certificate-restore"], input=saved)
    assert json.loads(again.stdout) == {"restored": False, "reason": "the machine's own is as new"}

    machine.run("mkdir -p /run/decant && ln -s 0123456789ab /run/decant/current")  # a release is live
    before = new.orders()
    new.lead_here(NAME, WWW)
    status = new.certificate()
    for part in ("state", "names", "not_after", "issued", "renewed"):
        assert status[part] == old[part]
    assert new.orders() == before
    renewed = new.certificate("--renew")
    assert (renewed["cause"], new.orders()) == ("", before + 1)
    accounts = "find /var/lib/decant/certbot/accounts -name private_key.json -exec sha256sum {} +"
    assert machine.run(accounts).stdout == secure.machine.run(accounts).stdout


def test_what_no_save_has_made_is_refused(secure: HttpsSite) -> None:
    done = secure.machine.run([steps.PROGRAM, "certificate-restore"], input='{"saved": "bm8="}', check=False)
    assert done.returncode == 1
    assert "the saved certificate cannot be read" in done.stderr


# ---------------------------------------------------------------- other kinds


def test_an_address_gets_a_certificate(secure: HttpsSite) -> None:
    secure.provision(names=[secure.address], by_address=True, profile="shortlived")
    try:
        status = secure.certificate()
        assert (status["state"], status["names"]) == ("live", [secure.address])
        assert secure.get(name=secure.address).status == 200
        assert secure.get("http", name=secure.address).status == 200
    finally:
        secure.provision()


def test_a_certificate_of_the_users_own_is_served_and_never_ordered(secure: HttpsSite) -> None:
    before, issuer = secure.orders(), certificates.Authority()
    own = issuer.issue(NAME, WWW)
    secure.provision(own=(own.fullchain, own.key))
    try:
        status = secure.certificate()
        assert (status["state"], status["names"], status["cause"]) == ("live", [NAME, WWW], "")
        assert secure.get(root=issuer.root).serial == f"{own.serial:x}"
        newer = issuer.issue(NAME, WWW)
        secure.provision(own=(newer.fullchain, newer.key))
        secure.certificate()
        assert secure.get(root=issuer.root).serial == f"{newer.serial:x}"
        ended = issuer.issue(NAME, WWW, days=-0.5)
        secure.provision(own=(ended.fullchain, ended.key))
        status = secure.certificate()
        assert (status["state"], status["cause"]) == ("live", "own-invalid")  # the one before goes on
        assert status["reason"].startswith(f"decant:certificate is not valid for {NAME} now.")
        assert json.loads(secure.machine.run([steps.PROGRAM, "certificate-save"]).stdout) == {"saved": None}
    finally:
        secure.provision()
    assert secure.orders() == before


# ---------------------------------------------------------------- what the ACME client may do


def inside_the_unit(site: HttpsSite, script: str) -> list[str]:
    """Run a script in place of the unit's program, and return the lines that it prints."""
    made = f"[Service]\nExecStart=\nExecStart=/bin/sh -c {json.dumps(script + '; true')}\n"
    folder = f"/run/systemd/system/{UNIT}.d"
    site.machine.run(f"mkdir -p {folder} && cat >{folder}/try.conf && systemctl daemon-reload", input=made)
    try:
        site.machine.run(["systemctl", "start", UNIT])
        return site.machine.run(f"journalctl -o cat --invocation=0 -u {UNIT} --no-pager").stdout.splitlines()
    finally:
        site.machine.run(f"rm -r {folder}; systemctl daemon-reload")


def test_the_unit_writes_to_its_own_folders_alone(secure: HttpsSite) -> None:
    script = "; ".join(
        f"(: >{path}) 2>/dev/null && echo wrote {path}"
        for path in (
            f"{DATA}/certbot/x", f"{DATA}/acme/x", f"{DATA}/tls/x", f"{DATA}/x", "/etc/decant/x", "/opt/decant/x",
            "/run/decant/x", "/etc/x", "/run/x", "/usr/x", "/var/lib/x", "/root/x",
        )
    )  # fmt: skip
    script += f"; cat {DATA}/releases/*/environment.json; ls {DATA} /root"
    for name in ("systemd/private", "dbus/system_bus_socket"):
        script += f"; python3 -c \"import socket; socket.socket(1).connect('/run/{name}')\" && echo asked systemd"
    lines = inside_the_unit(secure, script)
    assert [line for line in lines if line.startswith("wrote")] == [
        f"wrote {DATA}/certbot/x",
        f"wrote {DATA}/acme/x",
        f"wrote {DATA}/tls/x",
    ]
    assert "SECRET" not in "\n".join(lines)
    assert "asked systemd" not in lines
    assert [name for name in ("releases", "data", "venvs") if name in lines] == []
    assert {"acme", "certbot", "tls"} <= set(lines)


def test_the_unit_reads_no_secret_of_the_machine(secure: HttpsSite) -> None:
    own = ["/var/backups/shadow.bak", "/etc/ssl/private/x.key", "/srv/x", "/root/x", "/home/x/x", "/var/log/x"]
    secrets = ["/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/ssh/ssh_host_ed25519_key", *own]
    known = ["/etc/passwd", f"{DATA}/tls/x", f"{DATA}/certbot/x"]
    run = secure.machine.run
    made = run("ls -d /home/x /etc/shadow- /etc/gshadow- 2>/dev/null; true").stdout.split()
    for path in [*own, *known[1:], *({"/etc/shadow-", "/etc/gshadow-"} - set(made))]:
        run(f"mkdir -p {path.rpartition('/')[0]} && echo here >{path}")
    try:
        assert run(f"head -qc 1 {' '.join(secrets)} | wc -c").stdout.strip() == str(len(secrets)), "root reads them all"
        script = "; ".join(f"head -c 1 {path} >/dev/null 2>&1 && echo read {path}" for path in [*secrets, *known])
        assert inside_the_unit(secure, script) == [f"read {path}" for path in known]
    finally:
        run(f"rm -rf {' '.join(own)} /home/x {DATA}/tls/x {DATA}/certbot/x")


# ---------------------------------------------------------------- the end


def test_nothing_of_the_certificate_stays_on_a_host_that_is_given_back(secure: HttpsSite) -> None:
    """The last test: the machine serves nothing after it."""
    secure.lead_here(NAME, WWW)
    secure.certificate()
    secure.machine.run(["systemctl", "start", TIMER])
    secure.machine.run(["/opt/decant/bin/decant-remove"])
    found = secure.machine.run("find /etc /opt /var /run -xdev -name '*decant*' -o -xdev -name '*certbot*'").stdout
    assert [name for name in found.splitlines() if "/journal/" not in name] == []
    units = secure.machine.run("systemctl list-units --all --plain --no-legend 'decant-*'").stdout
    assert units == ""
