"""What the Procfile runs once for each release."""

import os
import sys

from shop import database

if os.environ.get("MIGRATION") == "fails":
    sys.exit(f"no migration today: {os.environ['API_TOKEN']}")
with database() as db, db:
    db.execute("create table if not exists migrations (release text)")
    db.execute("insert into migrations values (?)", [os.environ["DECANT_RELEASE"]])
