"""What Decant does on a machine: stage a release beside the live one, switch to it, confirm it or go back.

Runs as root with the system's Python and nothing else. Every verb may be repeated, and killed at any point, after
which repeating it converges. A verb ends with one line of JSON on standard output, or exits 1 with the reason and
the way out on standard error. `docs/design.md` tells the protocol. A release takes half a dozen verbs, each a process
of its own that starts while visitors want the processor: what takes long to import is imported where it is used.

    /var/lib/decant/incoming/      tars as they were copied
    /var/lib/decant/releases/ID/   app/ (the code), venv -> ../../venvs/KEY, release.json, environment.json (root only)
    /var/lib/decant/venvs/KEY/     one per set of requirements, shared by releases
    /var/lib/decant/data/          the app's own data: $DATA_DIR
    /var/lib/decant/persisted      -> releases/ID, the confirmed release: what a boot or a revert brings back
    /run/decant/ID/                socket/gunicorn.sock, static -> the release's static files
    /run/decant/current, previous  -> ID; nginx goes through these
"""
