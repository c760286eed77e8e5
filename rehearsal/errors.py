"""The errors of a rehearsal.

Exception
├── RehearsalError          something is missing on this computer, or failed; the text names the remedy
├── StepFailedError         a command of the program failed
├── StoppedError            a step was not begun, because another one failed before
└── UnknownResourceError    the program asks for a resource that has no double
"""

from __future__ import annotations


class RehearsalError(Exception):
    """Something that a rehearsal needs is missing or failed. The text says what, and what to do about it."""


class StepFailedError(Exception):
    """A command of the program failed. The text is what its user has to see."""


class StoppedError(Exception):
    """Another step failed before, so this one was not begun. The text is the step's name."""


class UnknownResourceError(Exception):
    """The program asks for a resource, or gives it an input, that its double cannot play."""
