"""`python -m decant.leave`, which states made by the release before name in a delete command; see `ssh/drain.py`."""

from decant.ssh.drain import main

raise SystemExit(main())
