"""`python -m decant_host`: runs the command line."""

from __future__ import annotations

import sys

from decant_host.commands import main

if __name__ == "__main__":
    sys.exit(main())
