#!/bin/sh
# -P and -s: nothing but the system's Python and these files, wherever it is called from.
PYTHONPATH=/opt/decant/python exec /usr/bin/python3 -P -s -m decant_host "$@"
