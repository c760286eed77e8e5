"""No request over HTTPS fails while releases go live and the certificate is renewed, as far as visitors can tell."""

from __future__ import annotations

import contextlib
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.visitors import Kind
from decant.rollout.attempt import Attempt
from decant.rollout.plan import Plan
from rehearsal.authority import Authority
from rehearsal.doubles import key_pair
from rehearsal.machines.network import Network
from tests.support.https_site import NAME, WWW, HttpsSite
from tests.support.project_copy import Project
from tests.support.site import Site
from tests.support.visitors import KINDS, Visitors
from tests.support.waiting import PATIENCE

HTTP2_RATE = 20  # requests a second on curl's one connection
FEWEST = 100  # requests that a slow computer sends, too: the load was not left out
# One request in ten comes on a new connection. A handshake costs time of this computer, too, where the visitors are.
MOSTLY_KEPT = (*KINDS, *8 * [kind for kind in KINDS if kind.kept])
BETWEEN = 1.0  # seconds of load alone before each release


@dataclass(kw_only=True)
class Secured:
    """A machine whose site is served over HTTPS, as `site` releases to it, and as `https` renews its certificate."""

    site: Site
    https: HttpsSite

    def release(self, folder: Path) -> str:
        """Put a new release live with the program's own step, and return its id."""
        app = self.site.variant(folder, {"marker.txt": folder.name})
        staged = self.site.stage(app)
        assert staged.status == 0, staged.error
        changes = {"url": f"http://{NAME}", "domain": NAME, "root": self.https.authority.root}
        result = Attempt(Plan.from_dict(staged.release, self.site.plan(staged.release, **changes))).run()
        assert result["url"] == f"https://{NAME}"
        assert result["receipt"]["failed"] == 0
        return staged.release

    def renew(self) -> str:
        """Renew the certificate now, and return the serial number of the one that visitors get then."""
        status = self.https.certificate("--renew")
        assert (status["state"], status["cause"], status["renewed"] is not None) == ("live", "", True), status
        return self.https.get().serial


@pytest.fixture(scope="module")
def secured(hosts: Network, folder: Path) -> Secured:
    private, public = key_pair()
    authority = Authority.start(hosts, "load-authority", say=print)
    machine = hosts.boot("load", flavour="bare", authorized_key=public.strip(), say=print)
    site = Site(machine=machine, network=hosts, project=Project(folder / "load"), private_key=private)
    first = site.up()
    assert first.status == 0, first.error + first.log
    https = HttpsSite(machine=machine, authority=authority)
    https.provision()
    https.lead_here(NAME, WWW)
    assert https.certificate()["state"] == "live"
    return Secured(site=site, https=https)


@dataclass(kw_only=True)
class Http2:
    """Requests over HTTP/2 by curl, on one connection as long as the server keeps it.

    `lines` has, for each answer: status, version, and connections that curl had to make for it. `errors` has what curl
    says of requests without an answer.
    """

    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def take(self, said: str) -> None:
        """Read what curl has written."""
        for line in said.splitlines():
            (self.lines if re.fullmatch(r"\d+ \S+ \d+", line) else self.errors).append(line)

    @property
    def connections(self) -> int:
        return sum(int(line.split()[2]) for line in self.lines)


@contextlib.contextmanager
def http2_requests(secured: Secured, folder: Path) -> Iterator[Http2]:
    """Send requests over HTTP/2 while the block runs."""
    curl = shutil.which("curl")
    assert curl is not None
    seen, output, root = Http2(), folder / "http2", folder / "root.pem"
    root.write_text(secured.https.authority.root)
    argv = [curl, "--http2", "-sS", "--cacert", str(root), "--resolve", f"{NAME}:443:{secured.https.address}"]
    # Standard error has no buffer, which would be lost at the end.
    argv += [
        "--rate",
        f"{HTTP2_RATE}/s",
        "-o",
        "/dev/null",
        "-w",
        "%{stderr}%{http_code} %{http_version} %{num_connects}\n",
    ]
    with output.open("w") as file:
        process = subprocess.Popen([*argv, f"https://{NAME}/healthz?[1-1000000]"], stderr=file)
    try:
        yield seen
        assert process.poll() is None, output.read_text()[-500:]
    finally:
        process.terminate()
        process.wait(PATIENCE)
    seen.take(output.read_text())


# About three minutes for the second one: it is the acceptance of HTTPS under load.
@pytest.mark.parametrize(
    ("rate", "kinds", "at_once", "releases", "renewals"),
    [(80, KINDS, 6, 2, 2), pytest.param(400, MOSTLY_KEPT, 100, 10, 3, marks=pytest.mark.thorough)],
)
def test_no_request_over_https_fails_during_releases_and_renewals(
    secured: Secured,
    tmp_path: Path,
    rate: float,
    kinds: Sequence[Kind],
    at_once: int,
    releases: int,
    renewals: int,
) -> None:
    context = ssl.create_default_context(cadata=secured.https.authority.root)
    orders, serials, live = secured.https.orders(), [secured.https.get().serial], [secured.site.status()["current"]]
    began = time.monotonic()
    with (
        Visitors(secured.https.address, rate=rate, kinds=kinds, at_once=at_once, tls=context, name=NAME) as visitors,
        http2_requests(secured, tmp_path) as http2,
        ThreadPoolExecutor(1) as beside,
    ):
        for number in range(releases):
            time.sleep(BETWEEN)
            # Each renewal begins together with a release.
            renewal = beside.submit(secured.renew) if number < renewals else None
            live.append(secured.release(tmp_path / f"{releases}-{number}"))
            serials += [renewal.result(PATIENCE)] if renewal else []
        visitors.more()
    ended = time.monotonic()
    print(
        f"{releases} releases and {renewals} renewals in {ended - began:.0f} s: {len(visitors.visits)} requests,"
        f" {visitors.statistics((began, ended))}; HTTP/2: {len(http2.lines)} on {http2.connections} connection(s)"
    )
    assert visitors.failures == []
    assert http2.errors == []
    assert {line.rpartition(" ")[0] for line in http2.lines} == {"200 2"}
    assert list(dict.fromkeys(visitors.releases)) == live  # answers on their way at a switch come in any order
    assert len(set(serials)) == renewals + 1
    assert secured.https.orders() == orders + renewals
    assert len(http2.lines) > FEWEST
    assert http2.connections <= 1 + len(http2.lines) // 900  # nginx closes one after 1,000 requests, and a renewal none
    assert len(visitors.visits) > FEWEST
