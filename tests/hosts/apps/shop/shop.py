"""A shop as somebody else might write it: a factory, SQLite in $DATA_DIR, no health path of its own."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from flask import Flask, request


def database() -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(Path(os.environ["DATA_DIR"]) / "shop.db", timeout=30))


def create_app() -> Flask:
    app = Flask(__name__)
    with database() as db, db:
        db.execute("create table if not exists items (name text)")

    @app.get("/")
    def items() -> dict[str, list[str]]:
        with database() as db:
            return {"items": [name for (name,) in db.execute("select name from items order by rowid")]}

    @app.post("/")
    def add() -> str:
        with database() as db, db:
            db.execute("insert into items values (?)", [request.form["name"]])
        return "added"

    return app
