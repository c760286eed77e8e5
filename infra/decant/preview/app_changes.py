"""What the next release changes of the app: its files, packages, names of values, and how it is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from packaging.version import InvalidVersion, Version

from decant.deploy.contents import Preview, Record, ReleaseContents

# The parts of a release's description by their own names (app/release_id.py), for people.
SERVING = {
    "gunicorn": "gunicorn's options",
    "gunicorn_config": "the app's configuration file for gunicorn",
    "wrapper": "the program that starts gunicorn",
    "static": "the folder of static files",
    "install": "how packages are installed",
    "install_project": "how packages are installed",
    "locked": "whether packages are checked by hashes",
    "install_variables": "the variables that the installation needs",
    "debian_packages": "the Debian packages",
    "persistent": "the paths that the app may write",
    "table_line": "what the Procfile needs for the database's tables",
    "runtime": "Decant's own files that serve the app",
}


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names that are new, that have another value, and that are gone, each sorted."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def __len__(self) -> int:
        return len(self.added) + len(self.changed) + len(self.removed)


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package that changes. An empty version: there is none before, or after."""

    name: str
    old: str = ""
    new: str = ""

    @property
    def older(self) -> bool:
        """Whether the new version is older than the old one."""
        try:
            return Version(self.new) < Version(self.old)
        except InvalidVersion:
            return False


@dataclass(frozen=True, kw_only=True)
class Change:
    """A text that changes; None where there is none."""

    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True)
class AppChanges:
    """The differences between two releases."""

    files: Names = field(default_factory=Names)
    packages: tuple[Package, ...] = ()
    variables: Names = field(default_factory=Names)
    secrets: Names = field(default_factory=Names)
    settings: Names = field(default_factory=Names)
    serving: tuple[str, ...] = ()
    """How the app is installed and served, as names for people."""
    entry: Change | None = None
    python: Change | None = None
    release_command: Change | None = None
    values_known: bool = True
    """Whether values could be compared. They cannot after the stack's key has changed."""


def app_changes(record: Record | None, preview: Preview) -> AppChanges | None:
    """What an `up` changes of the app and the settings; None where what is live, or will be, is not recorded."""
    if record is None or record["live"] is None:
        return None
    new = upcoming(record, preview)
    if new is None:
        return None
    same_key = bool(preview["key"]) and preview["key"] == record["key"]
    old = record["live"]
    return AppChanges(
        files=_names(old["files"], new["files"]),
        packages=_packages(old["packages"], new["packages"]),
        variables=_names(old["variables"], new["variables"], values=same_key),
        secrets=_names(old["secrets"], new["secrets"], values=same_key),
        settings=_names(record["settings"], preview["settings"], values=same_key),
        serving=_serving(old, new) if same_key else (),
        entry=_change(old["entry"], new["entry"]),
        python=_change(old["python"], new["python"]),
        release_command=_change(old["release_command"], new["release_command"]),
        values_known=same_key,
    )


def upcoming(record: Record | None, preview: Preview) -> ReleaseContents | None:
    """What the release holds that an `up` puts live; None for one that `decant:release` names and nobody recorded."""
    if preview["pinned"] is None:
        return preview["contents"]
    known = (record["live"], record["before"]) if record else ()
    return next((one for one in known if one and one["release"] == preview["pinned"]), None)


def _names(old: Mapping[str, str], new: Mapping[str, str], *, values: bool = True) -> Names:
    return Names(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(name for name in new.keys() & old.keys() if values and new[name] != old[name])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def _packages(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Package, ...]:
    return tuple(
        Package(name=name, old=old.get(name, ""), new=new.get(name, ""))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def _serving(old: ReleaseContents, new: ReleaseContents) -> tuple[str, ...]:
    names = old["serving"].keys() | new["serving"].keys()
    differ = sorted(name for name in names if old["serving"].get(name) != new["serving"].get(name))
    return tuple(dict.fromkeys(SERVING.get(name, name) for name in differ))


def _change(old: str | None, new: str | None) -> Change | None:
    return None if old == new else Change(old=old, new=new)
