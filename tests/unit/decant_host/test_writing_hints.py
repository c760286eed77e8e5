"""Hints for apps that write where they may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant_host.error_hints import NOT_SERVING, find_hint

APP = "/var/lib/decant/releases/0123456789ab/app"
ALLOW = "To let it: pulumi config set --path 'decant:persistent[0]'"


def serving(text: str, **settings: object) -> str:
    return find_hint(NOT_SERVING, f"it stopped by itself\n{text}", otherwise="none", **settings)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (f"    os.mkdir(path)\nOSError: [Errno 30] Read-only file system: '{APP}/instance'",
         f"the app writes to instance, which is read-only. {ALLOW} instance"),
        (f"    os.makedirs(path)\nOSError: [Errno 30] Read-only file system: '{APP}/var/cache'",
         f"the app writes to var/cache, which is read-only. {ALLOW} var/cache"),
        (f"    open(path, 'w')\nOSError: [Errno 30] Read-only file system: '{APP}/logs/app.log'",
         f"the app writes to logs/app.log, which is read-only. {ALLOW} logs"),
        (f"    os.makedirs(path)\nOSError: [Errno 30] Read-only file system: '{APP}/shop/../.data'",
         f"the app writes to .data, which is read-only. {ALLOW} .data"),
        ("OSError: [Errno 30] Read-only file system: 'time_interval.json'",
         f"the app writes to time_interval.json, which is read-only. {ALLOW} time_interval.json"),
        (f"OSError: [Errno 30] Read-only file system: '{APP}/notes.json'",
         f"the app writes to notes.json, which is read-only. {ALLOW} notes.json"),
        (f"OSError: [Errno 30] Read-only file system: b'{APP}/my uploads/a.png'",
         f"the app writes to my uploads/a.png, which is read-only. {ALLOW} 'my uploads'"),
        (f"OSError: [Errno 30] Read-only file system: PosixPath('{APP}/logs/x')", f"{ALLOW} logs"),
        (f"PermissionError: [Errno 13] Permission denied: '{APP}/static/a.png'", f"{ALLOW} static"),
        (f"mkdir: cannot create directory '{APP}/logs': Read-only file system", f"{ALLOW} logs"),
        (f"OSError: [Errno 30] Read-only file system: '{APP}/'",
         "the app writes into its own folder, which is read-only. Let it write into a subfolder, and allow that one:"
         " pulumi config set --path 'decant:persistent[0]' FOLDER"),
        ("OSError: [Errno 30] Read-only file system: '/data/uploads'",
         "the app writes to /data/uploads, which is outside of its own folder and read-only. Let it write below"
         " $DATA_DIR, by the variable that names its folder: pulumi config set --path 'decant:env.NAME'"
         " /var/lib/decant/data/FOLDER"),
        ("PermissionError: [Errno 13] Permission denied: '/home/me/x'", "the app writes to /home/me/x, which is"),
        ("ERROR: [Errno 30] Read-only file system", "the app writes to a folder that is read-only."),
    ],
)  # fmt: skip
def test_a_read_only_path_is_named_with_the_setting_that_allows_it(text: str, hint: str) -> None:
    assert hint in serving(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('    conn = sqlite3.connect("data/app.db")\nsqlite3.OperationalError: unable to open database file',
         f"the app writes to data/app.db, which is read-only. {ALLOW} data"),
        ('    conn = sqlite3.connect("blog.db")\nsqlite3.OperationalError: attempt to write a readonly database',
         f"the app writes to blog.db, which is read-only. {ALLOW} blog.db"),
        ("    engine = create_engine('sqlite:///./db/x.sqlite?timeout=1')\n(sqlite3.OperationalError) unable to open"
         " database file", f"the app writes to db/x.sqlite, which is read-only. {ALLOW} db"),
        ("    create_engine('sqlite:////srv/x.db')\nunable to open database file", "the app writes to /srv/x.db,"),
        ("sqlite3.OperationalError: unable to open database file",
         "the app opens a SQLite database where it may not write"),
    ],
)  # fmt: skip
def test_sqlite_does_not_say_which_file_it_is_but_the_code_may(text: str, hint: str) -> None:
    assert hint in serving(text)


def test_the_next_free_index_is_named() -> None:
    text = "OSError: [Errno 30] Read-only file system: 'logs/x'"
    assert serving(text, persistent=3).endswith("'decant:persistent[3]' logs")


def test_a_folder_with_code_is_never_named_as_a_whole(tmp_path: Path) -> None:
    """A writable folder would hide the code of later releases."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "uploads").mkdir()
    code = "OSError: [Errno 30] Read-only file system: 'shop/state.json'"
    data = "OSError: [Errno 30] Read-only file system: 'uploads/a.png'"
    assert serving(code, app=tmp_path).endswith("'decant:persistent[0]' shop/state.json")
    assert serving(data, app=tmp_path).endswith("'decant:persistent[0]' uploads")
