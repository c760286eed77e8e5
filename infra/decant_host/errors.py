"""The one exception of the machine's program."""


class HostError(Exception):
    """An error for the user: what happened, and what to do. The command line prints it without a traceback."""
