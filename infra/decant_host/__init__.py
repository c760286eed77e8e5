"""The program on machines: it stages a release beside the live one, switches to it, and confirms it or goes back.

It runs as root with the system's Python and the standard library alone. Every command may be repeated. It may also be
killed at any point: repeating it then completes the work. A command prints one line of JSON on standard output, or
exits with status 1 and prints the reason and the way out on standard error.

A release takes half a dozen commands, each in a process of its own that starts while visitors need the processor.
Modules that are slow to import are therefore imported inside the functions that need them.

    /var/lib/decant/incoming/      tars as they were copied
    /var/lib/decant/releases/ID/   app/ (the code), venv -> ../../venvs/KEY, release.json, environment.json (root only)
    /var/lib/decant/venvs/KEY/     one for each set of requirements, shared by releases
    /var/lib/decant/data/          the app's own data: $DATA_DIR
    /var/lib/decant/persisted      -> releases/ID, the confirmed release: a boot or a revert brings it back
    /run/decant/ID/                socket/gunicorn.sock, static -> the release's static files
    /run/decant/current, previous  -> ID; nginx follows these links
"""
