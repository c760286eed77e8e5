"""The paths of the files, folders and links that the program uses on a machine."""

from __future__ import annotations

from pathlib import Path

BASE = Path("/var/lib/decant")
RUN = Path("/run/decant")
OPT = Path("/opt/decant")
CACHE = Path("/var/cache/decant")
SETTINGS = Path("/etc/decant/settings.json")
PROGRAM = OPT / "bin" / "decant-host"
RELEASES, VENVS, INCOMING = BASE / "releases", BASE / "venvs", BASE / "incoming"

APP_DATA = BASE / "app-data"
"""What the app writes into its own folder: a folder for each such path, beside the releases and not in them."""

PERSISTED = BASE / "persisted"
"""Link to the confirmed release."""

NEXT_PERSISTED = BASE / ".persisted.next"
"""The link that a confirm renames to PERSISTED."""

CURRENT, PREVIOUS = RUN / "current", RUN / "previous"
"""Links to the live release, and to the one before it, whose static files stay reachable."""

REVERT_LINK = RUN / ".back"
"""The link that a revert renames to CURRENT."""

REVERTED = RUN / "reverted.json"
"""What the last revert took back, and why, until the next confirm."""

LEASE = RUN / "lease"

RUNS = RUN / "runs"
"""A file for each one-off command that runs, which its supervisor keeps locked."""

SANDBOX = Path("/etc/systemd/system/release@.service.d/sandbox.conf")
"""What a release command may use of the machine, and so a one-off command."""

NGINX_LOGS = Path("/var/log/nginx")

IN_ROTATION = RUN / "open"
"""While this file exists, nginx passes a load balancer's health check on to the app."""

DRAINING = RUN / "closing"
"""What IN_ROTATION is renamed to while `pre-stop` waits for the load balancer."""


TLS = BASE / "tls"
"""The certificates that nginx may read: a folder for each by its serial number, and LIVE_CERTIFICATE."""

LIVE_CERTIFICATE = TLS / "live"
"""Link to the folder of the certificate that is served, with fullchain.pem and privkey.pem."""

HSTS = TLS / "hsts"
"""While this file exists, nginx tells browsers to use HTTPS alone."""

CERTIFICATE_STATE = TLS / "state.json"
"""What the last orders came to: see `certificate.State`."""

RENEW_NOW = TLS / "renew-now"
"""While this file exists, the next run renews the certificate, whether that is due or not."""

ACME_DATA = BASE / "certbot"
"""The ACME client's own folder: its accounts and keys, its certificates, its logs."""

WEBROOT = BASE / "acme"
CHALLENGES = WEBROOT / ".well-known" / "acme-challenge"
"""What nginx serves on port 80 under each name, for the certificate authority."""

ACME_CLIENT = OPT / "certbot"
"""The virtual environment with the ACME client."""

DNS_LOOKUP = OPT / "python" / "dns_lookup.py"
ACME_ROOT = Path("/etc/decant/acme-root.pem")
OWN_CERTIFICATE = Path("/etc/decant/certificate.pem")
OWN_KEY = Path("/etc/decant/certificate-key.pem")


def socket_of(release: str) -> Path:
    """The socket on which a release's gunicorn listens."""
    return RUN / release / "socket" / "gunicorn.sock"


def health_path_file(release: str) -> Path:
    """The file with the path on which a running release answered its health check."""
    return RUN / release / "health"
