"""The app by pyinfra. Run with: pyinfra HOST --data app=FOLDER deploy.py."""

from pathlib import Path

from pyinfra import host
from pyinfra.operations import apt, files, pip, server, systemd
from pyinfra.operations.util import any_changed

APP = Path(host.data.app)
FILES = Path(__file__).resolve().parents[1] / "files"

apt.packages(name="Packages", packages=["nginx", "python3-venv"], no_recommends=True, update=True, cache_time=86400)
server.user(  # noqa: S604
    name="The app's user", user="app", system=True, home="/srv/app", shell="/usr/sbin/nologin"
)
code = files.sync(
    name="The code", src=str(APP), dest="/srv/app/code", delete=True, exclude_dir=["__pycache__", "*/__pycache__"]
)
requirements = files.put(
    name="The list of what the app requires", src=str(APP / "requirements.txt"), dest="/srv/app/requirements.txt"
)
pip.venv(name="The virtual environment", path="/srv/app/venv", python="python3")
pip.packages(
    name="What the app requires",
    requirements="/srv/app/requirements.txt",
    virtualenv="/srv/app/venv",
    _if=requirements.did_change,
)
settings = files.put(
    name="The settings of gunicorn", src=str(FILES / "gunicorn.conf.py"), dest="/srv/app/gunicorn.conf.py"
)
unit = files.put(name="The unit", src=str(FILES / "app.service"), dest="/etc/systemd/system/app.service")
site = files.put(name="The site", src=str(FILES / "site.conf"), dest="/etc/nginx/sites-enabled/app")
default = files.link(name="No default site", path="/etc/nginx/sites-enabled/default", present=False)
systemd.service(
    name="Restart the app",
    service="app",
    restarted=True,
    enabled=True,
    daemon_reload=True,
    _if=any_changed(code, requirements, settings, unit),
)
systemd.service(name="Reload nginx", service="nginx", reloaded=True, _if=any_changed(site, default))
