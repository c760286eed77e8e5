"""The app by Fabric. Run with: fab -H USER@HOST -i KEY setup deploy --app FOLDER; later releases need deploy alone."""

import io
import tarfile
from pathlib import Path

from fabric import Connection, task

FILES = Path(__file__).resolve().parents[1] / "files"


def _packed(app: Path) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(app, arcname=".", filter=lambda one: None if one.name.endswith("__pycache__") else one)
    buffer.seek(0)
    return buffer


@task
def setup(connection: Connection) -> None:
    """Once: packages, user, unit, site."""
    packages = "nginx python3-venv"
    connection.run("apt-get -qq update", hide=True)
    connection.run(f"DEBIAN_FRONTEND=noninteractive apt-get -qqy install --no-install-recommends {packages}", hide=True)
    connection.run("useradd --system --home-dir /srv/app --shell /usr/sbin/nologin app")
    connection.run("mkdir -p /srv/app/code && python3 -m venv /srv/app/venv")
    connection.put(FILES / "gunicorn.conf.py", "/srv/app/gunicorn.conf.py")
    connection.put(FILES / "app.service", "/etc/systemd/system/app.service")
    connection.put(FILES / "site.conf", "/etc/nginx/sites-enabled/app")
    connection.run("rm /etc/nginx/sites-enabled/default && systemctl reload nginx")
    connection.run("systemctl daemon-reload && systemctl enable -q app")


@task
def deploy(connection: Connection, app: str) -> None:
    """Each release: code, requirements, restart."""
    connection.put(_packed(Path(app)), "/srv/app/code.tar.gz")
    connection.run("rm -rf /srv/app/code && mkdir /srv/app/code && tar -xzf /srv/app/code.tar.gz -C /srv/app/code")
    connection.run("/srv/app/venv/bin/pip install -q -r /srv/app/code/requirements.txt")
    connection.run("systemctl restart app")
